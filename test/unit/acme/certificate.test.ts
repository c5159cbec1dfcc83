import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import * as fc from 'fast-check';
import t from 'tap';
import { isCertifiableName, renewalId, signingRequest } from '../../../src/acme/certificate.ts';
import { der, oid, TAG, valuesIn } from '../../../src/acme/der.ts';
import { certificateKey, RFC_9773_CERTIFICATE } from './keys.ts';

function openssl(input: Buffer): [text: string, verdict: string] {
  const args = ['req', '-inform', 'DER', '-noout', '-text', '-verify'];
  const { stdout, stderr } = spawnSync('openssl', args, { input, encoding: 'utf8' });
  return [stdout, stderr];
}

t.test('OpenSSL reads a signing request, and its signature holds', (t) => {
  const names = ['shop.example', '*.shop.example', `${'a'.repeat(63)}.shop.example`, 'shop.example'];
  const many = Array.from({ length: 100 }, (_, at) => `n${at}.shop.example`);
  for (const asked of [names, many, ['shop.example']]) {
    const [text, verdict] = openssl(signingRequest(asked, certificateKey));
    t.match(verdict, /verify OK/);
    const found = [...text.matchAll(/DNS:([^,\s]+)/g)].map(([, name]) => name);
    t.strictSame(found, [...new Set(asked)]);
    t.match(text, /ASN1 OID: prime256v1/);
    t.match(text, /Signature Algorithm: ecdsa-with-SHA256/);
    t.match(text, /Subject:\s*\n/, 'the subject is empty');
  }
  const changed = signingRequest(['shop.example'], certificateKey);
  changed.write('shap', changed.indexOf('shop.example'));
  t.match(openssl(changed)[1], /verify failure/);
  t.end();
});

t.test('what no certificate bears is refused before a request is made', (t) => {
  for (const name of [
    'shop.example',
    'a-b.shop.example',
    '*.shop.example',
    'xn--mnchen-3ya.example',
    '1.example',
  ])
    t.ok(isCertifiableName(name), name);
  const bad = [
    '',
    'localhost',
    'Shop.Example',
    'shop.example.',
    '.example',
    'shop..example',
    '-shop.example',
    'shop-.example',
    'sh_op.example',
    'münchen.example',
    '*.example',
    'a.*.shop.example',
    '*a.shop.example',
    '192.0.2.1',
    '2001:db8::1',
    'shop.example:443',
    'shop.example\n',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(130)}example`,
  ];
  for (const name of bad) {
    t.notOk(isCertifiableName(name), name);
    t.throws(() => signingRequest(['shop.example', name], certificateKey), RangeError, name);
  }
  t.throws(() => signingRequest([], certificateKey), RangeError);
  const many = Array.from({ length: 101 }, (_, at) => `n${at}.shop.example`);
  t.throws(() => signingRequest(many, certificateKey), RangeError);
  t.end();
});

t.test('a certificate is named as RFC 9773, section 4.1, names its example', (t) => {
  t.equal(renewalId(new X509Certificate(RFC_9773_CERTIFICATE)), 'aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE');
  t.end();
});

t.test('DER that was written is read again, whatever its length', (t) => {
  const lengths = fc.oneof(fc.nat(300), fc.constantFrom(127, 128, 255, 256, 65_535, 65_536));
  fc.assert(
    fc.property(lengths, lengths, (one, other) => {
      const parts = [Buffer.alloc(one, 1), Buffer.alloc(other, 2)] as const;
      const read = valuesIn(Buffer.concat(parts.map((part) => der(TAG.octetString, part))));
      return read.length === 2 && read.every(({ content }, at) => content.equals(parts[at] ?? Buffer.of()));
    }),
  );
  t.equal(oid('1.2.840.113549.1.9.14').toString('hex'), '06092a864886f70d01090e');
  t.end();
});

t.test('bytes that are no DER end in one kind of error', (t) => {
  const read = (bytes: Buffer, raw: (bytes: Buffer) => unknown): boolean => {
    try {
      raw(bytes);
      return true;
    } catch (error) {
      return error instanceof RangeError;
    }
  };
  const real = new X509Certificate(RFC_9773_CERTIFICATE).raw;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => read(Buffer.from(bytes), valuesIn)),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.nat(real.length - 1), fc.nat(255), (at, byte) => {
      const broken = Buffer.from(real);
      broken.writeUInt8(byte, at);
      return read(broken, (raw) => renewalId({ raw: Buffer.from(raw) }));
    }),
    { numRuns: 2000 },
  );
  t.end();
});
