import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { bundleProduct } from '../../scripts/bundle.ts';
import type {
  AuditAnswer,
  MembersAnswer,
  PingAnswer,
  StatusAnswer,
  TokensAnswer,
} from '../../src/daemon/control/api.ts';
import { parseToken } from '../../src/daemon/identity/admission/tokens.ts';
import { runCommand } from '../../src/host/command.ts';
import { run } from '../lab/process.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** The program itself, as processes: what an operator types, with real daemons behind it, on loopback addresses. */
/** Bundled, as it is shipped: the start of each process is then a matter of milliseconds. */
let program: string;
/** Addresses of this process alone, so that the test can run twice at once. */
const net = `127.${64 + (process.pid % 64)}.${(process.pid >> 6) & 255}`;
const LIMIT_MS = 30_000;
const environment = { PATH: process.env['PATH'] ?? '' };

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function start(argv: readonly string[]): ChildProcess {
  return spawnWithUs(process.execPath, [program, ...argv], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: environment,
  });
}

async function bornemisza(argv: readonly string[], stdin = ''): Promise<Ended> {
  const { code, stdout, stderr } = await run([process.execPath, program, ...argv], {
    stdin,
    env: environment,
    timeoutMs: LIMIT_MS,
  });
  return { code, out: stdout, err: stderr };
}

async function place(): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'bm-cli-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));
  return root;
}

t.before(async () => {
  program = join(await place(), 'bornemisza.mjs');
  await bundleProduct(program);
});

/** Starts the daemon of a root and waits until its control socket answers. */
async function daemon(root: string): Promise<ChildProcess> {
  const child = start(['daemon', '--role', 'app', '--root', root]);
  child.stdout?.resume();
  child.stderr?.resume();
  t.teardown(() => void child.kill('SIGKILL'));
  await until(async () => (await bornemisza(['status', '--json', '--root', root])).code === 0, {
    deadlineMs: LIMIT_MS,
    everyMs: 200,
  });
  return child;
}

const json = async <Answer>(argv: readonly string[]): Promise<Answer> =>
  JSON.parse((await bornemisza([...argv, '--json'])).out) as Answer;

/** Two nodes on which no HAProxy runs: down by their own report, and each says so. */
async function askCluster(t: Test, root: string): Promise<void> {
  const at = (...argv: string[]) => bornemisza([...argv, '--root', root]);
  const ping = await at('ping', 'app2', '--json');
  const daemonIsOpen = [{ what: 'daemon', open: true }];
  t.match((JSON.parse(ping.out) as PingAnswer).nodes, [
    { name: 'app2/app', state: 'alive', problem: '', portsThere: daemonIsOpen, portsBack: daemonIsOpen },
  ]);
  t.match(ping, { code: 1, err: /app2\/app: port \d+ [^]*connection refused/ }, 'the edge is closed');

  const merged = (await at('events', '--cluster', '--limit', '500', '--json')).out.trim().split('\n');
  const lines = merged.map((line) => JSON.parse(line) as { node: string; also: string[] });
  t.same([...new Set(lines.flatMap(({ node, also }) => [node, ...also]))].sort(), ['app1/app', 'app2/app']);

  const { services } = await json<{ services: object[] }>(['services', '--root', root]);
  t.match(services, [{ name: 'haproxy', up: [], down: ['app1/app', 'app2/app'], unheard: [] }]);
  t.match(await at('status', '--check'), { code: 2, err: /app1\/app is down: haproxy/ });

  const bundle = join(root, 'bundle.tar.gz');
  const made = await json<{ files: string[] }>(['debug', 'bundle', '--output', bundle, '--root', root]);
  for (const path of ['doctor.json', 'app/status.json', 'app/events.ndjson'])
    t.ok(made.files.includes(path), path);
  const text = (await runCommand('tar', ['-xzOf', bundle], { timeoutMs: LIMIT_MS })).stdout;
  t.ok(text.includes('app1/app') && text.includes('app2/app'), 'names of nodes are no secrets');
}

/**
 * A node that is removed while its daemon does not run: it learns that from whoever refuses it, ends by itself, and its
 * commands name the two ways to go on.
 */
