import { X509Certificate } from 'node:crypto';
import t from 'tap';
import {
  buildIntermediate,
  buildNodeCertificate,
  type NodeNames,
  publicPem,
} from '../../../src/daemon/identity/keys/certificates.ts';
import { certificatesIn, renewalDue, trustOf, verifyChain } from '../../../src/daemon/identity/keys/chain.ts';
import { createNodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { codeOf, DAY_MS, NOW_MS, testCluster } from './cluster.ts';

const prod = await testCluster();
const member = await prod.node('db1', 'db', { address: '10.0.0.7', admittedAtMs: NOW_MS });
const [leaf, intermediate] = certificatesIn(member.chainPem).map((x509) => x509.toString());

/** A certificate that the authority's key signs although the authority itself never would. */
async function signedBy(
  names: Partial<NodeNames>,
  issuer = { certificatePem: prod.authority.certificate.pem, key: prod.authorityKey },
) {
  const usual: NodeNames = {
    cluster: 'prod',
    host: 'db1',
    role: 'db',
    address: '10.0.0.7',
    peerId: member.peerId,
    admittedAtMs: NOW_MS,
  };
  return buildNodeCertificate(issuer, { ...usual, ...names, spkiPem: publicPem(prod.tlsKey) }, NOW_MS);
}

t.test('a chain says who the node is', async (t) => {
  t.match(verifyChain(member.chainPem, prod.trust, NOW_MS), {
    name: 'db1/db',
    host: 'db1',
    role: 'db',
    address: '10.0.0.7',
    cluster: 'prod',
    peerId: member.peerId,
    admittedAtMs: NOW_MS,
    notBeforeMs: NOW_MS - DAY_MS,
    notAfterMs: NOW_MS + 90 * DAY_MS,
    issuer: prod.authority.peerId,
  });
  t.match(member.serialHex, /^[4-7][0-9A-F]{31}$/, 'a serial that every program prints alike');
  t.ok(
    verifyChain(member.chainPem + prod.root.certificatePem, prod.trust, NOW_MS),
    'the root may be sent along',
  );
});

t.test('the certificate is made for HAProxy and for Erlang', async (t) => {
  const x509 = new X509Certificate(leaf ?? '');
  t.equal(x509.subject, 'CN=db1\nOU=db');
  t.equal(x509.checkHost('10.0.0.7'), '10.0.0.7', 'the address also stands among the DNS names');
  t.equal(x509.checkIP('10.0.0.7'), '10.0.0.7');
  t.equal(x509.checkHost('db1.db.prod.internal'), 'db1.db.prod.internal');
  t.notOk(x509.ca);
  t.strictSame(x509.keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'], 'for servers and for clients');
});

t.test('the root lasts longer than ten years, and is no one else than the token says', async (t) => {
  const [root] = prod.trust.roots;
  t.ok((root?.x509.validToDate.getTime() ?? 0) > NOW_MS + 10 * 366 * DAY_MS);
  t.match(root?.fingerprint, /^[0-9a-f]{64}$/);
  t.equal(root?.fingerprint, root?.x509.fingerprint256.replaceAll(':', '').toLowerCase());
});

t.test('dates are kept, unless only the identity is asked for', async (t) => {
  t.equal(
    await codeOf(() => verifyChain(member.chainPem, prod.trust, NOW_MS + 91 * DAY_MS)),
    'certificate-expired',
  );
  t.equal(
    await codeOf(() => verifyChain(member.chainPem, prod.trust, NOW_MS - 2 * DAY_MS)),
    'certificate-not-yet-valid',
  );
  t.ok(
    verifyChain(member.chainPem, prod.trust, NOW_MS - DAY_MS + 1),
    'a clock that is a day behind still works',
  );
  t.equal(verifyChain(member.chainPem, prod.trust, 'any-time').name, 'db1/db');
});

t.test('half-way through its life a certificate is to be renewed', async (t) => {
  t.notOk(renewalDue(member, NOW_MS + 44 * DAY_MS));
  t.ok(renewalDue(member, NOW_MS + 45 * DAY_MS));
});

t.test('another cluster is another cluster, also under the same name', async (t) => {
  const twin = await testCluster('prod');
  const foreign = await twin.node('db1');
  t.equal(await codeOf(() => verifyChain(foreign.chainPem, prod.trust, NOW_MS)), 'certificate-foreign');
  const mixed = `${certificatesIn(foreign.chainPem)[0]?.toString() ?? ''}${intermediate ?? ''}`;
  t.equal(await codeOf(() => verifyChain(mixed, prod.trust, NOW_MS)), 'certificate-foreign');
  t.equal(
    await codeOf(() => verifyChain(member.chainPem + twin.root.certificatePem, prod.trust, NOW_MS)),
    'certificate-foreign',
  );
  t.equal(await codeOf(() => trustOf('other', prod.root.certificatePem)), 'root-malformed');
});

t.test('a node cannot sign for others', async (t) => {
  const own = await signedBy({ host: 'evil' }, { certificatePem: leaf ?? '', key: prod.tlsKey });
  t.equal(await codeOf(() => verifyChain(own + (leaf ?? ''), prod.trust, NOW_MS)), 'certificate-foreign');
  t.equal(
    await codeOf(() => verifyChain(own + (intermediate ?? ''), prod.trust, NOW_MS)),
    'certificate-foreign',
  );
});

t.test(
  'a signature by any other key is no signature, however well the names and key identifiers fit',
  async (t) => {
    const byNode = await signedBy({}, { certificatePem: prod.authority.certificate.pem, key: prod.tlsKey });
    t.equal(
      await codeOf(() => verifyChain(byNode + (intermediate ?? ''), prod.trust, NOW_MS)),
      'certificate-foreign',
      "a node's certificate that the authority did not sign",
    );
    const forgedRoot = { cluster: 'prod', certificatePem: prod.root.certificatePem, key: prod.tlsKey };
    const facts = { cluster: 'prod', peerId: createNodeKey().peerId, spkiPem: publicPem(prod.tlsKey) };
    const own = await buildIntermediate(forgedRoot, facts, NOW_MS);
    const pem = await signedBy({}, { certificatePem: own, key: prod.tlsKey });
    t.equal(
      await codeOf(() => verifyChain(pem + own, prod.trust, NOW_MS)),
      'certificate-foreign',
      'an authority that the root did not sign',
    );
  },
);

t.test('neither the root nor an authority is a node', async (t) => {
  const upper = prod.authority.certificate.pem + prod.root.certificatePem;
  t.equal(await codeOf(() => verifyChain(upper, prod.trust, NOW_MS)), 'certificate-foreign');
  t.equal(await codeOf(() => trustOf('prod', prod.authority.certificate.pem)), 'root-malformed');
});

t.test('an intermediate of another cluster under the same root is refused', async (t) => {
  const facts = { cluster: 'dev', peerId: createNodeKey().peerId, spkiPem: publicPem(prod.authorityKey) };
  const strange = await buildIntermediate(prod.root, facts, NOW_MS);
  const pem = await signedBy({}, { certificatePem: strange, key: prod.authorityKey });
  t.equal(await codeOf(() => verifyChain(pem + strange, prod.trust, NOW_MS)), 'certificate-foreign');
});

t.test('a certificate that says anything unusual is refused, whoever signed it', async (t) => {
  const unusual: Partial<NodeNames>[] = [
    { host: 'DB1' },
    { host: 'db1"\nOU=app' },
    { host: 'db1, URI:bornemisza://prod/x?admitted=1' },
    { role: 'root' as 'db' },
    { cluster: 'dev' },
    { peerId: 'nobody' },
    { peerId: '12D3KooWNobody' },
    { address: '0.0.0.0' },
    { admittedAtMs: -1 },
    { admittedAtMs: 1.5 },
  ];
  for (const names of unusual) {
    const pem = (await signedBy(names)) + (intermediate ?? '');
    t.equal(
      await codeOf(() => verifyChain(pem, prod.trust, NOW_MS)),
      'certificate-not-node',
      JSON.stringify(names),
    );
  }
});

t.test('what is no chain of two is refused', async (t) => {
  const broken = [
    '',
    'garbage',
    leaf ?? '',
    (intermediate ?? '') + (leaf ?? ''),
    `${member.chainPem}trailing`,
    member.chainPem.slice(0, -100),
    member.chainPem.replace('MII', 'MIA'),
    member.chainPem.repeat(2),
    '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'.repeat(2),
    'x'.repeat(1_000_000),
  ];
  for (const pem of broken) {
    t.match(
      await codeOf(() => verifyChain(pem, prod.trust, NOW_MS)),
      /^certificate-(malformed|foreign)$/,
      pem.slice(0, 40),
    );
  }
});

/**
 * The same certificate with a kind of key that OpenSSL does not know: it is parsed, and its key throws when it is
 * looked at.
 */
function ofUnknownKey(pem: string): string {
  const der = Buffer.from(new X509Certificate(pem).raw);
  const rsaEncryption = der.indexOf(Buffer.from('2a864886f70d010101', 'hex'));
  der[rsaEncryption] = 0xea;
  return `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;
}

t.test(
  'a key of an unknown kind is refused like any other, in a leaf, an authority and a root',
  async (t) => {
    const [bare = '', above = ''] = [leaf, intermediate];
    t.throws(() => new X509Certificate(ofUnknownKey(bare)).publicKey, { code: 'ERR_OSSL_EVP_DECODE_ERROR' });
    for (const chain of [ofUnknownKey(bare) + above, bare + ofUnknownKey(above)])
      t.match(await codeOf(() => verifyChain(chain, prod.trust, NOW_MS)), /^certificate-/);
    t.equal(await codeOf(() => trustOf('prod', ofUnknownKey(prod.root.certificatePem))), 'root-malformed');
  },
);
