import { readFileSync } from 'node:fs';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import t from 'tap';
import type { Check } from '../../../src/cli/doctor/check.ts';
import { diskCheck, memory } from '../../../src/cli/doctor/host.ts';
import { portsOf } from '../../../src/cli/doctor/role.ts';
import { inTheWay, listeningSockets, parseProcNetTcp } from '../../../src/host/listening-sockets.ts';
import { placeOfUnit } from '../../../src/cli/setup/couchdb-place.ts';
import { checkUnits, unitsOf, unitsOfHost } from '../../../src/cli/doctor/units.ts';
import { DROP_IN, DROP_IN_TEXT } from '../../../src/cli/setup/layer2.ts';
import { parseConfig, pathsFor } from '../../../src/daemon/config/config.ts';
import type { Ran } from '../../../src/cli/io.ts';
import { fakeHost, runCli, type Surroundings } from './captured-io.ts';
import { FakeDaemon, MEMBERS, member, status } from './fake-daemon.ts';
import { place } from './place.ts';

const CONFIG =
  '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network = ' +
  '"10.0.0.0/24"\nprivate_device = "lo"\n';
const HEALTHY_HOST = {
  devices: { lo: ['10.0.0.11'] },
  programs: {
    haproxy: (args: readonly string[]) => ({
      stdout: args[0] === '-v' ? 'HAProxy version 2.6.12 2023/03/28' : '',
    }),
    bird: () => ({ stderr: 'BIRD version 2.0.12\n' }),
    timedatectl: () => ({ stdout: 'yes\n' }),
    systemctl: (args: readonly string[]) => ({
      stdout: args
        .slice(1)
        .map(() => 'active\n')
        .join(''),
    }),
  },
} as const;

async function doctor(
  root: string,
  given: Surroundings = { host: fakeHost(HEALTHY_HOST) },
  ...more: string[]
) {
  const { code, out, err } = await runCli(['doctor', '--json', '--root', root, ...more], given);
  const { checks, ok }: { checks: Check[]; ok: boolean } = JSON.parse(out);
  const find = (name: string): Check | undefined => checks.find((each) => each.name === name);
  return { code, err, ok, checks, find };
}

t.test(
  'before the first set-up doctor checks the machine, says how to begin, and fails nothing for it',
  async (t) => {
    const root = await place(t, { 'var/lib/x': '' });
    const { code, find, ok } = await doctor(root);
    t.equal(code, 0);
    t.ok(ok);
    t.match(find('set-up'), { state: 'warn', next: /bornemisza init/ });
    t.match(find('haproxy'), { state: 'ok', detail: 'HAProxy 2.6.12' });
    t.match(find('bird'), { state: 'ok', detail: 'BIRD 2.0.12' });
    t.match(find('clock'), { state: 'ok' });
    t.match(find('disk'), { detail: /MiB free/ });
  },
);

t.test('missing programs are named with the package to install', async (t) => {
  const root = await place(t, { 'var/lib/x': '' });
  const { code, find, err } = await doctor(root, { host: fakeHost({}) }, '--role', 'db');
  t.equal(code, 1);
  t.match(find('haproxy'), { state: 'fail', next: /dnf install haproxy/ });
  t.match(find('couchdb'), { state: 'fail', next: /docs\.couchdb\.org/ });
  t.match(find('clock'), { state: 'warn' });
  t.match(JSON.parse(err), { error: { code: 'doctor-found' } });
  const release = await place(t, {
    ...releaseIn('opt/couchdb'),
    'var/lib/x': '',
  });
  t.match((await doctor(release, { host: fakeHost({}) }, '--role', 'db')).find('couchdb'), {
    state: 'ok',
    detail: /CouchDB 3\.3\.3/,
  });
});

/** As Apache's package has it. */
const releaseIn = (directory: string): Record<string, string> => ({
  [`${directory}/bin/couchdb`]: '',
  [`${directory}/etc/default.ini`]: '',
  [`${directory}/erts-13.2.2.4/bin/erlexec`]: '',
  [`${directory}/releases/start_erl.data`]: '13.2.2.4 3.3.3\n',
});

