import { randomBytes, X509Certificate } from 'node:crypto';
import t from 'tap';
import {
  buildIntermediate,
  buildRoot,
  createTlsKey,
  publicPem,
} from '../../../src/daemon/identity/keys/certificates.ts';
import {
  certificatesIn,
  type NodeCertificate,
  type Trust,
  trustOf,
  verifyChain,
} from '../../../src/daemon/identity/keys/chain.ts';
import { createNodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import type { Root } from '../../../src/daemon/identity/root/recovery.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { createSigningRequest } from '../../../src/daemon/identity/keys/signing-request.ts';
import { encodeRoster } from '../../../src/daemon/identity/roster/roster-encoding.ts';
import {
  RootLine,
  type SignedSuccession,
  signEnding,
  signSuccession,
  verifySuccession,
} from '../../../src/daemon/identity/root/succession.ts';
import { signAs } from './later-words.ts';
import { codeOf, furtherAuthority, NOW_MS, testCluster } from './cluster.ts';

/** `prod` is under root A. B and C follow it; X is what a thief of A's key made; Z is of another cluster. */
const firstKey = createNodeKey();
const prod = await testCluster('prod', firstKey.peerId);
const A = prod.root;
const [B, C, X, Z] = await Promise.all([newRoot(), newRoot(), newRoot(), newRoot('other')]);

async function newRoot(cluster = 'prod'): Promise<Root> {
  const key = await createTlsKey();
  return {
    cluster,
    key,
    certificatePem: await buildRoot(cluster, randomBytes(4).toString('hex'), key, NOW_MS),
  };
}
const word = (from: Root, to: Root, sequence = 1) =>
  signSuccession(from, to, { sequence, madeAtMs: NOW_MS + sequence });
const ended = async (from: Root, to: Root, sequence = 1) => signEnding(await word(from, to, sequence), to);
const [aToB, aToX, aToC2, bToC] = await Promise.all([word(A, B), word(A, X), word(A, C, 2), word(B, C)]);
const [aToBEnded, aToXEnded, aToC2Ended] = await Promise.all([ended(A, B), ended(A, X), ended(A, C, 2)]);
const bToCEnded = await signEnding(bToC, C);

const NAMES = new Map([A, B, C, X].map((root, at) => [fingerprint(root), 'ABCX'.charAt(at)]));
function fingerprint(root: Root): string {
  return trustOf(root.cluster, root.certificatePem).roots[0]?.fingerprint ?? '';
}
const believed = ({ roots }: Trust): string =>
  roots.map((root) => NAMES.get(root.fingerprint) ?? '?').join('');

/** A node that holds these roots hears words one after the other. @returns whom it believes, and what it refused */
function after(held: readonly Root[], ...words: readonly SignedSuccession[]): string {
  const trust = trustOf('prod', held.map((root) => root.certificatePem).join(''));
  const line = new RootLine(trust);
  const refused = words.flatMap((each) =>
    line.take([verifySuccession(each, 'prod')]).refused.map(({ code }) => code),
  );
  return [believed(trust), ...refused].join(' ');
}

// With members, authorities and revocations

const secondKey = createNodeKey();
const db1 = await prod.node('db1', 'db', { nodeKey: firstKey });
const db2 = await prod.node('db2', 'db', { nodeKey: secondKey });
const gone = await prod.node('app9', 'app');
const second = await furtherAuthority(A, prod.trust, secondKey.peerId);
const authorities = [prod.authority.certificate, second.authority.certificate];
const underB = await hungOn(B);

/** Certificates of both authorities under another root, over the keys that they have. */
async function hungOn(root: Root): Promise<Buffer[]> {
  const made = authorities.map(({ peerId, x509 }) =>
    buildIntermediate(root, { cluster: 'prod', peerId, spkiPem: publicPem(x509.publicKey) }, NOW_MS),
  );
  return (await Promise.all(made)).map((pem) => certificatesIn(pem)[0]?.raw ?? Buffer.alloc(0));
}

const trustIn = (root: Root) => trustOf('prod', root.certificatePem);
function roster(root = A, ...members: readonly NodeCertificate[]): Roster {
  const made = new Roster(trustIn(root), '/nowhere');
  for (const member of members) made.add(member);
  return made;
}
const changeOf = (signed: SignedSuccession, under: readonly Buffer[] = underB) =>
  encodeRoster({
    cluster: 'prod',
    successions: [signed],
    authorities: under,
    certificates: [],
    revocations: [],
  });

async function before(): Promise<Roster> {
  const made = roster(A, db1, db2, gone);
  for (const { pem } of authorities) made.addAuthority(pem);
  made.addRevocation(await prod.authority.revoke({ ...gone, serials: [gone.serialHex] }, 'sold', NOW_MS));
  return made;
}

t.test(
  'a node follows another root that its present root signed, and both are valid until it ends',
  async (t) => {
    t.equal(after([A]), 'A');
    t.equal(after([A], aToB), 'AB');
    t.equal(after([A], aToB, aToB), 'AB', 'twice is once');
    t.equal(after([A], aToB, aToBEnded), 'B');
    t.equal(after([A], aToBEnded), 'B', 'who was away for all of it');
    t.equal(after([A], aToBEnded, aToB), 'B', 'who has not heard of the end does not bring it back');
    t.equal(after([A], aToBEnded, bToC), 'BC');
    t.equal(after([A], aToBEnded, bToCEnded), 'C');
  },
);

t.test(
  'changes arrive in any order, and a later member keeps them without trust in former roots',
  async (t) => {
    const all = [aToBEnded, bToC].map((each) => verifySuccession(each, 'prod'));
    for (const words of [all, all.toReversed()]) {
      const trust = trustOf('prod', A.certificatePem);
      t.strictSame(new RootLine(trust).take(words).refused, []);
      t.equal(believed(trust), 'BC');
    }
    t.equal(after([B], aToBEnded), 'B');
    t.equal(after([C], bToCEnded, aToBEnded), 'C');
    t.equal(after([B], aToB), 'B', 'also one that is not ended');
    t.equal(after([A, B], aToB), 'AB', 'admitted while both count');
    t.equal(after([A, B], aToB, aToBEnded), 'B');
  },
);

t.test(
  'two successors of one root: refused and reported, or the higher one while none has ended',
  async (t) => {
    t.equal(after([A], aToB, aToX), 'AB succession-rival');
    t.equal(after([A], aToX, aToB), 'AX succession-rival');
    t.equal(after([A], aToB, aToC2), 'AC', 'the operator lost the bundle of B and made another');
    t.equal(after([A], aToC2, aToB), 'AC', 'who has not heard of it says nothing new');
    t.equal(after([A], aToBEnded, aToC2), 'B succession-rival', 'what has ended cannot be outbid');
    t.equal(after([A], aToC2, aToBEnded), 'B', 'all come to the one that ended, whoever hears what first');
    t.equal(after([A], aToBEnded, aToXEnded), 'B succession-rival');
    t.equal(after([B], aToBEnded, aToX), 'B succession-rival', 'also where the old root was never held');
    t.equal(after([A], aToC2Ended, aToB), 'C', 'a word that was outbid before the end alarms nobody');
  },
);

t.test('changes from strangers and forged changes are refused', async (t) => {
  t.equal(after([C], aToB), 'C succession-foreign');
  const decode = (signed: SignedSuccession) => codeOf(() => verifySuccession(signed, 'prod'));
  t.equal(await decode({ ...aToB, byOld: aToX.byOld }), 'succession-forged');
  t.equal(await decode({ ...aToB, byNew: aToB.byOld }), 'succession-forged');
  t.equal(
    await decode({ ...aToB, ending: aToB.byNew }),
    'succession-forged',
    'the new root’s consent ends nothing',
  );
  t.equal(await decode({ ...aToB, payload: aToX.payload }), 'succession-forged');
  t.equal(await decode({ ...aToB, payload: Buffer.alloc(7000) }), 'succession-malformed');
  t.equal(await decode(await word(A, A)), 'succession-forged', 'a root does not follow itself');
  t.equal(await codeOf(() => verifySuccession(aToB, 'other')), 'root-malformed');
  // A thief of the new root’s key alone, and of an authority’s, can say nothing about the old one.
  t.equal(await decode({ ...aToX, byOld: aToX.byNew }), 'succession-forged');
  const foreign = await signSuccession(
    Z,
    { ...Z, ...(await newRoot('other')) },
    { sequence: 1, madeAtMs: 1 },
  );
  t.equal(await codeOf(() => verifySuccession(foreign, 'prod')), 'root-malformed');
});

t.test('fields of a later version are carried on under the old signatures', async (t) => {
  const later = signAs({ ...JSON.parse(aToB.payload.toString()), reason: 'of a later version' }, A, B);
  const read = verifySuccession(later, 'prod');
  t.equal(read.sequence, 1);
  const held = roster();
  t.strictSame((await held.merge(changeOf(later))).refused, []);
  const other = roster();
  await other.merge(held.exportAll());
  t.match(other.successions()[0]?.signed.payload.toString(), '"reason":"of a later version"');
  t.equal(other.digest(), held.digest());
});

t.test(
  'members, authorities and revocations are valid under the new root, none of them signed again',
  async (t) => {
    const held = await before();
    const begun = await held.merge(changeOf(aToB));
    t.match(begun, { changed: true, roots: true, refused: [], revoked: [] });
    t.equal(held.members()[0]?.chainPem, db1.chainPem, 'nothing moves while both count');
    const end = await held.merge(changeOf(aToBEnded));
    t.match(end, { changed: true, roots: true, refused: [], revoked: [], renewed: [], admitted: [] });
    t.strictSame(
      held.members().map(({ serialHex }) => serialHex),
      [db1.serialHex, db2.serialHex],
    );
    for (const { chainPem } of held.members()) t.ok(verifyChain(chainPem, trustIn(B), NOW_MS));
    t.strictSame(held.authorities(), [firstKey.peerId, secondKey.peerId].sort());
    t.ok(held.isRevoked(gone.peerId));
    t.strictSame(held.serialsOf(gone.peerId), [gone.serialHex]);
    t.equal(await codeOf(() => held.present(gone.chainPem, gone.peerId)), 'peer-revoked');
    t.equal(held.rootChange, undefined);
  },
);

t.test('who was away for all of it comes to the same, and so does who was admitted after it', async (t) => {
  const held = await before();
  await held.merge(changeOf(aToB));
  await held.merge(changeOf(aToBEnded));
  const away = await before();
  t.strictSame((await away.merge(held.exportAll())).refused, []);
  t.equal(away.digest(), held.digest());
  const fresh = roster(B);
  t.strictSame((await fresh.merge(held.exportAll())).refused, []);
  t.equal(fresh.digest(), held.digest());
  // It hands on the word that it cannot use itself.
  const late = await before();
  await late.merge(fresh.exportAll());
  t.equal(late.digest(), held.digest());
  // What the away one says in its own words adds nothing, and a chain of old is read as the one of now.
  t.notOk((await held.merge((await before()).exportAll())).changed);
  t.notOk(held.present(db2.chainPem, db2.peerId).changed);
});

t.test('after the end, nothing counts that a thief of the old root’s key signs', async (t) => {
  const held = await before();
  await held.merge(changeOf(aToB));
  const thief = createNodeKey();
  const stolen = await furtherAuthority(A, trustIn(A), thief.peerId);
  const names = {
    host: 'evil',
    role: 'db',
    address: '10.0.9.9',
    admittedAtMs: NOW_MS,
    peerId: thief.peerId,
  } as const;
  const evil = await stolen.authority.issue(
    { ...names, csrPem: createSigningRequest(prod.tlsKey, 'evil', 'db') },
    NOW_MS,
  );
  t.ok(held.present(evil.chainPem, evil.peerId).changed, 'while both count it is as bad as ever');
  const change = await held.merge(changeOf(aToBEnded));
  t.strictSame(
    change.revoked,
    [evil.peerId],
    'an authority that the new root does not know goes with the old one',
  );
  t.equal(await codeOf(() => held.present(evil.chainPem, evil.peerId)), 'certificate-foreign');
  const rival = await held.merge(changeOf(aToXEnded, await hungOn(X)));
  t.strictSame(
    rival.refused.map(({ code }) => code),
    ['succession-rival'],
  );
  t.notOk(rival.changed);
  t.match(held.rivals(), [/names two that follow it/]);
  t.equal(held.rivals().length, 1);
});

t.test('a node without the change knows authorities by their keys, and no others', async (t) => {
  const held = await before();
  const digest = held.digest();
  const stranger = createNodeKey();
  const spkiPem = publicPem(await createTlsKey());
  const pem = await buildIntermediate(B, { cluster: 'prod', peerId: stranger.peerId, spkiPem }, NOW_MS);
  const unknown = certificatesIn(pem)[0]?.raw ?? Buffer.alloc(0);
  const nothing = { cluster: 'prod', successions: [], certificates: [], revocations: [] };
  const { refused } = await held.merge(encodeRoster({ ...nothing, authorities: [...underB, unknown] }));
  t.strictSame(
    refused.map(({ code }) => code),
    ['certificate-foreign'],
  );
  t.equal(held.digest(), digest);
  const [leaf = ''] = db2.chainPem.split(/(?<=-----END CERTIFICATE-----\n)/);
  const moved = leaf + new X509Certificate(underB[0] ?? '').toString();
  t.notOk(
    held.present(moved, db2.peerId).changed,
    'who has moved already is accepted although its issuer was removed',
  );
});
