import type { Core } from './core.ts';
import { type Bucket, limits, takeToken } from './limits.ts';
import type { PeerId } from './types.ts';

/**
 * How many accusations of a member count. One that accuses everybody uses up its allowance; the rest of its messages is
 * not affected. A refuted accuser uses it up sooner. Otherwise one liar could always be the first of the two accusers
 * of every member, so that one honest mistake would be a death, and all members would refute without end.
 */
export function accuserHasCredit(core: Core, accuser: PeerId): boolean {
  const bucket = bucketOf(core, accuser);
  return takeToken(bucket, limits.accusationBurst, limits.accusationsPerSecond, core.nowMs);
}

/** The member that these accused is alive, and was alive all the time. */
export function discredit(core: Core, accusers: Iterable<PeerId>): void {
  for (const accuser of accusers) {
    const bucket = bucketOf(core, accuser);
    bucket.tokens = Math.max(-limits.accusationDebt, bucket.tokens - limits.refutedAccusation);
  }
}

/** It was refuted repeatedly: some members still count its accusations, others no longer. */
export function isDoubted(core: Core, accuser: PeerId): boolean {
  const { tokens, filledMs } = bucketOf(core, accuser);
  const earned = ((core.nowMs - filledMs) / 1000) * limits.accusationsPerSecond;
  return tokens + earned < limits.doubtedBelow;
}

function bucketOf(core: Core, accuser: PeerId): Bucket {
  const bucket = core.accuserBuckets.get(accuser) ?? {
    tokens: limits.accusationBurst,
    filledMs: core.nowMs,
  };
  core.accuserBuckets.set(accuser, bucket);
  return bucket;
}
