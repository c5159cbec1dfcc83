import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Payload } from '../../src/daemon/notification/message.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import type { Host } from '../lab/index.ts';
import { repository } from '../lab/layers.ts';
import { until } from '../support/until.ts';
import { daemonOf, killDaemon, PATIENCE_MS, reviveDaemon } from '../integration/cluster-bed.ts';

/** Who is told what: daemons under their own units, and a machine that takes mail and webhooks. */
t.setTimeout(2_300_000);

const PASSWORD = 'correct-horse-battery';
const GOT = '/var/tmp/got.ndjson';

/** A real SMTP server with STARTTLS and login, and an HTTP server; each thing that they take is a line in GOT. */
const takers = `
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { SMTPServer } from 'smtp-server';
const keep = (what) => appendFileSync('${GOT}', JSON.stringify(what) + '\\n');
new SMTPServer({
  key: readFileSync('/mnt/key.pem'), cert: readFileSync('/mnt/cert.pem'), disableReverseLookup: true,
  onAuth: ({ username, password }, session, callback) =>
    username === 'ops' && password === '${PASSWORD}' ? callback(null, { user: username }) : callback(new Error('no')),
  onData: (stream, session, callback) => {
    let text = '';
    stream.on('data', (part) => (text += part));
    stream.on('end', () => { keep({ via: 'mail', secure: session.secure, user: session.user, text }); callback(); });
  },
}).listen(587, () => {
  createServer((request, response) => {
    let text = '';
    request.on('data', (part) => (text += part));
    request.on('end', () => { keep({ via: request.url, body: JSON.parse(text) }); response.end(); });
  }).listen(80, () => keep({ via: 'start' }));
});
`;

interface Got {
  readonly via: string;
  readonly text?: string;
  readonly secure?: boolean;
  readonly user?: string;
  readonly body?: Payload;
}

async function desk(cluster: Cluster): Promise<Host> {
  const host = await cluster.lab.addHost({ name: 'desk', roles: [] });
  const name = `subjectAltName=IP:${host.publicAddress}`;
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const files = ['-keyout', '/mnt/key.pem', '-out', '/mnt/cert.pem'];
  await host.must(['openssl', ...request, '-days', '2', '-subj', '/CN=desk', '-addext', name, ...files]);
  await host.writeFile('/mnt/takers.mjs', takers);
  await host.must(['systemd-run', '--unit=takers', '/usr/libexec/bornemisza/node', '/mnt/takers.mjs']);
  await until(() => got(host), { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'the desk' });
  return host;
}

async function got(host: Host): Promise<Got[]> {
  const lines = (await host.readFile(GOT)).trim().split('\n');
  return lines.map((line) => JSON.parse(line) as Got).filter(({ via }) => via !== 'start');
}

const subjectOf = ({ text = '' }: Got): string => /^Subject: (.*)\r?$/m.exec(text)?.[1] ?? '';
const senderOf = ({ text = '' }: Got): string => /^Sent by (\S+) /m.exec(text)?.[1] ?? '';
/** Quoted-printable lines are joined, as a reader of mail does it. */
const said = ({ text = '' }: Got): string => text.replaceAll(/=\r?\n/g, '');

/** Mails about one thing, each as `SENDER: SUBJECT`. */
async function mails(host: Host, about: RegExp): Promise<string[]> {
  const all = (await got(host)).filter(({ via }) => via === 'mail');
  return all.filter((mail) => about.test(said(mail))).map((mail) => `${senderOf(mail)}: ${subjectOf(mail)}`);
}

async function mailAbout(host: Host, about: RegExp): Promise<string> {
  const [first] = await until(
    async () => {
      const found = await mails(host, about);
      if (found.length === 0) throw new Error((await got(host)).map(subjectOf).join(', '));
      return found;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 300, what: `a mail about ${about.source}` },
  );
  return first ?? '';
}

/** As an operator would: keys into the file that `init` or `join` wrote, then a reload. */
async function configure({ host, role }: Instance, lines: readonly string[]): Promise<void> {
  const file = `/etc/bornemisza/${role}.toml`;
  const text = await host.readFile(file);
  const content = text.replace('[notify]\n', `[notify]\n${lines.join('\n')}\n`);
  if (content === text) throw new Error(`${file} has no [notify]`);
  await host.writeFile(file, { content, mode: 0o640, group: 'bornemisza' });
  await host.must(['systemctl', 'reload', `bornemisza@${role}`]);
}

const secret = (content: string) => ({ content, mode: 0o640, group: 'bornemisza' });

