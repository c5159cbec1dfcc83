import { readFile, stat, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { DEFAULT_DRIVER_TIMING, type DriverTiming } from '../../../src/daemon/driver/driver.ts';
import { bytes, until } from '../transport/nodes.ts';
import { makeDriver, makeHost, member, stateOf, type TestDriver, type TestHost } from './drivers.ts';

async function three(
  t: Test,
  timing: Partial<DriverTiming> = {},
): Promise<{ hosts: TestHost[]; nodes: [TestDriver, TestDriver, TestDriver] }> {
  const hosts = await Promise.all(['a', 'b', 'c'].map((name) => makeHost(t, name)));
  const roster = hosts.map(({ self }) => self);
  const nodes = hosts.map((host, index) => makeDriver(t, host, roster, { founder: index === 0, timing }));
  for (const { driver } of nodes) await driver.start();
  return { hosts, nodes: nodes as [TestDriver, TestDriver, TestDriver] };
}

function allAlive(nodes: readonly TestDriver[]): boolean {
  return nodes.every((node) => nodes.every((other) => stateOf(node, other.self.peerId) === 'alive'));
}

t.test('three nodes of one roster find each other', async (t) => {
  const { nodes } = await three(t);
  await until('all see all', () => allAlive(nodes));
  await until('all are synced', () => nodes.every(({ driver }) => driver.view.synced));
  for (const { driver } of nodes) t.equal(driver.peers().length, 2);
});

t.test('what a node says of itself is heard by all, and only by its word', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  await until('all see all', () => allAlive(nodes));
  const facts = {
    health: 'down' as const,
    maintenance: true,
    services: [{ name: 'haproxy', health: 'down' as const }],
    tags: { rack: 'seven' },
    load: 42,
    settingsDigest: '0123456789abcdef',
  };
  a.driver.local(facts);
  const heard = (of: TestDriver): boolean => member(of, a.self.peerId)?.record.tags['rack'] === 'seven';
  await until('b and c hear it', () => heard(b) && heard(c));
  const seen = member(c, a.self.peerId)?.record;
  t.match(seen, facts);
  a.driver.local({ ...facts, tags: { 'not a key': 'x' } });
  t.match(a.notes.join(), /facts-refused: a tag has a bad key/);
  t.ok(heard(a), 'the facts before stay');
});

t.test('a node that leaves is seen leaving, then gone, and not dead', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  await until('all see all', () => allAlive(nodes));
  c.driver.leave();
  await until(
    'leaving',
    () => stateOf(a, c.self.peerId) === 'leaving' && stateOf(b, c.self.peerId) === 'leaving',
  );
  c.driver.departed();
  await until('left', () => stateOf(a, c.self.peerId) === 'left' && stateOf(b, c.self.peerId) === 'left');
  await c.driver.close();
  await until('a notices the end', () => a.driver.peers().length === 1);
  t.equal(stateOf(a, c.self.peerId), 'left');
});

t.test('a restart with a goodbye is waited for, and its table comes back from the disk', async (t) => {
  const { hosts, nodes } = await three(t);
  const [a, b, c] = nodes;
  await until('all see all', () => allAlive(nodes));
  const before = member(a, c.self.peerId)?.record;
  c.driver.goodbye('restart');
  await until('a knows', () => member(a, c.self.peerId)?.restarting === true);
  await c.driver.close();
  const again = makeDriver(t, hosts[2] as TestHost, [c.self, a.self, b.self]);
  await again.driver.start();
  t.equal(again.driver.view.members.length, 3, 'it knows all three at once, from its snapshot');
  await until('a sees it again', () => member(a, c.self.peerId)?.record.startId !== before?.startId);
  await until('alive', () => allAlive([a, b, again]));
  t.ok((member(a, c.self.peerId)?.record.incarnation ?? 0) > (before?.incarnation ?? 0));
  t.notOk(
    a.changes.some((change) => change.kind === 'changed' && change.member.state === 'dead'),
    'nobody ever called it dead',
  );
});

t.test(
  'a newcomer that only one knows is let in by its certificate, and the others learn of it',
  async (t) => {
    const { nodes } = await three(t);
    const [a, b, c] = nodes;
    await until('all see all', () => allAlive(nodes));
    const host = await makeHost(t, 'd');
    const d = makeDriver(t, host, [host.self, a.self]);
    await d.driver.start();
    await until('all know d', () => [a, b, c].every((node) => stateOf(node, d.self.peerId) === 'alive'));
    await until('d knows all', () => [a, b, c].every((node) => stateOf(d, node.self.peerId) === 'alive'));
    t.equal(b.roster.find(d.self.peerId)?.name, 'd/app');
  },
);