t.test('CouchDB must be whole, where the configuration says, under its own user', async (t) => {
  const config = CONFIG.replaceAll('app1', 'db1');
  const moved = `${config}[couchdb]\ndirectory = "/usr/lib/couchdb"\n`;
  const found = async (files: Record<string, string>) =>
    (await doctor(await place(t, files), { host: fakeHost({}) }, '--role', 'db')).find('couchdb');
  const elsewhere = releaseIn('usr/lib/couchdb');
  t.match(await found({ ...elsewhere, 'etc/bornemisza/db.toml': moved }), {
    state: 'ok',
    detail: /^CouchDB 3\.3\.3 in .*\/usr\/lib\/couchdb$/,
  });
  t.match(await found({ ...elsewhere, 'etc/bornemisza/db.toml': config }), {
    state: 'fail',
    detail: /^CouchDB is not in .*\/opt\/couchdb$/,
    next: /set couchdb\.directory in \/etc\/bornemisza\/db\.toml/,
  });
  for (const lost of ['etc/default.ini', 'erts-13.2.2.4/bin/erlexec']) {
    const { [`usr/lib/couchdb/${lost}`]: _gone, ...rest } = elsewhere;
    t.match(await found({ ...rest, 'etc/bornemisza/db.toml': moved }), {
      state: 'fail',
      detail: new RegExp(`has no ${lost}: CouchDB cannot start`),
    });
  }
});

t.test('the unit of CouchDB says where it is', async (t) => {
  const cat = (start: string): string =>
    `# /usr/lib/systemd/system/couchdb.service\n[Service]\nUser=couchdb\nExecStart=${start}\n\n` +
    '# /usr/lib/systemd/system/couchdb.service.d/bornemisza.conf\n[Service]\nExecStart=\n' +
    'ExecStart=/usr/libexec/bornemisza/couchdb\n';
  for (const [start, expected] of [
    ['/usr/lib/couchdb/bin/couchdb', '/usr/lib/couchdb'],
    ['-"/srv/couchdb-3.5/bin/couchdb" -n', '/srv/couchdb-3.5'],
    ['/opt/../tmp/bin/couchdb', undefined],
    ['/usr/lib/couchdb/bin/couchdb2', undefined],
    ['/bin/sh -c /usr/lib/couchdb/bin/couchdb', undefined],
  ] as const)
    t.equal(placeOfUnit(cat(start)), expected, start);
});

t.test('between set-up and start doctor says that the daemon is down', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
  const { code, find } = await doctor(root);
  t.equal(code, 1);
  t.match(find('config'), { state: 'ok' });
  t.match(find('state'), { state: 'fail', next: /bornemisza init/ });
  t.match(find('daemon'), { state: 'fail', next: 'systemctl start bornemisza@app' });
  t.match(find('address'), { state: 'ok' });
  t.match(find('haproxy.cfg'), { state: 'warn' });
});

t.test('the state must be complete and closed to others', async (t) => {
  const root = await place(t, {
    'etc/bornemisza/app.toml': CONFIG,
    'var/lib/bornemisza/app/unfinished.json': '{}',
  });
  const { state } = pathsFor('app', root);
  await chmod(state, 0o755);
  t.match((await doctor(root)).find('state'), { state: 'fail', next: `chmod 0700 ${state}` });
  await chmod(state, 0o700);
  t.match((await doctor(root)).find('state'), { state: 'fail', detail: 'an init or join was interrupted' });
  await writeFile(join(state, 'cluster.json'), '{}');
  const { find } = await doctor(root);
  t.match(find('state'), { state: 'ok' });
  t.match(find('certificate'), { state: 'fail', detail: /chain\.pem/ });
});

t.test('the key of the DNS records must be there for the daemon alone', async (t) => {
  const key = join(t.testdir(), 'dns.key');
  const dns = `[dns]\nprovider = "rfc2136"\nzone = "shop.example"\nserver = "192.0.2.53"\nkey_file = "${key}"\n`;
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG + dns });
  t.match((await doctor(root)).find('dns'), { state: 'fail', detail: /cannot be read \(ENOENT\)/ });
  await writeFile(key, '');
  await chmod(key, 0o644);
  t.match((await doctor(root)).find('dns'), { state: 'warn', detail: /every user of this host can read/ });
  await chmod(key, 0o640);
  t.match((await doctor(root)).find('dns'), { state: 'fail', detail: /nsupdate is not installed/ });
  const programs = { ...HEALTHY_HOST.programs, nsupdate: () => ({ stdout: 'nsupdate 9.18' }) };
  t.match((await doctor(root, { host: fakeHost({ ...HEALTHY_HOST, programs }) })).find('dns'), {
    state: 'ok',
  });
});

