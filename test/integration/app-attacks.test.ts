import { argon2Sync } from 'node:crypto';
import { request } from 'node:http';
import { join } from 'node:path';
import { writeFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import t from 'tap';
import { AppBed, ORIGIN } from './app-bed.ts';

/** Attacks on the app tier that no other test tries, each with what it must come to. */
t.setTimeout(1_100_000);
const PASSWORD = 'four green turtles';
/** Many times what a body may have, with what the kernel's buffers hold. */
const MOST_SENT = 32 * 1024 * 1024;

const bed = await AppBed.start();
t.teardown(() => bed.close());
const one = await bed.addNode();
const two = await bed.addNode();

/** As an attacker sends it: `fetch` takes no Host of ours. */
async function forged(
  path: string,
  body: unknown,
  headers: Readonly<Record<string, string>>,
): Promise<number> {
  const text = JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const call = request({
      host: '127.0.0.1',
      port: one.port,
      method: 'POST',
      path,
      headers: {
        'content-type': 'application/json',
        ...(headers['transfer-encoding'] === undefined && { 'content-length': Buffer.byteLength(text) }),
        ...headers,
      },
    });
    call.once('error', reject);
    call.once('response', (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? 0);
    });
    call.end(text);
  });
}

t.test('whatever a request says of its host, a mailed link leads to the site', async (t) => {
  const claims = [
    { host: 'evil.test' },
    { 'x-forwarded-host': 'evil.test', 'x-forwarded-proto': 'http' },
    { forwarded: 'host=evil.test;proto=http', 'x-original-host': 'evil.test' },
  ];
  for (const [at, headers] of claims.entries()) {
    const email = `host${at}@example.org`;
    t.equal(await forged('/api/registrations', { email }, headers), 202);
    const { text } = await bed.mailTo(email);
    t.match(text, `${ORIGIN}/choose-password#`);
    t.notMatch(text, 'evil.test');
  }
});

/**
 * A body of unknown length (RFC 9112 section 7.1) that never ends.
 *
 * @returns the status, and how much was sent until it came
 */
async function endless(
  path: string,
  method: string,
  cookie: string,
): Promise<{ status: number; sent: number }> {
  let sent = 0;
  const seen: { status?: number } = {};
  const answered = Promise.withResolvers<void>();
  const headers = { 'content-type': 'application/json', origin: ORIGIN, cookie };
  const call = request({ host: '127.0.0.1', port: one.port, method, path, headers });
  call.on('error', () => answered.resolve());
  call.on('response', (answer) => {
    answer.resume();
    seen.status = answer.statusCode ?? 0;
    answered.resolve();
  });
  call.write('{"text":"');
  const part = 'x'.repeat(64 * 1024);
  while (seen.status === undefined && sent < MOST_SENT) {
    sent += part.length;
    const drained = new Promise<void>((resolve) => {
      if (call.write(part)) resolve();
      else call.once('drain', resolve);
    });
    await Promise.race([drained, answered.promise]);
  }
  await Promise.race([answered.promise, pause(5000)]);
  call.destroy();
  return { status: seen.status ?? 0, sent };
}

t.test('a body that does not say its length is read to the limit and no further', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'chunks@example.org', PASSWORD);
  await bed.until(async () => (await browser.ask('GET', '/api/data')).status === 200, 'the database');
  for (const [path, method] of [
    ['/api/session', 'POST'],
    ['/api/registrations', 'POST'],
    ['/api/me/password', 'PUT'],
    ['/api/data/note', 'PUT'],
    ['/api/data/_bulk_docs', 'POST'],
  ] as const) {
    const { status, sent } = await endless(path, method, browser.cookie);
    t.equal(status, 413, `${method} ${path}`);
    t.ok(sent < MOST_SENT, `${sent} bytes`);
  }
  const short = { 'transfer-encoding': 'chunked', cookie: browser.cookie };
  t.equal(await forged('/api/session', { email: 'chunks@example.org', password: PASSWORD }, short), 200);
});

t.test('an address gets one mail a minute, however many nodes are asked', async (t) => {
  const asked = Array.from({ length: 12 }, (_, at) =>
    bed.browser(at % 2 === 0 ? one : two).ask('POST', '/api/registrations', { email: 'flood@example.org' }),
  );
  for (const { status } of await Promise.all(asked)) t.equal(status, 202);
  await bed.mailTo('flood@example.org');
  t.equal(bed.mails.filter(({ to }) => to === 'flood@example.org').length, 1);
});

