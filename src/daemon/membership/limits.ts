/** Bounds of everything that others could make grow, each with its reason. */
export const limits = {
  /**
   * The design is simulated to 500 members; this is half as many again, and a digest of them still fits one message of
   * 64 kB.
   */
  members: 750,
  /** Members, and as many again for hosts that were re-installed and are admitted under a second key. */
  roster: 2048,
  /** One tombstone for each member that could have existed. */
  tombstones: 1024,
  /** Two make a verdict; four leave room for two that are mistaken. */
  accusersPerMember: 4,
  /** Probes of others on our links (at most 12), on their links (as many), and further requests of an eager peer. */
  relayDuties: 64,
  /** A peer has at most one probe per link; more than this many at once from one peer is abuse. */
  relayDutiesPerPeer: 12,
  /** 32 records of about 500 bytes are 16 kB; larger ones the wire splits further. */
  recordsPerMessage: 32,
  accusationsPerMessage: 64,
  /** An honest accuser watches at most 12 links: twice that at once, then slowly. Further accusations do not count. */
  accusationBurst: 32,
  accusationsPerSecond: 2,
  /** A refuted accusation costs this many more: a member that is always wrong counts once in eight seconds. */
  refutedAccusation: 15,
  /** A member that was wrong for a minute counts again eight seconds later. */
  accusationDebt: 16,
  /** After two refutations, and six seconds longer: one is an honest mistake. */
  doubtedBelow: 12,
  /** A joiner asks once or twice, and then each 30 s. A full answer is the most expensive request of a peer. */
  syncAnswersBurst: 6,
  syncAnswersPerSecond: 0.5,
  /** Start ids seen under this node's key: one is normal after a lost snapshot, more are clones. */
  otherStarts: 16,
  /** Operators read notes: a flood of refused records must not become a flood of log lines. */
  notesBurst: 20,
  notesPerSecond: 1,
  /** Larger incarnations would leave no room for refutations below 2^53. Unix seconds start near 2^31. */
  incarnation: 2 ** 48,
  sequence: 2 ** 48,
  services: 32,
  tags: 16,
  tagBytes: 64,
  nameLength: 255,
  /** Gossip times kept for the estimate of the cluster's rate: a few seconds' worth at the rate that we allow. */
  gossipTimes: 64,
  /** A load average of a million is a reading error. */
  load: 100_000_000,
} as const;

/** A token bucket in machine time; `burst` at once, then `perSecond`. */
export interface Bucket {
  tokens: number;
  filledMs: number;
}

/** @param reserve tokens that stay for what is more urgent */
export function takeToken(
  bucket: Bucket,
  burst: number,
  perSecond: number,
  nowMs: number,
  reserve = 0,
): boolean {
  const earned = (Math.max(0, nowMs - bucket.filledMs) / 1000) * perSecond;
  bucket.tokens = Math.min(burst, bucket.tokens + earned);
  bucket.filledMs = nowMs;
  if (bucket.tokens < 1 + reserve) return false;
  bucket.tokens -= 1;
  return true;
}
