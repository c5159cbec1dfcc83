import type { OrderOutcome, SiteBundle } from './desired.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/**
 * Tighter than the CA's, so that the CA's are never reached: Let's Encrypt signs 5 certificates for a set of names in 7
 * days, and allows 5 failed checks of a name in an hour.
 */
const MOST_SIGNED = 3;
const SIGNED_IN_MS = 7 * DAY_MS;
const MOST_REFUSED = 2;
const REFUSED_IN_MS = HOUR_MS;
/** After a success there is no reason for another order, unless the configuration changed. */
const REST_MS = DAY_MS;
/** After one failure, two, three …; then the last. */
const PAUSES_MS = [MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 2 * HOUR_MS, 6 * HOUR_MS] as const;
/** Of one set of names at most 32 can still hold an order: one in 6 hours for 7 days, and those that were signed. */
export const MOST_OUTCOMES = 64;

/** Why an order is made. */
export type OrderReason =
  | 'none'
  | 'names'
  | 'profile'
  | 'directory'
  | 'revoked'
  | 'removal'
  | 'revocation'
  | 'asked'
  | 'renewal';

export interface Held {
  readonly code: 'certificate-limited' | 'certificate-budget';
  readonly untilMs: number;
}

/**
 * Failures before an operator's request do not count: the operator has repaired the cause. With `force` our other
 * limits are ignored until the CA was asked to sign once.
 *
 * @param bundle `asked` is that for the present certificate
 * @returns the limit that delays an order for these names; undefined: none
 */
export function heldOrder(
  { recent, notBeforeMs, asked }: Pick<SiteBundle, 'recent' | 'notBeforeMs' | 'asked'>,
  names: readonly string[],
  reason: OrderReason,
  nowMs: number,
): Held | undefined {
  const set = setOf(names);
  const own = recent.filter((each) => each.names === set);
  const issuedMs = timesOf(own, ['issued'], nowMs).at(-1);
  const changed = ['names', 'directory', 'revoked', 'removal', 'revocation'].includes(reason);
  const askedMs = asked?.atMs ?? 0;
  const signed = timesOf(own, ['finalized'], nowMs);
  const forced = asked?.force === true && signed.every((each) => each < askedMs);
  const refused = timesOf(own, ['refused'], nowMs).filter((each) => !forced || each >= askedMs);
  const untilMs = Math.max(
    notBeforeMs,
    issuedMs === undefined || changed || forced ? 0 : issuedMs + REST_MS,
    pauseEndMs(timesOf(own, ['refused', 'failed'], nowMs), Math.max(issuedMs ?? 0, askedMs)),
    freeAgainMs(refused, MOST_REFUSED, REFUSED_IN_MS),
  );
  const budgetMs = forced ? 0 : freeAgainMs(signed, MOST_SIGNED, SIGNED_IN_MS);
  if (budgetMs > nowMs && budgetMs >= untilMs) return { code: 'certificate-budget', untilMs: budgetMs };
  return untilMs > nowMs ? { code: 'certificate-limited', untilMs } : undefined;
}

/**
 * In order. A clock that was set back leaves outcomes in the future: they count as of now. An outcome further away than
 * the longest limit comes from a clock that was wrong by more, and would delay for as long: it is ignored, since the CA
 * has limits of its own.
 */
function timesOf(
  outcomes: readonly OrderOutcome[],
  kinds: readonly OrderOutcome['outcome'][],
  nowMs: number,
): number[] {
  return outcomes
    .filter(({ outcome, atMs }) => kinds.includes(outcome) && atMs <= nowMs + SIGNED_IN_MS)
    .map(({ atMs }) => Math.min(atMs, nowMs))
    .sort((one, other) => one - other);
}

/** Failures before a success do not count. */
function pauseEndMs(failedMs: readonly number[], wellMs: number): number {
  const since = failedMs.filter((each) => each > wellMs);
  const pauseMs = PAUSES_MS[Math.min(since.length, PAUSES_MS.length) - 1];
  const lastMs = since.at(-1);
  return lastMs === undefined || pauseMs === undefined ? 0 : lastMs + pauseMs;
}

/** When one more is allowed: the time at which the oldest of the last `most` is forgotten. */
function freeAgainMs(timesMs: readonly number[], most: number, withinMs: number): number {
  const oldest = timesMs.at(-most);
  return oldest === undefined ? 0 : oldest + withinMs;
}

export function setOf(names: readonly string[]): string {
  return [...new Set(names)].sort().join(' ');
}
