import { setTimeout as pause } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { isLate } from './late.ts';
import { probe, type ProbeResult, type ProbeTarget } from './probe.ts';

interface Host {
  readonly address: string;
  /** HOST/ROLE of its members. */
  readonly names: readonly string[];
  /** Ports that are asked from the first attempt on, and from the second one on. */
  readonly doors: readonly number[];
  readonly daemons: readonly number[];
}

/** Addresses of hosts. */
interface Found {
  readonly asked: readonly string[];
  readonly silent: readonly string[];
}

/** So that one lost packet is not taken for silence. */
const ATTEMPTS = 3;
/** Between two attempts. The answer to each may come until the end of the last one. */
const STEP_MS = { lan: 100, test: 100, wan: 400 } as const;
/** Silent hosts are asked again after this time, until they answer or are watched no more. */
const AGAIN_MS = 500;
/** Where packets are lost, HAProxy reports often. */
const LEAST_GAP_MS = 250;
/** Such rounds are repeated at once, but a host that is too busy to judge must not ask for ever. */
const MOST_VOID = 5;

interface SilenceDependencies {
  readonly clock: Clock;
  readonly ask?: (target: ProbeTarget, timeoutMs: number) => Promise<ProbeResult>;
  /** Undefined while the node starts. */
  readonly node: () =>
    | {
        readonly last: { readonly watched: readonly Host[] };
        turn(reason: string, subjects: readonly string[]): void;
      }
    | undefined;
}

/**
 * Finds hosts that answer nothing. HAProxy opens a bare connection to each one several times a second; when one gets no
 * answer, this asks all hosts itself. Their kernels answer, whatever their programs do, and a refusal is an answer. All
 * are asked, as the silence of most of them is that of this host's own link.
 */
export class Silence {
  readonly #stepMs: number;
  readonly #dependencies: SilenceDependencies;
  #found: Found = { asked: [], silent: [] };
  #timer: NodeJS.Timeout | undefined;
  /** A round runs, or begins soon. */
  #asking = false;
  /** A report came during a round, about a host that may have answered before. */
  #again = false;
  #lastMs = Number.NEGATIVE_INFINITY;
  #voids = 0;
  #closed = false;

  constructor(preset: keyof typeof STEP_MS, dependencies: SilenceDependencies) {
    this.#stepMs = STEP_MS[preset];
    this.#dependencies = dependencies;
  }

  /** The result of the last round, about hosts that are still watched. */
  get found(): Found {
    const watched = new Set(this.#hosts.map(({ address }) => address));
    const { asked, silent } = this.#found;
    const here = (address: string): boolean => watched.has(address);
    return { asked: asked.filter(here), silent: silent.filter(here) };
  }

  /** HAProxy got no answer from this member's host. */
  unanswered(name: string): void {
    if (this.#closed || !this.#hosts.some(({ names }) => names.includes(name))) return;
    if (this.#asking) this.#again = true;
    else this.#begin(Math.max(0, this.#lastMs + LEAST_GAP_MS - this.#dependencies.clock.monotonicMs()));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  get #hosts(): readonly Host[] {
    return this.#dependencies.node()?.last.watched ?? [];
  }

  #begin(afterMs: number): void {
    clearTimeout(this.#timer);
    this.#asking = afterMs <= LEAST_GAP_MS;
    this.#timer = setTimeout(() => void this.#round(), afterMs);
  }

  async #round(): Promise<void> {
    this.#asking = true;
    this.#again = false;
    this.#lastMs = this.#dependencies.clock.monotonicMs();
    const hosts = this.#hosts;
    const { unheard, isVoid } = await this.#ask(hosts);
    this.#asking = false;
    if (this.#closed) return;
    this.#voids = isVoid ? this.#voids + 1 : 0;
    const before = this.#found.silent;
    // An answer counts at any time, its absence does not.
    const counted = isVoid ? unheard.filter(({ address }) => before.includes(address)) : unheard;
    const silent = counted.map(({ address }) => address);
    this.#found = { asked: hosts.map(({ address }) => address), silent };
    if (isVoid) this.#begin(this.#voids > MOST_VOID ? AGAIN_MS : 0);
    else if (this.#again) this.#begin(LEAST_GAP_MS);
    // Also while it is not watched any more: the next round forgets it, so that it does not come back as silent.
    else if (silent.length > 0) this.#begin(AGAIN_MS);
    if (before.toSorted().join() === silent.toSorted().join()) return;
    const names = counted.flatMap((host) => host.names);
    const text = names.length === 0 ? 'no watched host is silent' : `no answer from ${names.join(', ')}`;
    this.#dependencies.node()?.turn(text, names);
  }

  /** @returns the hosts without an answer; `isVoid`: nobody could have received one, or a question was not sent */
  async #ask(
    hosts: readonly Host[],
  ): Promise<{ readonly unheard: readonly Host[]; readonly isVoid: boolean }> {
    const { clock, ask = probe } = this.#dependencies;
    const waiting = new Set(hosts);
    const all = Promise.withResolvers<void>();
    const sinceMs = clock.monotonicMs();
    let unasked = false;
    const one = async (host: Host, port: number, timeoutMs: number): Promise<void> => {
      const result = await ask({ kind: 'tcp', address: host.address, port }, timeoutMs);
      unasked ||= result.failure === 'unasked';
      if (isAnswer(result)) waiting.delete(host);
      if (waiting.size === 0) all.resolve();
    };
    for (let nth = 0; nth < ATTEMPTS && waiting.size > 0; nth += 1) {
      for (const host of waiting)
        for (const port of nth === 0 ? host.doors : [...host.doors, ...host.daemons])
          void one(host, port, (ATTEMPTS - nth) * this.#stepMs);
      await Promise.race([all.promise, pause(this.#stepMs)]);
    }
    const late = isLate(clock, sinceMs, ATTEMPTS * this.#stepMs);
    return { unheard: [...waiting], isVoid: waiting.size > 0 && (late || unasked) };
  }
}

/** A refusal is one: there is a kernel that refuses. What this host says itself ("no route") is none. */
const isAnswer = ({ passed, failure }: ProbeResult): boolean => passed || failure === 'refused';
