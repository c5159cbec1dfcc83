import { stat } from 'node:fs/promises';
import type { HaproxyFiles } from './files.ts';
import { isTwin } from './rendered.ts';
import { parseBusyServers, parseFrontends, parseServersState, type ServerState } from './runtime.ts';
import type { Sockets } from './sockets.ts';

/** While a second check decides about a server, its verdict must act soon. */
const UNWATCHED_INTERVAL_MS = 250;

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

/** Reports when the running HAProxy or its files have changed since the last check. */
export class Watch {
  readonly #files: HaproxyFiles;
  readonly #sockets: Sockets;
  readonly #lingering: ReadonlySet<string>;
  readonly #intervalMs: number;
  #end: (() => void) | undefined;

  constructor(files: HaproxyFiles, sockets: Sockets, lingering: ReadonlySet<string>, intervalMs: number) {
    this.#files = files;
    this.#sockets = sockets;
    this.#lingering = lingering;
    this.#intervalMs = intervalMs;
  }

  end(): void {
    this.#end?.();
  }

  /** A poll, since HAProxy tells nobody: two short answers each second. */
  begin(changed: (what: string, restarted?: boolean) => void): () => void {
    this.#end?.();
    const ended = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    let last: Sight | undefined;
    const look = async (): Promise<void> => {
      const sight = await this.#look(ended.signal, last?.master ?? '');
      if (ended.signal.aborted) return;
      const difference = differenceOf(last, sight);
      const restarted = last !== undefined && last.master !== '' && sight.master !== last.master;
      last = sight;
      timer = setTimeout(
        () => void look(),
        sight.unwatched ? Math.min(this.#intervalMs, UNWATCHED_INTERVAL_MS) : this.#intervalMs,
      );
      if (restarted) changed('HAProxy was restarted', true);
      else if (difference !== undefined) changed(difference);
    };
    void look();
    this.#end = () => {
      ended.abort();
      clearTimeout(timer);
    };
    return this.#end;
  }

  async #look(signal: AbortSignal, lastMaster: string): Promise<Sight> {
    const files = await this.#files.marks();
    // The master creates its socket once in its life: systemd can restart it between two checks.
    const facts = await stat(this.#sockets.master, { bigint: true }).catch(() => undefined);
    const master = facts === undefined ? lastMaster : `${facts.ino}/${facts.ctimeNs}`;
    try {
      const commands = ['show servers state', 'show stat -1 1 -1'];
      const [state = '', stat = ''] = await this.#sockets.askAll(commands, signal, 1000);
      const [servers, frontends] = [parseServersState(state), parseFrontends(stat)];
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

  /** The servers waiting for deletion that have no connection any more. */
  async #freed(signal: AbortSignal): Promise<string> {
    if (this.#lingering.size === 0) return '';
    const busy = parseBusyServers(await this.#sockets.ask('show stat -1 4 -1', signal, 1000));
    return [...this.#lingering].filter((server) => !busy.has(server)).join(' ');
  }
}

/** The first check is compared with a HAProxy that answers: one that died before it is reported as well. */
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
