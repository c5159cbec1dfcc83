/**
 * Who took over one of our services gets no further than SECURITY.md says. On a host with the installed package, each
 * attack is made as that service: its user, its groups, its capabilities, its view of the files.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { buildPackage } from '../../scripts/rpm.ts';
import { Cluster } from '../lab/cluster.ts';
import type { Role } from '../lab/index.ts';
import { until } from '../support/until.ts';
import { asAttacker, asService, attack, type Attacker, daemonOf } from './escape-bed.ts';

const SETTLE_MS = 120_000;
/** BIRD or HAProxy are given 15 s for a file; a busy machine adds to all else. */
const DOCTOR_MS = 90_000;
const [app, db] = [daemonOf('app'), daemonOf('db')];

const directory = await mkdtemp('/var/tmp/bornemisza-escape-');
const clean = (): Promise<void> => rm(directory, { recursive: true, force: true });
const built = await buildPackage({ out: directory }).catch(async (error: unknown) => {
  await clean();
  throw error;
});
const cluster = await Cluster.create({ both: 1, package: built.file, diskMegabytes: 768 }).catch(
  async (error: unknown) => {
    await clean();
    throw error;
  },
);
t.teardown(async () => {
  await cluster.close();
  await clean();
});
const { host } = cluster.instance('both1/app');

const ACCOUNTS_TOML = `public_url = "https://203.0.113.10"
[mail]
from = "shop@shop.example"
smtp_url = "smtp://127.0.0.1:2525"
smtp_tls = "off"
`;

interface Checked {
  readonly checks: readonly { readonly name: string; readonly area: string; readonly detail: string }[];
}

async function doctor(role: Role): Promise<Checked['checks']> {
  const { stdout } = await host.exec(['bornemisza', 'doctor', '--json', '--role', role], {
    timeoutMs: DOCTOR_MS,
  });
  return (JSON.parse(stdout) as Checked).checks;
}

/** Process 1 answers, and does what it is asked. */
async function systemdLives(t: Test): Promise<void> {
  const asked = await host.exec(['systemctl', 'restart', 'bornemisza-site.service'], { timeoutMs: 10_000 });
  t.equal(asked.code, 0, `process 1 answers: ${asked.stderr}`);
}

t.test('the cluster is well before, and the app tier runs', async () => {
  await cluster.settled(SETTLE_MS);
  await host.writeFile('/etc/bornemisza/accounts.toml', {
    content: ACCOUNTS_TOML,
    mode: 0o640,
    group: 'bornemisza',
  });
  // As docs/dns.md and docs/operations.md say.
  for (const name of ['dns.token', 'smtp-password'])
    await host.writeFile(`/etc/bornemisza/${name}`, {
      content: 'secret\n',
      mode: 0o640,
      group: 'bornemisza',
    });
  await host.must(['systemctl', 'start', 'bornemisza-app.service']);
  await until(
    async () => (await host.exec(['curl', '-sS', '-f', 'http://127.0.0.1:8090/healthz'])).code === 0,
    { what: 'the app tier answers', deadlineMs: SETTLE_MS, everyMs: 500 },
  );
  // For as long as a trial lasts; --beside, since other rules of the host are nobody's business here.
  // The command asks sshd for its ports.
  await host.must(['sh', '-c', 'mkdir -p /run/sshd && ssh-keygen -A']);
  await host.must(['bornemisza', 'firewall', 'on', '--beside', '--within', '3600'], { timeoutMs: 60_000 });
  await host.waitForUnit('bornemisza-firewall.service', ({ active }) => active === 'active', 60_000);
});