t.test('the key of a CA for its customers only must be there for the daemon alone', async (t) => {
  const key = join(t.testdir(), 'eab.key');
  const certificates =
    '[certificates]\nnames = ["shop.example"]\nterms = "agreed"\n' +
    `eab_kid = "kid-1"\neab_hmac_key_file = "${key}"\n`;
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG + certificates });
  t.match((await doctor(root)).find('certificates'), {
    state: 'fail',
    detail: /cannot be read \(ENOENT\): no account/,
  });
  await writeFile(key, '');
  await chmod(key, 0o640);
  t.match((await doctor(root)).find('certificates'), { state: 'ok' });
});

t.test(
  'the token that moves the floating IPs, the operator’s program, and whose machine this is',
  async (t) => {
    const token = join(t.testdir(), 'floating.token');
    const api = (keys: string): string =>
      `${CONFIG}[floating]\nmode = "api"\naddresses = ["203.0.113.7"]\n${keys}`;
    const droplet = api(`provider = "digitalocean"\ntoken_file = "${token}"\n`);
    const root = await place(t, { 'etc/bornemisza/app.toml': droplet });
    t.match((await doctor(root)).find('floating'), { state: 'fail', detail: /cannot be read \(ENOENT\)/ });
    await writeFile(token, '');
    await chmod(token, 0o644);
    t.match((await doctor(root)).find('floating'), {
      state: 'warn',
      detail: /every user of this host can read/,
    });
    await chmod(token, 0o640);
    t.match((await doctor(root)).find('floating'), { state: 'ok' });
    const elsewhere = await place(t, {
      'etc/bornemisza/app.toml': droplet,
      'sys/class/dmi/id/sys_vendor': 'UpCloud\n',
    });
    const { checks } = await doctor(elsewhere);
    t.match(
      checks.filter(({ name }) => name === 'floating'),
      [{ state: 'ok' }, { state: 'warn', detail: /this machine is of UpCloud/ }],
    );
    const command = `provider = "command"\ncommand = ["${token}"]\nserver_id = "i-1"\n`;
    const other = await place(t, { 'etc/bornemisza/app.toml': api(command) });
    t.match((await doctor(other)).find('floating'), { state: 'fail', detail: /cannot be run \(EACCES\)/ });
    await chmod(token, 0o750);
    t.match((await doctor(other)).find('floating'), { state: 'ok' });
  },
);

t.test('a real identity has a certificate that lives long enough', async (t) => {
  const root = await place(t);
  const made = await runCli(['init', '--role', 'app', '--root', root, '--json'], { host: fakeHost({}) });
  t.equal(made.code, 0, made.err);
  const { find } = await doctor(root, { host: fakeHost({}) });
  t.match(find('state'), { state: 'ok' });
  t.match(find('certificate'), { state: 'ok', detail: /valid for \d+ d/ });
});

t.test(
  'a configuration with a mistake is shown with its correction, and the rest is still checked',
  async (t) => {
    const root = await place(t, { 'etc/bornemisza/app.toml': `${CONFIG}[helth]\nrise = 3\n` });
    const { find } = await doctor(root);
    t.match(find('config'), { state: 'fail', detail: /did you mean "health"/ });
    t.match(find('daemon'), { state: 'fail' });
  },
);

t.test('an address on another device and a device that is down are reported', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG.replace('"lo"', '"eth9"') });
  const moved = await doctor(root, { host: fakeHost({ devices: { eth1: ['10.0.0.99'] } }) });
  t.match(moved.find('address'), {
    state: 'fail',
    detail: /10\.0\.0\.11 is not on this host, which has 10\.0\.0\.99 on eth1/,
  });
  t.match(moved.find('devices'), { state: 'fail', detail: /eth9 down or absent/ });
  const other = await doctor(root, { host: fakeHost({ devices: { eth1: ['10.0.0.11'] } }) });
  t.match(other.find('address'), { state: 'fail', next: 'correct private_device' });
});

