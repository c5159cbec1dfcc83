import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { FloatingShown } from '../../../src/daemon/control/api.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { FakeDaemon, refusal } from './fake-daemon.ts';
import { place } from './place.ts';

const TOKEN = 'a-token-of-forty-characters-is-a-secret0';
const ANSWER: FloatingShown = {
  provider: 'DigitalOcean',
  server: '12',
  why: 'app1/app has them',
  addresses: [
    { address: '203.0.113.7', server: '11', owner: 'app1/app', known: true, busy: false, device: null },
    { address: '203.0.113.8', server: null, owner: 'nobody', known: false, busy: false, device: 'eth0' },
  ],
  findings: [
    { code: 'floating-api-down', message: 'DigitalOcean does not answer', next: 'it is tried again' },
  ],
};

t.test('floating show says to which server each address is assigned, and what is wrong', async (t) => {
  const root = await place(t);
  const fake = await new FakeDaemon(root, 'app', { 'GET /v1/floating': { json: ANSWER } }).start();
  t.teardown(() => fake.stop());
  const { code, out } = await runCli(['floating', 'show', '--root', root], { columns: 160 });
  t.equal(code, 0);
  t.match(out, 'DigitalOcean; this server is 12; app1/app has them');
  t.match(out, /^203\.0\.113\.7 +11 +app1\/app +no +-$/m);
  t.match(out, /^203\.0\.113\.8 +\? +not known +no +eth0$/m);
  t.match(out, /! DigitalOcean does not answer \(floating-api-down\)/);
  t.strictSame(JSON.parse((await runCli(['floating', 'show', '--json', '--root', root])).out), ANSWER);
});

t.test('floating take says what was ordered, or why it was not', async (t) => {
  const root = await place(t);
  const done = { done: true, message: '203.0.113.7: assignment to this node requested' };
  const answers = { 'POST /v1/floating/take': { json: done } };
  const fake = await new FakeDaemon(root, 'app', answers).start();
  t.match(await runCli(['floating', 'take', '--root', root]), { code: 0, out: `${done.message}\n` });
  t.strictSame(
    fake.asked.map(({ body }) => body),
    [{}],
  );
  await fake.stop();
  const off = refusal('floating-off', 'this node has no floating IP assigned by an API', 'ask an app node');
  const other = new FakeDaemon(root, 'app', { 'POST /v1/floating/take': { status: 409, json: off } });
  await other.start();
  t.teardown(() => other.stop());
  t.match(await runCli(['floating', 'take', '--root', root]), { code: 1, err: /no floating IP assigned/ });
});

t.test('init writes provider and token, and refuses flags that do not fit together', async (t) => {
  const root = await place(t);
  const [token, short] = [join(root, 'token'), join(root, 'short')];
  await writeFile(token, `${TOKEN}\n`, { mode: 0o600 });
  await writeFile(short, 'x', { mode: 0o600 });
  const host = fakeHost({ devices: { eth0: ['5.9.0.1'], eth1: ['10.0.0.11'] } });
  const init = (role: string, ...flags: string[]) =>
    runCli(['init', '--role', role, '--root', root, ...flags], { host, terminal: true });
  const ip = ['--floating-ip', '203.0.113.7'];
  const api = ['--floating-mode', 'api'];
  const provider = ['--floating-provider', 'digitalocean'];
  const file = ['--floating-token-file', token];
  const cases: readonly (readonly [what: string, role: string, flags: readonly string[], said: RegExp])[] = [
    ['no provider', 'app', [...ip, ...api], /needs --floating-provider/],
    ['no address', 'app', [...api, ...provider], /needs --floating-ip/],
    ['another mode', 'app', [...ip, ...provider], /need --floating-mode api/],
    ['role db', 'db', [...ip, ...api, ...provider], /for role app/],
    [
      'no token in the file',
      'app',
      [...ip, ...api, ...provider, '--floating-token-file', short],
      /holds no token/,
    ],
  ];
  for (const [what, role, flags, said] of cases)
    t.match(await init(role, '--dry-run', ...flags), { code: 2, err: said }, what);
  const { code, out, err } = await init('app', ...ip, ...api, ...provider, ...file);
  t.equal(code, 0, err);
  t.notOk(`${out}${err}`.includes(TOKEN));
  const config = await readFile(join(root, 'etc/bornemisza/app.toml'), 'utf8');
  t.match(config, 'mode = "api"\naddresses = ["203.0.113.7"]\nprovider = "digitalocean"\n');
  t.notOk(config.includes(TOKEN));
  const written = join(root, 'etc/bornemisza/floating.token');
  t.match(config, `token_file = "${written}"`);
  t.equal(await readFile(written, 'utf8'), `${TOKEN}\n`);
  t.equal((await stat(written)).mode & 0o777, 0o640);
});