t.test('doctor, called by root, has HAProxy read the daemon’s file as the daemon’s user', async (t) => {
  const place = '/var/lib/bornemisza/haproxy/app';
  const lua = [
    "local id = io.popen('id -u; grep -c . /etc/shadow; touch /etc/escaped /root/escaped; grep " +
      "NoNewPrivs /proc/self/status')",
    "error('as ' .. id:read('*a'):gsub('%s+', ' '))",
  ].join('\n');
  await attack(
    host,
    app,
    `cd ${place} && cat >evil.lua <<'END'\n${lua}\nEND\nprintf 'global\\n  lua-load ${place}/evil.lua\\n' >evil.text`,
  );
  // The daemon that was taken over would not write it again. This one does, so it is written again and again meanwhile.
  const keep =
    `cd ${place} && while [ -e evil.text ]; do cp evil.text evil.new && mv evil.new haproxy.cfg; sleep ` +
    '0.05; done; true';
  const keeping = asAttacker(host, app, keep);
  const seen = await until(
    async () =>
      (await doctor('app')).find(({ name, detail }) => name === 'haproxy.cfg' && /as \d/.test(detail)),
    { what: 'HAProxy runs the Lua that the daemon wrote', deadlineMs: DOCTOR_MS, everyMs: 100 },
  );
  await attack(host, app, `rm ${place}/evil.text`);
  await keeping;
  const uid = (await host.must(['id', '-u', 'bornemisza'])).trim();
  t.match(seen.detail, new RegExp(`as ${uid} `), seen.detail);
  t.match(seen.detail, /NoNewPrivs: 1/);
  t.same(await gone('/etc/escaped', '/root/escaped'), []);
  await attack(host, app, `rm ${place}/evil.lua`);
});

t.test('doctor ends although the daemon left a FIFO for BIRD and one for itself', async (t) => {
  const fragment = '/etc/bird/bornemisza.d/zz.conf';
  await attack(host, app, `mkfifo ${fragment}`);
  const checks = await doctor('app');
  await attack(host, app, `rm -f ${fragment}`);
  t.match(
    checks.find(({ name, area }) => name === 'haproxy' && area === 'host'),
    { state: 'ok' },
    'it came to its end',
  );
});

t.test('commands of root follow no link that the daemon laid', async (t) => {
  await host.must(['sh', '-c', 'mkdir -m 0755 /etc/precious && echo kept >/etc/precious/file']);
  const state = '/var/lib/bornemisza/db';
  await attack(host, db, `rm -rf ${state}/authority; ln -s /etc/precious ${state}/authority`);
  const add = () =>
    host.exec(['bornemisza', 'authority', 'add', '/root/recovery.txt', '--role', 'db'], {
      timeoutMs: 60_000,
    });
  const told = await add();
  t.not(told.code, 0, 'it is refused');
  t.match(told.stderr, /next:/);
  await preciousIsKept(t);

  await attack(host, db, `rm ${state}/authority`);
  // The same by a race: the name is a directory at one moment and a link at the next.
  const race =
    `cd ${state} && while [ ! -e stop ]; do mkdir authority; mv authority old-x; ln -s /etc/precious ` +
    'authority; rm -rf old-x authority; done 2>/dev/null; rm stop';
  const racing = asAttacker(host, db, race);
  for (let time = 0; time < 3; time += 1) await add();
  await attack(host, db, `touch ${state}/stop`);
  await racing;
  await preciousIsKept(t);
  await attack(host, db, `rm -rf ${state}/authority ${state}/old-x`);
});

async function preciousIsKept(t: Test): Promise<void> {
  const left = await host.must(['find', '/etc/precious', '-printf', '%u:%g %m %p\\n']);
  t.equal(left, 'root:root 755 /etc/precious\nroot:root 644 /etc/precious/file\n');
}

t.test('a root key that a command opens cannot be read out of its memory', async (t) => {
  // What runStateTask does: a process that root started becomes the daemon's user by itself.
  const script =
    "const row = require('node:fs').readFileSync('/etc/passwd', 'utf8').split('\\n').map((each) => " +
    "each.split(':')).find(([name]) => name === 'bornemisza'); process.setgroups([]); " +
    'process.setgid(Number(row[3])); process.setuid(Number(row[2])); setInterval(() => {}, 1000);';
  await host.must(['systemd-run', '--unit=lab-dropped', '/usr/libexec/bornemisza/node', '-e', script]);
  const pid = await until(
    async () => {
      const { mainPid } = await host.unit('lab-dropped.service');
      const status = await host.readFile(`/proc/${mainPid}/status`);
      const uid = (await host.must(['id', '-u', 'bornemisza'])).trim();
      return new RegExp(`^Uid:\\s+${uid}\\s+${uid}`, 'm').test(status) ? mainPid : undefined;
    },
    { what: 'it is the daemon’s user', deadlineMs: 20_000, everyMs: 100 },
  );
  for (const what of ['environ', 'maps', 'fd/0'])
    t.not((await asUser('bornemisza', `head -c 1 /proc/${pid}/${what}`)).code, 0, what);
  t.not((await asUser('bornemisza', `exec 3<>/proc/${pid}/mem`)).code, 0, 'mem');
  t.not((await asUser('bornemisza', `ls /proc/${pid}/root/`)).code, 0, 'root');
  await host.must(['systemctl', 'stop', 'lab-dropped.service']);
});

