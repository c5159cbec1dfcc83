import { randomBytes, type KeyObject } from 'node:crypto';
import type { ServerOpts } from 'node:net';
import {
  type Connection,
  type Libp2p,
  type PeerId as Libp2pPeerId,
  serviceCapabilities,
  type Stream,
} from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { peerIdFromString } from '@libp2p/peer-id';
import { tcp, type TCPSocketOptions } from '@libp2p/tcp';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import type { PeerId } from '../membership/types.ts';
import {
  type Answer,
  commonProtocol,
  decodeAnswer,
  decodeHello,
  encodeAnswer,
  encodeHello,
  type Hello,
} from '../wire/handshake.ts';
import {
  MAX_CHAIN_BYTES,
  MAX_HELLO_BYTES,
  MAX_MESSAGE_BYTES,
  PROTOCOL_MAX,
  PROTOCOL_MIN,
} from '../wire/limits.ts';
import { cut } from './cut.ts';
import { Door, type Gate } from './door.ts';
import { dialError, TransportError } from './errors.ts';
import { FramedStream } from './framed-stream.ts';
import { Gossip, type GossipVerdict } from './gossip.ts';
import { leanYamux } from './lean.ts';
import { type Link, MAX_UNSENT_BYTES } from './link.ts';
import { probeAddress } from './listening.ts';
import {
  CONNECTION_MS,
  MEMBER_PACE,
  Pace,
  type PaceLimits,
  REQUEST_MS,
  STRANGER_PACE,
  workOfBytes,
} from './pace.ts';
import { libp2pKey, peerIdOfKey } from '../identity/keys/node-key.ts';
import { quietLogger } from './quiet-logger.ts';
import { decide } from './simultaneous.ts';
import { DEFAULT_STRANGER_LIMITS, type StrangerLimits } from './strangers.ts';

/** The one stream of a link: hello, answer, confirmation, then messages in both directions. */
export const ADMIT_PROTOCOL = '/bornemisza/admit/1';

interface TransportOptions {
  /** Ed25519 private key; its PeerId is the node. */
  readonly nodeKey: KeyObject;
  /** Name of the cluster; the gossip topic. A hello for another cluster is refused. */
  readonly cluster: string;
  /** Private IPv4 address and port to listen on. */
  readonly address: string;
  readonly port: number;
  /** This node's certificate chain for the other side's gate (opaque here), without the root. At most 4096 bytes. */
  readonly chain: Uint8Array;
  readonly timing?: Partial<TransportTiming>;
  readonly strangers?: StrangerLimits;
  /** The work that a member may cause on this node. */
  readonly pace?: PaceLimits;
}

export interface TransportTiming {
  /**
   * TCP, Noise and yamux of an incoming connection. 2 s: five times what a loaded 2-core machine needs, and a fifth of
   * libp2p's default, so that silent sockets end soon.
   */
  readonly upgradeTimeoutMs: number;
  /** From connection to hello for a PeerId that is not in the roster. */
  readonly strangerTimeoutMs: number;
  /** The whole handshake with a member: long enough for one lost segment (RFC 6298: 1 s). */
  readonly memberTimeoutMs: number;
  /** A dial from SYN to link. Longer than memberTimeoutMs by one SYN's retransmission. */
  readonly dialTimeoutMs: number;
  /** How long a closing connection may flush what was sent before. */
  readonly flushTimeoutMs: number;
  /** How often gossip is opened again on links without it. */
  readonly gossipCheckMs: number;
}

export const DEFAULT_TIMING: TransportTiming = {
  upgradeTimeoutMs: 2000,
  strangerTimeoutMs: 1000,
  memberTimeoutMs: 2000,
  dialTimeoutMs: 4000,
  flushTimeoutMs: 500,
  gossipCheckMs: 5000,
};

export type { Gate } from './door.ts';

/** Events of the transport. Called in its own turn; a listener may call back into it. */
export interface TransportEvents {
  onConnected(peer: PeerId): void;
  onDisconnected(peer: PeerId, reason: string): void;
  onMessage(from: PeerId, bytes: Uint8Array): void;
  onGossip(from: PeerId, bytes: Uint8Array): GossipVerdict;
  /** `code` is stable. */
  onNote(code: string, peer: PeerId | undefined, detail: string): void;
}