t.test('a revocation reaches everybody, and the revoked one is out', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  await until('all see all', () => allAlive(nodes));
  const startMs = performance.now();
  a.roster.revokedPeers.add(c.self.peerId);
  a.driver.revoked(c.self.peerId);
  a.driver.rosterChanged();
  await until('b has hung up on c', () => !b.driver.peers().includes(c.self.peerId));
  t.comment(`hung up on everywhere after ${Math.round(performance.now() - startMs)} ms`);
  t.equal(b.roster.find(c.self.peerId), undefined);
  await until('c is alone', () => c.driver.peers().length === 0);
  await t.rejects(c.transport.connect(a.self.peerId, a.self.address, 4101), { code: 'not-admitted' });
});

t.test('what nobody may send is dropped, counted, and ends in a hang-up', async (t) => {
  const { nodes } = await three(t);
  const [a, b] = nodes;
  await until('all see all', () => allAlive(nodes));
  const version = a.driver.view.version;
  for (let n = 0; n < 10; n += 1) b.transport.send(a.self.peerId, bytes(`garbage ${n}`));
  await until('a has counted', () => a.driver.counters.faults === 10);
  t.ok(a.driver.peers().includes(b.self.peerId), 'some patience');
  t.equal(a.driver.view.version, version, 'nothing changed');
  t.equal(a.notes.filter((note) => note.startsWith('peer-at-fault')).length, 1, 'one note for all');
  for (let n = 0; n < 10; n += 1) b.transport.send(a.self.peerId, bytes(`garbage ${n}`));
  await until(
    'hung up on',
    () => a.changes.length > 0 && a.notes.some((note) => note.startsWith('peer-hung-up')),
  );
});

t.test('the snapshot is written seldom and whole; a broken one is a note, not an end', async (t) => {
  const { hosts, nodes } = await three(t, { snapshotMs: 600_000 });
  const [a] = nodes;
  await until('all see all', () => allAlive(nodes));
  for (let n = 0; n < 20; n += 1) {
    const facts = {
      health: 'up' as const,
      maintenance: false,
      services: [],
      tags: { n: `${n}` },
      load: n,
      settingsDigest: '',
    };
    a.driver.local(facts);
  }
  await a.driver.close();
  t.ok(
    a.driver.counters.snapshots <= 2,
    `${a.driver.counters.snapshots} writes: a first one, and one at the end`,
  );
  t.equal((await stat(a.snapshotPath)).mode & 0o777, 0o600);
  const whole = await readFile(a.snapshotPath);
  await writeFile(a.snapshotPath, whole.subarray(0, whole.byteLength / 2));
  const again = makeDriver(t, hosts[0] as TestHost, [...a.roster.known.values()], { founder: true });
  await again.driver.start();
  t.match(again.notes.join(), /snapshot-unusable/);
  await until('it finds the others all the same', () => again.driver.peers().length === 2);
});

t.test('a loop that stood still is felt before any timer is judged', async (t) => {
  const { nodes } = await three(t);
  const [a] = nodes;
  await until('all see all', () => allAlive(nodes));
  const lags = a.driver.counters.lags;
  // Longer than the heartbeat; what is shorter the machine's own timers show.
  const endMs = performance.now() + DEFAULT_DRIVER_TIMING.beatMs + 200;
  // All three live in this process: the whole cluster stops, as after SIGSTOP.
  while (performance.now() < endMs);
  await until('the lag is felt', () => a.driver.counters.lags > lags);
  const lastTurnMs = a.driver.lastTurnMs;
  await until('the loop turns on', () => a.driver.lastTurnMs > lastTurnMs);
  t.ok(allAlive(nodes), 'and nobody is blamed');
});

t.test('a driver whose port is taken says so and closes', async (t) => {
  const { hosts, nodes } = await three(t);
  const second = makeDriver(t, hosts[0] as TestHost, [...nodes[0].roster.known.values()]);
  await t.rejects(second.driver.start(), { code: 'address-in-use' });
  await second.driver.close();
  await second.driver.close();
});
