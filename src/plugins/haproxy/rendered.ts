import type { Duty } from './desired.ts';
import { type UsedSnippet, withSnippets } from './snippets.ts';

/** The rendered desired state: HAProxy's files, and its servers as far as they can be changed at run time. */

/** Where this instance's files and sockets lie. */
export interface Layout {
  readonly directory: string;
  readonly statsSocket: string;
  /** Whether this host has IPv6: without it, HAProxy does not start with an IPv6 address. */
  readonly ipv6?: boolean;
}

/** A server line, taken apart: what can be changed at run time is apart from what can't (`options`). */
export interface WantedServer {
  readonly backend: string;
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** Everything after the address on its line. */
  readonly options: string;
  readonly duty: Duty;
  readonly why: string;
  /** Members (HOST/ROLE) that the reason is about; undefined: the one whose server it is. */
  readonly subjects?: readonly string[];
  /** The daemon saw it fail: out at once. The server's own check brings it back. */
  readonly failing?: boolean;
  /** See {@link PeerServer}. */
  readonly lastResort?: boolean;
  /** See {@link PeerServer}. Not in the file: it lasts for seconds. */
  readonly silent?: boolean;
  /** True for servers that come and go with the members; the others are part of the structure. */
  readonly peer: boolean;
}

export interface RenderedFile {
  readonly name: string;
  readonly content: string;
}

export interface Rendered {
  readonly files: readonly RenderedFile[];
  /** Digest of everything that only a reload can change. HAProxy reports it back in `show info`. */
  readonly structure: string;
  /** The certificate of the site, with the SHA-1 of its leaf in hex; undefined: the node's own is shown. */
  readonly site?: (RenderedFile & { readonly sha1: string }) | undefined;
  readonly servers: readonly WantedServer[];
  readonly frontends: readonly string[];
  /** Ours. The servers of others belong to the founder. */
  readonly backends: ReadonlySet<string>;
  readonly snippets: readonly UsedSnippet[];
  /**
   * The lines of the list: serials, ends of names of authorities, and with a plus the digests of certificates
   * that are valid nevertheless.
   */
  readonly revoked: readonly { readonly mark: string; readonly address: string | undefined }[];
}

export const CONFIG_FILE = 'haproxy.cfg';

export const REVOKED_FILE = 'revoked.list';

/** Written before a reload, so that the new worker starts with the health of the old one. */
export const STATE_FILE = 'servers.state';

/** A valid, empty `server-state-file`. Without a file HAProxy warns at each start. */
export const NO_STATE = '1\n';

/** The backend of the second, faster checks of `NAME`. It never gets a request. */
export const twinOf = (backend: string): string => `${backend}.unwatched`;

/**
 * The backend that serves for `NAME` while this host is too busy to check: if the checks of most servers end by
 * timeout, this host is slow, not they. Its own check is a bare connection, which the kernel of a busy peer still
 * accepts.
 */
export const panicOf = (backend: string): string => `${backend}.panic`;

/** The backend of quick, bare connections to `NAME`, which only bring other questions forward; see failures.ts. */
export const watchOf = (backend: string): string => `${backend}.watch`;

/** The backend of this node's own instance alone, for what another door has passed on. */
export const ownOf = (backend: string): string => `${backend}.own`;

/** Another node, for requests that this node's own instance did not get. */
const isOther = ({ backend, name }: { backend: string; name: string }): boolean =>
  backend.startsWith('local_') && name !== LOCAL;

/** Whether a server is there for checks or as a switch, and never or only in trouble gets requests. */
export function isBeside(server: { backend: string; name: string }): boolean {
  const { backend } = server;
  return (
    backend === REQUEST_LOG.backend ||
    isOther(server) ||
    [twinOf(''), panicOf(''), ownOf(''), watchOf('')].some((end) => backend.endsWith(end))
  );
}

export function isTwin(server: { backend: string }): boolean {
  return server.backend.endsWith(twinOf(''));
}

export function isPanic(server: { backend: string; name: string }): boolean {
  return server.backend.endsWith(panicOf('')) && !isOther(server);
}

/** HAProxy's name of the server on this host. No host name starts with `_`. */
export const LOCAL = '_local';

/** Marks a request that a door passes on: the next door gives it to its own instance or to nobody, so none loops. */
export const PASSED_ON = 'X-Bornemisza-Passed-On';

/** Where HAProxy writes what its checks of this node's own services find; see failures.ts. */
export const RING = 'failures';

/**
 * A server that never gets a request. While it is ready, clients may create and delete databases: the one state that
 * can be sent to the running process, that conditions can ask for (`nbsrv`) and that a reload keeps.
 */
export const DATABASE_SWITCH = { backend: 'permissions', name: 'databases' } as const;

/** A server that never gets a request. While it is ready, the edge logs every request; see request-log.ts. */
export const REQUEST_LOG = { backend: 'request_log', name: 'requests' } as const;

/** Where edges share their counts: a connection that never ends and is no request. */
export const SHARING = { frontend: 'edges_door', backend: 'edges_local' } as const;

/** HAProxy's own sockets, and what edges share: no client waits there. */
export const isOwn = (frontend: string): boolean =>
  /^(GLOBAL|MASTER|<.*>)$/.test(frontend) || frontend === SHARING.frontend;

/**
 * The daemon's sign of life for the switch. HAProxy lets it expire, since a stopped daemon notices no partition, and
 * its last decision may be outdated.
 */
export const VOUCH = `set table ${DATABASE_SWITCH.backend} key ${DATABASE_SWITCH.name}`;

/** Longer than systemd needs for a blocked daemon: `WatchdogSec` is 20 s, and a start takes some more under load. */
export const VOUCHED_SECONDS = 30;

/** Names of the backends of ours in a configuration that `render` wrote. */
export function backendsIn(config: string): Set<string> {
  return new Set([...withSnippets(config).matchAll(/^backend (\S+)$/gm)].map(([, name = '']) => name));
}

/** The peer and local servers of a configuration that `render` wrote, for a rollback. */
export function serversIn(config: string): WantedServer[] {
  const servers: WantedServer[] = [];
  let backend: string | undefined;
  for (const line of withSnippets(config).split('\n')) {
    const head = /^(\w+)(?: (\S+))?/.exec(line);
    if (head !== null) backend = head[1] === 'backend' ? head[2] : undefined;
    const found = /^\s+server (\S+) (\d+\.\d+\.\d+\.\d+):(\d+) (.*?)( disabled)?$/.exec(line);
    if (found === null || backend === undefined) continue;
    const [, name = '', address = '', on = '', options = '', disabled] = found;
    const duty = disabled === undefined ? 'ready' : 'maint';
    servers.push({
      backend,
      name,
      address,
      port: Number(on),
      options,
      duty,
      why: 'last good configuration',
      peer: name !== LOCAL,
    });
  }
  return servers;
}
