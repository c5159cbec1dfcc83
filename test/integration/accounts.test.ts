import t from 'tap';
import { AppBed, type AppNode, type Browser } from './app-bed.ts';

/** Accounts, sessions and the person's own data, through two nodes of the app tier and a real mail server. */
t.setTimeout(2_300_000);
const PASSWORD = 'four green turtles';

const bed = await AppBed.start();
t.teardown(() => bed.close());
const one: AppNode = await bed.addNode();
const two: AppNode = await bed.addNode();

/** couch_peruser makes the database soon after the account. */
async function untilReady(browser: Browser): Promise<void> {
  await bed.until(
    async () => (await browser.ask('GET', '/api/data')).status === 200,
    'the database of the person',
  );
}

t.test('a person registers, signs in at another node, keeps notes and signs out everywhere', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'Anna@Example.org', PASSWORD);
  const me = await browser.ask('GET', '/api/me');
  t.match(me.body, { email: 'Anna@example.org', roles: ['account'], quota: { bytes: 50 * 1024 * 1024 } });

  const other = bed.browser(two);
  const signedIn = await other.ask('POST', '/api/session', { email: 'anna@EXAMPLE.org', password: PASSWORD });
  t.equal(signedIn.status, 200);
  await untilReady(other);
  const put = await other.ask('PUT', '/api/data/note-1', { text: 'hello' });
  t.equal(put.status, 201, JSON.stringify(put.body));
  t.match((await browser.ask('GET', '/api/data/note-1')).body, { text: 'hello' });

  t.equal((await other.ask('DELETE', '/api/sessions')).status, 204);
  t.equal((await other.ask('GET', '/api/me')).status, 401);
  // The first node believes what it read for five seconds.
  await bed.until(
    async () => (await browser.ask('GET', '/api/me')).status === 401,
    'the session has ended at one',
  );
});

t.test('nobody learns from answer or mail whether an address has an account', async (t) => {
  const browser = bed.browser(one);
  await bed.register(bed.browser(two), 'bert@example.org', PASSWORD);
  const from = bed.mails.length;
  const known = await browser.ask('POST', '/api/registrations', { email: 'bert@example.org' });
  const unknown = await browser.ask('POST', '/api/registrations', { email: 'nobody@example.org' });
  t.equal(known.status, 202);
  t.same(known.body, unknown.body);
  // The address had a mail a moment ago: none is sent again, and the answer is the same.
  t.equal(bed.mails.slice(from).filter(({ to }) => to === 'bert@example.org').length, 0);
  t.match((await bed.mailTo('nobody@example.org', from)).text, /Choose a password/);
  const wrong = await browser.ask('POST', '/api/session', {
    email: 'bert@example.org',
    password: 'not this one, no',
  });
  const nobody = await browser.ask('POST', '/api/session', {
    email: 'zoe@example.org',
    password: 'not this one, no',
  });
  t.equal(wrong.status, 401);
  t.same(wrong.body, nobody.body);
});

t.test('a link works once, for what it was made for, at any node, until it is old', async (t) => {
  const browser = bed.browser(one);
  await browser.ask('POST', '/api/registrations', { email: 'carl@example.org' });
  const { token = '' } = await bed.mailTo('carl@example.org');
  const account = (at: Browser, with_: string, password = PASSWORD) =>
    at.ask('POST', '/api/accounts', { token: with_, password });
  for (const bad of [
    '',
    'x',
    `${token}x`,
    token.slice(0, -4),
    token.replace(/\.[^.]+$/, ''),
    `${token}.${token}`,
  ]) {
    const { status } = await account(browser, bad);
    t.ok(status === 410 || status === 400, `${status} for a token that was changed`);
  }
  t.equal(
    (await browser.ask('PUT', '/api/password', { token, password: PASSWORD })).status,
    410,
    'another purpose',
  );
  t.match((await account(browser, token, 'short')).body, { type: '/problems/password-unfit' });
  t.match((await account(browser, token, 'passwordpassword')).body, { type: '/problems/password-unfit' });
  t.match((await account(browser, token, 'carl@example.org1')).body, { type: '/problems/password-unfit' });
  t.equal((await account(browser, token)).status, 201);
  t.equal(
    (await account(bed.browser(two), token)).status,
    201,
    'the same again finishes what may be half done',
  );
  t.match((await account(bed.browser(two), token, 'another good password')).body, {
    type: '/problems/already-confirmed',
  });
});

