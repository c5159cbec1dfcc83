import {
  createHmac,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  verify,
  X509Certificate,
} from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import t from 'tap';
import { AcmeError, notAuthorized, problemOf } from '../../../src/acme/error.ts';
import { isAllowed, retryAfterMs } from '../../../src/acme/https.ts';
import { keyAuthorization, thumbprint } from '../../../src/acme/jws.ts';
import { freePort } from '../../support/free-port.ts';
import { type Handler, json, refuse, scriptedCa } from './ca.ts';
import { accountKey, RFC_9773_CERTIFICATE } from './keys.ts';

const { signal } = new AbortController();
const ORDER = '/order/1';

async function errorOf(work: Promise<unknown>): Promise<AcmeError> {
  const error: unknown = await work.then(
    () => new Error('it went well'),
    (reason: unknown) => reason,
  );
  if (error instanceof AcmeError) return error;
  throw error;
}

const goodOrder: Handler = (response) =>
  json(response, 200, {
    status: 'pending',
    identifiers: [{ type: 'dns', value: 'Shop.Example' }],
    authorizations: ['https://ca.example/a/1'],
    finalize: 'https://ca.example/f/1',
  });

t.test('a refused nonce is tried again with the next, five times and no more', async (t) => {
  for (const [refusals, good] of [
    [1, true],
    [5, true],
    [6, false],
  ] as const) {
    let left: number = refusals;
    const ca = await scriptedCa(t, {
      [`POST ${ORDER}`]: (response, post) => {
        left -= 1;
        if (left >= 0) refuse(response, 400, 'badNonce');
        else goodOrder(response, post);
      },
    });
    const asked = ca.client().order(`${ca.base}${ORDER}`, signal);
    if (good) t.equal((await asked).status, 'pending', `${refusals} refusals`);
    else
      t.match(
        await errorOf(asked),
        { problem: { type: 'badNonce' }, outcome: 'retry' },
        `${refusals} refusals`,
      );
    const nonces = ca.posts.map((each) => each.protected.nonce);
    t.equal(nonces.length, Math.min(refusals, 5) + 1);
    t.equal(new Set(nonces).size, nonces.length, 'no nonce is used twice');
    t.equal(ca.calls.filter((each) => each === 'HEAD /nonce').length, 1, 'a refusal brings the next nonce');
  }
});

t.test('a signed request says what it is for, and its signature holds', async (t) => {
  const ca = await scriptedCa(t, {
    'POST /new-account': (response) => json(response, 201, {}, { location: `${ca.base}/account/7` }),
    [`POST ${ORDER}`]: goodOrder,
  });
  const client = ca.client({ accountUrl: undefined });
  const externalAccount = { kid: 'kid-1', hmacKey: Buffer.from('a key of the CA').toString('base64url') };
  const contact = ['mailto:ops@shop.example'];
  t.equal(
    await client.account({ contact, termsAgreed: true, externalAccount }, signal),
    `${ca.base}/account/7`,
  );
  const order = await client.order(`${ca.base}${ORDER}`, signal);
  t.strictSame(order.names, ['shop.example']);

  const [made, asked] = ca.posts;
  t.match(made?.protected, { alg: 'ES256', url: `${ca.base}/new-account`, jwk: { kty: 'EC', crv: 'P-256' } });
  t.strictSame(Object.keys(made?.protected.jwk ?? {}), ['crv', 'kty', 'x', 'y'], 'and nothing private');
  t.match(made?.payload, { contact, termsOfServiceAgreed: true });
  t.match(asked?.protected, { kid: `${ca.base}/account/7`, url: `${ca.base}${ORDER}`, jwk: undefined });
  t.equal(asked?.payload, '', 'POST-as-GET');
  const key = createPublicKey({ key: made?.protected.jwk as JsonWebKey, format: 'jwk' });
  for (const { body } of ca.posts) {
    const text = Buffer.from(`${body.protected}.${body.payload}`);
    const signature = Buffer.from(body.signature, 'base64url');
    t.ok(verify('sha256', text, { key, dsaEncoding: 'ieee-p1363' }, signature));
  }
  const payload = made?.payload as { readonly externalAccountBinding: Record<string, string> };
  const binding = payload.externalAccountBinding;
  const head: unknown = JSON.parse(Buffer.from(binding.protected ?? '', 'base64url').toString());
  t.strictSame(head, { alg: 'HS256', kid: 'kid-1', url: `${ca.base}/new-account` });
  const mac = createHmac('sha256', 'a key of the CA').update(`${binding.protected}.${binding.payload}`);
  t.equal(binding.signature, mac.digest('base64url'));
});

