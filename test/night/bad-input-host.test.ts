import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { bundleProduct } from '../../scripts/bundle.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';

/**
 * Bad input on a whole host, under systemd. What is judged is what an operator has to go by: `bornemisza status` and
 * `journalctl -u bornemisza@ROLE -p warning`. And what serves goes on serving.
 */
t.setTimeout(2_300_000);
const FLOATING = '203.0.113.10';
/** The longest pause between two tries is 30 s and a fifth. */
const PATIENCE_MS = 60_000;
/** What is wrong is said within seconds. */
const SAID_WITHIN_MS = 60_000;
const SERVICE = '/etc/bornemisza/services.d/extra.toml';
const extra = (port: number): string => `name = "extra"\nport = ${port}\npath_prefix = "/extra"\n`;

let cluster: Cluster;
let app: Instance;
let db: Instance;

t.before(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'bm-bad-host-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const bundle = join(directory, 'bornemisza.mjs');
  await bundleProduct(bundle);
  cluster = await Cluster.create({ app: 1, db: 1, bundle });
  app = cluster.instance('app1');
  db = cluster.instance('db1');
  await cluster.settled(PATIENCE_MS);
});
t.teardown(() => cluster?.close());

const unitOf = ({ role }: Instance): string => `bornemisza@${role}.service`;

/** What the unit's journal has from here on, warnings and worse only. */
async function warnings(of: Instance): Promise<() => Promise<string>> {
  const read = (): Promise<string> =>
    of.host.must(['journalctl', '-u', unitOf(of), '-p', 'warning', '-o', 'cat', '--no-pager']);
  const { length } = await read();
  return async () => (await read()).slice(length);
}

async function says(what: () => Promise<string>, said: RegExp): Promise<string> {
  let last = '';
  await until(
    async () => {
      last = await what();
      if (said.test(last)) return true;
      throw new Error(last);
    },
    { deadlineMs: SAID_WITHIN_MS, everyMs: 200, what: String(said) },
  );
  return last;
}

/** What `bornemisza status` says, as compact JSON: the table for people would wrap its lines. */
const status = async (of: Instance): Promise<string> => {
  const { stdout, code, stderr } = await of.host.exec(['bornemisza', 'status', '--role', of.role, '--json']);
  if (code !== 0) throw new Error(stdout + stderr);
  return JSON.stringify(JSON.parse(stdout));
};

/** Whether the edge answers, as a client sees it. */
const serves = async (): Promise<boolean> => {
  const asked = await app.host.exec(
    ['curl', '-sk', '--max-time', '5', '-o', '/dev/null', '-w', '%{http_code}', 'https://127.0.0.1/'],
    // A visitor has an OpenSSL of its own.
    { env: { OPENSSL_CONF: '/dev/null' } },
  );
  return asked.stdout === '200';
};
const reload = (): Promise<string> => app.host.must(['systemctl', 'reload', unitOf(app)]);
/** A reload of what the daemon refuses fails loudly. */
async function refusedReload(): Promise<void> {
  const { code, stderr } = await app.host.exec(['systemctl', 'reload', unitOf(app)]);
  if (code === 0) throw new Error(`the reload was not refused: ${stderr}`);
}
/**
 * Waits until the service of {@link SERVICE} is in HAProxy's file, without a word to the daemon; then takes it out
 * again.
 */
async function madeAfterAll(): Promise<void> {
  const file = '/var/lib/bornemisza/haproxy/app/haproxy.cfg';
  await until(async () => (await app.host.readFile(file)).includes('svc_extra'), {
    deadlineMs: PATIENCE_MS,
    everyMs: 500,
    what: 'the change to be made after all',
  });
  await app.host.must(['rm', SERVICE]);
  await reload();
  await cluster.settled(PATIENCE_MS);
}
const running = (of: Instance) =>
  of.host.waitForUnit(unitOf(of), ({ active, sub }) => active === 'active' && sub === 'running', PATIENCE_MS);