const asUser = (user: string, script: string) => asAttacker(host, { user }, script);

/** @returns those that are there, whatever they are */
async function gone(...paths: readonly string[]): Promise<string[]> {
  const script = 'for each; do if [ -e "$each" ] || [ -L "$each" ]; then echo "$each"; fi; done';
  return (await host.must(['sh', '-c', script, 'sh', ...paths])).split('\n').filter((each) => each !== '');
}

/** Whatever can lie where a file is expected. */
const FORMS: readonly (readonly [what: string, make: (path: string) => string])[] = [
  [
    'a directory with one that nobody may open',
    (path) => `mkdir -p ${path}/x && touch ${path}/x/y && chmod 0 ${path}/x`,
  ],
  ['a link to a file of root', (path) => `ln -s /etc/shadow ${path}`],
  ['a link to a directory of root', (path) => `ln -s /etc/precious ${path}`],
  ['a FIFO', (path) => `mkfifo ${path}`],
  ['a file that nobody may read', (path) => `touch ${path} && chmod 0 ${path}`],
];

t.test('a request is taken away whatever it is, and its oneshot does not start again for it', async (t) => {
  const requests = [
    ['/run/bornemisza/db/restart-couchdb', 'bornemisza-couchdb-restart.service', db],
    ['/run/bornemisza/app/upgrade', 'bornemisza-upgrade.service', app],
  ] as const;
  for (const [path, unit, who] of requests) {
    // The upgrade rests 10 s between two: one form is enough there, as both are taken by the same program.
    for (const [what, make] of who === db ? FORMS : FORMS.slice(0, 1)) {
      const starts = async (): Promise<number> =>
        new Set(
          (await host.journalEntries(unit)).map(
            (each) => each['INVOCATION_ID'] ?? each['_SYSTEMD_INVOCATION_ID'],
          ),
        ).size;
      const before = await starts();
      await attack(host, who, make(path));
      await until(async () => (await gone(path)).length === 0, {
        what: `${path} as ${what} is taken away`,
        deadlineMs: 30_000,
        everyMs: 50,
      });
      await host.waitForUnit(
        unit,
        ({ active }) => active !== 'activating' && active !== 'deactivating',
        60_000,
      );
      t.ok((await starts()) - before <= 2, `${unit}, ${what}: ${(await starts()) - before} starts`);
    }
  }
  await preciousIsKept(t);
  t.equal(await host.must(['stat', '-c', '%U', '/etc/shadow']), 'root\n');
  t.equal(await host.must(['sh', '-c', 'ls -A /run/bornemisza | grep -c taken || true']), '0\n');
  await systemdLives(t);
});

t.test('process 1 opens no file of the daemon’s for CouchDB’s environment', async (t) => {
  const place = '/var/lib/bornemisza/couchdb';
  const ask = 'echo x >/run/bornemisza/db/restart-couchdb';
  await host.must(['sh', '-c', 'umask 077; echo ONLY_ROOT_KNOWS=it >/root/x.env']);

  const before = (await host.unit('couchdb.service')).mainPid;
  await attack(host, db, `rm ${place}/couchdb.env && ln -s /root/x.env ${place}/couchdb.env && ${ask}`);
  await until(async () => (await host.unit('couchdb.service')).mainPid !== before, {
    what: 'CouchDB is restarted',
    deadlineMs: 30_000,
    everyMs: 20,
  });
  const leaks = await host.exec(['sh', '-c', 'grep -lz ^ONLY_ROOT_KNOWS= /proc/[0-9]*/environ']);
  t.equal(leaks.stdout, '', 'no process has it in its environment');

  await attack(host, db, `rm -f ${place}/couchdb.env; mkfifo ${place}/couchdb.env; ${ask}`);
  await until(async () => (await gone('/run/bornemisza/db/restart-couchdb')).length === 0, {
    what: 'the request was taken',
    deadlineMs: 30_000,
    everyMs: 100,
  });
  await systemdLives(t);
  await attack(host, db, `rm -f ${place}/couchdb.env`);
  // The daemon itself may wait for the FIFO: only its own work stands still.
  await host.must(['systemctl', 'restart', 'bornemisza@db.service'], { timeoutMs: 60_000 });
  const environment = 'tr "\\0" "\\n" </proc/$(systemctl show -P MainPID couchdb)/environ';
  await until(
    async () => /^ERL_EPMD_ADDRESS=10\./m.test((await host.exec(['sh', '-c', environment])).stdout),
    { what: 'CouchDB runs again, with what the daemon wrote again', deadlineMs: 120_000, everyMs: 500 },
  );
});

