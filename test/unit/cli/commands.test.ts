import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import { parseDuration } from '../../../src/cli/duration.ts';
import type { Role } from '../../../src/daemon/membership/types.ts';
import { fakeHost, runCli } from './captured-io.ts';
import {
  type Answer,
  type Asked,
  DONE_LEAVING,
  entry,
  FakeDaemon,
  HELD,
  MEMBERS,
  member,
  refusal,
  status,
  STORY,
} from './fake-daemon.ts';
import { place } from './place.ts';

type Answers = Readonly<Record<string, Answer | ((asked: Asked) => Answer)>>;

async function daemon(
  test: { teardown(fn: () => unknown): unknown },
  answers: Answers,
  role: Role = 'app',
  at?: string,
): Promise<{ root: string; fake: FakeDaemon }> {
  const root = at ?? (await place(test));
  const fake = await new FakeDaemon(root, role, answers).start();
  test.teardown(() => fake.stop());
  return { root, fake };
}

const members: Answers = { 'GET /v1/members': { json: { self: 'app1/app', members: MEMBERS } } };

t.test('status shows health, members, programs, guards and warnings', async (t) => {
  const { root } = await daemon(t, { 'GET /v1/status': { json: status() } });
  const { code, out, err } = await runCli(['status', '--root', root]);
  t.equal(code, 0);
  t.equal(err, '');
  t.match(out, 'app1/app of cluster shop: up, running for 1 h');
  t.match(out, '4 alive, 1 dead');
  // What was seen, with its age, not what the node wants.
  t.match(
    out,
    /203\.0\.113\.10 not announced: BIRD is not running \(2 s ago\); wanted: announce \(this node is up\)/,
  );
  t.notMatch(out, 'announced here');
  t.match(out, /bird +failing +never +bird does not answer -- systemctl start bird/);
  t.match(out, 'held: db2/db, db3/db vanished without a leave -- if they are gone for good');
  t.match(out, 'note: one authority only');
});

t.test('a full disk shows in status, in its exit code, and in the list of members', async (t) => {
  const warnings = [{ code: 'disk-full', message: 'a disk is full: 0 MiB free', next: 'free space' }];
  const [first, ...rest] = MEMBERS;
  const row = { ...first, tags: { disk: 'full' } };
  const well = { plugins: [], held: [], counts: { ...status().counts, dead: 0 } };
  const { root } = await daemon(t, {
    'GET /v1/status': { json: status({ ...well, warnings }) },
    'GET /v1/members': { json: { self: 'app1/app', members: [row, ...rest] } },
  });
  const { code, out, err } = await runCli(['status', '--check', '--root', root]);
  t.equal(code, 1);
  t.match(out, 'a disk is full: 0 MiB free -- free space');
  t.match(err, 'a disk is full');
  t.match((await runCli(['members', '--root', root])).out, /app1\/app \*.*a disk is full/);
});

t.test('status shows what systemd has restarted', async (t) => {
  const restarts = [
    { unit: 'shop.service', restarts: 4 },
    { unit: 'bird.service', restarts: 0 },
  ];
  const { root } = await daemon(t, { 'GET /v1/status': { json: status({ restarts }) } });
  t.match((await runCli(['status', '--root', root])).out, /^ *restarts +shop\.service 4 \(by systemd\)$/m);
  const json = JSON.parse((await runCli(['status', '--json', '--root', root])).out) as object;
  t.match(json, { restarts });
  const { root: none } = await daemon(t, { 'GET /v1/status': { json: status({ restarts: undefined! }) } });
  t.notMatch((await runCli(['status', '--root', none])).out, /restarts/, 'a daemon of before');
});

t.test('a fault of the machine shows in the exit code of status, and in the list of members', async (t) => {
  const [first, ...rest] = MEMBERS;
  const row = { ...first, tags: { machine: 'memory public-link later-word constructor' } };
  const well = { plugins: [], held: [], counts: { ...status().counts, dead: 0 } };
  for (const code of ['link-down', 'memory-pressure', 'unit-restarts']) {
    const warnings = [{ code, message: 'the machine has a fault', next: 'help it' }];
    const { root } = await daemon(t, {
      'GET /v1/status': { json: status({ ...well, warnings }) },
      'GET /v1/members': { json: { self: 'app1/app', members: [row, ...rest] } },
    });
    t.match(await runCli(['status', '--check', '--root', root]), { code: 1, err: /the machine has a fault/ });
    const { out } = await runCli(['members', '--root', root]);
    t.match(out, /app1\/app \*.*too little memory; no link\s+on its public device/);
    t.notMatch(out, /later-word|function/);
  }
});

t.test('status --json is the daemon’s own answer', async (t) => {
  const { root } = await daemon(t, { 'GET /v1/status': { json: status() } });
  const { code, out } = await runCli(['status', '--json', '--root', root]);
  t.equal(code, 0);
  t.match(JSON.parse(out), { name: 'app1/app', plugins: [{ name: 'haproxy' }, { name: 'bird' }] });
});

t.test('status shows both roles where both run, and --role one of them', async (t) => {
  const { root } = await daemon(t, { 'GET /v1/status': { json: status() } });
  await daemon(
    t,
    { 'GET /v1/status': { json: status({ name: 'app1/db', role: 'db', phase: 'starting', synced: false }) } },
    'db',
    root,
  );
  const both = await runCli(['status', '--root', root]);
  t.match(both.out, 'app1/app of cluster shop');
  t.match(both.out, 'app1/db of cluster shop');
  t.match(both.out, 'not synced yet');
  const json = await runCli(['status', '--json', '--root', root]);
  t.match(JSON.parse(json.out), { instances: [{ role: 'app' }, { role: 'db' }] });
  const one = await runCli(['status', '--role', 'db', '--json', '--root', root]);
  t.match(JSON.parse(one.out), { role: 'db' });
});

t.test('status shows the running role and says that the other one is down', async (t) => {
  const root = await place(t, { 'etc/bornemisza/db.toml': '' });
  await daemon(t, { 'GET /v1/status': { json: status() } }, 'app', root);
  const { code, out, err } = await runCli(['status', '--root', root]);
  t.match(out, 'app1/app of cluster shop');
  t.match(err, 'the daemon bornemisza@db is not running');
  t.equal(code, 3);
});

t.test('a command for one daemon asks which where both run', async (t) => {
  const { root } = await daemon(t, members);
  const { fake } = await daemon(t, members, 'db', root);
  for (const argv of [
    ['events'],
    ['plan'],
    ['maintenance', 'on'],
    ['remove', 'db2/db'],
    ['guards', 'list'],
  ]) {
    const { code, err } = await runCli([...argv, '--root', root]);
    t.equal(code, 2, argv.join(' '));
    t.match(err, 'both roles run on this host');
    t.match(err, '--role app or --role db');
  }
  t.equal((await runCli(['members', '--role', 'db', '--root', root])).code, 0);
  t.equal(fake.asked.length, 1);
});