t.test('people are notified once, by one node, and by another if that one is dead', async (t) => {
  const modules = await realpath(join(repository, 'node_modules'));
  const cluster = await Cluster.create({
    app: 3,
    floating: false,
    binds: [{ source: modules, target: '/mnt/node_modules' }],
  });
  t.teardown(() => cluster.close());
  const [app1, app2, app3] = cluster.instancesOf('app');
  if (app1 === undefined || app2 === undefined || app3 === undefined) throw new Error('a node is missing');
  const host = await desk(cluster);
  const ca = await host.readFile('/mnt/cert.pem');
  const base = [
    'mail_to = ["ops@example.com"]',
    'mail_from = "bornemisza@example.com"',
    'wait_ms = 2000',
    'interval_ms = 2000',
  ];
  const smtp = [
    ...base,
    `smtp_url = "smtp://${host.publicAddress}:587"`,
    'smtp_ca_file = "/etc/bornemisza/desk.pem"',
    'smtp_user = "ops"',
    'smtp_password_file = "/etc/bornemisza/smtp-password"',
  ];
  for (const instance of [app1, app2, app3]) {
    await instance.host.writeFile('/etc/bornemisza/desk.pem', secret(ca));
    await instance.host.writeFile('/etc/bornemisza/smtp-password', secret(`${PASSWORD}\n`));
  }

  await t.test('each way works under the unit’s hardening', async (t) => {
    const url = `http://${host.publicAddress}`;
    await app1.host.writeFile('/usr/local/bin/page', {
      content: `#!/bin/sh\ncat >/tmp/page && exec curl -sS --fail --data-binary @/tmp/page "$@"\n`,
      mode: 0o755,
    });
    await configure(app1, [
      ...smtp,
      `webhook_url = "${url}/hook"`,
      `command = ["/usr/local/bin/page", "${url}/page"]`,
    ]);
    const out = await cluster.command(app1, ['notify', 'test']);
    t.match(out, /sent by mail .*\nsent by webhook .*\nsent by command .*\nsent by every channel/);
    const [mail, hook, page] = await got(host);
    t.match(mail, {
      via: 'mail',
      secure: true,
      user: 'ops',
      text: /^Subject: \[lab\] test from app1\/app\r$/m,
    });
    t.match(hook, { via: '/hook', body: { test: true, node: 'app1/app', text: /This is a test/ } });
    t.same(page, { via: '/page', body: hook?.body });

    await app2.host.writeFile(
      '/etc/msmtprc',
      secret(
        `account default\nhost ${host.publicAddress}\nport 587\ntls on\ntls_trust_file ` +
          `/etc/bornemisza/desk.pem\nauth on\nuser ops\npassword ${PASSWORD}\n`,
      ),
    );
    await configure(app2, [...base, 'sendmail = "/usr/bin/msmtp"']);
    t.match(await cluster.command(app2, ['notify', 'test']), /sent by mail .*through \/usr\/bin\/msmtp/);
    t.match((await got(host)).at(-1), {
      via: 'mail',
      secure: true,
      text: /^Subject: \[lab\] test from app2\/app\r?$/m,
    });

    const none = await app3.host.exec(['bornemisza', 'notify', 'test']);
    t.equal(none.code, 1);
    t.match(none.stderr, 'app3/app has no channel in [notify]');
    await configure(app3, smtp);
    await cluster.command(app3, ['notify', 'test']);
  });

  await t.test('a daemon that is killed is one mail, and its return another', async (t) => {
    await killDaemon(app3);
    t.equal(await mailAbout(host, /\* app3\/app is dead/), 'app1/app: [lab] app3/app is dead');
    await reviveDaemon(app3);
    t.equal(await mailAbout(host, /\* app3\/app is back/), 'app1/app: [lab] app3/app is back');
    t.equal((await mails(host, /\* app3\/app is dead/)).length, 1);
  });

  await t.test(
    'the next notifier replaces one that is killed with another node, and a guard that holds is reported',
    async (t) => {
      await cluster.settled(PATIENCE_MS);
      await Promise.all([killDaemon(app1), killDaemon(app3)]);
      t.match(await mailAbout(host, /\* app1\/app is dead/), /^app2\/app: /);
      await mailAbout(host, /\* more than half of role app vanished at once/);
      t.match(await mails(host, /\* app3\/app is dead/), [/^app1\/app: /, /^app2\/app: /]);

      // A restart of the one that told forgets nothing.
      await app2.host.restart(daemonOf(app2));
      await Promise.all([reviveDaemon(app1), reviveDaemon(app3)]);
      t.match(await mailAbout(host, /\* app1\/app is back/), /^app2\/app: /);
      await mailAbout(host, /\* no longer held: more than half/);
      // For the second time; a teller that is cut off before it says so leaves it to the next one, with the next mail.
      const returns = async () => (await mails(host, /\* app3\/app is back/)).length === 2;
      await until(returns, { deadlineMs: PATIENCE_MS, everyMs: 300, what: 'the mail that app3 is back' });
      await cluster.settled(PATIENCE_MS);
      t.equal((await mails(host, /\* app1\/app is dead/)).length, 1);
      t.equal((await mails(host, /\* app1\/app is back/)).length, 1);
      t.equal((await mails(host, /\* app3\/app is dead/)).length, 2, 'of two deaths');
    },
  );

  await t.test('a node that is cut off sends a notification itself', async (t) => {
    await app2.host.cut({ device: 'private' });
    const alone = await mailAbout(host, /^app2\/app reaches no other node/m);
    t.match(alone, /^app2\/app: /);
    t.equal(await mailAbout(host, /\* app2\/app is dead/), 'app1/app: [lab] app2/app is dead');
    await app2.host.heal('private');
    await mailAbout(host, /\* app2\/app is back/);
  });

  await t.test('no password is in a journal or an answer, and a way that fails is one warning', async (t) => {
    await cluster.settled(PATIENCE_MS);
    await app1.host.writeFile('/etc/bornemisza/smtp-password', secret('wrong-battery\n'));
    const failed = await app1.host.exec(['bornemisza', 'notify', 'test']);
    t.equal(failed.code, 1);
    t.match(failed.stdout, /refuses the login: .*\n {2}next: correct notify.smtp_user/);
    const status = JSON.stringify(await cluster.status(app1));
    t.match(status, 'notification by mail fails');
    const heard = [failed.stdout, failed.stderr, status];
    for (const instance of [app1, app2, app3]) heard.push(await instance.host.journal(daemonOf(instance)));
    const all = heard.join('\n');
    t.match(all, 'notification by mail');
    for (const each of [PASSWORD, 'wrong-battery', '/hook']) {
      t.notMatch(all, each);
      t.notMatch(all, Buffer.from(each).toString('base64').slice(0, 12));
    }
  });
});
