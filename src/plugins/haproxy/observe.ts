import { existsSync } from 'node:fs';
import { PluginError } from '../contract.ts';
import { type HaproxyFiles, sha256 } from './files.ts';
import { refusedLines } from './optional.ts';
import type { HaproxyObserved, Running } from './plan.ts';
import { REVOKED_FILE } from './rendered.ts';
import {
  offersAddServer,
  parseAcl,
  parseBusyServers,
  parseConnections,
  parseFrontends,
  parseInfo,
  parseProcesses,
  parseServersState,
  parseSiteDigest,
  parseSiteFile,
} from './runtime.ts';
import type { Sockets } from './sockets.ts';
import type { Refusals } from './validate.ts';

/** The master answers in milliseconds, also while it reloads. */
const OLD_WORKERS_TIMEOUT_MS = 1000;
/** Each is one request at each observation; more than some reloads in 15 minutes are a fault of their own. */
const MAX_OLD_ASKED = 8;

/** Looks at the files and at the running process. */
export class Observer {
  readonly #instance: 'app' | 'db';
  readonly #binary: string;
  readonly #files: HaproxyFiles;
  readonly #sockets: Sockets;
  /** What the HAProxy of this process refuses. */
  #probed: { readonly pid: number; readonly refused: ReadonlySet<string> } | undefined;

  constructor(instance: 'app' | 'db', binary: string, files: HaproxyFiles, sockets: Sockets) {
    this.#instance = instance;
    this.#binary = binary;
    this.#files = files;
    this.#sockets = sockets;
  }

  async observe({ sites, snippets }: Refusals, signal: AbortSignal): Promise<HaproxyObserved> {
    const names = await this.#files.names();
    const files = new Map<string, string>();
    for (const name of names) {
      const text = await this.#files.read(name);
      if (text !== undefined) files.set(name, sha256(text));
    }
    const running = await this.running(signal);
    return {
      files,
      running,
      old: await this.#old(signal),
      refused: await this.#refusedBy(running, signal),
      site: { former: await this.#files.formerSite(), refused: new Map(sites), nowMs: Date.now() },
      refusedSnippets: new Map(snippets),
      // The kernel has this file only where IPv6 is not switched off altogether.
      ipv6: existsSync('/proc/net/if_inet6'),
    };
  }

  async running(signal: AbortSignal): Promise<Running | undefined> {
    try {
      const info = parseInfo(await this.#sockets.ask('show info', signal), this.#instance);
      const ours = info.structure !== '';
      return {
        pid: info.pid,
        addsServers: offersAddServer(await this.#sockets.ask('help add server', signal)),
        structure: info.structure,
        servers: parseServersState(await this.#sockets.ask('show servers state', signal)),
        frontends: parseFrontends(await this.#sockets.ask('show stat -1 1 -1', signal)),
        busy: parseBusyServers(await this.#sockets.ask('show stat -1 4 -1', signal)),
        site: ours && this.#instance === 'app' ? await this.#site(signal) : undefined,
        revoked: ours
          ? parseAcl(await this.#sockets.ask(`show acl ${this.#files.path(REVOKED_FILE)}`, signal))
          : [],
      };
    } catch (error) {
      if (error instanceof PluginError && error.code === 'haproxy-not-running') return undefined;
      throw error;
    }
  }

  async #site(signal: AbortSignal): Promise<Running['site']> {
    const file = parseSiteFile(await this.#sockets.ask('show ssl cert', signal));
    if (file === undefined) return undefined;
    const sha1 = parseSiteDigest(await this.#sockets.ask(`show ssl cert ${file}`, signal));
    return sha1 === undefined ? undefined : { file, sha1 };
  }

  /** Asked again of each new process, and while none runs: the package may have been replaced meanwhile. */
  async #refusedBy(running: Running | undefined, signal: AbortSignal): Promise<ReadonlySet<string>> {
    if (running !== undefined && this.#probed?.pid === running.pid) return this.#probed.refused;
    const refused = await refusedLines(this.#binary, this.#files.directory, signal);
    if (refused !== undefined && running !== undefined) this.#probed = { pid: running.pid, refused };
    return refused ?? this.#probed?.refused ?? new Set();
  }

  /**
   * Whether an old process, from before the last reload, is left. It finishes its requests with the certificates of its
   * start, also on new connections to servers. Unknown counts as yes.
   */
  async hasOldWorkers(): Promise<boolean> {
    const signal = AbortSignal.timeout(OLD_WORKERS_TIMEOUT_MS);
    const processes = await this.#sockets
      .askMaster('show proc', { signal })
      .then(parseProcesses, () => undefined);
    return processes?.some(({ kind }) => kind === 'old-worker') ?? true;
  }

  /** Pids of the old processes, from before the last reloads; none if the master does not report them. */
  async oldWorkers(signal: AbortSignal): Promise<number[]> {
    const options = { signal, timeoutMs: OLD_WORKERS_TIMEOUT_MS };
    const processes = await this.#sockets.askMaster('show proc', options).then(parseProcesses, () => []);
    return processes.filter(({ kind }) => kind === 'old-worker').map(({ pid }) => pid);
  }

  async #old(signal: AbortSignal): Promise<NonNullable<HaproxyObserved['old']>> {
    const options = { signal, timeoutMs: OLD_WORKERS_TIMEOUT_MS };
    const old = await this.oldWorkers(signal);
    const counts = await Promise.all(
      old
        .slice(0, MAX_OLD_ASKED)
        .map((pid) => this.#sockets.askMaster(`@!${pid} show info`, options).then(parseConnections, () => 0)),
    );
    return { processes: old.length, connections: counts.reduce((sum, each) => sum + each, 0) };
  }
}
