import t, { type Test } from 'tap';
import { signWith } from '../../../src/daemon/identity/keys/node-key.ts';
import type { NodeRecord, SignedRecord } from '../../../src/daemon/membership/types.ts';
import { MAX_RECORD_BYTES } from '../../../src/daemon/wire/limits.ts';
import { encodeMessage } from '../../../src/daemon/wire/message.ts';
import { RECORD_DOMAIN, signer } from '../../../src/daemon/wire/record.ts';
import { makeDriver, makeHost, member, stateOf, type TestDriver, type TestHost } from './drivers.ts';
import { until } from '../../support/until.ts';

/**
 * What a member that was taken over can try on the network, with its own key and its own links: drivers and transports
 * are real, each on an address of its own.
 */
async function three(t: Test): Promise<{ hosts: TestHost[]; nodes: [TestDriver, TestDriver, TestDriver] }> {
  const hosts = await Promise.all(['a', 'b', 'c'].map((name) => makeHost(t, name)));
  const roster = hosts.map(({ self }) => self);
  const nodes = hosts.map((host, index) => makeDriver(t, host, roster, { founder: index === 0 }));
  for (const { driver } of nodes) await driver.start();
  await until(
    () => nodes.every((node) => nodes.every((other) => stateOf(node, other.self.peerId) === 'alive')),
    { what: 'all see all' },
  );
  return { hosts, nodes: nodes as [TestDriver, TestDriver, TestDriver] };
}

function batch(...records: SignedRecord[]): Uint8Array {
  return encodeMessage({ kind: 'batch', records, accusations: [] })[0] as Uint8Array;
}

function recordOf(of: TestDriver, about: TestDriver): NodeRecord {
  const found = member(of, about.self.peerId)?.record;
  if (found === undefined) throw new Error('it is known');
  return found;
}

t.test('genuine messages of a day ago, sent by another member, change nothing', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  const now = recordOf(a, c);
  const said = signer(signWith(c.key));
  const yesterday = { ...now, incarnation: now.incarnation - 86_400, tags: { day: 'yesterday' } };
  const old = [
    { ...yesterday, sequence: 1 },
    { ...yesterday, sequence: 2, status: 'leaving' as const },
    { ...yesterday, sequence: 3, status: 'left' as const },
    { ...yesterday, sequence: 4, goodbye: { kind: 'shutdown' as const, windowMs: 10_000 } },
  ];
  const before = a.driver.counters.received;
  for (const record of old) t.ok(b.transport.send(a.self.peerId, batch(said.record(record))));
  for (const record of old) b.transport.publish(batch(said.record(record)));
  await until(() => a.driver.counters.received >= before + 2 * old.length, { what: 'a has read them' });
  t.equal(stateOf(a, c.self.peerId), 'alive');
  t.same(recordOf(a, c).tags, {});
  t.equal(a.driver.counters.faults, 0, 'to have them is no fault');
  t.equal(stateOf(b, c.self.peerId), 'alive');
});

t.test('the record of a removed member, handed on by another, does not bring it back', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  const words = signer(signWith(c.key)).record({ ...recordOf(a, c), sequence: 1_000_000 });
  a.roster.revokedPeers.add(c.self.peerId);
  a.driver.revoked(c.self.peerId);
  t.equal(member(a, c.self.peerId), undefined);
  const before = a.driver.counters.received;
  // B has not heard of the removal: all that it knows of c goes on to a, by stream and by gossip.
  for (let n = 0; n < 20; n += 1) b.transport.send(a.self.peerId, batch(words));
  b.transport.publish(batch(words));
  await until(() => a.driver.counters.received >= before + 20, { what: 'a has read them' });
  t.equal(member(a, c.self.peerId), undefined);
  t.notOk(a.driver.peers().includes(c.self.peerId));
  await until(() => b.roster.find(c.self.peerId) === undefined, {
    what: 'what b lacked has come over instead',
  });
  t.equal(member(b, c.self.peerId), undefined);
});

/** As long as a record may be, by a field of a version to come. */
function large(of: TestDriver, record: NodeRecord): SignedRecord {
  const sign = signWith(of.key);
  const { payload } = signer(sign).record(record);
  const room = MAX_RECORD_BYTES - payload.byteLength - 8;
  const head = Uint8Array.from([0xc2, 0x3e, (room & 0x7f) | 0x80, room >> 7]);
  const longer = Buffer.concat([payload, head, new Uint8Array(room)]);
  const signature = sign(Buffer.concat([Buffer.from(RECORD_DOMAIN, 'latin1'), longer]));
  return { record, payload: longer, signature };
}

t.test(
  'records of 8 KB at the full rate of a socket: few are verified, and the others stay linked',
  async (t) => {
    const { nodes } = await three(t);
    const [a, b, c] = nodes;
    const own = recordOf(b, b);
    const frames = Array.from({ length: 400 }, (_, n) =>
      batch(large(b, { ...own, sequence: own.sequence + 1000 + n })),
    );
    t.ok((frames[0]?.byteLength ?? 0) > 8000);
    const before = { ...a.driver.counters };
    for (const frame of frames)
      await until(() => b.transport.send(a.self.peerId, frame), { what: 'there is room' });
    await until(() => a.driver.counters.received - before.received >= frames.length, {
      what: 'a has read them all',
    });
    t.ok(a.driver.counters.overdone > 250, `${a.driver.counters.overdone} of 400 were left out`);
    t.ok(a.notes.some((note) => note.startsWith('peer-floods')));
    c.driver.local({
      health: 'up',
      maintenance: false,
      services: [],
      tags: { c: 'is heard' },
      load: 0,
      settingsDigest: '',
    });
    await until(() => recordOf(a, c).tags['c'] === 'is heard', { what: 'a hears c' });
    t.ok(a.driver.peers().includes(c.self.peerId));
    t.equal(stateOf(a, c.self.peerId), 'alive');
  },
);
