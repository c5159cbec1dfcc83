import { BlockList, type SocketAddress } from 'node:net';
import type {
  Connection,
  ConnectionGater,
  MultiaddrConnection,
  PeerId as Libp2pPeerId,
} from '@libp2p/interface';
import type { PeerId } from '../membership/types.ts';
import { cut } from './cut.ts';
import { type StrangerLimits, Strangers } from './strangers.ts';

/** Who may connect. Asked at each connection. */
export interface Gate {
  isMember(peer: PeerId): boolean;
  isMemberAddress(address: string): boolean;
  /** An unknown PeerId presents its chain. True if it is a member from now on (then `isMember` is true too). */
  admit(peer: PeerId, chain: Uint8Array): Promise<boolean>;
  /** The signed revocation of a removed member; undefined for anybody else. */
  revocationOf?(peer: PeerId): Uint8Array | undefined;
  /** A member refuses this node with a revocation. The receiver must verify it. */
  refusedWith?(revocation: Uint8Array): void;
}

interface DoorOptions {
  /** Time limits from connection to hello: for a PeerId that is not in the roster, and for a member. */
  readonly strangerTimeoutMs: number;
  readonly memberTimeoutMs: number;
  readonly strangers: StrangerLimits;
}

interface DoorDependencies {
  readonly gate: Gate;
  readonly isLink: (connection: Connection) => boolean;
  /** A connection was refused without an answer. */
  readonly refused: () => void;
}

/**
 * Node.js asks it for each accepted connection, before it creates a socket. This is against floods of strangers: a
 * refusal by libp2p's gater takes a millisecond of CPU time, so a thousand a second blocked the loop and filled the
 * kernel's queue, in which members wait too.
 */
class Doorstep extends BlockList {
  readonly #turnsAway: (address: string) => boolean;

  constructor(turnsAway: (address: string) => boolean) {
    super();
    this.#turnsAway = turnsAway;
  }

  override check(address: string | SocketAddress): boolean {
    return this.#turnsAway(typeof address === 'string' ? address : address.address);
  }
}

/**
 * Handles an incoming connection until it is a link: connections from members' addresses are allowed as often as
 * members need them, others within bounds; a connection that is no link in time is cut; a PeerId outside the roster
 * gets one stream to present its certificate.
 */
export class Door {
  readonly #options: DoorOptions;
  readonly #gate: Gate;
  readonly #isLink: (connection: Connection) => boolean;
  readonly #refused: () => void;
  readonly #strangers: Strangers;
  readonly #pendingEnds = new WeakMap<MultiaddrConnection, () => void>();
  readonly #presentationEnds = new Map<PeerId, () => void>();
  readonly #deadlines = new Map<string, NodeJS.Timeout>();
  #closed = false;

  constructor(options: DoorOptions, { gate, isLink, refused }: DoorDependencies) {
    this.#options = options;
    this.#gate = gate;
    this.#isLink = isLink;
    this.#refused = refused;
    this.#strangers = new Strangers(options.strangers, () => performance.now());
  }

  /** For the server's `blockList`. */
  doorstep(): BlockList {
    return new Doorstep((address) => this.#turnsAway(address));
  }

  gater(): ConnectionGater {
    return {
      denyDialPeer: () => false,
      denyDialMultiaddr: () => false,
      denyInboundConnection: (raw) => this.#refusesArrival(raw),
      denyInboundEncryptedConnection: (peer, raw) => this.#refusesStranger(peer, raw),
      denyOutboundEncryptedConnection: (peer) => !this.#gate.isMember(peer.toString()),
    };
  }

  opened(connection: Connection): void {
    if (connection.direction === 'outbound') return;
    const member = this.#gate.isMember(connection.remotePeer.toString());
    const { memberTimeoutMs, strangerTimeoutMs } = this.#options;
    const timeoutMs = member ? memberTimeoutMs : strangerTimeoutMs;
    const timer = setTimeout(() => {
      if (!this.#isLink(connection)) cut(connection, new Error('not admitted in time'));
    }, timeoutMs).unref();
    this.#deadlines.set(connection.id, timer);
    if (!member) this.#allowOneStream(connection);
  }

  /** The connection is a link: its deadline ends, and its place among the strangers is free. */
  passed(connection: Connection): void {
    const peer = connection.remotePeer.toString();
    this.#forgetDeadline(connection);
    this.#presentationEnds.get(peer)?.();
    this.#presentationEnds.delete(peer);
  }

  closed(connection: Connection): void {
    this.#forgetDeadline(connection);
    this.#presentationEnds.delete(connection.remotePeer.toString());
  }

  /** Refuses all further connections. */
  close(): void {
    this.#closed = true;
    for (const timer of this.#deadlines.values()) clearTimeout(timer);
    this.#deadlines.clear();
  }

  #forgetDeadline({ id }: Connection): void {
    clearTimeout(this.#deadlines.get(id));
    this.#deadlines.delete(id);
  }

  #turnsAway(address: string): boolean {
    const hasRoom = this.#gate.isMemberAddress(address)
      ? this.#strangers.memberHasRoom(address)
      : this.#strangers.hasRoom(address);
    if (hasRoom && !this.#closed) return false;
    this.#refused();
    return true;
  }

  #refusesArrival(raw: MultiaddrConnection): boolean {
    const address = raw.remoteAddr.getComponents().find(({ name }) => name === 'ip4')?.value;
    if (this.#closed) return true;
    if (address !== undefined && this.#gate.isMemberAddress(address)) {
      if (this.#strangers.memberArrives(address)) return false;
      this.#refused();
      return true;
    }
    const end = this.#strangers.arrive(address ?? '');
    if (end === undefined) {
      this.#refused();
      return true;
    }
    this.#pendingEnds.set(raw, end);
    raw.addEventListener('close', end);
    return false;
  }

  #refusesStranger(peer: Libp2pPeerId, raw: MultiaddrConnection): boolean {
    this.#pendingEnds.get(raw)?.();
    if (this.#gate.isMember(peer.toString())) return false;
    const end = this.#strangers.present();
    if (end === undefined) {
      this.#refused();
      return true;
    }
    this.#presentationEnds.set(peer.toString(), end);
    raw.addEventListener('close', end);
    return raw.status !== 'open';
  }

  /** libp2p has no hook for a stream before its protocol is known, but its connection forwards the muxer's event. */
  #allowOneStream(connection: Connection): void {
    const { muxer } = connection as unknown as { muxer?: EventTarget };
    let streams = 0;
    muxer?.addEventListener('stream', () => {
      streams += 1;
      if (streams > 1 && !this.#isLink(connection)) cut(connection, new Error('a stranger gets one stream'));
    });
  }
}