t.test(
  'who registers a stranger’s address plants no password, and who opens a link uses nothing up',
  async (t) => {
    const email = 'owner@example.org';
    const planted = { email, password: 'the password of a stranger' };
    t.equal((await bed.browser(one).ask('POST', '/api/registrations', planted)).status, 400);
    t.equal((await bed.browser(one).ask('POST', '/api/registrations', { email })).status, 202);
    const { token = '' } = await bed.mailTo(email);
    // A scanner of mails opens what stands in them, in each way that it can.
    for (const path of [
      '/choose-password',
      `/choose-password?token=${token}`,
      `/api/accounts?token=${token}`,
    ])
      for (const method of ['GET', 'HEAD', 'OPTIONS']) {
        const { status, headers } = await bed.browser(two).ask(method, path);
        t.ok(status < 500, `${method} ${path.slice(0, 30)}: ${status}`);
        t.equal(headers.get('set-cookie'), null);
      }
    t.equal((await bed.browser(one).ask('POST', '/api/session', planted)).status, 401);
    const owner = bed.browser(one);
    t.equal((await owner.ask('POST', '/api/accounts', { token, password: PASSWORD })).status, 201);
    t.equal((await bed.browser(one).ask('POST', '/api/session', planted)).status, 401, 'nor afterwards');
  },
);

t.test('a flood of passwords is refused at once and not queued, and people get in afterwards', async (t) => {
  await bed.register(bed.browser(one), 'anna@example.org', PASSWORD);
  const guesses = Array.from({ length: 120 }, (_, at) =>
    bed.browser(one).ask('POST', '/api/session', { email: `nobody${at}@example.org`, password: PASSWORD }),
  );
  const answers = await Promise.all(guesses);
  const busy = answers.filter(({ status }) => status === 503);
  t.same([...new Set(answers.map(({ status }) => status))].toSorted(), [401, 503]);
  t.ok(busy.length > 0, `${busy.length} of ${answers.length} were refused`);
  for (const { headers, body } of busy) {
    t.match(body, { type: '/problems/busy' });
    t.ok(Number(headers.get('retry-after')) >= 1);
  }
  const right = { email: 'anna@example.org', password: PASSWORD };
  t.equal((await bed.browser(one).ask('POST', '/api/session', right)).status, 200);
});

t.test('who reads _users has no password to try: hashes are peppered, and CouchDB takes none', async (t) => {
  await bed.register(bed.browser(one), 'bert@example.org', PASSWORD);
  const all = await bed.couch('GET', '/_users/_all_docs?include_docs=true');
  const rows = (all.body as { rows: { doc: Record<string, string> }[] }).rows.map(({ doc }) => doc);
  const doc = rows.find(({ email }) => email === 'bert@example.org');
  if (doc === undefined) throw new Error(JSON.stringify(rows));
  const [, , , salt = '', tag = ''] = (doc['secret'] ?? '').split('$');
  t.match(tag, /^[0-9a-f]{64}$/);
  const nonce = Buffer.from(salt, 'hex');
  const known = { parallelism: 1, tagLength: 32, memory: 19 * 1024, passes: 2, message: PASSWORD, nonce };
  t.not(
    argon2Sync('argon2id', known).toString('hex'),
    tag,
    'the right password alone does not give the hash',
  );
  const login = { name: doc['name'] ?? '', password: PASSWORD };
  t.equal((await bed.couch('GET', '/_session', undefined, login)).status, 401);
});

t.test('no answer of the page may be framed, or run what is not its own', async (t) => {
  const root = t.testdir({});
  await writeFile(join(root, 'index.html'), '<!doctype html><title>page</title>');
  const node = await bed.addNode(`web_root = "${root}"`);
  for (const path of ['/', '/choose-password', '/index.html']) {
    const { status, headers } = await bed.browser(node).ask('GET', path);
    t.equal(status, 200, path);
    const policy = headers.get('content-security-policy') ?? '';
    for (const part of [
      "default-src 'none'",
      "frame-ancestors 'none'",
      "base-uri 'none'",
      "script-src 'self'",
    ])
      t.ok(policy.includes(part), `${path}: ${part}`);
    t.ok(policy.includes("require-trusted-types-for 'script'"));
    t.notMatch(policy, 'unsafe');
    t.equal(headers.get('x-content-type-options'), 'nosniff');
    t.equal(headers.get('referrer-policy'), 'no-referrer');
  }
});