interface Edge {
  readonly from: Attacker;
  readonly to: string;
  /** Must fail. */
  readonly tries: readonly string[];
}

const ofUser = (user: string): Attacker => ({ user });
const appTier: Attacker = { user: 'bornemisza-app', unit: 'bornemisza-app.service' };
const haproxy: Attacker = { user: 'bornemisza-haproxy', unit: 'bornemisza-haproxy@app.service' };
const bird: Attacker = { user: 'bird', unit: 'bird.service' };
const couchdb: Attacker = { user: 'couchdb', unit: 'couchdb.service' };
const deadman: Attacker = { user: 'bornemisza-deadman', unit: 'bornemisza-deadman.service' };
const unitWatch: Attacker = { user: 'bornemisza-unit-watch', unit: 'bornemisza-unit-watch.service' };
const firewall: Attacker = { user: 'bornemisza-firewall', unit: 'bornemisza-firewall.service' };
const site: Attacker = { user: 'bornemisza-site', unit: 'bornemisza-site.service' };
/** Those that are in no group of the daemon's. */
const LESSER = [ofUser('nobody'), couchdb, bird, haproxy, appTier, site, deadman, unitWatch];
const SYSTEMD =
  'busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager';
const CONTROL = ['curl', '-sS', '--max-time', '5', '--unix-socket', '/run/bornemisza/app/control.sock'];
/** Stands in a try for the id of a service's process, which root looks up: who attacks may not be able to ask. */
const main = (unit: string): string => `<${unit.replace(/\.service$/, '')}>`;

/** What leads into the process of a service. */
const intoProcess = (unit: string): string[] => [
  `kill -TERM ${main(unit)}`,
  `cat /proc/${main(unit)}/environ`,
  // Opened, not read: nothing is mapped at its beginning, so that a read fails for everybody.
  `exec 3<>/proc/${main(unit)}/mem`,
  `ls /proc/${main(unit)}/root/ /proc/${main(unit)}/cwd/`,
  `ls /proc/${main(unit)}/fd/`,
  `prlimit --pid=${main(unit)} --core=unlimited:`,
  `renice -n 19 -p ${main(unit)}`,
];

/** What leads from the daemon's user to the rights of others. */
const AWAY = (from: Attacker): readonly Edge[] => [
  {
    from,
    to: 'root',
    tries: [
      'cat /etc/shadow',
      'touch /etc/systemd/system/x.service',
      'touch /etc/bornemisza/x',
      'touch /usr/libexec/bornemisza/x',
      'echo x >/etc/cron.d/x',
      'echo x >/proc/sys/kernel/core_pattern',
      'mount -t tmpfs x /mnt',
      'setpriv --reuid=0 true',
      'printf "\\n" | su -c true',
      'ln -s /etc /var/lib/bornemisza/x',
      'mv /run/bornemisza/deadman /run/bornemisza/deadman.x',
      'touch /run/bornemisza/upgraded',
      'sudo -n true || pkexec --disable-internal-agent true || sg root -c true',
      // Its own words a user may read: journald keeps those of uid 1000 and above in a file of the user's.
      'journalctl --quiet --lines=1 --unit=bornemisza@app.service --unit=sshd.service | grep .',
      'ls /var/lib/systemd/coredump/* /run/credentials/*',
    ],
  },
  {
    from,
    to: 'process 1',
    tries: [
      'kill -TERM 1',
      'exec 3<>/proc/1/mem || ls /proc/1/root/ || ls /proc/1/fd/',
      'systemctl stop bornemisza-site.service',
      'systemctl kill --signal=KILL bornemisza-site.service',
      'systemctl daemon-reload',
      'systemctl set-environment LD_PRELOAD=/tmp/x.so',
      'systemctl set-property --runtime bornemisza-site.service MemoryMax=64M',
      'systemctl mask --runtime bornemisza-site.service',
      'systemd-run true',
      'systemd-run --scope --uid=0 true',
      `${SYSTEMD} Reexecute`,
      `${SYSTEMD} KillUnit ssi bornemisza-site.service all 9`,
      'curl -sSf --max-time 5 --unix-socket /run/systemd/private http://x/',
      'hostnamectl hostname x || timedatectl set-timezone UTC || localectl set-locale C',
      'find /sys/fs/cgroup -type f -writable | grep .',
    ],
  },
  {
    from,
    to: 'the dead-man switch',
    tries: [
      ...intoProcess('bornemisza-deadman'),
      'touch /usr/libexec/bornemisza/deadman',
      'touch /etc/systemd/system/bornemisza-deadman.service.d',
    ],
  },
  {
    from,
    to: 'dnf',
    tries: [
      'dnf -y install bornemisza-node',
      'touch /etc/yum.repos.d/x.repo',
      'touch /var/lib/rpm/x',
      'touch /var/cache/dnf/x || touch /var/lib/dnf/x',
      'touch /etc/dnf/vars/x || touch /etc/dnf/dnf.conf || touch /etc/pki/rpm-gpg/x',
      'rpm --erase --nodeps bornemisza-node',
    ],
  },
];

