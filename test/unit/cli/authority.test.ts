import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import t from 'tap';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { initCluster } from '../../../src/daemon/identity/root/init-cluster.ts';
import { loadIdentity } from '../../../src/daemon/identity/identity.ts';
import { until } from '../../support/until.ts';
import { spawnWithUs } from '../../support/with-us.ts';
import { runCli } from './captured-io.ts';
import { FakeDaemon, MEMBERS } from './fake-daemon.ts';
import { place } from './place.ts';

const PASSPHRASE = 'correct-horse-battery';
const first = join(t.testdir(), 'state');
const { recoveryBundle: bundle } = await initCluster({
  cluster: 'shop',
  host: 'app1',
  role: 'app',
  address: '10.0.0.11',
  nowMs: Date.now(),
  passphrase: PASSPHRASE,
  stateDir: first,
});
const written =
  `Recovery bundle of cluster shop, root ab.\nWith it and its passphrase a lost authority can be ` +
  `replaced.\n\nPassphrase: ${PASSPHRASE}\n\n${bundle}`;

/** A member of the cluster that is no authority. */
async function member(test: Parameters<typeof place>[0], files = {}): Promise<string> {
  const root = await place(test, { 'etc/bornemisza/app.toml': '', ...files });
  const { state } = pathsFor('app', root);
  await cp(first, state, { recursive: true });
  await rm(join(state, 'authority'), { recursive: true });
  return root;
}

async function signs(root: string): Promise<boolean> {
  return (await loadIdentity(pathsFor('app', root).state, Date.now())).authority !== undefined;
}

t.test('the bundle and its passphrase make a node an authority, however they are given', async (t) => {
  const ways: [string, string[], string][] = [
    ['standard input, passphrase on the line after it', [], `${bundle}${PASSPHRASE}\n`],
    ['standard input, as init wrote it', ['-'], written],
    ['a file as init wrote it', ['BUNDLE'], ''],
    ['a file, passphrase on standard input', ['BARE'], `${PASSPHRASE}\n`],
    ['a file each', ['BARE', '--passphrase-file', 'PASSPHRASE'], ''],
  ];
  for (const [way, args, stdin] of ways) {
    const root = await member(t, { BUNDLE: written, BARE: bundle, PASSPHRASE: `${PASSPHRASE}\n` });
    t.equal(await signs(root), false);
    const inPlace = args.map((arg) => (/^[A-Z]+$/.test(arg) ? join(root, arg) : arg));
    const { code, out, err } = await runCli(['authority', 'add', ...inPlace, '--root', root], { stdin });
    t.equal(code, 0, `${way}: ${err}`);
    t.match(out, 'app1/app becomes an authority at the next start of its daemon');
    t.equal(await signs(root), true, way);
  }
});

t.test('a running daemon is notified, and gets neither bundle nor passphrase', async (t) => {
  const root = await member(t);
  const done = { done: true, message: 'app1/app is an authority' };
  const fake = await new FakeDaemon(root, 'app', { 'POST /v1/authority/adopt': { json: done } }).start();
  t.teardown(() => fake.stop());
  const { code, out } = await runCli(['authority', 'add', '--root', root], { stdin: written });
  t.equal(code, 0);
  t.match(out, 'app1/app is an authority\n  next: bornemisza authority list');
  t.same(fake.asked, [{ method: 'POST', path: '/v1/authority/adopt', body: {} }]);
  // A daemon that did not hear of it the first time is told again.
  t.equal((await runCli(['authority', 'add', '--root', root], { stdin: written })).code, 0);
  t.equal(fake.asked.length, 2);
});

t.test('missing or wrong input is reported, and nothing is written', async (t) => {
  const root = await member(t);
  const add = (stdin: string) => runCli(['authority', 'add', '--json', '--root', root], { stdin });
  const wrong: [string, string][] = [
    ['', 'recovery-missing'],
    [bundle.slice(0, 500), 'recovery-missing'],
    [bundle, 'passphrase-missing'],
    [`${bundle}not the passphrase\n`, 'recovery-passphrase-wrong'],
    [written.replace(/\n[A-Za-z0-9+/]{40}/, '\n'), 'recovery-malformed'],
  ];
  for (const [stdin, code] of wrong) {
    const result = await add(stdin);
    t.match(JSON.parse(result.err), { error: { code, next: /\w/ } });
    t.notMatch(result.err + result.out, PASSPHRASE);
  }
  t.equal(await signs(root), false);
  const gone = await runCli(['authority', 'add', join(root, 'nothing'), '--root', root]);
  t.match(gone.err, /cannot read .*nothing: ENOENT/);
  t.equal((await add(written)).code, 0);
  t.match(JSON.parse((await add(written)).err), { error: { code: 'already-authority' } });
});

t.test('a host without a node, and a host with two, get the next step', async (t) => {
  const none = await runCli(['authority', 'add', '--root', await place(t)], { stdin: written });
  t.match(none.err, 'this host is not part of a cluster yet');
  const root = await member(t, { 'etc/bornemisza/db.toml': '' });
  const two = await runCli(['authority', 'add', '--root', root], { stdin: written });
  t.equal(two.code, 2);
  t.match(two.err, 'choose one: --role app or --role db');
});

t.test('on a terminal the passphrase is asked for and does not show', async (t) => {
  const root = await member(t);
  const program = resolve(import.meta.dirname, '../../../src/bornemisza.ts');
  const line = `${process.execPath} ${program} authority add - --root ${root}`;
  const child = spawnWithUs('script', ['--quiet', '--return', '--command', line, '/dev/null'], {
    env: { ...process.env, TERM: 'dumb' },
  });
  t.teardown(() => child.kill());
  let shown = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (shown += text));
  const seen = (words: string) =>
    until(() => shown.includes(words), { deadlineMs: 60_000, what: `“${words}” on the terminal` });
  await seen('Paste the recovery bundle');
  child.stdin.write(bundle);
  await seen('Passphrase: ');
  child.stdin.write(`${PASSPHRASE}\n`);
  const code = await new Promise((ended) => child.once('close', ended));
  t.equal(code, 0, shown);
  t.match(shown, 'app1/app becomes an authority at the next start');
  t.notMatch(shown, PASSPHRASE);
  t.equal(await signs(root), true);
});

t.test('authority list names those that may sign', async (t) => {
  const root = await place(t);
  const answer = { json: { self: 'app1/app', members: MEMBERS } };
  const fake = await new FakeDaemon(root, 'app', { 'GET /v1/members': answer }).start();
  t.teardown(() => fake.stop());
  const { code, out } = await runCli(['authority', 'list', '--root', root]);
  t.equal(code, 0);
  t.match(out, /^app1\/app \* +10\.0\.0\.11 +alive/m);
  t.notMatch(out, 'app2/app');
  const json = await runCli(['authority', 'list', '--json', '--root', root]);
  t.match(JSON.parse(json.out), { authorities: [{ name: 'app1/app' }] });
});

t.test('the bundle itself stays as init wrote it', async (t) => {
  const root = await member(t);
  const file = join(root, 'bundle.txt');
  await writeFile(file, written, { mode: 0o600 });
  await runCli(['authority', 'add', file, '--root', root]);
  t.equal(await readFile(file, 'utf8'), written);
  const kept = await readFile(join(pathsFor('app', root).state, 'authority/recovery.bundle'), 'utf8');
  t.equal(kept.trim(), bundle.trim(), 'beside the key lies the bundle, without the passphrase');
});
