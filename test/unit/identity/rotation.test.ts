import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { newestRoot, trustOf, verifyChain } from '../../../src/daemon/identity/keys/chain.ts';
import { initCluster } from '../../../src/daemon/identity/root/init-cluster.ts';
import {
  acceptRenewal,
  answerRenewal,
  becomeAuthority,
  hangOnRoot,
  type Identity,
  loadIdentity,
  renewalRequest,
} from '../../../src/daemon/identity/identity.ts';
import {
  endRoot,
  isRootChangeLeft,
  leaveRootChange,
  replaceRoot,
  takeRootChange,
} from '../../../src/daemon/identity/root/rotation.ts';
import type { Recovery } from '../../../src/daemon/identity/root/open-root.ts';
import { joinCluster } from '../../../src/daemon/identity/admission/join.ts';
import { AdmissionListener } from '../../../src/daemon/identity/admission/listener.ts';
import { loopback } from '../transport/nodes.ts';
import { codeOf, DAY_MS, NOW_MS } from './cluster.ts';
import { HOUR_MS, PASSPHRASE, pairOf } from './pair.ts';

const { home, recoveryBundle } = await pairOf(t);
const old: Recovery = { bundle: recoveryBundle, passphrase: PASSPHRASE };

/** An authority and a member as they are before the root is replaced. */
async function pair(
  t: Test,
): Promise<{ first: Identity; second: Identity; load: (name: string) => Promise<Identity> }> {
  const directory = t.testdir({});
  for (const name of ['first', 'second'])
    await cp(join(home, name), join(directory, name), { recursive: true });
  const load = (name: string) => loadIdentity(join(directory, name), NOW_MS);
  return { first: await load('first'), second: await load('second'), load };
}

/** The command's part and the daemon's. @returns what opens the new root */
async function replace(identity: Identity, again = false): Promise<Recovery> {
  const made = await replaceRoot(identity, old, NOW_MS, again);
  await leaveRootChange(identity.stateDir, made.change);
  await takeRootChange(identity);
  return { bundle: made.recoveryBundle, passphrase: made.passphrase };
}

async function end(identity: Identity, recovery: Recovery): Promise<void> {
  await leaveRootChange(identity.stateDir, await endRoot(identity, recovery, NOW_MS), recovery.bundle);
  await takeRootChange(identity);
}

const roots = ({ trust }: Identity): string =>
  trust.roots.map(({ fingerprint }) => fingerprint.slice(0, 8)).join();
async function hears(to: Identity, from: Identity): Promise<void> {
  const { refused } = await to.roster.merge(from.roster.exportAll());
  if (refused.length > 0) throw new Error(JSON.stringify(refused));
  await to.roster.save();
}

t.test('the root is replaced and ended, and everything works on, also after restarts', async (t) => {
  const { first, second, load } = await pair(t);
  const [serial, before] = [second.certificate.serialHex, roots(first)];
  const recovery = await replace(first);
  await hears(second, first);
  const both = roots(first);
  t.match(both, new RegExp(`^${before},[0-9a-f]{8}$`));
  for (const identity of [second, await load('first'), await load('second')]) t.equal(roots(identity), both);
  t.equal(second.rootsPem.split('BEGIN').length, 3, 'HAProxy and Erlang are given both');

  for (const identity of [first, second])
    t.equal(await hangOnRoot(identity, newestRoot(identity.trust)), true);
  t.equal(await hangOnRoot(second, newestRoot(second.trust)), false, 'once');
  t.equal(second.certificate.serialHex, serial, 'nothing was signed again');
  const newRoot = trustOf('prod', newestRoot(first.trust).pem);
  for (const identity of [second, await load('first'), await load('second')])
    t.equal(verifyChain(identity.chainPem, newRoot, NOW_MS).peerId, identity.peerId);

  await end(first, recovery);
  await hears(second, first);
  for (const identity of [first, second, await load('first'), await load('second')])
    t.equal(roots(identity), both.split(',')[1], identity.name);
  t.equal(await readFile(second.rootsPath, 'utf8'), newestRoot(first.trust).pem);
  const later = NOW_MS + 60 * DAY_MS;
  const answer = await answerRenewal(first, second.peerId, await renewalRequest(second), later);
  t.equal(
    verifyChain((await acceptRenewal(second, answer, later)).chainPem, newRoot, later).name,
    'app2/app',
  );
});

