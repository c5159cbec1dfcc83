import { createHmac, randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { readFrames, writeFrame, writeTick } from './frames.ts';

type Hello = { hello?: string; nonce?: string; proof?: string; up?: true };

/** A peer that has not shown its cookie by then is dropped (OTP's net_setuptime is 7 s). */
const handshakeTimeoutMs = 7000;

export type LinkEvents = {
  /** Asked once the peer has proved its cookie; false refuses it (the other direction won). */
  admit: (peer: string) => boolean;
  up: (link: Link) => void;
  down: (link: Link, reason: string) => void;
  frame: (link: Link, frame: unknown) => void;
  rejected: (peer: string) => void;
};

/**
 * One connection to one other node: the handshake with the cookie as shared secret, ticks while nothing else
 * is sent, and the notice of silence after net_ticktime (kernel(6): between 3/4 and 5/4 of it).
 */
export class Link {
  readonly outbound: boolean;
  readonly startedAt = performance.now();
  peer: string;
  isUp = false;
  readonly #socket: Socket;
  readonly #self: string;
  readonly #cookie: string;
  readonly #nonce = randomBytes(16).toString('hex');
  readonly #events: LinkEvents;
  readonly #quarterMs: number;
  #timer: NodeJS.Timeout | undefined;
  #quartersSilent = 0;
  #wroteSinceTick = false;
  #ended = false;

  constructor(
    socket: Socket,
    options: { self: string; cookie: string; peer?: string; netTickTimeMs: number },
    events: LinkEvents,
  ) {
    this.#socket = socket;
    this.#self = options.self;
    this.#cookie = options.cookie;
    this.outbound = options.peer !== undefined;
    this.peer = options.peer ?? '';
    this.#quarterMs = options.netTickTimeMs / 4;
    this.#events = events;
    this.#timer = setTimeout(() => this.close('connection_setup_failed'), handshakeTimeoutMs).unref();
    socket.setNoDelay(true);
    socket.on('error', (error) => this.close(error.message));
    socket.on('close', () => this.close('connection_closed'));
    readFrames(
      socket,
      (frame) => this.#onFrame(frame),
      () => this.#onBytes(),
    );
    if (this.outbound) this.#hello();
  }

  get socket(): Socket {
    return this.#socket;
  }

  send(frame: unknown): void {
    this.#wroteSinceTick = true;
    writeFrame(this.#socket, frame);
  }

  close(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    this.#socket.destroy();
    this.#events.down(this, reason);
  }

  #hello(): void {
    writeFrame(this.#socket, { hello: this.#self, nonce: this.#nonce });
  }

  #proof(nonce: string, prover: string): string {
    return createHmac('sha256', this.#cookie).update(`${prover} ${nonce}`).digest('hex');
  }

  #onBytes(): void {
    this.#quartersSilent = 0;
  }

  #onFrame(frame: unknown): void {
    if (this.isUp) {
      this.#events.frame(this, frame);
      return;
    }
    const message = (frame ?? {}) as Hello;
    if (this.outbound) this.#asClient(message);
    else this.#asServer(message);
  }

  #theirNonce = '';

  #asClient(message: Hello): void {
    if (message.up) this.#open();
    else if (message.hello !== this.peer || message.proof !== this.#proof(this.#nonce, this.peer))
      this.#refuse();
    else writeFrame(this.#socket, { proof: this.#proof(message.nonce ?? '', this.#self) });
  }

  #asServer(message: Hello): void {
    if (message.hello !== undefined) {
      this.peer = message.hello;
      this.#theirNonce = message.nonce ?? '';
      writeFrame(this.#socket, {
        hello: this.#self,
        nonce: this.#nonce,
        proof: this.#proof(this.#theirNonce, this.#self),
      });
      return;
    }
    if (message.proof !== this.#proof(this.#nonce, this.peer)) this.#refuse();
    else if (this.#events.admit(this.peer)) {
      writeFrame(this.#socket, { up: true });
      this.#open();
    } else this.close('already_connected');
  }

  #refuse(): void {
    this.#events.rejected(this.peer);
    this.close('invalid_challenge');
  }

  #open(): void {
    clearTimeout(this.#timer);
    this.isUp = true;
    this.#timer = setInterval(() => this.#tick(), this.#quarterMs).unref();
    this.#events.up(this);
  }

  #tick(): void {
    this.#quartersSilent += 1;
    if (this.#quartersSilent > 4) {
      this.close('net_tick_timeout');
      return;
    }
    if (!this.#wroteSinceTick) writeTick(this.#socket);
    this.#wroteSinceTick = false;
  }
}