/** What is whose, and what nobody else of the lesser ones may have. */
const OWN: readonly (readonly [owner: Attacker, tries: readonly string[]])[] = [
  [
    couchdb,
    [
      'ls /var/lib/couchdb',
      'cat /var/lib/couchdb/.erlang.cookie',
      'cat /var/lib/bornemisza/couchdb/cookie',
      'touch /opt/couchdb/bin/x',
      'curl -sSf --max-time 5 http://127.0.0.1:15984/_all_dbs',
    ],
  ],
  [bird, ['cat /etc/bird/bird.conf', 'ls /etc/bird/bornemisza.d', 'birdc show status']],
  [
    haproxy,
    [
      'cat /var/lib/bornemisza/haproxy/app/haproxy.cfg',
      'cat /var/lib/bornemisza/haproxy/app/*.pem',
      'ls /run/bornemisza-haproxy/app',
      `kill -TERM ${main('bornemisza-haproxy@db')}`,
    ],
  ],
  [site, ['touch /srv/bornemisza/site/x']],
];

/** From each of the lesser ones to each other. The app tier has edges of its own below. */
const AMONG: readonly Edge[] = LESSER.flatMap((from) =>
  OWN.filter(([owner]) => owner.user !== from.user).map(([{ user, unit = '' }, tries]) => ({
    from,
    to: user,
    tries: [...intoProcess(unit), ...tries],
  })),
);

