import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { newestRoot } from '../../../src/daemon/identity/keys/chain.ts';
import { loadIdentity } from '../../../src/daemon/identity/identity.ts';
import { endRoot, leaveRootChange, replaceRoot } from '../../../src/daemon/identity/root/rotation.ts';
import type { Log } from '../../../src/daemon/process/log.ts';
import { RootFollower, takeLeftRootChange } from '../../../src/daemon/identity/root/root-follower.ts';
import { ROOT_TAG, rootTag } from '../../../src/daemon/identity/root/following.ts';
import { until } from '../../support/until.ts';
import { member } from '../cli/fake-daemon.ts';
import { NOW_MS } from './cluster.ts';
import { PASSPHRASE, pairOf } from './pair.ts';

const { home, recoveryBundle } = await pairOf(t);
const old = { bundle: recoveryBundle, passphrase: PASSPHRASE };

/** The authority of the pair as a daemon has it in a directory, and in order what came of its root's change. */
async function followerOf(directory: string) {
  await cp(join(home, 'first'), directory, { recursive: true });
  const identity = await loadIdentity(directory, NOW_MS);
  const did: string[] = [];
  const node = {
    rows: [member({ name: 'app1/app', self: true }), member({ name: 'app2/app' })],
    behind: new Set(['haproxy']),
    oldHaproxies: true,
  };
  const log = { error: (_about: object, text: string) => did.push(`error: ${text}`) } as unknown as Log;
  const follower = new RootFollower(identity, {
    clock: { wallMs: () => NOW_MS, monotonicMs: () => 0 },
    log,
    audit: { append: (entry) => (did.push(`audit: ${entry.summary}`), { ...entry, id: 1, at: '' }) },
    node: {
      rows: () => node.rows,
      rosterChanged: () => did.push('told'),
      operatorDid: (what) => did.push(`operator: ${what}`),
    },
    driver: { rosterChanged: () => did.push('peers told') },
    reconciler: { converged: (program = '') => !node.behind.has(program) },
    programs: { hasOldWorkers: async () => node.oldHaproxies },
    certificate: {
      changed: async (summary) => void did.push(summary),
      read: async () => void did.push('programs read'),
    },
    registrar: { reopen: async () => void did.push('admission reopened') },
  });
  return { identity, follower, did, node, log };
}

t.test(
  'a node trusts a new root first, uses it when no peer would refuse it, and reports its progress',
  async (t) => {
    const place = t.testdir();
    const { identity, follower, did, node } = await followerOf(join(place, 'here'));
    t.match(await follower.take(), { message: 'no change of the root is waiting here' });
    t.strictSame(did, [], 'and nobody is told');
    follower.look();
    t.equal(follower.tag, undefined);

    const before = identity.chainPem;
    const made = await replaceRoot(identity, old, NOW_MS);
    await leaveRootChange(identity.stateDir, made.change);
    const { message } = await follower.take();
    t.match(message, /^the root CA \w{8} follows \w{8}, and both are valid$/);
    t.strictSame(did.splice(0), ['told', 'peers told', `operator: authority rotate-root: ${message}`]);
    await follower.changed();
    t.strictSame(did.splice(0), [`audit: ${message}`, 'programs read'], 'its chain stays');

    const root = newestRoot(identity.trust);
    t.equal(follower.tag, undefined, 'its programs do not believe in it yet');
    node.behind.clear();
    t.equal(follower.tag, undefined, 'a process of HAProxy of before is left');
    node.oldHaproxies = false;
    follower.look();
    await until(() => follower.tag === rootTag(root, false), { what: 'it knows the new root' });

    follower.look();
    // A chain is hung within a tenth of this.
    const hung = until(() => did.length > 0, { deadlineMs: 500, what: 'the chain hangs on the new root' });
    await t.rejects(hung, 'app2 would refuse it');
    node.rows = node.rows.map((each) => ({ ...each, tags: { [ROOT_TAG]: rootTag(root, false) } }));
    follower.look();
    await until(() => did.length > 0);
    t.match(did.splice(0), [/^the certificate is signed under the root CA \w{8}$/]);
    t.equal(follower.tag, rootTag(root, false), 'it shows it, and its programs were told just now');
    follower.look();
    await until(() => follower.tag === rootTag(root, true), { what: 'it uses the new root' });
    follower.look();
    t.strictSame(did, [], 'once');

    const opened = { bundle: made.recoveryBundle, passphrase: made.passphrase };
    const ended = await endRoot(identity, opened, NOW_MS);
    await leaveRootChange(identity.stateDir, ended, made.recoveryBundle);
    t.match(await follower.take(), { message: /^the root CA \w{8} is the only valid one from now on$/ });
    did.length = 0;
    await follower.changed();
    t.match(did, [/only valid one/, 'programs read', 'admission reopened']);
    t.equal(follower.tag, undefined);

    const away = await followerOf(join(place, 'away'));
    await leaveRootChange(away.identity.stateDir, made.change);
    await takeLeftRootChange(away.identity, away.log);
    t.equal(away.identity.chainPem, before, 'both count: who starts shows what it showed');
    await leaveRootChange(away.identity.stateDir, ended, made.recoveryBundle);
    await takeLeftRootChange(away.identity, away.log);
    const { roster, trust, chainPem } = away.identity;
    t.not(chainPem, before, 'nothing of an ended root is shown after a start');
    t.equal(roster.hungOn(chainPem, newestRoot(trust)), chainPem);
    t.strictSame(away.did, [], 'before there is anybody to tell');
  },
);
