/** Bounds on what those who are not members can take up. */
export interface StrangerLimits {
  /** Connections of one address that are between accept and the end of Noise. */
  readonly pendingPerAddress: number;
  /** The same, of all addresses that are no member's. */
  readonly pending: number;
  /** Connections of unknown PeerIds that are presenting a certificate. */
  readonly presenting: number;
  /** Attempts of one address: a burst, then so many in a second. A refused one costs us nothing but the accept. */
  readonly burst: number;
  readonly perSecond: number;
}

/**
 * A Noise handshake costs 2 ms of CPU: 64 waiting ones cost 10 MB and 128 ms at worst, and an address that keeps trying
 * gets through 4 of them a second. A new member needs one attempt.
 */
export const DEFAULT_STRANGER_LIMITS: StrangerLimits = {
  pendingPerAddress: 8,
  pending: 64,
  presenting: 16,
  burst: 16,
  perSecond: 4,
};

/** Addresses remembered for their rate. The private network of a cluster is a /24 at most; beyond that the oldest goes. */
const MAX_ADDRESSES = 1024;

interface Bucket {
  tokens: number;
  atMs: number;
  pending: number;
}

/** Counts connections that are not yet known to be a member's. Never asked about members' addresses. */
export class Strangers {
  readonly #limits: StrangerLimits;
  readonly #nowMs: () => number;
  readonly #buckets = new Map<string, Bucket>();
  #pending = 0;
  #presenting = 0;

  constructor(limits: StrangerLimits, nowMs: () => number) {
    this.#limits = limits;
    this.#nowMs = nowMs;
  }

  /** A connection from `address`: a function that ends its pending time (safe to call twice), or undefined: refuse it. */
  arrive(address: string): (() => void) | undefined {
    const bucket = this.#bucketOf(address);
    const { pendingPerAddress, pending } = this.#limits;
    if (bucket.tokens < 1 || bucket.pending >= pendingPerAddress || this.#pending >= pending)
      return undefined;
    bucket.tokens -= 1;
    bucket.pending += 1;
    this.#pending += 1;
    return once(() => {
      bucket.pending -= 1;
      this.#pending -= 1;
    });
  }

  /** An unknown PeerId wants to present its certificate: a function that ends it, or undefined: refuse it. */
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
    if (this.#buckets.size > MAX_ADDRESSES) {
      const [oldest] = this.#buckets.keys();
      if (oldest !== undefined) this.#buckets.delete(oldest);
    }
    return bucket;
  }
}

function once(end: () => void): () => void {
  let ended = false;
  return () => {
    if (ended) return;
    ended = true;
    end();
  };
}