t.test('each refusal says what it means and whether to try again', async (t) => {
  const cases: readonly (readonly [status: number, type: string, code: string, outcome: string])[] = [
    [429, 'rateLimited', 'certificate-limited', 'retry'],
    [403, 'caa', 'certificate-caa', 'retry'],
    [400, 'rejectedIdentifier', 'certificate-names', 'terminal'],
    [400, 'accountDoesNotExist', 'certificate-account', 'terminal'],
    [401, 'externalAccountRequired', 'certificate-account', 'terminal'],
    [403, 'userActionRequired', 'certificate-account', 'terminal'],
    [403, 'unauthorized', 'certificate-account', 'terminal'],
    [409, 'alreadyReplaced', 'certificate-replaced', 'retry'],
    [500, 'serverInternal', 'certificate-unreachable', 'retry'],
    [400, 'badCSR', 'certificate-answer', 'retry'],
    [400, 'constructor', 'certificate-answer', 'retry'],
  ];
  for (const [status, type, code, outcome] of cases) {
    const ca = await scriptedCa(t, { [`POST ${ORDER}`]: (response) => refuse(response, status, type) });
    const error = await errorOf(ca.client().order(`${ca.base}${ORDER}`, signal));
    t.match(error, { code, outcome, message: new RegExp(`refuses: said ${type}`) }, `${status} ${type}`);
    t.ok(error.next.length > 20, error.next);
  }
});

t.test('an answer that is no problem document is judged by its status', async (t) => {
  const page = '<html>Bad gateway</html>';
  const cases: readonly (readonly [
    status: number,
    headers: object,
    code: string,
    waitMs: number | undefined,
  ])[] = [
    [500, {}, 'certificate-unreachable', undefined],
    [502, {}, 'certificate-unreachable', undefined],
    [503, {}, 'certificate-unreachable', undefined],
    [503, { 'retry-after': '120' }, 'certificate-limited', 120_000],
    [429, { 'retry-after': '60' }, 'certificate-limited', 60_000],
    [404, {}, 'certificate-answer', undefined],
    [301, { location: 'https://elsewhere.example/' }, 'certificate-answer', undefined],
  ];
  for (const [status, headers, code, waitMs] of cases) {
    const handler: Handler = (response) => {
      response.writeHead(status, { 'content-type': 'text/html', ...headers });
      response.end(page);
    };
    for (const call of ['GET /dir', 'HEAD /nonce', `POST ${ORDER}`]) {
      const ca = await scriptedCa(t, { [call]: handler });
      const error = await errorOf(ca.client().order(`${ca.base}${ORDER}`, signal));
      t.strictSame([error.code, error.retryAfterMs], [code, waitMs], `${status} for ${call}`);
      t.equal(ca.calls.at(-1), call, 'and nothing else is called');
    }
  }
});

t.test('Retry-After is seconds or a date by the CA’s own clock, and never more than a week', (t) => {
  const date = 'Sun, 29 Nov 2026 12:00:00 GMT';
  const week = 7 * 24 * 3_600_000;
  const cases: readonly (readonly [
    value: string | undefined,
    date: string | undefined,
    ms: number | undefined,
  ])[] = [
    [undefined, date, undefined],
    ['0', undefined, 0],
    ['21600', undefined, 21_600_000],
    ['99999999999', undefined, week],
    ['Sun, 29 Nov 2026 12:01:00 GMT', date, 60_000],
    ['Sun, 29 Nov 2026 11:00:00 GMT', date, 0],
    ['Sun, 29 Nov 2099 12:00:00 GMT', date, week],
    ['Sun, 29 Nov 2026 12:01:00 GMT', undefined, undefined],
    ['soon', date, undefined],
    ['', date, undefined],
  ];
  for (const [value, sent, ms] of cases) t.equal(retryAfterMs(value, sent), ms, `${value} at ${sent}`);
  t.end();
});

