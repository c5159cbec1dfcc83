import { readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { createNodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { encodeRoster } from '../../../src/daemon/identity/roster/roster-encoding.ts';
import { createSigningRequest } from '../../../src/daemon/identity/keys/signing-request.ts';
import { codeOf, DAY_MS, furtherAuthority, NOW_MS, testCluster } from './cluster.ts';

const founder = createNodeKey();
const prod = await testCluster('prod', founder.peerId);
const first = await prod.node('db1', 'db', { nodeKey: founder });
const second = await prod.node('db2');
const third = await prod.node('app1', 'app');
const empty = (path = '/nowhere') => new Roster(prod.trust, path);

function filled(path?: string): Roster {
  const roster = empty(path);
  // Not in order of admission.
  for (const member of [third, first, second]) roster.add(member);
  return roster;
}
const revocationOf = (member: typeof first, roster: Roster) =>
  prod.authority.revoke({ ...member, serials: roster.serialsOf(member.peerId) }, 'gone', NOW_MS);

t.test('the gate admits only members of the roster', async (t) => {
  const roster = filled();
  t.ok(roster.admits(first.peerId));
  t.notOk(roster.admits(createNodeKey().peerId));
  t.notOk(roster.admits(''));
  t.equal(roster.get(second.peerId)?.name, 'db2/db');
  t.equal(roster.byName('app1/app')?.peerId, third.peerId);
  t.equal(roster.byName('app1'), undefined);
});

t.test('rank is the order of admission', async (t) => {
  t.strictSame(
    filled()
      .members()
      .map(({ name }) => name),
    ['db1/db', 'db2/db', 'app1/app'],
  );
});

t.test('a stranger comes in with a certificate of its own', async (t) => {
  const roster = empty();
  t.strictSame(
    roster.present(first.chainPem, first.peerId).admitted.map(({ name }) => name),
    ['db1/db'],
  );
  t.notOk(roster.present(first.chainPem, first.peerId).changed, 'a second time changes nothing');
  t.equal(
    await codeOf(() => roster.present(second.chainPem, third.peerId)),
    'certificate-other-peer',
    'a borrowed one',
  );
  const twin = await testCluster('prod');
  const foreign = await twin.node('db2');
  t.equal(await codeOf(() => roster.present(foreign.chainPem, foreign.peerId)), 'certificate-foreign');
  t.equal(await codeOf(() => roster.present('garbage', first.peerId)), 'certificate-malformed');
  t.equal(roster.members().length, 1);
});

t.test('rosters with the same items are equal, in whatever order they came', async (t) => {
  const one = filled();
  const other = empty();
  for (const member of [second, third, first]) other.add(member);
  t.equal(one.digest(), other.digest());
  const revocation = await revocationOf(second, one);
  one.addRevocation(revocation);
  t.not(one.digest(), other.digest());
  other.addRevocation(revocation);
  t.equal(one.digest(), other.digest());
});

t.test('a sync brings what is missing and nothing else', async (t) => {
  const one = filled();
  const other = empty();
  other.add(first);
  const missing = one.exportMissing(other.ids());
  t.ok(missing.length < one.exportAll().length);
  const change = await other.merge(missing);
  t.strictSame(change.admitted.map(({ name }) => name).sort(), ['app1/app', 'db2/db']);
  t.equal(one.digest(), other.digest());
  t.notOk((await other.merge(one.exportAll())).changed, 'all of it again changes nothing');
});

t.test('one bad item keeps none of the good ones out', async (t) => {
  const twin = await testCluster('prod');
  const foreign = new Roster(twin.trust, '/nowhere');
  foreign.add(await twin.node('evil'));
  const [mine, theirs] = [filled().exportAll(), foreign.exportAll()].map(
    (bytes) =>
      JSON.parse(Buffer.from(bytes).toString()) as {
        issuers: string[];
        authorities: number[];
        certificates: [string, number][];
      },
  );
  const mixed = {
    ...mine,
    issuers: [...(theirs?.issuers ?? []), ...(mine?.issuers ?? [])],
    authorities: [0, 1, 63],
    certificates: [
      ...(theirs?.certificates ?? []),
      ...(mine?.certificates ?? []).map(([leaf]) => [leaf, 1]),
      ['AAAA', 1],
    ],
  };
  const roster = empty();
  const change = await roster.merge(Buffer.from(JSON.stringify(mixed)));
  t.equal(change.admitted.length, 3);
  t.equal(
    change.refused.length,
    4,
    'foreign authority, authority that is none, foreign node, no certificate',
  );
  t.notOk(roster.byName('evil/db'));
});

t.test('what is no roster of this cluster changes nothing', async (t) => {
  const roster = filled();
  const digest = roster.digest();
  const other = encodeRoster({
    cluster: 'dev',
    authorities: [],
    certificates: [],
    revocations: [],
    successions: [],
  });
  for (const bad of [
    Buffer.alloc(0),
    Buffer.from('{}'),
    Buffer.from('['.repeat(100_000)),
    Buffer.alloc(5_000_000),
    other,
    roster.exportAll().subarray(5),
  ]) {
    t.equal(await codeOf(() => roster.merge(bad)), 'roster-malformed');
  }
  t.equal(roster.digest(), digest);
});

t.test('whoever was put out is out: by name, by gate and by every serial it ever had', async (t) => {
  const roster = filled();
  const renewed = await prod.authority.renew(
    second,
    createSigningRequest(prod.tlsKey, 'db2', 'db'),
    NOW_MS + 50 * DAY_MS,
  );
  t.strictSame(
    roster.add(renewed).renewed.map(({ serialHex }) => serialHex),
    [renewed.serialHex],
  );
  const change = roster.addRevocation(await revocationOf(second, roster));
  t.strictSame(change.revoked, [second.peerId]);
  t.notOk(roster.admits(second.peerId));
  t.ok(roster.isRevoked(second.peerId));
  t.equal(roster.byName('db2/db'), undefined);
  t.same(new Set(roster.revocations()[0]?.serials), new Set([second.serialHex, renewed.serialHex]));
  t.equal(roster.revocations()[0]?.name, 'db2/db');
});

t.test('a revoked node does not return, neither by itself nor through others', async (t) => {
  const roster = filled();
  const stale = filled();
  const revocation = await revocationOf(second, roster);
  roster.addRevocation(revocation);
  t.equal(await codeOf(() => roster.present(second.chainPem, second.peerId)), 'peer-revoked');
  const change = await roster.merge(stale.exportAll());
  t.strictSame(
    change.refused.map(({ code }) => code),
    ['peer-revoked'],
  );
  const renewed = await prod.authority.renew(
    second,
    createSigningRequest(prod.tlsKey, 'db2', 'db'),
    NOW_MS + 50 * DAY_MS,
  );
  t.equal(await codeOf(() => roster.add(renewed)), 'peer-revoked', 'nor with a later certificate');
  t.ok(roster.serialsOf(renewed.peerId).includes(renewed.serialHex), 'whose serial is kept as well');
  const late = empty();
  late.addRevocation(revocation);
  t.equal(
    await codeOf(() => late.present(second.chainPem, second.peerId)),
    'peer-revoked',
    'the revocation may come first',
  );
  await stale.merge(roster.exportAll());
  t.notOk(stale.admits(second.peerId), 'and reaches those who did not know');
});

t.test('a revocation by a member that is no authority is refused', async (t) => {
  const twin = await testCluster('prod');
  const forged = await twin.authority.revoke({ ...first, serials: [] }, '', NOW_MS);
  const roster = filled();
  t.equal(await codeOf(() => roster.addRevocation(forged)), 'certificate-foreign');
  t.ok(roster.admits(first.peerId));
});

t.test('of two certificates of one member the later wins everywhere', async (t) => {
  const renewed = await prod.authority.renew(
    first,
    createSigningRequest(prod.tlsKey, 'db1', 'db'),
    NOW_MS + 50 * DAY_MS,
  );
  const one = filled();
  one.add(renewed);
  const other = empty();
  other.add(renewed);
  t.notOk(other.add(first).changed);
  for (const member of [second, third]) other.add(member);
  t.equal(one.digest(), other.digest());
  t.equal(one.get(first.peerId)?.serialHex, renewed.serialHex);
});

t.test('authorities are known by what they signed, as long as they are members', async (t) => {
  const roster = filled();
  t.strictSame(roster.authorities(), [founder.peerId]);
  const { authority } = await furtherAuthority(prod.root, prod.trust, second.peerId);
  roster.addAuthority(authority.certificate.pem);
  t.strictSame(roster.authorities(), [founder.peerId, second.peerId].sort());
  const other = empty();
  await other.merge(roster.exportAll());
  t.strictSame(other.authorities(), roster.authorities(), 'one that has signed nothing yet travels as well');
  roster.addRevocation(await revocationOf(second, roster));
  t.strictSame(roster.authorities(), [founder.peerId]);
});

t.test('a saved roster comes back equal, for its owner only to read', async (t) => {
  const path = join(t.testdir(), 'roster.json');
  const roster = filled(path);
  roster.addRevocation(await revocationOf(third, roster));
  await roster.save();
  t.equal((await stat(path)).mode & 0o777, 0o600);
  const again = empty(path);
  t.strictSame(await again.load(), { usedPrevious: false, refused: [] });
  t.equal(again.digest(), roster.digest());
  t.strictSame(again.revocations(), roster.revocations());
});

t.test('a roster cut at any point falls back to the generation before', async (t) => {
  const path = join(t.testdir(), 'roster.json');
  const roster = filled(path);
  await roster.save();
  const before = roster.digest();
  roster.addRevocation(await revocationOf(third, roster));
  await roster.save();
  const { size } = await stat(path);
  const whole = await readFile(path);
  for (const length of [0, 1, Math.floor(size / 3), Math.floor(size / 2), size - 1]) {
    await writeFile(path, whole);
    await truncate(path, length);
    const again = empty(path);
    t.strictSame(await again.load(), { usedPrevious: true, refused: [] }, `cut to ${length}`);
    t.equal(again.digest(), before);
  }
  await writeFile(`${path}.previous`, 'x');
  t.equal(await codeOf(() => empty(path).load()), 'state-file-damaged', 'with both gone it says so');
});

t.test('a roster that somebody edited is verified like one from a stranger', async (t) => {
  const path = join(t.testdir(), 'roster.json');
  const roster = filled(path);
  await roster.save();
  const twin = await testCluster('prod');
  const foreign = new Roster(twin.trust, '/nowhere');
  foreign.add(await twin.node('evil'));
  const items = Buffer.from(foreign.exportAll()).toString('base64');
  const serials = { [first.peerId]: ['AB\n*', first.serialHex] };
  await writeFile(path, JSON.stringify({ version: 1, items, serials }));
  const again = empty(path);
  t.ok((await again.load()).refused.length > 0);
  t.strictSame(again.members(), []);
  t.strictSame(
    again.serialsOf(first.peerId),
    [first.serialHex],
    'a serial is hex: it ends up in a list for HAProxy',
  );
});

t.test('saves in quick succession leave the last state', async (t) => {
  const path = join(t.testdir(), 'roster.json');
  const roster = empty(path);
  const saves = [first, second, third].map((member) => {
    roster.add(member);
    return roster.save();
  });
  await Promise.all(saves);
  const again = empty(path);
  await again.load();
  t.equal(again.members().length, 3);
});
