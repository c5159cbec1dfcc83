import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { domainOf } from '../../../src/cli/setup/domain.ts';
import { configText, type Settings } from '../../../src/cli/setup/config-text.ts';
import { parseConfig, pathsFor } from '../../../src/daemon/config/config.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { place } from './place.ts';

const TOKEN = 'a-token-of-forty-characters-is-a-secret0';
const ZONE_ID = '0123456789abcdef0123456789abcdef';
const BASE: Omit<Settings, 'domain' | 'dns' | 'publicAddresses'> = {
  role: 'app',
  cluster: 'shop',
  host: 'app1',
  privateAddress: '10.0.0.11',
  privateNetwork: '10.0.0.0/24',
  privateDevice: 'eth1',
  publicDevice: 'eth0',
  certificate: undefined,
  floatingMode: 'off',
  floatingAddresses: [],
  couchdbCopies: undefined,
  couchdbRanges: undefined,
};

t.test(
  'a domain with a token is a certificate, records, and the token beside the configuration',
  async (t) => {
    const root = await place(t, { 'etc/bornemisza/keep': '' });
    const paths = pathsFor('app', root);
    const dnsTokenFile = join(root, 'token');
    await writeFile(dnsTokenFile, `${TOKEN}\n`, { mode: 0o600 });
    const options = { domain: 'shop.example', agreeTerms: true, dnsTokenFile, dnsZoneId: ZONE_ID };
    const { settings, steps } = await domainOf(options, { role: 'app', root, paths });
    const text = configText({ ...BASE, ...settings, publicAddresses: ['5.9.0.1'] });
    t.notMatch(text, TOKEN);
    const config = parseConfig(text, 'app', 'app.toml');
    const tokenFile = join(root, 'etc/bornemisza/dns.token');
    t.match(config, {
      certificates: { names: ['shop.example', 'www.shop.example'], terms: 'agreed' },
      dns: { provider: 'cloudflare', zone: 'shop.example', zone_id: ZONE_ID, token_file: tokenFile },
      network: { public_addresses: ['5.9.0.1'] },
    });
    t.notMatch(steps.map(({ title }) => title).join(), TOKEN);
    for (const step of steps) await step.run();
    t.equal(await readFile(tokenFile, 'utf8'), `${TOKEN}\n`);
    t.equal((await stat(tokenFile)).mode & 0o777, 0o640);
  },
);

t.test('a domain without a token is a certificate for that name alone', async (t) => {
  const paths = pathsFor('app', '/nowhere');
  const { settings, steps } = await domainOf(
    { domain: 'shop.example', agreeTerms: true },
    { role: 'app', root: '/nowhere', paths },
  );
  const config = parseConfig(configText({ ...BASE, ...settings, publicAddresses: [] }), 'app', 'app.toml');
  t.match(config, { certificates: { names: ['shop.example'] }, dns: { provider: 'off' } });
  t.strictSame(steps, []);
});

t.test('init says the site’s address, and refuses flags that do not fit together', async (t) => {
  const root = await place(t);
  const [token, short] = [join(root, 'token'), join(root, 'short')];
  await writeFile(token, TOKEN, { mode: 0o600 });
  await writeFile(short, 'x', { mode: 0o600 });
  const host = fakeHost({ devices: { eth0: ['5.9.0.1'], eth1: ['10.0.0.11'] } });
  const init = (role: string, ...flags: string[]) =>
    runCli(['init', '--role', role, '--root', root, '--dry-run', ...flags], { host, terminal: true });
  const domain = ['--domain', 'Shop.Example', '--agree-terms'];
  const dns = ['--dns-token-file', token, '--dns-zone-id', ZONE_ID];
  const { code, out } = await init('app', ...domain, ...dns);
  t.equal(code, 0);
  t.match(out, /site +https:\/\/shop\.example\/\n/);
  t.match(out, /write .*\/dns\.token/);
  t.match(out, 'public_addresses = ["5.9.0.1"]');
  t.notMatch(out, TOKEN);
  const cases: readonly (readonly [what: string, role: string, flags: readonly string[], said: RegExp])[] = [
    ['nobody agreed', 'app', ['--domain', 'shop.example'], /terms need your consent[^]*--agree-terms/],
    ['a db node', 'db', domain, /role app/],
    ['a token without its zone', 'app', [...domain, '--dns-token-file', token], /go together/],
    ['a zone without its token', 'app', [...domain, '--dns-zone-id', ZONE_ID], /go together/],
    ['a token without a domain', 'app', dns, /needs --domain/],
    [
      'no token',
      'app',
      [...domain, '--dns-token-file', short, '--dns-zone-id', ZONE_ID],
      /does not hold a Cloudflare token/,
    ],
    [
      'a zone ID that is none',
      'app',
      [...domain, '--dns-token-file', token, '--dns-zone-id', 'shop'],
      /zone ID/,
    ],
    ['no domain name', 'app', ['--domain', '192.0.2.1', '--agree-terms'], /not a domain name/],
    ['a certificate of one’s own', 'app', [...domain, '--certificate', '/etc/x.pem'], /both set/],
  ];
  for (const [what, role, flags, said] of cases) {
    const refused = await init(role, ...flags);
    t.equal(refused.code, 2, what);
    t.match(refused.err, said, what);
  }
});
