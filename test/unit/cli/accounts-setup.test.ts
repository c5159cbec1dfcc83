import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { SMTPServer, type SMTPServerOptions } from 'smtp-server';
import t, { type Test } from 'tap';
import type { Host } from '../../../src/cli/io.ts';
import { thisHost } from '../../../src/cli/process-io.ts';
import { withString } from '../../../src/cli/setup/toml-keys.ts';
import { runCli } from './captured-io.ts';

/** `bornemisza accounts setup`: the app tier's own program tries what is answered, with real mail servers. */
const REPOSITORY = join(import.meta.dirname, '../../..');

/** A host with the package's files, where systemctl is written down and everything else is run. */
async function place(t: Test) {
  const root = t.testdir({ 'etc/bornemisza': {} });
  const services = join(root, 'etc/bornemisza/services.d');
  await mkdir(services, { recursive: true });
  for (const name of ['web', 'api']) {
    const example = await readFile(join(REPOSITORY, `rpm/examples/${name}.toml.example`), 'utf8');
    await writeFile(join(services, `${name}.toml.example`), example);
  }
  const program = join(root, 'usr/libexec/bornemisza');
  await mkdir(program, { recursive: true });
  await symlink(process.execPath, join(program, 'node'));
  await symlink(join(REPOSITORY, 'src/app/main.ts'), join(program, 'app.mjs'));
  const calls: string[] = [];
  const real = thisHost();
  const host: Host = {
    ...real,
    uid: real.uid,
    run: async (name, args, limits) => {
      if (name !== 'systemctl') return real.run(name, args, limits);
      calls.push(`${name} ${args.join(' ')}`);
      return { code: 0, stdout: '', stderr: '' };
    },
  };
  const etc = (name: string): string => join(root, 'etc/bornemisza', name);
  const run = (argv: readonly string[], answers?: readonly string[]) =>
    runCli(['accounts', 'setup', '--root', root, ...argv], { host, ...(answers && { answers }) });
  return { calls, etc, run };
}

/** Takes connections, and says nothing. */
async function silentServer(t: Test): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function mailServer(t: Test, options: SMTPServerOptions = {}) {
  const mails: string[] = [];
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    allowInsecureAuth: true,
    disableReverseLookup: true,
    onAuth: ({ username, password }, _session, done) =>
      username === 'shop' && password === 'right password'
        ? done(null, { user: username })
        : done(new Error('no such login')),
    onData: (stream, _session, done) => {
      let text = '';
      stream.on('data', (part: Buffer) => {
        text += part.toString();
      });
      stream.on('end', () => (mails.push(text), done()));
    },
    ...options,
  });
  server.on('error', () => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return { mails, port: (server.server.address() as AddressInfo).port };
}

const siteOptions = (port: number): string[] => [
  ...['--public-url', 'https://shop.example', '--mail-from', 'hello@shop.example'],
  ...['--smtp-url', `smtp://127.0.0.1:${port}`],
];
/** A mail server on this machine, as a founder's file says it. */
const LOCAL = '[mail]\nsmtp_tls = "off" # ours\ntimeout_ms = 1000\n';

t.test('it asks, sends a test mail, writes, starts; again it proposes what is there', async (t) => {
  const { mails, port } = await mailServer(t);
  const { calls, etc, run } = await place(t);
  await writeFile(etc('accounts.toml'), `# mine\nquota_mb = 7\n\n${LOCAL}`, { mode: 0o600 });
  const answers = [
    'https://shop.example',
    '',
    'hello@shop.example',
    `smtp://127.0.0.1:${port}`,
    'shop',
    'right password',
    'me@shop.example',
  ];
  const first = await run([], answers);
  t.equal(first.code, 0, first.err);
  t.equal(mails.length, 1);
  t.match(mails[0], /To: me@shop\.example[^]*Subject: Shop can send mail/);
  t.notMatch(first.out + first.err, 'right password', 'the password is nowhere to be seen');
  t.equal(
    await readFile(etc('accounts.toml'), 'utf8'),
    `# mine
quota_mb = 7
public_url = "https://shop.example"
site_name = "Shop"

[mail]
smtp_tls = "off" # ours
timeout_ms = 1000
from = "hello@shop.example"
smtp_url = "smtp://127.0.0.1:${port}"
smtp_user = "shop"
`,
  );
  t.equal(await readFile(etc('smtp-password'), 'utf8'), 'right password\n');
  for (const name of ['accounts.toml', 'smtp-password'])
    t.equal((await stat(etc(name))).mode & 0o777, 0o600, name);
  t.match(await readFile(etc('services.d/api.toml'), 'utf8'), /^path_prefix = "\/api"$/m);
  t.match(await readFile(etc('services.d/web.toml'), 'utf8'), /^path_prefix = "\/"$/m);
  t.same(calls, ['systemctl enable --now bornemisza-app.service', 'systemctl reload bornemisza@app.service']);

  const before = await readFile(etc('accounts.toml'), 'utf8');
  const again = await run([], ['', 'The shop', '', '', '', '', '']);
  t.equal(again.code, 0, again.err);
  t.match(again.err, /e\.g\. https:\/\/shop\.example \[https:\/\/shop\.example\]/);
  t.equal(await readFile(etc('accounts.toml'), 'utf8'), before.replace('"Shop"', '"The shop"'));
  t.equal(await readFile(etc('smtp-password'), 'utf8'), 'right password\n');
  t.equal(mails.length, 1, 'no address, no test mail');
  t.same(
    (await readdir(etc('.'))).toSorted(),
    ['accounts.toml', 'services.d', 'smtp-password'],
    'nothing else stays',
  );
});

