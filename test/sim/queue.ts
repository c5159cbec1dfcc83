/** Virtual time: a heap of things to do, first by time, then in the order in which they were put in. */
export interface Queue {
  readonly nowMs: number;
  readonly size: number;
  at(timeMs: number, act: () => void): void;
  after(delayMs: number, act: () => void): void;
  /** Does everything up to and including `untilMs`; time stands there afterwards. */
  runUntil(untilMs: number): void;
}

export function createQueue(): Queue {
  return new VirtualTime();
}

/** Every millisecond of a simulation passes here: hence plain arrays of numbers, and four children to each place. */
class VirtualTime implements Queue {
  nowMs = 0;
  #order = 0;
  readonly #times: number[] = [];
  readonly #orders: number[] = [];
  readonly #acts: (() => void)[] = [];

  get size(): number {
    return this.#times.length;
  }

  at(timeMs: number, act: () => void): void {
    this.#order += 1;
    this.#rise(Math.max(timeMs, this.nowMs), this.#order, act);
  }

  after(delayMs: number, act: () => void): void {
    this.at(this.nowMs + delayMs, act);
  }

  runUntil(untilMs: number): void {
    const times = this.#times;
    while (times.length > 0 && (times[0] as number) <= untilMs) {
      this.nowMs = times[0] as number;
      this.#take()();
    }
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  #rise(timeMs: number, order: number, act: () => void): void {
    let at = this.#times.length;
    while (at > 0) {
      const parent = (at - 1) >> 2;
      // What is put in later comes later: only an earlier time passes its parent.
      if ((this.#times[parent] as number) <= timeMs) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#put(at, timeMs, order, act);
  }

  #take(): () => void {
    const first = this.#acts[0] as () => void;
    const timeMs = this.#times.pop() as number;
    const order = this.#orders.pop() as number;
    const act = this.#acts.pop() as () => void;
    const size = this.#times.length;
    if (size === 0) return first;
    let at = 0;
    for (let child = 1; child < size; child = 4 * at + 1) {
      const end = Math.min(child + 4, size);
      let least = child;
      for (let other = child + 1; other < end; other += 1)
        if (this.#isBefore(other, this.#times[least] as number, this.#orders[least] as number)) least = other;
      if (!this.#isBefore(least, timeMs, order)) break;
      this.#move(least, at);
      at = least;
    }
    this.#put(at, timeMs, order, act);
    return first;
  }

  #isBefore(at: number, timeMs: number, order: number): boolean {
    const own = this.#times[at] as number;
    return own < timeMs || (own === timeMs && (this.#orders[at] as number) < order);
  }

  #move(from: number, to: number): void {
    this.#put(to, this.#times[from] as number, this.#orders[from] as number, this.#acts[from] as () => void);
  }

  #put(at: number, timeMs: number, order: number, act: () => void): void {
    this.#times[at] = timeMs;
    this.#orders[at] = order;
    this.#acts[at] = act;
  }
}
