import { generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import t from 'tap';
import type { AcmeOrder } from '../../src/acme/answers.ts';
import { renewalId, signingRequest } from '../../src/acme/certificate.ts';
import { AcmeClient, REVOKED_FOR } from '../../src/acme/client.ts';
import { notAuthorized } from '../../src/acme/error.ts';
import { keyAuthorization, thumbprint } from '../../src/acme/jws.ts';
import { freePort } from '../support/free-port.ts';
import { until } from '../support/until.ts';
import { EXTERNAL, type Injected, type Pebble, startPebble } from './acme-bed.ts';
import { appDesired, Bed, converge, get } from './haproxy-bed.ts';

/** The ACME client at a real CA. */
const { signal } = new AbortController();
const NAMES = ['shop.example', 'www.shop.example'];
const ACCOUNT = { contact: ['mailto:ops@shop.example'], termsAgreed: true };
const newKey = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

/** A client for each step, with nothing but the key and the account's address: as another node would take over. */
type Clients = () => AcmeClient;

async function clientsOf(pebble: Pebble, accountKey = newKey()): Promise<Clients> {
  const { directoryUrl, ca } = pebble;
  const options = { directoryUrl, ca, accountKey, userAgent: 'bornemisza/test' };
  pebble.edge = (token) => keyAuthorization(token, accountKey);
  const accountUrl = await new AcmeClient(options).account(ACCOUNT, signal);
  return () => new AcmeClient({ ...options, accountUrl });
}

/** Answers all challenges of an order, and waits until the CA has looked. */
async function authorize(client: Clients, order: AcmeOrder): Promise<void> {
  for (const url of order.authorizations) {
    const { challenges } = await client().authorization(url, signal);
    const challenge = challenges.find(({ type }) => type === 'http-01');
    if (challenge === undefined) throw new Error('no http-01');
    await client().answer(challenge.url, signal);
    const found = await until(
      async () => {
        const now = await client().authorization(url, signal);
        return now.status === 'pending' ? undefined : now;
      },
      { deadlineMs: 60_000, everyMs: 50 },
    );
    if (found.status !== 'valid')
      throw notAuthorized(found.name, found.challenges.find(({ problem }) => problem !== undefined)?.problem);
  }
}

async function issued(
  client: Clients,
  key: KeyObject,
  replaces?: X509Certificate,
): Promise<X509Certificate[]> {
  const order = await client().newOrder({ names: NAMES, replaces }, signal);
  await authorize(client, order);
  const ready = await until(
    async () => {
      const now = await client().order(order.url, signal);
      return now.status === 'pending' ? undefined : now;
    },
    { deadlineMs: 60_000, everyMs: 50 },
  );
  await client().finalize(ready, signingRequest(NAMES, key), signal);
  const done = await until(
    async () => {
      const now = await client().order(order.url, signal);
      return now.status === 'valid' ? now : undefined;
    },
    { deadlineMs: 60_000, everyMs: 50 },
  );
  const pem = await client().certificate(done.certificate ?? '', signal);
  return pem.split(/(?<=-----END CERTIFICATE-----\n)/).map((each) => new X509Certificate(each));
}

const refusedNonces = ({ answered }: Pebble): number =>
  answered.filter(({ status, body }) => status === 400 && body.includes('error:badNonce')).length;

t.test('an order from its start to a chain, each step by a client of its own, nonces refused', async (t) => {
  // Six refusals in a row end a call: one call of a million.
  const pebble = await startPebble(t, { refusedNonces: 10 });
  const client = await clientsOf(pebble);
  const key = newKey();
  const [leaf, intermediate] = await issued(client, key);
  t.ok(leaf?.checkPrivateKey(key), 'it fits the key that was there before the order');
  t.ok(intermediate !== undefined && leaf?.verify(intermediate.publicKey), 'and its issuer comes with it');
  for (const name of NAMES) t.equal(leaf?.checkHost(name), name);
  t.equal(leaf?.checkHost('other.example'), undefined);

  const order = await client().newOrder({ names: NAMES }, signal);
  for (let calls = 0; calls < 200 && refusedNonces(pebble) === 0; calls += 1)
    await client().order(order.url, signal);
  t.ok(refusedNonces(pebble) > 0, 'a nonce was refused, and no call failed');
});

t.test('HAProxy answers the checks of the CA by the thumbprint of the account alone', async (t) => {
  const bed = await Bed.make();
  t.teardown(() => bed.end());
  const address = bed.address(31);
  const accountKey = newKey();
  const node = await bed.pki.leaf('app1', 'app');
  const plain = appDesired({ address, node, ca: bed.pki.ca, databasePort: await freePort() });
  const challengeThumbprint = thumbprint(accountKey);
  const edge = await bed.launch('edge', { ...plain, edge: { ...plain.edge, challengeThumbprint } });
  const pebble = await startPebble(t, { edgeAt: { address, port: 80 } });
  const [leaf] = await issued(await clientsOf(pebble, accountKey), newKey());
  t.equal(leaf?.checkHost('www.shop.example'), 'www.shop.example', 'and a real CA takes it');

  const below = (path: string) => get(`http://${address}/.well-known/acme-challenge/${path}`);
  t.match(await below('a_B-1'), { status: 200, body: `a_B-1.${challengeThumbprint}` });
  t.match(await below(`${'x'.repeat(128)}?q=1`), { status: 200, body: /^x{128}\./ });
  const strangers = [
    '',
    'x'.repeat(129),
    'a/b',
    'a.b',
    'a%0d%0aX:1',
    'a%b',
    '%5Ba',
    '../a',
    'a b'.replace(' ', '+'),
  ];
  for (const path of strangers) t.equal((await below(path)).status, 308, `${path}: no token`);
  t.equal((await get(`http://${address}/Xwell-known/acme-challenge/a`)).status, 308);

  await converge(edge.plugin, plain);
  t.equal((await below('a')).status, 308, 'without an account nothing is answered');
});

t.test('a CA that makes accounts for its customers only takes its own key, and no other', async (t) => {
  const { directoryUrl, ca } = await startPebble(t, { externalAccounts: true });
  const client = new AcmeClient({ directoryUrl, ca, accountKey: newKey(), userAgent: 'bornemisza/test' });
  await t.rejects(client.account(ACCOUNT, signal), { code: 'certificate-account', message: /its customers/ });
  const wrong = { ...EXTERNAL, hmacKey: Buffer.alloc(48, 7).toString('base64url') };
  await t.rejects(client.account({ ...ACCOUNT, externalAccount: wrong }, signal), {
    code: 'certificate-account',
  });
  const made = await client.account({ ...ACCOUNT, externalAccount: EXTERNAL }, signal);
  const again = await client.account({ ...ACCOUNT, externalAccount: EXTERNAL }, signal);
  t.equal(again, made, 'one key, one account');
});

t.test('a check that fails names the name and what the CA saw', async (t) => {
  const pebble = await startPebble(t);
  const client = await clientsOf(pebble);
  const cases: readonly (readonly [what: string, edge: Pebble['edge']])[] = [
    ['another account answers', (token) => keyAuthorization(token, newKey())],
    ['the token is not known', () => undefined],
    ['a page of somebody else', () => '<html>parked</html>'],
  ];
  for (const [what, edge] of cases) {
    pebble.edge = edge;
    const order = await client().newOrder({ names: NAMES }, signal);
    await t.rejects(
      authorize(client, order),
      {
        code: 'certificate-refused',
        message: /^the CA could not check (www\.)?shop\.example: ./,
        outcome: 'retry',
      },
      what,
    );
    const after = await client().order(order.url, signal);
    t.equal(after.status, 'invalid', what);
  }
  await t.rejects(client().order(`${new URL(pebble.directoryUrl).origin}/my-order/none`, signal), {
    code: 'certificate-answer',
  });
});

t.test('a CA on a bad day says how long to wait, and one that is gone does not answer', async (t) => {
  const pebble = await startPebble(t);
  const client = await clientsOf(pebble);
  const order = () => client().newOrder({ names: NAMES }, signal);
  const problem = JSON.stringify({ type: 'urn:ietf:params:acme:error:rateLimited', detail: 'too many' });
  interface Said {
    readonly code: string;
    readonly retryAfterMs: number | undefined;
    readonly message?: RegExp;
  }
  const answers: readonly (readonly [what: string, answer: Injected, error: Said])[] = [
    ['500', { status: 500, body: 'oops' }, { code: 'certificate-unreachable', retryAfterMs: undefined }],
    [
      '429',
      {
        status: 429,
        headers: { 'retry-after': '60', 'content-type': 'application/problem+json' },
        body: problem,
      },
      { code: 'certificate-limited', retryAfterMs: 60_000, message: /too many/ },
    ],
    [
      '503',
      { status: 503, headers: { 'retry-after': '3600' } },
      { code: 'certificate-limited', retryAfterMs: 3_600_000 },
    ],
  ];
  for (const [what, answer, error] of answers) {
    pebble.inject = (call) => (call.startsWith('POST ') ? answer : undefined);
    await t.rejects(order(), { ...error, outcome: 'retry' }, what);
  }
  pebble.inject = undefined;
  t.equal((await order()).status, 'pending', 'and then it goes on');

  const untrusted = new AcmeClient({
    directoryUrl: pebble.directoryUrl,
    accountKey: newKey(),
    userAgent: 'bornemisza/test',
  });
  await t.rejects(untrusted.directory(signal), {
    code: 'certificate-unreachable',
    message: /self.signed certificate/,
  });
  await pebble.end();
  await t.rejects(order(), { code: 'certificate-unreachable', message: /ECONNREFUSED/, outcome: 'retry' });
});

t.test('a certificate is renewed as the CA says, the old one is revoked, the key changes', async (t) => {
  const pebble = await startPebble(t);
  const accountKey = newKey();
  const client = await clientsOf(pebble, accountKey);
  const [old] = await issued(client, newKey());
  if (old === undefined) throw new Error('no certificate');
  t.equal(
    await client().renewalInfo(old, signal),
    undefined,
    'a CA without renewal information is not asked',
  );

  const { origin } = new URL(pebble.directoryUrl);
  const directory = pebble.answered.findLast(({ call }) => call === 'GET /dir')?.body ?? '{}';
  const window = { start: '2026-11-29T00:00:00Z', end: '2026-11-30T00:00:00Z' };
  const name = renewalId(old);
  pebble.inject = (call) => {
    if (call === 'GET /dir')
      return {
        status: 200,
        body: JSON.stringify({ ...JSON.parse(directory), renewalInfo: `${origin}/ari` }),
      };
    if (call !== `GET /ari/${name}`) return undefined;
    const headers = { 'retry-after': '21600', 'content-type': 'application/json' };
    return { status: 200, headers, body: JSON.stringify({ suggestedWindow: window }) };
  };
  const info = await client().renewalInfo(old, signal);
  t.match(info, {
    startMs: Date.parse(window.start),
    endMs: Date.parse(window.end),
    retryAfterMs: 21_600_000,
  });

  const [renewed] = await issued(client, newKey(), old);
  t.ok(
    pebble.payloads.some((each) => each.includes(`"replaces":"${name}"`)),
    'the order names the certificate that it replaces',
  );
  t.not(renewed?.serialNumber, old.serialNumber);
  await client().revoke(old, REVOKED_FOR.superseded, signal);
  await client().revoke(old, REVOKED_FOR.superseded, signal);
  t.match(await pebble.statusOf(old.serialNumber), { Status: 'Revoked', Reason: REVOKED_FOR.superseded });
  t.match(await pebble.statusOf(renewed?.serialNumber ?? ''), { Status: 'Valid' });

  const next = newKey();
  await client().changeKey(next, signal);
  const byOldKey = client().newOrder({ names: NAMES }, signal);
  await t.rejects(byOldKey, { name: 'AcmeError', message: /JWS verification error/ }, 'the old key');
  const [by] = await issued(await clientsOf(pebble, next), newKey());
  t.equal(by?.checkHost('shop.example'), 'shop.example', 'the new key');
});
