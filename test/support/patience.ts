import { availableParallelism, loadavg } from 'node:os';

/** On a machine at load 50 with two cores all takes 25 times as long; what hangs must still end within minutes. */
const MAX_SLOWNESS = 10;

/**
 * How many times longer than on a free machine something may take now: as many as there are tasks for each core. A
 * deadline is what a free machine needs with much to spare; a machine that is shared gets it multiplied, and no test
 * fails for its neighbours.
 */
export function slowness(): number {
  const [lastMinute = 0] = loadavg();
  return Math.min(MAX_SLOWNESS, Math.max(1, lastMinute / availableParallelism()));
}

/** @returns whether what began at `sinceMs` (performance.now) has had its time, on this machine as it is now */
export function isOver(sinceMs: number, deadlineMs: number): boolean {
  const elapsedMs = performance.now() - sinceMs;
  return elapsedMs >= deadlineMs && elapsedMs >= deadlineMs * slowness();
}

/**
 * A question that starts a program on a lab host costs tens of milliseconds of a core: asked without a pause, it takes
 * the time from what it waits for.
 */
const PAUSE_PER_ASKING = 2;
const MOST_PAUSE_MS = 1000;

/** @returns how long to wait until one asks again: `everyMs`, or longer where the question itself took long */
export function pauseMs(everyMs: number, askedAtMs: number): number {
  const tookMs = performance.now() - askedAtMs;
  return Math.max(everyMs, Math.min(MOST_PAUSE_MS, PAUSE_PER_ASKING * tookMs));
}
