import { spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { createSecrets } from '../../../src/daemon/identity/secrets.ts';
import { namedIn, scrubber } from '../../../src/cli/debug/secrets.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { entry, FakeDaemon, MEMBERS, status } from './fake-daemon.ts';
import { place } from './place.ts';

const WEBHOOK = 'https://hooks.example.com/services/T0000/B0000/webhookWord12345';

const PUBLIC_VALUES = [
  'app1/db',
  `12D3KooW${'Ab3'.repeat(14)}xy`,
  '10.0.0.11:4103',
  '2026-11-22T17:30:00.000Z',
];

/** A db node with all that can be a secret, set up by the program itself, and an app tier's part beside it. */
async function installed(test: Parameters<typeof place>[0]) {
  const root = await place(test);
  const made = await runCli(['init', '--role', 'db', '--root', root], { host: fakeHost({}), terminal: true });
  if (made.code !== 0) throw new Error(made.err);
  const paths = pathsFor('db', root);
  const secrets = await createSecrets();
  const siteKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
    type: 'pkcs8',
    format: 'pem',
  }) as string;
  const own: Readonly<Record<string, string>> = {
    smtp: 'smtpPassword12345',
    dns: 'cloudflareToken_12345-abc',
    floating: 'digitaloceanToken_12345-abc',
    tsig: 'bm90IGEgcmVhbCB0c2lnIGtleQ==',
  };
  await mkdir(paths.couchdbFiles, { recursive: true });
  await mkdir(paths.accountsFiles, { recursive: true });
  await writeFile(join(paths.state, 'secrets.json'), JSON.stringify(secrets));
  await writeFile(
    join(paths.state, 'site.json'),
    JSON.stringify({ key: siteKey, account: { key: siteKey } }),
  );
  await writeFile(join(paths.couchdbFiles, 'cookie'), secrets.cookie);
  await writeFile(join(paths.couchdbFiles, 'key.pem'), siteKey);
  await writeFile(join(root, 'smtp-password'), `${own['smtp']}\n`);
  await writeFile(join(root, 'dns-token'), `${own['dns']}\n`);
  await writeFile(join(root, 'floating-token'), `${own['floating']}\n`);
  await writeFile(
    join(root, 'tsig'),
    `key "k" {\n  algorithm hmac-sha256;\n  secret "${own['tsig']}";\n};\n`,
  );
  const config = await readFile(paths.config, 'utf8');
  await writeFile(
    paths.config,
    `${config.replace(/^\[notify\]$/gm, '')}\n[notify]\nwebhook_url = "${WEBHOOK}"\n` +
      'command = ["/usr/bin/page", "--key=commandWord123"]\n' +
      'mail_to = ["a@example.com"]\nmail_from = "b@example.com"\nsmtp_url = "smtp://mail.example.com:587"\n' +
      `smtp_user = "b@example.com"\nsmtp_password_file = "${join(root, 'smtp-password')}"\n`,
  );
  // An app node of the same host, whose file is wrong: what it names is a secret all the same.
  await writeFile(
    pathsFor('app', root).config,
    `[dns]\nprovider = "wrong"\nkey_file = "${join(root, 'tsig')}"\ntoken_file = "${join(root, 'dns-token')}"\n` +
      `[floating]\nmode = "api"\ntoken_file = "${join(root, 'floating-token')}"\ncommand = ["/x", "moveWord12345"]\n`,
  );
  await writeFile(
    join(root, 'var/lib/bornemisza/db/tokens.json'),
    JSON.stringify({ usedBy: PUBLIC_VALUES[0], more: PUBLIC_VALUES }),
  );
  const { admin, app, appKeys } = secrets;
  const words = [
    ...[secrets.cookie, secrets.authSecret, admin.password, admin.hash, app.password],
    ...appKeys.map(({ secret }) => secret),
    ...Object.values(own),
    ...[WEBHOOK.split('.com/')[1] ?? '', 'commandWord123', 'moveWord12345'],
    ...(await pemLines(join(root, 'var/lib'))),
    Buffer.from(`${admin.user}:${admin.password}`).toString('base64'),
  ];
  return { root, words };
}

/** Every line of every private key below a directory, read without the program's own reader. */
async function pemLines(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const each of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!each.isFile()) continue;
    const text = (await readFile(join(each.parentPath, each.name), 'utf8')).replaceAll('\\n', '\n');
    for (const [, body = ''] of text.matchAll(/BEGIN [A-Z ]*PRIVATE KEY-----\n([\s\S]*?)-----END/g))
      found.push(...body.split('\n').filter((line) => line.length > 8));
  }
  return found;
}

