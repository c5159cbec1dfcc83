import { readFile, stat, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { DEFAULT_DRIVER_TIMING, type DriverTiming } from '../../../src/daemon/driver/driver.ts';
import { bytes } from '../transport/nodes.ts';
import { makeDriver, makeHost, member, stateOf, type TestDriver, type TestHost } from './drivers.ts';
import { until } from '../../support/until.ts';

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
  await until(() => allAlive(nodes), { what: 'all see all' });
  await until(() => nodes.every(({ driver }) => driver.view.synced), { what: 'all are synced' });
  for (const { driver } of nodes) t.equal(driver.peers().length, 2);
});

t.test('the record of a node reaches all, and only its own signature counts', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  await until(() => allAlive(nodes), { what: 'all see all' });
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
  await until(() => heard(b) && heard(c), { what: 'b and c hear it' });
  const seen = member(c, a.self.peerId)?.record;
  t.match(seen, facts);
  a.driver.local({ ...facts, tags: { 'not a key': 'x' } });
  t.match(a.notes.join(), /facts-refused: a tag has a bad key/);
  t.ok(heard(a), 'the facts before stay');
});

t.test('a node that leaves is seen leaving, then gone, and not dead', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  await until(() => allAlive(nodes), { what: 'all see all' });
  c.driver.leave();
  await until(() => stateOf(a, c.self.peerId) === 'leaving' && stateOf(b, c.self.peerId) === 'leaving', {
    what: 'leaving',
  });
  c.driver.departed();
  await until(() => stateOf(a, c.self.peerId) === 'left' && stateOf(b, c.self.peerId) === 'left', {
    what: 'left',
  });
  await c.driver.close();
  await until(() => a.driver.peers().length === 1, { what: 'a notices the end' });
  t.equal(stateOf(a, c.self.peerId), 'left');
});

t.test('a restart with a goodbye is waited for, and its table comes back from the disk', async (t) => {
  const { hosts, nodes } = await three(t);
  const [a, b, c] = nodes;
  await until(() => allAlive(nodes), { what: 'all see all' });
  const before = member(a, c.self.peerId)?.record;
  c.driver.goodbye('restart');
  await until(() => member(a, c.self.peerId)?.restarting === true, { what: 'a knows' });
  await c.driver.close();
  const again = makeDriver(t, hosts[2] as TestHost, [c.self, a.self, b.self]);
  await again.driver.start();
  t.equal(again.driver.view.members.length, 3, 'it knows all three at once, from its snapshot');
  await until(() => member(a, c.self.peerId)?.record.startId !== before?.startId, {
    what: 'a sees it again',
  });
  await until(() => allAlive([a, b, again]), { what: 'alive' });
  t.ok((member(a, c.self.peerId)?.record.incarnation ?? 0) > (before?.incarnation ?? 0));
  t.notOk(
    a.changes.some((change) => change.kind === 'changed' && change.member.state === 'dead'),
    'nobody ever called it dead',
  );
});

t.test(
  'a new member that only one knows is admitted by its certificate, and the others learn of it',
  async (t) => {
    const { nodes } = await three(t);
    const [a, b, c] = nodes;
    await until(() => allAlive(nodes), { what: 'all see all' });
    const host = await makeHost(t, 'd');
    const d = makeDriver(t, host, [host.self, a.self]);
    await d.driver.start();
    await until(() => [a, b, c].every((node) => stateOf(node, d.self.peerId) === 'alive'), {
      what: 'all know d',
    });
    await until(() => [a, b, c].every((node) => stateOf(d, node.self.peerId) === 'alive'), {
      what: 'd knows all',
    });
    t.equal(b.roster.find(d.self.peerId)?.name, 'd/app');
  },
);

t.test('a revocation reaches everybody, and the revoked one is out', async (t) => {
  const { nodes } = await three(t);
  const [a, b, c] = nodes;
  await until(() => allAlive(nodes), { what: 'all see all' });
  const startMs = performance.now();
  a.roster.revokedPeers.add(c.self.peerId);
  a.driver.revoked(c.self.peerId);
  a.driver.rosterChanged();
  await until(() => !b.driver.peers().includes(c.self.peerId), { what: 'b has hung up on c' });
  t.comment(`hung up on everywhere after ${Math.round(performance.now() - startMs)} ms`);
  t.equal(b.roster.find(c.self.peerId), undefined);
  await until(() => c.driver.peers().length === 0, { what: 'c is alone' });
  await t.rejects(c.transport.connect(a.self.peerId, a.self.address, 4101), { code: 'not-admitted' });
});

t.test('a forbidden message is dropped, counted, and ends in a disconnect', async (t) => {
  const { nodes } = await three(t);
  const [a, b] = nodes;
  await until(() => allAlive(nodes), { what: 'all see all' });
  const version = a.driver.view.version;
  for (let n = 0; n < 10; n += 1) b.transport.send(a.self.peerId, bytes(`garbage ${n}`));
  await until(() => a.driver.counters.faults === 10, { what: 'a has counted' });
  t.ok(a.driver.peers().includes(b.self.peerId), 'some patience');
  t.equal(a.driver.view.version, version, 'nothing changed');
  t.equal(a.notes.filter((note) => note.startsWith('peer-at-fault')).length, 1, 'one note for all');
  for (let n = 0; n < 10; n += 1) b.transport.send(a.self.peerId, bytes(`garbage ${n}`));
  await until(() => a.changes.length > 0 && a.notes.some((note) => note.startsWith('peer-hung-up')), {
    what: 'hung up on',
  });
});

t.test('the snapshot is written seldom and whole; a broken one is a note, not an end', async (t) => {
  const { hosts, nodes } = await three(t, { snapshotMs: 600_000 });
  const [a] = nodes;
  await until(() => allAlive(nodes), { what: 'all see all' });
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
  await until(() => again.driver.peers().length === 2, { what: 'it finds the others all the same' });
});

t.test('a stalled loop is noticed before any timer fires', async (t) => {
  const { nodes } = await three(t);
  const [a] = nodes;
  await until(() => allAlive(nodes), { what: 'all see all' });
  const lags = a.driver.counters.lags;
  // Longer than the heartbeat; what is shorter the machine's own timers show.
  const endMs = performance.now() + DEFAULT_DRIVER_TIMING.beatMs + 200;
  // All three live in this process: the whole cluster stops, as after SIGSTOP.
  while (performance.now() < endMs);
  await until(() => a.driver.counters.lags > lags, { what: 'the lag is felt' });
  const lastTurnMs = a.driver.lastTurnMs;
  await until(() => a.driver.lastTurnMs > lastTurnMs, { what: 'the loop turns on' });
  t.ok(allAlive(nodes), 'and nobody is blamed');
});

t.test('a driver whose port is taken reports that and closes', async (t) => {
  const { hosts, nodes } = await three(t);
  const second = makeDriver(t, hosts[0] as TestHost, [...nodes[0].roster.known.values()]);
  await t.rejects(second.driver.start(), { code: 'address-in-use' });
  await second.driver.close();
  await second.driver.close();
});
