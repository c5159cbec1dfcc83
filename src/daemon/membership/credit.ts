import type { Core } from './core.ts';
import { type Bucket, limits, takeToken } from './limits.ts';
import type { PeerId } from './types.ts';

/**
 * How far an accuser is believed. Who accuses everybody runs dry; the rest of what it says is not affected. Who is
 * refuted runs dry sooner: otherwise one liar would be the first of the two accusers of every member at all times, so
 * that one honest mistake more were a death, and would have all members refute without end.
 */
export function accuserHasCredit(core: Core, accuser: PeerId): boolean {
  const bucket = bucketOf(core, accuser);
  return takeToken(bucket, limits.accusationBurst, limits.accusationsPerSecond, core.nowMs);
}

/** Whom these accused lives, and has lived all the while. */
export function discredit(core: Core, accusers: Iterable<PeerId>): void {
  for (const accuser of accusers) {
    const bucket = bucketOf(core, accuser);
    bucket.tokens = Math.max(-limits.accusationDebt, bucket.tokens - limits.refutedAccusation);
  }
}

/** It was refuted again and again: some members still count its word, others no more. */
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
