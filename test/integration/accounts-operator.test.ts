import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { signMailToken } from '../../src/app/accounts/mail-token.ts';
import { AccountOrders } from '../../src/daemon/accounts/orders.ts';
import { systemClock } from '../../src/daemon/clock.ts';
import { AuditTrail } from '../../src/daemon/audit/trail.ts';
import { pathsFor } from '../../src/daemon/config/config.ts';
import type { ListedAccount, ShownAccount } from '../../src/daemon/control/api.ts';
import { type ControlActions, ControlServer } from '../../src/daemon/control/server.ts';
import { runCli } from '../unit/cli/captured-io.ts';
import { AppBed, type Browser } from './app-bed.ts';

/** `bornemisza accounts`, from the command line through the control socket to the app tier and the databases. */
t.setTimeout(1_100_000);
const PASSWORD = 'four green turtles';

const bed = await AppBed.start();
t.teardown(() => bed.close());
const here = await bed.addNode();
const there = await bed.addNode();

const fails = (error: Error): never => {
  throw error;
};
/** The daemon's part beside the first node, as the composition root puts it together. */
// Not t.testdir(): a unix socket's path has 107 characters at most.
const root = await mkdtemp(join(tmpdir(), 'bm-operator-'));
t.teardown(() => rm(root, { recursive: true, force: true }));
const audit = new AuditTrail(
  { file: `${root}/audit.jsonl` },
  { clock: systemClock, announce: () => {}, onProblem: fails },
);
const orders = new AccountOrders(
  { name: 'app1/app', role: 'app' },
  { socket: bed.operatorSocket(here.port), audit },
);
const control = new ControlServer(
  { path: pathsFor('app', root).controlSocket, role: 'app' },
  {
    trail: audit,
    actions: () =>
      ({
        accounts: (after) => orders.list(after),
        account: (email) => orders.show(email),
        changeAccount: (verb, email) => orders.change(verb, email),
      }) as Partial<ControlActions> as ControlActions,
  },
);
await control.listen();
t.teardown(() => control.close());

const accounts = (...argv: string[]) => runCli(['accounts', ...argv, '--root', root]);

async function json<T>(...argv: string[]): Promise<T> {
  const { code, out, err } = await accounts(...argv, '--json');
  if (code !== 0) throw new Error(err);
  return JSON.parse(out) as T;
}
const emails = async (): Promise<string[]> =>
  (await json<{ accounts: ListedAccount[] }>('list')).accounts.map(({ email }) => email);
const written = (): string[] => audit.query({ limit: 100 }).map(({ summary }) => summary);

async function signedUp(email: string): Promise<Browser> {
  const browser = bed.browser(here);
  await bed.register(browser, email, PASSWORD);
  await bed.until(async () => (await browser.ask('GET', '/api/data')).status === 200, `the data of ${email}`);
  return browser;
}

/** A live feed, once it is open and has carried a change. */
async function openFeed(browser: Browser, port: number): Promise<{ readonly hasEnded: () => boolean }> {
  const path = '/api/data/_changes?feed=continuous&since=0';
  const headers = { cookie: browser.cookie };
  const call = request({ host: '127.0.0.1', port, path, headers });
  t.teardown(() => call.destroy());
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    call.once('error', reject).once('response', resolve).end();
  });
  if (answer.statusCode !== 200) throw new Error(`the feed answers ${answer.statusCode}`);
  let [said, ended] = ['', false];
  answer.setEncoding('utf8').on('data', (part: string) => {
    said += part;
  });
  answer.once('end', () => {
    ended = true;
  });
  const id = `feed-${randomUUID()}`;
  await browser.ask('PUT', `/api/data/${id}`, {});
  await bed.until(async () => said.includes(id), 'the feed carries a change');
  return { hasEnded: () => ended };
}

t.test('the list has who confirmed, and nobody who only asked', async (t) => {
  t.equal((await accounts('list')).out, 'nobody has an account yet\n');
  await signedUp('Zoe@Example.org');
  await signedUp('bert@example.org');
  await bed.browser(here).ask('POST', '/api/registrations', { email: 'asked@example.org' });
  t.same(await emails(), ['Zoe@example.org', 'bert@example.org']);
  const shown = await json<ShownAccount>('show', 'ZOE@example.ORG');
  t.match(shown, { email: 'Zoe@example.org', disabled: false, quotaBytes: 50 * 1024 * 1024 });
  t.type(shown.usedBytes, 'number');
  const database = await bed.couch('GET', `/${shown.database}`);
  t.equal(database.status, 200, 'the database that it names is there');
  t.same(written(), [], 'who looks changes nothing');
});

