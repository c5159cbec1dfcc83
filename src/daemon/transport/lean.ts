import type { MessageStream } from '@libp2p/interface';
import { yamux } from '@libp2p/yamux';

/**
 * yamux and Noise as libp2p makes them, without three things that each of our small frames would pay for. Measured with
 * ten idle members: they were half of the CPU time and two thirds of the bytes.
 *
 * - yamux answers every data frame by a window update; go-yamux and rust-yamux wait until half of the window is used.
 * - Noise hands the length and the body of a frame to the socket one by one: two system calls, two TCP segments.
 * - Noise learns that it has read all frames from an exception, with a stack trace each time.
 *
 * What is replaced are methods of single objects, never of classes, and only where they are as expected: with a library
 * that looks otherwise everything works as it did before, and the tests say so.
 */
export function leanYamux(options: Parameters<typeof yamux>[0]): ReturnType<typeof yamux> {
  // Keep-alive asks each peer twice a minute what the machine's probes ask every second.
  const create = yamux({ ...options, enableKeepAlive: false });
  return () => {
    const factory = create();
    const createMuxer = factory.createStreamMuxer.bind(factory);
    factory.createStreamMuxer = (stream) => {
      trimNoise(stream as MessageStream & Partial<NoiseStream>);
      const muxer = createMuxer(stream);
      trimYamux(muxer as unknown as Partial<YamuxMuxer>);
      return muxer;
    };
    return factory;
  };
}

/** Private there: makes the streams of both sides. */
const NEW_STREAM = '_newStream';

interface YamuxMuxer {
  [NEW_STREAM](...facts: unknown[]): YamuxStream;
}

interface YamuxStream {
  state: number;
  readonly recvWindow: number;
  readonly recvWindowCapacity: number;
  sendWindowUpdate(): void;
}

/** StreamState.Established: in all other states a window update carries a flag as well, or none is wanted. */
const ESTABLISHED = 3;

function trimYamux(muxer: Partial<YamuxMuxer>): void {
  const create = muxer[NEW_STREAM]?.bind(muxer);
  if (create === undefined) return;
  muxer[NEW_STREAM] = (...facts) => {
    const stream = create(...facts);
    const update = stream.sendWindowUpdate.bind(stream);
    stream.sendWindowUpdate = () => {
      const plenty = stream.recvWindowCapacity * 2 > stream.recvWindow;
      if (stream.state !== ESTABLISHED || !plenty) update();
    };
    return stream;
  };
}

/** Of libp2p's Uint8ArrayList what is needed here. */
interface Chunks {
  readonly byteLength: number;
  getUint16(at: number): number;
  /** In one piece. */
  subarray(): Uint8Array;
}

interface NoiseStream {
  encrypt(chunk: Uint8Array | Chunks): Uint8Array | Chunks;
  readonly decoder: { lengthDecoder: (data: Chunks) => number };
}

/** Bytes of the length before each Noise message (https://noiseprotocol.org, libp2p's framing). */
const LENGTH_BYTES = 2;

function trimNoise(stream: Partial<NoiseStream>): void {
  const encrypt = stream.encrypt?.bind(stream);
  if (encrypt !== undefined) stream.encrypt = (chunk) => encrypt(chunk).subarray();
  if (stream.decoder?.lengthDecoder !== undefined)
    // An empty message needs its length as well: with less than that the decoder waits for more.
    stream.decoder.lengthDecoder = (data) => (data.byteLength < LENGTH_BYTES ? 0 : data.getUint16(0));
}
