import type { OrderOutcome, SiteBundle } from './desired.ts';
import { MOST_OUTCOMES } from './limits.ts';

/**
 * Merges two bundles of app nodes, e.g. after a partition in which both sides ordered: the certificate that was issued
 * later wins everywhere (it can end earlier, if profile or CA differ), then the later generation, then the higher text.
 * The data of limits is kept from both.
 * Nodes that get the same bundles, in any order and any number of times, reach the same result.
 */
export function mergedBundles(one: SiteBundle, other: SiteBundle): SiteBundle {
  const winner = isBehind(one, other) ? other : one;
  return {
    ...winner,
    notBeforeMs: Math.max(one.notBeforeMs, other.notBeforeMs),
    recent: outcomes([...one.recent, ...other.recent]),
  };
}

function isBehind(one: SiteBundle, other: SiteBundle): boolean {
  const order =
    (one.current?.fromMs ?? 0) - (other.current?.fromMs ?? 0) || one.generation - other.generation;
  return order === 0 ? textOf(one) < textOf(other) : order < 0;
}

/** The fields that come from one bundle as a whole. */
function textOf({ account, current, next, renewal, asked, exposed, without }: SiteBundle): string {
  return JSON.stringify([
    [account?.key, account?.nextKey, account?.url],
    [
      current?.endMs,
      current?.fingerprint,
      current?.key,
      current?.chain,
      current?.names,
      current?.profile,
      current?.revoked,
    ],
    [next?.key, next?.url, next?.names, next?.profile, next?.sinceMs],
    [renewal?.fingerprint, renewal?.atMs],
    [asked?.fingerprint, asked?.atMs, asked?.force],
    exposed?.map(({ fingerprint }) => fingerprint),
    without,
    // A member of an older version drops them: as a text in a text, a bundle with them is the higher one.
    next?.answers === undefined ? '' : JSON.stringify(next.answers.map(({ name, value }) => [name, value])),
    exposed === undefined
      ? ''
      : JSON.stringify(exposed.map(({ reason = -1, now }) => [reason, now === true ? 1 : 0])),
  ]);
}

/** The newest, each once, oldest first. */
export function outcomes(all: readonly OrderOutcome[]): OrderOutcome[] {
  const named = new Map(all.map((each) => [`${each.atMs} ${each.outcome} ${each.names}`, each]));
  return [...named]
    .sort(([one, { atMs: a }], [other, { atMs: b }]) => a - b || (one < other ? -1 : 1))
    .slice(-MOST_OUTCOMES)
    .map(([, each]) => each);
}