t.test('a disabled account is refused here at once, elsewhere in 5 s, and its open feeds end', async (t) => {
  const browser = await signedUp('carl@example.org');
  const other = browser.at(there.port);
  t.equal((await other.ask('GET', '/api/me')).status, 200);
  const feeds = await Promise.all([openFeed(browser, here.port), openFeed(browser, there.port)]);

  t.notOk(
    feeds.some(({ hasEnded }) => hasEnded()),
    'a feed stays open by itself',
  );
  t.match(await accounts('disable', 'CARL@example.org'), { code: 0, out: /carl@example\.org is disabled/ });
  t.equal((await browser.ask('GET', '/api/me')).status, 401, 'at once');
  t.equal((await browser.ask('PUT', '/api/data/x', { a: 1 })).status, 401);
  await bed.until(async () => (await other.ask('GET', '/api/me')).status === 401, 'the other node knows');
  await bed.until(async () => feeds.every(({ hasEnded }) => hasEnded()), 'both feeds have ended');
  const credentials = { email: 'carl@example.org', password: PASSWORD };
  t.equal((await bed.browser(there).ask('POST', '/api/session', credentials)).status, 401);
  t.match(await accounts('disable', 'carl@example.org'), { code: 0, out: /is already disabled/ });

  t.match(await accounts('enable', 'carl@example.org'), { code: 0, out: /is enabled\n/ });
  t.equal((await browser.ask('GET', '/api/me')).status, 401, 'a session of before stays ended');
  t.equal((await bed.browser(here).ask('POST', '/api/session', credentials)).status, 200);
  const { account } = await json<ShownAccount>('show', 'carl@example.org');
  t.same(written(), [`account ${account} was disabled`, `account ${account} was enabled`]);
});

t.test('nothing of a disabled account answers, at the node where it was disabled', async (t) => {
  const browser = await signedUp('emma@example.org');
  const next = { email: 'emma@new.example', password: PASSWORD };
  t.equal((await browser.ask('POST', '/api/me/email', next)).status, 202);
  const { token } = await bed.mailTo('emma@new.example');
  await accounts('disable', 'emma@example.org');
  const ways: readonly (readonly [method: string, path: string, body?: unknown])[] = [
    ['GET', '/api/me'],
    ['GET', '/api/me/export'],
    ['PUT', '/api/me/password', { old: PASSWORD, new: 'seven purple elephants' }],
    ['POST', '/api/me/email', next],
    ['PUT', '/api/me/email', { token }],
    ['POST', '/api/me/deletion', { password: PASSWORD }],
    ['DELETE', '/api/session'],
    ['DELETE', '/api/sessions'],
    ['POST', '/api/session', { email: 'emma@example.org', password: PASSWORD }],
    ['GET', '/api/data'],
    ['PUT', '/api/data/x', {}],
    ['POST', '/api/data/_bulk_docs', { docs: [] }],
    ['GET', '/api/data/_changes?feed=longpoll'],
    ['GET', '/api/data/_changes?feed=eventsource'],
  ];
  for (const [method, path, body] of ways)
    t.equal((await browser.ask(method, path, body)).status, 401, `${method} ${path}`);
});