t.test('two confirmations at once at two nodes make one account', async (t) => {
  await bed.browser(one).ask('POST', '/api/registrations', { email: 'dora@example.org' });
  const { token } = await bed.mailTo('dora@example.org');
  const made = await Promise.all(
    [one, two, one, two].map((node) =>
      bed.browser(node).ask('POST', '/api/accounts', { token, password: PASSWORD }),
    ),
  );
  t.same(
    made.map(({ status }) => status),
    [201, 201, 201, 201],
  );
  t.equal(new Set(made.map(({ body }) => body['account'])).size, 1);
});

t.test('a forgotten password is set by a link that works once, and ends all sessions', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'emil@example.org', PASSWORD);
  await bed.forgetMails('emil@example.org');
  const from = bed.mails.length;
  t.equal((await browser.ask('POST', '/api/password-resets', { email: 'EMIL@example.org' })).status, 202);
  const { token } = await bed.mailTo('emil@example.org', from);
  const fresh = 'seven purple elephants';
  t.equal((await bed.browser(two).ask('PUT', '/api/password', { token, password: fresh })).status, 204);
  t.equal(
    (await bed.browser(two).ask('PUT', '/api/password', { token, password: fresh })).status,
    410,
    'used',
  );
  await bed.until(async () => (await browser.ask('GET', '/api/me')).status === 401, 'the old session ends');
  t.equal(
    (await browser.ask('POST', '/api/session', { email: 'emil@example.org', password: PASSWORD })).status,
    401,
  );
  t.equal(
    (await browser.ask('POST', '/api/session', { email: 'emil@example.org', password: fresh })).status,
    200,
  );
});

t.test('five wrong passwords stop one network, not the person elsewhere', async (t) => {
  await bed.register(bed.browser(one), 'fritz@example.org', PASSWORD);
  const thief = bed.browser(one);
  const from = (address: string) => ({ 'x-forwarded-for': address });
  const guess = (address: string) =>
    thief.ask(
      'POST',
      '/api/session',
      { email: 'fritz@example.org', password: 'wrong wrong wrong' },
      from(address),
    );
  for (let n = 0; n < 5; n += 1) t.equal((await guess('198.51.100.7')).status, 401);
  const stopped = await guess('198.51.100.7');
  t.equal(stopped.status, 429);
  t.ok(Number(stopped.headers.get('retry-after')) > 60);
  // What a client writes itself stands before what the edge adds.
  t.equal((await guess('203.0.113.1, 198.51.100.7')).status, 429);
  t.equal((await guess('2001:db8:1:2:3::1')).status, 401);
  const right = { email: 'fritz@example.org', password: PASSWORD };
  t.equal((await thief.ask('POST', '/api/session', right, from('192.0.2.9'))).status, 200);
});

t.test('another site cannot use a session, and only JSON is read', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'gina@example.org', PASSWORD);
  const foreign = { origin: 'https://evil.test', 'sec-fetch-site': 'cross-site' };
  t.match((await browser.ask('DELETE', '/api/sessions', undefined, foreign)).body, {
    type: '/problems/foreign-origin',
  });
  t.equal((await browser.ask('POST', '/api/me/deletion', { password: PASSWORD }, foreign)).status, 403);
  const text = { 'content-type': 'text/plain' };
  t.equal((await browser.ask('POST', '/api/session', '{"email":"a@b.cd","password":"x"}', text)).status, 415);
  t.equal((await browser.ask('POST', '/api/session', '{"email":')).status, 400);
  t.equal(
    (await browser.ask('POST', '/api/session', { email: 'a@b.cd', password: 'x', roles: ['_admin'] })).status,
    400,
  );
  t.equal((await browser.ask('POST', '/api/registrations', 'x'.repeat(2 * 1024 * 1024))).status, 413);
  t.equal((await browser.ask('GET', '/api/me')).status, 200, 'the session is untouched');
  const cookie = browser.cookie;
  const forged = cookie.replace(
    /(__Host-s=k1\.a)(.)/,
    (_, head: string, one: string) => head + (one === 'b' ? 'c' : 'b'),
  );
  t.not(forged, cookie);
  t.equal((await bed.browser(one).ask('GET', '/api/me', undefined, { cookie: forged })).status, 401);
});

