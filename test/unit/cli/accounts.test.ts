import t from 'tap';
import type { Role } from '../../../src/daemon/membership/types.ts';
import { runCli } from './captured-io.ts';
import { type Answer, type Asked, FakeDaemon, refusal } from './fake-daemon.ts';
import { place } from './place.ts';

type Answers = Readonly<Record<string, Answer | ((asked: Asked) => Answer)>>;

const NAME = `a${'b'.repeat(32)}`;
const ANNA = { email: 'anna@example.org', account: NAME, disabled: false };
const SHOWN = { ...ANNA, database: 'userdb-61', usedBytes: 1_572_864, quotaBytes: 52_428_800 };
const changed = (facts: object): Answer => ({ json: { ...ANNA, changed: true, ...facts } });

async function daemon(test: Parameters<typeof place>[0], answers: Answers, role: Role = 'app') {
  const root = await place(test);
  const fake = await new FakeDaemon(root, role, answers).start();
  test.teardown(() => fake.stop());
  return { root, fake };
}

t.test('accounts list reads every page, and sorts what has no order', async (t) => {
  const pages: Answers = {
    'POST /v1/accounts/list': ({ body }) =>
      (body as { after?: string }).after === undefined
        ? { json: { accounts: [{ ...ANNA, email: 'zoe@example.org', disabled: true }], next: 'email:1' } }
        : { json: { accounts: [ANNA] } },
  };
  const { root, fake } = await daemon(t, pages);
  const { code, out, err } = await runCli(['accounts', 'list', '--root', root]);
  t.equal(code, 0);
  t.equal(err, '');
  t.match(out, /anna@example\.org +enabled +ab+\nzoe@example\.org +disabled +ab+\n$/);
  t.same(
    fake.asked.map(({ body }) => body),
    [{}, { after: 'email:1' }],
  );
  const json = await runCli(['accounts', 'list', '--json', '--root', root]);
  t.match(JSON.parse(json.out), { accounts: [ANNA, { disabled: true }], more: false });
});

t.test('accounts list ends at its bound, and says that there is more', async (t) => {
  const page = Array.from({ length: 1000 }, () => ANNA);
  const { root, fake } = await daemon(t, {
    'POST /v1/accounts/list': { json: { accounts: page, next: 'email:1' } },
  });
  const { code, err } = await runCli(['accounts', 'list', '--root', root]);
  t.equal(code, 0);
  t.match(err, /Only the first 10000 are listed\.\n {2}next: bornemisza accounts show EMAIL/);
  t.equal(fake.asked.length, 10);
  const json = await runCli(['accounts', 'list', '--json', '--root', root]);
  t.equal((JSON.parse(json.out) as { more: boolean }).more, true);
});

t.test('accounts list of nobody is a sentence, and an empty list for programs', async (t) => {
  const { root } = await daemon(t, { 'POST /v1/accounts/list': { json: { accounts: [] } } });
  t.equal((await runCli(['accounts', 'list', '--root', root])).out, 'nobody has an account yet\n');
  const { out } = await runCli(['accounts', 'list', '--json', '--root', root]);
  t.same(JSON.parse(out), { accounts: [], more: false });
});

t.test('accounts show prints state, database and space, even while the database is created', async (t) => {
  let shown: object = SHOWN;
  const { root, fake } = await daemon(t, { 'POST /v1/accounts/show': () => ({ json: shown }) });
  const first = await runCli(['accounts', 'show', ' anna@example.org ', '--root', root]);
  t.match(first, {
    code: 0,
    out: /^anna@example\.org\n.*ab+\n.*enabled\n.*userdb-61\n.*1\.5 MB, of 50\.0 MB\n$/,
  });
  t.same(fake.asked[0]?.body, { email: 'anna@example.org' });
  shown = { ...SHOWN, disabled: true, usedBytes: null };
  const second = await runCli(['accounts', 'show', 'anna@example.org', '--root', root]);
  t.match(second.out, /disabled: nobody can sign in/);
  t.match(second.out, /its database is being created/);
  const { out } = await runCli(['accounts', 'show', 'anna@example.org', '--json', '--root', root]);
  t.same(JSON.parse(out), shown);
});