t.test('an answer that does not end, is cut short or too long ends the call', async (t) => {
  const cases: readonly (readonly [what: string, handler: Handler, said: RegExp])[] = [
    ['never begins', () => {}, /no whole answer within 0\.3 s/],
    ['never ends', (response) => void response.writeHead(200).write('{'), /no whole answer within 0\.3 s/],
    [
      'comes bit by bit',
      (response) => {
        const timer = setInterval(() => response.write(' '), 50);
        response.on('close', () => clearInterval(timer));
      },
      /no whole answer within 0\.3 s/,
    ],
    [
      'is cut short',
      (response) => {
        response.writeHead(200, { 'content-length': 1000 }).write('{');
        setImmediate(() => response.destroy());
      },
      /cut short|socket hang up|aborted/,
    ],
    ['is too long', (response) => response.writeHead(200).end(' '.repeat(300 * 1024)), /longer than 256 kB/],
  ];
  for (const [what, handler, said] of cases) {
    const ca = await scriptedCa(t, { 'GET /dir': handler });
    // What is slow gets little time, and what is quick gets enough on a busy machine.
    const timeoutMs = said.source.includes('0\\.3') ? 300 : 60_000;
    const error = await errorOf(ca.client({ timeoutMs }).directory(signal));
    t.equal(error.code, 'certificate-unreachable', what);
    t.match(error.message, said, what);
    t.match(error.message, new RegExp(`^${ca.base}/dir does not answer`), what);
  }
});

