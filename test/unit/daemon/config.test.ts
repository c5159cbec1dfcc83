import { once } from 'node:events';
import { chmod, chown, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { runCommand } from '../../../src/host/command.ts';
import { settingsDigest } from '../../../src/daemon/config/digest.ts';
import {
  apiFloating,
  boundsOf,
  certificateSettings,
  loadConfig,
  limitOf,
  loadServices,
  parseConfig,
  parseService,
  pathsFor,
  portClashes,
  type Snippets,
} from '../../../src/daemon/config/config.ts';

const NODE = '[node]\ncluster = "shop"\nhost = "app1"\n';
const NETWORK =
  '[network]\nprivate_address = "10.0.0.11"\nprivate_network = "10.0.0.0/24"\nprivate_device = "eth1"\n';
const LEAST = NODE + NETWORK;
const SERVICE = 'name = "site"\nport = 8080\n';

const parseSnippets = (snippets: Snippets) =>
  parseConfig(LEAST, 'app', '/etc/app.toml', [], [], { snippets });
const parse = (text: string) => parseConfig(text, 'app', '/etc/bornemisza/app.toml');

t.test('the least that a configuration must say, with every default, frozen', async (t) => {
  const config = parse(LEAST);
  t.match(config, {
    role: 'app',
    libp2pPort: 4101,
    admissionPort: 4102,
    membership: { preset: 'lan', seeds: [] },
    health: { rise: 2, fall: 2 },
    edge: { https_port: 443, http_port: 80 },
    floating: { mode: 'off', device: 'bm-float' },
    log: { level: 'info' },
  });
  t.equal(parseConfig(LEAST, 'db', 'db.toml').libp2pPort, 4103, 'both roles fit on one host');
  const dns = '[dns]\nprovider = "rfc2136"\nzone = "shop.example"\nserver = "192.0.2.53"\nkey_file = "/k"\n';
  t.match(parse(LEAST + dns).dns, { names: ['@', 'www'], ttl_s: 60, port: 53 });
  t.throws(() => parseConfig(LEAST + dns, 'db', 'db.toml'), { message: /\[dns\] belongs into app\.toml/ });
  for (const srv of ['"_app._tcp.shop.example"', '["_app._tcp.shop.example"]'])
    t.strictSame(parse(`${LEAST}[membership]\nsrv = ${srv}\n`).membership.srv, ['_app._tcp.shop.example']);
  t.throws(() => Object.assign(config.edge, { https_port: 1 }), TypeError);
  t.throws(() => (config.services as unknown[]).push({}), TypeError);
});

t.test('a floating IPv6 address is compared in the form of the kernel and of BIRD', async (t) => {
  const of = (...addresses: string[]) =>
    parse(`${LEAST}[floating]\nmode = "bgp"\naddresses = ${JSON.stringify(addresses)}\n`);
  t.strictSame(of('203.0.113.10', '2001:DB8:0:0::0010', 'fd00::1').floating.addresses, [
    '203.0.113.10',
    '2001:db8::10',
    'fd00::1',
  ]);
  t.equal(settingsDigest(of('2001:db8::10')), settingsDigest(of('2001:DB8:0::10')));
});

t.test('a floating IP by API: one key for each provider, and the device that carries it', async (t) => {
  const floating = (keys: string, network = '') =>
    parse(`${LEAST}${network}[floating]\nmode = "api"\naddresses = ["203.0.113.10"]\n${keys}`);
  const device = (...given: Parameters<typeof floating>) => apiFloating(floating(...given)).device;
  const token = 'token_file = "/t"\n';
  const eth0 = 'public_device = "eth0"\n';
  t.equal(device(`provider = "digitalocean"\n${token}`), '');
  t.equal(device(`provider = "digitalocean"\ndevice = "eth0"\n${token}`), 'eth0', 'an image of one’s own');
  t.equal(device(`provider = "hetzner"\n${token}`, eth0), 'eth0');
  t.equal(device(`provider = "upcloud"\n${token}`, eth0), 'eth0');
  t.equal(device('provider = "command"\ncommand = ["/x"]\nserver_id = "i-1"\n'), '');
  const two = 'provider = "digitalocean"\ntoken_file = "/t"\n';
  t.throws(() => parse(`${LEAST}[floating]\nmode = "api"\naddresses = ["192.0.2.1", "192.0.2.2"]\n${two}`), {
    message: /floating\.addresses: must be one/,
  });
  const digest = (keys: string) => settingsDigest(floating(keys, eth0));
  t.not(digest(`provider = "hetzner"\n${token}`), digest(`provider = "upcloud"\n${token}`));
});

// A line that is put in, and what is said about it.
t.test(
  'the names of the certificate: for app nodes, with the CA’s terms, and not beside a file of one’s own',
  (t) => {
    const names = '[certificates]\nnames = ["shop.example"]\nterms = "agreed"\n';
    t.match(parse(LEAST).certificates, { names: [], challenge: 'http-01' });
    t.match(parse(LEAST + names).certificates.directory, /^https:\/\/acme-v02\./);
    t.throws(() => parseConfig(LEAST + names, 'db', 'db.toml'), {
      message: /\[certificates\] belongs into app\.toml/,
    });
    t.throws(() => parse(`${LEAST}[edge]\ncertificate = "/k"\n${names}`), {
      code: 'config-invalid',
      message: /edge\.certificate and certificates\.names are both set/,
    });
    const refused: readonly (readonly [string, RegExp])[] = [
      ['names = ["shop.example"]', /certificates\.terms: must be "agreed"/],
      ['names = ["shop.example"]\nterms = "yes"', /certificates\.terms/],
      [
        'names = ["*.shop.example"]\nterms = "agreed"',
        /certificates\.names: "\*\.shop\.example" needs challenge = "dns-01": /,
      ],
      ['names = ["192.0.2.7"]', /certificates\.names\.0/],
      ['names = ["Shop.example"]', /lower case/],
      ['names = ["shop"]', /with a dot/],
      ['names = ["shop.example\\nssl"]', /certificates\.names\.0/],
      [`names = [${'"a.example",'.repeat(21)}]`, /certificates\.names/],
      [`names = [${`"${'a'.repeat(60)}.example",`.repeat(15)}]\nterms = "agreed"`, /1000 characters/],
      ['directory = "http://ca.example/dir"', /certificates\.directory: must be a URL/],
      ['directory = "https://u:p@ca.example/dir"', /certificates\.directory/],
      ['challenge = "tls-alpn-01"', /certificates\.challenge/],
      ['names = ["*.example"]', /certificates\.names\.0: must be a DNS name/],
      ['names = ["www.*.example"]', /certificates\.names\.0: must be a DNS name/],
      ['names = ["*"]', /certificates\.names\.0: must be a DNS name/],
      ['contact = ["Ops <ops@shop.example>"]', /certificates\.contact\.0/],
      ['profile = "a b"', /certificates\.profile/],
      ['eab_kid = "k1"', /certificates\.eab_kid: and eab_hmac_key_file are given together/],
      ['eab_hmac_key_file = "/k"', /certificates\.eab_kid: and eab_hmac_key_file are given together/],
      ['eab_kid = "k 1"\neab_hmac_key_file = "/k"', /certificates\.eab_kid: must be the key identifier/],
      ['domains = ["shop.example"]', /domains/],
    ];
    for (const [text, message] of refused)
      t.throws(() => parse(`${LEAST}[certificates]\n${text}\n`), { message }, text);
    t.end();
  },
);

t.test('names by dns-01 are those of the zone of [dns], also wildcards', (t) => {
  const byDns = (names: string, dns = '[dns]\nzone = "Shop.example"\n') =>
    parse(`${LEAST}${dns}[certificates]\nnames = [${names}]\nterms = "agreed"\nchallenge = "dns-01"\n`);
  const config = byDns('"shop.example", "*.shop.example", "a.b.shop.example"');
  t.match(certificateSettings(config), {
    challenge: 'dns-01',
    dns: { zone: 'shop.example', server: undefined },
  });
  const bind = '[dns]\nprovider = "rfc2136"\nzone = "shop.example"\nserver = "192.0.2.53"\nkey_file = "/k"\n';
  t.match(certificateSettings(byDns('"shop.example"', bind)), { dns: { server: '192.0.2.53:53' } });
  t.throws(() => byDns('"shop.example"', ''), { message: /challenge = "dns-01" needs \[dns\]: its zone/ });
  t.throws(() => byDns('"shop.example", "noshop.example"'), {
    message: /"noshop\.example" is not in the zone shop\.example of \[dns\]/,
  });
  t.throws(() => byDns('"*.shop.example", "www.shop.example"'), {
    message: /"www\.shop\.example" is part of "\*\.shop\.example": remove one/,
  });
  t.end();
});

const DROPLET = 'mode = "api"\nprovider = "digitalocean"\ntoken_file = "/t"\n';
const API_REFUSED: readonly (readonly [what: string, keys: string, message: RegExp])[] = [
  ['no provider', 'mode = "api"\n', /floating\.provider: is needed with mode "api": one of digitalocean, /],
  ['another provider', 'mode = "api"\nprovider = "linode"\n', /floating\.provider/],
  [
    'no token',
    'mode = "api"\nprovider = "upcloud"\n',
    /floating\.token_file: is needed with provider "upcloud"/,
  ],
  ['no program', 'mode = "api"\nprovider = "command"\nserver_id = "i"\n', /floating\.command: is needed/],
  ['no ID', 'mode = "api"\nprovider = "command"\ncommand = ["/x"]\n', /floating\.server_id: is needed/],
  [
    'a program that a shell would find',
    'mode = "api"\nprovider = "command"\ncommand = ["x"]\nserver_id = "i"\n',
    /floating\.command: must begin with the absolute path/,
  ],
  [
    'a program beside a provider',
    `${DROPLET}command = ["/x"]\n`,
    /floating\.command: is for provider "command"/,
  ],
  ['an ID that is no number', `${DROPLET}server_id = "i-1"\n`, /floating\.server_id: must be a number/],
  [
    'an ID with a blank',
    `${DROPLET}server_id = "1 ready"\n`,
    /floating\.server_id: must be what the provider/,
  ],
  [
    'a provider in another mode',
    'mode = "bgp"\nprovider = "upcloud"\n',
    /floating\.mode: must be "api" where/,
  ],
];

const REFUSED: readonly (readonly [what: string, text: string, message: RegExp])[] = [
  [
    'a slip in a key',
    `${LEAST}prvate_device = "x"\n`,
    /unknown key "network\.prvate_device"; did you mean "private_device"\?/,
  ],
  ['a slip in a table', `${LEAST}[healt]\nrise = 2\n`, /unknown key "healt"; did you mean "health"\?/],
  [
    'a slip behind a default',
    `${LEAST}[edge]\nhttp_prt = 80\n`,
    /"edge\.http_prt"; did you mean "http_port"\?/,
  ],
  [
    'a slip behind a condition',
    `${LEAST}[floating]\nadresses = []\n`,
    /"floating\.adresses"; did you mean "addresses"\?/,
  ],
  ['a key like no other', `${LEAST}[log]\nzzzzzzzzzz = 1\n`, /unknown key "log\.zzzzzzzzzz"$/],
  [
    'a key that would forge a line',
    `${LEAST}"x\\n<0>all is well" = 1\n`,
    /unknown key "network\.x\\n<0>all is well"$/,
  ],
  ['nothing', '', /node is missing; network is missing$/],
  ['no host', `[node]\ncluster = "shop"\n${NETWORK}`, /node\.host is missing$/],
  ['a host with a space', LEAST.replace('app1', 'app 1'), /node\.host: must be letters a-z/],
  ['a host with a quote', LEAST.replace('"app1"', `'app"1'`), /node\.host: must be letters a-z/],
  ['a host with a newline', LEAST.replace('app1', 'app1\\nroot'), /node\.host: must be letters a-z/],
  ['a newline at the end', LEAST.replace('app1', 'app1\\n'), /node\.host: must be letters a-z/],
  ['a cluster with a slash', LEAST.replace('shop', 'shop/x'), /node\.cluster: must be letters a-z/],
  [
    'a name for an address',
    LEAST.replace('10.0.0.11', 'app1'),
    /network\.private_address: must be an IPv4 address, e\.g\. "10\.0\.0\.11"/,
  ],
  ['an IPv6 address', LEAST.replace('10.0.0.11', 'fd00::1'), /must be an IPv4 address/],
  [
    'a network without bits',
    LEAST.replace('/24', ''),
    /private_network: must be an IPv4 network, e\.g\. "10\.0\.0\.0\/24"/,
  ],
  ['a network of 33 bits', LEAST.replace('/24', '/33'), /must be an IPv4 network/],
  ...['2001:db8::/129', '2001:db8::', 'fe80::1%eth0/64', '192.0.2.0/33', 'anywhere'].map(
    (from) =>
      [
        `a source of ssh that is ${from}`,
        `${LEAST}[firewall]\nssh_from = ["192.0.2.0/24", "2001:db8::/32", "${from}"]\n`,
        /firewall\.ssh_from[^:]*: must be an IPv4 or IPv6 network/,
      ] as const,
  ),
  ['a network of two slashes', LEAST.replace('/24', '/24/8'), /must be an IPv4 network/],
  [
    'a device with a space',
    LEAST.replace('eth1', 'eth 1'),
    /private_device: must be the name of a network device/,
  ],
  [
    'a device of 16 letters',
    LEAST.replace('eth1', 'abcdefghijklmnop'),
    /must be the name of a network device/,
  ],
  ['a port too high', `${LEAST}libp2p_port = 65536\n`, /network\.libp2p_port: .*65535/],
  [
    'a port in quotes',
    `${LEAST}libp2p_port = "4101"\n`,
    /network\.libp2p_port: .*expected number, received string/,
  ],
  ['a preset that is none', `${LEAST}[membership]\npreset = "fast"\n`, /membership\.preset: .*"lan"/],
  [
    'a seed with a name',
    `${LEAST}[membership]\nseeds = ["10.0.0.12", "app2:4101", "10.0.0.12:0", "10.0.0.1:2:3", "1.2.3.999"]\n`,
    /membership\.seeds\.1: must be ADDRESS or ADDRESS:PORT.*seeds\.2.*seeds\.3.*seeds\.4/,
  ],
  ['a check each millisecond', `${LEAST}[health]\ninterval_ms = 1\n`, /health\.interval_ms: .*100/],
  [
    'a certificate with a quote',
    `${LEAST}[edge]\ncertificate = '/x"y'\n`,
    /edge\.certificate: must be an absolute path without quotes/,
  ],
  [
    'a certificate with a relative path',
    `${LEAST}[edge]\ncertificate = "x.pem"\n`,
    /edge\.certificate: must be an absolute path/,
  ],
  [
    'floating without addresses',
    `${LEAST}[floating]\nmode = "bgp"\n`,
    /floating\.addresses: addresses must name at least one/,
  ],
  ...['fe80::1', '::1', 'ff02::1', '::ffff:192.0.2.7', '2001:db8::7%eth0', '2001:db8::/64', 'app'].map(
    (address): [string, string, RegExp] => [
      `the floating IP ${address}`,
      `${LEAST}[floating]\nmode = "bgp"\naddresses = ["${address}"]\n`,
      /floating\.addresses\.0: must be an IPv4 or IPv6 address that a provider can route/,
    ],
  ),
  ...['layer2"\n', `api"\nprovider = "hetzner"\ntoken_file = "/t"\n`].map(
    (mode): [string, string, RegExp] => [
      `IPv6 by ${mode}`,
      `${LEAST}public_device = "eth0"\n[floating]\naddresses = ["203.0.113.10", "2001:db8::7"]\nmode = "${mode}`,
      /floating\.addresses: must be IPv4 with mode "(layer2|api)": only BGP .* moves IPv6/,
    ],
  ),
  [
    'layer 2 without a public device',
    `${LEAST}[floating]\nmode = "layer2"\naddresses = ["203.0.113.10"]\n`,
    /network\.public_device is missing: with floating\.mode "layer2"/,
  ],
  [
    'layer 2 on the private device',
    `${LEAST}public_device = "eth1"\n[floating]\nmode = "layer2"\naddresses = ["203.0.113.10"]\n`,
    /network\.public_device must not be network\.private_device/,
  ],
  ...API_REFUSED.map(([what, keys, said]): [string, string, RegExp] => [
    `by API: ${what}`,
    `${LEAST}public_device = "eth0"\n[floating]\naddresses = ["203.0.113.10"]\n${keys}`,
    said,
  ]),
  [
    'by API at Hetzner without a public device',
    `${LEAST}[floating]\nmode = "api"\nprovider = "hetzner"\naddresses = ["203.0.113.10"]\ntoken_file = "/t"\n`,
    /network\.public_device is missing: with floating\.provider "hetzner"/,
  ],
  [
    'layer 2 on a device for BGP',
    `${LEAST}public_device = "eth0"\n[floating]\nmode = "layer2"\naddresses = ["203.0.113.10"]\ndevice = "float"\n`,
    /floating\.device: is for BGP/,
  ],
  [
    'CouchDB on the listener of role app',
    `${LEAST}[couchdb]\nhttp_port = 5984\n`,
    /couchdb\.http_port: must not be 5984/,
  ],
  [
    'a private address for the public',
    `${LEAST}public_addresses = ["10.0.0.1"]\n`,
    /network\.public_addresses\.0: must be an address that the internet reaches/,
  ],
  [
    'two public addresses of one family',
    `${LEAST}public_addresses = ["192.0.2.1", "192.0.2.2"]\n`,
    /network\.public_addresses: must be at most one IPv4 and one IPv6 address/,
  ],
  [
    'a provider without its zone, ID and token',
    `${LEAST}[dns]\nprovider = "cloudflare"\n`,
    /dns\.zone: is needed with provider "cloudflare"; dns\.zone_id: .*; dns\.token_file: /,
  ],
  [
    'a name that ends a line',
    `${LEAST}[dns]\nnames = ["www\\nserver evil"]\n`,
    /dns\.names\.0: must be "@", or a name in lower case/,
  ],
  ['a level that is none', `${LEAST}[log]\nlevel = "loud"\n`, /log\.level: .*"debug"/],
  ['a value for a table', `node = 3\n${NETWORK}`, /node: .*expected object/],
];

t.test('what is refused, in one sentence that names file and key', async (t) => {
  for (const [what, text, message] of REFUSED) {
    t.throws(() => parse(text), { code: 'config-invalid', message, next: /bornemisza config check/ }, what);
    t.throws(
      () => parse(text),
      { message: /^\/etc\/bornemisza\/app\.toml: [^\n]*$/ },
      `${what}, on one line`,
    );
  }
});

t.test('invalid TOML is reported with line and column', async (t) => {
  t.throws(() => parse(`${NODE}[network\n`), {
    code: 'config-invalid',
    message: /^\/etc\/bornemisza\/app\.toml:4:\d+: not valid TOML: \S[^\n]*$/,
  });
  t.throws(() => parse(LEAST.slice(0, LEAST.length / 2)), { code: 'config-invalid' }, 'cut in half');
  t.throws(() => parse('\u0000'), { code: 'config-invalid' });
});

t.test('every problem of a file is named at once', async (t) => {
  t.throws(() => parse(`${NODE}[network]\nprivate_adress = "x"\n[log]\nlevel = 3\n`), {
    message:
      /private_address is missing; .*log\.level: .*; unknown key "network\.private_adress"|unknown key/,
  });
});

const BAD_SERVICES: readonly (readonly [what: string, text: string, message: RegExp])[] = [
  ['a space in the name', 'name = "my site"\nport = 80\n', /name: must start with a letter/],
  ['a quote in the name', `name = 'a"b'\nport = 80\n`, /name: must start with a letter/],
  ['a newline in the name', 'name = "a\\nbind *:1"\nport = 80\n', /name: must start with a letter/],
  ['the name of our own check', 'name = "haproxy"\nport = 80\n', /name: is the name of a check of our own/],
  [
    'the name of our other check',
    'name = "database"\nport = 80\n',
    /name: is the name of a check of our own/,
  ],
  ['no port', 'name = "site"\n', /port is missing/],
  ['port 0', 'name = "site"\nport = 0\n', /port: /],
  ['a prefix without a slash', `${SERVICE}path_prefix = "shop"\n`, /path_prefix: must start with '\/'/],
  ['a prefix with a space', `${SERVICE}path_prefix = "/a b"\n`, /path_prefix: must start with '\/'/],
  ['a prefix with a newline', `${SERVICE}path_prefix = "/a\\nb"\n`, /path_prefix: must start with '\/'/],
  ['a health path with a quote', `${SERVICE}health_path = '/"'\n`, /health_path: must start with '\/'/],
  ['a slip', `${SERVICE}requierd = true\n`, /unknown key "requierd"; did you mean "required"\?/],
];

t.test('a service is refused in one sentence, too', async (t) => {
  t.match(parseService(SERVICE, 'site.toml'), { path_prefix: '/', required: false, local: true });
  for (const [what, text, message] of BAD_SERVICES)
    t.throws(() => parseService(text, 'site.toml'), { code: 'config-invalid', message }, what);
});

t.test('a limit of a service is for paths that the edge hands to it', async (t) => {
  const read = (more: string) => parseService(`${SERVICE}path_prefix = "/api"\n${more}`, 'api.toml');
  t.same(limitOf(read('')), {});
  const least = read('limit_paths = ["/api", "/api/session"]\n');
  t.same(limitOf(least), { limit: { paths: ['/api', '/api/session'], perMinute: 10 } });
  t.match(limitOf(read('limit_paths = ["/api/"]\nlimit_per_minute = 60\n')), { limit: { perMinute: 60 } });
  t.same(limitOf(parseService(`${SERVICE}limit_paths = ["/x"]\n`, 'a.toml')).limit?.paths, ['/x']);
  const cases: [what: string, text: string, says: RegExp][] = [
    ['another service’s path', 'limit_paths = ["/apiary"]', /"\/apiary" is not below path_prefix "\/api"/],
    ['no path', 'limit_paths = ["session"]', /limit_paths\.0: must start with '\/'/],
    ['none at all', 'limit_per_minute = 5', /limit_per_minute: needs limit_paths/],
    ['a limit of none', 'limit_paths = ["/api"]\nlimit_per_minute = 0', /limit_per_minute: /],
    ['a slip', 'limit_path = ["/api"]', /did you mean "limit_paths"/],
  ];
  for (const [what, text, message] of cases)
    t.throws(() => read(text), { code: 'config-invalid', message }, what);
  const port = `${LEAST}[edge]\nstats_port = 8444\n`;
  t.doesNotThrow(() => parse(port), 'nobody listens there without a limit');
  t.throws(() => parseConfig(port, 'app', 'f.toml', [least]), {
    message: /edge\.sharing_port and edge\.stats_port|edge\.stats_port and edge\.sharing_port/,
  });
});

t.test('two listeners of ours on one port are refused, each named by its key', async (t) => {
  const cases: [what: string, role: 'app' | 'db', text: string, says: RegExp | undefined][] = [
    [
      'both edges',
      'app',
      '[edge]\nhttp_port = 443\n',
      /edge\.https_port and edge\.http_port are both 443: each/,
    ],
    [
      'all addresses and the private one',
      'app',
      '[edge]\ndoor_port = 80\n',
      /edge\.http_port and edge\.door_port/,
    ],
    [
      'all addresses and loopback',
      'app',
      '[edge]\ndatabase_port = 443\n',
      /edge\.https_port and edge\.database_port/,
    ],
    ['private and loopback: two addresses', 'app', '[edge]\ndatabase_port = 8443\n', undefined],
    [
      'the daemons’ own',
      'app',
      '[edge]\nstats_port = 4101\n',
      /edge\.stats_port and network\.libp2p_port are both 4101/,
    ],
    ['doors of db', 'db', '[couchdb]\npeer_port = 6984\n', /couchdb\.door_port and couchdb\.peer_port/],
    [
      'epmd',
      'db',
      '[couchdb]\ndistribution_port = 4369\n',
      /couchdb\.distribution_port and the port of epmd/,
    ],
    [
      'what role db would listen on is nothing to role app',
      'app',
      '[couchdb]\npeer_port = 6984\n',
      undefined,
    ],
  ];
  for (const [what, role, text, says] of cases) {
    const read = () => parseConfig(`${LEAST}${text}`, role, 'f.toml');
    if (says === undefined) t.doesNotThrow(read, what);
    else t.throws(read, { code: 'config-invalid', message: says, next: /bornemisza config check/ }, what);
  }
  const service = (name: string, port: number) =>
    parseService(`name = "${name}"\nport = ${port}\n`, `${name}.toml`);
  t.throws(() => parseConfig(LEAST, 'app', 'f.toml', [service('shop', 5984)]), {
    message: /edge\.database_port and service shop are both 5984/,
  });
  t.doesNotThrow(() => parseConfig(LEAST, 'app', 'f.toml', [service('a', 3000), service('b', 3000)]));
  const app = parseConfig(`${LEAST}[edge]\nstats_port = 8405\n`, 'app', 'app.toml');
  const db = parseConfig(LEAST, 'db', 'db.toml');
  t.strictSame(portClashes([app, db]), [
    'app.toml edge.stats_port and db.toml couchdb.stats_port are both 8405: each needs a port of its own',
  ]);
});

t.test('two files that claim one name or one path', async (t) => {
  const directory = t.testdir({
    'a.toml': 'name = "a"\nport = 1\npath_prefix = "/a"\n',
    'b.toml': 'name = "b"\nport = 2\npath_prefix = "/b"\n',
    'b.toml.rpmsave': 'not looked at',
  });
  t.strictSame(
    (await loadServices(directory)).map(({ name }) => name),
    ['a', 'b'],
  );
  await writeFile(join(directory, 'c.toml'), 'name = "a"\nport = 3\npath_prefix = "/c"\n');
  await t.rejects(loadServices(directory), {
    code: 'config-invalid',
    message: /c\.toml: name "a" or path_prefix "\/c" is used by another file/,
  });
  await writeFile(join(directory, 'c.toml'), 'name = "c"\nport = 3\npath_prefix = "/b"\n');
  await t.rejects(loadServices(directory), { message: /c\.toml: .*path_prefix "\/b" is used/ });
  t.strictSame(await loadServices(join(directory, 'none')), [], 'a missing directory is an empty one');
});

t.test('what lies on the disk: missing, unreadable, of the other role', async (t) => {
  const root = t.testdir();
  const paths = pathsFor('app', root);
  await t.rejects(loadConfig('app', paths), {
    code: 'config-missing',
    message: `${paths.config} does not exist`,
    next: /bornemisza init --role app/,
  });
  await mkdir(paths.services, { recursive: true });
  await mkdir(paths.config);
  await t.rejects(loadConfig('app', paths), {
    code: 'config-unreadable',
    message: `cannot read ${paths.config}: EISDIR`,
    next: /ls -l/,
  });
  const db = pathsFor('db', root);
  await writeFile(db.config, LEAST);
  await writeFile(join(paths.services, 'x.toml'), 'broken');
  t.strictSame((await loadConfig('db', db)).services, [], 'services are of role app alone');
  await t.rejects(loadServices(db.config), { code: 'config-unreadable', message: /ENOTDIR/ });
  await chmod(db.config, 0o600);
  t.equal((await loadConfig('db', db)).node.host, 'app1');
});

t.test('files of haproxy.d: what is not root’s own text is left out, and stops nothing', async (t) => {
  const root = t.testdir();
  const paths = pathsFor('app', root);
  t.strictSame(paths.snippets, join(root, 'etc/bornemisza/haproxy.d'));
  await mkdir(paths.snippets, { recursive: true });
  await writeFile(paths.config, LEAST);
  const at = (name: string): string => join(paths.snippets, name);
  const write = (name: string, text: string | Buffer, mode = 0o640) =>
    writeFile(at(name), text).then(() => chmod(at(name), mode));
  t.strictSame((await loadConfig('app', paths)).snippets, { readMs: 0, files: [] });
  const before = Date.now();
  await write('b.cfg', 'backend b\n');
  await write('a.cfg', 'backend a\n', 0o644);
  await write('a.cfg.rpmsave', 'not read');
  await write('big.cfg', Buffer.alloc(2_000_000, '#'));
  await write('latin.cfg', Buffer.from('# caf\xe9\n', 'latin1'));
  await write('open.cfg', 'backend open\n', 0o646);
  await write('group.cfg', 'backend group\n', 0o660);
  await write('other.cfg', 'backend other\n');
  if (process.getuid?.() === 0) await chown(at('other.cfg'), 65_534, 0);
  await write('.a.cfg', 'half writ');
  await symlink(at('a.cfg'), at('link.cfg'));
  await symlink('root@app1.1234:1796000000', at('.#a.cfg'));
  await mkdir(at('folder.cfg'));
  await runCommand('mkfifo', [at('fifo.cfg')], { timeoutMs: 5000 });
  const { snippets, passedOver, services } = await loadConfig('app', paths);
  const own = process.getuid?.() === 0 ? [] : [{ file: at('other.cfg'), text: 'backend other\n' }];
  t.strictSame(snippets.files, [
    { file: at('a.cfg'), text: 'backend a\n' },
    { file: at('b.cfg'), text: 'backend b\n' },
    ...own,
  ]);
  t.ok(snippets.readMs >= before, 'each reading has another number');
  const digest = (files: typeof snippets.files) =>
    settingsDigest(parseSnippets({ readMs: Date.now(), files }));
  t.equal(digest([]), settingsDigest(parse(LEAST)), 'as members of older versions have it');
  t.not(digest(snippets.files), digest([]), 'status shows where one is missing');
  t.equal(digest(snippets.files), digest(snippets.files));
  t.strictSame(services, []);
  const said = passedOver.map(({ code, message }) => `${code} ${message}`).join('\n');
  for (const [name, why] of [
    ['big.cfg', 'larger than 65536 bytes'],
    ['latin.cfg', 'not UTF-8 text'],
    ['open.cfg', 'another user than root can change it'],
    ['group.cfg', 'another user than root can change it'],
    ['link.cfg', 'it is a symbolic link'],
    ...(own.length > 0 ? [] : [['other.cfg', 'another user than root can change it'] as const]),
  ] as const)
    t.match(said, `haproxy-snippet-refused ${at(name)} is left out of HAProxy’s configuration: ${why}`, name);
  for (const [name, what] of [
    ['.a.cfg', 'an editor’s or a hidden file'],
    ['.#a.cfg', 'an editor’s or a hidden file'],
    ['folder.cfg', 'a directory'],
    ['fifo.cfg', 'no regular file'],
  ] as const)
    t.match(said, `snippet-passed-over ${at(name)} is ${what}: it is ignored`, name);

  for (let n = 0; n < 32; n += 1) await write(`m${n}.cfg`, `backend m${n}\n`);
  const many = await loadConfig('app', paths);
  t.equal(many.snippets.files.length, 32);
  t.match(many.passedOver.map(({ message }) => message).join('\n'), /m9\.cfg is left out.*more than 32/);
  await writeFile(pathsFor('db', root).config, LEAST);
  t.strictSame((await loadConfig('db', pathsFor('db', root))).snippets.files, [], 'of role app alone');
});

t.test('a page for errors is root’s own HTML of 15 KiB at most; a wrong one stops nothing', async (t) => {
  const root = t.testdir();
  const [paths, page] = [pathsFor('app', root), join(root, 'page.html')];
  await mkdir(paths.services, { recursive: true });
  await writeFile(paths.config, `${LEAST}[edge]\nerror_page = "${page}"\n`);
  const html = '\n<!doctype html><title>Soon</title>';
  for (const [content, mode, why] of [
    [undefined, 0, /page\.html cannot be read: ENOENT/],
    ['just text', 0o640, /is no HTML/],
    ['<p>\0', 0o640, /is no HTML/],
    ['', 0o640, /is no HTML/],
    [Buffer.from('<p>caf\xe9', 'latin1'), 0o640, /not UTF-8/],
    [`${html}${' '.repeat(15_360)}`, 0o640, /larger than 15360 bytes/],
    [html, 0o666, /another user than root can change it/],
  ] as const) {
    if (content !== undefined) await writeFile(page, content);
    if (mode !== 0) await chmod(page, mode);
    const { errorPage, passedOver } = await loadConfig('app', paths);
    t.equal(errorPage, undefined, String(why));
    t.match(passedOver, [{ code: 'error-page-refused', message: why }]);
  }
  await chmod(page, 0o644);
  t.match(await loadConfig('app', paths), { errorPage: html, passedOver: [] });
  await writeFile(page, html.padEnd(15_360));
  t.equal((await loadConfig('app', paths)).errorPage?.length, 15_360);
  await rm(page);
  await writeFile(join(root, 'key'), html);
  await symlink(join(root, 'key'), page);
  t.match(await loadConfig('app', paths), {
    errorPage: undefined,
    passedOver: [{ message: /page\.html is a symbolic link; errors have HAProxy’s own page/ }],
  });
});

t.test(
  'a password for the statistics is in a file of root’s; while it cannot be read nobody gets them',
  async (t) => {
    const root = t.testdir();
    const file = join(root, 'password');
    for (const role of ['app', 'db'] as const) {
      const paths = pathsFor(role, root);
      await mkdir(paths.services, { recursive: true });
      await writeFile(paths.config, `${LEAST}[metrics]\npassword_file = "${file}"\n`);
      for (const [content, mode, why] of [
        [undefined, 0o640, /cannot be read: ENOENT/],
        ['short', 0o640, /is not 12 to 128/],
        ['with a blank in it', 0o640, /is not 12 to 128/],
        [`${'x'.repeat(129)}\n`, 0o640, /is not 12 to 128/],
        ['twelve-chars"', 0o640, /is not 12 to 128/],
        ['twelve-chars', 0o666, /another user than root can change it/],
      ] as const) {
        await rm(file, { force: true });
        if (content !== undefined) await writeFile(file, content).then(() => chmod(file, mode));
        const { statisticsPassword, passedOver } = await loadConfig(role, paths);
        t.equal(statisticsPassword, null, `${role} ${why}`);
        t.match(passedOver, [{ code: 'statistics-password-refused', message: why }]);
        if (content !== undefined) t.notMatch(passedOver[0]?.message, content.trim());
      }
      await chmod(file, 0o640);
      await writeFile(file, 'twelve-chars\n');
      t.match(await loadConfig(role, paths), { statisticsPassword: 'twelve-chars', passedOver: [] });
      await writeFile(paths.config, LEAST);
      t.equal((await loadConfig(role, paths)).statisticsPassword, undefined);
    }
  },
);

t.test('bounds of a service are the plugin’s only where they differ from its defaults', (t) => {
  const read = (text: string) => boundsOf(parseService(`${SERVICE}${text}`, 'f.toml'));
  t.strictSame(read(''), {});
  t.strictSame(read('timeout_s = 120\nmax_body_kb = 0\n'), {});
  t.strictSame(read('timeout_s = 900\nmax_body_kb = 1\n'), { timeoutSeconds: 900, maxBodyKb: 1 });
  for (const bad of ['timeout_s = 0', 'timeout_s = 901', 'max_body_kb = -1', 'max_body_kb = 1.5'])
    t.throws(() => read(bad), { code: 'config-invalid' }, bad);
  const digest = (text: string) =>
    settingsDigest(parseConfig(LEAST, 'app', 'app.toml', [parseService(`${SERVICE}${text}`, 'f.toml')]));
  t.equal(digest('timeout_s = 120\n'), digest(''), 'as members of older versions have it');
  t.not(digest('timeout_s = 60\n'), digest(''));
  t.not(digest('max_body_kb = 60\n'), digest(''));
  t.end();
});

t.test('what is strange in services.d is passed over, and what is wrong in it is refused', async (t) => {
  // tap's own directory is too deep: the path of a unix socket has 107 bytes at most (unix(7)).
  const root = await mkdtemp(join(tmpdir(), 'bm-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));
  const paths = pathsFor('app', root);
  await mkdir(paths.services, { recursive: true });
  await writeFile(paths.config, LEAST);
  const at = (name: string): string => join(paths.services, name);
  await writeFile(at('a.toml'), 'name = "a"\nport = 3000\npath_prefix = "/a"\n');
  const socket = createServer().listen(at('socket.toml'));
  t.teardown(() => socket.close());
  await once(socket, 'listening');
  await symlink('root@app1.1234:1796000000', at('.#shop.toml'));
  await symlink('nowhere', at('gone.toml'));
  await symlink('loop.toml', at('loop.toml'));
  await mkdir(at('old.toml'));
  await writeFile(at('.shop.toml'), 'half writ');
  await writeFile(at('#shop.toml#'), 'broken');
  for (const name of ['shop.toml~', '.shop.toml.swp', 'shop.toml.bak', 'shop.toml.rpmnew', '4913'])
    await writeFile(at(name), 'broken');
  await runCommand('mkfifo', [at('fifo.toml')], { timeoutMs: 5000 });
  const read = await loadConfig('app', paths);
  t.strictSame(
    read.services.map(({ name }) => name),
    ['a'],
  );
  const named = read.passedOver.map(({ message, next }) => `${message} -- ${next}`).join('\n');
  for (const [name, what] of [
    ['.#shop.toml', 'an editor’s or a hidden file'],
    ['.shop.toml', 'an editor’s or a hidden file'],
    ['gone.toml', 'a dangling link'],
    ['loop.toml', 'a dangling link'],
    ['old.toml', 'a directory'],
    ['socket.toml', 'a socket'],
    ['fifo.toml', 'no regular file'],
  ] as const)
    t.match(named, `${at(name)} is ${what}: it is ignored -- remove it`, name);

  for (const [content, says] of [
    [Buffer.from('name = "caf\xe9"\nport = 1\n', 'latin1'), /b\.toml: not UTF-8 text/],
    [Buffer.alloc(70_000, '#'), /b\.toml: larger than 65536 bytes/],
    [Buffer.from('name = "b"\nprt = 1\n'), /b\.toml: .*unknown key "prt"/],
    [Buffer.from('name = "a"\nport = 1\npath_prefix = "/b"\n'), /b\.toml: name "a" .* used by another file/],
  ] as const) {
    await writeFile(at('b.toml'), content);
    await t.rejects(loadConfig('app', paths), { message: says }, String(says));
    const lenient = await loadConfig('app', paths, 'lenient');
    t.strictSame(
      lenient.services.map(({ name }) => name),
      ['a'],
      'a node that starts serves the rest',
    );
    t.match(lenient.passedOver.map(({ message }) => message).join('\n'), says);
  }
});

t.test('the directory of CouchDB is a plain absolute path, and each machine has its own', async (t) => {
  const of = (directory: string) =>
    parseConfig(`${LEAST}[couchdb]\ndirectory = ${JSON.stringify(directory)}\n`, 'db', 'db.toml');
  const usual = parseConfig(LEAST, 'db', 'db.toml');
  t.equal(usual.couchdb.directory, '/opt/couchdb');
  for (const good of ['/usr/lib/couchdb', '/srv/couchdb-3.5.2', '/opt/apache/couch_db'])
    t.equal(of(good).couchdb.directory, good);
  t.equal(settingsDigest(of('/usr/lib/couchdb')), settingsDigest(usual));
  for (const wrong of [
    'opt/couchdb',
    '/',
    '/opt/couchdb/',
    '/opt//couchdb',
    '/opt/../etc',
    '/opt/./couchdb',
    '/opt/my couchdb',
    '/opt/couchdb\n',
    '/opt/couchdb"',
    '/opt/$HOME',
    '/opt/%h',
    `/${'a'.repeat(200)}`,
  ])
    t.throws(
      () => of(wrong),
      { code: 'config-invalid', message: /couchdb\.directory/ },
      JSON.stringify(wrong),
    );
});