t.test('a configured network without room for a second node fails, with the correct one', async (t) => {
  for (const [network, detail] of [
    ['10.0.0.11/32', /10\.0\.0\.11\/32 holds only this node: no other node can connect/],
    ['10.9.0.0/24', /10\.9\.0\.0\/24 does not hold 10\.0\.0\.11/],
  ] as const) {
    const config = CONFIG.replace('10.0.0.0/24', network).replace('"lo"', '"eth1"');
    const root = await place(t, { 'etc/bornemisza/app.toml': config });
    const found = (await doctor(root, { host: fakeHost({ devices: { eth1: ['10.0.0.11'] } }) })).find(
      'address',
    );
    t.match(found, { state: 'fail', detail, next: /^correct private_network: 10\.0\.0\.0\/24$/ }, network);
  }
});

t.test('a port that another program holds is found, by the kernel’s own table', async (t) => {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  t.match(inTheWay(await listeningSockets(), '127.0.0.1', port), [
    { address: '127.0.0.1', port, uid: process.geteuid?.() },
  ]);

  const root = await place(t, { 'etc/bornemisza/app.toml': `${CONFIG}[edge]\ndatabase_port = ${port}\n` });
  const stranger = await doctor(root, { host: fakeHost({ ...HEALTHY_HOST, uid: 4242 }) });
  t.match(stranger.find('ports'), {
    state: 'fail',
    detail: new RegExp(`127\\.0\\.0\\.1:${port}`),
    next: /ss -ltnp/,
  });
});

t.test('listening sockets are read from the kernel’s text', async (t) => {
  const text = [
    '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
    '   0: 0B00000A:1005 00000000:0000 0A 00000000:00000000 00:00000000 00000000   990        0 1 1',
    '   1: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000   991        0 1 1',
    '   2: 0100007F:9999 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 1 1',
    '   3: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 33 0 1',
    '   4: 0000000000000000FFFF00000100007F:1760 00000000000000000000000000000000:0000 0A 0:0 0:0 0 34 0 1',
  ].join('\n');
  const sockets = parseProcNetTcp(text);
  t.same(sockets, [
    { address: '10.0.0.11', port: 4101, uid: 990 },
    { address: '0.0.0.0', port: 443, uid: 991 },
    { address: '0.0.0.0', port: 8080, uid: 33 },
    { address: '127.0.0.1', port: 5984, uid: 34 },
  ]);
  t.equal(inTheWay(sockets, '10.0.0.12', 4101).length, 0);
  t.equal(inTheWay(sockets, '*', 4101).length, 1);
  t.equal(inTheWay(sockets, '127.0.0.1', 443).length, 1);
});

t.test('every port of the two roles is checked, and none twice where both run on one host', async (t) => {
  const ports = (['app', 'db'] as const).flatMap((role) =>
    portsOf(parseConfig(CONFIG, role, 'x')).map(([, port]) => port),
  );
  t.same(
    ports.sort((a, b) => a - b),
    [80, 443, 4101, 4103, 5984, 6984, 6985, 8404, 8405, 8443, 9100, 15984],
  );
});

t.test('a running daemon reports peers, drift, guards and failing programs', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
  const drifting = member({ name: 'app3/app', settingsDigest: 'ffff' });
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/status': {
      json: status({
        health: 'down',
        checks: [{ name: 'haproxy', health: 'down', required: true, detail: '503', sinceMs: 1 }],
        warnings: [
          { code: 'one-authority', message: 'one authority only', next: 'admit a third node' },
          { code: 'notify-unreachable', message: 'mail fails: no route', next: 'open the way to it' },
        ],
      }),
    },
    'GET /v1/members': { json: { self: 'app1/app', members: [...MEMBERS, drifting] } },
  }).start();
  t.teardown(() => fake.stop());
  const { code, find } = await doctor(root);
  t.equal(code, 1);
  t.match(find('control socket'), { state: 'ok', detail: /app1\/app of cluster shop/ });
  t.match(find('health'), { state: 'fail', detail: /haproxy \(503\)/ });
  t.match(find('peers'), { state: 'warn', detail: /db2\/db dead/, next: 'bornemisza explain db2/db' });
  t.match(find('settings'), { state: 'warn', detail: /app3\/app/ });
  t.match(find('guards'), { state: 'warn', next: /guards release/ });
  t.match(
    (await doctor(root)).checks.filter(({ name }) => name === 'note'),
    [
      { detail: 'one authority only', next: 'admit a third node' },
      { detail: 'mail fails: no route', next: 'open the way to it' },
    ],
    'a warning that names its next step keeps it',
  );
  t.match(
    (await doctor(root)).checks.filter((each) => each.area === 'app' && each.name === 'bird'),
    [{ state: 'fail', next: 'systemctl start bird' }],
  );
});