t.test(
  'a node that was away for all of it follows by what the others keep, whenever it is restarted',
  async (t) => {
    const { first, second, load } = await pair(t);
    await end(first, await replace(first));
    await hangOnRoot(first, newestRoot(first.trust));
    t.ok(first.roster.admits(second.peerId));
    await hears(second, first);
    // It is switched off before it hangs its own chain on the new root.
    const again = await load('second');
    t.equal(roots(again), roots(first));
    t.ok(verifyChain(again.chainPem, trustOf('prod', first.rootsPem), NOW_MS));
    // Or between the file of members and that of roots.
    await cp(join(home, 'second/roots.pem'), second.rootsPath);
    t.equal(roots(await load('second')), roots(first));
    // An authority, too.
    await cp(join(home, 'first/roots.pem'), first.rootsPath);
    await cp(
      join(home, 'first/authority/intermediate.pem'),
      join(first.stateDir, 'authority/intermediate.pem'),
    );
    await cp(join(home, 'first/chain.pem'), first.chainPath);
    const authority = await load('first');
    t.equal(roots(authority), roots(first));
    t.equal(verifyChain(authority.chainPem, trustOf('prod', first.rootsPem), NOW_MS).name, 'app1/app');
    const renewed = await answerRenewal(
      authority,
      second.peerId,
      await renewalRequest(second),
      NOW_MS + 60 * DAY_MS,
    );
    t.ok(verifyChain(Buffer.from(renewed).toString(), trustOf('prod', first.rootsPem), NOW_MS + 60 * DAY_MS));
  },
);

t.test('what does not fit is refused with a sentence, and nothing changes', async (t) => {
  const { first, second } = await pair(t);
  const digest = first.roster.digest();
  const foreign = await initCluster({
    ...{
      cluster: 'prod',
      host: 'x',
      role: 'app',
      address: '10.0.0.1',
      nowMs: NOW_MS,
      passphrase: PASSPHRASE,
    },
    stateDir: join(first.stateDir, '../foreign'),
  });
  const rotate = (recovery: Recovery, again = false) =>
    codeOf(() => replaceRoot(first, recovery, NOW_MS, again));
  t.equal(await rotate({ ...old, passphrase: 'not the passphrase' }), 'recovery-passphrase-wrong');
  t.equal(await rotate({ ...old, bundle: foreign.recoveryBundle }), 'recovery-other-cluster');
  t.equal(await rotate({ ...old, bundle: 'nonsense' }), 'recovery-malformed');
  t.equal(await codeOf(() => replaceRoot(second, old, NOW_MS)), 'not-authority');
  t.equal(await codeOf(() => endRoot(first, old, NOW_MS)), 'root-change-none');
  t.equal(first.roster.digest(), digest);

  const recovery = await replace(first);
  await hears(second, first);
  t.equal(await rotate(recovery), 'root-change-under-way');
  t.equal(await rotate(old), 'root-change-under-way');
  t.equal(await rotate(recovery, true), 'recovery-outdated', 'another one is signed by the old root alone');
  t.equal(
    await codeOf(() => endRoot(first, old, NOW_MS)),
    'recovery-outdated',
    'who has lost the new bundle ends nothing',
  );
  t.equal(await codeOf(() => becomeAuthority(second, old, NOW_MS)), 'recovery-outdated');
  await becomeAuthority(second, recovery, NOW_MS);

  await end(first, recovery);
  t.equal(await rotate(old), 'recovery-outdated', 'a bundle of before the last change');
  t.match(
    await replaceRoot(first, recovery, NOW_MS).then(({ rootFingerprint }) => rootFingerprint),
    /^[0-9a-f]{64}$/,
  );
});

