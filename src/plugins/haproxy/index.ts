import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../host/command.ts';
import { type Plugin, PluginError, type PluginReport } from '../contract.ts';
import { fileError, readIfOurs, replaceFile, type Staged, stageFile } from '../../host/files.ts';
import type { HaproxyDesired } from './desired.ts';
import { refusedLines } from './optional.ts';
import { type HaproxyChange, type HaproxyObserved, planHaproxy, planRuntime, type Running } from './plan.ts';
import {
  CONFIG_FILE,
  DATABASE_SWITCH,
  type Layout,
  panicOf,
  REVOKED_FILE,
  type Rendered,
  render,
  STATE_FILE,
  serversIn,
  twinOf,
  VOUCH,
} from './render.ts';
import {
  ask,
  type AskOptions,
  notRunning,
  offersAddServer,
  parseAcl,
  parseBusyServers,
  parseConnections,
  parseFrontends,
  parseInfo,
  parseProcesses,
  parseServersState,
  type ServerState,
  sessionsFrom,
} from './runtime.ts';
import { chooseSite } from './site-certificate.ts';

export interface HaproxyOptions {
  readonly instance: 'app' | 'db';
  /** Where the configuration lies, e.g. /var/lib/bornemisza/haproxy/app; the unit starts from haproxy.cfg there. */
  readonly directory: string;
  /** Where the unit makes stats.sock and master.sock, e.g. /run/bornemisza-haproxy/app. */
  readonly runDirectory: string;
  readonly binary?: string;
  /** How often the running HAProxy and the files are looked at. Default 1000. */
  readonly watchIntervalMs?: number;
}

/** What `undo` needs: the files and the servers as they were. */
export interface HaproxyCheckpoint {
  readonly files: ReadonlyMap<string, string | undefined>;
  readonly running: Running | undefined;
}

/** Former configurations that stay beside the present one, with the certificates that they name. */
const BACKUPS = 5;
/** `haproxy -c` takes 20 ms; a loaded machine may take long. */
const CHECK_TIMEOUT_MS = 15_000;
/** The master answers in milliseconds, also while it reloads. */
const OLD_WORKERS_TIMEOUT_MS = 1000;
/** Each is one question at each look; more than some reloads in 15 minutes are a fault of their own. */
const MAX_OLD_ASKED = 8;
/** A reload is visible after 15–67 ms; many certificates or a loaded machine take longer. */
const RELOAD_TIMEOUT_MS = 10_000;
/** While a second check decides about a server, its verdict shall count soon after it falls. */
const UNWATCHED_INTERVAL_MS = 250;
/** A valid, empty `server-state-file`. Without a file HAProxy warns at each start. */
const NO_STATE = '1\n';
const FILE_MODE = 0o640;
/** Certificates for the site that were refused; a founder tries a few. */
const MAX_REFUSED = 16;
/** Enough for certificates of many renewals; more are somebody else's files. */
const MAX_FILES = 1000;