t.test('where both roles run, role app lists the members, or role db with --role', async (t) => {
  const answers: Answers = { ...members, 'GET /v1/audit': { json: { entries: [] } } };
  const { root, fake: app } = await daemon(t, answers);
  const { fake: db } = await daemon(t, answers, 'db', root);
  const questions = [['members'], ['services'], ['authority', 'list'], ['explain', 'db2/db']];
  for (const argv of questions) {
    const asked = app.asked.length;
    t.match(await runCli([...argv, '--root', root]), { code: 0, err: '' }, argv.join(' '));
    t.ok(app.asked.length > asked);
  }
  t.equal(db.asked.length, 0);
  for (const argv of questions) t.equal((await runCli([...argv, '--role', 'db', '--root', root])).code, 0);
  t.ok(db.asked.length >= questions.length);
});

t.test('a node that reaches no peer reports that beside its own health', async (t) => {
  const counts = { alive: 1, suspect: 0, dead: 0, leaving: 0, left: 0, absent: 0 };
  let at = counts;
  const { root } = await daemon(t, { 'GET /v1/status': () => ({ json: status({ counts: at }) }) });
  const headOf = async () => (await runCli(['status', '--root', root])).out;
  t.match(await headOf(), /^app1\/app of cluster shop: up, running for 1 h\n/, 'alone from the beginning');
  for (const [lost, words] of [
    [{ dead: 5 }, 'none of 5 other members'],
    [{ suspect: 1, absent: 2 }, 'none of 3 other members'],
    [{ dead: 1, left: 4 }, 'none of 1 other member'],
  ] as const) {
    at = { ...counts, ...lost };
    t.match(await headOf(), `: up, reaches ${words}, running for 1 h\n`, JSON.stringify(lost));
    t.match(await headOf(), 'sudo bornemisza doctor');
  }
  at = { ...counts, alive: 2, dead: 4 };
  t.notMatch(await headOf(), 'reaches none');
});

t.test('the last report of an unreachable member is shown as such, with the age of its record', async (t) => {
  for (const state of ['dead', 'absent', 'left', 'alive', 'suspect', 'leaving'] as const) {
    const heard = ['alive', 'suspect', 'leaving'].includes(state);
    const row = { ...MEMBERS[4], state, heardAgoMs: 300_000 };
    const { root } = await daemon(t, {
      'GET /v1/members': { json: { self: 'app1/app', members: [row] } },
      'GET /v1/audit': { json: { entries: [] } },
    });
    const { out } = await runCli(['explain', 'db2/db', '--root', root]);
    t.match(
      out,
      heard ? /health +up \(couchdb down/ : /health +unknown; last report: up \(couchdb down/,
      state,
    );
    t.match(out, /record +the newest is 5 min old; a node sends one when something changes/);
    t.notMatch(out, /heard +5 min ago/);
    const { out: wide } = await runCli(['members', '--wide', '--root', root]);
    t.match(wide, heard ? / up .* couchdb down/ : / was up .* was couchdb down/, state);
  }
});

t.test('members is a table of at most 100 columns that says who is out and why', async (t) => {
  const { root } = await daemon(t, members);
  const heads: readonly (readonly [number, RegExp, RegExp])[] = [
    [64, /NODE +STATE +HEALTH +TRAFFIC +WHY\n/, /^ADDRESS, EDGE, SERVICES, AUTHORITY, VERSION, CERT:\s/m],
    [80, /NODE +STATE +HEALTH +TRAFFIC +EDGE +CERT +WHY\n/, /^ADDRESS, SERVICES, AUTHORITY, VERSION:\s/m],
    [
      100,
      /NODE +STATE +HEALTH +TRAFFIC +EDGE +SERVICES +CERT +WHY\n/,
      /^ADDRESS, AUTHORITY, VERSION: bornemisza members --wide\n$/m,
    ],
  ];
  for (const [columns, head, left] of heads) {
    const { code, out } = await runCli(['members', '--root', root], { columns });
    t.equal(code, 0);
    t.match(out, head);
    t.match(out, left, 'what does not fit is named');
    t.match(out, /app1\/app \*/);
    t.match(out, /db2\/db +dead 3 min +was up +out .* ?dead, and/);
    t.ok(
      out.split('\n').every((line) => line.length <= columns),
      `no line is longer than ${columns}`,
    );
  }
  const json = await runCli(['members', '--json', '--root', root]);
  t.equal(JSON.parse(json.out).members.length, MEMBERS.length);
});

t.test('colours are used only where the output takes them', async (t) => {
  const { root } = await daemon(t, members);
  const escape = String.fromCharCode(27);
  t.notOk((await runCli(['members', '--root', root])).out.includes(escape));
  t.ok((await runCli(['members', '--root', root], { colour: true })).out.includes(escape));
});

t.test('explain says why a node gets no traffic, then shows its history, newest last', async (t) => {
  const { root, fake } = await daemon(t, { ...members, 'GET /v1/audit': { json: { entries: STORY } } });
  const { code, out } = await runCli(['explain', 'db2/db', '--root', root]);
  t.equal(code, 0);
  t.match(out, 'db2/db gets no traffic: dead, and HAProxy’s own check fails.');
  t.match(out, 'couchdb down, haproxy up');
  t.match(out, 'zone=a');
  const order = [
    'db2/db is dead',
    'because accused by',
    'took db2 out',
    'did db_nodes/db2',
    'failed haproxy -c refuses',
    'next bornemisza plan',
  ];
  const at = order.map((text) => out.replaceAll(/\s+/g, ' ').indexOf(text));
  t.ok(
    at.every((each, index) => each > (at[index - 1] ?? 0)),
    `in this order: ${at.join(', ')}`,
  );
  t.match(fake.asked.at(-1)?.path, 'node=db2%2Fdb');
});

t.test('explain finds a node by host, address and PeerId', async (t) => {
  const { root } = await daemon(t, { ...members, 'GET /v1/audit': { json: { entries: [] } } });
  for (const word of ['db2', 'DB2', '10.0.0.22', '12D3KooWdb2db']) {
    const { code, out } = await runCli(['explain', word, '--root', root]);
    t.equal(code, 0, word);
    t.match(out, /^db2\/db gets no traffic/, word);
    t.match(out, 'says nothing about db2/db');
  }
  const json = await runCli(['explain', 'db2', '--json', '--root', root]);
  t.match(JSON.parse(json.out), { member: { name: 'db2/db' }, entries: [] });
});

t.test(
  'explain names the nearest node for a slip of the fingers, and the choices for half a name',
  async (t) => {
    const { root } = await daemon(t, { ...members, 'GET /v1/audit': { json: { entries: [] } } });
    const slip = await runCli(['explain', 'db3', '--root', root]);
    t.equal(slip.code, 1);
    t.match(slip.err, 'there is no node db3 in this cluster; did you mean db2?');
    t.match(slip.err, 'next: list all nodes: bornemisza members');
    const far = await runCli(['explain', 'something-else-entirely', '--root', root]);
    t.notMatch(far.err, 'did you mean');
    const half = await runCli(['explain', 'both', '--root', root]);
    t.equal(half.code, 2);
    t.match(half.err, 'both can be both/app or both/db');
    const hostile = await runCli(['explain', 'a\nb "c', '--root', root]);
    t.match(hostile.err, String.raw`there is no node "a\nb \"c"`);
  },
);

t.test('explain still works for a removed node', async (t) => {
  const { root } = await daemon(t, {
    ...members,
    'GET /v1/audit': {
      json: { entries: [entry({ id: 1, subjects: ['old/db'], summary: 'old/db was removed' })] },
    },
  });
  const { code, out } = await runCli(['explain', 'old/db', '--root', root]);
  t.equal(code, 0);
  t.match(out, 'old/db is not a node of this cluster now');
  t.match(out, 'old/db was removed');
});

t.test('events prints the trail, as lines for people or one object a line', async (t) => {
  const { root, fake } = await daemon(t, { 'GET /v1/audit': { json: { entries: STORY } } });
  const { code, out } = await runCli(['events', '--limit', '3', '--root', root]);
  t.equal(code, 0);
  t.match(out, '  haproxy: reconcile failed [failed]\n', 'the program is named once');
  t.match(out, '      wanted haproxy.cfg: rewritten\n');
  const narrow = await runCli(['events', '--limit', '3', '--root', root], { columns: 50 });
  for (const line of narrow.out.split('\n')) t.ok(line.length <= 50, line);
  t.match(fake.asked[0]?.path, 'limit=3');
  const json = await runCli(['events', '--json', '--since', '8', '--root', root]);
  t.same(
    json.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).id),
    [9],
  );
});