const EDGES: readonly Edge[] = [
  ...AWAY(app),
  ...AWAY(db),
  ...AWAY(firewall),
  ...LESSER.flatMap((from) => AWAY(from)).filter(({ from, to }) => from !== deadman || !/dead-man/.test(to)),
  ...AMONG,
  ...[app, db, ...LESSER].map((from) => ({
    from,
    to: 'bornemisza-firewall',
    tries: [
      ...intoProcess('bornemisza-firewall'),
      'touch /etc/bornemisza/firewall.base',
      'touch /run/bornemisza-firewall.trial',
      'touch /run/bornemisza-firewall/x',
      'ls /var/lib/private/bornemisza-firewall',
      'touch /usr/libexec/bornemisza/firewall',
    ],
  })),
  // The role without a capability: the kernel's rules are not its to see.
  { from: db, to: 'the rules in the kernel', tries: ['nft list ruleset', 'nft flush ruleset'] },
  {
    from: firewall,
    to: 'bornemisza',
    tries: [
      'ls /var/lib/bornemisza/app',
      'cat /var/lib/bornemisza/db/secrets.json',
      'touch /etc/bornemisza/x || touch /etc/bornemisza/app.toml',
      'touch /var/lib/bornemisza/haproxy/app/x',
      'touch /var/lib/bornemisza/couchdb/x',
      'touch /etc/bird/bornemisza.d/x.conf',
      'touch /run/bornemisza/app/upgrade || touch /run/bornemisza/db/restart-couchdb',
      'touch /run/bornemisza/app/firewall || touch /run/bornemisza/db/firewall',
      'touch /run/bornemisza/deadman/heartbeat',
      ...intoProcess('bornemisza@app'),
      ...intoProcess('bornemisza@db'),
    ],
  },
  {
    from: app,
    to: 'couchdb',
    tries: ['ls /var/lib/couchdb', 'touch /var/lib/bornemisza/couchdb/x', ...intoProcess('couchdb')],
  },
  { from: db, to: 'couchdb', tries: [...intoProcess('couchdb'), 'touch /opt/couchdb/bin/x'] },
  {
    from: app,
    to: 'bird',
    tries: [
      ...intoProcess('bird'),
      'echo x >>/etc/bird/bird.conf',
      'mv /etc/bird/bird.conf /etc/bird/x',
      // BIRD, still root, changes the owner of its socket there by name.
      'touch /run/bird/x || mv /run/bird/bird.ctl /run/bird/x',
    ],
  },
  {
    from: db,
    to: 'bird',
    tries: ['ls /etc/bird', 'birdc show status', 'touch /etc/bird/bornemisza.d/x.conf'],
  },
  {
    from: app,
    to: 'bornemisza-haproxy',
    tries: intoProcess('bornemisza-haproxy@app'),
  },
  {
    from: db,
    to: 'bornemisza-haproxy',
    tries: [...intoProcess('bornemisza-haproxy@db'), 'touch /var/lib/bornemisza/haproxy/app/x'],
  },
  ...[app, db].map((from) => ({
    from,
    to: 'bornemisza-site',
    tries: [...intoProcess('bornemisza-site'), 'touch /srv/bornemisza/site/x'],
  })),
  {
    from: app,
    to: 'bornemisza-app',
    tries: [
      ...intoProcess('bornemisza-app'),
      'touch /etc/bornemisza/accounts.toml',
      'touch /usr/share/bornemisza/web/x',
      'ls /run/credentials/bornemisza-app.service',
    ],
  },
  ...[...LESSER, firewall]
    .filter(({ user }) => user !== appTier.user)
    .map((from) => ({
      from,
      to: 'bornemisza-app',
      tries: ['ls /var/lib/bornemisza/accounts', 'ls /run/bornemisza-app', ...intoProcess('bornemisza-app')],
    })),
  ...LESSER.map((from) => ({
    from,
    to: 'bornemisza',
    tries: [
      'ls /var/lib/bornemisza/app',
      'cat /var/lib/bornemisza/app/site.json',
      'cat /etc/bornemisza/dns.token',
      'cat /etc/bornemisza/smtp-password',
      'cat /var/lib/bornemisza/db/secrets.json',
      'cat /etc/bornemisza/app.toml',
      'curl -sS --max-time 5 --unix-socket /run/bornemisza/app/control.sock http://daemon/v1/status',
      'curl -sS --max-time 5 --unix-socket /run/bornemisza/db/control.sock http://daemon/v1/status',
      'touch /var/lib/bornemisza/haproxy/app/x',
      'touch /var/lib/bornemisza/couchdb/x',
      'touch /var/lib/bornemisza/accounts/x',
      'touch /etc/bird/bornemisza.d/x.conf',
      'touch /run/bornemisza/app/upgrade || touch /run/bornemisza/db/restart-couchdb',
      'touch /run/bornemisza/deadman/heartbeat',
      ...intoProcess('bornemisza@app'),
      ...intoProcess('bornemisza@db'),
    ],
  })),
];

t.test('no edge leads to another user’s rights but those that SECURITY.md names', async (t) => {
  // Each by itself, all of an edge in one go.
  const script = 'for each; do timeout 10 sh -c "$each" >/dev/null 2>&1; echo $?; done';
  const pids = new Map<string, number>();
  const pidOf = async (unit: string): Promise<number> => {
    const pid = pids.get(unit) ?? (await host.unit(`${unit}.service`)).mainPid;
    if (pid === 0) throw new Error(`${unit} does not run`);
    pids.set(unit, pid);
    return pid;
  };
  for (const { from, to, tries } of EDGES) {
    const real: string[] = [];
    for (const each of tries) {
      const unit = /<([a-z@-]+)>/.exec(each)?.[1];
      real.push(unit === undefined ? each : each.replaceAll(`<${unit}>`, String(await pidOf(unit))));
    }
    const { stdout } = await asAttacker(host, from, script, real);
    const codes = stdout.trim().split('\n');
    t.equal(codes.length, tries.length);
    const got = tries.filter((_, index) => codes[index] === '0');
    t.same(got, [], `${from.user} (${from.unit ?? 'a shell'}) to ${to}`);
  }
});

/**
 * What is theirs beside what everybody has, and nothing else is. A directory counts with all that lies in it. The
 * daemons of both roles are one user, as SECURITY.md says.
 */
