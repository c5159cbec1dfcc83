import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { parseConfig, parseService } from '../../../src/daemon/config/config.ts';
import { presetFields } from '../../../src/daemon/membership/preset.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

const LEAST = `
[node]
cluster = "shop"
host = "app1"
[network]
private_address = "10.0.0.11"
private_network = "10.0.0.0/24"
private_device = "eth1"
`;
/** Keys that have no default, and so do not show in a configuration that leaves them out. */
const WITHOUT_DEFAULT = [
  'edge.error_page',
  'edge.hsts_max_age_s',
  'network.public_device',
  'network.libp2p_port',
  'network.admission_port',
  'metrics.port',
  'metrics.password_file',
  'certificates.profile',
  'certificates.ca_file',
  'certificates.terms',
  'certificates.eab_kid',
  'certificates.eab_hmac_key_file',
  'dns.zone',
  'dns.zone_id',
  'dns.token_file',
  'dns.server',
  'dns.key_file',
  'edge.certificate',
  'floating.provider',
  'floating.token_file',
  'floating.server_id',
  'notify.mail_from',
  'notify.smtp_url',
  'notify.smtp_ca_file',
  'notify.smtp_user',
  'notify.smtp_password_file',
  'notify.sendmail',
  'notify.webhook_url',
];

/** key → the rest of its row. */
function rowsOf(file: string): Map<string, string> {
  const lines = read(file)
    .split('\n')
    .filter((line) => line.startsWith('| `'));
  return new Map(lines.map((line) => [/`([^`]+)`/.exec(line)?.[1] ?? '', line]));
}

function keysAndValues(config: object): [string, unknown][] {
  return Object.entries(config).flatMap(([section, value]) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.entries(value).map(([key, each]): [string, unknown] => [`${section}.${key}`, each])
      : [],
  );
}

t.test('every key of the configuration is documented, with the default that it has', async (t) => {
  const rows = rowsOf('docs/configuration.md');
  // Snippets are files of their own.
  const { snippets: _snippets, ...config } = parseConfig(LEAST, 'app', 'app.toml');
  const found = keysAndValues(config);
  t.ok(found.length > 25, 'the schema was read');
  const required = new Set(['node', 'network']);
  for (const [key, value] of found) {
    const row = rows.get(key);
    t.ok(row !== undefined, `${key} has a row`);
    if (required.has(key.split('.')[0] ?? '')) continue;
    t.ok(
      row?.includes(`\`${JSON.stringify(value)}\``),
      `the row of ${key} says its default, ${JSON.stringify(value)}`,
    );
  }
  t.same(
    [...rows.keys()].filter((key) => key.includes('.')).sort(),
    [...found.map(([key]) => key), ...WITHOUT_DEFAULT].sort(),
    'and no key is documented that does not exist',
  );
});

t.test('a key without a default is one that the configuration takes', async (t) => {
  const text =
    `${LEAST}public_device = "eth0"\nlibp2p_port = 5101\nadmission_port = 5102\n[edge]\ncertificate = ` +
    `"/etc/site.pem"\nerror_page = "/etc/page.html"\nhsts_max_age_s = 300\n`;
  const mail = '[notify]\nmail_to = ["a@b.c"]\nmail_from = "d@e.f"\n';
  const smtp = `${mail}smtp_url = "smtp://g"\nsmtp_ca_file = "/h"\nsmtp_user = "i"\nsmtp_password_file = "/j"\n`;
  const others = `${mail}sendmail = "/k"\nwebhook_url = "https://l"\n`;
  const dns =
    `[dns]\nprovider = "cloudflare"\nzone = "shop.example"\nzone_id = "${'0'.repeat(32)}"\ntoken_file = ` +
    `"/m"\n`;
  const bind = '[dns]\nprovider = "rfc2136"\nzone = "shop.example"\nserver = "192.0.2.53"\nkey_file = "/n"\n';
  const site =
    '[certificates]\nprofile = "o"\nca_file = "/p"\nterms = "agreed"\n' +
    'eab_kid = "r"\neab_hmac_key_file = "/s"\n';
  const metrics = '[metrics]\nport = 9000\npassword_file = "/t"\n';
  const floating =
    '[floating]\nmode = "api"\nprovider = "digitalocean"\naddresses = ["192.0.2.7"]\n' +
    'token_file = "/q"\nserver_id = "1"\n';
  const keys = [smtp + dns + site, others + bind + metrics + floating].flatMap((each) =>
    keysAndValues(parseConfig(text + each, 'app', 'app.toml')).map(([key]) => key),
  );
  for (const key of WITHOUT_DEFAULT) t.ok(keys.includes(key), key);
});

t.test('every key of a service is documented, with the default that it has', async (t) => {
  const rows = rowsOf('docs/services.md');
  const service = parseService('name = "shop"\nport = 3000\n', 'shop.toml');
  const times = ['interval_ms', 'fast_interval_ms', 'timeout_ms', 'rise', 'fall'].map(
    (key) => `health_${key}`,
  );
  const numbers = times.map((key) => `${key} = 100\n`).join('');
  const all = parseService(
    `name = "shop"\nport = 3000\nunit = "shop.service"\nhealth_body = "ok"\n${numbers}`,
    'shop.toml',
  );
  t.same([...rows.keys()].sort(), Object.keys(all).sort());
  for (const [key, value] of Object.entries(service)) {
    if (key === 'name' || key === 'port') continue;
    t.ok(rows.get(key)?.includes(`\`${JSON.stringify(value)}\``), key);
  }
});

t.test('every field of the membership presets is documented, with its three numbers', async (t) => {
  const rows = rowsOf('docs/membership.md');
  t.same([...rows.keys()].sort(), Object.keys(presetFields).sort());
  for (const [field, { lan, wan, test }] of Object.entries(presetFields))
    t.ok(rows.get(field)?.includes(`| ${lan} | ${wan} | ${test} |`), field);
});