t.test('a CA that is not there, and one that is not what it says, do not answer', async (t) => {
  const port = await freePort();
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { client } = await scriptedCa(t, {});
  const refused = await errorOf(
    client({ accountKey: privateKey, directoryUrl: `http://127.0.0.1:${port}/dir` }).directory(signal),
  );
  t.match(refused, { code: 'certificate-unreachable', message: /ECONNREFUSED/, outcome: 'retry' });

  // It speaks, and no TLS.
  const server = createServer((socket) => void socket.on('error', () => {}).end('220 mail.example\r\n'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const address = server.address();
  const spoken = typeof address === 'object' ? address?.port : 0;
  const plain = await errorOf(client({ directoryUrl: `https://127.0.0.1:${spoken}/dir` }).directory(signal));
  t.match(plain, {
    code: 'certificate-unreachable',
    message: /does not answer: .*(SSL|EPROTO|ssl|TLS|ECONNRESET)/,
  });
});

t.test('a caller that ends its signal gets its own reason', async (t) => {
  const ca = await scriptedCa(t, { 'GET /dir': () => {} });
  const ending = new AbortController();
  const asked = ca.client().directory(ending.signal);
  ending.abort(new Error('the daemon stops'));
  await t.rejects(asked, { message: 'the daemon stops' });
});

t.test('only https is called, and plain HTTP within this machine alone', async (t) => {
  const [outside, inside] = ['https://ca.example/dir', 'http://127.0.0.1:4000/dir'];
  const cases: readonly (readonly [url: string, directory: string, allowed: boolean])[] = [
    ['https://ca.example/order/1', outside, true],
    ['https://other.example/order/1', outside, true],
    ['http://ca.example/order/1', outside, false],
    ['http://127.0.0.1:5984/_all_dbs', outside, false],
    ['http://127.0.0.1:4000/order/1', inside, true],
    ['http://127.9.9.9/order/1', inside, true],
    ['http://2130706433/order/1', inside, true],
    ['http://128.0.0.1/order/1', inside, false],
    ['http://127.0.0.1.example/order/1', inside, false],
    ['http://localhost/order/1', inside, false],
    ['http://[::1]/order/1', inside, false],
    ['https://user:word@ca.example/', outside, false],
    ['file:///etc/passwd', outside, false],
    ['/order/1', outside, false],
    ['', outside, false],
  ];
  for (const [url, directory, allowed] of cases)
    t.equal(isAllowed(url, directory), allowed, `${url} of ${directory}`);

  for (const directoryUrl of ['http://ca.example/dir', 'not a url', 'ftp://127.0.0.1/dir']) {
    const { client } = await scriptedCa(t, {});
    const error = await errorOf(client({ directoryUrl }).directory(signal));
    t.match(error, { code: 'certificate-unreachable', message: /no https address/ }, directoryUrl);
  }
  for (const bad of ['http://192.0.2.1/nonce', 7, undefined, `https://ca.example/${'x'.repeat(3000)}`]) {
    const ca = await scriptedCa(t, {}, () => ({ newNonce: bad }));
    const error = await errorOf(ca.client().order(`${ca.base}${ORDER}`, signal));
    t.match(error, { code: 'certificate-answer', message: /field newNonce is not an https address/ });
    t.strictSame(ca.calls, ['GET /dir']);
  }
});

t.test('an optional field of a directory stops nothing, whatever its form', async (t) => {
  const bad = { renewalInfo: 'http://192.0.2.1/ari', keyChange: 7, meta: 'none' };
  const plain = await (await scriptedCa(t, {}, () => bad)).client().directory(signal);
  t.match(plain, {
    renewalInfo: undefined,
    keyChange: undefined,
    termsOfService: undefined,
    caaIdentities: [],
  });
  const meta = {
    termsOfService: 'https://ca.example/terms',
    externalAccountRequired: true,
    caaIdentities: ['ca.example', 7],
    profiles: { classic: 'as ever', tlsserver: 'https://ca.example/tlsserver', odd: 7 },
  };
  const rich = await (await scriptedCa(t, {}, () => ({ meta }))).client().directory(signal);
  t.match(rich, { externalAccountRequired: true, caaIdentities: ['ca.example'] });
  t.strictSame([...rich.profiles.keys()], ['classic', 'tlsserver']);
});

t.test('a missing field of an account or an order is reported before the CA is asked', async (t) => {
  const meta = {
    termsOfService: 'https://ca.example/terms',
    externalAccountRequired: true,
    profiles: { classic: 'x' },
  };
  const ca = await scriptedCa(t, {}, () => ({ meta }));
  const account = { contact: [], termsAgreed: true };
  const order = (names: readonly string[], profile?: string) =>
    ca.client().newOrder({ names, profile }, signal);
  const cases: readonly (readonly [Promise<unknown>, code: string, said: RegExp])[] = [
    [ca.client().account(account, signal), 'certificate-account', /only for its customers/],
    [
      ca
        .client()
        .account({ ...account, termsAgreed: false, externalAccount: { kid: 'k', hmacKey: 'a' } }, signal),
      'certificate-account',
      /after consent to its terms: https:\/\/ca\.example\/terms/,
    ],
    [order([]), 'certificate-names', /no name to order for/],
    [order(['shop.example', '192.0.2.1']), 'certificate-names', /"192\.0\.2\.1"/],
    [order(['shop.example'], 'tlsserver'), 'certificate-names', /no profile "tlsserver": it offers classic/],
  ];
  for (const [asked, code, said] of cases)
    t.match(await errorOf(asked), { code, outcome: 'terminal', message: said });
  t.strictSame(ca.posts, []);
});

t.test('an order of another form is refused, and says which field', async (t) => {
  const good = {
    status: 'valid',
    identifiers: [{ type: 'dns', value: 'shop.example' }],
    authorizations: ['https://ca.example/a/1'],
    finalize: 'https://ca.example/f/1',
    certificate: 'https://ca.example/c/1',
  };
  const cases: readonly (readonly [body: unknown, field: string])[] = [
    [{ ...good, status: 'fine' }, 'status'],
    [{ ...good, identifiers: [{ type: 'ip', value: '192.0.2.1' }] }, 'identifier'],
    [{ ...good, identifiers: 'shop.example' }, 'identifiers'],
    [{ ...good, authorizations: ['http://192.0.2.1/'] }, 'authorizations'],
    [{ ...good, authorizations: Array.from({ length: 101 }, () => good.finalize) }, 'authorizations'],
    [{ ...good, finalize: undefined }, 'finalize'],
    [{ ...good, certificate: undefined }, 'certificate'],
    [[good], 'not an object'],
    [null, 'not an object'],
  ];
  for (const [body, field] of cases) {
    const ca = await scriptedCa(t, { [`POST ${ORDER}`]: (response) => json(response, 200, body as object) });
    const error = await errorOf(ca.client().order(`${ca.base}${ORDER}`, signal));
    t.match(error, { code: 'certificate-answer', message: new RegExp(field) }, field);
  }
});

t.test('a challenge that we cannot read is passed over, and the others stay', async (t) => {
  const http = { type: 'http-01', url: 'https://ca.example/c/1', token: 'abc_-9', status: 'pending' };
  const challenges = [
    { type: 'dns-persist-01', url: 'https://ca.example/c/2', status: 'pending' },
    { ...http, token: '../../etc/passwd' },
    { ...http, url: 'http://192.0.2.1/' },
    { ...http, status: 'odd' },
    'odd',
    http,
  ];
  const body = { status: 'pending', identifier: { type: 'dns', value: 'shop.example' }, challenges };
  const ca = await scriptedCa(t, {
    'POST /a/1': (response) => json(response, 200, body, { 'retry-after': '3' }),
  });
  const found = await ca.client().authorization(`${ca.base}/a/1`, signal);
  t.match(found, { name: 'shop.example', wildcard: false, retryAfterMs: 3000 });
  t.strictSame(
    found.challenges.map(({ type, token }) => [type, token]),
    [['http-01', 'abc_-9']],
  );
  t.equal(keyAuthorization('abc_-9', accountKey), `abc_-9.${thumbprint(accountKey)}`);
});

t.test('renewal information is asked by the certificate’s name at this CA', async (t) => {
  const certificate = new X509Certificate(RFC_9773_CERTIFICATE);
  const path = 'GET /ari/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE';
  const window = { start: '2026-11-29T04:00:00Z', end: '2026-12-01T04:00:00Z' };
  const asked = async (body: object, headers: object = {}) => {
    const ca = await scriptedCa(t, { [path]: (response) => json(response, 200, body, headers) }, (base) => ({
      renewalInfo: `${base}/ari/`,
    }));
    return ca.client().renewalInfo(certificate, signal);
  };
  const good = { suggestedWindow: window, explanationURL: 'https://ca.example/why' };
  t.strictSame(await asked(good, { 'retry-after': '21600' }), {
    startMs: Date.parse(window.start),
    endMs: Date.parse(window.end),
    explanationUrl: 'https://ca.example/why',
    retryAfterMs: 21_600_000,
  });
  t.match(await asked({ ...good, explanationURL: 'javascript:alert(1)' }), { explanationUrl: undefined });
  for (const suggestedWindow of [
    undefined,
    {},
    { start: window.end, end: window.start },
    { start: window.start, end: window.start },
    { ...window, start: 'soon' },
    { ...window, start: 1 },
  ]) {
    const error = await errorOf(asked({ suggestedWindow }));
    t.match(error, { code: 'certificate-answer', message: /suggestedWindow/ });
  }
  const without = await scriptedCa(t, {});
  t.equal(
    await without.client().renewalInfo(certificate, signal),
    undefined,
    'a CA that has none is not asked',
  );
  t.strictSame(without.calls, ['GET /dir']);
});

t.test('an order names the certificate that it replaces where the CA has renewal information', async (t) => {
  const replaces = new X509Certificate(RFC_9773_CERTIFICATE);
  const profiles = { short: 'six days' };
  for (const offered of [true, false]) {
    const ca = await scriptedCa(
      t,
      {
        'POST /new-order': (response, post) => {
          response.setHeader('location', `${ca.base}${ORDER}`);
          goodOrder(response, post);
        },
      },
      (base) => ({ meta: { profiles }, ...(offered && { renewalInfo: `${base}/ari` }) }),
    );
    const order = await ca.client().newOrder({ names: ['shop.example'], profile: 'short', replaces }, signal);
    t.equal(order.url, `${ca.base}${ORDER}`);
    t.strictSame(ca.posts[0]?.payload, {
      identifiers: [{ type: 'dns', value: 'shop.example' }],
      profile: 'short',
      ...(offered && { replaces: 'aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE' }),
    });
  }
});

t.test('a chain that has anything but certificates in it is refused', async (t) => {
  const key = '-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n';
  const good = RFC_9773_CERTIFICATE;
  const cases: readonly (readonly [what: string, pem: string, said: RegExp])[] = [
    ['a key', `${good}${key}`, /more in it than certificates/],
    ['words', `bind :80\n${good}`, /more in it than certificates/],
    ['nothing', '', /0 certificates/],
    ['too many', good.repeat(9), /9 certificates/],
    ['one that is none', good.replace('MIIB', 'AAAA'), /cannot be read/],
  ];
  const asked = async (pem: string): Promise<string> => {
    const ca = await scriptedCa(t, { 'POST /c/1': (response) => response.writeHead(200).end(pem) });
    return ca.client().certificate(`${ca.base}/c/1`, signal);
  };
  for (const [what, pem, said] of cases)
    t.match(await errorOf(asked(pem)), { code: 'certificate-answer', message: said }, what);
  const two = await asked(`${good.replaceAll('\n', '\r\n')}\n\n${good}`);
  t.equal(two, good.repeat(2), 'and it is written as we write it');
});

t.test('a key is changed by both keys, and a revocation that was made is made', async (t) => {
  const { privateKey: newKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const certificate = new X509Certificate(RFC_9773_CERTIFICATE);
  const ca = await scriptedCa(t, {
    'POST /key-change': (response) => json(response, 200, {}),
    'POST /revoke': (response) => refuse(response, 400, 'alreadyRevoked'),
  });
  await ca.client().changeKey(newKey, signal);
  const inner = (ca.posts[0]?.payload ?? {}) as Record<'protected' | 'payload' | 'signature', string>;
  const read = (part: string): unknown => JSON.parse(Buffer.from(part, 'base64url').toString());
  t.match(read(inner.protected), { alg: 'ES256', url: `${ca.base}/key-change`, jwk: { kty: 'EC' } });
  t.match(read(inner.payload), { account: `${ca.base}/account/1`, oldKey: ca.client() && { kty: 'EC' } });
  const signature = Buffer.from(inner.signature, 'base64url');
  const text = Buffer.from(`${inner.protected}.${inner.payload}`);
  t.ok(verify('sha256', text, { key: createPublicKey(newKey), dsaEncoding: 'ieee-p1363' }, signature));
  await ca.client().revoke(certificate, 1, signal);
  t.match(ca.posts[1]?.payload, { reason: 1, certificate: certificate.raw.toString('base64url') });
  const other = await scriptedCa(t, { 'POST /revoke': (response) => refuse(response, 403, 'unauthorized') });
  await t.rejects(other.client().revoke(certificate, 1, signal), { code: 'certificate-account' });
});

t.test('text from a CA is one bounded line', (t) => {
  const problem = problemOf({
    type: 'urn:ietf:params:acme:error:compound',
    detail: `two \u001b[2J\r\nnames ${'x'.repeat(1000)}`,
    subproblems: [
      { type: 'x', detail: 'a', identifier: { type: 'dns', value: 'a.shop.example' } },
      { type: 'x', identifier: { type: 'dns', value: 'b.shop\u0007.example' } },
      'odd',
    ],
  });
  t.match(problem?.detail, /^two \[2J names x+…$/);
  t.ok((problem?.detail.length ?? 999) <= 301);
  t.strictSame(problem?.names, ['a.shop.example', 'b.shop .example']);
  for (const odd of [undefined, null, 'x', 7, {}, { type: 7 }]) t.equal(problemOf(odd), undefined);
  t.match(
    notAuthorized('shop.example', problemOf({ type: 'urn:ietf:params:acme:error:dns', detail: 'NXDOMAIN' })),
    {
      code: 'certificate-refused',
      message: 'the CA could not check shop.example: NXDOMAIN',
    },
  );
  const caa = problemOf({ type: 'urn:ietf:params:acme:error:caa', detail: 'not allowed' });
  t.equal(notAuthorized('shop.example', caa).code, 'certificate-caa');
  t.equal(notAuthorized('shop.example', undefined).code, 'certificate-refused');
  t.end();
});