t.test('a node in its first minute is starting, not broken, and doctor can wait for it', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
  const checks = [
    { name: 'couchdb', health: 'down', required: true, detail: 'connection refused', sinceMs: 1 },
  ];
  let asked = 0;
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/status': () => ({
      json: status((asked += 1) > 2 ? {} : { health: 'down', upMs: 12_000, checks: checks as never }),
    }),
    'GET /v1/members': { json: { self: 'app1/app', members: MEMBERS } },
  }).start();
  t.teardown(() => fake.stop());
  t.match((await doctor(root)).find('health'), {
    state: 'warn',
    detail: 'starting for 12 s: couchdb (connection refused)',
    next: 'sudo bornemisza doctor --wait 60s',
  });
  const { out } = await runCli(['doctor', '--wait', '1m', '--json', '--root', root]);
  const after = (JSON.parse(out) as { checks: { name: string; state: string }[] }).checks;
  t.match(
    after.find(({ name }) => name === 'health'),
    { state: 'ok' },
  );
});

t.test(
  'a network that silently carries less than the device sends is found, with the number to set',
  async (t) => {
    const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
    const fake = await new FakeDaemon(root, 'app', {
      'GET /v1/status': { json: status() },
      'GET /v1/members': { json: { self: 'app1/app', members: MEMBERS } },
    }).start();
    t.teardown(() => fake.stop());
    const asked = new Set<string>();
    const packets = async (ping: (bytes: number, address: string) => Partial<Ran>) => {
      const programs = {
        ...HEALTHY_HOST.programs,
        ping: (args: readonly string[]) => {
          const address = args.at(-1) ?? '';
          asked.add(address);
          return ping(Number(args[args.indexOf('-s') + 1]) + 28, address);
        },
      };
      return (await doctor(root, { host: fakeHost({ ...HEALTHY_HOST, programs }) })).find('packets');
    };
    const silence = { code: 1, stdout: '2 packets transmitted, 0 received' };
    t.match(await packets((bytes, address) => (bytes > 1450 && address === '10.0.0.12' ? silence : {})), {
      state: 'warn',
      detail: /up to \d+ bytes, but packets above 1450 bytes do not arrive at app2\/app:/,
      next: /ip link set dev lo mtu 1450/,
    });
    t.same([...asked].sort(), ['10.0.0.12', '10.0.0.31'], 'each living machine once, and not this one');
    const told = { code: 1, stderr: 'ping: local error: message too long, mtu=1450' };
    t.match(await packets((bytes) => (bytes > 1450 ? told : {})), { state: 'ok', detail: /they arrive/ });
    t.match(await packets(() => silence), { state: 'ok', detail: /unknown/ });
    t.match((await doctor(root)).find('packets'), { state: 'ok', detail: /unknown/ });
  },
);

t.test('an IPv6 floating IP needs a host where IPv6 is on', async (t) => {
  const config = `${CONFIG}[floating]\nmode = "bgp"\naddresses = ["203.0.113.7", "2001:db8::7"]\n`;
  const root = await place(t, { 'etc/bornemisza/app.toml': config });
  t.equal((await doctor(root)).find('IPv6'), undefined, 'an image says nothing');
  const conf = 'proc/sys/net/ipv6/conf';
  for (const [files, state] of [
    [{ default: '0\n' }, 'ok'],
    [{ default: '1\n' }, 'fail'],
    [{ default: '1\n', 'bm-float': '0\n' }, 'ok'],
    [{ default: '0\n', 'bm-float': '1\n' }, 'fail'],
  ] as const) {
    const there = Object.entries(files).map(([of, value]) => [`${conf}/${of}/disable_ipv6`, value]);
    const host = await place(t, { 'etc/bornemisza/app.toml': config, ...Object.fromEntries(there) });
    t.match((await doctor(host)).find('IPv6'), { state, detail: '2001:db8::7' }, JSON.stringify(files));
  }
});

t.test('a capability that only a former mode of the floating IPs needed is reported', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
  t.equal((await doctor(root)).find('arping'), undefined);
  const file = join(root, DROP_IN);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, DROP_IN_TEXT);
  t.match((await doctor(root)).find('arping'), {
    state: 'warn',
    next: `rm ${file}; systemctl daemon-reload`,
  });
});

