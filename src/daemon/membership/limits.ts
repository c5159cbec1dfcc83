/** Bounds of everything that somebody else could make grow. The reason stands beside each number. */
export const limits = {
  /** The design is simulated to 500 members; more by half, and a digest of them still fits one message of 64 kB. */
  members: 750,
  /** Members, and as many again for hosts that were re-installed and are admitted under a second key. */
  roster: 2048,
  /** One tombstone for each member that could have existed. */
  tombstones: 1024,
  /** Two make a verdict; four leave room for the two that turn out to be mistaken. */
  accusersPerMember: 4,
  /** Probes of others on our links (at most 12), on their links (as many), and what an eager peer asks on top. */
  relayDuties: 64,
  /** A peer has at most one probe per link; more than this many at once from one peer is abuse. */
  relayDutiesPerPeer: 12,
  /** 32 records of about 500 bytes are 16 kB; larger ones the wire splits further. */
  recordsPerMessage: 32,
  accusationsPerMessage: 64,
  /**
   * An honest accuser watches at most 12 links; twice that at once, then slowly: who accuses everybody is not heard.
   */
  accusationBurst: 32,
  accusationsPerSecond: 2,
  /** A refuted accusation costs as many as this more: who is wrong all the time is heard once in eight seconds. */
  refutedAccusation: 15,
  /** Whoever was wrong during a bad minute is heard again eight seconds after it. */
  accusationDebt: 16,
  /** After two refutations, and six seconds longer: one is an honest mistake. */
  doubtedBelow: 12,
  /** A joiner asks once or twice, and then each 30 s. A full answer is the dearest thing that a peer can ask for. */
  syncAnswersBurst: 6,
  syncAnswersPerSecond: 0.5,
  /** Start ids seen under our own key: one is normal after a lost snapshot, more are clones. */
  otherStarts: 16,
  /** Notes are for operators' eyes: a flood of refused records must not become a flood of log lines. */
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

export function takeToken(bucket: Bucket, burst: number, perSecond: number, nowMs: number): boolean {
  const earned = (Math.max(0, nowMs - bucket.filledMs) / 1000) * perSecond;
  bucket.tokens = Math.min(burst, bucket.tokens + earned);
  bucket.filledMs = nowMs;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}
