import { chmod, cp, mkdir, readdir, readFile, rm, stat, truncate, unlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import { initCluster, type InitRequest } from '../../../src/daemon/identity/root/init-cluster.ts';
import {
  acceptRenewal,
  answerRenewal,
  becomeAuthority,
  findMember,
  loadIdentity,
  removeMember,
  renewalRequest,
} from '../../../src/daemon/identity/identity.ts';
import { IdentityError } from '../../../src/daemon/identity/errors.ts';
import { openRoot } from '../../../src/daemon/identity/root/recovery.ts';
import {
  beginState,
  fileError,
  resetState,
  stateOf,
  writeStateFile,
} from '../../../src/daemon/identity/state.ts';
import { codeOf, DAY_MS, NOW_MS } from './cluster.ts';

const PASSPHRASE = 'a passphrase for tests';

const founding = {
  cluster: 'prod',
  host: 'db1',
  role: 'db',
  address: '10.0.0.1',
  nowMs: NOW_MS,
  passphrase: PASSPHRASE,
} as const;
const template = join(t.testdir(), 'founded');
const founded = await initCluster({ ...founding, stateDir: template });
/** Another cluster of the same name, on another root. */
const twin = join(template, '..', 'twin');
const twinFounded = await initCluster({ ...founding, stateDir: twin });

/** A copy of a state that was made once: making one takes half a second. */
async function copied(t: Test): Promise<string> {
  const stateDir = join(t.testdir(), 'db');
  await cp(template, stateDir, { recursive: true });
  await chmod(stateDir, 0o700);
  return stateDir;
}

async function filesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

t.test('init makes a cluster of one that the daemon can start from', async (t) => {
  const identity = await loadIdentity(await copied(t), NOW_MS);
  t.match(identity, {
    cluster: 'prod',
    role: 'db',
    host: 'db1',
    name: 'db1/db',
    address: '10.0.0.1',
    founder: true,
    firstOfRole: true,
  });
  t.equal(identity.peerId, founded.peerId);
  t.equal(identity.nodeKey.peerId, founded.peerId);
  t.equal(identity.trust.roots[0]?.fingerprint, founded.rootFingerprint);
  t.equal(identity.authority?.peerId, founded.peerId);
  t.strictSame(
    identity.roster.members().map(({ name }) => name),
    ['db1/db'],
  );
  t.strictSame(identity.roster.authorities(), [founded.peerId]);
  t.equal(identity.secrets.get()?.kind, 'db', 'the first db node made the secrets');
  t.strictSame(identity.warnings, []);
});

t.test('every file is for its owner only, and the root key is not among them', async (t) => {
  const stateDir = await copied(t);
  const root = await openRoot(founded.recoveryBundle, PASSPHRASE);
  const rootKey = root.key.export({ type: 'pkcs8', format: 'pem' }).toString().split('\n')[3] ?? '';
  for (const file of await filesIn(stateDir)) {
    t.equal((await stat(file)).mode & 0o077, 0, file);
    t.notMatch(await readFile(file, 'utf8'), rootKey, file);
    t.notMatch(await readFile(file, 'utf8'), PASSPHRASE, file);
  }
});

t.test('a second init is refused and touches nothing', async (t) => {
  const stateDir = await copied(t);
  const before = await Promise.all((await filesIn(stateDir)).sort().map((file) => readFile(file, 'utf8')));
  t.equal(
    await codeOf(() => initCluster({ ...founding, stateDir, cluster: 'other' })),
    'already-initialised',
  );
  const after = await Promise.all((await filesIn(stateDir)).sort().map((file) => readFile(file, 'utf8')));
  t.strictSame(after, before);
});

t.test('a refused init leaves nothing behind', async (t) => {
  const parent = t.testdir();
  const stateDir = join(parent, 'db');
  const wrong: [Partial<InitRequest>, string][] = [
    [{ host: 'db 1"\n' }, 'host-invalid'],
    [{ cluster: '../etc' }, 'cluster-invalid'],
    [{ address: 'localhost' }, 'address-invalid'],
  ];
  for (const [part, code] of wrong)
    t.equal(await codeOf(() => initCluster({ ...founding, stateDir, ...part })), code);
  t.strictSame(await readdir(parent), []);
});

t.test('an init that stopped half-way is done again, and only its own rests are cleared', async (t) => {
  const stateDir = await copied(t);
  await unlink(join(stateDir, 'cluster.json'));
  await writeFile(join(stateDir, 'unfinished.json'), '{"version":1,"what":"init"}', { mode: 0o600 });
  await writeFile(join(stateDir, 'snapshot.bin'), 'of another room');
  await writeFile(join(stateDir, '.node.key.0123456789ab.tmp'), 'half');
  t.equal(await stateOf(stateDir), 'unfinished');
  t.equal(await codeOf(() => loadIdentity(stateDir, NOW_MS)), 'state-unfinished');
  const again = await initCluster({ ...founding, stateDir });
  t.not(again.peerId, founded.peerId);
  t.equal(await stateOf(stateDir), 'complete');
  t.equal((await loadIdentity(stateDir, NOW_MS)).peerId, again.peerId);
  const names = await readdir(stateDir);
  t.ok(names.includes('snapshot.bin'));
  t.strictSame(
    names.filter((name) => name.endsWith('.tmp') || name === 'unfinished.json'),
    [],
  );
});

t.test('a node that belongs to nothing says what to run', async (t) => {
  const stateDir = join(t.testdir(), 'db');
  t.equal(await stateOf(stateDir), 'empty');
  t.equal(await codeOf(() => loadIdentity(stateDir, NOW_MS)), 'not-initialised');
});

const VITAL = [
  'node.key',
  'tls.key',
  'chain.pem',
  'roots.pem',
  'cluster.json',
  'secrets.json',
  'authority/intermediate.key',
  'authority/intermediate.pem',
];

t.test('a file that was cut in half is named, with what to do, and nothing is lost', async (t) => {
  for (const name of VITAL) {
    const stateDir = await copied(t);
    const file = join(stateDir, name);
    await truncate(file, Math.floor((await stat(file)).size / 2));
    const half = await readFile(file, 'utf8');
    try {
      await loadIdentity(stateDir, NOW_MS);
      t.fail(`${name} was taken`);
    } catch (error) {
      t.match(error, { code: 'state-file-damaged', message: file, next: /\w/ }, name);
    }
    t.equal(await readFile(file, 'utf8'), half);
    await cp(join(template, name), file);
    t.ok(await loadIdentity(stateDir, NOW_MS), 'put back, it starts');
  }
});

t.test('a file that is gone is named', async (t) => {
  for (const name of ['node.key', 'tls.key', 'chain.pem', 'roots.pem', 'authority/intermediate.key']) {
    const stateDir = await copied(t);
    await unlink(join(stateDir, name));
    await t.rejects(
      loadIdentity(stateDir, NOW_MS),
      { code: 'state-file-missing', message: join(stateDir, name) },
      name,
    );
  }
  const stateDir = await copied(t);
  await unlink(join(stateDir, 'cluster.json'));
  t.equal(await codeOf(() => loadIdentity(stateDir, NOW_MS)), 'state-damaged');
  t.equal(
    await codeOf(() => initCluster({ ...founding, stateDir })),
    'state-damaged',
    'and no init writes over the keys',
  );
});

t.test('an authority without its certificate is reported, and its node keeps serving', async (t) => {
  const stateDir = await copied(t);
  await unlink(join(stateDir, 'authority/intermediate.pem'));
  const identity = await loadIdentity(stateDir, NOW_MS);
  t.equal(identity.authority, undefined);
  t.match(identity.warnings, [
    {
      code: 'authority-damaged',
      message: /intermediate\.pem is missing although its key exists/,
      next: /authority add/,
    },
  ]);
  await unlink(join(stateDir, 'authority/intermediate.key'));
  t.strictSame((await loadIdentity(stateDir, NOW_MS)).warnings, [], 'with neither it is no authority');
});

t.test('an authority key with a wrong byte signs well or is refused', async (t) => {
  const stateDir = await copied(t);
  const file = join(stateDir, 'authority/intermediate.key');
  const pem = await readFile(file, 'utf8');
  const [head = '', ...rest] = pem.split('\n');
  const body = rest.slice(
    0,
    rest.findIndex((line) => line.startsWith('-----END')),
  );
  const der = Buffer.from(body.join(''), 'base64');
  let refused = 0;
  for (let at = 30; at < der.length; at += 97) {
    const wrong = Buffer.from(der);
    wrong[at] = (wrong[at] ?? 0) ^ 0x10;
    const lines = wrong.toString('base64').match(/.{1,64}/g) ?? [];
    await writeFile(file, [head, ...lines, ...rest.slice(body.length)].join('\n'));
    const loaded = await loadIdentity(stateDir, NOW_MS).catch((error: unknown) => error);
    if (loaded instanceof IdentityError) {
      t.match(loaded, { code: 'state-file-damaged', message: file }, `byte ${at}`);
      refused += 1;
    } else {
      const { authority, certificate } = loaded as Awaited<ReturnType<typeof loadIdentity>>;
      // OpenSSL makes up for a damaged part of the key that only makes it quicker.
      t.ok(await authority?.signAnew(certificate, NOW_MS), `byte ${at} does no harm`);
    }
  }
  t.ok(refused > 3, `${refused} were refused`);
});

t.test('files of another node do not mix', async (t) => {
  for (const name of [
    'node.key',
    'tls.key',
    'chain.pem',
    'roots.pem',
    'authority/intermediate.key',
    'authority/intermediate.pem',
  ]) {
    const stateDir = await copied(t);
    await cp(join(twin, name), join(stateDir, name));
    t.equal(await codeOf(() => loadIdentity(stateDir, NOW_MS)), 'state-file-damaged', name);
  }
});

t.test('a damaged roster is replaced by the generation before, with a warning', async (t) => {
  const stateDir = await copied(t);
  const before = await loadIdentity(stateDir, NOW_MS);
  // As `init` left it: a founder has had no other generation yet, and nobody who could send it one.
  await truncate(join(stateDir, 'roster.json'), 50);
  const after = await loadIdentity(stateDir, NOW_MS);
  t.match(after.warnings, [{ code: 'roster-previous' }]);
  t.equal(after.roster.digest(), before.roster.digest());
  t.strictSame((await loadIdentity(stateDir, NOW_MS)).warnings, [], 'and the file is whole again');
});

t.test('files that others may read are refused', async (t) => {
  const stateDir = await copied(t);
  await chmod(join(stateDir, 'node.key'), 0o644);
  await t.rejects(loadIdentity(stateDir, NOW_MS), {
    code: 'state-permissions',
    next: `Run: chmod 0600 ${join(stateDir, 'node.key')}`,
  });
  await chmod(join(stateDir, 'node.key'), 0o600);
  await chmod(stateDir, 0o755);
  await t.rejects(loadIdentity(stateDir, NOW_MS), {
    code: 'state-permissions',
    next: `Run: chmod 0700 ${stateDir}`,
  });
});

t.test('a write that fails leaves the old file and no rest', async (t) => {
  const directory = t.testdir();
  const file = join(directory, 'file');
  await mkdir(file);
  await t.rejects(writeStateFile(file, 'new'), { code: /^state-/ }, 'a directory is in the way');
  t.strictSame(await readdir(directory), ['file']);
  const full = fileError('/var/lib/x', Object.assign(new Error('no space'), { code: 'ENOSPC' }));
  t.match(full, { code: 'disk-full', retry: true, message: '/var/lib/x' });
});

t.test('an expired node starts, warns, and renews by proving its key', async (t) => {
  const stateDir = await copied(t);
  const later = NOW_MS + 120 * DAY_MS;
  const identity = await loadIdentity(stateDir, later);
  t.match(identity.warnings, [{ code: 'certificate-expired' }]);
  t.ok(identity.roster.admits(identity.peerId));
  const answer = await answerRenewal(identity, identity.peerId, await renewalRequest(identity), later);
  const renewed = await acceptRenewal(identity, answer, later);
  t.equal(renewed.notAfterMs, later + 90 * DAY_MS);
  t.equal(identity.certificate.serialHex, renewed.serialHex);
  t.equal(identity.chainPem, renewed.chainPem);
  const again = await loadIdentity(stateDir, later);
  t.strictSame(again.warnings, []);
  t.equal(again.certificate.serialHex, renewed.serialHex);
});

t.test('nobody renews early, for another, or after it was removed', async (t) => {
  const identity = await loadIdentity(await copied(t), NOW_MS);
  const request = await renewalRequest(identity);
  const due = NOW_MS + 50 * DAY_MS;
  t.equal(await codeOf(() => answerRenewal(identity, identity.peerId, request, NOW_MS)), 'renewal-early');
  t.equal(await codeOf(() => answerRenewal(identity, 'stranger', request, due)), 'peer-unknown');
  t.equal(
    await codeOf(() => answerRenewal(identity, identity.peerId, Buffer.alloc(100_000), due)),
    'request-malformed',
  );
  t.equal(await codeOf(() => acceptRenewal(identity, Buffer.from('garbage'), due)), 'certificate-malformed');
  await removeMember(identity, 'db1', 'test', NOW_MS);
  t.equal(await codeOf(() => answerRenewal(identity, identity.peerId, request, due)), 'peer-revoked');
});

t.test('a member is found by name, by host and by PeerId', async (t) => {
  const { roster, peerId } = await loadIdentity(await copied(t), NOW_MS);
  for (const text of ['db1/db', 'db1', peerId]) t.equal(findMember(roster, text).peerId, peerId);
  t.equal(await codeOf(() => findMember(roster, 'db2"\n')), 'member-unknown');
});

t.test('a node that was removed knows it at its next start', async (t) => {
  const stateDir = await copied(t);
  const identity = await loadIdentity(stateDir, NOW_MS);
  const { change, bytes } = await removeMember(identity, 'db1', 'test', NOW_MS);
  t.strictSame(change.revoked, [identity.peerId]);
  t.notOk(identity.roster.addRevocation(bytes).changed);
  t.match((await loadIdentity(stateDir, NOW_MS)).warnings, [{ code: 'self-revoked' }]);
});

t.test('with all authorities lost, the bundle makes one of any member', async (t) => {
  const stateDir = await copied(t);
  await rm(join(stateDir, 'authority'), { recursive: true });
  const identity = await loadIdentity(stateDir, NOW_MS);
  t.equal(identity.authority, undefined);
  t.equal(await codeOf(() => removeMember(identity, 'db1', 'test', NOW_MS)), 'not-authority');
  const recovery = { bundle: founded.recoveryBundle, passphrase: PASSPHRASE };
  t.equal(
    await codeOf(() => becomeAuthority(identity, { ...recovery, passphrase: 'wrong' }, NOW_MS)),
    'recovery-passphrase-wrong',
  );
  await becomeAuthority(identity, recovery, NOW_MS);
  const restored = await loadIdentity(stateDir, NOW_MS);
  t.equal(restored.authority?.peerId, identity.peerId);
  t.ok(restored.tokens);
  t.equal(await codeOf(() => becomeAuthority(restored, recovery, NOW_MS)), 'already-authority');
});

t.test('the bundle of another cluster makes no authority here', async (t) => {
  const stateDir = await copied(t);
  await rm(join(stateDir, 'authority'), { recursive: true });
  const identity = await loadIdentity(stateDir, NOW_MS);
  const recovery = { bundle: twinFounded.recoveryBundle, passphrase: PASSPHRASE };
  t.equal(await codeOf(() => becomeAuthority(identity, recovery, NOW_MS)), 'recovery-other-cluster');
});

t.test('with every machine lost, the bundle creates the cluster again on its old root', async (t) => {
  const stateDir = join(t.testdir(), 'db');
  const recovery = { bundle: founded.recoveryBundle, passphrase: PASSPHRASE };
  const again = await initCluster({ ...founding, stateDir, recovery });
  t.equal(again.rootFingerprint, founded.rootFingerprint);
  t.not(again.peerId, founded.peerId);
  const elsewhere = `${stateDir}-dev`;
  t.equal(
    await codeOf(() => initCluster({ ...founding, stateDir: elsewhere, cluster: 'dev', recovery })),
    'recovery-other-cluster',
  );
});

t.test('an identity is set aside whole, not thrown away', async (t) => {
  const stateDir = await copied(t);
  // As after a leave: a start with it is refused, so it would keep the next identity from starting as well.
  const remembered = ['local.json', 'members.snapshot', 'members.snapshot.damaged'];
  for (const name of [...remembered, 'audit.jsonl']) await writeFile(join(stateDir, name), '{"left":true}');
  const aside = await resetState(stateDir, NOW_MS);
  t.equal(await stateOf(stateDir), 'empty');
  t.strictSame((await readdir(stateDir)).toSorted(), ['audit.jsonl', basename(aside)], 'the trail stays');
  for (const name of remembered) t.equal(await readFile(join(aside, name), 'utf8'), '{"left":true}');
  t.equal((await loadIdentity(aside, NOW_MS)).peerId, founded.peerId);
  t.equal(await beginState(stateDir, 'join'), undefined);
  t.equal(await beginState(stateDir, 'join'), 'join', 'a second run knows of the first');
});
