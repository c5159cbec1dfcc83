import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  acceptRenewal,
  adoptCertificate,
  answerRenewal,
  type Identity,
  loadIdentity,
  removeMember,
  renewalRequest,
} from '../../../src/daemon/identity/identity.ts';
import { renewalDue, verifyChain } from '../../../src/daemon/identity/keys/chain.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { codeOf, DAY_MS, NOW_MS } from './cluster.ts';
import { HOUR_MS, pairOf } from './pair.ts';

const { home, joinAt } = await pairOf(t);

async function both(t: Test, nowMs: number): Promise<{ first: Identity; second: Identity }> {
  const directory = t.testdir({ a: {}, b: {} });
  for (const [from, to] of [
    ['first', 'a'],
    ['second', 'b'],
  ] as const) {
    await rm(join(directory, to), { recursive: true });
    await cp(join(home, from), join(directory, to), { recursive: true });
  }
  return {
    first: await loadIdentity(join(directory, 'a'), nowMs),
    second: await loadIdentity(join(directory, 'b'), nowMs),
  };
}

async function renew(
  { first, second }: { first: Identity; second: Identity },
  issuerMs: number,
  ownMs: number,
) {
  const answer = await answerRenewal(first, second.peerId, await renewalRequest(second), issuerMs);
  return acceptRenewal(second, answer, ownMs);
}

t.test('a clock that is an hour off, either way, at either end, keeps nobody from joining', async (t) => {
  for (const offMs of [-HOUR_MS, HOUR_MS]) {
    const directory = t.testdir({});
    const ahead = await joinAt(
      join(directory, `joiner${offMs < 0 ? 1 : 2}`),
      'app3',
      () => NOW_MS,
      NOW_MS + offMs,
    );
    t.strictSame(ahead.warnings, [], `joiner ${offMs}`);
    t.equal(verifyChain(ahead.chainPem, ahead.trust, NOW_MS - HOUR_MS).host, 'app3');
    await removeForNext();
  }
});

/** The name is free again: each joiner of the loop above is app3. */
async function removeForNext(): Promise<void> {
  const first = await loadIdentity(join(home, 'first'), NOW_MS);
  for (const { name } of first.roster.members())
    if (name === 'app3/app') await removeMember(first, name, 'test', NOW_MS);
}

t.test(
  'a clock that jumps by an hour while a token lives takes nothing back and lets nobody in twice',
  async (t) => {
    const directory = t.testdir({});
    let nowMs = NOW_MS;
    // Back while the joiner is on its way: the token lives longer by the wall, and works once.
    const joined = await joinAt(join(directory, 'back'), 'app3', () => (nowMs -= 1), NOW_MS + HOUR_MS);
    t.equal(joined.name, 'app3/app');
    await removeForNext();
    // Forward, past the token's end: it is refused as expired, and a fresh one works.
    let calls = 0;
    const jumping = (): number => NOW_MS + (calls++ < 3 ? 0 : HOUR_MS);
    t.match(
      await codeOf(() => joinAt(join(directory, 'forward'), 'app3', jumping, NOW_MS)),
      /^token-expired$|^issuer-unreachable$/,
    );
    t.equal(
      (await joinAt(join(directory, 'fresh'), 'app3', () => NOW_MS + HOUR_MS, NOW_MS)).name,
      'app3/app',
    );
    await removeForNext();
  },
);

t.test('certificates hold, and are renewed when due, with clocks that differ by an hour', async (t) => {
  const due = NOW_MS + 50 * DAY_MS;
  for (const [issuerMs, ownMs] of [
    [due, due - HOUR_MS],
    [due, due + HOUR_MS],
    [due - HOUR_MS, due],
    [due + HOUR_MS, due],
  ] as const) {
    const nodes = await both(t, NOW_MS);
    const renewed = await renew(nodes, issuerMs, ownMs);
    t.equal(renewed.notAfterMs, issuerMs + 90 * DAY_MS);
    t.equal(verifyChain(renewed.chainPem, nodes.first.trust, issuerMs - HOUR_MS).name, 'app2/app');
  }
});

