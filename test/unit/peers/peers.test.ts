import { createServer, type Server } from 'node:net';
import t, { type Test } from 'tap';
import { type Config, parseConfig } from '../../../src/daemon/config/config.ts';
import type { AuditEntry, MemberRow } from '../../../src/daemon/control/api.ts';
import type { NodeCertificate } from '../../../src/daemon/identity/keys/chain.ts';
import type { Role } from '../../../src/daemon/membership/types.ts';
import { LARGE_BYTES } from '../../../src/daemon/peers/ping.ts';
import { Peers } from '../../../src/daemon/peers/peers.ts';
import { portsBetween } from '../../../src/daemon/peers/ports.ts';
import { trailQuestion } from '../../../src/daemon/peers/trail.ts';
import { member as row, entry } from '../cli/fake-daemon.ts';
import { member, viewOf } from '../notification/views.ts';
import { bytes, cluster, PORT, type TestNode } from '../transport/nodes.ts';

const configOf = (role: Role, address: string): Config =>
  parseConfig(
    `[node]\ncluster = "test"\nhost = "h"\n[network]\nprivate_address = "${address}"\n` +
      'private_network = "127.0.0.0/8"\nprivate_device = "lo"\n',
    role,
    `${role}.toml`,
  );

interface Facts {
  readonly name: string;
  readonly role: Role;
  readonly trail?: readonly AuditEntry[];
  /** How far its clock is ahead. */
  readonly aheadMs?: number;
}

/** Nodes of one cluster with what each asks and answers; the first one does not answer by itself. */
async function nodesOf(t: Test, facts: readonly Facts[]) {
  const nodes = await cluster(t, facts.length);
  const rowOf = (at: number, self: boolean, more: Partial<MemberRow> = {}): MemberRow => {
    const { name, role } = facts[at] as Facts;
    const { peer, address } = nodes[at] as TestNode;
    return row({ name, role, peerId: peer, address, self, ...more });
  };
  const rows = new Map<string, Partial<MemberRow>>();
  const peers = facts.map(({ name, role, trail = [], aheadMs = 0 }, at) => {
    const node = nodes[at] as TestNode;
    const known = facts.map((each, other) => {
      const { peer: peerId, address } = nodes[other] as TestNode;
      return { ...each, peerId, address };
    });
    return new Peers(
      {
        name,
        roster: {
          get: (peer: string) => known.find(({ peerId }) => peerId === peer) as NodeCertificate | undefined,
        },
      } as ConstructorParameters<typeof Peers>[0],
      {
        clock: { wallMs: () => Date.now() + aheadMs, monotonicMs: () => performance.now() },
        audit: { query: () => trail },
        transport: node.transport,
        driver: {
          view: viewOf(known.map(({ name: of, peerId }) => member(of, { record: { peerId, port: PORT } }))),
        },
        node: {
          config: configOf(role, node.address),
          rows: () => facts.map((each, other) => rowOf(other, other === at, rows.get(each.name))),
        },
      },
    );
  });
  return {
    nodes,
    peers: peers as [Peers, Peers],
    say: (name: string, more: Partial<MemberRow>) => void rows.set(name, more),
  };
}

const at = (agoMs: number): string => new Date(Date.now() - agoMs).toISOString();
const asked = (more: Record<string, string> = {}) => trailQuestion.parse(more);

t.test('the trails of all nodes are had from one of them, each narrowed where it lies', async (t) => {
  const trail = [
    entry({ id: 1, at: at(7_200_000), result: 'failed', summary: 'old' }),
    entry({ id: 2, at: at(60_000), subjects: ['db20/db'], summary: 'another' }),
    entry({ id: 3, at: at(1000), result: 'held', summary: 'new' }),
  ];
  const { peers, say, nodes } = await nodesOf(t, [
    { name: 'a/app', role: 'app', trail },
    { name: 'b/app', role: 'app', trail: [entry({ id: 9, summary: 'of b' })] },
    { name: 'c/db', role: 'db' },
    { name: 'd/db', role: 'db' },
  ]);
  for (const each of peers.slice(0, 2)) each.serve();
  say('d/db', { state: 'left' });
  const [a, b] = peers;
  const summaries = async (from: Peers, more: Record<string, string> = {}) =>
    (await from.trails(asked(more))).trails.map(({ node, entries }) => [
      node,
      ...entries.map(({ summary }) => summary),
    ]);
  const all = await b.trails(asked());
  t.match(all.trails, [
    { node: 'b/app', missing: '' },
    { node: 'a/app', missing: '' },
    // It runs a version that does not know the question.
    { node: 'c/db', entries: [], missing: /./ },
  ]);
  t.equal(all.trails.length, 3, 'one that has left is not asked');
  t.same(await summaries(b), [['b/app', 'of b'], ['a/app', 'old', 'another', 'new'], ['c/db']]);
  t.same(await summaries(a, { since_ms: String(Date.now() - 3_600_000) }), [
    ['a/app', 'another', 'new'],
    ['b/app'],
    ['c/db'],
  ]);
  t.same((await summaries(b, { failed: '1' }))[1], ['a/app', 'old', 'new']);
  t.same((await summaries(b, { node: 'db2' }))[1], ['a/app', 'old', 'new'], 'db20 is another host');
  t.same((await summaries(b, { limit: '1' }))[1], ['a/app', 'new'], 'the latest');
  say('a/app', { state: 'dead' });
  await nodes[0]?.transport.close();
  t.match((await b.trails(asked())).trails[1], { node: 'a/app', entries: [], missing: 'it is dead' });
});

