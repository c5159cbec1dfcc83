import t from 'tap';
import { configKeys, parseConfig } from '../../../src/daemon/config/config.ts';
import type { ShownKey } from '../../../src/daemon/config/shown.ts';
import { runCli } from './captured-io.ts';
import { place } from './place.ts';

const LEAST = `
[node]
cluster = "shop"
host = "app1"
[network]
private_address = "10.0.0.11"
private_network = "10.0.0.0/24"
private_device = "eth1"
`;

async function keysOf(root: string, ...more: string[]): Promise<readonly ShownKey[]> {
  const { code, out, err } = await runCli(['config', 'show', '--json', '--root', root, ...more]);
  if (code !== 0) throw new Error(err);
  return (JSON.parse(out) as { files: { keys: readonly ShownKey[] }[] }).files.flatMap(({ keys }) => keys);
}

t.test('config show says what the file sets, and with --effective where each value comes from', async (t) => {
  const service = 'name = "shop"\nport = 3000\n';
  const files = { 'etc/bornemisza/app.toml': `${LEAST}[edge]\nhttp_port = 8080\n` };
  const root = await place(t, { ...files, 'etc/bornemisza/services.d/shop.toml': service });
  const set = await keysOf(root);
  t.same(
    set.map(({ key }) => key),
    [
      ...['node.cluster', 'node.host', 'network.private_address', 'network.private_network'],
      ...['network.private_device', 'edge.http_port', 'services.shop.name', 'services.shop.port'],
    ],
  );
  t.ok(set.every(({ from, hidden }) => from === 'file' && !hidden));
  const all = new Map((await keysOf(root, '--effective')).map((each) => [each.key, each]));
  for (const path of configKeys()) t.ok(all.has(path.join('.')), path.join('.'));
  t.match(all.get('edge.http_port'), { value: 8080, from: 'file' });
  t.match(all.get('edge.https_port'), { value: 443, from: 'default' });
  t.match(all.get('network.libp2p_port'), { value: 4101, from: 'default' }, 'what the daemon would take');
  t.match(all.get('edge.certificate'), { value: null, from: 'default' });
  t.match(all.get('services.shop.required'), { value: false, from: 'default' });
  // Each value is the one that the daemon's own reading gives.
  const config = parseConfig(files['etc/bornemisza/app.toml'], 'app', 'x') as unknown as Record<
    string,
    object
  >;
  for (const section of ['health', 'floating', 'couchdb', 'log'])
    for (const [key, value] of Object.entries(config[section] ?? {}))
      t.same(all.get(`${section}.${key}`)?.value, value, `${section}.${key}`);

  const { code, out } = await runCli(['config', 'show', '--effective', '--root', root]);
  t.equal(code, 0);
  t.match(out, /app\.toml\nKEY +FROM +VALUE\n/);
  t.match(out, /edge\.http_port +file +8080\n/);
  t.match(out, /edge\.certificate +default +not set\n/);
});

t.test('no secret is shown, in text or in JSON', async (t) => {
  const hook = 'https://hooks.example.com/services/T000/B000/s3cr3t?token=s3cr3t';
  const notify = `[notify]\nwebhook_url = "${hook}"\ncommand = ["/usr/bin/tell", "--key=s3cr3t", "s3cr3t"]\n`;
  const mail = 'mail_to = ["a@b.example"]\nmail_from = "a@b.example"\nsmtp_url = "smtp://mail.example:587"\n';
  const login = 'smtp_user = "shop"\nsmtp_password_file = "/etc/bornemisza/smtp"\n';
  const service = 'name = "shop"\nport = 3000\nhealth_headers = { Authorization = "Bearer s3cr3t" }\n';
  const root = await place(t, {
    'etc/bornemisza/app.toml': LEAST + notify + mail + login,
    'etc/bornemisza/services.d/shop.toml': service,
  });
  for (const more of [[], ['--json'], ['--effective'], ['--effective', '--json']]) {
    const { code, out, err } = await runCli(['config', 'show', '--root', root, ...more]);
    t.equal(code, 0, err);
    t.notMatch(out, 's3cr3t', more.join(' '));
    t.notMatch(out, 'T000');
    t.match(out, 'https://hooks.example.com/(hidden)');
    t.match(out, '/usr/bin/tell');
    t.match(out, '/etc/bornemisza/smtp', 'the name of a file is no secret');
    t.match(out, 'Authorization', 'nor is that of a header');
  }
  const hidden = (await keysOf(root)).filter((each) => each.hidden).map(({ key }) => key);
  t.same(hidden, ['notify.webhook_url', 'notify.command', 'services.shop.health_headers']);
});

t.test('config show names what is wrong, and shows the rest of services.d', async (t) => {
  const bad = await place(t, { 'etc/bornemisza/app.toml': `${LEAST}[edg]\n` });
  t.match(await runCli(['config', 'show', '--root', bad]), { code: 1, err: /did you mean "edge"/, out: '' });
  const root = await place(t, {
    'etc/bornemisza/app.toml': LEAST,
    'etc/bornemisza/services.d/bad.toml': '[[[\n',
    'etc/bornemisza/services.d/odd.toml': 'name = "odd"\nprot = 1\n',
    'etc/bornemisza/services.d/shop.toml': 'name = "shop"\nport = 3000\n',
  });
  const { code, out } = await runCli(['config', 'show', '--root', root]);
  t.equal(code, 0);
  t.match(out, /services\.shop\.port +file +3000/);
  t.match(out, /bad\.toml.*not valid TOML/);
  t.match(out, /odd\.toml.*unknown key "prot"/);
  const empty = await place(t);
  t.match(await runCli(['config', 'show', '--root', empty]), { code: 3, err: /not part of a cluster yet/ });
});
