import t from 'tap';
import type { NodeCertificate } from '../../../src/daemon/identity/keys/chain.ts';
import { createNodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { putOut } from '../../../src/daemon/identity/roster/removal.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { createSigningRequest } from '../../../src/daemon/identity/keys/signing-request.ts';
import { codeOf, DAY_MS, furtherAuthority, NOW_MS, testCluster } from './cluster.ts';

/** `prod.authority` is db1's; the second one is db2's, which db1 had admitted. */
const [firstKey, secondKey] = [createNodeKey(), createNodeKey()];
const prod = await testCluster('prod', firstKey.peerId);
const db1 = await prod.node('db1', 'db', { nodeKey: firstKey });
const db2 = await prod.node('db2', 'db', { nodeKey: secondKey });
const app1 = await prod.node('app1', 'app');
const gone = await prod.node('app9', 'app');
const second = await furtherAuthority(prod.root, prod.trust, secondKey.peerId);

function roster(...members: readonly NodeCertificate[]): Roster {
  const made = new Roster(prod.trust, '/nowhere');
  for (const member of members) made.add(member);
  return made;
}

/** A cluster in which the first authority has put out app9, as the second one holds it. */
async function before(): Promise<Roster> {
  const made = roster(db1, db2, app1, gone);
  await putOut(prod.authority, made, gone, 'sold', NOW_MS);
  made.addAuthority(second.authority.certificate.pem);
  return made;
}

const LATER_MS = NOW_MS + 1000;
const names = (members: readonly NodeCertificate[]) => members.map(({ name }) => name).sort();
const byFirst = (host: string, options = {}) =>
  prod.node(host, 'app', { ...options, nowMs: NOW_MS - DAY_MS });

t.test(
  'the remover of an authority signs again what that one had signed, and all members stay',
  async (t) => {
    const held = await before();
    const { change } = await putOut(second.authority, held, db1, 'stolen', LATER_MS);
    t.strictSame(change.revoked, [db1.peerId]);
    t.strictSame(names(change.renewed), ['app1/app', 'db2/db']);
    t.strictSame(names(held.members()), ['app1/app', 'db2/db']);
    for (const member of held.members()) t.equal(member.issuer, secondKey.peerId);
    const anew = held.get(app1.peerId);
    t.match(anew, { name: app1.name, address: app1.address, admittedAtMs: app1.admittedAtMs });
    t.ok(held.isRevoked(gone.peerId), 'who was put out by the removed one stays out');
    t.ok(held.revocations().every(({ by }) => by.peerId === secondKey.peerId));
    t.strictSame(held.authorities(), [secondKey.peerId]);
    t.strictSame(held.revokedAuthorities(), [firstKey.peerId]);
  },
);

t.test(
  'what the removed authority signs afterwards is taken by nobody, whatever date it bears',
  async (t) => {
    const held = await before();
    await putOut(second.authority, held, db1, 'stolen', LATER_MS);
    const digest = held.digest();
    const stranger = await byFirst('app7');
    t.equal(await codeOf(() => held.present(stranger.chainPem, stranger.peerId)), 'authority-removed');
    // A member that holds the stolen key would make itself a db node.
    const promoted = await prod.authority.issue(
      { ...app1, role: 'db', csrPem: createSigningRequest(prod.tlsKey, 'app1', 'db') },
      NOW_MS + 300 * DAY_MS,
    );
    t.equal(await codeOf(() => held.present(promoted.chainPem, app1.peerId)), 'authority-removed');
    const revocation = await prod.authority.revoke({ ...db2, serials: [] }, 'revenge', NOW_MS);
    t.equal(await codeOf(() => held.addRevocation(revocation)), 'authority-removed');
    const theirs = roster(db1, db2, app1, stranger);
    theirs.addRevocation(revocation);
    const { refused, changed } = await held.merge(theirs.exportAll());
    t.notOk(changed);
    t.ok(refused.length > 0);
    t.equal(held.digest(), digest);
  },
);

t.test('all members reach the same roster in any order of messages, even after an absence', async (t) => {
  const held = await before();
  await putOut(second.authority, held, db1, 'stolen', LATER_MS);
  const away = await before();
  const change = await away.merge(held.exportAll());
  t.strictSame(change.refused, []);
  t.strictSame(change.revoked, [db1.peerId]);
  t.strictSame(names(change.renewed), ['app1/app', 'db2/db']);
  t.equal(away.digest(), held.digest());
  const fresh = new Roster(prod.trust, '/nowhere');
  t.strictSame((await fresh.merge(held.exportAll())).refused, []);
  t.equal(fresh.digest(), held.digest());
});

t.test('HAProxy gets the removed authority, and the certificates that stay valid', async (t) => {
  const held = await before();
  t.strictSame([held.revokedAuthorities(), held.knownCertificates()], [[], []]);
  await putOut(second.authority, held, db1, 'stolen', LATER_MS);
  t.equal(held.knownCertificates().length, 2, 'app1 and db2 show theirs until they have the new one');
  t.match(held.knownCertificates()[0], /^[0-9A-F]{64}$/);
  t.equal(held.get(gone.peerId), undefined);
});

t.test('a node that only the removed authority knew is refused', async (t) => {
  const held = await before();
  await putOut(second.authority, held, db1, 'stolen', LATER_MS);
  const unheard = await prod.node('app5', 'app');
  const own = roster(db1, db2, app1, unheard);
  const change = await own.merge(held.exportAll());
  t.ok(change.revoked.includes(unheard.peerId));
  t.notOk(own.admits(unheard.peerId));
  t.equal(own.digest(), (await restored(held)).digest());
});

async function restored(held: Roster): Promise<Roster> {
  const copy = new Roster(prod.trust, '/nowhere');
  await copy.merge(held.exportAll());
  return copy;
}