t.test('accounts disable and enable say what they did, and when there was nothing to do', async (t) => {
  let answer = changed({ disabled: true });
  const { root } = await daemon(t, {
    'POST /v1/accounts/disable': () => answer,
    'POST /v1/accounts/enable': () => answer,
  });
  const disabled = await runCli(['accounts', 'disable', 'Anna@Example.org', '--root', root]);
  t.match(disabled, { code: 0, out: /is disabled: at other nodes its sessions end within 5 s/ });
  answer = changed({});
  const enabled = await runCli(['accounts', 'enable', 'anna@example.org', '--root', root]);
  t.equal(enabled.out, 'anna@example.org is enabled\n');
  answer = changed({ changed: false });
  const again = await runCli(['accounts', 'enable', 'anna@example.org', '--root', root]);
  t.match(again, { code: 0, out: 'anna@example.org is already enabled\n' });
  const json = await runCli(['accounts', 'enable', 'anna@example.org', '--json', '--root', root]);
  t.match(JSON.parse(json.out), { ...ANNA, changed: false });
});

t.test(
  'accounts delete shows what will be deleted and asks for the address; a script gives --yes',
  async (t) => {
    const { root, fake } = await daemon(t, {
      'POST /v1/accounts/show': { json: SHOWN },
      'POST /v1/accounts/delete': changed({}),
    });
    const deletions = (): number => fake.asked.filter(({ path }) => path.endsWith('/delete')).length;
    const argv = ['accounts', 'delete', 'ANNA@example.org', '--root', root];
    for (const answers of [['no'], ['ANNA'], [''], []]) {
      const refused = await runCli(argv, { answers });
      t.match(refused, { code: 2, err: /its data \(1\.5 MB, of 50\.0 MB\) will be deleted for good/ });
      t.match(refused.err, /was not deleted\n {2}next: run it again and type the address/);
    }
    const nobody = await runCli([...argv, '--json']);
    t.match(nobody, { code: 2, out: '' });
    t.match(JSON.parse(nobody.err), { error: { code: 'accounts-not-confirmed', next: /--yes/ } });
    t.equal(deletions(), 0);
    t.match(await runCli(argv, { answers: ['anna@example.org'] }), {
      code: 0,
      out: 'anna@example.org is deleted, with its database\n',
    });
    const script = await runCli([...argv, '--yes', '--json']);
    t.match(JSON.parse(script.out), { changed: true });
    t.equal(deletions(), 2);
  },
);

t.test('what is no address is refused before anybody is asked', async (t) => {
  const { root, fake } = await daemon(t, {});
  for (const wrong of ['anna', '@', 'a b@c', 'anna@', '']) {
    const refused = await runCli(['accounts', 'disable', wrong, '--json', '--root', root]);
    t.equal(refused.code, 2, wrong);
    t.match(JSON.parse(refused.err), {
      error: { code: 'usage', next: 'bornemisza accounts disable --help' },
    });
  }
  t.equal(fake.asked.length, 0);
});

t.test('a refusal carries its code and next step through, also of a db node', async (t) => {
  const answer = { json: refusal('accounts-elsewhere', 'not here', 'run it on an app node'), status: 409 };
  const { root } = await daemon(t, { 'POST /v1/accounts/list': answer }, 'db');
  const refused = await runCli(['accounts', 'list', '--json', '--root', root]);
  t.equal(refused.code, 1);
  t.match(JSON.parse(refused.err), { error: { code: 'accounts-elsewhere', next: 'run it on an app node' } });
  const none = await runCli(['accounts', 'list', '--root', await place(t)]);
  t.equal(none.code, 3);
});

t.test('where both roles run, accounts are asked of the app node', async (t) => {
  const { root, fake } = await daemon(t, { 'POST /v1/accounts/list': { json: { accounts: [ANNA] } } });
  const db = await new FakeDaemon(root, 'db', {}).start();
  t.teardown(() => db.stop());
  t.equal((await runCli(['accounts', 'list', '--root', root])).code, 0);
  t.same([fake.asked.length, db.asked.length], [1, 0]);
});
