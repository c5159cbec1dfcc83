import { generateKeyPairSync } from 'node:crypto';
import forge from 'node-forge';
import t from 'tap';
import { type Fitting, fittingLeaf, isMisfit } from '../../../src/plugins/certificates/fit.ts';

const DAY = 86_400_000;
const NOW = Date.UTC(2026, 10, 29);
const NAMES = ['shop.example', 'www.shop.example'];

const pair = () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  });
  return { pem: privateKey, key: forge.pki.privateKeyFromPem(privateKey), of: publicKey };
};
const [ca, own, other] = [pair(), pair(), pair()];
const KEY = own.pem;

interface Made {
  readonly names?: readonly (readonly [type: number, value: string])[];
  readonly fromMs?: number;
  readonly endMs?: number;
  readonly by?: typeof ca;
}

function certificate(of: typeof ca, { names = [], fromMs = NOW - DAY, endMs = NOW + DAY, by = ca }: Made) {
  const made = forge.pki.createCertificate();
  made.publicKey = forge.pki.publicKeyFromPem(of.of);
  made.serialNumber = '01';
  made.validity.notBefore = new Date(fromMs);
  made.validity.notAfter = new Date(endMs);
  made.setSubject([{ name: 'commonName', value: 'a leaf' }]);
  made.setIssuer([{ name: 'commonName', value: 'a test CA' }]);
  const altNames = names.map(([type, value]) => (type === 7 ? { type, ip: value } : { type, value }));
  made.setExtensions(altNames.length > 0 ? [{ name: 'subjectAltName', altNames }] : []);
  made.sign(by.key, forge.md.sha256.create());
  return forge.pki.certificateToPem(made).replaceAll('\r', '');
}

const dns = (...names: string[]) => names.map((name) => [2, name] as const);
const issuer = certificate(ca, {});
const chain = (made: Made = {}): string => certificate(own, { names: dns(...NAMES), ...made }) + issuer;
const judged = (of: Partial<Fitting> = {}) =>
  fittingLeaf({ chain: chain(), key: KEY, names: NAMES, nowMs: NOW, ...of });

t.test('a chain that fits its key, its names and the time gives its leaf', (t) => {
  const reordered = chain({ names: dns('WWW.shop.example', 'shop.example') });
  const wild = dns('*.shop.example');
  for (const good of [
    judged(),
    judged({ chain: certificate(own, { names: dns(...NAMES) }) }),
    judged({ chain: reordered }),
    judged({ chain: chain({ names: wild }), names: ['*.shop.example'] }),
    judged({ nowMs: NOW - DAY }),
    judged({ nowMs: NOW + DAY - 1000 }),
  ])
    t.ok(!isMisfit(good) && good.fingerprint256, isMisfit(good) ? good.message : 'it fits');
  t.end();
});

t.test('a refused chain is reported with the mismatch, and with the fact that the old one stays', (t) => {
  const cases: readonly (readonly [what: string, of: Partial<Fitting>, said: RegExp])[] = [
    ['no certificate', { chain: '' }, /cannot be read/],
    ['a page', { chain: '<html>' }, /cannot be read/],
    ['a key in it', { chain: chain() + KEY }, /cannot be read/],
    ['another key', { key: other.pem }, /another key/],
    ['a key that is none', { key: 'x' }, /another key/],
    ['the issuer first', { chain: issuer + certificate(own, { names: dns(...NAMES) }) }, /another key/],
    ['a name is missing', { chain: chain({ names: dns('shop.example') }) }, /the name www\.shop\.example/],
    [
      'a wildcard in its place',
      { chain: chain({ names: dns('shop.example', '*.shop.example') }) },
      /the name www/,
    ],
    ['no names', { chain: chain({ names: [] }) }, /the name shop\.example/],
    [
      'one name more',
      { chain: chain({ names: dns(...NAMES, 'evil.example') }) },
      /not ordered: evil\.example/,
    ],
    [
      'an address',
      { chain: chain({ names: [...dns(...NAMES), [7, '192.0.2.7']] }) },
      /not ordered: .*192\.0\.2\.7/,
    ],
    ['it has ended', { nowMs: NOW + DAY }, /clock says 2026-11-30T00:00/],
    ['a clock a day behind', { nowMs: NOW - DAY - 1000 }, /clock says 2026-11-27T23:59/],
    ['a stranger signed it', { chain: chain({ by: other }) }, /certificate 1 the next did not sign/],
  ];
  for (const [what, of, said] of cases) {
    const finding = judged(of);
    t.ok(isMisfit(finding), what);
    if (!isMisfit(finding)) continue;
    t.equal(finding.code, 'certificate-mismatch', what);
    t.match(finding.message, said, what);
    t.match(finding.message, /the former certificate stays in use/);
    t.notMatch(finding.message, /PRIVATE/);
  }
  t.end();
});