t.test('a node that has left gets no advice to repair its health', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/status': { json: status({ phase: 'left', health: 'down' }) },
    'GET /v1/members': { json: { self: 'app1/app', members: MEMBERS } },
  }).start();
  t.teardown(() => fake.stop());
  t.match((await doctor(root)).find('health'), { state: 'warn', next: /leave --wipe --role app/ });

  const gone = await place(t, {
    'etc/bornemisza/app.toml': CONFIG,
    'var/lib/bornemisza/app/local.json': JSON.stringify({ left: true }),
  });
  const checks = (await doctor(gone)).checks.filter(({ next }) =>
    /join --reset -.*leave --wipe --role app/.test(next),
  );
  t.match(
    checks,
    [{ area: 'app', detail: /no longer a member.*(left|removed)/ }],
    'nor one that was removed',
  );
});

t.test('a node that reaches none of its peers fails, and the network is checked first', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
  const [self, ...others] = MEMBERS;
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/status': { json: status({ plugins: [], held: [], warnings: [] }) },
    'GET /v1/members': {
      json: { self: 'app1/app', members: [self, ...others.map((each) => ({ ...each, state: 'dead' }))] },
    },
  }).start();
  t.teardown(() => fake.stop());
  t.match((await doctor(root)).find('peers'), { state: 'fail', next: /private network/ });
});

t.test('people get a table and a count, and the first thing that is not right', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': CONFIG });
  const { code, out, err } = await runCli(['doctor', '--root', root], {
    host: fakeHost(HEALTHY_HOST),
    columns: 90,
  });
  t.equal(code, 1);
  t.match(out, /WHERE +WHAT +STATE +DETAIL/);
  t.match(out, /\d+ ok, \d+ warnings, \d+ failed/);
  t.match(err, /\d+ checks failed; first: state/);
});

t.test('config check names every problem, or says that all is well', async (t) => {
  const root = await place(t, {
    'etc/bornemisza/app.toml': CONFIG,
    'etc/bornemisza/services.d/shop.toml': 'name = "shop"\nport = 3000\n',
  });
  const good = await runCli(['config', 'check', '--root', root]);
  t.equal(good.code, 0);
  t.match(good.out, 'app.toml is valid, with service shop.');
  await writeFile(join(root, 'etc/bornemisza/services.d/shop.toml'), 'name = "shop"\nprt = 3000\n');
  const bad = await runCli(['config', 'check', '--role', 'app', '--json', '--root', root]);
  t.equal(bad.code, 1);
  t.match(JSON.parse(bad.out), { files: [{ valid: false, error: { code: 'config-invalid' } }] });
  t.match(JSON.parse(bad.err).error.message, /unknown key "prt"; did you mean "port"/);
  const both = await place(t, {
    'etc/bornemisza/app.toml': `${CONFIG}[edge]\ndatabase_port = 15984\n`,
    'etc/bornemisza/db.toml': CONFIG,
  });
  const apart = await runCli(['config', 'check', '--root', both]);
  t.equal(apart.code, 1);
  t.match(
    apart.err,
    /app\.toml edge\.database_port and db\.toml couchdb\.http_port are both 15984/,
    'each is right, both are not',
  );
  t.equal((await runCli(['config', 'check', '--role', 'db', '--root', both])).code, 0);
  t.match((await runCli(['config', 'check', '--root', await place(t)])).err, 'not part of a cluster yet');
});