const THEIRS: readonly (readonly [who: Attacker, writes: readonly string[], reads: readonly string[]])[] = [
  [
    app,
    [
      ...['/run/bornemisza', '/var/lib/bornemisza/app', '/var/lib/bornemisza/haproxy/app'],
      ...['/var/lib/bornemisza/accounts', '/etc/bird/bornemisza.d', '/run/bornemisza-haproxy'],
      ...['/run/bornemisza-app/control.sock', '/run/bornemisza-app/operator.sock', '/run/bird/bird.ctl'],
    ],
    ['/etc/bornemisza', '/etc/bird', '/var/lib/bornemisza'],
  ],
  [
    db,
    [
      ...['/run/bornemisza', '/var/lib/bornemisza/db', '/var/lib/bornemisza/haproxy/db'],
      ...['/var/lib/bornemisza/couchdb', '/var/lib/couchdb', '/run/bornemisza-haproxy'],
    ],
    ['/etc/bornemisza', '/var/lib/bornemisza'],
  ],
  [haproxy, ['/run/bornemisza-haproxy'], ['/var/lib/bornemisza/haproxy']],
  // Its uid is above 999, so that journald keeps a file of its own words that it can read.
  [
    couchdb,
    ['/var/lib/couchdb', '/run/couchdb'],
    ['/var/lib/bornemisza/couchdb', '/opt/couchdb', '/var/log/journal'],
  ],
  [bird, ['/run/bird'], ['/etc/bird']],
  [
    appTier,
    ['/run/bornemisza-app'],
    ['/var/lib/bornemisza/accounts', '/run/credentials/bornemisza-app.service'],
  ],
  // The sockets' modes let its group in; its unit has no socket to reach them with.
  [
    firewall,
    [
      ...['/run/bornemisza-firewall', '/var/lib/private/bornemisza-firewall'],
      ...['/run/bornemisza/app/control.sock', '/run/bornemisza/db/control.sock'],
    ],
    ['/etc/bornemisza', '/run/bornemisza'],
  ],
  [site, [], []],
  [deadman, [], []],
  [unitWatch, ['/run/bornemisza-unit-watch'], []],
];
const EVERYBODYS = /^\/(tmp|var\/tmp|dev)(\/|$)/;

t.test('each service’s user can write and read what everybody can, and what is its own', async (t) => {
  const places =
    '/boot /dev /etc /home /opt /root /run /srv /usr/bin /usr/lib/systemd /usr/libexec /usr/local /var';
  const script =
    `find ${places} -writable ! -type l -printf 'w %p\\n' 2>/dev/null; ` +
    `find ${places} -type f -readable -printf 'r %p\\n' 2>/dev/null; true`;
  const seenBy = async (who: Attacker): Promise<Set<string>> =>
    new Set((await attack(host, who, script)).split('\n').filter((line) => line !== ''));
  const everybodys = await seenBy(ofUser('nobody'));
  t.ok(everybodys.has('r /etc/passwd'), 'there is something to see');
  const ours = /^(w .*(bornemisza|bird|couchdb)|r \/(var\/lib|etc)\/(bornemisza|bird|couchdb)\/)/;
  t.same(
    [...everybodys].filter((line) => ours.test(line)),
    [],
  );
  for (const [who, writes, reads] of THEIRS) {
    const isTheirs = (line: string): boolean => {
      const [kind, path] = [line.slice(0, 1), line.slice(2)];
      const own = kind === 'w' ? writes : [...writes, ...reads];
      return EVERYBODYS.test(path) || own.some((each) => path === each || path.startsWith(`${each}/`));
    };
    const more = [...(await seenBy(who))].filter((line) => !everybodys.has(line) && !isTheirs(line));
    t.same(more, [], who.unit ?? who.user);
  }
});

t.test('a compromised daemon cannot give process 1 a process of another user as its own', async (t) => {
  const shown = (what: string): Promise<string> =>
    host.must(['systemctl', 'show', '-P', what, app.unit ?? '']);
  const before = await shown('MainPID');
  const other = (await host.unit('bornemisza-haproxy@app.service')).mainPid;
  const say = (words: string): string => `NOTIFY_SOCKET=/run/systemd/notify systemd-notify ${words}`;
  const said = await asService(host, app, `${say(`MAINPID=${other}`)}; ${say('STATUS=taken-over')}`);
  t.equal(said.code, 0, said.stderr);
  // Until the daemon says its own again.
  await until(async () => (await shown('StatusText')) === 'taken-over\n', {
    what: 'process 1 has heard it',
    everyMs: 20,
  });
  t.equal(await shown('MainPID'), before);
});

