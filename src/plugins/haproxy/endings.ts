import { PluginError } from '../contract.ts';
import { isOwn } from './rendered.ts';
import { oldSinceSeconds, parseLong, parseProcesses } from './runtime.ts';
import type { Sockets } from './sockets.ts';

/**
 * Ends what lasts (web sockets, event streams, feeds) one after another. Otherwise HAProxy cuts all of them in one
 * moment, `hard-stop-after` a reload, and all their clients come back in the next one.
 */

/** Of an old process, since the reload that replaced it. */
export interface Spread {
  /** Until then, nothing is ended. Longer than a continuous `_changes` feed may idle. */
  readonly fromMs: number;
  /** Then all have ended: before HAProxy's own `hard-stop-after`. */
  readonly toMs: number;
}

const SPREAD: Spread = { fromMs: 600_000, toMs: 870_000 };
const STEP_MS = 5000;
/** A node out of traffic: what has lasted so long is no page that is about to end. */
const LONG_SECONDS = 10;
const ANSWER_MS = 1000;
/** More than some reloads in 15 minutes are a fault of their own. */
const MOST_PROCESSES = 8;

/** How many of the open ones end in this step, so that the last one ends with the time. */
export function shareOf(open: number, leftMs: number, stepMs: number): number {
  return Math.ceil(open / Math.max(1, Math.floor(leftMs / stepMs)));
}

export class Endings {
  readonly #sockets: Sockets;
  readonly #spread: Spread;
  readonly #stepMs: number;
  /** By pid of an old process, when it was replaced. */
  readonly #replacedMs = new Map<number, number>();
  #lastMs = Number.NEGATIVE_INFINITY;

  constructor(sockets: Sockets, spread = SPREAD, stepMs = STEP_MS) {
    this.#sockets = sockets;
    this.#spread = spread;
    this.#stepMs = stepMs;
  }

  /** The next step, if it is time. Called each second. */
  async step(signal: AbortSignal): Promise<void> {
    const nowMs = performance.now();
    if (nowMs - this.#lastMs < this.#stepMs) return;
    this.#lastMs = nowMs;
    for (const [pid, replacedMs] of await this.#old(nowMs, signal)) {
      const forMs = nowMs - replacedMs;
      if (forMs < this.#spread.fromMs) continue;
      const tell = (command: string): Promise<string> =>
        this.#sockets.askMaster(`@!${pid} ${command}`, { signal, timeoutMs: ANSWER_MS });
      const open = parseLong(await tell('show sess')).filter(({ frontend }) => !isOwn(frontend));
      await end(tell, open, shareOf(open.length, this.#spread.toMs - forMs, this.#stepMs));
    }
  }

  /**
   * Ends a share of what lasts and came from other hosts, also in old processes; at least one.
   *
   * @returns how many
   */
  async drain(share: number, outer: (frontend: string) => boolean, signal: AbortSignal): Promise<number> {
    const old = await this.#old(performance.now(), signal);
    const processes = [
      (command: string) => this.#sockets.ask(command, signal, ANSWER_MS),
      ...old.map(
        ([pid]) =>
          (command: string) =>
            this.#sockets.askMaster(`@!${pid} ${command}`, { signal, timeoutMs: ANSWER_MS }),
      ),
    ];
    let ended = 0;
    for (const tell of processes) {
      const open = parseLong(await tell('show sess').catch(() => '')).filter(
        ({ frontend, ageSeconds }) => outer(frontend) && ageSeconds >= LONG_SECONDS,
      );
      const count = Math.ceil(open.length * share);
      await end(tell, open, count);
      ended += count;
    }
    return ended;
  }

  async #old(nowMs: number, signal: AbortSignal): Promise<(readonly [pid: number, replacedMs: number])[]> {
    const options = { signal, timeoutMs: ANSWER_MS };
    const processes = await this.#sockets.askMaster('show proc', options).then(parseProcesses, () => []);
    const since = oldSinceSeconds(processes);
    for (const pid of this.#replacedMs.keys()) if (!since.has(pid)) this.#replacedMs.delete(pid);
    return [...since].slice(0, MOST_PROCESSES).map(([pid, seconds]) => {
      // What was seen first is exact enough, and a process in between may end meanwhile.
      const replacedMs = this.#replacedMs.get(pid) ?? nowMs - seconds * 1000;
      this.#replacedMs.set(pid, replacedMs);
      return [pid, replacedMs];
    });
  }
}

async function end(
  tell: (command: string) => Promise<string>,
  open: readonly { readonly id: string }[],
  count: number,
): Promise<void> {
  for (const { id } of open.slice(0, count))
    await tell(`shutdown session ${id}`).catch((error: unknown) => {
      // It may have ended by itself.
      if (!(error instanceof PluginError)) throw error;
    });
}
