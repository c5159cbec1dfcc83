import type { Health } from '../membership/types.ts';

/** How raw results become a verdict. Rise and fall as in HAProxy's `rise` and `fall`. */
export interface DampingOptions {
  /** Consecutive passes that make a check up. */
  readonly rise: number;
  /** Consecutive failures that make a check down. */
  readonly fall: number;
  /** How long a check must go on passing after it was down before it counts as up, ms. Doubles with each flap. */
  readonly returnDelayMs: number;
}

/** A flap further back than this is forgotten. */
const FLAP_MEMORY_MS = 600_000;
/** Upper bound of the doubled return delay: a node that flaps all day may still return within two minutes. */
const MAX_RETURN_DELAY_MS = 120_000;

export interface CheckState {
  readonly health: Health;
  /** Results of the same kind in a row. */
  readonly streak: number;
  readonly lastPassed: boolean | undefined;
  /** When the present streak began, machine time in ms. */
  readonly streakSinceMs: number;
  readonly sinceMs: number;
  /** Times of the last moves from up to down, oldest first. */
  readonly fellAtMs: readonly number[];
}

/** A check starts down: a service has to show that it works before traffic comes. */
export function initialCheckState(nowMs: number): CheckState {
  return {
    health: 'down',
    streak: 0,
    lastPassed: undefined,
    streakSinceMs: nowMs,
    sinceMs: nowMs,
    fellAtMs: [],
  };
}

/**
 * The state after one more result. The return is damped because a returning edge resets more connections at the
 * router than a lost one; the first rise after a start is not.
 */
export function nextCheckState(
  state: CheckState,
  passed: boolean,
  nowMs: number,
  options: DampingOptions,
): CheckState {
  const same = state.lastPassed === passed;
  const streak = same ? state.streak + 1 : 1;
  const streakSinceMs = same ? state.streakSinceMs : nowMs;
  const next = { ...state, streak, lastPassed: passed, streakSinceMs };
  if (!passed && state.health === 'up' && streak >= options.fall) {
    const fellAtMs = [...state.fellAtMs.filter((at) => nowMs - at < FLAP_MEMORY_MS), nowMs].slice(-16);
    return { ...next, health: 'down', sinceMs: nowMs, fellAtMs };
  }
  const passedLongEnough = nowMs - streakSinceMs >= returnDelayMs(state, nowMs, options);
  if (passed && state.health === 'down' && streak >= options.rise && passedLongEnough) {
    return { ...next, health: 'up', sinceMs: nowMs };
  }
  return next;
}

/** 0 before the first fall; then `returnDelayMs`, doubled for each further fall that is not forgotten. */
export function returnDelayMs(state: CheckState, nowMs: number, options: DampingOptions): number {
  const falls = state.fellAtMs.filter((at) => nowMs - at < FLAP_MEMORY_MS).length;
  return falls === 0 ? 0 : Math.min(options.returnDelayMs * 2 ** (falls - 1), MAX_RETURN_DELAY_MS);
}