async function removedWhileOff(t: Test, one: string, two: string): Promise<void> {
  const token = (await bornemisza(['token', 'create', '--role', 'app', '--root', one])).out;
  const join3 = ['join', '-', '--host', 'app3', '--private-address', `${net}.3`, '--root', two];
  t.match(await bornemisza(join3, token), { code: 0 });
  const before = await daemon(two);
  const alive = async () => (await json<StatusAnswer>(['status', '--root', one])).counts.alive;
  await until(async () => (await alive()) === 2, { deadlineMs: LIMIT_MS, everyMs: 200 });
  before.kill('SIGKILL');
  await until(async () => (await alive()) === 1, { deadlineMs: LIMIT_MS, everyMs: 200 });
  const removal = await bornemisza(['remove', 'app3', '--dead', '--root', one]);
  t.match(removal, { code: 0, out: /app3\/app was removed: NOT YET by app1\/app/ }, 'no HAProxy runs here');

  const after = start(['daemon', '--role', 'app', '--root', two]);
  t.teardown(() => void after.kill('SIGKILL'));
  let said = '';
  for (const stream of [after.stdout, after.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => (said += text));
  await until(() => after.exitCode !== null, { deadlineMs: LIMIT_MS, what: 'it learns of its removal' });
  t.equal(after.exitCode, 78, 'systemd does not start it again');
  t.match(said, /this node was removed from the cluster.*join --reset - .*leave --wipe --role app/);
  for (const verb of ['status', 'members', 'leave'])
    t.match(
      await bornemisza([verb, '--root', two]),
      { code: 3, err: /no longer a member.*\n.*join --reset -.*leave --wipe --role app/ },
      verb,
    );
}

t.test('from nothing to two nodes and back, by the commands that operators type', async (t) => {
  const [one, two] = [await place(), await place()];
  const init = [
    'init',
    '--role',
    'app',
    '--cluster',
    'shop',
    '--host',
    'app1',
    '--private-address',
    `${net}.1`,
    '--root',
    one,
  ];
  const made = await bornemisza(init);
  t.equal(made.code, 0, made.err);
  t.match(made.out, 'systemctl enable --now bornemisza@app');
  const first = await daemon(one);
  t.match(await bornemisza(init), { code: 1, err: /bornemisza@app runs on this host/ });

  const token = await bornemisza(['token', 'create', '--role', 'app', '--root', one]);
  t.match(token.out, /^bm1\.\S+\n$/);
  const join2 = ['join', '-', '--host', 'app2', '--private-address', `${net}.2`, '--root', two];
  const joined = await bornemisza(join2, token.out);
  t.equal(joined.code, 0, joined.err);
  t.match(await bornemisza(join2, token.out), { code: 1, err: /already/ }, 'a second join is refused');
  const third = await place();
  const used = await bornemisza(
    ['join', '-', '--host', 'app3', '--private-address', `${net}.3`, '--root', third],
    token.out,
  );
  t.equal(used.code, 1, 'a used token admits nobody');
  t.match(used.err, /^bornemisza: .*\n {2}next: .*\n$/);

  const pair = await bornemisza(['token', 'create', '--role', 'app', '--count', '2', '--root', one]);
  const [revoked = '', open = ''] = pair.out.trim().split('\n');
  const tokens = async () => (await json<TokensAnswer>(['token', 'list', '--root', one])).tokens;
  t.match(
    (await tokens()).map(({ state, usedBy }) => `${state} ${usedBy}`),
    ['open undefined', 'open undefined', 'used app2/app'],
  );
  const { id } = parseToken(revoked);
  t.match(await bornemisza(['token', 'revoke', id, '--root', one]), { code: 0, out: /^revoked / });
  const join3 = ['join', '-', '--host', 'app3', '--private-address', `${net}.3`, '--root', await place()];
  t.match(await bornemisza(join3, revoked), { code: 1, err: /token was revoked at its issuer/ });
  t.match(await bornemisza([...join3, '--dry-run'], open), { code: 0, out: /Nothing was written/ });
  t.match(await bornemisza(['token', 'revoke', '--all', '--root', one]), { code: 0 });
  t.match(
    (await tokens()).map(({ state }) => state),
    ['used', 'revoked', 'revoked'],
    'the dry run used nothing up',
  );

  const second = await daemon(two);
  await until(
    async () =>
      (await json<MembersAnswer>(['members', '--root', one])).members.filter((each) => each.state === 'alive')
        .length === 2,
    { deadlineMs: LIMIT_MS },
  );
  t.match((await bornemisza(['members', '--root', two])).out, /app2\/app \*/);
  t.match((await bornemisza(['explain', 'app2', '--root', one])).out, 'app2/app');
  t.match(await bornemisza(['explain', 'app4', '--root', one]), { code: 1, err: /did you mean app[12]/ });
  t.match(await json<StatusAnswer>(['status', '--root', two]), {
    cluster: 'shop',
    name: 'app2/app',
    counts: { alive: 2 },
  });
  t.equal((await bornemisza(['plan', '--root', one])).code !== 3, true);
  t.match((await bornemisza(['doctor', '--root', two])).out, /control socket +ok/);

  await t.test('what is asked of the whole cluster', (t) => askCluster(t, one));

  const following = start(['events', '--follow', '--json', '--root', one]);
  let seen = '';
  following.stdout?.setEncoding('utf8').on('data', (text: string) => (seen += text));
  t.teardown(() => void following.kill('SIGKILL'));
  await until(() => seen.includes('app1/app'), { deadlineMs: LIMIT_MS });

  const left = await bornemisza(['leave', '--force', '--root', two]);
  t.equal(left.code, 0, left.err);
  t.match(left.out, /the machine can be deleted/);
  await until(() => seen.includes('leaving → left'), { deadlineMs: LIMIT_MS });
  t.match(await bornemisza(['remove', 'app2', '--root', one]), { code: 0, out: /removed/ });
  t.match(
    (await bornemisza(['explain', 'app2/app', '--root', one])).out,
    'is not a node of this cluster now',
  );
  t.ok((await json<AuditAnswer>(['explain', 'app2/app', '--root', one])).entries.length > 0);
  await t.test('a node that was removed while it was off learns it, and ends', async (t) =>
    removedWhileOff(t, one, await place()),
  );

  for (const child of [first, second]) {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
  }
  const [code] =
    following.exitCode === null ? ((await once(following, 'exit')) as [number | null]) : [following.exitCode];
  t.equal(code, 3, 'a follower says that the daemon went');
  t.match(await bornemisza(['status', '--root', one]), { code: 3, err: /systemctl start bornemisza@app/ });
  const story = await bornemisza(['events', '--limit', '500', '--root', one]);
  t.match(story, { code: 0, err: /bornemisza@app is not running: this is its trail on the disk/ });
  t.match(story.out, `the token ${id} for one app node was revoked`);
});

t.test('a reader that closes the pipe ends the command without a message', async (t) => {
  const child = start(['--help']);
  let err = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (err += text));
  child.stdout?.destroy();
  const [code] = (await once(child, 'close')) as [number | null];
  t.equal(code, 0);
  t.equal(err, '');
});