t.test('a trail that is longer than an answer is cut after its newest entries', async (t) => {
  const trail = Array.from({ length: 2000 }, (_, id) => entry({ id, summary: `${id} ${'x'.repeat(500)}` }));
  const { peers } = await nodesOf(t, [
    { name: 'a/app', role: 'app', trail },
    { name: 'b/app', role: 'app' },
  ]);
  peers[0].serve();
  const entries = (await peers[1].trails(asked({ limit: '2000' }))).trails[1]?.entries ?? [];
  t.ok(entries.length > 100 && entries.length < 1000, `${entries.length}`);
  t.same(
    entries.map(({ id }) => id),
    trail.slice(-entries.length).map(({ id }) => id),
  );
});

t.test('a ping reports time, clock, packet sizes and open ports, in both directions', async (t) => {
  const { peers, nodes, say } = await nodesOf(t, [
    { name: 'a/app', role: 'app' },
    { name: 'b/app', role: 'app', aheadMs: 3_600_000 },
    { name: 'c/db', role: 'db' },
  ]);
  peers[1].serve();
  const [a, b] = peers;
  const [own, other] = nodes;
  const listens = async (address = ''): Promise<Server> => {
    const server = createServer((socket) => socket.destroy());
    t.teardown(() => server.close());
    await new Promise<void>((resolve) => server.listen(8443, address, resolve));
    return server;
  };
  const edge = await listens(other?.address);
  const found = (await a.ping('b/app')).nodes;
  t.match(found, [
    {
      name: 'b/app',
      problem: '',
      large: { bytes: LARGE_BYTES, there: true, back: true },
      portsThere: [
        { port: PORT, what: 'daemon', open: true },
        { port: 8443, what: 'edge', open: true },
      ],
      portsBack: [
        { port: PORT, what: 'daemon', open: true },
        { port: 8443, what: 'edge', open: false, detail: 'connection refused' },
      ],
    },
  ]);
  const [{ roundTripMs: trip, clockAheadMs = 0, clockSureToMs = 0 } = {}] = found;
  t.ok(trip !== undefined && trip.least <= trip.median && trip.median <= trip.most, JSON.stringify(trip));
  t.ok(Math.abs(clockAheadMs - 3_600_000) <= clockSureToMs + 5, `${clockAheadMs} ± ${clockSureToMs}`);
  await new Promise((resolve) => edge.close(resolve));
  await listens(own?.address);
  say('b/app', { state: 'suspect' });
  const all = (await a.ping(undefined)).nodes;
  t.same(
    all.map(({ name, problem }) => [name, problem === '']),
    [
      ['b/app', true],
      ['c/db', false],
    ],
    'a version that does not know the question is said to be one',
  );
  t.match(all[0]?.portsThere[1], { open: false });
  t.match(
    all[1]?.portsThere,
    [
      { port: PORT, open: true },
      { port: 6984, open: false },
    ],
    'and its ports are looked at all the same',
  );
  await t.rejects(a.ping('a/app'), { code: 'ping-self' });
  await t.rejects(a.ping('nobody/db'), { code: 'member-unknown' });
  await t.rejects(b.ping('nobody/db'), { code: 'member-unknown' });
});

t.test('a member can let another check only the asking member’s ports, once a second', async (t) => {
  const { peers, nodes } = await nodesOf(t, [
    { name: 'a/app', role: 'app' },
    { name: 'b/app', role: 'app' },
  ]);
  peers[1].serve();
  const [a, b] = nodes as [TestNode, TestNode];
  await a.transport.connect(b.peer, b.address, PORT);
  const ask = async (text: string) => {
    const limits = { timeoutMs: 60_000, maxBytes: 64 * 1024 };
    const said = await a.transport.request(b.peer, '/bornemisza/ping/1', bytes(text), limits);
    return JSON.parse(Buffer.from(said).toString('utf8')) as { ports?: unknown; pad: string };
  };
  const look = { pad: '', want: 0, look: true };
  // What is asked for beside that is not read.
  const first = await ask(JSON.stringify({ ...look, address: '127.0.0.1', port: 22, ports: [22] }));
  t.match(first.ports, [{ port: PORT, open: true }, { port: 8443 }]);
  t.equal((await ask(JSON.stringify(look))).ports, undefined, 'not again at once');
  t.equal((await ask(JSON.stringify({ pad: '', want: 10, look: false }))).pad.length, 10);
  for (const bad of [
    '',
    'x',
    '[]',
    JSON.stringify({ ...look, want: LARGE_BYTES + 1 }),
    JSON.stringify({ ...look, want: -1 }),
    JSON.stringify({ ...look, pad: 'x'.repeat(LARGE_BYTES + 1) }),
  ])
    await t.rejects(ask(bad), bad.slice(0, 40));
});

t.test('each pair of roles uses ports of its own', async (t) => {
  const config = configOf('db', '127.0.0.1');
  const ports = (from: Role, to: Role) => portsBetween(from, to, 4999, config).map(({ port }) => port);
  t.same(ports('app', 'app'), [4999, 8443]);
  t.same(ports('db', 'app'), [4999]);
  t.same(ports('app', 'db'), [4999, 6984]);
  t.same(ports('db', 'db'), [4999, 6985, 4369, 9100]);
});