t.test('events can be narrowed to a time, a node, and what failed', async (t) => {
  const at = (agoMs: number) => new Date(Date.now() - agoMs).toISOString();
  const entries = [
    entry({ id: 1, at: at(7_200_000), subjects: ['db2/db'], result: 'failed' }),
    entry({ id: 2, at: at(60_000), subjects: ['db20/db'], result: 'failed' }),
    entry({ id: 3, at: at(60_000), subjects: ['db2/db'], result: 'ok' }),
    entry({ id: 4, at: at(1000), subjects: ['app1/app', 'db2/db'], result: 'held' }),
    entry({ id: 5, at: at(1000), subjects: [], result: 'rolled-back' }),
  ];
  const { root, fake } = await daemon(t, { 'GET /v1/audit': { json: { entries } } });
  const ids = async (...args: string[]) =>
    (await runCli(['events', '--json', '--root', root, ...args])).out
      .split('\n')
      .flatMap((line) => (line === '' ? [] : [JSON.parse(line).id as number]));
  t.same(await ids('--since', '1h'), [2, 3, 4, 5]);
  t.same(await ids('--since', '3'), [4, 5]);
  t.same(await ids('--node', 'db2'), [1, 3, 4], 'a host whose name only begins so is another one');
  t.same(await ids('--node', 'db2/db', '--since', '1h'), [3, 4]);
  t.same(await ids('--failed'), [1, 2, 4, 5]);
  t.same(await ids('--failed', '--node', 'db2', '--since', '1h', '--limit', '1'), [4]);
  t.match(fake.asked.at(-1)?.path, 'limit=2000', 'what is asked for may be far back');
  const wrong = await runCli(['events', '--since', 'yesterday', '--root', root]);
  t.match(wrong, { code: 2, err: /It must be a time like 90s/ });
});

t.test('events --cluster merges all trails by time, and shows equal entries once', async (t) => {
  const at = (second: number) => new Date(1_800_000_000_000 + second * 1000).toISOString();
  const dead = { summary: 'db2/db is dead', subjects: ['db2/db'] };
  const trails = [
    {
      node: 'app1/app',
      entries: [
        entry({ id: 1, at: at(10), ...dead }),
        entry({ id: 2, at: at(12), summary: 'haproxy: out', kind: 'change' }),
        entry({ id: 3, at: at(13), ...dead }),
      ],
      missing: '',
    },
    {
      node: 'app2/app',
      // Its own entries stay in their order, though its clock was set back.
      entries: [entry({ id: 40, at: at(11), ...dead }), entry({ id: 41, at: at(99), ...dead })],
      missing: '',
    },
    { node: 'db1/db', entries: [entry({ id: 7, at: at(1), ...dead })], missing: '' },
    { node: 'db2/db', entries: [], missing: 'it is dead' },
  ];
  const { root, fake } = await daemon(t, { 'GET /v1/cluster/audit': { json: { trails } } });
  const argv = ['events', '--cluster', '--root', root];
  const { code, out, err } = await runCli([...argv, '--json']);
  t.equal(code, 0);
  const lines = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { id: number; node: string; also: string[] });
  t.same(
    lines.map(({ id, node, also }) => [id, node, ...also]),
    [
      [7, 'db1/db'],
      [1, 'app1/app', 'app2/app'],
      [2, 'app1/app'],
      [3, 'app1/app'],
      [41, 'app2/app'],
    ],
    'the same within five seconds, and of each node once',
  );
  t.same(JSON.parse(err), { node: 'db2/db', missing: 'it is dead' });
  const told = await runCli(argv);
  t.match(told.out, /db2\/db is dead\n {6}on app1\/app, app2\/app\n/);
  t.match(told.err, /^without db2\/db: it is dead\n$/);
  const last = (await runCli([...argv, '--json', '--limit', '2'])).out.trim().split('\n');
  t.equal(last.length, 2);
  await runCli([...argv, '--since', '1h', '--node', 'db2', '--failed']);
  const query = new URLSearchParams(fake.asked.at(-1)?.path.split('?')[1]);
  t.match(Object.fromEntries(query), { node: 'db2', failed: '1', limit: '50' });
  t.ok(Math.abs(Date.now() - 3_600_000 - Number(query.get('since_ms'))) < 60_000, 'an hour ago');
  for (const bad of [['--follow'], ['--since', '7']])
    t.match(await runCli([...argv, ...bad]), { code: 2, err: /--cluster cannot be combined with that/ });
});

t.test('ping reports faults on the way to a node, and ends with 1 then', async (t) => {
  const open = (port: number, what: string) => ({ port, what, open: true, detail: '' });
  const well = {
    name: 'app2/app',
    address: '10.0.0.12',
    state: 'alive',
    version: '0.1.0',
    roundTripMs: { least: 0.31, median: 0.42, most: 12.4 },
    clockAheadMs: -40,
    clockSureToMs: 1,
    large: { bytes: 16_384, there: true, back: true },
    portsThere: [open(4101, 'daemon'), open(8443, 'edge')],
    portsBack: [open(4101, 'daemon'), open(8443, 'edge')],
    problem: '',
  };
  let nodes: readonly object[] = [well];
  const { root, fake } = await daemon(t, {
    ...members,
    'POST /v1/ping': () => ({ json: { self: 'app1/app', nodes } }),
  });
  const good = await runCli(['ping', 'app2', '--root', root], { host: fakeHost({}) });
  t.match(good, { code: 0, err: '' });
  t.same(fake.asked.at(-1)?.body, { node: 'app2/app' });
  t.match(good.out, /^app2\/app at 10\.0\.0\.12, alive: well\n/);
  t.match(good.out, /round trip +0\.4 ms \(0\.3 ms to 12 ms\)/);
  t.match(good.out, /clock +40 ms behind, ± 1 ms/);
  t.match(good.out, /large +a message of 16384 bytes arrives there, arrives back/);
  t.match(good.out, /ports there +4101 daemon open, 8443 edge open/);
  const closed = { port: 8443, what: 'edge', open: false, detail: 'connection refused' };
  const table: readonly (readonly [string, object, RegExp])[] = [
    ['its clock', { clockAheadMs: 3_600_000 }, /its clock is 1 h ahead/],
    ['a port there', { portsThere: [closed] }, /port 8443 \(edge\) there: connection refused/],
    ['a port back', { portsBack: [closed] }, /port 8443 \(edge\) back: connection refused/],
    ['long packets there', { large: { bytes: 16_384, there: false, back: true } }, /does not arrive there/],
    ['long packets back', { large: { bytes: 16_384, there: true, back: false } }, /does not come back/],
    ['no answer', { problem: 'nothing listens there', portsBack: undefined }, /nothing listens there/],
  ];
  for (const [what, more, words] of table) {
    nodes = [well, { ...well, name: 'db2/db', ...more }];
    const { code, out, err } = await runCli(['ping', '--root', root], { host: fakeHost({}) });
    t.equal(code, 1, what);
    t.match(out, words, what);
    t.match(err, /^bornemisza: db2\/db: /, what);
    t.match(err, words, what);
    const json = await runCli(['ping', '--json', '--root', root], { host: fakeHost({}) });
    t.match(JSON.parse(json.out).nodes, [{ wrong: [] }, { wrong: [words] }], what);
  }
  nodes = [{ ...well, clockAheadMs: 2500, clockSureToMs: 800 }];
  t.equal((await runCli(['ping', '--root', root], { host: fakeHost({}) })).code, 0, 'not sure is not wrong');
  nodes = [];
  t.match(await runCli(['ping', '--root', root], { host: fakeHost({}) }), {
    code: 0,
    out: 'there is no other node\n',
  });
});