interface TransportCounters {
  linksUp: number;
  linksDown: number;
  framesIn: number;
  framesInBytes: number;
  framesOut: number;
  framesOutBytes: number;
  framesDropped: number;
  gossipIn: number;
  gossipInBytes: number;
  /** What this node publishes; neighbours forward it. */
  gossipOut: number;
  gossipOutBytes: number;
  connectionsRefused: number;
  strangersRefused: number;
  duplicates: number;
  gossipRepaired: number;
  /** How often a peer caused more work than its share and was paused. */
  slowed: number;
}

export interface RequestLimits {
  readonly timeoutMs: number;
  readonly maxBytes: number;
}
export type RequestHandler = (from: PeerId, bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>;

/** A request is at most a whole roster (roster-sync.ts: 4 MiB) and a few bytes. */
const MAX_REQUEST_BYTES = 4 * 1024 * 1024 + 128;
/** Requests of one peer that are being answered. */
const MAX_INBOUND_REQUESTS = 4;
/** Sockets altogether: 500 members, their restarts, and strangers up to their own bound. */
const MAX_SOCKETS = 2048;
/**
 * Connections that the kernel queues while this process is busy: a flood of 10,000 a second for 0.4 s. Beyond it the
 * SYN of a member is lost and repeated a second later. The kernel's default limit.
 */
const BACKLOG = 4096;
/** Gossip both ways, the link, requests both ways: fewer than 32, whatever a member opens. */
const MAX_STREAMS_PER_CONNECTION = 32;
/** Unread data of one stream: eight frames. */
const MAX_UNREAD_BYTES = 8 * MAX_MESSAGE_BYTES;

/** An admission that was sent but not confirmed yet. */
interface Accepted {
  readonly instance: string;
  readonly dialledBy: 'peer';
  readonly dial: number;
}

/**
 * Links to other members: libp2p over TCP with Noise and yamux. A link is up when both sides have admitted each other;
 * only then `onConnected` fires, gossip begins and requests are answered. There is at most one link per peer, also if
 * both dial at once. The membership machine decides about redials, probes and giving up.
 */
export class Transport {
  readonly self: PeerId;
  readonly counters: TransportCounters = {
    linksUp: 0,
    linksDown: 0,
    framesIn: 0,
    framesInBytes: 0,
    framesOut: 0,
    framesOutBytes: 0,
    framesDropped: 0,
    gossipIn: 0,
    gossipInBytes: 0,
    gossipOut: 0,
    gossipOutBytes: 0,
    connectionsRefused: 0,
    strangersRefused: 0,
    duplicates: 0,
    gossipRepaired: 0,
    slowed: 0,
  };
  readonly #options: TransportOptions;
  readonly #timing: TransportTiming;
  readonly #gate: Gate;
  readonly #events: TransportEvents;
  readonly #instance = randomBytes(16).toString('hex');
  readonly #door: Door;
  readonly #gossip: Gossip;
  readonly #requestHandlers = new Map<string, RequestHandler>();

  readonly #links = new Map<PeerId, Link>();
  readonly #accepted = new Map<PeerId, Accepted>();
  readonly #dialling = new Map<PeerId, Promise<void>>();
  /** Dials of this node per peer: the count, and the one whose hello is not answered. Bounded by the roster. */
  readonly #dials = new Map<PeerId, { count: number; unanswered: number | undefined }>();
  /** Highest dial number received from each peer's present instance. Bounded by the roster. */
  readonly #seen = new Map<PeerId, { instance: string; dial: number }>();
  readonly #waiting = new Map<PeerId, Set<() => void>>();
  /** For members: their share outlives a connection. Bounded by the roster. */
  readonly #paces = new Map<PeerId, Pace>();
  /** For peers that were no members when they connected. */
  readonly #strangerPaces = new WeakMap<Connection, Pace>();

  #libp2p: Libp2p | undefined;
  #chain: Uint8Array;
  #gossipCheck: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: TransportOptions, dependencies: { gate: Gate; events: TransportEvents }) {
    this.#options = options;
    this.#timing = { ...DEFAULT_TIMING, ...options.timing };
    this.#gate = dependencies.gate;
    this.#events = dependencies.events;
    this.#chain = options.chain;
    this.self = peerIdOfKey(options.nodeKey);
    this.#door = new Door(
      { ...this.#timing, strangers: options.strangers ?? DEFAULT_STRANGER_LIMITS },
      {
        gate: this.#gate,
        isLink: (connection) => this.#isLink(connection),
        refused: () => void (this.counters.connectionsRefused += 1),
      },
    );
    this.#gossip = new Gossip({
      topic: `bornemisza/${options.cluster}`,
      isLink: (connection) => this.#isLink(connection),
      deliver: (from, bytes) => this.#onGossip(from, bytes),
    });
  }

  /** Listens. Throws TransportError `address-in-use` or `address-not-here`; both can end by themselves. */
  async start(): Promise<void> {
    const { address, port } = this.#options;
    if (this.#chain.byteLength > MAX_CHAIN_BYTES)
      throw new TransportError(
        'too-large',
        `the certificate chain has ${this.#chain.byteLength} bytes, ${MAX_CHAIN_BYTES} are allowed`,
      );
    await probeAddress(address, port);
    const libp2p = await this.#create();
    this.#libp2p = libp2p;
    libp2p.addEventListener('connection:open', ({ detail }) => this.#onConnectionOpen(detail));
    libp2p.addEventListener('connection:close', ({ detail }) => this.#onConnectionClose(detail));
    await libp2p.handle(ADMIT_PROTOCOL, (stream, connection) => this.#answer(stream, connection), {
      maxInboundStreams: 1,
    });
    for (const [protocol, handler] of this.#requestHandlers) await this.#register(libp2p, protocol, handler);
    await libp2p.start();
    this.#gossip.subscribe();
    this.#gossipCheck = setInterval(() => this.#repairGossip(), this.#timing.gossipCheckMs).unref();
  }

  /** Closes all connections; what was sent before is flushed within flushTimeoutMs. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#gossipCheck);
    this.#door.close();
    const connections = this.#libp2p?.getConnections() ?? [];
    await Promise.all(connections.map((connection) => this.#flushAndClose(connection)));
    this.#links.clear();
    await this.#libp2p?.stop();
    for (const pace of this.#paces.values()) pace.close();
  }

  /** Adds work that another part did for a member, in ms: it counts for how fast the member is read. */
  charge(peer: PeerId, workMs: number): void {
    this.#paces.get(peer)?.charge(workMs);
  }

  peers(): PeerId[] {
    return [...this.#links.keys()];
  }

  /** After a renewal: the new chain to present. */
  setChain(chain: Uint8Array): void {
    this.#chain = chain;
  }

  /** Resolves when a link with the peer is up, whoever dialled. Rejects with TransportError. */
  async connect(peer: PeerId, address: string, port: number): Promise<void> {
    if (this.#closed || this.#libp2p === undefined)
      throw new TransportError('closed', 'the transport is not running');
    if (!this.#gate.isMember(peer)) throw new TransportError('not-admitted', `${peer} is not a member`);
    if (this.#links.has(peer)) return;
    let dialling = this.#dialling.get(peer);
    if (dialling === undefined) {
      const target = multiaddr(`/ip4/${address}/tcp/${port}/p2p/${peer}`);
      dialling = this.#dial(this.#libp2p, peer, target).finally(() => this.#dialling.delete(peer));
      this.#dialling.set(peer, dialling);
    }
    await dialling;
  }

  /**
   * Dials an address without knowing who listens there, and links with the peer if it is a member. Rejects with
   * TransportError; `not-admitted`: a stranger listens there.
   *
   * @returns who it is
   */
  async find(address: string, port: number): Promise<PeerId> {
    if (this.#closed || this.#libp2p === undefined)
      throw new TransportError('closed', 'the transport is not running');
    const signal = AbortSignal.timeout(this.#timing.dialTimeoutMs);
    let connection: Connection | undefined;
    try {
      connection = await this.#libp2p.dial(multiaddr(`/ip4/${address}/tcp/${port}`), { signal, force: true });
      const peer = connection.remotePeer.toString();
      if (peer === this.self || !this.#gate.isMember(peer))
        throw new TransportError('not-admitted', `${peer} at ${address}:${port} is no other member`);
      await this.#greet(connection, peer, signal);
      return peer;
    } catch (error) {
      const failure = dialError(error, `${address}:${port}`);
      if (connection !== undefined) cut(connection, failure);
      throw failure;
    }
  }

  /**
   * From this moment both sides have no link; what was sent before is flushed if that is quick, unless the peer is no
   * member any more.
   */
  disconnect(peer: PeerId, reason: string): void {
    const link = this.#links.get(peer);
    const connections = this.#connectionsOf(peer);
    if (link !== undefined) this.#linkDown(link, reason);
    for (const connection of connections) {
      if (connection === link?.connection && this.#gate.isMember(peer)) void this.#flushAndClose(connection);
      else cut(connection, new Error(reason));
    }
  }

  /** Sends one message on the link's stream. False if there is no link or its queue is full: the message is dropped. */
  send(to: PeerId, bytes: Uint8Array): boolean {
    const link = this.#links.get(to);
    if (link === undefined || bytes.byteLength > MAX_MESSAGE_BYTES) return false;
    if (link.frames.unsentBytes + bytes.byteLength > MAX_UNSENT_BYTES || !this.#sendFrame(link, bytes)) {
      this.counters.framesDropped += 1;
      return false;
    }
    this.counters.framesOut += 1;
    this.counters.framesOutBytes += bytes.byteLength;
    return true;
  }

  /** Gossips one message to the whole cluster. Expensive (5 ms of CPU on every node): only for changes. */
  publish(bytes: Uint8Array): void {
    if (bytes.byteLength > MAX_MESSAGE_BYTES || this.#closed) return;
    this.counters.gossipOut += 1;
    this.counters.gossipOutBytes += bytes.byteLength;
    this.#gossip
      .publish(bytes)
      .catch((error: unknown) => this.#events.onNote('publish-failed', undefined, messageOf(error)));
  }

  /** One request and one answer, on its own stream. Rejects with TransportError. */
  async request(to: PeerId, protocol: string, bytes: Uint8Array, limits: RequestLimits): Promise<Uint8Array> {
    const link = this.#links.get(to);
    if (link === undefined) throw new TransportError('not-connected', `no link with ${to}`);
    const signal = AbortSignal.timeout(limits.timeoutMs);
    let stream: Stream | undefined;
    try {
      stream = await link.connection.newStream(protocol, { signal });
      const frames = new FramedStream(stream, limits.maxBytes);
      frames.send(bytes);
      const answer = new Uint8Array(await frames.read(signal));
      await stream.close({ signal });
      return answer;
    } catch (error) {
      const failure = dialError(error, to);
      stream?.abort(failure);
      throw failure;
    }
  }

  /** Answers `protocol` for linked peers. A handler that throws ends the stream without an answer. */
  handle(protocol: string, handler: RequestHandler): void {
    this.#requestHandlers.set(protocol, handler);
    if (this.#libp2p === undefined) return;
    this.#register(this.#libp2p, protocol, handler).catch((error: unknown) =>
      this.#events.onNote('handler-failed', undefined, messageOf(error)),
    );
  }

  async #create(): Promise<Libp2p> {
    const { nodeKey, address, port } = this.#options;
    const { upgradeTimeoutMs, memberTimeoutMs } = this.#timing;
    return createLibp2p({
      start: false,
      privateKey: libp2pKey(nodeKey),
      logger: quietLogger,
      addresses: { listen: [`/ip4/${address}/tcp/${port}`] },
      transports: [this.#tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [
        leanYamux({
          maxInboundStreams: MAX_STREAMS_PER_CONNECTION,
          maxOutboundStreams: MAX_STREAMS_PER_CONNECTION,
          streamOptions: { maxReadBufferLength: MAX_UNREAD_BYTES },
        }),
      ],
      // The machine probes; a second monitor would cut links without its knowledge.
      connectionMonitor: { enabled: false },
      connectionManager: {
        // libp2p's limits do not distinguish members from strangers; `Strangers` does, in denyInboundConnection.
        maxConnections: MAX_SOCKETS,
        maxIncomingPendingConnections: MAX_SOCKETS,
        inboundConnectionThreshold: Number.MAX_SAFE_INTEGER,
        inboundUpgradeTimeout: upgradeTimeoutMs,
        inboundStreamProtocolNegotiationTimeout: memberTimeoutMs,
        outboundStreamProtocolNegotiationTimeout: memberTimeoutMs,
        reconnectRetries: 0,
      },
      connectionGater: this.#door.gater(),
      services: {
        // gossipsub asks for identify; links take its place (see Gossip).
        links: () => ({ [serviceCapabilities]: ['@libp2p/identify'] }),
        gossip: (components) => this.#gossip.service(components),
      },
    });
  }

  #tcp(): ReturnType<typeof tcp> {
    // @libp2p/tcp passes it to Node.js unchanged, and has no type for it.
    const listenOpts: TCPSocketOptions & ServerOpts = { blockList: this.#door.doorstep() };
    return tcp({ maxConnections: MAX_SOCKETS, backlog: BACKLOG, listenOpts });
  }

  async #register(libp2p: Libp2p, protocol: string, handler: RequestHandler): Promise<void> {
    await libp2p.handle(protocol, (stream, connection) => this.#onRequest(handler, stream, connection), {
      maxInboundStreams: MAX_INBOUND_REQUESTS,
      force: true,
    });
  }

  #onConnectionOpen(connection: Connection): void {
    this.#door.opened(connection);
    const peer = connection.remotePeer.toString();
    if (this.#gate.isMember(peer)) {
      const pace = this.#paceOf(peer);
      pace.follow(connection);
      if (connection.direction === 'inbound') pace.charge(CONNECTION_MS);
    } else {
      const pace = new Pace(STRANGER_PACE, () => undefined);
      this.#strangerPaces.set(connection, pace);
      pace.follow(connection);
    }
  }

  #paceOf(peer: PeerId): Pace {
    let pace = this.#paces.get(peer);
    if (pace === undefined) {
      const slowed = (): void => {
        this.counters.slowed += 1;
        this.#note('peer-slowed', peer, 'it causes more work than its share, so it is read more slowly');
      };
      pace = new Pace(this.#options.pace ?? MEMBER_PACE, slowed);
      this.#paces.set(peer, pace);
    }
    return pace;
  }

  #note(code: string, peer: PeerId, detail: string): void {
    this.#events.onNote(code, peer, detail);
  }

  #onConnectionClose(connection: Connection): void {
    this.#door.closed(connection);
    const peer = connection.remotePeer.toString();
    this.#strangerPaces.get(connection)?.close();
    this.#paces.get(peer)?.forget(connection);
    const link = this.#links.get(peer);
    if (link?.connection === connection) this.#linkDown(link, 'closed');
    // libp2p remembers every PeerId that ever opened a stream; new ones cost strangers nothing.
    if (this.#gate.isMember(peer)) return;
    this.#paces.get(peer)?.close();
    this.#paces.delete(peer);
    void this.#forget(connection.remotePeer);
  }

  async #forget(peer: Libp2pPeerId): Promise<void> {
    try {
      await this.#libp2p?.peerStore.delete(peer);
    } catch {
      // Nothing was remembered: fine.
    }
  }

  async #dial(libp2p: Libp2p, peer: PeerId, target: Multiaddr): Promise<void> {
    const signal = AbortSignal.timeout(this.#timing.dialTimeoutMs);
    let connection: Connection | undefined;
    try {
      // `force`: libp2p would return a connection that the peer opened and that is not admitted yet.
      connection = await libp2p.dial(target, { signal, force: true });
      await this.#greet(connection, peer, signal);
    } catch (error) {
      const failure = dialError(error, peer);
      if (connection !== undefined) cut(connection, failure);
      throw failure;
    }
  }

  /** The dialling side of the handshake. */
  async #greet(connection: Connection, peer: PeerId, signal: AbortSignal): Promise<void> {
    const stream = await connection.newStream(ADMIT_PROTOCOL, { signal });
    // The peer's own dial may have been faster, as long as our hello is not sent.
    if (this.#links.has(peer) || this.#accepted.has(peer)) {
      cut(connection, new Error('linked meanwhile'));
      return this.#linkUp(peer, signal);
    }
    const frames = new FramedStream(stream, MAX_HELLO_BYTES);
    const dials = this.#dials.get(peer) ?? { count: 0, unanswered: undefined };
    this.#dials.set(peer, dials);
    dials.count += 1;
    const dial = dials.count;
    dials.unanswered = dial;
    let answer: Answer;
    try {
      frames.send(encodeHello(this.#hello(peer, dial)));
      answer = read(decodeAnswer(await frames.read(signal)));
    } finally {
      dials.unanswered = undefined;
    }
    if (answer.verdict === 'refused') {
      if (answer.revocation !== undefined) this.#gate.refusedWith?.(answer.revocation);
      throw new TransportError('not-admitted', `${peer} refuses: ${answer.reason}`);
    }
    if (answer.verdict === 'duplicate' || this.#links.has(peer)) {
      this.counters.duplicates += 1;
      cut(connection, new Error('duplicate'));
      return this.#linkUp(peer, signal);
    }
    if (!this.#gate.isMember(peer))
      throw new TransportError('not-admitted', `${peer} is not a member any more`);
    frames.send(encodeAnswer(this.#answerOf('admitted', answer.protocol)));
    this.#establish({ peer, connection, frames, instance: answer.instance, dialledBy: 'self', dial }, false);
  }

  #hello(peer: PeerId, dial: number): Hello {
    const seen = this.#seen.get(peer);
    return {
      protocolMin: PROTOCOL_MIN,
      protocolMax: PROTOCOL_MAX,
      cluster: this.#options.cluster,
      instance: this.#instance,
      dial,
      seenInstance: seen?.instance ?? '',
      seen: seen?.dial ?? 0,
      chain: this.#chain,
    };
  }

  #answerOf(verdict: Answer['verdict'], protocol = 0, reason = ''): Answer {
    return { verdict, protocol, instance: this.#instance, reason };
  }

  /** The other of two dials becomes the link: waits until it is up. */
  async #linkUp(peer: PeerId, signal: AbortSignal): Promise<void> {
    if (this.#links.has(peer)) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiting = this.#waiting.get(peer) ?? new Set();
    this.#waiting.set(peer, waiting.add(resolve));
    const onAbort = (): void =>
      reject(new TransportError('timeout', `the other dial of ${peer} did not end`));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
      waiting.delete(resolve);
      if (waiting.size === 0) this.#waiting.delete(peer);
    }
  }

  /** The dialled side of the handshake. Its deadline is the connection's. */
  async #answer(stream: Stream, connection: Connection): Promise<void> {
    const peer = connection.remotePeer.toString();
    const frames = new FramedStream(stream, MAX_HELLO_BYTES);
    const signal = AbortSignal.timeout(this.#timing.memberTimeoutMs);
    let accepted: Accepted | undefined;
    try {
      const hello = read(decodeHello(await frames.read(signal)));
      const refusal = await this.#refusalOf(peer, hello);
      if (refusal !== undefined) return this.#refuse(peer, frames, refusal);
      const decision = this.#decide(peer, hello);
      if (decision === 'duplicate') {
        this.counters.duplicates += 1;
        frames.send(encodeAnswer(this.#answerOf('duplicate')));
        return;
      }
      accepted = { instance: hello.instance, dialledBy: 'peer', dial: hello.dial };
      this.#accepted.set(peer, accepted);
      frames.send(encodeAnswer(this.#answerOf('admitted', commonProtocol(hello))));
      const confirmation = read(decodeAnswer(await frames.read(signal)));
      const stillWanted = confirmation.verdict === 'admitted' && this.#accepted.get(peer) === accepted;
      if (!stillWanted || !this.#gate.isMember(peer))
        throw new TransportError('not-admitted', 'not confirmed');
      this.#accepted.delete(peer);
      this.#establish({ peer, connection, frames, ...accepted }, decision === 'swap');
    } catch (error) {
      cut(connection, error instanceof Error ? error : new Error(String(error)));
    } finally {
      if (accepted !== undefined && this.#accepted.get(peer) === accepted) this.#accepted.delete(peer);
    }
  }

  async #refusalOf(peer: PeerId, hello: Hello): Promise<string | undefined> {
    if (hello.cluster !== this.#options.cluster) return 'another cluster';
    if (commonProtocol(hello) === undefined)
      return (
        `no common protocol version: ${PROTOCOL_MIN} to ${PROTOCOL_MAX} here, ${hello.protocolMin} to ` +
        `${hello.protocolMax} there`
      );
    if (this.#gate.isMember(peer)) return undefined;
    if (!(await this.#gate.admit(peer, hello.chain)) || !this.#gate.isMember(peer)) return 'not admitted';
    return undefined;
  }

  /** The dialler reads the reason and disconnects; if it does not, the connection's deadline cuts it. */
  #refuse(peer: PeerId, frames: FramedStream, reason: string): void {
    this.counters.strangersRefused += 1;
    const revocation = this.#gate.revocationOf?.(peer);
    const answer = this.#answerOf(
      'refused',
      0,
      revocation === undefined ? reason : 'removed from the cluster',
    );
    frames.send(encodeAnswer({ ...answer, ...(revocation !== undefined && { revocation }) }));
    this.#events.onNote('refused', peer, reason);
  }

  #decide(peer: PeerId, hello: Hello): ReturnType<typeof decide> {
    const seen = this.#seen.get(peer);
    if (seen?.instance !== hello.instance || seen.dial < hello.dial)
      this.#seen.set(peer, { instance: hello.instance, dial: hello.dial });
    return decide(
      {
        self: this.self,
        peer,
        instance: this.#instance,
        link: this.#accepted.get(peer) ?? this.#links.get(peer),
        ownDial: this.#dials.get(peer)?.unanswered,
      },
      hello,
    );
  }

  #establish(made: Omit<Link, 'sinceMs'>, quietly: boolean): void {
    const { peer, connection, frames } = made;
    const link: Link = { ...made, sinceMs: performance.now() };
    const old = this.#links.get(peer);
    if (old !== undefined) this.#linkDown(old, 'renewed', quietly);
    if (old !== undefined) cut(old.connection, new Error('renewed'));
    this.#links.set(peer, link);
    this.#door.passed(connection);
    this.#strangerPaces.get(connection)?.close();
    this.#paceOf(peer).follow(connection);
    this.counters.linksUp += 1;
    frames.stream.addEventListener('close', () => cut(connection, new Error('the message stream ended')));
    this.#gossip.attach(connection);
    if (old === undefined || !quietly) this.#events.onConnected(peer);
    for (const resolve of this.#waiting.get(peer) ?? []) resolve();
    frames.listen(MAX_MESSAGE_BYTES, (bytes) => {
      if (this.#links.get(peer) !== link) return;
      this.counters.framesIn += 1;
      this.counters.framesInBytes += bytes.byteLength;
      this.#events.onMessage(peer, bytes);
    });
  }

  #linkDown(link: Link, reason: string, quietly = false): void {
    this.#links.delete(link.peer);
    this.counters.linksDown += 1;
    this.#gossip.detach(link.connection.remotePeer);
    if (!quietly && !this.#closed) this.#events.onDisconnected(link.peer, reason);
  }

  #isLink(connection: Connection): boolean {
    return this.#links.get(connection.remotePeer.toString())?.connection === connection;
  }

  #connectionsOf(peer: PeerId): Connection[] {
    try {
      return this.#libp2p?.getConnections(peerIdFromString(peer)) ?? [];
    } catch {
      return []; // Not a PeerId, so nobody is connected under it.
    }
  }

  #sendFrame(link: Link, bytes: Uint8Array): boolean {
    try {
      return link.frames.send(bytes);
    } catch {
      return false; // The stream has just ended; its close event follows.
    }
  }

  #onGossip(from: PeerId, bytes: Uint8Array): GossipVerdict {
    this.counters.gossipIn += 1;
    this.counters.gossipInBytes += bytes.byteLength;
    return this.#links.has(from) ? this.#events.onGossip(from, bytes) : 'ignore';
  }

  async #onRequest(handler: RequestHandler, stream: Stream, connection: Connection): Promise<void> {
    if (!this.#isLink(connection)) return cut(connection, new Error('a request before admission'));
    const signal = AbortSignal.timeout(this.#timing.dialTimeoutMs);
    try {
      const frames = new FramedStream(stream, MAX_REQUEST_BYTES);
      const question = new Uint8Array(await frames.read(signal));
      const peer = connection.remotePeer.toString();
      const answer = await handler(peer, question);
      this.charge(peer, REQUEST_MS + workOfBytes(answer.byteLength));
      frames.send(answer);
      await stream.close({ signal });
    } catch (error) {
      stream.abort(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #repairGossip(): void {
    const nowMs = performance.now();
    for (const { peer, connection, sinceMs } of this.#links.values()) {
      if (nowMs - sinceMs < this.#timing.gossipCheckMs || this.#gossip.hears(peer)) continue;
      this.counters.gossipRepaired += 1;
      this.#gossip.detach(connection.remotePeer);
      this.#gossip.attach(connection);
    }
  }

  async #flushAndClose(connection: Connection): Promise<void> {
    try {
      await connection.close({ signal: AbortSignal.timeout(this.#timing.flushTimeoutMs) });
    } catch {
      // The flush was not finished in time.
    }
    cut(connection, new Error('closed'));
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function read<T>(decoded: { ok: true; value: T } | { ok: false; reason: string }): T {
  if (!decoded.ok) throw new TransportError('not-admitted', decoded.reason);
  return decoded.value;
}
