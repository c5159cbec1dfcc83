import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { initCluster } from '../../../src/daemon/identity/root/init-cluster.ts';
import { loadIdentity } from '../../../src/daemon/identity/identity.ts';
import { takeRootChange } from '../../../src/daemon/identity/root/rotation.ts';
import { runCli } from './captured-io.ts';
import { FakeDaemon } from './fake-daemon.ts';
import { place } from './place.ts';

const PASSPHRASE = 'correct-horse-battery';
const first = join(t.testdir(), 'state');
const { recoveryBundle: bundle, rootFingerprint } = await initCluster({
  ...{ cluster: 'shop', host: 'app1', role: 'app', address: '10.0.0.11', nowMs: Date.now() },
  passphrase: PASSPHRASE,
  stateDir: first,
});
const old = `Passphrase: ${PASSPHRASE}\n\n${bundle}`;

/** An authority whose daemon does not run. */
async function authority(test: Parameters<typeof place>[0]): Promise<string> {
  const root = await place(test, { 'etc/bornemisza/app.toml': '' });
  await cp(first, pathsFor('app', root).state, { recursive: true });
  return root;
}

const identityIn = (root: string) => loadIdentity(pathsFor('app', root).state, Date.now());
/** What the daemon does at its next start. */
const startedIn = async (root: string) => takeRootChange(await identityIn(root));
const rotate = (root: string, stdin: string, ...args: string[]) =>
  runCli(['authority', 'rotate-root', '-', ...args, '--root', root], { stdin });
const roots = async (root: string) => (await identityIn(root)).trust.roots.map((each) => each.fingerprint);

t.test('two runs replace the root: the first gives out another bundle, the second takes it', async (t) => {
  const root = await authority(t);
  const file = join(root, 'new.txt');
  const begun = await rotate(root, old, '--recovery-file', file);
  t.equal(begun.code, 0, begun.err);
  t.match(begun.out, 'the daemon applies it at its next start');
  t.match(begun.out, 'keep the old one until the old root has ended');
  const given = await readFile(file, 'utf8');
  t.match(
    given,
    /^Recovery bundle of cluster shop, root [0-9a-f]{64}\.\n[^]*\nPassphrase: (\w{5}-){5}\w{5}\n/,
  );
  t.notMatch(begun.out + begun.err, /Passphrase: \w/);
  t.strictSame(await roots(root), [rootFingerprint], 'the command tells nobody itself');
  const again = await rotate(root, old);
  t.match([again.code, again.err], [3, /an earlier run left a change of the root/]);

  await startedIn(root);
  t.equal((await roots(root)).length, 2);
  const early = await rotate(root, given, '--end');
  t.match(
    [early.code, early.err],
    [3, /the daemon does not run, so it is unknown which members use the new root/],
  );
  const wrong = await rotate(root, old, '--end', '--force');
  t.match([wrong.code, wrong.err], [1, /The recovery bundle is of the root .* but that of/]);
  const ended = await rotate(root, given, '--end', '--force');
  t.equal(ended.code, 0, ended.err);
  await startedIn(root);
  t.match(given, (await roots(root)).join());
  const kept = await readFile(join(pathsFor('app', root).state, 'authority/recovery.bundle'), 'utf8');
  t.ok(given.includes(kept.trim()), 'beside the key lies the bundle of now');
  t.equal((await rotate(root, given, '--end', '--force')).code, 1);
});

t.test('the new bundle goes to a file of its own, and one that is there is not written over', async (t) => {
  const root = await authority(t);
  const file = join(root, 'bundle.txt');
  await writeFile(file, old);
  const over = await rotate(root, old, '--recovery-file', file, '--json');
  t.match(JSON.parse(over.err), { error: { code: 'recovery-file-exists', next: /nothing was changed/ } });
  t.equal(await readFile(file, 'utf8'), old);
  const onScreen = await runCli(['authority', 'rotate-root', file, '--root', root], { terminal: true });
  const [, made = ''] =
    /The recovery bundle is in (\S+)\.\n[^]*\nPassphrase: \w+-\S+\n$/.exec(onScreen.out) ?? [];
  t.match(await readFile(made, 'utf8'), /\nPassphrase: \(shown on the terminal\)\n[^]*-----END BORNEMISZA/);
  const json = await authority(t);
  const { recoveryFile } = JSON.parse((await rotate(json, old, '--json')).out);
  t.match(recoveryFile, new RegExp(`^${json}/root/bornemisza-recovery-shop-[0-9a-f]{8}\\.txt$`));
});

t.test('the daemon is notified by an empty request, and names members without the new root', async (t) => {
  const root = await authority(t);
  const done = { done: true, message: 'the root 1 follows 2, and both are valid' };
  let notYet = ['db2/db'];
  const fake = await new FakeDaemon(root, 'app', {
    'POST /v1/authority/root': { json: done },
    'GET /v1/status': () => ({ json: { rootChange: { root: 'abcd', notYet } } }),
  }).start();
  t.teardown(() => fake.stop());
  const file = join(root, 'new.txt');
  t.match((await rotate(root, old, '--recovery-file', file)).out, done.message);
  t.same(fake.asked, [{ method: 'POST', path: '/v1/authority/root', body: {} }]);
  // The daemon of this test took nothing up, as one that was ended in between: it is told again, and no third root is
  // made.
  t.equal((await rotate(root, 'nothing to read')).code, 0);
  t.equal(fake.asked.length, 2);
  await startedIn(root);
  const given = await readFile(file, 'utf8');
  const early = await rotate(root, given, '--end');
  t.match([early.code, early.err], [5, /these members do not use the new root abcd yet: db2\/db/]);
  notYet = [];
  t.equal((await rotate(root, given, '--end')).code, 0);
});

t.test('wrong input is refused before anything is given out', async (t) => {
  const root = await authority(t);
  const file = join(root, 'new.txt');
  for (const [stdin, code] of [
    ['', 'recovery-missing'],
    [`${bundle}not the passphrase\n`, 'recovery-passphrase-wrong'],
  ] as const) {
    const { err } = await rotate(root, stdin, '--json', '--recovery-file', file);
    t.match(JSON.parse(err), { error: { code, next: /\w/ } });
  }
  await rm(join(pathsFor('app', root).state, 'authority'), { recursive: true });
  const { err } = await rotate(root, old, '--json', '--recovery-file', file);
  t.match(JSON.parse(err), { error: { code: 'not-authority' } });
  await t.rejects(readFile(file), { code: 'ENOENT' });
});