t.test(
  'services are listed over all members; on an unreachable member they are neither up nor down',
  async (t) => {
    const { root } = await daemon(t, members);
    const { out } = await runCli(['services', '--json', '--root', root]);
    t.same(JSON.parse(out).services, [
      { name: 'couchdb', up: [], down: [], unheard: ['db2/db'] },
      { name: 'haproxy', up: ['app1/app', 'app2/app', 'both/app', 'both/db'], down: [], unheard: ['db2/db'] },
    ]);
    t.match((await runCli(['services', '--root', root])).out, /haproxy +- +db2\/db +app1\/app, app2\/app/);
  },
);

t.test(
  'members end with a summary; --wide has the rest; the health of a dead one is its last report',
  async (t) => {
    const inDays = (days: number) => new Date(Date.now() + days * 86_400_000 + 60_000).toISOString();
    const ends: Readonly<Record<string, string>> = {
      'app1/app': inDays(44),
      'app2/app': inDays(0),
      'both/app': inDays(-1),
      'both/db': '',
      'db2/db': inDays(1),
    };
    const rows = MEMBERS.map((each) => ({
      ...each,
      certificateNotAfter: ends[each.name] ?? '',
      version: each.name === 'db2/db' ? '0.0.9' : each.version,
      tags: each.name === 'both/app' ? { floating: 'exported' } : each.tags,
    }));
    const { root } = await daemon(t, { 'GET /v1/members': { json: { self: 'app1/app', members: rows } } });
    const { out } = await runCli(['members', '--root', root]);
    t.match(
      out,
      /3 app: 2 in traffic; 2 db: 1 in traffic, 1 dead; authority: app1\/app; versions 0\.0\.9,\s0\.1\.0\n/,
    );
    t.match(out, /db2\/db .* was up/);
    for (const columns of [60, 100, 160]) {
      const wide = (await runCli(['members', '--wide', '--root', root], { columns })).out;
      t.match(wide, /EDGE +SERVICES +AUTHORITY +VERSION +CERT +WHY/, `${columns}`);
      t.match(wide, /app1\/app \* .* in +up +1 up +yes +0\.1\.0 +44 d/);
      t.match(wide, /app2\/app .* drain +up +1 up +- +0\.1\.0 +<1 d +in maintenance/);
      t.match(wide, /both\/app .* in +exported +1 up +- +0\.1\.0 +ended/);
      t.match(wide, /both\/db .* in +- +1 up +- +0\.1\.0 +-/);
      t.match(wide, /db2\/db .* out +- +was couchdb down +- +0\.0\.9 +1 d +dead/);
      t.notMatch(wide, '--wide');
    }
  },
);

t.test('members --watch repeats, even over a restart of the daemon, until its reader ends', async (t) => {
  const gone = refusal('starting', 'the daemon starts', 'wait');
  let asked = 0;
  const { root } = await daemon(t, {
    'GET /v1/members': () => {
      asked += 1;
      return asked === 2 ? { json: gone, status: 409 } : { json: { self: 'app1/app', members: MEMBERS } };
    },
  });
  const watched = ['members', '--watch', '1s', '--root', root];
  let frames = 0;
  const reader = { gone: () => frames >= 3, onOut: () => void (frames += 1) };
  const screen = await runCli(watched, { ...reader, terminal: true });
  t.equal(screen.code, 0);
  const shown = screen.out.split('\u001B[H\u001B[J').slice(1);
  t.equal(shown.length, 3);
  t.match(shown[0], /every 1 s; Ctrl-C ends it\nNODE/);
  t.match(shown[1], /the daemon starts\n {2}next: wait/);
  t.match(shown[2], /db2\/db/);
  frames = 0;
  asked = 0;
  const lines = (await runCli([...watched, '--json'], reader)).out.trim().split('\n');
  t.match(
    lines.map((line) => JSON.parse(line)),
    [{ self: 'app1/app' }, gone, { self: 'app1/app' }],
  );
  t.match(await runCli(['members', '--watch', 'often', '--root', root]), { code: 2 });
});

t.test('guards list shows what is held, and remove --dead what it costs', async (t) => {
  const { root, fake } = await daemon(t, {
    ...members,
    'GET /v1/status': { json: status() },
    'POST /v1/remove': { json: { done: true, message: 'removed' } },
  });
  t.match(
    (await runCli(['guards', 'list', '--root', root])).out,
    /db2\/db, db3\/db vanished .* -- .*guards release/,
  );
  const json = JSON.parse((await runCli(['guards', 'list', '--json', '--root', root])).out) as {
    held: { code: string; subjects: string[] }[];
  };
  t.match(json.held, [{ code: 'landslide', subjects: ['db2/db', 'db3/db'] }]);
  const script = await runCli(['remove', 'db2', '--dead', '--root', root]);
  t.match(script, {
    code: 0,
    err: /copies of the data are lost for good; 1 of 1 other db nodes are reachable/,
  });
  t.match(await runCli(['remove', 'both/db', '--dead', '--root', root]), { err: /It RUNS now/ });
  const removed = fake.asked.filter(({ path }) => path === '/v1/remove').length;
  const typed = await runCli(['remove', 'db2', '--dead', '--root', root], {
    terminal: true,
    answers: ['db1/db'],
  });
  t.match(typed, { code: 2, err: /db2\/db was not removed/ });
  t.equal(
    fake.asked.filter(({ path }) => path === '/v1/remove').length,
    removed,
    'and the daemon is not asked',
  );
  t.match(await runCli(['remove', 'db2', '--dead', '--root', root], { answers: ['db2/db'] }), { code: 0 });
});

t.test(
  'events --follow continues after the last entry, shows none twice, and reports the daemon’s end',
  async (t) => {
    const { root, fake } = await daemon(t, {
      'GET /v1/audit': { json: { entries: STORY } },
      'GET /v1/events': { lines: [STORY[2], entry({ id: 10, summary: 'db2/db is back' })] },
    });
    const { code, out, err } = await runCli(['events', '--follow', '--root', root]);
    t.match(fake.asked[1]?.path, 'follow=1&since=9');
    t.equal(out.split('haproxy: reconcile failed').length, 2);
    t.match(out, 'db2/db is back');
    t.equal(code, 3);
    t.match(err, 'ended the stream of events');
  },
);

