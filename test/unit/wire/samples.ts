import { createPrivateKey, type KeyObject } from 'node:crypto';
import type { Accusation, Message, NodeRecord, SignedRecord } from '../../../src/daemon/membership/types.ts';
import { peerIdOfKey, signWith } from '../../../src/daemon/identity/keys/node-key.ts';
import { signer } from '../../../src/daemon/wire/record.ts';

/** Ed25519 keys made of one repeated byte: the same in every run. RFC 8410 gives the DER prefix. */
export function fixedKey(byte: number): KeyObject {
  const prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
  return createPrivateKey({
    format: 'der',
    type: 'pkcs8',
    key: Buffer.concat([prefix, Buffer.alloc(32, byte)]),
  });
}

export const KEYS = [fixedKey(1), fixedKey(2), fixedKey(3)] as const;
export const PEERS = KEYS.map(peerIdOfKey) as [string, string, string];

export const SMALL: NodeRecord = {
  peerId: PEERS[0],
  name: 'a/app',
  role: 'app',
  address: '10.0.0.1',
  port: 4101,
  incarnation: 1,
  sequence: 0,
  startId: '00112233445566778899aabbccddeeff',
  version: '0.1.0',
  protocolMin: 1,
  protocolMax: 1,
  status: 'alive',
  health: 'up',
  maintenance: false,
  services: [],
  tags: {},
  load: 0,
  settingsDigest: '',
};

export const FULL: NodeRecord = {
  peerId: PEERS[1],
  name: 'db-2.eu.example.org/db',
  role: 'db',
  address: '192.168.255.254',
  port: 65_535,
  incarnation: Number.MAX_SAFE_INTEGER,
  sequence: 4_294_967_296,
  startId: 'ffffffffffffffffffffffffffffffff',
  version: '10.20.30-rc.1+build.5',
  protocolMin: 1,
  protocolMax: 3,
  status: 'leaving',
  goodbye: { kind: 'shutdown', windowMs: 10_000 },
  health: 'down',
  maintenance: true,
  services: [
    { name: 'haproxy', health: 'up' },
    { name: 'couchdb', health: 'down' },
  ],
  tags: { rack: 'seven', 'site/name': 'Łódź 🐘' },
  load: 12_345,
  settingsDigest: '0123456789abcdef',
};

export function signed(record: NodeRecord): SignedRecord {
  return signer(signWith(keyOf(record.peerId))).record(record);
}

function keyOf(peer: string): KeyObject {
  const key = KEYS[PEERS.indexOf(peer)];
  if (key === undefined) throw new Error('no such test key');
  return key;
}

export const ACCUSATION: Accusation = {
  subject: PEERS[1],
  incarnation: 7,
  accuser: PEERS[2],
  evidence: 'closed',
};

/** One of each kind, as version 1 says it. */
export function messages(): Message[] {
  const accusation = signer(signWith(KEYS[2])).accusation(ACCUSATION);
  const records = [signed(SMALL), signed(FULL)];
  return [
    { kind: 'batch', records, accusations: [accusation] },
    { kind: 'ping', nonce: 0 },
    { kind: 'ack', nonce: Number.MAX_SAFE_INTEGER },
    { kind: 'pingRequest', nonce: 5, target: PEERS[1] },
    { kind: 'pingReport', nonce: 5, target: PEERS[1], reached: true },
    { kind: 'unlink' },
    {
      kind: 'digest',
      entries: [
        { peerId: PEERS[0], incarnation: 1, sequence: 2, state: 'alive' },
        { peerId: PEERS[1], incarnation: 3, sequence: 4, state: 'dead' },
      ],
      wantsReply: true,
    },
    { kind: 'digest', entries: [], wantsReply: false, hash: 'fedcba9876543210' },
    { kind: 'delta', records, accusations: [accusation], wants: [PEERS[2]], final: true },
  ];
}
