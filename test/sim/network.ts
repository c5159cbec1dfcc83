import type { Seeded } from '../../src/daemon/membership/seeded.ts';
import type { Queue } from './queue.ts';

/**
 * Links as TCP makes them: nothing is lost, everything may be late. A lost segment is sent again after 200 ms, then
 * twice that and so on (RFC 6298, Linux' minimum), and all behind it on the same connection waits; after `abortMs`
 * without success the connection is given up by the sender. No fast retransmission: worse than the real thing.
 */
export const tcp = {
  rtoMinMs: 200,
  rtoMaxMs: 120_000,
  synRtoMs: 1000,
  /** tcp_retries2 = 15: about 15 minutes. */
  abortMs: 924_000,
  dialTimeoutMs: 5000,
  /** Noise and the multiplexer on both ends. */
  handshakeMs: 10,
} as const;

/**
 * Ethernet, IP and TCP with timestamps 66, Noise 18, yamux 12, the frame's length 4; and the other end's
 * acknowledgements of 66, of which 85 % travel alone. Measured on idle members (a ping is one segment of 40 bytes).
 */
export const FRAME_OVERHEAD_BYTES = 66 + 18 + 12 + 4 + 56;

export interface Faults {
  /** Share of segments lost, 0 to 1. */
  loss: number;
  latencyMs: number;
  jitterMs: number;
  /** Whether segments can travel this way now, if both ends are up. */
  reaches(from: string, to: string): boolean;
}

/** Power and network card: who is down neither sends nor hears. */
export interface Station {
  readonly id: string;
  readonly up: boolean;
}

/** Who sends on a stream. */
export interface Sender {
  /** False: the stream is over, everything waiting is forgotten. */
  alive(): boolean;
  /** Called once, on an abort. */
  gaveUp(): void;
}

interface Segment {
  readonly bytes: number;
  readonly arrive: () => void;
}

/** One direction of one connection. */
export interface Stream {
  readonly from: Station;
  readonly to: Station;
  /** Empty unless the first of them is being sent again and again. */
  readonly waiting: Segment[];
  retrying: boolean;
  rtoMs: number;
  failingSinceMs: number;
  lastArrivalMs: number;
}

export interface Network {
  readonly faults: Faults;
  /** By all together, what was lost included. */
  readonly bytesSent: number;
  stream(from: Station, to: Station): Stream;
  send(stream: Stream, sender: Sender, bytes: number, arrive: () => void): void;
  latency(): number;
  /** Time that `trips` segments in a row take, with their losses; `undefined`: longer than `mostMs`. */
  tripsMs(from: Station, to: Station, trips: number, rtoMs: number, mostMs: number): number | undefined;
}

export function createNetwork(queue: Queue, random: Seeded): Network {
  let bytesSent = 0;
  const faults: Faults = { loss: 0, latencyMs: 0.2, jitterMs: 0.3, reaches: () => true };
  const latency = (): number => faults.latencyMs + random.fraction() * faults.jitterMs;
  const lost = (from: Station, to: Station): boolean =>
    !from.up ||
    !to.up ||
    !faults.reaches(from.id, to.id) ||
    (faults.loss > 0 && random.fraction() < faults.loss);

  /** False: the segment was lost. */
  function transmit(stream: Stream, segment: Segment): boolean {
    bytesSent += segment.bytes;
    if (lost(stream.from, stream.to)) return false;
    stream.rtoMs = tcp.rtoMinMs;
    stream.failingSinceMs = -1;
    stream.lastArrivalMs = Math.max(stream.lastArrivalMs, queue.nowMs + latency());
    queue.at(stream.lastArrivalMs, segment.arrive);
    return true;
  }

  function pump(stream: Stream, sender: Sender): void {
    for (let head = stream.waiting[0]; head !== undefined; head = stream.waiting[0]) {
      if (!sender.alive()) {
        stream.waiting.length = 0;
        return;
      }
      if (!transmit(stream, head)) return retry(stream, sender);
      stream.waiting.shift();
    }
  }

  function retry(stream: Stream, sender: Sender): void {
    if (stream.failingSinceMs < 0) stream.failingSinceMs = queue.nowMs;
    if (queue.nowMs - stream.failingSinceMs > tcp.abortMs) {
      stream.waiting.length = 0;
      return sender.gaveUp();
    }
    stream.retrying = true;
    queue.after(stream.rtoMs, () => {
      stream.retrying = false;
      pump(stream, sender);
    });
    stream.rtoMs = Math.min(stream.rtoMs * 2, tcp.rtoMaxMs);
  }

  return {
    faults,
    get bytesSent() {
      return bytesSent;
    },
    latency,
    stream: (from, to) => ({
      from,
      to,
      waiting: [],
      retrying: false,
      rtoMs: tcp.rtoMinMs,
      failingSinceMs: -1,
      lastArrivalMs: 0,
    }),
    send(stream, sender, bytes, arrive) {
      const segment = { bytes: bytes + FRAME_OVERHEAD_BYTES, arrive };
      if (stream.retrying) {
        stream.waiting.push(segment);
      } else if (sender.alive() && !transmit(stream, segment)) {
        stream.waiting.push(segment);
        retry(stream, sender);
      }
    },
    tripsMs(from, to, trips, rtoMs, mostMs) {
      let total = 0;
      for (let trip = 0; trip < trips; trip += 1) {
        let wait = rtoMs;
        while (total <= mostMs && (lost(from, to) || lost(to, from))) {
          total += wait;
          wait *= 2;
        }
        total += 2 * latency();
      }
      return total <= mostMs ? total : undefined;
    },
  };
}