t.test('remove --dead on a node that is no authority asks nothing that cannot help', async (t) => {
  const rows = MEMBERS.map((each) => ({ ...each, authority: each.name === 'db2/db' }));
  const no = refusal('not-authority', 'app1/app is no authority', 'run this on db2/db');
  const { root } = await daemon(t, {
    'GET /v1/members': { json: { self: 'app1/app', members: rows } },
    'POST /v1/remove': { json: no, status: 409 },
  });
  const argv = ['remove', 'both/db', '--dead', '--root', root];
  const { code, err } = await runCli(argv, { answers: ['both/db'] });
  t.equal(code, 1);
  t.equal(
    err,
    'bornemisza: app1/app is no authority\n  next: run this on db2/db\n',
    'and no question before',
  );
});

t.test('maintenance, guards release and remove post their arguments and print the answer', async (t) => {
  const done: Answer = { json: { done: true, message: 'as you wish' } };
  const { root, fake } = await daemon(t, {
    ...members,
    'POST /v1/maintenance': done,
    'POST /v1/guards/release': done,
    'POST /v1/remove': done,
  });
  const table: readonly (readonly [string[], string, unknown])[] = [
    [['maintenance', 'on'], '/v1/maintenance', { on: true, force: false }],
    [['maintenance', 'off', '--force'], '/v1/maintenance', { on: false, force: true }],
    [['guards', 'release'], '/v1/guards/release', {}],
    [['remove', 'db2', '--dead'], '/v1/remove', { node: 'db2/db', dead: true, force: false }],
  ];
  for (const [argv, path, body] of table) {
    const { code, out } = await runCli([...argv, '--root', root]);
    t.equal(code, 0, argv.join(' '));
    t.equal(out, 'as you wish\n');
    t.match(fake.asked.at(-1), { method: 'POST', path });
    t.same(fake.asked.at(-1)?.body, body);
  }
  t.same(JSON.parse((await runCli(['maintenance', 'on', '--json', '--root', root])).out), {
    done: true,
    message: 'as you wish',
  });
  t.equal((await runCli(['remove', 'db3', '--root', root])).code, 1, 'an unknown node is not asked for');
  t.not(fake.asked.at(-1)?.path, '/v1/remove');
});

t.test('of two machines with one name the PeerId names the one to remove', async (t) => {
  const [first, second] = ['12D3KooWfirst', '12D3KooWsecond'] as const;
  const rows = [
    member({ name: 'app1/app', self: true, authority: true }),
    member({ name: 'app5/app', peerId: first, address: '10.0.0.15' }),
    member({ name: 'app5/app', peerId: second, address: '10.0.0.16', rotation: 'out' }),
  ];
  const { root, fake } = await daemon(t, {
    'GET /v1/members': { json: { self: 'app1/app', members: rows } },
    'POST /v1/remove': { json: { done: true, message: 'removed' } },
  });
  for (const wanted of ['app5/app', 'app5']) {
    const { code, err } = await runCli(['remove', wanted, '--root', root]);
    t.equal(code, 2);
    t.match(err, /2 machines were admitted as app5\/app: \S+first at .*; \S+second at .*\n.*name the PeerId/);
  }
  for (const wanted of [second, '10.0.0.16']) {
    t.match(await runCli(['remove', wanted, '--root', root]), { code: 0 }, wanted);
    t.match(fake.asked.at(-1)?.body, { node: second });
  }
});

const through = (requests: number, more = {}) => ({
  running: true,
  frontends: [{ name: 'edge', connections: 4, requests }],
  old: { processes: 0, connections: 0, requests: 0 },
  servers: [],
  requests,
  summary: `4 connections, ${requests} open requests`,
  ...more,
});
const settled = status({ plugins: [], announcing: false, announcingWhy: 'in maintenance' });

t.test('maintenance on --wait shows the open requests, and ends with the last of them', async (t) => {
  const left = [3, 3, 1, 0, 0];
  let looks = 0;
  const answers: Answers = {
    'POST /v1/maintenance': { json: { done: true, message: 'out of rotation' } },
    'GET /v1/status': () => ({ json: looks === 0 ? { ...settled, announcing: true } : settled }),
    'GET /v1/traffic': () => ({ json: through(left[Math.min(looks++, left.length - 1)] ?? 0) }),
  };
  const { root, fake } = await daemon(t, answers);
  const { code, out } = await runCli(['maintenance', 'on', '--wait', '--root', root]);
  t.equal(code, 0);
  t.same(out.trim().split('\n'), [
    'out of rotation',
    'draining: the floating IPs are still announced; 4 connections, 3 open requests',
    'draining: 4 connections, 3 open requests',
    'draining: 4 connections, 1 open requests',
    'draining: 4 connections, 0 open requests',
    'drained: 4 connections, 0 open requests',
  ]);
  t.equal(fake.asked.filter(({ path }) => path === '/v1/traffic').length, 5, 'quiet at two looks in a row');

  looks = 3;
  const json = await runCli(['maintenance', 'on', '--wait', '--json', '--root', root]);
  const lines = json.out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  t.match(lines, [{ done: true }, { drained: false, traffic: { requests: 0 } }, { drained: true }]);
});

t.test(
  'what lasts is ended in the second half of the wait, and nothing while the node may get more',
  async (t) => {
    const answers: Answers = {
      'POST /v1/maintenance': { json: { done: true, message: 'out of rotation' } },
      'GET /v1/status': { json: settled },
      'GET /v1/traffic': { json: through(2) },
      'POST /v1/traffic/end': { json: { ended: 1 } },
    };
    const argv = ['maintenance', 'on', '--wait', '--timeout', '4s', '--root'];
    const { root, fake } = await daemon(t, answers);
    await runCli([...argv, root]);
    const paths = fake.asked.map(({ path }) => path);
    const looks = paths
      .slice(0, paths.indexOf('/v1/traffic/end'))
      .filter((path) => path === '/v1/traffic').length;
    t.ok(looks >= 2, `not before half of the time: ${looks} looks`);
    const shares = fake.asked.flatMap(({ path, body }) =>
      path === '/v1/traffic/end' ? [(body as { share: number }).share] : [],
    );
    t.ok(shares.length > 0 && shares.at(-1) === 1, `the last one asks for all: ${shares.join(' ')}`);
    const { root: other, fake: announced } = await daemon(t, {
      ...answers,
      'GET /v1/status': { json: { ...settled, announcing: true } },
    });
    await runCli([...argv.with(4, '2s'), other]);
    t.notOk(announced.asked.some(({ path }) => path === '/v1/traffic/end'));
  },
);

