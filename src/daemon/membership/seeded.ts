/**
 * The machine's only source of chance: mulberry32, part of the machine's state, so that one seed repeats one history.
 * Not for secrets; the protocol needs spread, not unpredictability (everything that must not be forged is signed).
 */
export interface Seeded {
  /** Uniform in [0, 1). */
  fraction(): number;
  /** Uniform in [fromMs, toMs), for jitter. */
  between(from: number, to: number): number;
  /** One element, or undefined of an empty list. */
  pick<T>(from: readonly T[]): T | undefined;
  /** Up to `count` distinct elements in random order; the input is unchanged. */
  sample<T>(from: readonly T[], count: number): T[];
}

export function createSeeded(seed: number): Seeded {
  // A signed 32-bit number, which V8 keeps unboxed.
  let state = seed | 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
  const sample = <T>(from: readonly T[], count: number): T[] => {
    const pool = [...from];
    const wanted = Math.min(count, pool.length);
    for (let at = 0; at < wanted; at += 1) {
      const other = at + Math.floor(fraction() * (pool.length - at));
      [pool[at], pool[other]] = [pool[other] as T, pool[at] as T];
    }
    return pool.slice(0, wanted);
  };
  return {
    fraction,
    between: (from, to) => from + fraction() * (to - from),
    pick: (from) => from[Math.floor(fraction() * from.length)],
    sample,
  };
}
