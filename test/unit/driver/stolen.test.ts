import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Driver } from '../../../src/daemon/driver/driver.ts';
import type { Identity } from '../../../src/daemon/identity/identity.ts';
import {
  createNodeKey,
  type NodeKey,
  signWith,
  verifyByPeerId,
} from '../../../src/daemon/identity/keys/node-key.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import type { NodeCertificate } from '../../../src/daemon/identity/keys/chain.ts';
import { createMembership } from '../../../src/daemon/membership/machine.ts';
import { presets } from '../../../src/daemon/membership/preset.ts';
import { driverRoster, presentedChain } from '../../../src/daemon/identity/roster/presented.ts';
import { Transport } from '../../../src/daemon/transport/transport.ts';
import { signer } from '../../../src/daemon/wire/record.ts';
import { testCluster } from '../identity/cluster.ts';
import { loopback, PATIENT, PORT } from '../transport/nodes.ts';
import { until } from '../../support/until.ts';

const prod = await testCluster();

interface Node {
  readonly key: NodeKey;
  readonly certificate: NodeCertificate;
  readonly driver: Driver;
  readonly transport: Transport;
  readonly directory: string;
}

/** A node as the daemon puts it together, with the roster of real certificates. */
function makeNode(t: Test, key: NodeKey, own: NodeCertificate, roster: Roster, directory: string): Node {
  const identity = { chainPem: own.chainPem, roster } as Identity;
  let transport: Transport | undefined;
  const { peerId, name, role, address } = own;
  const facts = {
    health: 'up',
    maintenance: false,
    services: [],
    tags: {},
    load: 0,
    settingsDigest: '',
  } as const;
  const driver = new Driver(
    { self: key.peerId, founder: false, snapshotPath: join(directory, 'members.snapshot') },
    {
      machine: createMembership({
        self: {
          ...{
            peerId: key.peerId,
            name,
            role,
            address,
            port: PORT,
            incarnation: 1,
            sequence: 0,
            startId: peerId.slice(-8),
          },
          ...{ version: '0.1.0', protocolMin: 1, protocolMax: 1, status: 'alive', ...facts },
          startId: Buffer.from(key.publicKey.subarray(0, 16)).toString('hex'),
        },
        signer: signer(signWith(key.key)),
        preset: presets.test,
        seed: 1,
      }),
      roster: driverRoster(identity, () => undefined),
      verify: verifyByPeerId(),
      transport: (events, gate) => {
        const chain = presentedChain(identity);
        transport = new Transport(
          { nodeKey: key.key, cluster: 'prod', address, port: PORT, chain, timing: PATIENT },
          { gate, events },
        );
        return transport;
      },
      onNote: () => undefined,
    },
  );
  t.teardown(() => driver.close());
  if (transport === undefined) throw new Error('the driver made no transport');
  return { key, certificate: own, driver, transport, directory };
}

t.test(
  'who has a node’s snapshot and roster and not its key learns nothing and changes nothing',
  async (t) => {
    const directory = t.testdir({ a: {}, b: {}, thief: {} });
    const keys = [createNodeKey(), createNodeKey()] as const;
    const certificates = await Promise.all(
      keys.map((nodeKey, at) => prod.node(`app${at + 1}`, 'app', { nodeKey, address: loopback() })),
    );
    const rosterOf = (path: string): Roster => {
      const roster = new Roster(prod.trust, path);
      for (const each of certificates) roster.add(each);
      return roster;
    };
    const [a, b] = keys.map((key, at) => {
      const own = certificates[at];
      const home = join(directory, at === 0 ? 'a' : 'b');
      if (own === undefined) throw new Error('no certificate');
      return makeNode(t, key, own, rosterOf(join(home, 'roster.json')), home);
    });
    if (a === undefined || b === undefined) throw new Error('two nodes');
    await a.driver.start();
    await b.driver.start();
    const seesAlive = (node: Node, peer: string): boolean =>
      node.driver.view.members.some(({ record, state }) => record.peerId === peer && state === 'alive');
    await until(() => seesAlive(a, b.key.peerId) && seesAlive(b, a.key.peerId), {
      what: 'they see each other',
    });
    await a.driver.close();
    const snapshot = await readFile(join(a.directory, 'members.snapshot'));
    const { d } = a.key.key.export({ format: 'jwk' });
    t.notOk(snapshot.includes(Buffer.from(d ?? 'none', 'base64url')), 'the key is not in it');

    // The thief has all files but the keys: it shows the certificate of a, with a key of its own.
    const home = join(directory, 'thief');
    await copyFile(join(a.directory, 'members.snapshot'), join(home, 'members.snapshot'));
    const before = JSON.stringify(b.driver.view.members.map(({ record }) => record.peerId).sort());
    const key = createNodeKey();
    const thief = makeNode(
      t,
      key,
      { ...a.certificate, address: loopback() },
      rosterOf(join(home, 'roster.json')),
      home,
    );
    const refusedBefore = b.transport.counters.strangersRefused;
    await thief.driver.start();
    t.ok(
      thief.driver.view.members.some(({ record }) => record.peerId === b.key.peerId),
      'it knows from the snapshot where b is',
    );
    await until(() => b.transport.counters.strangersRefused > refusedBefore, { what: 'it has tried b' });
    t.strictSame(thief.driver.peers(), [], 'and is hung up on');
    t.equal(thief.driver.view.synced, false);
    t.equal(JSON.stringify(b.driver.view.members.map(({ record }) => record.peerId).sort()), before);
    t.notOk(seesAlive(b, key.peerId));
  },
);