t.test('no secret of an installed node is in the bundle, wherever it appeared', async (t) => {
  const { root, words } = await installed(t);
  t.ok(words.length > 50, `${words.length} secrets`);
  // Each is said by every source, as it is and as it travels.
  const said = words.flatMap((word) => [word, encodeURIComponent(word), `x${word}y`]).join('\n');
  const token = `bm1.${'a'.repeat(60)}.abcd`;
  const keyOfOthers = generateKeyPairSync('ed25519').privateKey.export({
    type: 'pkcs8',
    format: 'pem',
  }) as string;
  // A whole key of somebody else is known by its form, also in one line of JSON.
  const asked = 'http://admin:p4ssw0rd@127.0.0.1:5984/\nAuthorization: Basic YWRtaW46eHh4eHg=';
  const loud = `${said}\n${token}\n${asked}\n${keyOfOthers}`;
  const program = () => ({ stdout: loud, stderr: loud, code: 3 });
  const programs = Object.fromEntries(
    ['journalctl', 'systemctl', 'ip', 'ss', 'nft', 'df', 'ps', 'cat', 'free'].map((name) => [name, program]),
  );
  const warning = { code: 'x', message: loud, next: loud };
  const cut = () => ({ stderr: said, code: 1 });
  const fake = await new FakeDaemon(root, 'db', {
    'GET /v1/status': { json: status({ warnings: [warning], name: PUBLIC_VALUES.join(' ') }) },
    'GET /v1/members': {
      json: { self: 'app1/db', members: MEMBERS.map((each) => ({ ...each, reason: loud })) },
    },
    'GET /v1/plan': { json: { plugins: [{ name: 'couchdb', changes: [{ kind: 'file', summary: loud }] }] } },
    'GET /v1/audit': { json: { entries: [entry({ id: 1, summary: loud, changes: [loud] })] } },
  }).start();
  t.teardown(() => fake.stop());
  const file = join(root, 'bundle.tar.gz');
  const { code, out, err } = await runCli(['debug', 'bundle', '--root', root, '--output', file], {
    host: fakeHost({ programs: { ...programs, haproxy: cut } }),
  });
  t.match({ code, err }, { code: 0, err: '' });
  t.match(out, `${file}: `);
  t.equal((await stat(file)).mode & 0o777, 0o600);
  const listed = spawnSync('tar', ['-tzf', file], { encoding: 'utf8' });
  t.equal(listed.status, 0, listed.stderr);
  const names = listed.stdout.trim().split('\n');
  for (const name of [
    ...[
      'README.txt',
      'doctor.json',
      'units/status.txt',
      'units/show.txt',
      'journal/bornemisza@db.service.txt',
    ],
    ...[
      'journal/couchdb.service.txt',
      'host/addresses.txt',
      'db/status.json',
      'db/members.json',
      'db/plan.json',
    ],
    ...['db/events.ndjson', 'db/config.json'],
  ])
    t.ok(names.includes(name), name);
  const { stdout: all } = spawnSync('tar', ['-xzOf', file], { encoding: 'utf8', maxBuffer: 1 << 28 });
  const [first = ''] = await pemLines(join(root, 'var/lib'));
  t.ok(all.includes('(secret)') && all.length > 10_000, `${all.length} characters`);
  const leaked = [
    ...words,
    token,
    'p4ssw0rd',
    'YWRtaW46eHh4eHg=',
    first,
    keyOfOthers.split('\n')[1] ?? '',
  ].filter((word) => all.includes(word) || all.includes(encodeURIComponent(word)));
  t.same(leaked, []);
  t.match(all, '"key": "couchdb.n"', 'the configuration is there');
  t.match(all, '10.0.0.11', 'and so are addresses');
  for (const name of PUBLIC_VALUES)
    t.ok(all.includes(name), `${name} is public, also where a file of ours has it`);
});

t.test('the bundle replaces and follows nothing, and says what a silent daemon lacks', async (t) => {
  const { root } = await installed(t);
  const bundle = (file: string, ...more: string[]) =>
    runCli(['debug', 'bundle', '--root', root, '--output', file, ...more], { host: fakeHost({}) });
  const there = join(root, 'there.tar.gz');
  await writeFile(there, 'mine');
  await symlink(join(root, 'elsewhere'), join(root, 'link.tar.gz'));
  for (const name of ['there.tar.gz', 'link.tar.gz'])
    t.match(await bundle(join(root, name)), { code: 1, err: /exists already[\s\S]*--output FILE/ }, name);
  t.equal(await readFile(there, 'utf8'), 'mine');
  await t.rejects(stat(join(root, 'elsewhere')));
  t.match(await bundle(join(root, 'no/such/folder')), { code: 1, err: /cannot be created: ENOENT/ });
  const json = await bundle(join(root, 'new.tar.gz'), '--json');
  t.match(JSON.parse(json.out), { file: join(root, 'new.tar.gz'), files: ['README.txt'] });
  const { stdout } = spawnSync('tar', ['-xzOf', join(root, 'new.tar.gz'), 'db/status.json'], {
    encoding: 'utf8',
  });
  t.match(JSON.parse(stdout), { error: { code: 'daemon-not-running' } });
});

t.test('who is not root gets no bundle', async (t) => {
  const host = fakeHost({ uid: 1000 });
  t.match(await runCli(['debug', 'bundle', '--output', '/nonexistent/x'], { host }), {
    code: 4,
    err: /sudo/,
  });
});

t.test('what a configuration names as secret is found, whether or not the file is right', async (t) => {
  const text =
    '[notify]\nwebhook_url = "https://h.example/a/b?c=d"\ncommand = ["/usr/bin/page",\n  \'--key=x y\', "it\\"s"]\n' +
    'smtp_password_file = "/etc/p" # not "this"\ndns.token_file=\'/etc/t\'\n[edge]\ncertificate = "/etc/c.pem"\n' +
    'password = "written here by mistake"\n][ not toml';
  t.same(namedIn(text), {
    files: ['/etc/p', 'this', '/etc/t', '/etc/c.pem'],
    values: ['a/b?c=d', '--key=x y', 'x y', 'it\\"s', 'it\\"s', 'written here by mistake'],
  });
});

t.test('what is no secret stays readable', async (t) => {
  const clean = scrubber(new Set(['averyveryverysecretword']));
  for (const text of [
    'db2/db: suspect → dead (accused by app1/app)',
    'GET http://127.0.0.1:15984/_up answers 200',
    'haproxy -c refuses line 12: unknown keyword “secret” in section',
    '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
    'token 0011223344556677 was used by db2/db',
  ])
    t.equal(clean(text), text);
  t.equal(clean('x averyveryverysecretword y'), 'x (secret) y');
});
