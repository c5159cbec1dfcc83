import type { PlannedChange } from '../contract.ts';
import type { HaproxyDesired } from './desired.ts';
import { CONFIG_FILE, DATABASE_SWITCH, LOCAL, type Rendered, twinOf, type WantedServer } from './rendered.ts';
import type { ServerState } from './runtime.ts';
import type { SiteSituation } from './site-certificate.ts';
import type { Complaint, UsedSnippet } from './snippets.ts';

/** What a running HAProxy says about itself. */
export interface Running {
  /** Of the worker. */
  readonly pid: number;
  /**
   * True if its socket has `add server`. Otherwise a reload adds new servers and removes old ones, as servers of the
   * configuration cannot be deleted either.
   */
  readonly addsServers: boolean;
  readonly structure: string;
  readonly servers: readonly ServerState[];
  /** Frontend → takes connections. */
  readonly frontends: ReadonlyMap<string, boolean>;
  /** `BACKEND/NAME` of servers that have connections. */
  readonly busy: ReadonlySet<string>;
  /** Serials that it refuses. */
  readonly revoked: readonly string[];
  /** The certificate of the site that it has loaded: under which path, and the SHA-1 of its leaf in hex. */
  readonly site?: { readonly file: string; readonly sha1: string } | undefined;
}

export interface HaproxyObserved {
  /** Name → SHA-256 (hex) of each file in the directory that is ours. */
  readonly files: ReadonlyMap<string, string>;
  /** Undefined: nobody answers at the socket. */
  readonly running: Running | undefined;
  /** Old processes, from before the last reloads, that finish their requests, and their connections. */
  readonly old?: { readonly processes: number; readonly connections: number };
  /** Optional lines that the installed HAProxy refuses. */
  readonly refused: ReadonlySet<string>;
  /** Snippets that HAProxy refused, by their keys, and why. */
  readonly refusedSnippets?: ReadonlyMap<string, Complaint>;
  /** What a certificate for the site is judged by. */
  readonly site: SiteSituation;
  /** Whether this host has IPv6. */
  readonly ipv6: boolean;
}

/** In the order in which they are made. */
export type HaproxyChange = PlannedChange &
  (
    | {
        readonly kind: 'file';
        readonly name: string;
        readonly content: string;
        /** The founder's parts that it has. */
        readonly snippets?: readonly UsedSnippet[];
      }
    /** Nobody answers: the unit starts with the file. */
    | { readonly kind: 'start' }
    | {
        readonly kind: 'reload';
        readonly rendered: Rendered;
        /** Frontends of the running process. */
        readonly running?: ReadonlySet<string>;
      }
    /** `file`: the path under which the process knows the certificate of the site. */
    | { readonly kind: 'site'; readonly file: string; readonly content: string; readonly rendered: Rendered }
    | { readonly kind: 'frontend-open'; readonly frontend: string }
    | { readonly kind: 'revoke'; readonly mark: string; readonly address: string | undefined }
    | { readonly kind: 'unrevoke'; readonly mark: string }
    | {
        readonly kind: 'server-add';
        readonly server: WantedServer;
        readonly admin: Admin;
        readonly rendered: Rendered;
      }
    | { readonly kind: 'server-address'; readonly server: WantedServer }
    | {
        readonly kind: 'server-state';
        readonly backend: string;
        readonly name: string;
        readonly admin: Admin;
        readonly fresh: boolean;
        /** Membership and the check agree that its host is gone: open requests would wait for minutes. */
        readonly cut: boolean;
      }
    | { readonly kind: 'server-down'; readonly backend: string; readonly name: string }
    | { readonly kind: 'server-check'; readonly backend: string; readonly name: string }
    | { readonly kind: 'server-weight'; readonly backend: string; readonly name: string }
    | {
        readonly kind: 'server-remove';
        readonly backend: string;
        readonly name: string;
        /** False: it rests in maintenance until a reload forgets it. */
        readonly deletes: boolean;
      }
    | { readonly kind: 'server-delete'; readonly backend: string; readonly name: string }
  );

type Admin = 'ready' | 'drain' | 'maint';

/**
 * After a start of the daemon CouchDB is not observed yet: the present state stays, so that nothing is changed twice.
 */
export function decided(desired: HaproxyDesired, { running }: HaproxyObserved): HaproxyDesired {
  if (desired.instance === 'app' || desired.databases !== undefined) return desired;
  const { backend, name } = DATABASE_SWITCH;
  const present = running?.servers.find((server) => server.backend === backend && server.name === name);
  const given = present !== undefined && !present.maint;
  return { ...desired, databases: { given, why: 'unchanged' } };
}

