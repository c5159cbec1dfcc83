import type { Stream } from '@libp2p/interface';
import { TransportError } from './errors.ts';

/** Length of a frame, 4 bytes, big endian, before each frame. */
const HEADER_BYTES = 4;
/** Limit of data that arrives before the next read: a member can fill its queue in the moment of its admission. */
const MAX_AHEAD_BYTES = 1024 * 1024;

export function framed(bytes: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + bytes.byteLength);
  new DataView(frame.buffer).setUint32(0, bytes.byteLength);
  frame.set(bytes, HEADER_BYTES);
  return frame;
}

/** Cuts a byte stream into frames, one at a time: the limit of the next frame is known only after the previous one. */
export class FrameReader {
  #pending: Uint8Array = new Uint8Array(0);

  /** Bytes that arrived and belong to no complete frame yet. */
  get pendingBytes(): number {
    return this.#pending.byteLength;
  }

  push(chunk: Uint8Array): void {
    this.#pending = this.#pending.byteLength === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
  }

  /**
   * The next frame if it is complete. Throws as soon as a frame announces more than `maxBytes`: nothing is read after
   * that.
   */
  next(maxBytes: number): Uint8Array | undefined {
    const pending = this.#pending;
    if (pending.byteLength < HEADER_BYTES) return undefined;
    const length = new DataView(pending.buffer, pending.byteOffset).getUint32(0);
    if (length > maxBytes) throw new TransportError('too-large', `a frame of ${length} bytes`);
    if (pending.byteLength < HEADER_BYTES + length) return undefined;
    this.#pending = pending.subarray(HEADER_BYTES + length);
    return pending.subarray(HEADER_BYTES, HEADER_BYTES + length);
  }
}

/**
 * Frames over one libp2p stream. They are first read one by one (a handshake, a request); after `listen` they go to a
 * listener. A fault of the other side aborts the stream.
 */
export class FramedStream {
  readonly stream: Stream;
  readonly #reader = new FrameReader();
  #maxBytes: number;
  #waiting: PromiseWithResolvers<Uint8Array> | undefined;
  #listener: ((frame: Uint8Array) => void) | undefined;
  #ended: Error | undefined;

  constructor(stream: Stream, maxBytes: number) {
    this.stream = stream;
    this.#maxBytes = maxBytes;
    stream.addEventListener('message', ({ data }) => this.#onData(data.subarray()));
    const ended = (): void => this.#onEnd(new TransportError('not-connected', 'the stream ended'));
    stream.addEventListener('close', ended);
    stream.addEventListener('remoteCloseWrite', ended);
  }

  /** Bytes given to `send` that the connection has not accepted yet. */
  get unsentBytes(): number {
    return this.stream.writeBufferLength;
  }

  /** Whether the stream accepted the frame; false if it is closing. */
  send(bytes: Uint8Array): boolean {
    if (this.stream.writeStatus !== 'writable') return false;
    this.stream.send(framed(bytes));
    return true;
  }

  /** The next frame. Rejects when the stream ends or the signal fires. */
  async read(signal: AbortSignal): Promise<Uint8Array> {
    const here = this.#reader.next(this.#maxBytes);
    if (here !== undefined) return here;
    if (this.#ended !== undefined) throw this.#ended;
    this.#waiting = Promise.withResolvers<Uint8Array>();
    const { promise, reject } = this.#waiting;
    const onAbort = (): void => reject(new TransportError('timeout', 'no frame in time'));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#waiting = undefined;
    }
  }

  /** From now on each frame goes to `listener`, first those that have already arrived. */
  listen(maxBytes: number, listener: (frame: Uint8Array) => void): void {
    this.#maxBytes = maxBytes;
    this.#listener = listener;
    this.#deliver();
  }

  abort(error: Error): void {
    this.stream.abort(error);
    this.#onEnd(error);
  }

  #onData(chunk: Uint8Array): void {
    this.#reader.push(chunk);
    this.#deliver();
  }

  #deliver(): void {
    try {
      if (this.#listener !== undefined) return this.#deliverAll(this.#listener);
      if (this.#waiting !== undefined) this.#deliverOne(this.#waiting);
      // A requested frame may be larger than unrequested data.
      const asked = this.#waiting === undefined ? 0 : HEADER_BYTES + this.#maxBytes;
      if (this.#reader.pendingBytes > asked + MAX_AHEAD_BYTES)
        throw new TransportError('too-large', 'too much unrequested data');
    } catch (error) {
      this.abort(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #deliverOne(waiting: PromiseWithResolvers<Uint8Array>): void {
    const frame = this.#reader.next(this.#maxBytes);
    if (frame === undefined) return;
    this.#waiting = undefined;
    waiting.resolve(frame);
  }

  #deliverAll(listener: (frame: Uint8Array) => void): void {
    for (;;) {
      const frame = this.#reader.next(this.#maxBytes);
      if (frame === undefined || this.#ended !== undefined) return;
      listener(frame);
    }
  }

  #onEnd(error: Error): void {
    this.#ended ??= error;
    this.#waiting?.reject(this.#ended);
  }
}
