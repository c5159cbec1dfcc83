import { createHash, randomBytes } from 'node:crypto';
import {
  type GossipSub,
  gossipsub,
  StrictNoSign,
  type TopicValidatorFn,
  TopicValidatorResult,
} from '@libp2p/gossipsub';
import type { Connection, PeerId as Libp2pPeerId, StreamHandler, Topology } from '@libp2p/interface';
import type { Registrar } from '@libp2p/interface-internal';
import { peerIdFromString } from '@libp2p/peer-id';
import type { PeerId } from '../membership/types.ts';
import { MAX_MESSAGE_BYTES } from '../wire/limits.ts';
import { cut } from './cut.ts';

/** `accept`: forward it. `ignore`: drop it silently. `reject`: its sender is at fault. */
export type GossipVerdict = 'accept' | 'ignore' | 'reject';

const VERDICTS: Readonly<Record<GossipVerdict, TopicValidatorResult>> = {
  accept: TopicValidatorResult.Accept,
  ignore: TopicValidatorResult.Ignore,
  reject: TopicValidatorResult.Reject,
};

/**
 * Gossip ids are hashes of the content, and gossipsub keeps each for 120 s, so equal content sent twice would be lost.
 * Eight random bytes before it make each publication unique.
 */
const NONCE_BYTES = 8;
/** 20 bytes do not collide; shorter ids make shorter IHAVE and IDONTWANT lists. */
const MESSAGE_ID_BYTES = 20;
/** Frames that wait for one slow neighbour; beyond it gossipsub drops them, and a sync repairs that. */
const MAX_OUTBOUND_BYTES = 1024 * 1024;

type Components = Parameters<ReturnType<typeof gossipsub>>[0];

/** The registrar for gossipsub: only links give it streams, and only links tell it which peers are there. */
class LinkRegistrar {
  readonly topologies = new Set<Topology>();
  readonly #inner: Registrar;
  readonly #isLink: (connection: Connection) => boolean;

  constructor(inner: Registrar, isLink: (connection: Connection) => boolean) {
    this.#inner = inner;
    this.#isLink = isLink;
  }

  async handle(
    protocol: string,
    handler: StreamHandler,
    options?: Parameters<Registrar['handle']>[2],
  ): Promise<void> {
    const onlyLinks: StreamHandler = (stream, connection) => {
      if (this.#isLink(connection)) return handler(stream, connection);
      cut(connection, new Error('gossip before admission'));
      return undefined;
    };
    await this.#inner.handle(protocol, onlyLinks, options);
  }

  async unhandle(protocol: string): Promise<void> {
    await this.#inner.unhandle(protocol);
  }

  async register(protocol: string, topology: Topology): Promise<string> {
    // gossipsub registers the same topology for each version of its protocol.
    this.topologies.add(topology);
    return protocol;
  }

  unregister(): void {
    this.topologies.clear();
  }
}

interface GossipOptions {
  readonly topic: string;
  readonly isLink: (connection: Connection) => boolean;
  readonly deliver: (from: PeerId, bytes: Uint8Array) => GossipVerdict;
}

/**
 * gossipsub with one topic, driven by our links instead of libp2p's identify: a peer is in it exactly as long as it is
 * linked, and on the connection of the link (gossipsub alone stays with a connection that was closed as a duplicate).
 * Links are authenticated and records carry their owners' signatures, so messages are not signed again. Scoring is off:
 * every neighbour is a member, and the driver disconnects a faulty one.
 */
export class Gossip {
  readonly #options: GossipOptions;
  #pubsub: GossipSub | undefined;
  #registrar: LinkRegistrar | undefined;

  constructor(options: GossipOptions) {
    this.#options = options;
  }

  /** For libp2p's `services`: libp2p starts and stops it. */
  service(components: Components): GossipSub {
    const { isLink, topic } = this.#options;
    const registrar = new LinkRegistrar(components.registrar, isLink);
    const { privateKey, peerId, peerStore, connectionManager, logger } = components;
    const pubsub = gossipsub({
      globalSignaturePolicy: StrictNoSign,
      msgIdFn: ({ data }) => createHash('sha256').update(data).digest().subarray(0, MESSAGE_ID_BYTES),
      allowedTopics: [topic],
      allowPublishToZeroTopicPeers: true,
      fallbackToFloodsub: false,
      // Up to 12 links: every neighbour hears a publication at once, also before the mesh has formed.
      floodPublish: true,
      // Four mesh neighbours instead of six: 5 ms and 4 KB a message instead of 8 ms and 6 KB.
      D: 4,
      Dlo: 3,
      Dhi: 6,
      Dout: 1,
      Dscore: 2,
      tagMeshPeers: false,
      maxInboundDataLength: MAX_MESSAGE_BYTES + NONCE_BYTES,
      maxOutboundBufferSize: MAX_OUTBOUND_BYTES,
      // The colocation penalty would graylist 14 nodes on one address; the behaviour penalty, nodes that restart often.
      // Without scores nothing has to decay each second.
      scoreParams: {
        IPColocationFactorWeight: 0,
        behaviourPenaltyWeight: 0,
        retainScore: 1,
        decayInterval: 60_000,
      },
    })({
      privateKey,
      peerId,
      peerStore,
      connectionManager,
      logger,
      registrar: registrar as unknown as Registrar,
    });
    this.#pubsub = pubsub;
    this.#registrar = registrar;
    return pubsub;
  }

  subscribe(): void {
    const { topic, deliver } = this.#options;
    const validate: TopicValidatorFn = (from, { data }) => {
      if (data.byteLength <= NONCE_BYTES) return TopicValidatorResult.Reject;
      return VERDICTS[deliver(from.toString(), data.subarray(NONCE_BYTES))];
    };
    this.#pubsub?.topicValidators.set(topic, validate);
    this.#pubsub?.subscribe(topic);
  }

  attach(connection: Connection): void {
    for (const topology of this.#registrar?.topologies ?? [])
      void topology.onConnect?.(connection.remotePeer, connection);
  }

  detach(peer: Libp2pPeerId): void {
    for (const topology of this.#registrar?.topologies ?? []) void topology.onDisconnect?.(peer);
  }

  /** Whether this peer's gossip arrives: gossipsub does not report a stream that failed to open. */
  hears(peer: PeerId): boolean {
    const id = peerIdFromString(peer);
    return this.#pubsub?.getSubscribers(this.#options.topic).some((each) => each.equals(id)) ?? false;
  }

  /** Resolves when the message was passed to the neighbours' streams. */
  async publish(bytes: Uint8Array): Promise<void> {
    await this.#pubsub?.publish(this.#options.topic, Buffer.concat([randomBytes(NONCE_BYTES), bytes]));
  }
}