t.test('config check names what is wrong in haproxy.d, by our rules and by HAProxy’s', async (t) => {
  const root = await place(t, {
    'etc/bornemisza/app.toml': CONFIG,
    'etc/bornemisza/services.d/shop.toml': 'name = "shop"\nport = 3000\n',
    'etc/bornemisza/haproxy.d/a.cfg': 'frontend edge\n  use_backend svc_shop if { path /x }\n',
    'etc/bornemisza/haproxy.d/b.cfg': 'global\n',
    'etc/bornemisza/haproxy.d/c.cfg': 'backend c\n  servr one 10.0.0.1:80\n',
    'etc/bornemisza/haproxy.d/d.cfg': 'frontend d\n  bind :3000\n',
  });
  const folder = join(root, 'etc/bornemisza/haproxy.d');
  // The words of HAProxy 2.6; test/integration/haproxy-snippets.test.ts has them from the program itself.
  const haproxy = (args: readonly string[]) => {
    const file = args[2] ?? '';
    const lines = readFileSync(file, 'utf8').split('\n');
    const at = lines.findIndex((line) => line.includes('servr'));
    if (!lines.includes('backend svc_shop')) return { code: 1, stderr: '[ALERT] (1) : config : no svc_shop' };
    return at === -1
      ? { code: 0 }
      : {
          code: 1,
          stderr: `[ALERT]    (7) : config : parsing [${file}:${at + 1}] : unknown keyword 'servr'`,
        };
  };
  const given = { host: fakeHost({ programs: { haproxy } }) };
  const { code, err, out } = await runCli(['config', 'check', '--root', root], given);
  t.equal(code, 1);
  t.match(out, 'app.toml is valid, with service shop.', 'a daemon works without them');
  t.match(err, `${folder}/b.cfg:1 is left out of HAProxy’s configuration: a section "global"`);
  t.match(err, `${folder}/d.cfg:2 is left out of HAProxy’s configuration: port 3000 is one of ours`);
  t.match(
    err,
    `${folder}/c.cfg:2 is left out of HAProxy’s configuration: HAProxy says: unknown keyword 'servr'`,
  );
  t.notMatch(err, 'a.cfg');
  await Promise.all(['b', 'c', 'd'].map((name) => rm(join(folder, `${name}.cfg`))));
  t.equal((await runCli(['config', 'check', '--root', root], given)).code, 0);
  t.equal(
    (await runCli(['config', 'check', '--root', root], { host: fakeHost({}) })).code,
    0,
    'without HAProxy',
  );
});

/** What `systemctl show` prints of units that are as they should be, but for those given. */
function systemd(
  differing: Readonly<Record<string, Readonly<Record<string, string>>>>,
  asked: string[] = [],
): ReturnType<typeof fakeHost> {
  return fakeHost({
    programs: {
      systemctl: ([verb = '', properties = '', ...units]) => {
        asked.push(verb, ...units);
        const names = properties.replace('--property=', '').split(',');
        const blocks = units.map((unit) => {
          const state: Readonly<Record<string, string>> = {
            LoadState: 'loaded',
            ActiveState: unit.endsWith('.target') ? 'inactive' : 'active',
            SubState: 'running',
            UnitFileState: 'enabled',
            ...differing[unit],
          };
          return names.map((name) => `${name}=${state[name]}\n`).join('');
        });
        return { stdout: blocks.join('\n') };
      },
    },
  });
}

t.test('every unit that a node needs is asked for, in one question', async (t) => {
  const asked: string[] = [];
  const host = systemd({}, asked);
  const wanted = [...unitsOf('app', 'bgp'), ...unitsOf('db', 'off'), ...unitsOfHost()];
  const checks = await checkUnits(host, wanted);
  t.same(
    checks.filter(({ state }) => state !== 'ok'),
    [],
  );
  t.same(asked, [
    'show',
    'bornemisza@app.service',
    'bornemisza-haproxy@app.service',
    'bird.service',
    'bornemisza-deadman.service',
    'bornemisza-unit-watch.service',
    'bornemisza@db.service',
    'bornemisza-haproxy@db.service',
    'couchdb.service',
    'bornemisza-couchdb-restart.path',
    'bornemisza.target',
    'bornemisza-upgrade.path',
  ]);
  t.same(
    unitsOf('app', 'off').map(({ unit }) => unit),
    ['bornemisza@app', 'bornemisza-haproxy@app', 'bornemisza-unit-watch'],
    'without floating addresses nothing of BIRD',
  );
  t.same(
    unitsOf('app', 'layer2').map(({ unit }) => unit),
    ['bornemisza@app', 'bornemisza-haproxy@app', 'bornemisza-deadman', 'bornemisza-unit-watch'],
    'without BGP the switch alone',
  );
});

