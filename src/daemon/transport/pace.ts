import type { Connection, MessageStream } from '@libp2p/interface';
import { TokenBucket } from '../driver/token-bucket.ts';

/**
 * How much work one peer may cause on this node. Work is CPU time of one core, measured on a machine of 5 dollars a
 * month.
 */
export interface PaceLimits {
  /** Over a long time. */
  readonly steadyMsPerSecond: number;
  readonly steadyBurstMs: number;
  /** Over a short time, so that a burst does not delay the probes of others. */
  readonly shortMsPerSecond: number;
  readonly shortBurstMs: number;
}

/**
 * A member at n = 30 causes 1 ms of work a second, a storm of 200 changes in ten seconds 10 ms, the first sync of a
 * cluster of 500 (500 signatures, a roster of 1.3 MB) 200 ms at once. A second of work in advance leaves room for five
 * of those. The rest of a flood's limit (10 % of a core) is for its consequences: refutations that everybody reads, and
 * the higher cost of everything on a busy machine.
 */
export const MEMBER_PACE: PaceLimits = {
  steadyMsPerSecond: 25,
  steadyBurstMs: 1000,
  shortMsPerSecond: 100,
  shortBurstMs: 50,
};

/** A stranger has one second and 4 KB to present its certificate: this is three times the cost of that. */
export const STRANGER_PACE: PaceLimits = {
  steadyMsPerSecond: 1,
  steadyBurstMs: 10,
  shortMsPerSecond: 10,
  shortBurstMs: 10,
};

/** Costs in ms of work. Noise, yamux and the cutting of frames: 60 µs for 4 kB, which may be many small frames. */
const BYTES_PER_MS = 16 * 1024;
/** The protocol of a new stream is negotiated in four small messages. */
const STREAM_MS = 0.5;
/** Noise with its two key agreements and the handshake of a link. */
export const CONNECTION_MS = 5;
/** A request on its own stream, with its answer; bytes and the stream are extra. */
export const REQUEST_MS = 1;

/** The cost of so many bytes, read or written. */
export function workOfBytes(bytes: number): number {
  return bytes / BYTES_PER_MS;
}

type Readable = MessageStream & { readonly readStatus?: string };

/** The part of a libp2p connection that is used here; both are private in libp2p. */
interface Insides {
  /** After Noise and before yamux: all protocols of the connection, decrypted. */
  readonly muxer?: EventTarget & { readonly maConn?: Readable };
}

/**
 * Reads from a peer only as fast as its share of work allows. A peer that causes more is not read for a while: its
 * messages wait in its own buffers, nothing is lost, and all other peers are served meanwhile. One instance for all
 * connections of a peer, also later ones.
 */
export class Pace {
  readonly #buckets: readonly TokenBucket[];
  readonly #slowed: () => void;
  readonly #nowMs: () => number;
  readonly #streams = new Map<Connection, Readable>();
  #timer: NodeJS.Timeout | undefined;

  /** @param slowed called each time the peer is paused */
  constructor(limits: PaceLimits, slowed: () => void, nowMs: () => number = () => performance.now()) {
    const { steadyBurstMs, steadyMsPerSecond, shortBurstMs, shortMsPerSecond } = limits;
    this.#slowed = slowed;
    this.#nowMs = nowMs;
    this.#buckets = [
      new TokenBucket(steadyBurstMs, steadyMsPerSecond, nowMs()),
      new TokenBucket(shortBurstMs, shortMsPerSecond, nowMs()),
    ];
  }

  /** From now on everything on the connection is counted. */
  follow(connection: Connection): void {
    const { muxer } = connection as unknown as Insides;
    const stream = muxer?.maConn;
    if (stream === undefined || this.#streams.has(connection)) return;
    this.#streams.set(connection, stream);
    const count = (workMs: number): void => {
      if (this.#streams.has(connection)) this.charge(workMs);
    };
    stream.addEventListener('message', ({ data }) => count(workOfBytes(data.byteLength)));
    muxer?.addEventListener('stream', () => count(STREAM_MS));
    this.#pauseAll();
  }

  forget(connection: Connection): void {
    this.#streams.delete(connection);
  }

  /** Work that was done for this peer. */
  charge(workMs: number): void {
    const nowMs = this.#nowMs();
    for (const bucket of this.#buckets) bucket.spend(workMs, nowMs);
    if (this.#timer !== undefined) return;
    const waitMs = this.#waitMs();
    if (waitMs === 0) return;
    this.#slowed();
    this.#wait(waitMs);
    // Not during a resume, which first forwards what waited and then lets the socket read: it would read for ever.
    queueMicrotask(() => this.#pauseAll());
  }

  /** Stops counting; what waited is read. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#resumeAll();
    this.#streams.clear();
  }

  #pauseAll(): void {
    if (this.#timer === undefined) return;
    for (const stream of this.#streams.values()) if (stream.readStatus === 'readable') stream.pause();
  }

  #resumeAll(): void {
    for (const stream of this.#streams.values()) if (stream.readStatus === 'paused') stream.resume();
  }

  #waitMs(): number {
    const nowMs = this.#nowMs();
    return Math.max(...this.#buckets.map((bucket) => bucket.waitMs(nowMs)));
  }

  #wait(waitMs: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const moreMs = this.#waitMs();
      if (moreMs > 0) return this.#wait(moreMs);
      this.#resumeAll();
    }, Math.ceil(waitMs)).unref();
  }
}
