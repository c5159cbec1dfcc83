import { once } from 'node:events';
import { access, chmod, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { SMTPServer } from 'smtp-server';
import t, { type Test } from 'tap';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import { channelsOf } from '../../../src/daemon/notification/channels.ts';
import { messageAbout, type Payload } from '../../../src/daemon/notification/message.ts';
import { selfSigned } from '../../support/self-signed.ts';

/** The channels against real servers on loopback and real programs. */

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
const MESSAGE = messageAbout(
  [
    {
      key: 'dead db2/db 7',
      kind: 'node-dead',
      state: 'began',
      subject: 'db2/db',
      what: 'db2/db is dead: its daemon is not heard any more',
      next: 'bring its machine back',
      sinceMs: NOW - 10_000,
    },
  ],
  { cluster: 'shop', node: 'app1/app', alone: false },
  NOW,
);
const PASSWORD = 'correct horse battery';

const LEAST = `
[node]
cluster = "shop"
host = "app1"
[network]
private_address = "10.0.0.11"
private_network = "10.0.0.0/24"
private_device = "eth1"
[notify]
`;
const settingsOf = (lines: Readonly<Record<string, unknown>>) =>
  parseConfig(
    `${LEAST}${Object.entries(lines)
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
      .join('')}`,
    'app',
    'app.toml',
  ).notify;

/** Sends by the one channel that the settings name. */
async function send(lines: Readonly<Record<string, unknown>>, signal = new AbortController().signal) {
  const [channel, ...others] = channelsOf(settingsOf({ ...PATIENT, ...lines }));
  if (channel === undefined || others.length > 0) throw new Error('one channel was to be named');
  await channel.send(MESSAGE, signal);
  return channel;
}

/** More than one a test may be needed, which t.testdir() has not. */
async function place(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bm-notify-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

interface Received {
  readonly from: string;
  readonly to: readonly string[];
  readonly text: string;
  readonly secure: boolean;
  readonly user: string | undefined;
}

interface MailServer {
  readonly port: number;
  readonly ca: string;
  readonly received: Received[];
}

/** A real SMTP server; its certificate is for localhost and signed by nobody but itself. */
async function mailServer(
  t: Test,
  options: { secure?: boolean; auth?: boolean; tls?: boolean } = {},
): Promise<MailServer> {
  const directory = await place(t);
  const { key, cert } = await selfSigned(directory, 'localhost', 'DNS:localhost');
  const received: Received[] = [];
  const server = new SMTPServer({
    key: await readFile(key),
    cert: await readFile(cert),
    secure: options.secure ?? false,
    authOptional: options.auth !== true,
    hideSTARTTLS: options.tls === false,
    disableReverseLookup: true,
    onAuth: ({ username, password }, _session, callback) => {
      if (username === 'ops' && password === PASSWORD) callback(null, { user: username });
      else callback(new Error('535 wrong user or password'));
    },
    onRcptTo: ({ address }, _session, callback) => {
      if (address.startsWith('nobody@'))
        callback(Object.assign(new Error('no such user'), { responseCode: 550 }));
      else callback();
    },
    onData: (stream, session, callback) => {
      let text = '';
      stream.on('data', (part: Buffer) => (text += part.toString()));
      stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope;
        received.push({
          from: mailFrom === false ? '' : mailFrom.address,
          to: rcptTo.map(({ address }) => address),
          text,
          secure: session.secure,
          user: session.user as string | undefined,
        });
        callback();
      });
    },
  });
  // A client that does not trust it hangs up in the middle of the handshake.
  server.on('error', () => {});
  server.listen(0, '127.0.0.1');
  await once(server.server, 'listening');
  t.teardown(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return { port: (server.server.address() as AddressInfo).port, ca: cert, received };
}

async function passwordFile(t: Test, { password = PASSWORD, mode = 0o640 } = {}): Promise<string> {
  const file = join(await place(t), 'password');
  await writeFile(file, `${password}\n`);
  await chmod(file, mode);
  return file;
}

async function script(t: Test, text: string): Promise<string> {
  const file = join(await place(t), 'program');
  await writeFile(file, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  return file;
}

/** The longest that may be set: nothing here fails because the machine is busy. */
const PATIENT = { timeout_ms: 120_000 };
const MAIL = { mail_to: ['ops@example.com', 'boss@example.com'], mail_from: 'bornemisza@example.com' };

t.test('mail goes over STARTTLS with a login to a real server', async (t) => {
  const { port, ca, received } = await mailServer(t, { auth: true });
  const channel = await send({
    ...MAIL,
    smtp_url: `smtp://localhost:${port}`,
    smtp_ca_file: ca,
    smtp_user: 'ops',
    smtp_password_file: await passwordFile(t),
  });
  t.equal(channel.name, 'mail');
  t.equal(channel.target, `ops@example.com, boss@example.com through localhost:${port}`);
  t.equal(received.length, 1);
  const [mail] = received;
  t.match(mail, { from: MAIL.mail_from, to: MAIL.mail_to, secure: true, user: 'ops' });
  t.match(mail?.text, /^Subject: \[shop\] db2\/db is dead\r$/m);
  t.match(mail?.text, /^From: Bornemisza <bornemisza@example.com>\r$/m);
  t.match(mail?.text, /^Auto-Submitted: auto-generated\r$/m);
  t.match(mail?.text, '* db2/db is dead: its daemon is not heard any more');
  t.match(mail?.text, 'next: bring its machine back');
});

t.test('mail goes over TLS from the first byte, and in the clear only where that is asked for', async (t) => {
  const secure = await mailServer(t, { secure: true });
  await send({ ...MAIL, smtp_url: `smtps://localhost:${secure.port}`, smtp_ca_file: secure.ca });
  t.match(secure.received, [{ secure: true }]);

  const plain = await mailServer(t, { tls: false });
  await t.rejects(send({ ...MAIL, smtp_url: `smtp://localhost:${plain.port}` }), { code: 'notify-smtp-tls' });
  t.same(plain.received, [], 'a server without STARTTLS gets nothing');
  await send({ ...MAIL, smtp_url: `smtp://127.0.0.1:${plain.port}`, smtp_tls: 'off' });
  t.match(plain.received, [{ secure: false, to: MAIL.mail_to }]);
});

t.test(
  'what is wrong with a mail server is one sentence with a next step, and never the password',
  async (t) => {
    const { port, ca, received } = await mailServer(t, { auth: true });
    const url = `smtp://localhost:${port}`;
    const login = {
      smtp_user: 'ops',
      smtp_password_file: await passwordFile(t, { password: 'hunter2hunter2' }),
    };
    const failure = async (
      lines: Readonly<Record<string, unknown>>,
    ): Promise<{ code: string; words: string }> =>
      send({ ...MAIL, ...PATIENT, ...lines }).then(
        () => ({ code: 'none', words: '' }),
        (error: Error & { code: string; next: string }) => ({
          code: error.code,
          words: `${error.message} ${error.next}`,
        }),
      );
    const refused = await failure({ smtp_url: url, smtp_ca_file: ca, ...login });
    t.equal(refused.code, 'notify-smtp-login');
    t.notMatch(refused.words, /hunter2|aHVudGVyM/, 'nor its base64');
    t.equal((await failure({ smtp_url: url, ...login })).code, 'notify-smtp-tls', 'a CA that nobody named');
    const other = await failure({ smtp_url: `smtp://127.0.0.1:${port}`, smtp_ca_file: ca, ...login });
    t.equal(other.code, 'notify-smtp-tls', 'a name that is not in the certificate');
    t.equal(
      (await failure({ smtp_url: url, smtp_ca_file: ca })).code,
      'notify-smtp-refused',
      'a login is wanted',
    );
    t.same(received, []);

    const unknown = await mailServer(t);
    const lines = { smtp_url: `smtp://localhost:${unknown.port}`, smtp_ca_file: unknown.ca };
    t.equal((await failure({ ...lines, mail_to: ['nobody@example.com'] })).code, 'notify-smtp-refused');
    const half = await failure({ ...lines, mail_to: ['nobody@example.com', 'ops@example.com'] });
    t.match(half, { code: 'notify-smtp-refused', words: /refused nobody@example.com/ });

    const exposed = await passwordFile(t, { mode: 0o644 });
    t.equal(
      (await failure({ smtp_url: url, smtp_user: 'ops', smtp_password_file: exposed })).code,
      'notify-password-exposed',
    );
    const missing = await failure({
      smtp_url: url,
      smtp_user: 'ops',
      smtp_password_file: '/nowhere/password',
    });
    t.match(missing, { code: 'notify-file-unreadable', words: /ENOENT.*chown root:bornemisza/ });
  },
);

t.test('a call to a server that is absent or silent ends in time', async (t) => {
  const silent = createTcpServer((socket) => socket.on('error', () => {}));
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.teardown(() => silent.close());
  const { port } = silent.address() as AddressInfo;
  await t.rejects(send({ ...MAIL, smtp_url: `smtp://127.0.0.1:${port}`, timeout_ms: 300 }), {
    code: 'notify-smtp-unreachable',
  });
  await t.rejects(send({ ...MAIL, ...PATIENT, smtp_url: 'smtp://127.0.0.1:1' }), {
    code: 'notify-smtp-unreachable',
    message: /ECONNREFUSED/,
  });
  const dripping = createTcpServer((socket) => {
    const drop = setInterval(() => socket.write('220-x\r\n'), 50);
    socket.on('error', () => {}).on('close', () => clearInterval(drop));
  });
  dripping.listen(0, '127.0.0.1');
  await once(dripping, 'listening');
  t.teardown(() => dripping.close());
  const endless = `smtp://127.0.0.1:${(dripping.address() as AddressInfo).port}`;
  await t.rejects(send({ ...MAIL, smtp_url: endless, timeout_ms: 500 }), {
    code: 'notify-smtp-unreachable',
  });
  const ending = new AbortController();
  const sending = send({ ...MAIL, smtp_url: `smtp://127.0.0.1:${port}`, timeout_ms: 100_000 }, ending.signal);
  ending.abort();
  await t.rejects(sending, { message: /the daemon is stopping/ });
});

t.test('mail goes through a program that speaks like sendmail', async (t) => {
  const { port, received } = await mailServer(t, { tls: false });
  const config = join(await place(t), 'msmtprc');
  await writeFile(config, `account default\nhost 127.0.0.1\nport ${port}\ntls off\n`);
  const program = await script(t, `exec msmtp -C ${config} "$@"`);
  await send({ ...MAIL, sendmail: program });
  t.match(received, [
    { from: MAIL.mail_from, to: MAIL.mail_to, text: /^Subject: \[shop\] db2\/db is dead\r$/m },
  ]);

  const failing = await script(t, 'cat >/dev/null; echo "the spool is not mine" >&2; exit 75');
  await t.rejects(send({ ...MAIL, sendmail: failing }), {
    code: 'notify-sendmail-failed',
    message: /ended with 75: the spool is not mine/,
    next: /readable for user bornemisza/,
  });
  await t.rejects(send({ ...MAIL, sendmail: '/nowhere/sendmail' }), { code: 'command-missing' });
});

t.test('a sendmail that needs rights of its own is refused before it is started', async (t) => {
  const started = join(t.testdir(), 'started');
  const exim = await script(t, `touch ${started}`);
  await chmod(exim, 0o4755);
  const postfix = await script(t, `touch ${started}`);
  const bin = dirname(postfix);
  await rename(postfix, join(bin, 'sendmail.postfix'));
  await symlink('sendmail.postfix', join(bin, 'sendmail'));
  await writeFile(join(bin, 'postdrop'), '', { mode: 0o755 });
  await send({ ...MAIL, sendmail: join(bin, 'sendmail') });
  await rm(started);
  await chmod(join(bin, 'postdrop'), 0o2755);
  for (const program of [exim, join(bin, 'sendmail')]) {
    await t.rejects(send({ ...MAIL, sendmail: program }), {
      code: 'notify-sendmail-rights',
      next: /smtp:\/\/127.0.0.1:25/,
    });
  }
  await t.rejects(access(started), { code: 'ENOENT' });
});

/** A real HTTP server that keeps what it got and answers with a status. */
async function webhook(t: Test, status = 200, headers: Readonly<Record<string, string>> = {}) {
  const received: { headers: IncomingHttpHeaders; body: Payload; path: string }[] = [];
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (part: string) => (text += part));
    request.on('end', () => {
      received.push({ headers: request.headers, body: JSON.parse(text) as Payload, path: request.url ?? '' });
      response.writeHead(status, headers).end('no');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received };
}

t.test('a webhook gets JSON that a chat server can show and a program can read', async (t) => {
  const { url, received } = await webhook(t, 204);
  const channel = await send({ webhook_url: `${url}/services/T0/secret` });
  t.equal(channel.target, url, 'its path is a secret');
  t.match(received, [
    {
      path: '/services/T0/secret',
      headers: { 'content-type': 'application/json' },
      body: {
        text: /^\[shop\] db2\/db is dead\n\* db2\/db is dead: /,
        subject: '[shop] db2/db is dead',
        cluster: 'shop',
        node: 'app1/app',
        at: '2026-01-02T03:04:05.000Z',
        test: false,
        events: [
          {
            kind: 'node-dead',
            state: 'began',
            subject: 'db2/db',
            next: 'bring its machine back',
            since: '2026-01-02T03:03:55.000Z',
            until: null,
          },
        ],
      },
    },
  ]);
});

t.test('a webhook that refuses, redirects or is unreachable is reported without its path', async (t) => {
  const elsewhere = await webhook(t);
  const moved = await webhook(t, 302, { location: `${elsewhere.url}/other` });
  const failure = async (url: string, lines = PATIENT): Promise<Error & { code: string; next: string }> =>
    send({ ...lines, webhook_url: `${url}/secret` }).then(
      () => {
        throw new Error('it was taken');
      },
      (error: Error & { code: string; next: string }) => error,
    );
  const gone = await failure((await webhook(t, 404)).url);
  t.match(gone, { code: 'notify-webhook-refused', message: /answers 404/ });
  t.match(await failure(moved.url), { code: 'notify-webhook-refused', message: /answers 302/ });
  t.same(elsewhere.received, [], 'and it is not followed');
  const away = await failure('http://127.0.0.1:1');
  t.match(away, { code: 'notify-webhook-unreachable' });
  const silent = createTcpServer((socket) => socket.on('error', () => {}));
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.teardown(() => silent.close());
  const late = await failure(`http://127.0.0.1:${(silent.address() as AddressInfo).port}`, {
    timeout_ms: 500,
  });
  t.match(late, { code: 'notify-webhook-unreachable', message: /no answer in time/ });
  for (const { message, next } of [gone, away, late]) t.notMatch(`${message} ${next}`, 'secret');
});

t.test('a command gets the event on standard input, its arguments as they are, and is bounded', async (t) => {
  const directory = await place(t);
  const program = await script(t, `cat > ${directory}/got; printf '%s|' "$@" > ${directory}/args`);
  const channel = await send({ command: [program, '--to', '$(id) ; rm'] });
  t.equal(channel.target, program);
  const got = JSON.parse(await readFile(`${directory}/got`, 'utf8')) as Payload;
  t.same(got, MESSAGE.payload);
  t.equal(await readFile(`${directory}/args`, 'utf8'), '--to|$(id) ; rm|');

  await t.rejects(send({ command: [await script(t, 'echo no pager >&2; exit 3')] }), {
    code: 'notify-command-failed',
    message: /ended with 3: no pager/,
  });
  await t.rejects(send({ command: [await script(t, 'exec sleep 3600')], timeout_ms: 200 }), {
    code: 'command-timeout',
  });
  await t.rejects(send({ command: ['/nowhere/pager'] }), { code: 'command-missing' });
});

/** What a name, a sentence or a next step would need to write a header, an address or a line of its own. */
const BREAKS = [
  '\r\nBcc: thief@evil.example',
  '\nTo: thief@evil.example',
  '\r\n\r\nBuy!',
  '\r.\r\nQUIT',
  '\u2028X: y',
  '\0',
];
const hostile = (text: string) => {
  const [event] = MESSAGE.payload.events;
  const { cluster, node } = MESSAGE.payload;
  if (event === undefined) throw new Error('one event');
  const about = { key: 'x', kind: event.kind, state: event.state, sinceMs: NOW };
  const words = { subject: `db2/db${text}`, what: `db2/db${text} is dead`, next: `bring it back${text}` };
  return messageAbout([{ ...about, ...words }], { cluster, node: `${node}${text}`, alone: false }, NOW);
};
const headersOf = (mail: string): string[] =>
  (mail.split(/\r?\n\r?\n/)[0] ?? '').split(/\r?\n(?![ \t])/).map((line) => line.split(':')[0] ?? '');

t.test('text of an event becomes no header, recipient or line of a mail or a webhook', async (t) => {
  const { port, received } = await mailServer(t, { tls: false });
  const config = join(await place(t), 'msmtprc');
  await writeFile(config, `account default\nhost 127.0.0.1\nport ${port}\ntls off\n`);
  const program = await script(t, `exec msmtp -C ${config} "$@"`);
  const hook = await webhook(t);
  const ways = [
    { ...MAIL, smtp_url: `smtp://127.0.0.1:${port}`, smtp_tls: 'off' },
    { ...MAIL, sendmail: program },
    { webhook_url: `${hook.url}/x` },
  ];
  const all = async (message: typeof MESSAGE): Promise<void> => {
    for (const lines of ways)
      for (const each of channelsOf(settingsOf({ ...PATIENT, ...lines })))
        await each.send(message, new AbortController().signal);
  };
  await all(MESSAGE);
  const plain = received.splice(0);
  const [plainHook] = hook.received.splice(0);
  const linesOf = (text = ''): number => text.split(/\r\n|[\r\n\u2028]/).length;
  for (const [at, text] of BREAKS.entries()) {
    const message = hostile(text);
    const which = `break ${at}`;
    t.notMatch(message.subject, /[\r\n\u2028\0]/, which);
    t.equal(linesOf(message.text), linesOf(MESSAGE.text), which);
    await all(message);
    const mails = received.splice(0);
    t.equal(mails.length, plain.length);
    for (const [index, mail] of mails.entries()) {
      t.strictSame(mail.to, MAIL.mail_to);
      t.strictSame(headersOf(mail.text), headersOf(plain[index]?.text ?? ''), which);
    }
    const [posted] = hook.received.splice(0);
    t.strictSame(Object.keys(posted?.headers ?? {}), Object.keys(plainHook?.headers ?? {}));
    t.strictSame(posted?.body, message.payload);
  }
});

t.test('every way that is named is used, and none without a name', async (t) => {
  t.same(channelsOf(settingsOf({})), []);
  const all = channelsOf(
    settingsOf({
      ...MAIL,
      sendmail: '/usr/bin/msmtp',
      webhook_url: 'https://hooks.example.com/x',
      command: ['/bin/true'],
    }),
  );
  t.same(
    all.map(({ name }) => name),
    ['mail', 'webhook', 'command'],
  );
});

t.test('conflicting keys of [notify] are reported with the key', async (t) => {
  const cases: [Readonly<Record<string, unknown>>, RegExp][] = [
    [{ mail_to: ['ops@example.com'], smtp_url: 'smtp://h' }, /notify.mail_from: is needed with mail_to/],
    [{ ...MAIL }, /notify.mail_to: needs either smtp_url or sendmail/],
    [{ ...MAIL, smtp_url: 'smtp://h', sendmail: '/usr/sbin/sendmail' }, /notify.mail_to: needs either/],
    [{ smtp_url: 'smtp://h' }, /notify.mail_to: must name the recipients/],
    [{ ...MAIL, smtp_url: 'smtp://ops:secret@h' }, /notify.smtp_url: must be a URL like/],
    [{ ...MAIL, smtp_url: 'http://h' }, /notify.smtp_url: must be a URL like/],
    [{ ...MAIL, smtp_url: 'smtp://h', smtp_user: 'ops' }, /notify.smtp_user: and smtp_password_file/],
    [
      { ...MAIL, smtp_url: 'smtp://h', smtp_user: 'o', smtp_password_file: '/p', smtp_tls: 'off' },
      /notify.smtp_tls: must be/,
    ],
    [{ ...MAIL, smtp_url: 'smtps://h', smtp_tls: 'off' }, /notify.smtp_tls: must be/],
    [
      { ...MAIL, mail_to: ['-oQ/tmp@example.com'], smtp_url: 'smtp://h' },
      /notify.mail_to.0: must be a plain mail address/,
    ],
    [
      { ...MAIL, mail_from: 'a@b\r\nBcc: x@y', smtp_url: 'smtp://h' },
      /notify.mail_from: must be a plain mail address/,
    ],
    [{ command: ['page'] }, /notify.command: must begin with the absolute path/],
    [{ webhook_url: 'ftp://h' }, /notify.webhook_url: must be a URL/],
    [{ webhook_url: 'https://token@hooks.example.com/x' }, /notify.webhook_url: must be a URL/],
    [{ webhok_url: 'https://h' }, /unknown key "notify.webhok_url"; did you mean "webhook_url"/],
  ];
  for (const [lines, message] of cases)
    t.throws(() => settingsOf(lines), { code: 'config-invalid', message });
});
