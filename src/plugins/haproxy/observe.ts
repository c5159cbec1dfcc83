import { existsSync } from 'node:fs';
import { PluginError } from '../contract.ts';
import type { HaproxyFiles } from './files.ts';
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
  #seen: Running | undefined;
  /** What the HAProxy of this process refuses. */
  #probed: { readonly pid: number; readonly refused: ReadonlySet<string> } | undefined;

  constructor(instance: 'app' | 'db', binary: string, files: HaproxyFiles, sockets: Sockets) {
    this.#instance = instance;
    this.#binary = binary;
    this.#files = files;
    this.#sockets = sockets;
  }

  async observe({ sites, snippets }: Refusals, signal: AbortSignal): Promise<HaproxyObserved> {
    const [files, running, old, former] = await Promise.all([
      this.#files.digests(),
      this.running(signal),
      this.#old(signal),
      this.#files.formerSite(),
    ]);
    this.#seen = running;
    return {
      files,
      running,
      old,
      refused: await this.#refusedBy(running, signal),
      site: { former, refused: new Map(sites), nowMs: Date.now() },
      refusedSnippets: new Map(snippets),
      // The kernel has this file only where IPv6 is not switched off altogether.
      ipv6: existsSync('/proc/net/if_inet6'),
    };
  }

  /** What the last observation saw. */
  get seen(): Running | undefined {
    return this.#seen;
  }

  async running(signal: AbortSignal): Promise<Running | undefined> {
    try {
      const [info = '', help = '', servers = '', stat = '', revoked = '', certificates = ''] =
        await this.#sockets.askAll(
          [
            'show info',
            'help add server',
            'show servers state',
            // Frontends and servers.
            'show stat -1 5 -1',
            `show acl ${this.#files.path(REVOKED_FILE)}`,
            ...(this.#instance === 'app' ? ['show ssl cert'] : []),
          ],
          signal,
        );
      const { pid, structure } = parseInfo(info, this.#instance);
      const ours = structure !== '';
      return {
        pid,
        addsServers: offersAddServer(help),
        structure,
        servers: parseServersState(servers),
        frontends: parseFrontends(stat),
        busy: parseBusyServers(stat),
        site: ours ? await this.#site(parseSiteFile(certificates), signal) : undefined,
        revoked: ours ? parseAcl(revoked) : [],
      };
    } catch (error) {
      if (!(error instanceof PluginError)) throw error;
      if (error.code === 'haproxy-not-running') return undefined;
      throw error.code === 'haproxy-silent' && (await this.hasNoWorker(signal))
        ? needsRestart(this.#sockets.unit, error)
        : error;
    }
  }

  /**
   * After a failed reload of 2.4 the old process serves on, but the failed one has replaced its socket. The master
   * lists no present process then.
   */
  async hasNoWorker(signal: AbortSignal): Promise<boolean> {
    const options = { signal, timeoutMs: OLD_WORKERS_TIMEOUT_MS };
    const processes = await this.#sockets.askMaster('show proc', options).then(parseProcesses, () => []);
    return processes.length > 0 && !processes.some(({ kind }) => kind === 'worker');
  }

  async #site(file: string | undefined, signal: AbortSignal): Promise<Running['site']> {
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

/**
 * The master of 2.4 has kept the sockets of a process that failed to start: connections to them hang. Those of clients
 * are safe as long as the old process has the same ones. Another reload would make new ones beside them, and about half
 * of the clients would get no answer.
 */
function needsRestart(unit: string, cause: PluginError): PluginError {
  return new PluginError({
    cause,
    code: 'haproxy-needs-restart',
    message:
      'HAProxy serves with its former configuration and takes no change: a reload failed, and its master keeps ' +
      'the sockets of the failed process',
    next: `restart it: \`systemctl restart ${unit}\`; then see the reason: \`journalctl -u ${unit}\``,
    outcome: 'retry',
  });
}
