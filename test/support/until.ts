import { isOver, pauseMs } from './patience.ts';

/**
 * Polls until the condition holds; what it returned is the result. A condition that throws counts as not yet.
 *
 * @throws Error after `deadlineMs` (on a busy machine later, see `isOver`), naming what was waited for and the last
 *   error or value
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: {
    readonly deadlineMs?: number;
    readonly everyMs?: number;
    readonly what?: string;
    /** Each call brings the condition about by a step: its time is no cost of asking, after which one pauses longer. */
    readonly works?: boolean;
  } = {},
): Promise<NonNullable<T>> {
  const {
    deadlineMs = 20_000,
    everyMs = 10,
    what = condition.toString().slice(0, 200),
    works = false,
  } = options;
  const startMs = performance.now();
  let last: unknown;
  while (!isOver(startMs, deadlineMs)) {
    const askedAtMs = performance.now();
    try {
      const value = await condition();
      if (value !== false && value !== undefined && value !== null) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    const forMs = works ? everyMs : pauseMs(everyMs, askedAtMs);
    await new Promise((resolve) => setTimeout(resolve, forMs));
  }
  const shown = last instanceof Error ? (last.stack ?? last.message) : JSON.stringify(last);
  throw new Error(`not within ${deadlineMs} ms: ${what}; last: ${shown}`);
}