t.test('a reader that goes leaves no cluster half made', async (t) => {
  const root = await place();
  const child = start([
    'init',
    '--role',
    'app',
    '--cluster',
    'shop',
    '--host',
    'app1',
    '--private-address',
    `${net}.9`,
    '--root',
    root,
  ]);
  let err = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (err += text));
  // `init … | head -1`: gone after the first line, long before the keys are made.
  child.stdout?.once('data', () => child.stdout?.destroy());
  const [code] = (await once(child, 'close')) as [number | null];
  t.equal(code, 0, err);
  t.equal(err, '');
  const state = join(root, 'var/lib/bornemisza/app');
  t.match(JSON.parse(await readFile(join(state, 'cluster.json'), 'utf8')), { cluster: 'shop' });
  t.match(await readFile(join(root, 'root/bornemisza-recovery-shop.txt'), 'utf8'), 'Passphrase: ');
});

t.test('the static site is served until SIGTERM, and ends well', async (t) => {
  const root = await place();
  await writeFile(join(root, 'index.html'), '<h1>shop</h1>');
  const child = start(['site', '--root', root, '--port', '0']);
  t.teardown(() => void child.kill('SIGKILL'));
  let out = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (out += text));
  const url = await until(() => /http:\S+/.exec(out)?.[0], { deadlineMs: LIMIT_MS });
  t.match(await (await fetch(url)).text(), 'shop');
  child.kill('SIGTERM');
  const [code] = (await once(child, 'exit')) as [number | null];
  t.equal(code, 0);
});

t.test('the help of the daemon is the command’s', async (t) => {
  t.match(await bornemisza(['daemon', '--help']), { code: 0, out: /Usage: bornemisza daemon/ });
});

t.test(
  'the first set-up of BIRD is taken by BIRD itself, with the daemon’s fragment or before it',
  async (t) => {
    const { birdText } = await import('../../src/cli/setup/bird-text.ts');
    const { renderFragment } = await import('../../src/plugins/bird/plan.ts');
    const root = await place();
    const conf = join(root, 'bird.conf');
    const fragments = join(root, 'bornemisza.d');
    await mkdir(fragments);
    const upstream = {
      neighbors: ['169.254.169.254'],
      neighborAs: 64515,
      localAs: 4288000123,
      password: "s3cr'et; }",
      multihop: 2,
    };
    const floatingAddresses = ['203.0.113.10', '203.0.113.11'];
    const judged = () => runCommand('bird', ['-p', '-c', conf], { timeoutMs: 10_000 });
    const write = async (changes: Partial<Parameters<typeof birdText>[0]> = {}): Promise<void> => {
      const facts = { routerId: '203.0.113.7', floatingAddresses, upstream, fragments };
      await writeFile(conf, birdText({ ...facts, liveness: { holdTimeS: 9, bfd: false }, ...changes }));
    };
    const both = { ...upstream, neighbors: ['100.64.64.64', '100.64.64.65'] };
    const liveness = { holdTimeS: 3, bfd: true };
    for (const [what, changes] of [
      ['BFD over several hops, with two neighbours', { upstream: both, liveness }],
      ['BFD on the same link', { upstream: { ...upstream, multihop: undefined }, liveness }],
      ['without BFD', {}],
    ] as const) {
      await write(changes);
      t.match(await judged(), { code: 0, stderr: '' }, what);
    }
    const fragment = renderFragment(
      { device: 'bm-float', addresses: floatingAddresses, mode: 'ranked', rank: 1, announce: true, why: '' },
      upstream.localAs,
    );
    await writeFile(join(fragments, 'bornemisza.conf'), fragment.content);
    t.match(await judged(), { code: 0, stderr: '' });
    t.match(await readFile(conf, 'utf8'), 'hold time 9;');
  },
);