/** The difference between the desired and the observed state. Pure. */
export function planHaproxy(
  rendered: Rendered,
  observed: HaproxyObserved,
  digestOf: (text: string) => string,
): HaproxyChange[] {
  // HAProxy may start in a run that found it absent: its snippets come in the next one.
  const later = rendered.snippets.length > 0 ? ({ step: 'once' } as const) : {};
  const files = rendered.files
    .filter((file) => observed.files.get(file.name) !== digestOf(file.content))
    .map((file): HaproxyChange => {
      const verb = observed.files.has(file.name) ? 'rewritten' : 'written';
      const { snippets } = rendered;
      if (file.name !== CONFIG_FILE || snippets.length === 0)
        return { kind: 'file', ...file, summary: `${file.name}: ${verb}` };
      const summary = `${file.name}: ${verb}, with ${snippets.map(({ name }) => name).join(', ')}`;
      return { kind: 'file', ...file, snippets, summary, ...later };
    });
  const { running } = observed;
  if (running === undefined) {
    return [
      ...files,
      { kind: 'start', summary: 'HAProxy is not running: it reads the configuration at its start' },
    ];
  }
  const reason = reloadReason(rendered, running);
  if (reason !== undefined) {
    const frontends = new Set(running.frontends.keys());
    const summary = `reload: ${reason}`;
    return [...files, { kind: 'reload', rendered, running: frontends, summary, ...later }];
  }
  const site = siteChange(rendered, running, files);
  return [...files, ...site, ...(site[0]?.kind === 'reload' ? [] : planRuntime(rendered, running))];
}

/** A new site certificate is given to the running process: a reload would end idle connections. */
function siteChange(
  rendered: Rendered,
  { site }: Running,
  written: readonly HaproxyChange[],
): HaproxyChange[] {
  const wanted = rendered.site;
  if (wanted === undefined) return [];
  // The same leaf may come with another chain.
  const isNew = written.some((each) => each.kind === 'file' && each.name === wanted.name);
  if (site === undefined)
    return isNew ? [{ kind: 'reload', rendered, summary: 'reload: new certificate of the site' }] : [];
  if (!isNew && site.sha1 === wanted.sha1) return [];
  const { content } = wanted;
  return [{ kind: 'site', file: site.file, content, rendered, summary: 'new certificate of the site' }];
}

function reloadReason(rendered: Rendered, running: Running): string | undefined {
  if (running.structure === '') return 'it runs a configuration that is not ours';
  if (running.structure !== rendered.structure) return 'the structure changed';
  const closed = rendered.frontends.find((name) => !running.frontends.has(name));
  if (closed !== undefined) return `frontend ${closed} was shut down`;
  const missing = rendered.servers.filter((server) => find(running.servers, server) === undefined);
  const fixed = missing.find((server) => !server.peer);
  if (fixed !== undefined) return `server ${label(fixed)} is gone`;
  const first = missing[0];
  if (first !== undefined && !running.addsServers)
    return `server ${label(first)} is new, and this HAProxy adds servers by a reload only`;
  return undefined;
}

/** What the running process can get without a reload. Additions come before removals: never empty in between. */
export function planRuntime(rendered: Rendered, running: Running): HaproxyChange[] {
  const changes = rendered.servers.flatMap((server) => serverChanges(server, rendered, running));
  const rank = (change: HaproxyChange): number => {
    if (change.kind === 'server-add') return 0;
    return change.kind === 'server-state' && change.admin !== 'ready' ? 2 : 1;
  };
  const planned: HaproxyChange[] = [
    ...revocationChanges(rendered, running),
    ...[...running.frontends]
      .filter(([name, open]) => !open && rendered.frontends.includes(name))
      .map(
        ([frontend]): HaproxyChange => ({
          kind: 'frontend-open',
          frontend,
          summary: `frontend ${frontend}: closed → open`,
        }),
      ),
    ...changes.toSorted((a, b) => rank(a) - rank(b)),
    ...removals(rendered, running),
  ];
  return planned.map((change) => {
    const server = 'server' in change ? change.server : 'backend' in change ? change : undefined;
    if (server === undefined) return change;
    const wanted = rendered.servers.find(
      ({ backend, name }) => backend === server.backend && name === server.name,
    );
    return { ...change, subjects: wanted?.subjects ?? memberOf(server) };
  });
}

/** A peer's server has the name of its host, and its backend tells the role. */
function memberOf({ backend, name }: { readonly backend: string; readonly name: string }): string[] {
  if (/^(svc_|local_|door\.)/.test(backend) && name !== LOCAL) return [`${name}/app`];
  return /^(db_nodes|couchdb)(\.|$)/.test(backend) && name !== LOCAL ? [`${name}/db`] : [];
}

function revocationChanges(rendered: Rendered, running: Running): HaproxyChange[] {
  const wanted = new Map(rendered.revoked.map((each) => [each.mark, each.address]));
  const present = new Set(running.revoked);
  return [
    ...[...wanted]
      .filter(([mark]) => !present.has(mark))
      .map(([mark, address]): HaproxyChange => {
        const cut = address === undefined ? '' : `, sessions from ${address} are cut`;
        return {
          kind: 'revoke',
          mark,
          address,
          summary: mark.startsWith('+')
            ? `${certificate(mark)}: accepted although its issuer was removed`
            : `${certificate(mark)}: refused from now on${cut}`,
        };
      }),
    ...[...present]
      .filter((mark) => !wanted.has(mark))
      .map(
        (mark): HaproxyChange => ({
          kind: 'unrevoke',
          mark,
          summary: `${certificate(mark)}: no longer ${mark.startsWith('+') ? 'known' : 'refused'}`,
        }),
      ),
  ];
}