t.test(
  'what is not drained in time ends with 1 and what is left; a HAProxy that works is not done',
  async (t) => {
    const { root } = await daemon(t, {
      'POST /v1/maintenance': { json: { done: true, message: 'out of rotation' } },
      'GET /v1/status': { json: settled },
      'GET /v1/traffic': { json: through(2) },
      'POST /v1/traffic/end': { json: { ended: 1 } },
    });
    const late = await runCli(['maintenance', 'on', '--wait', '--timeout', '1s', '--root', root]);
    t.equal(late.code, 1);
    t.match(late.err, /not drained within 1 s: 4 connections, 2 open requests\n  next: .*--timeout 15m/);
    const { root: working } = await daemon(t, {
      'POST /v1/maintenance': { json: { done: true, message: 'out of rotation' } },
      'GET /v1/status': { json: status({ announcing: false }) },
      'GET /v1/traffic': { json: through(0) },
    });
    const failing = await runCli(['maintenance', 'on', '--wait', '--timeout', '1s', '--root', working]);
    t.match(failing, {
      code: 1,
      err: /not drained within 1 s: bird is failing; 4 connections, 0 open requests/,
    });
    const silent = {
      json: refusal('haproxy-silent', 'no answer from HAProxy', 'see its journal'),
      status: 500,
    };
    let asked = 0;
    const { root: busy } = await daemon(t, {
      'POST /v1/maintenance': { json: { done: true, message: 'out of rotation' } },
      'GET /v1/status': { json: settled },
      'GET /v1/traffic': () => ((asked += 1) === 2 ? silent : { json: through(0) }),
    });
    const waited = await runCli(['maintenance', 'on', '--wait', '--root', busy]);
    t.match(waited, { code: 0, out: /: HAProxy did not answer in time\n[^]*\ndrained: 4 connections, 0/ });
  },
);

t.test(
  'maintenance of another machine prints the command to run there; a name of this one is this one',
  async (t) => {
    const done: Answer = { json: { done: true, message: 'out of rotation' } };
    const { root, fake } = await daemon(t, { ...members, 'POST /v1/maintenance': done });
    for (const [argv, next] of [
      [['on', 'db2'], 'ssh 10.0.0.22 sudo bornemisza maintenance on --wait --role db'],
      [['off', 'app2/app'], 'ssh 10.0.0.12 sudo bornemisza maintenance off --role app'],
    ] as const) {
      const { code, err } = await runCli(['maintenance', ...argv, '--root', root]);
      t.equal(code, 2);
      t.match(err, `next: ${next}\n`);
    }
    t.notOk(
      fake.asked.some(({ method }) => method === 'POST'),
      'nothing was changed',
    );
    t.match(await runCli(['maintenance', 'on', 'app1', '--root', root]), {
      code: 0,
      out: 'out of rotation\n',
    });
    t.match(await runCli(['maintenance', 'on', 'app9', '--root', root]), {
      code: 1,
      err: /there is no node app9/,
    });
  },
);

const onScreen: Answers = {
  ...members,
  'GET /v1/status': { json: status() },
  'GET /v1/traffic': {
    json: through(1, {
      servers: [
        { server: 'svc_web-shop/app1', status: 'UP', sessions: 1 },
        { server: 'svc_web-shop/app2', status: 'MAINT', sessions: 0 },
        { server: 'db_nodes/db2', status: 'DOWN', sessions: 0 },
      ],
    }),
  },
  'GET /v1/audit': { json: { entries: STORY } },
};

t.test('top puts members, servers, programs, what is wrong and what happened on one screen', async (t) => {
  const { root } = await daemon(t, onScreen);
  const { code, out, err } = await runCli(['top', '--once', '--root', root], { columns: 80 });
  t.equal(code, 0, err);
  for (const part of [
    /^Bornemisza {2}cluster shop, app1\/app up, running for 1 h, version 0\.1\.0$/m,
    /^4 connections, 1 open requests$/m,
    /^203\.0\.113\.10 {2}not announced: BIRD is not running$/m,
    /^db2\/db +10\.0\.0\.22 +dead +up +out +dead, and HAProxy/m,
    /^svc_web-shop {2}app1 UP {2}app2 MAINT$/m,
    /^db_nodes {2}db2 DOWN$/m,
    /^keeps {2}haproxy converged {2}bird failing$/m,
    /^held: db2\/db, db3\/db vanished/m,
    /^17:01:04 haproxy: took db2 out of db_nodes$/m,
  ])
    t.match(out, part);
  t.same(
    out.split('\n').filter((line) => [...line].length > 80),
    [],
  );
  const json = JSON.parse((await runCli(['top', '--once', '--json', '--root', root])).out) as object;
  t.same(Object.keys(json), ['status', 'members', 'traffic', 'events']);
});

t.test('top fits a terminal of 80×24, and q gives the terminal back', async (t) => {
  const { root } = await daemon(t, onScreen);
  const { code, out } = await runCli(['top', '--root', root], {
    terminal: true,
    columns: 80,
    rows: 24,
    keys: ['x', 'q'],
  });
  t.equal(code, 0);
  t.ok(out.startsWith('\u001B[?1049h\u001B[?25l'), 'a page of its own');
  t.ok(out.endsWith('\u001B[?25h\u001B[?1049l'), 'and back');
  const lines = stripVTControlCharacters(out.split('\u001B[H')[1] ?? '').split('\n');
  t.ok(lines.length <= 24, `${lines.length} lines`);
  t.match(lines.at(-1), /^q quit/);
  t.match(lines[0], /^Bornemisza {2}cluster shop/);

  const gone = await runCli(['top', '--root', await place(t)], { terminal: true, rows: 24, keys: ['q'] });
  t.match(
    gone.out,
    /is not part of a cluster yet|is not running/,
    'a daemon that does not answer ends nothing',
  );
});

t.test('leave passes on how long open requests may take', async (t) => {
  const { root, fake } = await daemon(t, { 'POST /v1/leave': { lines: DONE_LEAVING } });
  await runCli(['leave', '--timeout', '5m', '--root', root]);
  t.same(fake.asked.at(-1)?.body, { force: false, drainMs: 300_000 });
});

t.test('leave prints each step, and fails when the daemon ends before it had left', async (t) => {
  const { root } = await daemon(t, { 'POST /v1/leave': { lines: DONE_LEAVING } });
  const { code, out } = await runCli(['leave', '--root', root]);
  t.equal(code, 0);
  t.match(out, /drained[\s\S]*withdrawn[\s\S]*can be deleted/);
  const json = await runCli(['leave', '--json', '--root', root]);
  t.same(JSON.parse(json.out.trim().split('\n').at(-1) ?? ''), DONE_LEAVING[2]);

  const { root: halfway } = await daemon(t, { 'POST /v1/leave': { lines: DONE_LEAVING.slice(0, 1) } });
  const cut = await runCli(['leave', '--root', halfway]);
  t.equal(cut.code, 1);
  t.match(cut.err, 'ended before the leave was complete');
});

