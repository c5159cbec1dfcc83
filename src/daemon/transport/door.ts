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

/** Who may come in. Asked at each connection; what it says now is what counts. */
export interface Gate {
  isMember(peer: PeerId): boolean;
  isMemberAddress(address: string): boolean;
  /** An unknown PeerId presents its chain. True when it is a member from now on (`isMember` says so, too). */
  admit(peer: PeerId, chain: Uint8Array): Promise<boolean>;
  /** The signed revocation of one who was removed; undefined for anybody else. */
  revocationOf?(peer: PeerId): Uint8Array | undefined;
  /** A member refuses this node with a revocation. Whether it is one is the receiver's to verify. */
  refusedWith?(revocation: Uint8Array): void;
}

interface DoorOptions {
  /** From connection to hello for one who is not in the roster, and for a member. */
  readonly strangerTimeoutMs: number;
  readonly memberTimeoutMs: number;
  readonly strangers: StrangerLimits;
}

interface DoorDependencies {
  readonly gate: Gate;
  readonly isLink: (connection: Connection) => boolean;
  /** A connection was refused without a word. */
  readonly refused: () => void;
}

/**
 * Node.js asks it for each accepted connection, before it makes a socket of it. A flood of strangers needs that: a
 * refusal by libp2p's gater takes a millisecond of CPU time, so that a thousand a second held the loop and filled the
 * kernel's queue, in which a member waited with them.
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
 * What happens to an incoming connection before it is a link: members' addresses come in as often as members have a
 * reason to, others within bounds; whoever does not become a link in its time is cut; a PeerId outside the roster gets
 * one stream to say why.
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

  /** The connection is a link: no deadline any more, and its place among the strangers is free. */
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

  /** Nobody comes in any more. */
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

  /** libp2p has no hook for a stream before its protocol is known, but its connection hands on the muxer's event. */
  #allowOneStream(connection: Connection): void {
    const { muxer } = connection as unknown as { muxer?: EventTarget };
    let streams = 0;
    muxer?.addEventListener('stream', () => {
      streams += 1;
      if (streams > 1 && !this.#isLink(connection)) cut(connection, new Error('a stranger gets one stream'));
    });
  }
}
