import type { TLSSocket } from 'node:tls';
import { IdentityError } from '../errors.ts';

/** Reads frames from a socket, at most `limit` bytes in total. */
export class BoundedReader {
  readonly #socket: TLSSocket;
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #held = 0;
  #received = 0;
  #ended: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: TLSSocket, limit: number) {
    this.#socket = socket;
    this.#limit = limit;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.once('end', () => this.#end());
    socket.once('close', () => this.#end());
    socket.on('error', (error) => this.#end(error));
  }

  #take(chunk: Buffer): void {
    this.#received += chunk.length;
    if (this.#received > this.#limit) {
      this.#socket.destroy();
      this.#end();
      return;
    }
    // Joined only for a read: a sender of single bytes must not cause a copy of everything each time.
    this.#chunks.push(chunk);
    this.#held += chunk.length;
    this.#wake?.();
  }

  #end(cause?: Error): void {
    this.#ended ??= new IdentityError({
      code: 'admission-closed',
      message: 'The connection ended before the message was complete.',
      next: 'Try again.',
      retry: true,
      ...(cause === undefined ? {} : { cause }),
    });
    this.#wake?.();
  }

  /** Waits for exactly this number of bytes. @throws IdentityError `admission-closed` */
  async read(bytes: number): Promise<Buffer> {
    while (this.#held < bytes) {
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(bytes)];
    this.#held -= bytes;
    return all.subarray(0, bytes);
  }
}
