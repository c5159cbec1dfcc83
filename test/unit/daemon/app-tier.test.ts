import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ANSWERS, askAppTier } from '../../../src/daemon/accounts/app-tier.ts';
import { AccountOrders } from '../../../src/daemon/accounts/orders.ts';
import type { NewAuditEntry } from '../../../src/daemon/audit/trail.ts';

const NAME = `a${'b'.repeat(32)}`;
const EMAIL = 'anna@example.org';
const ANNA = { email: EMAIL, account: NAME, disabled: false };

/** The app tier's end of the socket, which answers what a test says. */
async function appTier(t: Test, answer: (url: string, response: ServerResponse) => void) {
  // Not t.testdir(): a unix socket's path has 107 characters at most.
  const directory = await mkdtemp(join(tmpdir(), 'bm-tier-'));
  const path = join(directory, 'operator.sock');
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    answer(request.url ?? '', response);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(directory, { recursive: true, force: true });
  });
  return { path, directory, asked };
}

const says = (value: unknown) => (_url: string, response: ServerResponse) => {
  response.end(typeof value === 'string' ? value : JSON.stringify(value));
};
const list = (path: string) => askAppTier(path, { order: 'list', body: {}, schema: ANSWERS.list });

t.test('an answer of the app tier is taken by its shape alone', async (t) => {
  const { path } = await appTier(t, says({ accounts: [{ ...ANNA, more: 'unknown keys are left out' }] }));
  t.same(await list(path), { accounts: [ANNA] });
});

t.test('what a lesser user makes up is refused, and never passed on', async (t) => {
  const odd: readonly unknown[] = [
    '',
    'not JSON',
    '[]',
    'null',
    {},
    { accounts: [{ ...ANNA, account: '../../etc' }] },
    { accounts: [{ ...ANNA, email: 'x'.repeat(255) }] },
    { accounts: Array.from({ length: 1001 }, () => ANNA) },
    { error: { code: 'Guard Says!', message: 'm', next: 'n' } },
    { error: { code: 'x', message: 'm'.repeat(2001), next: 'n' } },
    `"${'x'.repeat(1024 * 1024)}"`,
  ];
  for (const answer of odd) {
    const { path } = await appTier(t, says(answer));
    const what = JSON.stringify(answer).slice(0, 60);
    await t.rejects(list(path), { code: 'app-tier-answer', next: /systemctl restart/ }, what);
  }
  const cut = await appTier(t, (_url, response) => {
    response.writeHead(200, { 'content-length': '100' }).write('{');
    response.destroy();
  });
  await t.rejects(list(cut.path), { code: 'app-tier-answer' });
  const words = { error: { code: 'some-code', message: 'red \u001b[31m\nline', next: 'type\u0007' } };
  const { path } = await appTier(t, says(words));
  await t.rejects(list(path), { code: 'some-code', message: 'red \uFFFD[31m\\nline', next: 'type\uFFFD' });
});

t.test('a link in the place of the socket is not followed, whatever it leads to', async (t) => {
  const other = await appTier(t, says({ accounts: [] }));
  const link = join(other.directory, 'link.sock');
  await symlink(other.path, link);
  await t.rejects(list(link), { code: 'app-tier-answer' });
  t.same(other.asked, [], 'the other socket heard nothing');
  const file = join(other.directory, 'file.sock');
  await writeFile(file, '');
  await t.rejects(list(file), { code: 'app-tier-answer', message: /is not a socket/ });
  await t.rejects(list(other.directory), { code: 'app-tier-answer', message: /is not a socket/ });
});

t.test('an app tier that does not run has its own error', async (t) => {
  const { path, directory } = await appTier(t, says({}));
  await t.rejects(list(join(directory, 'none.sock')), {
    code: 'app-tier-not-running',
    next: /systemctl start/,
  });
  await t.rejects(list(join(path, 'below')), { code: 'app-tier-not-running' });
});

t.test('each change is one entry, of an operator, without the address of the person', async (t) => {
  const entries: NewAuditEntry[] = [];
  const audit = { append: (entry: NewAuditEntry) => ({ ...entry, id: entries.push(entry), at: '' }) };
  let answer: unknown = {};
  const { path, asked } = await appTier(t, (_url, response) => response.end(JSON.stringify(answer)));
  const orders = new AccountOrders({ name: 'app1/app', role: 'app' }, { socket: path, audit });

  answer = { accounts: [ANNA] };
  await orders.list(undefined);
  answer = { ...ANNA, database: 'userdb-61', usedBytes: null, quotaBytes: 1 };
  await orders.show(EMAIL);
  t.same(entries, [], 'who only looks changes nothing');

  for (const [verb, word] of [
    ['disable', 'disabled'],
    ['enable', 'enabled'],
    ['delete', 'deleted with its database'],
  ] as const) {
    entries.length = 0;
    answer = { ...ANNA, changed: true };
    await orders.change(verb, EMAIL);
    const summary = `account ${NAME} was ${word}`;
    t.match(entries, [{ kind: 'operator', result: 'ok', summary, subjects: ['app1/app'] }]);
    t.equal(entries.length, 1);
    answer = { ...ANNA, changed: false };
    await orders.change(verb, EMAIL);
    t.equal(entries.length, 1, 'what was so already is no change');
    for (const code of ['account-unknown', 'account-address']) {
      answer = { error: { code, message: `nobody is ${EMAIL}`, next: 'look' } };
      await t.rejects(orders.change(verb, EMAIL), { code });
    }
    t.equal(entries.length, 1, 'nor is what was refused before');
    answer = { error: { code: 'not-durable', message: 'too few copies', next: 'again' } };
    await t.rejects(orders.change(verb, EMAIL), { code: 'not-durable' });
    t.match(entries[1], { kind: 'operator', result: 'failed', error: { code: 'not-durable' } });
    t.notMatch(JSON.stringify(entries), EMAIL);
  }
  t.match(asked, ['/accounts/list', '/accounts/show', '/accounts/disable']);
});

t.test('a db node sends the operator to an app node', async (t) => {
  const orders = new AccountOrders(
    { name: 'db1/db', role: 'db' },
    { socket: '/nowhere', audit: { append: () => t.fail('nothing was done') as never } },
  );
  const all: Promise<unknown>[] = [
    orders.list(undefined),
    orders.show(EMAIL),
    orders.change('delete', EMAIL),
  ];
  for (const order of all) await t.rejects(order, { code: 'accounts-elsewhere', next: /app node/ });
});
