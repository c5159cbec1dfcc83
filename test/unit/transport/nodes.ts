import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import type { Test } from 'tap';
import type { PeerId } from '../../../src/daemon/membership/types.ts';
import type { GossipVerdict } from '../../../src/daemon/transport/gossip.ts';
import { peerIdOfKey } from '../../../src/daemon/identity/keys/node-key.ts';
import type { PaceLimits } from '../../../src/daemon/transport/pace.ts';
import { DEFAULT_TIMING, Transport, type TransportTiming } from '../../../src/daemon/transport/transport.ts';

let lastHost = 0;

/** A loopback address that no other test process uses. */
export function loopback(): string {
  lastHost += 1;
  return `127.${64 + (process.pid % 128)}.${(process.pid >> 7) % 256}.${lastHost}`;
}

export interface TestNode {
  readonly key: KeyObject;
  readonly peer: PeerId;
  readonly address: string;
  readonly transport: Transport;
  readonly members: Set<PeerId>;
  readonly memberAddresses: Set<string>;
  readonly admitted: Map<PeerId, string>;
  readonly events: string[];
  readonly messages: { from: PeerId; text: string }[];
  readonly gossip: string[];
  readonly notes: string[];
  /** Signed revocations by the one that they are about. */
  readonly revoked: Map<PeerId, Uint8Array>;
  verdict: GossipVerdict;
  /** Decides on a chain; by default nobody gets in. */
  admit: (peer: PeerId, chain: string) => Promise<boolean>;
}

export const PORT = 4101;

/**
 * Ten minutes for each deadline, longer than any test waits for anything: no link fails because the machine is busy,
 * and what ends a connection is never a time that a test did not ask for.
 */
export const PATIENT: TransportTiming = {
  ...DEFAULT_TIMING,
  upgradeTimeoutMs: 600_000,
  strangerTimeoutMs: 600_000,
  memberTimeoutMs: 600_000,
  dialTimeoutMs: 600_000,
  flushTimeoutMs: 600_000,
};

export interface NodeInit {
  cluster?: string;
  key?: KeyObject;
  address?: string;
  chain?: string;
  timing?: Partial<TransportTiming>;
  pace?: PaceLimits;
}

export function makeNode(init: NodeInit = {}): TestNode {
  const key = init.key ?? generateKeyPairSync('ed25519').privateKey;
  const address = init.address ?? loopback();
  const members = new Set<PeerId>();
  const memberAddresses = new Set<string>();
  const text = new TextDecoder();
  const transport: Transport = new Transport(
    {
      nodeKey: key,
      cluster: init.cluster ?? 'test',
      address,
      port: PORT,
      chain: new TextEncoder().encode(init.chain ?? 'chain'),
      timing: { ...PATIENT, ...init.timing },
      ...(init.pace === undefined ? {} : { pace: init.pace }),
    },
    {
      gate: {
        isMember: (peer) => members.has(peer),
        isMemberAddress: (each) => memberAddresses.has(each),
        admit: (peer, chain) => node.admit(peer, text.decode(chain)),
        revocationOf: (peer) => node.revoked.get(peer),
        refusedWith: (revocation) => node.notes.push(`refused with ${text.decode(revocation)}`),
      },
      events: {
        onConnected: (peer) => node.events.push(`+${peer}`),
        onDisconnected: (peer, reason) => node.events.push(`-${peer} ${reason}`),
        onMessage: (from, bytes) => node.messages.push({ from, text: text.decode(bytes) }),
        onGossip: (_from, bytes) => {
          node.gossip.push(text.decode(bytes));
          return node.verdict;
        },
        onNote: (code, _peer, detail) => node.notes.push(`${code} ${detail}`),
      },
    },
  );
  const node: TestNode = {
    key,
    peer: peerIdOfKey(key),
    address,
    transport,
    members,
    memberAddresses,
    admitted: new Map(),
    events: [],
    messages: [],
    gossip: [],
    notes: [],
    revoked: new Map(),
    verdict: 'accept',
    admit: async () => false,
  };
  return node;
}

/** Started nodes that know each other, closed when the test ends. */
export async function cluster(t: Test, count: number, init: NodeInit = {}): Promise<TestNode[]> {
  const nodes = Array.from({ length: count }, () => makeNode(init));
  for (const node of nodes) {
    for (const other of nodes) node.members.add(other.peer);
    t.teardown(() => node.transport.close());
    await node.transport.start();
  }
  return nodes;
}

export function connect(from: TestNode, to: TestNode): Promise<void> {
  return from.transport.connect(to.peer, to.address, PORT);
}

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