t.test('notify test prints how each way went, and fails when one failed', async (t) => {
  const mail = { message: 'sent by mail (ops@example.com through localhost:25)' };
  const hook = refusal('notify-webhook-refused', 'the webhook at https://h answers 404', 'make a new one');
  const failed = { message: 'webhook (https://h) failed', ...hook };
  const bad = refusal('notify-test-failed', '1 of 2 channels failed', 'test again');
  const { root, fake } = await daemon(t, {
    'POST /v1/notify/test': { lines: [mail, { done: true, message: 'sent by every channel' }] },
  });
  const well = await runCli(['notify', 'test', '--root', root]);
  t.equal(well.code, 0);
  t.equal(well.out, `${mail.message}\nsent by every channel\n`);
  t.same(fake.asked[0]?.body, {});

  const lines = [mail, failed, { message: 'x', ...bad }];
  const { root: half } = await daemon(t, { 'POST /v1/notify/test': { lines } });
  const { code, out, err } = await runCli(['notify', 'test', '--root', half]);
  t.equal(code, 1);
  t.equal(out, `${mail.message}\n${failed.message}\n  next: make a new one\n`);
  t.equal(err, 'bornemisza: 1 of 2 channels failed\n  next: test again\n');
  const json = await runCli(['notify', 'test', '--json', '--root', half]);
  t.same(
    json.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown),
    [mail, failed],
  );
  t.same(JSON.parse(json.err), bad);

  const { root: cut } = await daemon(t, { 'POST /v1/notify/test': { lines: [mail] } });
  t.match((await runCli(['notify', 'test', '--root', cut])).err, 'ended before every channel was tried');
});

t.test('a guard that refuses gives exit code 5, over HTTP and in the midst of a stream', async (t) => {
  const no = refusal('guard-last-of-role', 'db2/db is the last of its role', 'bornemisza leave --force');
  const { root } = await daemon(t, {
    'POST /v1/maintenance': { json: no, status: 409 },
    'POST /v1/leave': { lines: [{ message: 'looking' }, { message: 'refused', ...no }] },
  });
  for (const argv of [['maintenance', 'on'], ['leave']]) {
    const { code, err } = await runCli([...argv, '--root', root]);
    t.equal(code, 5);
    t.equal(err, 'bornemisza: db2/db is the last of its role\n  next: bornemisza leave --force\n');
  }
  const json = await runCli(['leave', '--json', '--root', root]);
  t.same(JSON.parse(json.err), no);
});

t.test('token create prints the token alone on standard output', async (t) => {
  const answer = {
    token: 'bm1.secret.check',
    role: 'db',
    expiresAt: '2026-11-22T18:00:00.000Z',
    listen: '10.0.0.11:4102',
  };
  const { root, fake } = await daemon(t, { 'POST /v1/tokens': { json: answer } });
  const { code, out, err } = await runCli([
    'token',
    'create',
    '--role',
    'db',
    '--ttl',
    '15m',
    '--root',
    root,
  ]);
  t.equal(code, 0);
  t.equal(out, 'bm1.secret.check\n');
  t.match(err, 'sudo bornemisza join -');
  t.notMatch(err, 'secret');
  t.same(fake.asked[0]?.body, { role: 'db', ttlMs: 900_000 });
  t.same(
    JSON.parse((await runCli(['token', 'create', '--role', 'db', '--json', '--root', root])).out),
    answer,
  );
  t.same(fake.asked[1]?.body, { role: 'db', ttlMs: 3_600_000 });
});

t.test('token create asks the other role’s daemon when the first is no authority', async (t) => {
  const no: Answer = {
    json: refusal('not-authority', 'this node signs nothing', 'ask an authority'),
    status: 409,
  };
  const { root, fake: app } = await daemon(t, {
    'POST /v1/tokens': { json: { token: 'bm1.x.y', role: 'db', expiresAt: '', listen: '' } },
  });
  const { fake: db } = await daemon(t, { 'POST /v1/tokens': no }, 'db', root);
  t.equal((await runCli(['token', 'create', '--role', 'db', '--root', root])).code, 0);
  t.equal(db.asked.length + app.asked.length, 2);
  const { root: alone } = await daemon(t, { 'POST /v1/tokens': no });
  const refused = await runCli(['token', 'create', '--role', 'db', '--root', alone]);
  t.equal(refused.code, 1);
  t.match(refused.err, 'this node signs nothing');
});

t.test('token create --count prints one token a line, and with --json an array', async (t) => {
  const tokens = ['a', 'b'].map((id) => ({
    id: id.repeat(16),
    token: `bm1.${id}.check`,
    role: 'db',
    expiresAt: '2026-11-22T18:00:00.000Z',
    listen: '10.0.0.11:4102',
  }));
  const { root, fake } = await daemon(t, { 'POST /v1/tokens': { json: { tokens } } });
  const create = (...more: string[]) => runCli(['token', 'create', '--role', 'db', ...more, '--root', root]);
  const { code, out, err } = await create('--count', '2');
  t.equal(code, 0);
  t.equal(out, 'bm1.a.check\nbm1.b.check\n');
  t.match(err, /Each of the 2 admits one node of role db/);
  t.same(fake.asked[0]?.body, { role: 'db', ttlMs: 3_600_000, count: 2 });
  t.same(JSON.parse((await create('--count', '2', '--json')).out), tokens);
  for (const count of ['0', '65', '1.5', '-1', 'many', '9999'])
    t.match(await create(`--count=${count}`), { code: 2, err: /from 1 to 64/, out: '' }, count);
  t.equal(fake.asked.length, 2, 'the daemon is asked for what makes sense alone');
});

const rowOf = (id: string, facts: object = {}) => ({
  ...{ id: id.repeat(16), role: 'db', state: 'open', expiresInMs: 1_800_000 },
  ...{ createdAt: '2026-11-22T17:00:00.000Z', expiresAt: '2026-11-22T18:00:00.000Z' },
  ...facts,
});

t.test('token list shows role, state, end and user of each, of every authority that runs here', async (t) => {
  const used = { state: 'used', expiresInMs: 0, usedBy: 'db2/db', usedAt: '2026-11-22T17:30:00.000Z' };
  const { root } = await daemon(t, {
    'GET /v1/tokens': { json: { authority: 'app1/app', tokens: [rowOf('a'), rowOf('b', used)] } },
  });
  const { code, out } = await runCli(['token', 'list', '--root', root]);
  t.equal(code, 0);
  t.match(out, /TOKEN +ROLE +STATE +EXPIRES IN +USED BY/);
  t.match(out, /a{16} +db +open +30 min *\n/);
  t.match(out, /b{16} +db +used +- +db2\/db, 2026/);
  const no: Answer = { json: refusal('not-authority', 'signs nothing', 'ask another'), status: 409 };
  const { fake } = await daemon(t, { 'GET /v1/tokens': no }, 'db', root);
  t.match(
    await runCli(['token', 'list', '--root', root]),
    { code: 0, out },
    'the other role is no authority',
  );
  t.equal(fake.asked.length, 1);
  const json = await runCli(['token', 'list', '--json', '--root', root]);
  t.match(JSON.parse(json.out), { tokens: [{ authority: 'app1/app', state: 'open' }, { usedBy: 'db2/db' }] });

  const { root: both } = await daemon(t, { 'GET /v1/tokens': { json: { authority: 'x/app', tokens: [] } } });
  t.match((await runCli(['token', 'list', '--root', both])).out, /^no tokens; next: .*token create/);
  const db: Answer = { json: { authority: 'x/db', tokens: [rowOf('c')] } };
  await daemon(t, { 'GET /v1/tokens': db }, 'db', both);
  t.match((await runCli(['token', 'list', '--root', both])).out, /AUTHORITY[^]*c{16}.*x\/db/);
  const { root: none } = await daemon(t, { 'GET /v1/tokens': no });
  t.match(await runCli(['token', 'list', '--root', none]), {
    code: 1,
    err: /signs nothing\n {2}next: ask another/,
  });
});