t.test(
  'an unknown key: the daemon stays down with one line, HAProxy serves on, a reload is refused',
  async (t) => {
    const { host } = app;
    const before = await host.readFile('/etc/bornemisza/app.toml');
    const heard = await warnings(app);
    await host.must(['sed', '-i', 's/^\\[log\\]/[log]\\nlevle = "debug"/', '/etc/bornemisza/app.toml']);
    await refusedReload();
    await says(heard, /app\.toml: unknown key "log\.levle"; did you mean "level"\? -- correct the file/);
    t.match(await cluster.status(app), { phase: 'running', health: 'up' }, 'the good one goes on');

    await host.exec(['systemctl', 'restart', unitOf(app)]);
    const failed = await host.waitForUnit(unitOf(app), ({ active }) => active === 'failed', PATIENCE_MS);
    t.match(failed, { result: 'exit-code' });
    t.ok(await serves(), 'HAProxy serves on');
    t.match(await host.exec(['bornemisza', 'status']), { code: 3, stderr: /bornemisza@app is not running/ });
    t.match(await host.exec(['bornemisza', 'config', 'check']), { code: 1, stderr: /did you mean "level"/ });
    const { restarts } = await host.unit(unitOf(app));
    await host.must(['sh', '-c', `cat >/etc/bornemisza/app.toml`], { stdin: before });
    t.equal((await host.unit(unitOf(app))).restarts, restarts, 'not tried again each second');
    await host.start(unitOf(app));
    await cluster.settled(PATIENCE_MS);
  },
);