t.test('a unit with a problem is reported with its effect and the next step', async (t) => {
  const all = [...unitsOf('app', 'bgp'), ...unitsOf('db', 'off'), ...unitsOfHost()];
  const cases: readonly (readonly [string, Readonly<Record<string, string>>, Partial<Check> & object])[] = [
    [
      'bornemisza-upgrade.path',
      { LoadState: 'masked', ActiveState: 'inactive' },
      {
        area: 'host',
        state: 'warn',
        detail: 'masked: a rollout stops at this host',
        next: 'systemctl unmask bornemisza-upgrade.path && systemctl start bornemisza-upgrade.path',
      },
    ],
    [
      'bornemisza-upgrade.path',
      { ActiveState: 'failed' },
      {
        state: 'warn',
        next: 'journalctl -u bornemisza-upgrade.path -n 20; then systemctl restart bornemisza-upgrade.path',
      },
    ],
    [
      'bornemisza-couchdb-restart.path',
      { ActiveState: 'inactive' },
      { area: 'db', state: 'warn', next: 'systemctl start bornemisza-couchdb-restart.path' },
    ],
    [
      'bornemisza.target',
      { UnitFileState: 'disabled' },
      {
        state: 'warn',
        detail: 'disabled: no role starts at boot',
        next: 'systemctl enable bornemisza.target',
      },
    ],
    [
      'bornemisza@app.service',
      { UnitFileState: 'disabled' },
      {
        area: 'app',
        state: 'warn',
        detail: 'active, but disabled: it will not start at boot',
        next: 'systemctl enable bornemisza@app',
      },
    ],
    [
      'bornemisza@app.service',
      { ActiveState: 'inactive', UnitFileState: 'disabled' },
      { state: 'fail', detail: 'inactive', next: 'systemctl enable --now bornemisza@app' },
    ],
    [
      'bornemisza@db.service',
      { ActiveState: 'activating', SubState: 'auto-restart' },
      { state: 'fail', detail: 'fails repeatedly', next: 'journalctl -u bornemisza@db -p warning -n 20' },
    ],
    ['bornemisza@db.service', { ActiveState: 'activating', SubState: 'start' }, { state: 'warn' }],
    [
      'bird.service',
      { LoadState: 'not-found', ActiveState: 'inactive' },
      { state: 'fail', detail: 'not installed', next: 'dnf install bird' },
    ],
    ['couchdb.service', { ActiveState: 'inactive' }, { state: 'fail', next: 'systemctl start couchdb' }],
  ];
  for (const [unit, state, expected] of cases) {
    const checks = await checkUnits(systemd({ [unit]: state }), all);
    const wrong = checks.filter((check) => check.state !== 'ok');
    t.match(wrong, [{ name: unit.replace('.service', ''), ...expected }], `${unit} ${JSON.stringify(state)}`);
    t.equal(wrong.length, 1);
  }
  const restarted = await checkUnits(systemd({ 'bird.service': { NRestarts: '4' } }), all);
  t.match(
    restarted.find(({ name }) => name === 'bird'),
    { state: 'ok', detail: 'active; systemd has restarted it 4 times' },
  );
  const without = await checkUnits(fakeHost({}), all);
  t.match(without, [{ name: 'units', state: 'warn', detail: 'systemd does not answer here' }]);
});

t.test('doctor says whether work waits for memory, or that the kernel does not measure it', async (t) => {
  for (const [full, state] of [
    ['0.00', 'ok'],
    ['9.99', 'ok'],
    ['10.00', 'warn'],
  ] as const) {
    const line = `full avg10=0.00 avg60=${full} avg300=0.00 total=1\n`;
    const root = t.testdir({ 'memory.pressure': `some avg10=0.00 avg60=99.00 avg300=0.00 total=1\n${line}` });
    t.match(await memory(root), { state, detail: /of the last minute/ }, full);
  }
  t.match(await memory(t.testdir({})), { state: 'ok', detail: /psi=1 turns it on/ });
});

t.test('a disk is full when it has no space, and when it takes no more files', async (t) => {
  const disk = { bsize: 4096, blocks: 1_000_000, bavail: 500_000, files: 100_000, ffree: 50_000 };
  const cases: readonly (readonly [Partial<typeof disk>, Check['state'], RegExp])[] = [
    [{}, 'ok', /^1953 MiB free under \/var\/lib \(50 %\)$/],
    [{ bavail: 90_000 }, 'warn', /\(9 %\)$/],
    [{ bavail: 20_000 }, 'fail', /^78 MiB free/],
    [{ ffree: 7 }, 'fail', /only 7 more files/],
    [{ files: 0, ffree: 0 }, 'ok', /50 %/],
  ];
  for (const [differing, state, detail] of cases) {
    const check = diskCheck('disk', '/var/lib', { ...disk, ...differing });
    t.match(check, { state, detail }, JSON.stringify(differing));
    t.equal(check.next !== '', state !== 'ok');
  }
});
