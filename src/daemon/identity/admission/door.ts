/**
 * Decides which connections the admission listener keeps. Pure; the caller passes the time.
 *
 * The listener is open to strangers, so it may drop connections: if there are too many, the one that has waited longest
 * without a proof is dropped for the new one. A real joiner needs a tenth of a second, so a flood of silent sockets
 * only pushes out its own.
 */
export interface DoorLimits {
  /** Connections at once, in total and of one address. */
  readonly connections: number;
  readonly connectionsPerAddress: number;
  /** Connections a second in the long run, and the burst before that limit applies. */
  readonly perSecond: number;
  readonly burst: number;
  readonly perSecondPerAddress: number;
  readonly burstPerAddress: number;
}

/** A TLS handshake costs the issuer 3 ms of CPU: 32 a second are a tenth of one core. */
export const DOOR_LIMITS: DoorLimits = {
  connections: 64,
  connectionsPerAddress: 8,
  perSecond: 32,
  burst: 64,
  perSecondPerAddress: 4,
  burstPerAddress: 20,
};

/** Addresses with a history; a private network rarely has more, and forgetting one costs only a burst. */
const ADDRESSES = 1024;

interface Visitor {
  readonly name: string;
  readonly address: string;
  proved: boolean;
}

interface Bucket {
  level: number;
  atMs: number;
}

export class Door {
  readonly #limits: DoorLimits;
  /** In order of arrival. */
  readonly #visitors: Visitor[] = [];
  readonly #byAddress = new Map<string, Bucket>();
  readonly #all: Bucket;

  constructor(limits: DoorLimits) {
    this.#limits = limits;
    this.#all = { level: limits.burst, atMs: 0 };
  }

  get size(): number {
    return this.#visitors.length;
  }

  /**
   * @param name of the connection, unique among the open ones
   * @param nowMs monotonic
   * @returns whether the connection may stay, and which other one must be dropped for it
   */
  enter(
    name: string,
    address: string,
    nowMs: number,
  ): { readonly enters: boolean; readonly evicted?: string } {
    const { perSecondPerAddress, burstPerAddress, perSecond, burst } = this.#limits;
    const own = this.#bucketOf(address, nowMs);
    // The limit of the address comes first: one that connects too often must not use up the common limit.
    if (!takes(own, perSecondPerAddress, burstPerAddress, nowMs)) return { enters: false };
    if (!takes(this.#all, perSecond, burst, nowMs)) return { enters: false };
    const room = this.#room(address);
    if (room === 'none') return { enters: false };
    this.#visitors.push({ name, address, proved: false });
    if (room === 'free') return { enters: true };
    this.leave(room.name);
    return { enters: true, evicted: room.name };
  }

  #room(address: string): Visitor | 'free' | 'none' {
    const { connections, connectionsPerAddress } = this.#limits;
    const neighbours = this.#visitors.filter((visitor) => visitor.address === address);
    const crowd = neighbours.length >= connectionsPerAddress ? neighbours : this.#visitors;
    if (crowd === this.#visitors && this.#visitors.length < connections) return 'free';
    return crowd.find((visitor) => !visitor.proved) ?? 'none';
  }

  /** The joiner has proved a token: it is not dropped any more. */
  prove(name: string): void {
    const visitor = this.#visitors.find((candidate) => candidate.name === name);
    if (visitor !== undefined) visitor.proved = true;
  }

  leave(name: string): void {
    const index = this.#visitors.findIndex((visitor) => visitor.name === name);
    if (index >= 0) this.#visitors.splice(index, 1);
  }

  #bucketOf(address: string, nowMs: number): Bucket {
    const known = this.#byAddress.get(address);
    if (known !== undefined) return known;
    if (this.#byAddress.size >= ADDRESSES) {
      const [oldest] = this.#byAddress.keys();
      if (oldest !== undefined) this.#byAddress.delete(oldest);
    }
    const bucket = { level: this.#limits.burstPerAddress, atMs: nowMs };
    this.#byAddress.set(address, bucket);
    return bucket;
  }
}

function takes(bucket: Bucket, perSecond: number, burst: number, nowMs: number): boolean {
  const elapsedMs = Math.max(0, nowMs - bucket.atMs);
  bucket.level = Math.min(burst, bucket.level + (elapsedMs * perSecond) / 1000);
  bucket.atMs = nowMs;
  if (bucket.level < 1) return false;
  bucket.level -= 1;
  return true;
}
