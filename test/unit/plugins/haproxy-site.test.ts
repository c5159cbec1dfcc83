import { createPrivateKey, X509Certificate } from 'node:crypto';
import t from 'tap';
import { chooseSite, isFinding, readSite } from '../../../src/plugins/haproxy/site-certificate.ts';
import { Pki } from '../../integration/haproxy-bed.ts';

/** The founder's file for the site: what is taken, what is refused with its cause, and what is shown instead. */
const pki = await Pki.make();
const [site, other] = await Promise.all([pki.leaf('www', 'site'), pki.leaf('other', 'site')]);
const encrypted = createPrivateKey(site.key)
  .export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'x' })
  .toString();
const pkcs8 = createPrivateKey(site.key).export({ format: 'pem', type: 'pkcs8' }).toString();
const legacy = site.key.replace(/-----\r?\n/, '-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n');
const der = new X509Certificate(site.certificate).raw.toString('utf8');
const text = 'Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number: -----\n';

const taken: [string, string][] = [
  ['as it should be', site.pem],
  ['with what openssl -text prints', `${text}${site.pem}`],
  ['with a comment', `# www.example.com\n${site.certificate}# key\n${site.key}# end`],
  [
    'with the text of an export',
    `Bag Attributes\n    friendlyName: x\n${site.certificate}Key Attributes: <none>\n${pkcs8}`,
  ],
  ['the key first', site.key + site.certificate],
  ['its chain before it', pki.ca + site.certificate + site.key],
  ['lines of Windows', site.pem.replaceAll('\n', '\r\n')],
  ['a byte order mark', `\uFEFF${site.pem}`],
  ['no line at the end', site.pem.trimEnd()],
  ['spaces around the lines', site.pem.replaceAll('\n', '  \n')],
  ['another key as well', other.key + site.pem],
  [
    'parameters between',
    `${site.certificate}-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n${site.key}`,
  ],
  ['a block that never ends before it', `-----BEGIN NOTHING-----\n${site.pem}`],
];

const refused: [string, string, string][] = [
  ['nothing', '', 'site-certificate-missing'],
  ['garbage', '\u0000\u0001{}', 'site-certificate-missing'],
  ['DER', der, 'site-certificate-missing'],
  ['the key alone', site.key, 'site-certificate-missing'],
  ['the certificate alone', site.certificate, 'site-key-missing'],
  ['cut in the middle', site.pem.slice(0, 700), 'site-certificate-missing'],
  ['cut in the key', site.pem.slice(0, -60), 'site-key-missing'],
  ['another key', site.certificate + other.key, 'site-key-mismatch'],
  ['a key that needs a passphrase', site.certificate + encrypted, 'site-key-encrypted'],
  ['one of the old kind', site.certificate + legacy, 'site-key-encrypted'],
  [
    'a certificate of zeros',
    `-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n${site.key}`,
    'site-certificate-unreadable',
  ],
  ['a file of another size', 'x'.repeat(300_000), 'site-certificate-unreadable'],
];

t.test('what is taken from a file: the certificate of the key first, and nothing but PEM', async (t) => {
  for (const [what, file] of taken) {
    const read = readSite(file);
    if (isFinding(read)) throw new Error(`${what}: ${read.message}`);
    const [head = '', ...rest] = read.pem.split(/(?<=-----END [A-Z ]+-----\n)/);
    t.equal(new X509Certificate(head).serialNumber, new X509Certificate(site.certificate).serialNumber, what);
    t.match(rest.at(-1), /^-----BEGIN PRIVATE KEY-----\n/, `${what}: the key is last`);
    t.equal(
      read.pem.replaceAll(/-----BEGIN [A-Z ]+-----\n[A-Za-z0-9+/=\n]+-----END [A-Z ]+-----\n/g, ''),
      '',
      what,
    );
  }
  const chained = readSite(pki.ca + site.pem);
  t.ok(!isFinding(chained) && chained.pem.split('BEGIN CERTIFICATE').length === 3, 'the chain stays');
});

t.test('what is refused, with code and next step', async (t) => {
  for (const [what, file, code] of refused) {
    const read = readSite(file);
    t.match(read, { code, message: /^the site’s certificate file /, next: /reload/ }, what);
  }
  const startedMs = performance.now();
  readSite('-----BEGIN A-----'.repeat(15_000));
  t.ok(performance.now() - startedMs < 1000, 'a hostile file costs little');
});

t.test('what is shown: a good one, else the former one, else the node’s own', async (t) => {
  const [good, former] = [readSite(site.pem), readSite(other.pem)];
  if (isFinding(good) || isFinding(former)) throw new Error('both are good');
  const nowMs = Date.now();
  const none = { former: undefined, refused: new Map<string, string>(), nowMs };
  const before = { ...none, former: former.pem };
  const problem = { code: 'edge-certificate', message: 'm', next: 'n' };
  t.same(
    chooseSite(undefined, undefined, before),
    { pem: undefined, alarm: undefined },
    'taken out of the file',
  );
  t.same(chooseSite(site.pem, undefined, before), { pem: good.pem, alarm: undefined });
  for (const [what, file, code] of refused) {
    t.match(
      chooseSite(file, undefined, before),
      { pem: former.pem, alarm: { code, message: /former/ } },
      what,
    );
    t.match(chooseSite(file, undefined, none), { pem: undefined, alarm: { code, message: /own/ } }, what);
  }
  t.match(chooseSite(undefined, problem, before), { pem: former.pem, alarm: { code: 'edge-certificate' } });
  const says = { ...before, refused: new Map([[good.pem, 'key too small']]) };
  t.match(chooseSite(site.pem, undefined, says), {
    pem: former.pem,
    alarm: { code: 'site-certificate-refused', message: /key too small/ },
  });
  const both = { ...before, refused: new Map([[former.pem, 'x']]) };
  t.equal(chooseSite('', undefined, both).pem, undefined, 'a former one that is refused by now is not shown');

  const late = nowMs + 10 * 86_400_000;
  const ended = { pem: good.pem, alarm: { code: 'site-certificate-expired' } };
  t.match(chooseSite(site.pem, undefined, { ...none, nowMs: late }), ended, 'rather than another name');
  t.match(chooseSite(site.pem, undefined, { ...before, nowMs: late }), ended, 'the former has ended as well');
  t.match(chooseSite(site.pem, undefined, { ...none, nowMs: 0 }), {
    alarm: { code: 'site-certificate-not-yet-valid', next: /timedatectl/ },
  });
});