t.test('a person reaches the own documents and nothing else', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'hugo@example.org', PASSWORD);
  await untilReady(browser);
  for (const path of [
    '/_design/x',
    '/%5Fdesign%2Fx',
    '/_security',
    '/_all_dbs',
    '/..%2F_users',
    '/%2e%2e%2f_users',
    '/_find',
    '/_purge',
    '/note/attachment',
    '/_changes?filter=app%2Fmine',
  ]) {
    const { status } = await browser.ask(
      path.startsWith('/_changes') ? 'GET' : 'PUT',
      `/api/data${path}`,
      undefined,
      {
        'content-type': 'application/json',
        'content-length': '0',
      },
    );
    t.ok(status === 403 || status === 404, `${path}: ${status}`);
  }
  const design = { _id: '_design/x', views: {} };
  t.equal((await browser.ask('POST', '/api/data/_bulk_docs', { docs: [{ _id: 'a' }, design] })).status, 403);
  t.equal((await browser.ask('PUT', '/api/data/ok', { _id: '_design/x' })).status, 403);
  t.equal((await browser.ask('POST', '/api/data/_bulk_docs', { docs: [{ _id: 'a', n: 1 }] })).status, 201);
  t.match((await browser.ask('GET', '/api/data/_all_docs')).body, { total_rows: 1, rows: [{ id: 'a' }] });
  t.match((await browser.ask('GET', '/api/me/export')).body, { rows: [{ doc: { n: 1 } }] });
  t.equal((await bed.browser(one).ask('GET', '/api/data/_all_docs')).status, 401);
});

t.test('an address changes by password and link, and the old one is free again', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'ida@example.org', PASSWORD);
  const change = { email: 'ida@new.example', password: PASSWORD };
  const german = { 'accept-language': 'de-AT,de;q=0.9' };
  const wrong = { ...change, password: 'wrong wrong wrong' };
  t.match(await browser.ask('POST', '/api/me/email', wrong, german), {
    status: 401,
    body: { type: '/problems/wrong-password', title: 'Das Passwort ist falsch.' },
  });
  t.equal((await browser.ask('POST', '/api/me/email', change)).status, 202);
  const { token } = await bed.mailTo('ida@new.example');
  t.equal(
    (await bed.browser(one).ask('PUT', '/api/me/email', { token })).status,
    401,
    'a link alone is not enough',
  );
  t.equal((await browser.ask('PUT', '/api/me/email', { token })).status, 204);
  t.match((await browser.ask('GET', '/api/me')).body, { email: 'ida@new.example' });
  t.equal((await browser.ask('PUT', '/api/me/email', { token })).status, 410);
  t.equal(
    (await browser.ask('POST', '/api/session', { email: 'ida@new.example', password: PASSWORD })).status,
    200,
  );
  t.equal(
    (await browser.ask('POST', '/api/session', { email: 'ida@example.org', password: PASSWORD })).status,
    401,
  );
  t.match((await bed.mailTo('ida@example.org')).text, /address .*was changed/);
});

t.test('who deletes the account takes the data away, and can come back as somebody new', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'jan@example.org', PASSWORD);
  const { account } = (await browser.ask('GET', '/api/me')).body;
  await untilReady(browser);
  t.equal((await browser.ask('POST', '/api/me/deletion', { password: PASSWORD })).status, 204);
  t.equal((await browser.ask('GET', '/api/me')).status, 401);
  const database = `/userdb-${Buffer.from(String(account)).toString('hex')}`;
  await bed.until(async () => (await bed.couch('GET', database)).status === 404, 'the database is gone');
  await bed.forgetMails('jan@example.org');
  await bed.register(browser, 'jan@example.org', PASSWORD);
  t.not((await browser.ask('GET', '/api/me')).body['account'], account);
});