t.test(
  'a node whose certificate ended while it was off is still admitted, renews, and works as before',
  async (t) => {
    const later = NOW_MS + 125 * DAY_MS;
    const nodes = await both(t, later);
    const { first, second } = nodes;
    t.match(second.warnings, [{ code: 'certificate-expired' }]);
    t.equal(await codeOf(() => verifyChain(second.chainPem, first.trust, later)), 'certificate-expired');
    const forgotten = new Roster(first.trust, '/nowhere');
    forgotten.present(second.chainPem, second.peerId);
    t.ok(
      forgotten.admits(second.peerId),
      'also one that does not know it lets it in by the certificate that ended',
    );
    const before = first.roster.get(second.peerId);
    const renewed = await renew(nodes, later, later);
    t.match(renewed, { peerId: second.peerId, name: 'app2/app', admittedAtMs: before?.admittedAtMs });
    t.equal(verifyChain(second.chainPem, first.trust, later).serialHex, renewed.serialHex);
    t.equal(first.roster.get(second.peerId)?.serialHex, renewed.serialHex);
    t.strictSame((await loadIdentity(second.stateDir, later)).warnings, []);
  },
);

t.test(
  'what an authority signed while its clock was years ahead takes the place of nothing, and goes',
  async (t) => {
    for (const alone of [false, true]) {
      const directory = t.testdir({ a: {}, b: {} });
      let wallMs = NOW_MS + 1000 * DAY_MS;
      const load = async (from: string, to: string, clock: () => number): Promise<Identity> => {
        await rm(join(directory, to), { recursive: true });
        await cp(join(home, from), join(directory, to), { recursive: true });
        return await loadIdentity(join(directory, to), clock(), clock);
      };
      const first = await load('first', 'a', () => wallMs);
      const second = await load('second', 'b', () => NOW_MS);
      const was = [first, second].map(({ certificate }) => certificate.serialHex);
      const held = ({ roster }: Identity) =>
        [first, second].map(({ peerId }) => roster.get(peerId)?.serialHex ?? '');

      const own = await answerRenewal(first, first.peerId, await renewalRequest(first), wallMs);
      await acceptRenewal(first, own, wallMs);
      t.ok(first.certificate.notBeforeMs > NOW_MS + 900 * DAY_MS, 'it shows one that nobody lets in');
      const answer = await answerRenewal(first, second.peerId, await renewalRequest(second), wallMs);
      t.equal(await codeOf(() => acceptRenewal(second, answer, NOW_MS)), 'certificate-not-yet-valid');
      await second.roster.merge(first.roster.exportAll());
      t.strictSame(held(second), was, 'the other one keeps what has begun');

      wallMs = NOW_MS + HOUR_MS;
      t.ok(renewalDue(first.certificate, wallMs));
      if (alone) {
        const again = await answerRenewal(first, first.peerId, await renewalRequest(first), wallMs);
        await acceptRenewal(first, again, wallMs);
      } else {
        await first.roster.merge(second.roster.exportAll());
        t.strictSame(held(first), was);
        t.ok(await adoptCertificate(first));
      }
      const again = await loadIdentity(first.stateDir, wallMs, () => wallMs);
      t.strictSame(again.warnings, []);
      t.equal(verifyChain(again.chainPem, second.trust, wallMs).peerId, first.peerId);
    }
  },
);

t.test('a certificate that ended helps nobody who was removed meanwhile', async (t) => {
  const later = NOW_MS + 125 * DAY_MS;
  const nodes = await both(t, later);
  await removeMember(nodes.first, 'app2', 'sold', later);
  t.equal(await codeOf(() => renew(nodes, later, later)), 'peer-revoked');
});
