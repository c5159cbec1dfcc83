import { generateKeyPairSync } from 'node:crypto';
import t from 'tap';
import { certificatesIn, verifyChain } from '../../../src/daemon/identity/keys/chain.ts';
import { createNodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { createPassphrase, openRoot, sealRoot } from '../../../src/daemon/identity/root/recovery.ts';
import { verifyRevocation } from '../../../src/daemon/identity/roster/revocation.ts';
import {
  createSigningRequest,
  verifySigningRequest,
} from '../../../src/daemon/identity/keys/signing-request.ts';
import { codeOf, DAY_MS, furtherAuthority, NOW_MS, testCluster } from './cluster.ts';

const prod = await testCluster();

t.test('a request for another host or role than decided is refused', async (t) => {
  const names = {
    host: 'app1',
    role: 'app',
    address: '10.0.0.1',
    peerId: createNodeKey().peerId,
    admittedAtMs: NOW_MS,
  } as const;
  for (const csrPem of [
    createSigningRequest(prod.tlsKey, 'app1', 'db'),
    createSigningRequest(prod.tlsKey, 'app2', 'app'),
  ]) {
    t.equal(await codeOf(() => prod.authority.issue({ ...names, csrPem }, NOW_MS)), 'request-other-name');
  }
});

t.test('a request must be whole, signed by its own key, and of a strong key', async (t) => {
  const good = createSigningRequest(prod.tlsKey, 'app1', 'app');
  t.match(verifySigningRequest(good), { commonName: 'app1', unit: 'app' });
  const flipped = good.replace(/.(?=.{3}\n-----END)/, (character) => (character === 'A' ? 'B' : 'A'));
  for (const bad of ['', 'x', good.slice(0, 200), flipped, good.repeat(20)]) {
    t.equal(await codeOf(() => verifySigningRequest(bad)), 'request-malformed', bad.slice(0, 40));
  }
  const weak = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  t.equal(
    await codeOf(() => verifySigningRequest(createSigningRequest(weak, 'app1', 'app'))),
    'request-key-weak',
  );
  const odd = generateKeyPairSync('rsa', { modulusLength: 3072, publicExponent: 3 }).privateKey;
  t.equal(
    await codeOf(() => verifySigningRequest(createSigningRequest(odd, 'app1', 'app'))),
    'request-key-weak',
  );
});

t.test('a renewed certificate is of the same member, with its place in the order of admission', async (t) => {
  const first = await prod.node('db1');
  const later = NOW_MS + 200 * DAY_MS;
  const renewed = await prod.authority.renew(first, createSigningRequest(prod.tlsKey, 'db1', 'db'), later);
  t.match(renewed, {
    peerId: first.peerId,
    name: first.name,
    address: first.address,
    admittedAtMs: first.admittedAtMs,
  });
  t.equal(renewed.notAfterMs, later + 90 * DAY_MS);
  t.not(renewed.serialHex, first.serialHex);
});

t.test('a certificate never outlives its authority', async (t) => {
  const nearEnd = prod.authority.certificate.notAfterMs - 10 * DAY_MS;
  const last = await prod.node('late', 'db', { nowMs: nearEnd });
  t.equal(last.notAfterMs, prod.authority.certificate.notAfterMs);
});

t.test('a revocation is believed by whoever has the root', async (t) => {
  const gone = await prod.node('db9');
  const bytes = await prod.authority.revoke(
    { ...gone, serials: [gone.serialHex] },
    'sold\nthe "machine"',
    NOW_MS,
  );
  const read = verifyRevocation(bytes, prod.trust);
  t.match(read, {
    peerId: gone.peerId,
    name: 'db9/db',
    serials: [gone.serialHex],
    revokedAtMs: NOW_MS,
    reason: 'sold the "machine"',
  });
  t.equal(read.by.peerId, prod.authority.peerId);
});

t.test('a revocation that was changed, or signed by anybody else, is not', async (t) => {
  const gone = await prod.node('db9');
  const bytes = Buffer.from(await prod.authority.revoke({ ...gone, serials: [] }, '', NOW_MS));
  const envelope = JSON.parse(bytes.toString()) as Record<string, string>;
  const victim = await prod.node('db1');
  const payload = Buffer.from(envelope['payload'] ?? '', 'base64')
    .toString()
    .replace(gone.peerId, victim.peerId);
  const changed = { ...envelope, payload: Buffer.from(payload).toString('base64') };
  t.equal(
    await codeOf(() => verifyRevocation(Buffer.from(JSON.stringify(changed)), prod.trust)),
    'revocation-forged',
  );
  const byNode = { ...envelope, authority: certificatesIn(gone.chainPem)[0]?.raw.toString('base64') };
  t.equal(
    await codeOf(() => verifyRevocation(Buffer.from(JSON.stringify(byNode)), prod.trust)),
    'certificate-foreign',
  );
  const twin = await testCluster('prod');
  const foreign = await twin.authority.revoke({ ...victim, serials: [] }, '', NOW_MS);
  t.equal(await codeOf(() => verifyRevocation(foreign, prod.trust)), 'certificate-foreign');
  for (const bad of [
    '',
    '{}',
    '[]',
    'null',
    bytes.toString().slice(0, 300),
    '['.repeat(16_000),
    ' '.repeat(20_000),
  ]) {
    t.equal(
      await codeOf(() => verifyRevocation(Buffer.from(bad), prod.trust)),
      'revocation-malformed',
      bad.slice(0, 20),
    );
  }
});

t.test('a second authority signs what the whole cluster believes', async (t) => {
  const peerId = createNodeKey().peerId;
  const second = await furtherAuthority(prod.root, prod.trust, peerId);
  const csrPem = createSigningRequest(prod.tlsKey, 'app7', 'app');
  const names = {
    host: 'app7',
    role: 'app',
    address: '10.0.7.7',
    peerId: createNodeKey().peerId,
    admittedAtMs: NOW_MS,
  } as const;
  const issued = await second.authority.issue({ ...names, csrPem }, NOW_MS);
  t.equal(verifyChain(issued.chainPem, prod.trust, NOW_MS).issuer, peerId);
});

t.test('the recovery bundle gives the root back to whoever has the passphrase', async (t) => {
  const passphrase = createPassphrase();
  t.match(passphrase, /^([a-z2-9]{5}-){5}[a-z2-9]{5}$/);
  const bundle = await sealRoot(prod.root, passphrase);
  t.notMatch(bundle, 'PRIVATE KEY');
  const opened = await openRoot(`\n  ${bundle}\n`, ` ${passphrase}\n`);
  t.ok(opened.key.equals(prod.root.key));
  t.equal(opened.certificatePem, prod.root.certificatePem);
  t.equal(await codeOf(() => openRoot(bundle, createPassphrase())), 'recovery-passphrase-wrong');
  for (const bad of ['', bundle.slice(0, 800), bundle.slice(50), 'x'.repeat(1_000_000)]) {
    t.equal(await codeOf(() => openRoot(bad, passphrase)), 'recovery-malformed');
  }
  t.equal(await codeOf(() => sealRoot(prod.root, 'short')), 'passphrase-short');
});

t.test('a bundle whose certificate was exchanged does not open', async (t) => {
  const passphrase = createPassphrase();
  const bundle = await sealRoot(prod.root, passphrase);
  const twin = await testCluster('prod');
  const [begin = '', end = ''] = bundle.match(/^-----.*-----$/gm) ?? [];
  const body = JSON.parse(
    Buffer.from(bundle.replace(begin, '').replace(end, ''), 'base64').toString(),
  ) as object;
  const exchanged = Buffer.from(JSON.stringify({ ...body, root: twin.root.certificatePem })).toString(
    'base64',
  );
  t.equal(
    await codeOf(() => openRoot(`${begin}\n${exchanged}\n${end}`, passphrase)),
    'recovery-passphrase-wrong',
  );
});