t.test('no link sets a password or an address of a disabled account, and none is sent', async (t) => {
  const browser = await signedUp('fred@example.org');
  const other = browser.at(there.port);
  const change = { email: 'fred@new.example', password: PASSWORD };
  t.equal((await browser.ask('POST', '/api/me/email', change)).status, 202);
  const { token } = await bed.mailTo('fred@new.example');
  // The other node believes for 5 s what it reads here.
  t.equal((await other.ask('GET', '/api/me')).status, 200);
  await accounts('disable', 'fred@example.org');
  const changed = await other.ask('PUT', '/api/me/email', { token });
  t.ok([401, 410].includes(changed.status), `${changed.status} at the other node`);

  for (const path of ['/api/password-resets', '/api/registrations']) {
    await bed.forgetMails('fred@example.org');
    const from = bed.mails.length;
    t.equal((await bed.browser(here).ask('POST', path, { email: 'fred@example.org' })).status, 202, path);
    t.match(await bed.mailTo('fred@example.org', from), { text: /is disabled/, token: undefined });
  }
  const { account } = await json<ShownAccount>('show', 'fred@example.org');
  const { body } = await bed.couch('GET', `/_users/org.couchdb.user:${account}`);
  const { epoch } = body as { epoch: number };
  const link = signMailToken(bed.keys, { purpose: 'reset', account, epoch }, Date.now());
  const reset = { token: link, password: 'seven purple elephants' };
  t.equal(
    (await bed.browser(there).ask('PUT', '/api/password', reset)).status,
    410,
    'a link of its own epoch',
  );
  const again = signMailToken(bed.keys, { purpose: 'register', email: 'fred@example.org' }, Date.now());
  const confirmed = await bed
    .browser(there)
    .ask('POST', '/api/accounts', { token: again, password: PASSWORD });
  t.equal(confirmed.status, 409);

  await accounts('enable', 'fred@example.org');
  const credentials = { email: 'fred@example.org', password: PASSWORD };
  t.equal(
    (await bed.browser(here).ask('POST', '/api/session', credentials)).status,
    200,
    'nothing has changed',
  );
  t.equal((await other.ask('GET', '/api/me')).status, 401, 'no session of before counts again');
});

t.test('a feed ends with any session: signed out here, signed out everywhere, deleted', async () => {
  const ways: readonly (readonly [method: string, path: string, body?: unknown])[] = [
    ['DELETE', '/api/session'],
    ['DELETE', '/api/sessions'],
    ['POST', '/api/me/deletion', { password: PASSWORD }],
  ];
  for (const [at, [method, path, body]] of ways.entries()) {
    const browser = await signedUp(`feed${at}@example.org`);
    const feed = await openFeed(browser.at(there.port), there.port);
    await browser.ask(method, path, body);
    await bed.until(async () => feed.hasEnded(), `the feed ends after ${method} ${path}`);
  }
});

t.test('a deleted account is gone with its database, and its address is free', async (t) => {
  const browser = await signedUp('dora@example.org');
  await browser.ask('PUT', '/api/data/note', { text: 'mine' });
  const before = await json<ShownAccount>('show', 'dora@example.org');
  // A disabled one goes as well.
  await accounts('disable', 'dora@example.org');
  t.match(await accounts('delete', 'dora@example.org', '--yes'), {
    code: 0,
    out: /is deleted, with its database/,
  });
  await bed.until(
    async () => (await bed.couch('GET', `/${before.database}`)).status === 404,
    'couch_peruser deletes the database',
  );
  t.equal((await browser.ask('GET', '/api/me')).status, 401);
  t.notOk((await emails()).includes('dora@example.org'));
  t.equal(written().at(-1), `account ${before.account} was deleted with its database`);
  t.notMatch(JSON.stringify(audit.query({ limit: 100 })), '@', 'no address stands in the trail');

  const gone = await accounts('delete', 'dora@example.org', '--yes', '--json');
  t.equal(gone.code, 1);
  t.match(JSON.parse(gone.err), { error: { code: 'account-unknown', next: /accounts list/ } });
});

t.test('each failure has a code, a next step, and changes nothing', async (t) => {
  const failing = async (argv: string[]): Promise<{ code: string; next: string }> => {
    const { code, err } = await accounts(...argv, '--json');
    t.equal(code, 1, argv.join(' '));
    return (JSON.parse(err) as { error: { code: string; next: string } }).error;
  };
  t.match(await failing(['show', 'nobody@example.org']), { code: 'account-unknown' });
  t.match(await failing(['show', 'a..b@example.org']), { code: 'account-address' });
  t.match(await failing(['disable', 'a@localhost']), { code: 'account-address' });
  const before = written().length;
  await bed.stopCouch();
  for (const argv of [['list'], ['show', 'bert@example.org'], ['disable', 'bert@example.org']])
    t.match(await failing(argv), { code: 'databases-unreachable', next: /bornemisza status/ });
  t.equal(written().length, before + 1, 'the change that failed is one entry');
  await here.end('SIGTERM');
  t.match(await failing(['list']), { code: 'app-tier-not-running', next: /systemctl start bornemisza-app/ });
});