t.test(
  'where the new bundle was lost, the old one makes another root, and the lost one counts no longer',
  async (t) => {
    const { first, second, load } = await pair(t);
    await replace(first);
    await hears(second, first);
    await hangOnRoot(second, newestRoot(second.trust));
    const lost = newestRoot(first.trust).fingerprint.slice(0, 8);
    const recovery = await replace(first, true);
    await hears(second, first);
    for (const identity of [first, second, await load('first'), await load('second')])
      t.notMatch(roots(identity), lost, identity.name);
    await end(first, recovery);
    await hears(second, first);
    t.equal(roots(await load('second')), roots(first));
  },
);

t.test('a run that ended before it notified the daemon is applied, and only once', async (t) => {
  const { first, load } = await pair(t);
  t.equal(await takeRootChange(first), undefined);
  const made = await replaceRoot(first, old, NOW_MS);
  await leaveRootChange(first.stateDir, made.change);
  t.equal(await isRootChangeLeft(first.stateDir), true);
  const restarted = await load('first');
  t.match(await takeRootChange(restarted), { changed: true, roots: true });
  t.equal(await isRootChangeLeft(first.stateDir), false);
  // The daemon was ended between taking it up and forgetting the file.
  await leaveRootChange(first.stateDir, made.change);
  t.match(await takeRootChange(await load('first')), { changed: false, roots: false });
  // Another change came in from elsewhere meanwhile.
  const rival = await replaceRoot(first, old, NOW_MS);
  await leaveRootChange(first.stateDir, rival.change);
  t.equal(await codeOf(() => takeRootChange(restarted)), 'root-change-refused');
  t.equal(await isRootChangeLeft(first.stateDir), false, 'it keeps no later start from going on');
  await writeFile(join(first.stateDir, 'authority/root-change.json'), 'cut sho', { mode: 0o600 });
  t.equal(await codeOf(() => takeRootChange(restarted)), 'roster-malformed');
});

t.test('an earlier token works while both roots are valid, and then fails with the reason', async (t) => {
  const { first } = await pair(t);
  const { address, tokens } = first;
  if (tokens === undefined) throw new Error('an authority');
  const request = { role: 'app', ttlMs: HOUR_MS, address, port: 4102, nowMs: NOW_MS } as const;
  const listener = new AdmissionListener({
    ...{ identity: first, address, port: 4102, privateNetwork: '127.0.0.0/8', nowMs: () => NOW_MS },
    conversationMs: 60_000,
    standing: () => 'alive',
    seeds: () => [],
    onAdmitted: () => undefined,
    onNote: () => undefined,
  });
  t.teardown(() => listener.close());
  const made = async () => (await tokens.create(request)).token;
  const joinAs = async (host: string, token: string): Promise<Identity> => {
    const stateDir = join(first.stateDir, '..', host);
    await listener.refresh();
    const own = { host, address: loopback(), version: '0.1.0', nowMs: () => NOW_MS, timeoutMs: 60_000 };
    await joinCluster({ ...own, token, stateDir });
    return loadIdentity(stateDir, NOW_MS);
  };
  const [early, stale] = [await made(), await made()];
  const recovery = await replace(first);
  await listener.reopen();
  t.equal(roots(await joinAs('app5', early)), roots(first));
  await hangOnRoot(first, newestRoot(first.trust));
  await listener.reopen();
  const joined = await joinAs('app6', await made());
  t.equal(roots(joined), roots(first));
  t.ok(verifyChain(joined.chainPem, trustOf('prod', newestRoot(first.trust).pem), NOW_MS));
  await end(first, recovery);
  await listener.reopen();
  t.equal(await codeOf(() => joinAs('app7', stale)), 'issuer-other-root');
  const after = await joinAs('app8', await made());
  t.equal(roots(after), roots(first));
  t.equal(
    after.roster.digest(),
    first.roster.digest(),
    'it keeps the word of the old root for those who were away',
  );
});