t.test(
  'no service of ours leaves a core, shares a key ring or listens on a socket without a path',
  async (t) => {
    const ours = [app, db, haproxy, appTier, site, deadman, unitWatch, firewall];
    for (const { unit = '' } of [...ours, couchdb]) {
      const limits = await host.readFile(`/proc/${(await host.unit(unit)).mainPid}/limits`);
      t.match(limits, /^Max core file size +0 +0 /m, unit);
    }
    for (const { unit = '' } of ours)
      t.equal(await host.must(['systemctl', 'show', '-P', 'KeyringMode', unit]), 'private\n', unit);
    const listening = (await host.readFile('/proc/net/unix'))
      .split('\n')
      .map((line) => line.trim().split(/\s+/));
    // __SO_ACCEPTCON, and a name that no directory guards.
    t.same(
      listening.filter(([, , , flags, , , , path = '']) => flags === '00010000' && path.startsWith('@')),
      [],
    );
    for (const kind of ['shm', 'sem', 'msg'])
      t.equal((await host.readFile(`/proc/sysvipc/${kind}`)).trim().split('\n').length, 1, kind);
  },
);

t.test('the existing edges are the ones that SECURITY.md names, and so is the attacker', async (t) => {
  // Each would fail as well if the attacker had no rights at all: what the daemon needs works.
  t.match(await attack(host, app, 'id -un; birdc show status'), /^bornemisza\n[^]*BIRD/);
  await attack(
    host,
    app,
    'ip link show && touch /var/lib/bornemisza/app/.x && rm /var/lib/bornemisza/app/.x',
  );
  await attack(host, db, 'touch /var/lib/bornemisza/couchdb/.x && rm /var/lib/bornemisza/couchdb/.x');
  t.match(
    await attack(host, haproxy, 'id -un; head -1 /var/lib/bornemisza/haproxy/app/haproxy.cfg'),
    /^bornemisza-haproxy\n./,
  );
  t.match(
    await attack(host, appTier, 'id -un; head -c 8 /var/lib/bornemisza/accounts/secrets.json'),
    /^bornemisza-app\n\{"keys":/,
  );
  t.match(await attack(host, app, 'nft list table inet bornemisza'), /table inet bornemisza/);
  t.match(await attack(host, firewall, 'head -1 /etc/bornemisza/app.toml; nft list tables'), /bornemisza/);
  for (const who of [app, db, firewall])
    t.equal(await attack(host, who, 'cat /etc/bornemisza/dns.token'), 'secret\n');
  await attack(host, unitWatch, 'head -c 1 /proc/1/stat && touch /run/bornemisza-unit-watch/x');
  await attack(host, deadman, 'ip link set lo up && head -c 1 /run/bornemisza/deadman/heartbeat');
  t.match(await attack(host, bird, 'id -un; head -1 /etc/bird/bird.conf'), /^bird\n./);
  t.match(await attack(host, couchdb, 'id -un; head -1 /var/lib/bornemisza/couchdb/vm.args'), /^couchdb\n./);
});

t.test('the firewall’s helper is in the daemon’s group, and has no way to carry what it reads', async (t) => {
  const families = (
    await host.must(['systemctl', 'show', '-P', 'RestrictAddressFamilies', 'bornemisza-firewall.service'])
  ).trim();
  const edge = ['curl', '-sSk', '--max-time', '5', 'https://127.0.0.1/'];
  const control = [...CONTROL, 'http://daemon/v1/status'];
  const ask = (argv: readonly string[], ...limits: readonly string[]): Promise<number | null> =>
    host
      .exec(
        [
          ...[
            'systemd-run',
            '--wait',
            '--quiet',
            '-p',
            'DynamicUser=yes',
            '-p',
            'SupplementaryGroups=bornemisza',
          ],
          ...limits.flatMap((each) => ['-p', each]),
          ...[...argv, '-o', '/dev/null'],
        ],
        { timeoutMs: 60_000 },
      )
      .then(({ code }) => code);
  for (const argv of [control, edge]) {
    t.equal(await ask(argv), 0, 'the group alone is enough');
    t.not(await ask(argv, `RestrictAddressFamilies=${families}`), 0, `the unit allows ${families}`);
  }
});

t.test('the cluster is well afterwards', async (t) => {
  await cluster.settled(SETTLE_MS);
  await systemdLives(t);
});
