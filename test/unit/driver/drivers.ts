import { createHash, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import {
  Driver,
  type DriverChange,
  type DriverTiming,
  type Roster,
} from '../../../src/daemon/driver/driver.ts';
import { createMembership } from '../../../src/daemon/membership/machine.ts';
import { presets } from '../../../src/daemon/membership/preset.ts';
import type {
  Admitted,
  Member,
  MemberState,
  NodeRecord,
  PeerId,
} from '../../../src/daemon/membership/types.ts';
import { peerIdOfKey, signWith, verifyByPeerId } from '../../../src/daemon/identity/keys/node-key.ts';
import { Transport, type TransportTiming } from '../../../src/daemon/transport/transport.ts';
import { signer } from '../../../src/daemon/wire/record.ts';
import { loopback, PATIENT } from '../transport/nodes.ts';

/** Roster that believes: what identity does with certificates, done with names. Digest, export and import are real. */
export class PlainRoster implements Roster {
  readonly known = new Map<PeerId, Admitted>();
  readonly revokedPeers = new Set<PeerId>();

  members(): readonly Admitted[] {
    return [...this.known.values()].filter(({ peerId }) => !this.revokedPeers.has(peerId));
  }

  find(peer: PeerId): Admitted | undefined {
    return this.revokedPeers.has(peer) ? undefined : this.known.get(peer);
  }

  async admit(peer: PeerId, chain: Uint8Array): Promise<Admitted | undefined> {
    const member = JSON.parse(new TextDecoder().decode(chain)) as Admitted;
    if (member.peerId !== peer || this.revokedPeers.has(peer)) return undefined;
    this.known.set(peer, member);
    return member;
  }

  digest(): Uint8Array {
    return createHash('sha256').update(this.export()).digest();
  }

  export(): Uint8Array {
    const known = [...this.known.values()].sort((a, b) => (a.peerId < b.peerId ? -1 : 1));
    return new TextEncoder().encode(JSON.stringify({ known, revoked: [...this.revokedPeers].sort() }));
  }

  async import(bytes: Uint8Array): Promise<{ admitted: Admitted[]; revoked: PeerId[] }> {
    const theirs = JSON.parse(new TextDecoder().decode(bytes)) as { known: Admitted[]; revoked: PeerId[] };
    const admitted = theirs.known.filter(({ peerId }) => !this.known.has(peerId));
    const revoked = theirs.revoked.filter((peer) => !this.revokedPeers.has(peer));
    for (const member of admitted) this.known.set(member.peerId, member);
    for (const peer of revoked) this.revokedPeers.add(peer);
    return { admitted, revoked };
  }
}

export interface TestDriver {
  readonly key: KeyObject;
  readonly self: Admitted;
  readonly roster: PlainRoster;
  readonly driver: Driver;
  readonly transport: Transport;
  readonly changes: DriverChange[];
  readonly notes: string[];
  readonly snapshotPath: string;
}

/** What stays when a node's process ends: its key, name, address and disk. */
export interface TestHost {
  readonly key: KeyObject;
  readonly self: Admitted;
  readonly directory: string;
}

let incarnations = 0;

export async function makeHost(t: Test, name: string, address = loopback()): Promise<TestHost> {
  const { privateKey: key } = generateKeyPairSync('ed25519');
  const directory = await mkdtemp(join(tmpdir(), 'bornemisza-driver-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const self: Admitted = { peerId: peerIdOfKey(key), name: `${name}/app`, role: 'app', address };
  return { key, self, directory };
}

export const PORT = 4101;

function firstRecord(self: Admitted): NodeRecord {
  incarnations += 1;
  return {
    ...self,
    port: PORT,
    incarnation: Math.floor(Date.now() / 1000) + incarnations,
    sequence: 0,
    startId: randomBytes(16).toString('hex'),
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
}

export function makeDriver(
  t: Pick<Test, 'teardown'>,
  host: TestHost,
  roster: readonly Admitted[],
  options: { founder?: boolean; timing?: Partial<DriverTiming>; links?: TransportTiming } = {},
): TestDriver {
  const { key, self, directory } = host;
  const { links = PATIENT } = options;
  const plain = new PlainRoster();
  for (const member of roster) plain.known.set(member.peerId, member);
  const changes: DriverChange[] = [];
  const notes: string[] = [];
  const snapshotPath = join(directory, 'members.snapshot');
  let transport: Transport | undefined;
  const driver = new Driver(
    {
      self: self.peerId,
      founder: options.founder ?? false,
      snapshotPath,
      ...(options.timing === undefined ? {} : { timing: options.timing }),
    },
    {
      machine: createMembership({
        self: firstRecord(self),
        signer: signer(signWith(key)),
        preset: presets.lan,
        seed: incarnations,
      }),
      roster: plain,
      verify: verifyByPeerId(),
      transport: (events, gate) => {
        const chain = new TextEncoder().encode(JSON.stringify(self));
        transport = new Transport(
          { nodeKey: key, cluster: 'test', address: self.address, port: PORT, chain, timing: links },
          { gate, events },
        );
        return transport;
      },
      onNote: (code, _peer, detail) => notes.push(`${code}: ${detail}`),
    },
  );
  driver.onChange((change) => changes.push(change));
  t.teardown(() => driver.close());
  if (transport === undefined) throw new Error('the driver made no transport');
  return { key, self, roster: plain, driver, transport, changes, notes, snapshotPath };
}

export function member(of: TestDriver, peer: PeerId): Member | undefined {
  return of.driver.view.members.find(({ record }) => record.peerId === peer);
}

export function stateOf(of: TestDriver, peer: PeerId): MemberState | undefined {
  return member(of, peer)?.state;
}