t.test('root’s checks see with the daemon’s eyes, and a refused reload is remembered', async (t) => {
  const { host } = app;
  await host.must(['sh', '-c', `umask 027; cat >${SERVICE}`], { stdin: extra(3001) });
  const cannot = /cannot read \S+extra\.toml: EACCES/;
  const check = await host.exec(['bornemisza', 'config', 'check']);
  t.match(check, { code: 4, stderr: cannot });
  t.match(check.stderr, 'chown root:bornemisza');
  const doctor = await host.exec(['bornemisza', 'doctor', '--json']);
  const { checks } = JSON.parse(doctor.stdout) as {
    checks: { name: string; detail: string; state: string }[];
  };
  t.match(
    checks.find(({ name }) => name === 'config'),
    { state: 'fail', detail: cannot },
  );
  await refusedReload();
  await says(() => status(app), /configuration on the disk is invalid, and the former one.*EACCES/);
  await host.must(['chgrp', 'bornemisza', SERVICE]);
  await reload();
  t.notMatch(await status(app), /is refused/, 'forgotten once it is mended');
  await host.must(['chgrp', 'root', SERVICE]);

  const strange = '/etc/bornemisza/services.d';
  await host.must([
    'sh',
    '-c',
    `cd ${strange} && ln -s root@app1.1234:1796000000 '.#shop.toml' && mkdir old.toml && mkfifo ` +
      'pipe.toml && ln -s nowhere gone.toml && echo broken >.x.toml.swp',
  ]);
  await host.must(['systemctl', 'restart', unitOf(app)]);
  const after = await says(() => status(app), /old\.toml is a directory/);
  t.match(after, /\.#shop\.toml is an editor’s/);
  t.match(after, /pipe\.toml is no regular file/);
  t.match(after, /gone\.toml is a dangling link/);
  t.match(
    after,
    /cannot read \S+extra\.toml: EACCES *(--|",.*"next":") *chown root:bornemisza/,
    'and a node starts without it',
  );
  await host.must([
    'sh',
    '-c',
    `cd ${strange} && rm -r '.#shop.toml' old.toml pipe.toml gone.toml .x.toml.swp`,
  ]);
  await host.must(['rm', SERVICE]);
  await reload();
  await cluster.settled(PATIENCE_MS);
});

t.test('the libp2p port in use, and the private address gone: tried again until it is there', async (t) => {
  const { host } = app;
  await host.stop(unitOf(app));
  const heard = await warnings(app);
  const holder = [
    'systemd-run',
    '--unit=holder',
    'socat',
    `TCP-LISTEN:4101,bind=${host.privateAddress},fork,reuseaddr`,
    '-',
  ];
  await host.must(holder);
  await until(async () => (await host.must(['ss', '-ltn'])).includes(':4101'), { deadlineMs: PATIENCE_MS });
  await host.exec(['systemctl', 'start', '--no-block', unitOf(app)]);
  await says(heard, /another program listens on 10\.77\.0\.\d+:4101 -- find it with `ss -ltnp`/);
  await host.must(['ip', 'addr', 'del', `${host.privateAddress}/24`, 'dev', 'eth1']);
  await host.must(['systemctl', 'stop', 'holder']);
  const gone = await says(
    heard,
    new RegExp(
      /the private address 10\.77\.0\.\d+ is not on any device of this host that is up/.source +
        / -- bring the private network up \(ip -br addr; expected on eth1\); systemd tries again/.source,
    ),
  );
  t.notMatch(gone, /report this|a bug/);
  await host.must(['ip', 'addr', 'add', `${host.privateAddress}/24`, 'dev', 'eth1']);
  await running(app);
  await cluster.settled(PATIENCE_MS);
});

t.test(
  'the private network goes down: that is reported, no server is removed, and it recovers',
  async (t) => {
    const heard = await warnings(app);
    t.teardown(() => app.host.heal('private'));
    await app.host.unplug('private');
    await says(() => status(app), /"dead":1,.*"database","health":"down"/);
    await says(() => status(app), /"link-down","message":"the private device \S+ has no link/);
    t.ok(await serves(), 'the static site needs no private network');
    await says(heard, /database is down: |db1\/db|held/);
    await app.host.heal('private');
    await cluster.settled(PATIENCE_MS);
  },
);

t.test('a unit of a service that ends again and again is counted, and reported with its name', async (t) => {
  const { host } = app;
  const unit =
    '[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1\n';
  await host.must(['sh', '-c', 'cat >/etc/systemd/system/crash.service'], { stdin: unit });
  await host.must(['sh', '-c', `cat >${SERVICE}`], { stdin: `${extra(3001)}unit = "crash.service"\n` });
  await host.must(['systemctl', 'daemon-reload']);
  await reload();
  await host.must(['systemctl', 'start', '--no-block', 'crash.service']);
  await says(() => status(app), /"unit-restarts","message":"systemd restarted crash\.service \d+ times/);
  t.match(await status(app), /"unit":"crash\.service","restarts":[1-9]/);
  t.match(await status(app), /"unit":"bornemisza@app\.service","restarts":\d/);
  await host.must(['systemctl', 'stop', 'crash.service']);
  await host.must(['rm', SERVICE, '/etc/systemd/system/crash.service']);
  await host.must(['systemctl', 'daemon-reload']);
  await reload();
  await until(async () => !(await status(app)).includes('unit-restarts'), {
    what: 'it is no unit of ours now',
  });
  await cluster.settled(PATIENCE_MS);
});

t.test(
  'HAProxy masked, then 443 in use when it starts: all is reported, and it recovers by itself',
  async () => {
    const { host } = app;
    const heard = await warnings(app);
    await host.mask('bornemisza-haproxy@app.service');
    await host.stop('bornemisza-haproxy@app.service');
    const said = new RegExp(
      /HAProxy is not running: no process listens at \S+ *(--|",.*"next":").*/.source +
        /`systemctl start bornemisza-haproxy@app\.service` \(its configuration is written\), then see /
          .source +
        /`journalctl -u bornemisza-haproxy@app\.service`/.source,
    );
    await says(() => status(app), said);
    await says(heard, said);
    await host.unmask('bornemisza-haproxy@app.service');
    await host.must(['systemd-run', '--unit=holder443', 'socat', 'TCP-LISTEN:443,fork,reuseaddr', '-']);
    await until(async () => (await host.must(['ss', '-ltn'])).includes(':443'), { deadlineMs: PATIENCE_MS });
    await host.exec(['systemctl', 'start', '--no-block', 'bornemisza-haproxy@app.service']);
    await says(() => status(app), /"haproxy","health":"down"/);
    await says(
      () => host.journal('bornemisza-haproxy@app.service'),
      /cannot bind socket \(Address already in use\) for \[0\.0\.0\.0:443\]/,
    );
    await host.must(['systemctl', 'stop', 'holder443']);
    await until(serves, { deadlineMs: PATIENCE_MS });
    await cluster.settled(PATIENCE_MS);
  },
);

t.test(
  'HAProxy not installed: a running one still serves, and the changes are made after the installation',
  async (t) => {
    const { host } = app;
    const heard = await warnings(app);
    const haproxy = (await host.must(['sh', '-c', 'readlink -f "$(command -v haproxy)"'])).trim();
    await host.must(['mv', haproxy, `${haproxy}.away`]);
    await host.writeFile(SERVICE, { content: extra(8081), group: 'bornemisza', mode: 0o640 });
    await reload();
    await says(heard, /haproxy is not installed -- install it/);
    await says(() => status(app), /haproxy is not installed/);
    t.ok(await serves());
    await host.must(['mv', `${haproxy}.away`, haproxy]);
    await madeAfterAll();
  },
);

t.test('HAProxy refuses: a policy of the machine that passes, and a certificate that is none', async (t) => {
  const { host } = app;
  const heard = await warnings(app);
  // As a system-wide crypto policy may say: our keys have 2048 bits, and level 5 asks for 15360.
  const directory = /"(.*)"/.exec(await host.must(['openssl', 'version', '-d']))?.[1] ?? '';
  const policy = `${directory}/openssl.cnf`;
  const before = await host.readFile(policy);
  await host.writeFile(
    policy,
    'openssl_conf = all\n[all]\nssl_conf = tls\n[tls]\nsystem_default = strict\n[strict]\nCipherString = ' +
      'DEFAULT@SECLEVEL=5\n',
  );
  await host.writeFile(SERVICE, { content: extra(8083), group: 'bornemisza', mode: 0o640 });
  await reload();
  const said = /HAProxy refuses the new configuration: .*unable to load SSL certificate/;
  await says(() => status(app), said);
  await says(heard, said);
  t.ok(await serves());
  await host.writeFile(policy, before);
  await madeAfterAll();

  const config = await host.readFile('/etc/bornemisza/app.toml');
  const pem =
    '-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE ' +
    'KEY-----\nbm90IG9uZQ==\n-----END PRIVATE KEY-----\n';
  await host.writeFile('/etc/bornemisza/site.pem', { content: pem, group: 'bornemisza', mode: 0o640 });
  await host.must([
    'sed',
    '-i',
    's#^\\[edge\\]#[edge]\\ncertificate = "/etc/bornemisza/site.pem"#',
    '/etc/bornemisza/app.toml',
  ]);
  const again = await warnings(app);
  await reload();
  const named =
    /site’s certificate file has a certificate that cannot be read.*systemctl reload bornemisza@app/;
  await says(() => status(app), named);
  await says(again, named);
  t.ok(await serves());
  await host.must(['sh', '-c', 'cat >/etc/bornemisza/app.toml'], { stdin: config });
  await reload();
  await cluster.settled(PATIENCE_MS);
});

t.test(
  'BIRD refuses: the route stays as it was, and the change is made once bird.conf is mended',
  async (t) => {
    const { host } = app;
    const heard = await warnings(app);
    const [config, bird] = ['/etc/bornemisza/app.toml', '/etc/bird/bird.conf'];
    const [configBefore, birdBefore] = [await host.readFile(config), await host.readFile(bird)];
    await host.must(['sh', '-c', `echo 'protocol nonsense {}' >>${bird}`]);
    await host.must(['sed', '-i', 's/^mode = "bgp"/mode = "ranked"/', config]);
    t.not(await host.readFile(config), configBefore);
    await reload();
    const said = /BIRD refuses its configuration: \S*bird\.conf.* *(--|",.*"next":").*`bird -p`/;
    await says(() => status(app), said);
    await says(heard, said);
    t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app1']);
    t.ok(await serves());
    await host.must(['sh', '-c', `cat >${bird}`], { stdin: birdBefore });
    await cluster.settled(PATIENCE_MS);
    t.match(await host.must(['birdc', 'show protocols']), /bornemisza_floating +Direct +\S+ +up/);
    await host.must(['sh', '-c', `cat >${config}`], { stdin: configBefore });
    await reload();
    await cluster.settled(PATIENCE_MS);
    t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app1']);
  },
);

t.test(
  'BIRD not installed: that is reported, reachable edges serve the site, and the route comes back',
  async (t) => {
    const { host } = app;
    const heard = await warnings(app);
    const bird = (await host.must(['sh', '-c', 'readlink -f "$(command -v bird)"'])).trim();
    await host.must(['mv', bird, `${bird}.away`]);
    await host.stop('bird.service');
    const said = new RegExp(
      /BIRD is not running: no process listens at \S+; no floating IP is announced *(--|",.*"next":").*/
        .source + /`systemctl start bird` and see `journalctl -u bird`/.source,
    );
    await says(() => status(app), said);
    await says(heard, said);
    t.ok(await serves());
    await host.must(['mv', `${bird}.away`, bird]);
    await host.start('bird.service');
    await cluster.settled(PATIENCE_MS);
    await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1'], PATIENCE_MS);
  },
);

t.test(
  'a full disk at the moment of a change: one report, the old configuration serves, and it is tried again',
  async (t) => {
    const { host } = app;
    const heard = await warnings(app);
    await host.writeFile(SERVICE, { content: extra(8082), group: 'bornemisza', mode: 0o640 });
    await host.fillDisk('/var/lib');
    await reload();
    const said = await says(
      heard,
      /no space left to write \/var\/lib\/bornemisza\/haproxy\/app\/\S+ -- free space: df -h/,
    );
    t.notMatch(said, /a bug/);
    await says(() => status(app), /no space left to write/);
    t.ok(await serves());
    const refused = await host.exec(['bornemisza', 'maintenance', 'on', '--force', '--role', 'app']);
    t.equal(refused.code, 1);
    t.match(
      refused.stderr,
      /The disk is full: \S+local\.json could not be written\.?\n {2}next: Free some space/,
    );
    t.equal((await cluster.status(app)).maintenance, false, 'what cannot be kept is not promised');
    // An orderly end and a start on the full disk: HAProxy goes on, and the daemon too.
    await host.restart(unitOf(app));
    t.notMatch(await heard(), /a bug|unhandled/);
    t.ok(await serves());
    t.match(await cluster.status(app), { name: 'app1/app' });
    t.ok((await heard()).split('\n').length < 40, await heard());
    await host.freeDisk('/var/lib');
    await madeAfterAll();
  },
);

t.test(
  'CouchDB with another password: one request, one sentence, and it recovers after a reload',
  async (t) => {
    const { host } = db;
    const heard = await warnings(db);
    const secrets = JSON.parse(await host.readFile('/var/lib/bornemisza/db/secrets.json')) as {
      admin: { user: string; password: string };
    };
    await cluster.couch(host, `/_node/_local/_config/admins/${secrets.admin.user}`, 'PUT', '"another one"');
    await host.must(['systemctl', 'reload', unitOf(db)]);
    await says(
      () => status(db),
      /CouchDB refuses the administrator’s password; it is not asked again.*remove \[admins\] from its local\.ini/,
    );
    await says(heard, /CouchDB refuses the administrator’s password/);
    t.notMatch(await heard(), secrets.admin.password);
    await host.must(['sed', '-i', '/^\\[admins\\]/,/^$/d', '/var/lib/couchdb/local.ini']);
    await host.must(['systemctl', 'restart', 'couchdb.service']);
    await host.must(['systemctl', 'reload', unitOf(db)]);
    await cluster.settled(PATIENCE_MS);
  },
);