t.test('token revoke takes one id or --all, and finds the authority that made it', async (t) => {
  const no: Answer = { json: refusal('token-unknown', 'made no such token', 'token list'), status: 404 };
  const done: Answer = { json: { done: true, message: 'revoked it', revoked: ['a'.repeat(16)] } };
  const { root, fake: app } = await daemon(t, { 'POST /v1/tokens/revoke': no });
  const revoke = (...more: string[]) => runCli(['token', 'revoke', ...more, '--root', root]);
  const id = 'a'.repeat(16);
  t.match(await revoke(id), { code: 1, err: /made no such token/ });
  const { fake: db } = await daemon(t, { 'POST /v1/tokens/revoke': done }, 'db', root);
  t.match(await revoke(id), { code: 0, out: 'revoked it\n' });
  t.same(db.asked[0]?.body, { id });
  t.same(JSON.parse((await revoke(id, '--json')).out), { revoked: [id] });
  const asked = app.asked.length;
  for (const wrong of [[], [id, '--all'], ['bm1.AAAA.check'], ['A'.repeat(16)], [`${id}0`]])
    t.match(await revoke(...wrong), { code: 2, out: '', err: /token list/ }, wrong.join(' '));
  t.equal(app.asked.length, asked, 'nothing of it reached a daemon');

  const { root: all, fake } = await daemon(t, { 'POST /v1/tokens/revoke': done });
  const empty: Answer = { json: { done: true, message: 'no token is open', revoked: [] } };
  await daemon(t, { 'POST /v1/tokens/revoke': empty }, 'db', all);
  t.match(await runCli(['token', 'revoke', '--all', '--root', all]), { code: 0, out: 'revoked it\n' });
  t.same(fake.asked[0]?.body, { all: true });
});

t.test('a time to live that makes no sense is refused before the daemon is asked', async (t) => {
  const { root, fake } = await daemon(t, {});
  for (const ttl of ['5', '10s', '2d', '-1h', 'soon']) {
    const { code, err } = await runCli(['token', 'create', '--role', 'db', `--ttl=${ttl}`, '--root', root]);
    t.equal(code, 2, ttl);
    t.match(err, 'from 1m to 24h');
  }
  t.equal(fake.asked.length, 0);
  t.equal(parseDuration('1h30m'), 5_400_000);
});

t.test('plan shows changes, and fails when a program cannot be observed', async (t) => {
  const { root } = await daemon(t, {
    'GET /v1/plan': {
      json: {
        plugins: [
          { name: 'haproxy', changes: [{ kind: 'server-state', summary: 'db_nodes/db2: ready → maint' }] },
          { name: 'bird', changes: [] },
        ],
      },
    },
  });
  const { code, out } = await runCli(['plan', '--root', root]);
  t.equal(code, 0);
  t.match(out, /haproxy +server-state +db_nodes\/db2: ready → maint/);
  t.match(out, 'Nothing to change: bird.');

  const { root: broken } = await daemon(t, {
    'GET /v1/plan': {
      json: {
        plugins: [
          {
            name: 'bird',
            changes: [],
            error: { code: 'bird-silent', message: 'BIRD does not answer', next: 'systemctl start bird' },
          },
        ],
      },
    },
  });
  const failed = await runCli(['plan', '--json', '--root', broken]);
  t.equal(failed.code, 1);
  t.match(JSON.parse(failed.out), { plugins: [{ name: 'bird' }] });
  t.match(JSON.parse(failed.err), { error: { code: 'bird-silent' } });
});

t.test('version shows a daemon that still runs an older one', async (t) => {
  const { root } = await daemon(t, { 'GET /v1/status': { json: status({ version: '0.0.9' }) } });
  const { code, out } = await runCli(['version', '--root', root]);
  t.equal(code, 0);
  t.match(out, /^bornemisza \d+\.\d+\.\d+ \(Node\.js v/);
  t.match(out, 'systemctl restart bornemisza@app');
  t.match(JSON.parse((await runCli(['version', '--json', '--root', root])).out), {
    daemons: { app: '0.0.9' },
  });
});

t.test('daemon is handed over with its role', async (t) => {
  const seen: string[][] = [];
  const { code } = await runCli(['daemon', '--role', 'db', '--root', '/x'], {
    startDaemon: async (argv) => void seen.push(argv),
  });
  t.equal(code, 0);
  t.same(seen, [['--role', 'db', '--root', '/x']]);
});

t.test('reload prints what was read; a refusal ends with 1 and the reason', async (t) => {
  const { root } = await daemon(t, {
    'POST /v1/reload': { json: { done: true, message: 'the configuration was read again' } },
  });
  t.match(await runCli(['reload', '--root', root]), { code: 0, out: 'the configuration was read again\n' });
  const no = refusal('config-invalid', 'app.toml: unknown key', 'correct it');
  const bad = await daemon(t, { 'POST /v1/reload': { json: no, status: 409 } });
  t.match(await runCli(['reload', '--root', bad.root]), { code: 1, err: /app\.toml: unknown key/ });
});

t.test('status --check ends with 0, 1 or 2, and wait waits for the given state', async (t) => {
  const well = status({ plugins: [], held: [], warnings: [], counts: { ...status().counts, dead: 0 } });
  const bird = status().plugins.filter(({ name }) => name === 'bird');
  const down = {
    health: 'down',
    checks: [{ ...status().checks[0]!, name: 'couchdb', health: 'down', detail: '503' }],
  } as const;
  const table = [
    ['all is well', {}, 0, 0, 0],
    ['a program fails', { plugins: bird }, 1, 1, 0],
    ['a member is dead', { counts: { ...well.counts, dead: 1 } }, 1, 1, 0],
    ['a guard holds', { held: [HELD] }, 1, 1, 0],
    ['maintenance', { maintenance: true }, 1, 1, 0],
    ['a check that is not required', { checks: [{ ...down.checks[0], required: false }] }, 1, 1, 0],
    ['down', down, 2, 1, 1],
    ['starting', { phase: 'starting' }, 2, 1, 1],
    ['left', { phase: 'left' }, 2, 1, 1],
  ] as const;
  for (const [what, facts, check, healthy, serving] of table) {
    const { root, fake } = await daemon(t, { 'GET /v1/status': { json: { ...well, ...facts } } });
    t.equal((await runCli(['status', '--check', '--root', root])).code, check, what);
    t.equal((await runCli(['status', '--root', root])).code, 0, 'without --check it is 0');
    const wait = (state: string) => runCli(['wait', state, '--timeout', '0s', '--root', root]);
    t.equal((await wait('healthy')).code, healthy, `${what}: healthy`);
    t.equal((await wait('serving')).code, serving, `${what}: serving`);
    await fake.stop();
  }
  const stopped = await place(t, { 'etc/bornemisza/app.toml': '' });
  t.match(await runCli(['wait', 'serving', '--timeout', '1s', '--root', stopped]), {
    code: 1,
    err: /not serving within 1 s: the daemon bornemisza@app is not running/,
  });
});

t.test('wait ends as soon as the node is well', async (t) => {
  let asked = 0;
  const { root } = await daemon(t, {
    'GET /v1/status': () => ({ json: status({ phase: (asked += 1) > 2 ? 'running' : 'starting' }) }),
  });
  t.match(await runCli(['wait', 'serving', '--root', root]), { code: 0, out: 'serving\n' });
  t.equal(asked, 3);
});
