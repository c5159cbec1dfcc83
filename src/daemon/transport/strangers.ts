import { TokenBucket } from '../driver/token-bucket.ts';

/** Bounds on what strangers can use up. */
export interface StrangerLimits {
  /** Connections of one address between accept and the end of Noise. */
  readonly pendingPerAddress: number;
  /** The same for all addresses that belong to no member. */
  readonly pending: number;
  /** Connections of unknown PeerIds that are presenting a certificate. */
  readonly presenting: number;
  /** Attempts of one address: a burst, then so many in a second. A refused attempt costs only the accept. */
  readonly burst: number;
  readonly perSecond: number;
  /** The same for an address of a member. */
  readonly memberBurst: number;
  readonly memberPerSecond: number;
}

/**
 * A Noise handshake costs 2 ms of CPU: 64 open ones cost 10 MB and 128 ms at worst, and an address that keeps trying
 * gets 4 of them a second. A new member needs one attempt.
 */
export const DEFAULT_STRANGER_LIMITS: StrangerLimits = {
  pendingPerAddress: 8,
  pending: 64,
  presenting: 16,
  burst: 16,
  perSecond: 4,
  // A machine with both roles dials each role here at its start, and then at most once in half a second.
  memberBurst: 64,
  memberPerSecond: 4,
};

/**
 * Addresses whose rate is remembered. The private network of a cluster is usually a /24; beyond that the oldest is
 * forgotten.
 */
const MAX_ADDRESSES = 1024;

interface Bucket {
  tokens: number;
  atMs: number;
  pending: number;
}

/** Counts connections that are not known to belong to a member. */
export class Strangers {
  readonly #limits: StrangerLimits;
  readonly #nowMs: () => number;
  readonly #buckets = new Map<string, Bucket>();
  /** By members' addresses. */
  readonly #memberBuckets = new Map<string, TokenBucket>();
  #pending = 0;
  #presenting = 0;

  constructor(limits: StrangerLimits, nowMs: () => number) {
    this.#limits = limits;
    this.#nowMs = nowMs;
  }

  /**
   * A connection from `address`: returns a function that ends its pending time (safe to call twice), or undefined:
   * refuse it.
   */
  arrive(address: string): (() => void) | undefined {
    if (!this.hasRoom(address)) return undefined;
    const bucket = this.#bucketOf(address);
    bucket.tokens -= 1;
    bucket.pending += 1;
    this.#pending += 1;
    return once(() => {
      bucket.pending -= 1;
      this.#pending -= 1;
    });
  }

  /** Whether `arrive` would accept it. */
  hasRoom(address: string): boolean {
    const bucket = this.#bucketOf(address);
    const { pendingPerAddress, pending } = this.#limits;
    return bucket.tokens >= 1 && bucket.pending < pendingPerAddress && this.#pending < pending;
  }

  /**
   * A connection from a member's address: false if it dials more often than any member needs. Each costs a Noise
   * handshake before its PeerId is known.
   */
  memberArrives(address: string): boolean {
    return this.#memberBucketOf(address).take(this.#nowMs());
  }

  /** Whether `memberArrives` would accept it. */
  memberHasRoom(address: string): boolean {
    return this.#memberBucketOf(address).has(this.#nowMs());
  }

  #memberBucketOf(address: string): TokenBucket {
    let bucket = this.#memberBuckets.get(address);
    if (bucket === undefined) {
      bucket = new TokenBucket(this.#limits.memberBurst, this.#limits.memberPerSecond, this.#nowMs());
      this.#memberBuckets.set(address, bucket);
      dropOldest(this.#memberBuckets);
    }
    return bucket;
  }

  /** An unknown PeerId wants to present its certificate: returns a function that ends it, or undefined: refuse it. */
  present(): (() => void) | undefined {
    if (this.#presenting >= this.#limits.presenting) return undefined;
    this.#presenting += 1;
    return once(() => {
      this.#presenting -= 1;
    });
  }

  #bucketOf(address: string): Bucket {
    const { burst, perSecond } = this.#limits;
    const nowMs = this.#nowMs();
    const bucket = this.#buckets.get(address) ?? { tokens: burst, atMs: nowMs, pending: 0 };
    bucket.tokens = Math.min(burst, bucket.tokens + ((nowMs - bucket.atMs) / 1000) * perSecond);
    bucket.atMs = nowMs;
    this.#buckets.delete(address);
    this.#buckets.set(address, bucket);
    dropOldest(this.#buckets);
    return bucket;
  }
}

function dropOldest(buckets: Map<string, unknown>): void {
  if (buckets.size <= MAX_ADDRESSES) return;
  const [oldest] = buckets.keys();
  if (oldest !== undefined) buckets.delete(oldest);
}

function once(end: () => void): () => void {
  let ended = false;
  return () => {
    if (ended) return;
    ended = true;
    end();
  };
}
