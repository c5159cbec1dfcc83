import type { Clock } from '../clock.ts';

/** A timer that is later than this was held up by this process or this host, and so was any answer. */
const LATE_MS = 200;

/** Whether what began at `sinceMs` and was due after `dueMs` is so late that nobody heard an answer in time. */
export const isLate = (clock: Clock, sinceMs: number, dueMs: number): boolean =>
  clock.monotonicMs() - sinceMs > dueMs + LATE_MS;