t.test('a script gives options, and on a further node the file of the first', async (t) => {
  const { mails, port } = await mailServer(t);
  const { etc, run } = await place(t);
  const [from, password] = [etc('from.toml'), etc('password')];
  await writeFile(from, LOCAL, { mode: 0o600 });
  await writeFile(password, 'right password\n', { mode: 0o600 });
  const rest = ['--smtp-user', 'shop', '--smtp-password-file', password, '--from', from, '--json'];
  const made = await run([...siteOptions(port), ...rest, '--test-to', 'me@shop.example']);
  t.equal(made.code, 0, made.err);
  t.match(JSON.parse(made.out), { siteName: 'Shop', smtpUser: 'shop', testMailTo: 'me@shop.example' });
  t.equal(mails.length, 1);

  const dry = await run(['--site-name', 'Other', '--dry-run', '--json']);
  t.match(JSON.parse(dry.out), { dryRun: true, configuration: { text: /site_name = "Other"/ } });
  t.match(await readFile(etc('accounts.toml'), 'utf8'), /site_name = "Shop"/, 'nothing was written');
  const other = await place(t);
  const missing = await other.run(['--json']);
  t.match(JSON.parse(missing.err), { error: { code: 'accounts-setup-missing', message: /--public-url/ } });
  t.equal(missing.code, 2);
});

t.test('a refusal of the mail server has a code of its own, and nothing is written', async (t) => {
  const { port: plain } = await mailServer(t);
  const { port: secure } = await mailServer(t, { disabledCommands: [] });
  const { port: refusing } = await mailServer(t, {
    onRcptTo: (_address, _session, done) => done(new Error('not for you')),
  });
  const silent = await silentServer(t);
  const cases: readonly (readonly [code: string, port: number, from: string, user: string])[] = [
    ['accounts-mail-login', plain, LOCAL, 'shop'],
    ['accounts-mail-tls', secure, '[mail]\ntimeout_ms = 2000\n', ''],
    ['accounts-mail-tls', plain, '[mail]\ntimeout_ms = 2000\n', ''],
    ['accounts-mail-refused', refusing, LOCAL, ''],
    ['accounts-mail-timeout', silent, LOCAL, ''],
    ['accounts-mail-unreachable', 1, LOCAL, ''],
    ['accounts-config', plain, `quota_mb = 0\n${LOCAL}`, ''],
  ];
  for (const [code, port, from, user] of cases) {
    const { calls, etc, run } = await place(t);
    await writeFile(etc('from.toml'), from, { mode: 0o600 });
    await writeFile(etc('password'), 'wrong password\n', { mode: 0o600 });
    const login = user === '' ? [] : ['--smtp-user', user, '--smtp-password-file', etc('password')];
    const options = [...siteOptions(port), ...login, '--from', etc('from.toml'), '--json'];
    const failed = await run([...options, '--test-to', 'me@shop.example']);
    t.equal(failed.code, 1, code);
    const { error } = JSON.parse(failed.err) as { error: { code: string; message: string; next: string } };
    t.equal(error.code, code, error.message);
    t.match(error.message, /nothing was written$/);
    t.notMatch(failed.err, 'wrong password');
    t.same((await readdir(etc('.'))).toSorted(), ['from.toml', 'password', 'services.d']);
    t.same(calls, []);
  }
});

t.test('a file that another user can write is not read, nor a link followed', async (t) => {
  const { port } = await mailServer(t);
  const { etc, run } = await place(t);
  await writeFile(etc('open.toml'), LOCAL);
  await chmod(etc('open.toml'), 0o666);
  await writeFile(etc('real.toml'), LOCAL, { mode: 0o600 });
  await symlink(etc('real.toml'), etc('link.toml'));
  for (const name of ['open.toml', 'link.toml', 'services.d']) {
    const refused = await run([...siteOptions(port), '--from', etc(name), '--no-test-mail', '--json']);
    t.match(JSON.parse(refused.err), { error: { code: 'file-unreadable' } }, name);
  }
  await writeFile(etc('services.d/site.toml'), 'name = "site"\nport = 8080\n');
  const taken = await run([...siteOptions(port), '--from', etc('real.toml'), '--no-test-mail', '--json']);
  t.match(JSON.parse(taken.err), { error: { code: 'accounts-prefix-taken', message: /service site/ } });
});

t.test('one key of a TOML text is set, and nothing else of it changes', async (t) => {
  const cases: readonly (readonly [text: string, table: string, key: string, becomes: string])[] = [
    ['', '', 'a', 'a = "new"\n'],
    ['# c\na = "old" # why\nb = 1\n', '', 'a', '# c\na = "new" # why\nb = 1\n'],
    ["  a='old'\n", '', 'a', '  a="new"\n'],
    ['b = 1\n\n[mail]\na = "of mail"\n', '', 'a', 'b = 1\na = "new"\n\n[mail]\na = "of mail"\n'],
    [
      'a = "top"\n[mail] # m\nb = 1\n\n[x]\n',
      'mail',
      'a',
      'a = "top"\n[mail] # m\nb = 1\na = "new"\n\n[x]\n',
    ],
    ['b = 1\n', 'mail', 'a', 'b = 1\n\n[mail]\na = "new"\n'],
    ['aa = "x"\n', '', 'a', 'aa = "x"\na = "new"\n'],
  ];
  for (const [text, table, key, becomes] of cases)
    t.equal(withString(text, table, key, 'new'), becomes, JSON.stringify(text));
  t.equal(withString('', '', 'a', 'q"\\'), 'a = "q\\"\\\\"\n', 'quoted as TOML has it');
});