/**
 * A line of the list is a serial, the end of an authority's name, or after a plus the digest of a good
 * certificate.
 */
const certificate = (mark: string): string =>
  /^\+?([0-9A-F]{2})+$/.test(mark) ? `certificate ${mark}` : `certificates by authority ${mark}`;

function serverChanges(server: WantedServer, rendered: Rendered, running: Running): HaproxyChange[] {
  const present = find(running.servers, server);
  const admin = adminOf(server, running.servers);
  const where = { backend: server.backend, name: server.name };
  if (present === undefined) {
    return [
      {
        kind: 'server-add',
        server,
        admin,
        rendered,
        summary: `${label(server)}: added as ${admin} (${server.why})`,
      },
    ];
  }
  const changes: HaproxyChange[] = [];
  if (present.address !== server.address || present.port !== server.port) {
    const summary = `${label(server)}: ${present.address}:${present.port} → ${server.address}:${server.port}`;
    changes.push({ kind: 'server-address', server, summary });
  }
  const was = stateWord(present);
  if (was !== admin) {
    // A twin's last verdict may be old; it starts as up, and its check tells.
    const fresh = server.backend.endsWith(twinOf('')) && admin === 'ready';
    const cut = server.duty === 'out-when-down' && admin === 'maint';
    changes.push({
      kind: 'server-state',
      ...where,
      admin,
      fresh,
      cut,
      summary: `${label(server)}: ${was} → ${admin} (${reasonOf(server, admin)})`,
      // Another check may end meanwhile: what follows from that is no sign that this change did not hold.
      ...(server.duty === 'out-when-down' && { step: 'once' }),
    });
  }
  if (server.failing === true && present.up && was === 'ready')
    changes.push({
      kind: 'server-down',
      ...where,
      summary: `${label(server)}: down (the check of this node failed)`,
      step: 'repeats',
    });
  if (!present.checked) {
    changes.push({
      kind: 'server-check',
      ...where,
      summary: `${label(server)}: health check was disabled, enabled again`,
    });
  }
  if (!present.fullWeight) {
    changes.push({
      kind: 'server-weight',
      ...where,
      summary: `${label(server)}: weight was changed, restored`,
    });
  }
  return changes;
}

/**
 * A dead daemon is not a dead service: a member that is dead by membership alone serves on, until the second check
 * fails as well, and comes back when that passes. A host that answers nothing may have paused for a second: what it has
 * may still be answered, until membership agrees.
 */
function adminOf(server: WantedServer, present: readonly ServerState[]): Admin {
  if (server.silent === true && server.duty === 'ready') return 'drain';
  if (server.duty !== 'out-when-down') return server.duty;
  if (server.silent === true) return 'maint';
  const twin = find(present, { backend: twinOf(server.backend), name: server.name });
  return twin !== undefined && !twin.maint && !twin.up ? 'maint' : 'ready';
}

function reasonOf(server: WantedServer, admin: Admin): string {
  if (server.silent === true && admin !== server.duty) return 'its host does not answer';
  if (server.duty !== 'out-when-down') return server.why;
  return admin === 'maint' ? `${server.why}, and its check fails` : `${server.why}, but its check passes`;
}

/**
 * A server that is no longer wanted goes to maintenance and then away. HAProxy refuses to delete it while
 * connections are open; until then it rests in maintenance, which counts as done. Servers of a snippet stay.
 */
function removals(rendered: Rendered, running: Running): HaproxyChange[] {
  const deletes = running.addsServers;
  return running.servers
    .filter((server) => rendered.backends.has(server.backend) && find(rendered.servers, server) === undefined)
    .filter((server) => !server.maint || (deletes && !running.busy.has(label(server))))
    .map(({ backend, name, maint }): HaproxyChange => {
      const server = { backend, name };
      if (!maint)
        return {
          kind: 'server-remove',
          ...server,
          deletes,
          summary: `${label(server)}: removed (not a member)`,
        };
      const summary = `${label(server)}: deleted (its last connection ended)`;
      return { kind: 'server-delete', ...server, summary, step: 'repeats' };
    });
}

const label = ({ backend, name }: { backend: string; name: string }): string => `${backend}/${name}`;

function stateWord(server: ServerState): Admin {
  if (server.maint) return 'maint';
  return server.drain ? 'drain' : 'ready';
}

function find<S extends { backend: string; name: string }>(
  servers: readonly S[],
  wanted: { backend: string; name: string },
): S | undefined {
  return servers.find((server) => server.name === wanted.name && server.backend === wanted.backend);
}