/** The one writer of our own HAProxy instance: its files, and over its sockets its running state. */
export class HaproxyPlugin
  implements Plugin<HaproxyDesired, HaproxyObserved, HaproxyChange, HaproxyCheckpoint>
{
  readonly name = 'haproxy';
  readonly evidence: string;
  readonly #options: HaproxyOptions;
  readonly #layout: Layout;
  readonly #master: string;
  /** What the HAProxy of this process refuses. */
  #probed: { readonly pid: number; readonly refused: ReadonlySet<string> } | undefined;
  #staged: Staged | undefined;
  #endWatch: (() => void) | undefined;
  /** Certificates for the site that HAProxy refuses, and why. */
  readonly #refused = new Map<string, string>();
  /** Servers that could not be deleted yet, as they had connections. */
  readonly #lingering = new Set<string>();
  /** On a db node. */
  readonly heartbeat: ((signal: AbortSignal) => Promise<void>) | undefined;

  constructor(options: HaproxyOptions) {
    this.#options = options;
    this.heartbeat = options.instance === 'db' ? (signal) => this.#vouch(signal) : undefined;
    this.evidence = `journalctl -u ${this.#unit}`;
    this.#layout = { directory: options.directory, statsSocket: join(options.runDirectory, 'stats.sock') };
    this.#master = join(options.runDirectory, 'master.sock');
  }

  async observe(signal: AbortSignal): Promise<HaproxyObserved> {
    const names = await this.#ownFiles();
    const files = new Map<string, string>();
    for (const name of names) {
      const text = await readIfOurs(join(this.#options.directory, name));
      if (text !== undefined) files.set(name, sha256(text));
    }
    const running = await this.#running(signal);
    return {
      files,
      running,
      old: await this.#old(signal),
      refused: await this.#refusedBy(running, signal),
      site: { former: await this.#formerSite(), refused: new Map(this.#refused), nowMs: Date.now() },
      // The kernel has this file only where IPv6 is not switched off altogether.
      ipv6: existsSync('/proc/net/if_inet6'),
    };
  }

  plan(desired: HaproxyDesired, observed: HaproxyObserved): readonly HaproxyChange[] {
    const { certificates } = desired;
    const edge = chooseSite(certificates.edge, certificates.edgeProblem, observed.site).pem;
    const wanted = decided({ ...desired, certificates: { ...certificates, edge } }, observed);
    const layout = { ...this.#layout, ipv6: observed.ipv6 };
    return planHaproxy(render(wanted, layout, observed.refused), observed, sha256);
  }

  status({ certificates }: HaproxyDesired, { running, site, old }: HaproxyObserved): PluginReport {
    const { alarm } = chooseSite(certificates.edge, certificates.edgeProblem, site);
    return { seen: sightOf(running, old), alarms: alarm === undefined ? [] : [alarm] };
  }

  /** Writes what the new configuration names (files that nobody uses yet), then asks HAProxy about it. */
  async validate(changes: readonly HaproxyChange[], signal: AbortSignal): Promise<void> {
    await this.#discardStaged();
    const config = changes.find((change) => change.kind === 'file' && change.name === CONFIG_FILE);
    if (config?.kind !== 'file') return;
    for (const change of changes) {
      if (change.kind === 'file' && change.name.endsWith('.pem'))
        await this.#write(change.name, change.content);
    }
    if ((await readIfOurs(this.#path(REVOKED_FILE))) === undefined) await this.#write(REVOKED_FILE, '');
    if ((await readIfOurs(this.#path(STATE_FILE))) === undefined) await this.#write(STATE_FILE, NO_STATE);
    this.#staged = await stageFile(this.#path(CONFIG_FILE), config.content, {
      mode: FILE_MODE,
      suffix: '.cfg',
    });
    try {
      await this.#check(this.#staged.stagedPath, signal);
    } catch (error) {
      await this.#discardStaged();
      throw (await this.#siteRefusal(config.content, signal)) ?? error;
    }
  }

  /** The certificate for the site that the present configuration names. */
  async #formerSite(): Promise<string | undefined> {
    const name = siteFileIn((await readIfOurs(this.#path(CONFIG_FILE))) ?? '');
    return name === undefined ? undefined : readIfOurs(this.#path(name));
  }

  /** Proves the one optional input alone: when it is the cause, the next look goes on without it. */
  async #siteRefusal(config: string, signal: AbortSignal): Promise<PluginError | undefined> {
    const name = siteFileIn(config);
    const pem = name === undefined ? undefined : await readIfOurs(this.#path(name));
    if (name === undefined || pem === undefined) return undefined;
    const alone = await stageFile(this.#path('site'), siteProof(this.#path(name)), {
      mode: FILE_MODE,
      suffix: '.cfg',
    });
    try {
      await this.#check(alone.stagedPath, signal);
      return undefined;
    } catch (error) {
      if (!(error instanceof PluginError) || error.code !== 'haproxy-config-refused') return undefined;
      if (this.#refused.size >= MAX_REFUSED) this.#refused.clear();
      this.#refused.set(pem, error.message.replace(/^[^:]*: /, ''));
      return new PluginError({
        code: 'site-certificate-refused',
        message: `HAProxy refuses the site’s certificate: ${this.#refused.get(pem) ?? ''}`,
        next: 'put another certificate, chain and key into the file of edge.certificate, then `systemctl reload bornemisza@app`; everything else is tried again without it',
        outcome: 'retry',
        stateChanged: false,
      });
    } finally {
      await alone.discard();
    }
  }

  async checkpoint(changes: readonly HaproxyChange[], signal: AbortSignal): Promise<HaproxyCheckpoint> {
    const files = new Map<string, string | undefined>();
    for (const change of changes) {
      if (change.kind === 'file' && !isCertificate(change.name))
        files.set(change.name, await readIfOurs(this.#path(change.name)));
    }
    return { files, running: await this.#running(signal) };
  }

  async apply(
    changes: readonly HaproxyChange[],
    signal: AbortSignal,
    made: (change: HaproxyChange) => void,
  ): Promise<void> {
    try {
      for (const change of changes) {
        if ((await this.#make(change, signal)) !== 'refused') made(change);
      }
    } catch (error) {
      throw error instanceof PluginError ? error : fileError(error, this.#options.directory);
    } finally {
      await this.#discardStaged();
    }
    await this.#prune();
  }

  async undo(checkpoint: HaproxyCheckpoint, signal: AbortSignal): Promise<void> {
    for (const [name, content] of checkpoint.files) {
      // Where nothing was before there is nothing good to go back to, and what is there passed HAProxy's own check.
      if (content !== undefined) await this.#write(name, content);
    }
    const before = checkpoint.running;
    if (before === undefined || before.structure === '') return;
    const now = await this.#running(signal);
    const config = (await readIfOurs(this.#path(CONFIG_FILE))) ?? '';
    const lastGood: Rendered = {
      files: [],
      structure: before.structure,
      // As they were, which may be neither what the file says nor what is wanted.
      servers: serversIn(config).map((server) => {
        const was = before.servers.find(
          ({ backend, name }) => backend === server.backend && name === server.name,
        );
        if (was === undefined) return server;
        return {
          ...server,
          address: was.address,
          port: was.port,
          duty: was.maint ? 'maint' : was.drain ? 'drain' : 'ready',
        };
      }),
      frontends: [...before.frontends.keys()],
      revoked: before.revoked.map((mark) => ({ mark, address: undefined })),
    };
    if (now === undefined) return;
    if (now.structure !== before.structure) await this.#reload(lastGood, signal);
    else for (const change of planRuntime(lastGood, now)) await this.#make(change, signal);
  }

  async close(): Promise<void> {
    this.#endWatch?.();
    await this.#discardStaged();
  }

  /** A poll, since HAProxy tells nobody: two short answers each second. */
  watch(changed: (what: string, restarted?: boolean) => void): () => void {
    this.#endWatch?.();
    const ended = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    let last: Sight | undefined;
    const look = async (): Promise<void> => {
      const sight = await this.#look(ended.signal, last?.master ?? '');
      if (ended.signal.aborted) return;
      const difference = differenceOf(last, sight);
      const restarted = last !== undefined && last.master !== '' && sight.master !== last.master;
      last = sight;
      const intervalMs = this.#options.watchIntervalMs ?? 1000;
      timer = setTimeout(
        () => void look(),
        sight.unwatched ? Math.min(intervalMs, UNWATCHED_INTERVAL_MS) : intervalMs,
      );
      if (restarted) changed('HAProxy was started anew', true);
      else if (difference !== undefined) changed(difference);
    };
    void look();
    this.#endWatch = () => {
      ended.abort();
      clearTimeout(timer);
    };
    return this.#endWatch;
  }

  /** Whatever it answers: a process of before the first reload knows no such table. */
  async #vouch(signal: AbortSignal): Promise<void> {
    await this.#ask(VOUCH, signal, 1000);
  }

  get #unit(): string {
    return `bornemisza-haproxy@${this.#options.instance}.service`;
  }

  #path(name: string): string {
    return join(this.#options.directory, name);
  }

  #write(name: string, content: string): Promise<unknown> {
    return replaceFile(this.#path(name), content, { mode: FILE_MODE });
  }

  async #ownFiles(): Promise<string[]> {
    const names = await readdir(this.#options.directory).catch((error: unknown) => {
      throw fileError(error, this.#path(CONFIG_FILE));
    });
    return names
      .filter((name) => name === CONFIG_FILE || name === REVOKED_FILE || isCertificate(name))
      .slice(0, MAX_FILES);
  }

  #ask(command: string, signal: AbortSignal, timeoutMs?: number): Promise<string> {
    return ask(this.#layout.statsSocket, command, {
      unit: this.#unit,
      signal,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  }

  #askMaster(command: string, options: Omit<AskOptions, 'unit'>): Promise<string> {
    return ask(this.#master, command, { unit: this.#unit, ...options });
  }

  async #running(signal: AbortSignal): Promise<Running | undefined> {
    try {
      const info = parseInfo(await this.#ask('show info', signal), this.#options.instance);
      const ours = info.structure !== '';
      return {
        pid: info.pid,
        addsServers: offersAddServer(await this.#ask('help add server', signal)),
        structure: info.structure,
        servers: parseServersState(await this.#ask('show servers state', signal)),
        frontends: parseFrontends(await this.#ask('show stat -1 1 -1', signal)),
        busy: parseBusyServers(await this.#ask('show stat -1 4 -1', signal)),
        revoked: ours ? parseAcl(await this.#ask(`show acl ${this.#path(REVOKED_FILE)}`, signal)) : [],
      };
    } catch (error) {
      if (error instanceof PluginError && error.code === 'haproxy-not-running') return undefined;
      throw error;
    }
  }

  /** Asked anew of each new process, and while none runs: the package may have been replaced meanwhile. */
  async #refusedBy(running: Running | undefined, signal: AbortSignal): Promise<ReadonlySet<string>> {
    if (running !== undefined && this.#probed?.pid === running.pid) return this.#probed.refused;
    const { binary = 'haproxy', directory } = this.#options;
    const refused = await refusedLines(binary, directory, signal);
    if (refused !== undefined && running !== undefined) this.#probed = { pid: running.pid, refused };
    return refused ?? this.#probed?.refused ?? new Set();
  }

  async #check(path: string, signal: AbortSignal): Promise<void> {
    const { binary = 'haproxy' } = this.#options;
    const options = { timeoutMs: CHECK_TIMEOUT_MS, signal, missingNext: 'install it: `dnf install haproxy`' };
    const { code, stdout, stderr } = await runCommand(binary, ['-c', '-f', path], options);
    if (code === 0) return;
    const complaints = `${stdout}\n${stderr}`
      .split('\n')
      .flatMap((line) => /^\[ALERT\][^:]*: (?:config : )?(.*)$/.exec(line)?.[1] ?? []);
    const said = complaints.slice(0, 2).join(' / ').replaceAll(path, CONFIG_FILE).slice(0, 400);
    throw new PluginError({
      code: 'haproxy-config-refused',
      message: `HAProxy refuses the new configuration: ${said || `exit status ${code}`}`,
      next: `correct the setting or certificate that it names, then \`systemctl reload bornemisza@${this.#options.instance}\`; the last good configuration keeps running, and this one is tried again`,
      // What HAProxy takes is also a matter of its version, of its libraries and of the machine's policies.
      outcome: 'retry',
      stateChanged: false,
    });
  }

  async #make(change: HaproxyChange, signal: AbortSignal): Promise<undefined | 'refused'> {
    switch (change.kind) {
      case 'file':
        if (change.name === CONFIG_FILE && this.#staged !== undefined) {
          const staged = this.#staged;
          this.#staged = undefined;
          await staged.commit({ backups: BACKUPS });
          return undefined;
        }
        await this.#write(change.name, change.content);
        return undefined;
      case 'start':
        // What is checked and written waits for the unit.
        if ((await this.#running(signal)) === undefined)
          throw notRunning(this.#layout.statsSocket, this.#unit, { keepsChanges: true });
        return undefined;
      case 'reload':
        await this.#reload(change.rendered, signal);
        return undefined;
      case 'frontend-open':
        await this.#tell(`enable frontend ${change.frontend}`, signal);
        return undefined;
      case 'revoke':
        await this.#tell(`add acl ${this.#path(REVOKED_FILE)} ${change.mark}`, signal);
        if (change.address !== undefined) await this.#cut(change.address, signal);
        return undefined;
      case 'unrevoke':
        await this.#tell(`del acl ${this.#path(REVOKED_FILE)} ${change.mark}`, signal);
        return undefined;
      case 'server-add':
        await this.#add(change, signal);
        return undefined;
      case 'server-address': {
        const { backend, name, address, port } = change.server;
        await this.#ask(`set server ${backend}/${name} addr ${address} port ${port}`, signal);
        return undefined;
      }
      case 'server-state':
        await this.#tell(`set server ${change.backend}/${change.name} state ${change.admin}`, signal);
        if (change.fresh) await this.#tell(`set server ${change.backend}/${change.name} health up`, signal);
        if (change.cut) await this.#tell(`shutdown sessions server ${change.backend}/${change.name}`, signal);
        return undefined;
      case 'server-down':
        await this.#tell(`set server ${change.backend}/${change.name} health down`, signal);
        return undefined;
      case 'server-check':
        await this.#tell(`enable health ${change.backend}/${change.name}`, signal);
        return undefined;
      case 'server-weight':
        await this.#tell(`set server ${change.backend}/${change.name} weight 100%`, signal);
        return undefined;
      case 'server-remove':
        await this.#tell(`set server ${change.backend}/${change.name} state maint`, signal);
        await this.#delete(change, signal);
        return undefined;
      case 'server-delete':
        return (await this.#delete(change, signal)) ? undefined : 'refused';
    }
  }

  /** HAProxy refuses while connections are open: then the watch says when the last one has ended. */
  async #delete({ backend, name }: { backend: string; name: string }, signal: AbortSignal): Promise<boolean> {
    const server = `${backend}/${name}`;
    const answer = await this.#ask(`del server ${server}`, signal);
    const deleted = /deleted|No such server/.test(answer);
    if (deleted) this.#lingering.delete(server);
    else this.#lingering.add(server);
    return deleted;
  }

  /** These commands say nothing when all is well. */
  async #tell(command: string, signal: AbortSignal): Promise<void> {
    const answer = await this.#ask(command, signal);
    if (answer !== '') throw refusedCommand(command, answer);
  }

  async #add(change: Extract<HaproxyChange, { kind: 'server-add' }>, signal: AbortSignal): Promise<void> {
    const { backend, name, address, port, options } = change.server;
    const answer = await this.#ask(`add server ${backend}/${name} ${address}:${port} ${options}`, signal);
    // E.g. a certificate that this process has not loaded. The file has the server already.
    if (!answer.includes('New server registered')) return await this.#reload(change.rendered, signal);
    await this.#tell(`enable health ${backend}/${name}`, signal);
    if (change.admin !== 'maint')
      await this.#tell(`set server ${backend}/${name} state ${change.admin}`, signal);
  }

  /**
   * Lets the master start a new worker with the file as it is, hands it the health that the old one knew, and
   * brings it to the wanted states.
   */
  async #reload(rendered: Rendered, signal: AbortSignal): Promise<void> {
    const before = parseInfo(await this.#ask('show info', signal), this.#options.instance);
    const reloads = await this.#reloadCount(signal);
    const states = await this.#ask('show servers state', signal);
    await this.#write(STATE_FILE, `${states}\n`);
    try {
      await this.#askForReload(signal);
      await this.#awaitWorker(rendered.structure, before.pid, reloads, signal);
    } finally {
      // Stale states must not meet a start of next week.
      await this.#write(STATE_FILE, NO_STATE);
    }
    await this.heartbeat?.(signal);
    const now = await this.#running(signal);
    if (now === undefined) throw reloadFailed(this.#unit, 'it went away');
    // A server that the file has is there; a further reload could only go in circles.
    for (const change of planRuntime(rendered, now))
      if (change.kind !== 'server-add') await this.#make(change, signal);
  }

  /**
   * From 2.7 on the master answers when the reload is over, with `Success=` and what the new process printed; before, it
   * answers nothing and at once. A connection that breaks meanwhile tells nothing: the new worker does.
   */
  async #askForReload(signal: AbortSignal): Promise<void> {
    const answer = await this.#askMaster('reload', { signal, timeoutMs: RELOAD_TIMEOUT_MS }).catch(
      (error: unknown) => {
        if (error instanceof PluginError && error.code === 'haproxy-silent') return '';
        throw error;
      },
    );
    if (/^Success=0$/m.test(answer)) throw reloadFailed(this.#unit, 'the new process refused it');
  }

  /** 2.6's master answers nothing to `reload`: the number of reloads and the new worker's own words tell. */
  async #awaitWorker(structure: string, oldPid: number, reloads: number, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + RELOAD_TIMEOUT_MS;
    for (let pauseMs = 10; performance.now() < deadline; pauseMs = Math.min(pauseMs * 1.5, 100)) {
      await pause(pauseMs, signal);
      // Both sockets refuse for some milliseconds while the processes change places.
      const processes = await this.#askMaster('show proc', { signal, timeoutMs: 500 }).then(
        parseProcesses,
        () => [],
      );
      const master = processes.find(({ kind }) => kind === 'master');
      if (master !== undefined && master.reloads > reloads && (master.failed ?? 0) > 0) {
        throw reloadFailed(this.#unit, 'the new process refused it');
      }
      const info = await this.#ask('show info', signal, 500).then(
        (text) => parseInfo(text, this.#options.instance),
        () => undefined,
      );
      if (info !== undefined && info.pid !== oldPid && info.structure === structure) return;
    }
    throw reloadFailed(this.#unit, `no new process answered within ${RELOAD_TIMEOUT_MS} ms`);
  }

  async #reloadCount(signal: AbortSignal): Promise<number> {
    const processes = parseProcesses(await this.#askMaster('show proc', { signal }));
    return processes.find(({ kind }) => kind === 'master')?.reloads ?? 0;
  }

  /**
   * Whether a process of before the last reload is left. It ends what it has with the certificates that it was started with, and
   * opens connections to servers for that. Not known counts as yes.
   */
  async hasOldWorkers(): Promise<boolean> {
    const signal = AbortSignal.timeout(OLD_WORKERS_TIMEOUT_MS);
    const processes = await this.#askMaster('show proc', { signal }).then(parseProcesses, () => undefined);
    return processes?.some(({ kind }) => kind === 'old-worker') ?? true;
  }

  async #old(signal: AbortSignal): Promise<NonNullable<HaproxyObserved['old']>> {
    const options = { signal, timeoutMs: OLD_WORKERS_TIMEOUT_MS };
    const processes = await this.#askMaster('show proc', options).then(parseProcesses, () => []);
    const old = processes.filter(({ kind }) => kind === 'old-worker');
    const counts = await Promise.all(
      old
        .slice(0, MAX_OLD_ASKED)
        .map(({ pid }) => this.#askMaster(`@!${pid} show info`, options).then(parseConnections, () => 0)),
    );
    return { processes: old.length, connections: counts.reduce((sum, each) => sum + each, 0) };
  }

  /** Ends the sessions from an address in the doors: of this worker and of those that older reloads left behind. */
  async #cut(address: string, signal: AbortSignal): Promise<void> {
    const doors = this.#options.instance === 'app' ? ['door'] : ['app_door', 'peer_door'];
    const processes = await this.#askMaster('show proc', { signal }).then(parseProcesses, () => []);
    const old = processes.filter(({ kind }) => kind === 'old-worker').map(({ pid }) => pid);
    const each: ((command: string) => Promise<string>)[] = [
      (command) => this.#ask(command, signal),
      ...old.map((pid) => (command: string) => this.#askMaster(`@!${pid} ${command}`, { signal })),
    ];
    for (const tell of each) {
      const sessions = sessionsFrom(await tell('show sess').catch(() => ''), address, doors);
      for (const id of sessions) await tell(`shutdown session ${id}`).catch(() => '');
    }
  }

  /** Certificates that neither the configuration nor one of its backups names. */
  async #prune(): Promise<void> {
    const ages = ['', ...Array.from({ length: BACKUPS }, (_, index) => `.${index + 1}`)];
    const texts = await Promise.all(ages.map((age) => readIfOurs(this.#path(`${CONFIG_FILE}${age}`))));
    for (const name of await this.#ownFiles()) {
      if (isCertificate(name) && !texts.some((text) => text?.includes(name)))
        await rm(this.#path(name), { force: true });
    }
  }

  async #discardStaged(): Promise<void> {
    const staged = this.#staged;
    this.#staged = undefined;
    await staged?.discard();
  }

  async #look(signal: AbortSignal, lastMaster: string): Promise<Sight> {
    const files = await this.#fileMarks();
    // The master makes its socket once in its life: systemd may have it back before anybody missed it.
    const facts = await stat(this.#master, { bigint: true }).catch(() => undefined);
    const master = facts === undefined ? lastMaster : `${facts.ino}/${facts.ctimeNs}`;
    try {
      const servers = parseServersState(await this.#ask('show servers state', signal, 1000));
      const frontends = parseFrontends(await this.#ask('show stat -1 1 -1', signal, 1000));
      const free = await this.#freed(signal);
      return {
        answers: true,
        master,
        files,
        servers: new Map(servers.map((server) => [`${server.backend}/${server.name}`, stateMark(server)])),
        frontends: [...frontends].map(([name, open]) => `${name}:${open}`).join(' '),
        free,
        unwatched: servers.some((server) => isTwin(server) && !server.maint),
      };
    } catch {
      return { answers: false, master, files, servers: new Map(), frontends: '', free: '', unwatched: false };
    }
  }

  /** Which of the servers that could not be deleted have no connection any more. */
  async #freed(signal: AbortSignal): Promise<string> {
    if (this.#lingering.size === 0) return '';
    const busy = parseBusyServers(await this.#ask('show stat -1 4 -1', signal, 1000));
    return [...this.#lingering].filter((server) => !busy.has(server)).join(' ');
  }

  async #fileMarks(): Promise<string> {
    const marks = [CONFIG_FILE, REVOKED_FILE].map(async (name) => {
      const facts = await stat(this.#path(name), { bigint: true }).catch(() => undefined);
      return facts === undefined ? '-' : `${facts.ino}/${facts.size}/${facts.mtimeNs}`;
    });
    return (await Promise.all(marks)).join(' ');
  }
}

/** After a start of the daemon CouchDB has not been looked at yet: what stands, stands on, and nothing is changed twice. */
function decided(desired: HaproxyDesired, { running }: HaproxyObserved): HaproxyDesired {
  if (desired.instance === 'app' || desired.databases !== undefined) return desired;
  const { backend, name } = DATABASE_SWITCH;
  const present = running?.servers.find((server) => server.backend === backend && server.name === name);
  const given = present !== undefined && !present.maint;
  return { ...desired, databases: { given, why: 'as it was' } };
}

/** The file of the site's certificate that a configuration of ours names. */
function siteFileIn(config: string): string | undefined {
  return /\/(edge-[0-9a-f]{16}\.pem)\b/.exec(config)?.[1];
}

/** The least that has HAProxy load a certificate. */
function siteProof(file: string): string {
  return `defaults\n  mode http\n  timeout client 1s\n  timeout server 1s\n  timeout connect 1s\nfrontend site\n  bind 127.0.0.1:1 ssl crt ${file} ssl-min-ver TLSv1.2\n`;
}

/** Facts of the running process, one line. */
function sightOf(running: Running | undefined, old: HaproxyObserved['old']): string {
  if (running === undefined) return 'HAProxy does not answer';
  if (running.structure === '') return 'HAProxy runs a configuration that is not ours';
  const inUse = running.servers.filter((server) => !isTwin(server) && !server.maint);
  const counted = inUse.filter((server) => !isPanic(server));
  const up = counted.filter((server) => server.up).length;
  const panics = new Set(inUse.filter(isPanic).map(({ backend }) => backend.slice(0, -panicOf('').length)));
  const busy = [...panics].filter((backend) => {
    const accepting = inUse.filter((server) => server.backend === panicOf(backend) && server.up).length;
    return accepting > 2 * inUse.filter((server) => server.backend === backend && server.up).length;
  });
  const panic =
    busy.length === 0
      ? ''
      : `; most checks of ${busy.join(', ')} get no answer in time, so every server that accepts connections serves`;
  return `HAProxy answers; ${up} of ${counted.length} servers in use are up${panic}${leftBehind(old)}`;
}

/** A reload ends no connection, but 15 minutes later the process of before it does. */
function leftBehind(old: HaproxyObserved['old']): string {
  if (old === undefined || old.processes === 0) return '';
  const [processes, connections] = [old.processes, old.connections];
  return `; ${processes} of before a reload (${connections} connection${connections === 1 ? '' : 's'}) end${processes === 1 ? 's' : ''} within 15 minutes`;
}

interface Sight {
  readonly answers: boolean;
  /** Which master process: its socket's identity; '' while none was seen. */
  readonly master: string;
  readonly files: string;
  readonly servers: ReadonlyMap<string, string>;
  readonly frontends: string;
  /** Servers to be deleted whose last connection has ended. */
  readonly free: string;
  readonly unwatched: boolean;
}

/** The first sight is compared with a HAProxy that answers: one that died before anybody looked is told as well. */
function differenceOf(before: Sight | undefined, now: Sight): string | undefined {
  if ((before?.answers ?? true) !== now.answers)
    return now.answers ? 'HAProxy answers again' : 'HAProxy does not answer';
  if (before === undefined) return undefined;
  if (before.files !== now.files) return 'a file of HAProxy changed';
  if (before.frontends !== now.frontends) return 'a frontend of HAProxy changed';
  if (now.free !== '' && before.free !== now.free) return `the last connection of ${now.free} ended`;
  const names = new Set([...before.servers.keys(), ...now.servers.keys()]);
  const different = [...names].find((name) => before.servers.get(name) !== now.servers.get(name));
  return different === undefined ? undefined : `server ${different} of HAProxy changed`;
}

/** Whether a server is up matters here only where a second check decides; HAProxy itself acts on the first. */
function stateMark(server: ServerState): string {
  const verdict = isTwin(server) && !server.maint ? server.up : '';
  return [
    server.address,
    server.port,
    server.maint,
    server.drain,
    server.checked,
    server.fullWeight,
    verdict,
  ].join(' ');
}

function isPanic(server: { backend: string }): boolean {
  return server.backend.endsWith(panicOf(''));
}

function isTwin(server: { backend: string }): boolean {
  return server.backend.endsWith(twinOf(''));
}

function isCertificate(name: string): boolean {
  return /^(node|ca|edge)-[0-9a-f]{16}\.pem$/.test(name);
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(new Error('the daemon is stopping'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, durationMs);
    signal.addEventListener('abort', abort, { once: true });
  });
}

function refusedCommand(command: string, answer: string): PluginError {
  return new PluginError({
    code: 'haproxy-command-refused',
    message: `HAProxy refuses \`${command}\`: ${answer.split('\n')[0]?.slice(0, 200)}`,
    next: 'it is tried again; if it stays, see `bornemisza doctor`',
    outcome: 'retry',
    stateChanged: false,
  });
}

function reloadFailed(unit: string, why: string): PluginError {
  return new PluginError({
    code: 'haproxy-reload-failed',
    message: `HAProxy did not take the new configuration: ${why}; the last good one is restored`,
    next: `the reason stands in its journal only: \`journalctl -u ${unit}\``,
    outcome: 'retry',
    stateChanged: true,
  });
}