t.test('another key ends sessions and links everywhere, and costs nobody account or data', async (t) => {
  const browser = bed.browser(one);
  await bed.register(browser, 'lena@example.org', PASSWORD);
  await untilReady(browser);
  t.equal((await browser.ask('PUT', '/api/data/kept', { n: 1 })).status, 201);
  await browser.ask('POST', '/api/registrations', { email: 'mia@example.org' });
  const { token } = await bed.mailTo('mia@example.org');
  const { account } = (await browser.ask('GET', '/api/me')).body;
  await bed.addKey();
  for (const node of [one, two])
    await bed.until(
      async () => (await browser.at(node.port).ask('GET', '/api/me')).status === 401,
      'the key of now counts',
    );
  t.equal((await browser.ask('POST', '/api/accounts', { token, password: PASSWORD })).status, 410);
  const signedIn = await browser.ask('POST', '/api/session', {
    email: 'lena@example.org',
    password: PASSWORD,
  });
  t.equal(signedIn.status, 200, 'the password is checked with the key that it was set under');
  t.equal((await browser.ask('GET', '/api/me')).body['account'], account, 'the same account');
  for (const node of [one, two])
    t.match((await browser.at(node.port).ask('GET', '/api/data/kept')).body, { n: 1 }, 'and its data');
});

t.test('while the own database is being made or closed, requests get 503 and may try again', async (t) => {
  const own = '/userdb-617070';
  const browser = bed.browser(two);
  await bed.register(browser, 'olga@example.org', PASSWORD);
  const { body: security } = await bed.couch('GET', `${own}/_security`);
  const closed = { members: { names: ['nobody'] }, admins: { names: ['nobody'] } };
  const faults: [string, () => Promise<unknown>, () => Promise<unknown>][] = [
    [
      'closed',
      () => bed.couch('PUT', `${own}/_security`, closed),
      () => bed.couch('PUT', `${own}/_security`, security),
    ],
    [
      'missing',
      () => bed.couch('DELETE', own),
      async () => {
        await bed.couch('PUT', own);
        await bed.couch('PUT', `${own}/_security`, security);
      },
    ],
  ];
  for (const [what, begin, end] of faults) {
    await begin();
    await bed.until(
      async () => (await browser.ask('GET', '/api/health')).status === 503,
      `${what}: it is seen`,
    );
    for (const [path, body] of [
      ['/api/registrations', { email: 'new@example.org' }],
      ['/api/password-resets', { email: 'olga@example.org' }],
      ['/api/session', { email: 'olga@example.org', password: PASSWORD }],
    ] as const) {
      const answer = await browser.ask('POST', path, body);
      t.equal(answer.status, 503, `${what}: ${path}`);
      t.match(answer.body, { type: '/problems/databases-unreachable' }, `${what}: ${path}`);
      t.match(answer.headers.get('retry-after'), /^[1-9]/, `${what}: ${path}`);
    }
    t.match(
      two.output,
      /a request failed: (reading|writing) is refused by CouchDB: 40[34]/,
      'the log has the cause',
    );
    await end();
    await bed.until(
      async () => (await browser.ask('GET', '/api/health')).status === 200,
      `${what}: it is over`,
    );
  }
  t.equal((await browser.ask('POST', '/api/registrations', { email: 'new@example.org' })).status, 202);
});

t.test('without a mail server no mail is promised, and a missing database is reported', async (t) => {
  const browser = bed.browser(two);
  bed.refuseMail = true;
  const refused = await browser.ask('POST', '/api/registrations', { email: 'kurt@example.org' });
  t.equal(refused.status, 503);
  t.match(refused.body, { type: '/problems/mail-unavailable' });
  bed.refuseMail = false;
  t.equal((await browser.ask('POST', '/api/registrations', { email: 'kurt@example.org' })).status, 202);
  t.match((await bed.mailTo('kurt@example.org')).text, /Choose a password/, 'the refused one does not count');
  await bed.stopCouch();
  t.match(
    (await browser.ask('POST', '/api/session', { email: 'kurt@example.org', password: PASSWORD })).body,
    {
      type: '/problems/databases-unreachable',
    },
  );
  t.equal((await browser.ask('GET', '/healthz')).status, 200, 'the page stands when databases do not');
  t.equal((await browser.ask('GET', '/api/health')).status, 503);
});
