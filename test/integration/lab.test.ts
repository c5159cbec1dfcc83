import { chmod, readFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { poll, type Host } from '../lab/index.ts';
import { childrenOf } from '../support/children.ts';
import { selfSigned } from '../support/self-signed.ts';
import { floating, hears, ping, placeholderLab } from './lab-bed.ts';

const directory = t.testdir({
  release: {
    bin: {
      couchdb:
        '#!/bin/sh\necho "$COUCHDB_ARGS_FILE $COUCHDB_INI_FILES $ERL_EPMD_ADDRESS $HOME"\nexec sleep infinity\n',
    },
    etc: { 'default.ini': '' },
  },
});
await chmod(`${directory}/release/bin/couchdb`, 0o755);
const lab = await placeholderLab(
  directory,
  [
    { name: 'app1', roles: ['app'] },
    { name: 'app2', roles: ['app'] },
    { name: 'db1', roles: ['db'] },
  ],
  { couchdb: `${directory}/release` },
);
t.teardown(() => lab.close());
const [app1, app2, db1] = [lab.host('app1'), lab.host('app2'), lab.host('db1')];
const both = ['app1', 'app2'];
const page = `http://${floating}/`;

const serve = (host: Host): Promise<void> => host.start('bornemisza@app.service');
const direct = (host: Host) =>
  lab.client.request({ url: `http://${host.publicAddress}:8080/`, timeoutMs: 500 });

t.test('a unit lets the daemon do what its role needs, and nothing else', async (t) => {
  await Promise.all([serve(app1), serve(app2), db1.start('bornemisza@db.service')]);
  const report = async (host: Host, role: string) =>
    JSON.parse(await host.readFile(`/var/lib/bornemisza/${role}/report.json`)) as Record<string, string>;
  const shared = {
    'own state': 'done',
    'haproxy configuration': 'done',
    'haproxy directory': 'done',
    'bird.conf': 'EACCES',
    etc: 'EROFS',
    'kernel switches': 'ENOENT',
    shadow: 'EACCES',
  };
  t.strictSame(await report(app1, 'app'), {
    ...shared,
    'floating device': 'done',
    'floating address': 'done',
    'device up': 'done',
    'bird directory': 'done',
    'couchdb directory': 'EROFS',
  });
  const onDb = await report(db1, 'db');
  t.match(onDb, { ...shared, 'couchdb directory': 'done' });
  t.not(onDb['floating device'], 'done', 'role db may not touch devices');
  t.not(onDb['bird directory'], 'done', 'nor BIRD');
  const state = await app1.unit('bornemisza@app.service');
  t.match(state, { active: 'active', sub: 'running', status: 'placeholder app' });
  // The placeholder has no control socket, by which the unit's ExecReload asks a real daemon.
  await app1.must(['systemctl', 'kill', '--signal=HUP', '--kill-who=main', 'bornemisza@app.service']);
  await app1.waitForUnit('bornemisza@app.service', ({ status }) => status === 'reloaded');
});

t.test(
  'CouchDB starts when its files are there, keeps its cookie to itself and restarts on request',
  async (t) => {
    t.equal((await db1.unit('couchdb.service')).active, 'inactive', 'not before vm.args');
    const generated = '/var/lib/bornemisza/couchdb';
    const environment = `COUCHDB_ARGS_FILE=${generated}/vm.args
COUCHDB_INI_FILES="/opt/couchdb/etc/default.ini /var/lib/couchdb/local.ini"
ERL_EPMD_ADDRESS=10.77.0.11
`;
    const shared = { mode: 0o640, owner: 'bornemisza', group: 'couchdb' };
    await db1.writeFile(`${generated}/couchdb.env`, { content: environment, ...shared });
    await db1.writeFile(`${generated}/cookie`, { content: 'monster', ...shared });
    await db1.writeFile(`${generated}/vm.args`, { content: '-name couchdb@10.77.0.11\n', ...shared });
    const ask = () => db1.must(['touch', '/run/bornemisza/db/restart-couchdb'], { user: 'bornemisza' });
    await ask();
    const { mainPid } = await db1.waitForUnit('couchdb.service', ({ sub }) => sub === 'running');
    t.match(
      await db1.journal('couchdb.service'),
      `${generated}/vm.args /opt/couchdb/etc/default.ini /var/lib/couchdb/local.ini 10.77.0.11 /var/lib/couchdb`,
    );
    t.equal(
      await db1.must(['stat', '-c', '%U:%G %a', '/var/lib/couchdb/.erlang.cookie']),
      'couchdb:couchdb 400\n',
    );
    for (let time = 2, pid = mainPid; time <= 7; time += 1) {
      await ask();
      const now = await db1.waitForUnit(
        'couchdb.service',
        ({ sub, mainPid: of }) => sub === 'running' && of !== pid,
      );
      t.not(now.mainPid, pid, `restart ${time}`);
      pid = now.mainPid;
    }
    await takenByTheClock(t, db1, ask);
  },
);

/** As where no inotify instance is left, but for this host alone: each start of the path unit ends in a failure. */
async function takenByTheClock(t: Test, db1: Host, ask: () => Promise<unknown>): Promise<void> {
  const watcher = 'bornemisza-couchdb-restart.path';
  const retry = 'bornemisza-path-retry@bornemisza-couchdb-restart.timer';
  const dropIn = `/run/systemd/system/${watcher}.d/fails.conf`;
  await db1.writeFile(dropIn, { content: '[Path]\nTriggerLimitIntervalSec=1h\nTriggerLimitBurst=1\n' });
  await db1.must(['systemctl', 'daemon-reload']);
  await db1.must(['systemctl', 'restart', watcher]);
  for (let time = 1, pid = (await db1.unit('couchdb.service')).mainPid; time <= 3; time += 1) {
    await ask();
    const now = await db1.waitForUnit(
      'couchdb.service',
      ({ sub, mainPid: of }) => sub === 'running' && of !== pid,
    );
    t.not(now.mainPid, pid, `restart ${time}, whatever the path unit does`);
    pid = now.mainPid;
  }
  t.match(await db1.journal(watcher), /trigger-limit-hit/, 'it did fail');
  await db1.must(['rm', dropIn]);
  await db1.must(['systemctl', 'daemon-reload']);
  await db1.waitForUnit(watcher, ({ active }) => active === 'active');
  await db1.waitForUnit(retry, ({ active }) => active === 'inactive');
  const { mainPid } = await db1.unit('couchdb.service');
  await new Promise((resolve) => setTimeout(resolve, 2000));
  t.equal((await db1.unit('couchdb.service')).mainPid, mainPid, 'nothing is restarted without a request');
}

t.test('our HAProxy runs beside it as its own user, reachable by the daemon and by no others', async (t) => {
  for (const host of [app1, app2, db1]) {
    const role = host.roles[0] ?? '';
    const { active } = await host.waitForUnit(
      `bornemisza-haproxy@${role}.service`,
      ({ sub }) => sub === 'running',
    );
    t.equal(active, 'active', `on ${host.name}`);
  }
  const { mainPid } = await app1.unit('bornemisza-haproxy@app.service');
  t.equal((await app1.must(['ps', '-o', 'user:32=', '-p', String(mainPid)])).trim(), 'bornemisza-haproxy');
  const showProcesses = 'echo show proc | socat - UNIX-CONNECT:/run/bornemisza-haproxy/app/master.sock';
  const ask = (user: string, group: string) =>
    app1.exec([
      'setpriv',
      `--reuid=${user}`,
      `--regid=${user}`,
      `--groups=${group}`,
      '--',
      'sh',
      '-c',
      showProcesses,
    ]);
  t.match((await ask('bornemisza', 'bornemisza-haproxy')).stdout, /master/);
  t.not((await ask('nobody', 'nogroup')).code, 0);
});

t.test('the provider routes the floating address to both edges, and clients spread over them', async (t) => {
  await Promise.all(
    [app1, app2].map((host) => host.waitForUnit('bird.service', ({ sub }) => sub === 'running')),
  );
  await lab.router.waitForAnnouncers(floating, both);
  t.strictSame(await lab.router.sessions(), { app1: 'Established', app2: 'Established' });
  t.strictSame(
    (await lab.router.routes(floating)).map(({ address }) => address),
    [app1.publicAddress, app2.publicAddress],
  );
  const answers = await Promise.all(
    Array.from({ length: 64 }, (_, source) => lab.client.request({ url: page, source })),
  );
  const served = (name: string): number => answers.filter(({ body }) => body === name).length;
  t.equal(served('app1') + served('app2'), 64);
  t.ok(served('app1') > 12 && served('app2') > 12, `app1 ${served('app1')}, app2 ${served('app2')}`);
});

t.test('BIRD announces no address but the configured ones', async (t) => {
  await app1.must(['ip', 'addr', 'add', '203.0.113.99/32', 'dev', 'bm-float']);
  await poll('BIRD to see the address', async () =>
    (await app1.must(['birdc', 'show', 'route', '203.0.113.99/32'])).includes('floating') ? true : undefined,
  );
  await app2.must(['ip', 'addr', 'del', `${floating}/32`, 'dev', 'bm-float']);
  await lab.router.waitForAnnouncers(floating, ['app1']);
  t.strictSame(await lab.router.announcers('203.0.113.99'), []);
  await app2.must(['ip', 'addr', 'add', `${floating}/32`, 'dev', 'bm-float']);
  await lab.router.waitForAnnouncers(floating, both);
  await app1.must(['ip', 'addr', 'del', '203.0.113.99/32', 'dev', 'bm-float']);
});

t.test('kill: a killed BIRD loses its route at once and comes back by itself', async (t) => {
  const before = lab.router.history(floating).length;
  await app1.kill('bird.service', 'SIGKILL');
  await poll('the route to change', () => (lab.router.history(floating).length > before ? true : undefined));
  t.strictSame(lab.router.history(floating)[before]?.hosts, ['app2']);
  await lab.router.waitForAnnouncers(floating, both);
  t.equal((await app1.unit('bird.service')).restarts, 1);
});

t.test('stop and start: a stopped HAProxy refuses, a started one serves', async (t) => {
  t.equal((await direct(app1)).body, 'app1');
  await app1.stop('bornemisza-haproxy@app.service');
  await t.rejects(direct(app1), { code: 'ECONNREFUSED' });
  await app1.start('bornemisza-haproxy@app.service');
  t.equal((await direct(app1)).body, 'app1');
});

t.test(
  'freeze: a frozen HAProxy answers nothing until it is thawed, and so does a frozen host',
  async (t) => {
    await app1.freeze('bornemisza-haproxy@app.service');
    await t.rejects(direct(app1), { code: 'TIMEOUT' });
    await app1.thaw('bornemisza-haproxy@app.service');
    t.equal((await direct(app1)).body, 'app1');
    await app1.freeze();
    await t.rejects(direct(app1), { code: 'TIMEOUT' });
    await app1.thaw();
    t.equal((await direct(app1)).body, 'app1');
  },
);

t.test(
  'cut: frames vanish in the direction, on the device and towards the peer that were named',
  async (t) => {
    const device = (host: Host, name: string) => host.readFile(`/sys/class/net/${name}/carrier`);
    t.ok((await hears(db1, app1)) && (await hears(app1, db1)), 'whole at first');
    await app1.cut({ device: 'private', direction: 'out' });
    t.strictSame(await Promise.all([hears(db1, app1), hears(app1, db1)]), [false, true], 'out');
    t.equal((await device(app1, 'eth1')).trim(), '1', 'without a sign');
    t.equal((await direct(app1)).body, 'app1', 'the public device is well');
    await app1.heal();
    await app1.cut({ device: 'private', direction: 'in' });
    t.strictSame(await Promise.all([hears(db1, app1), hears(app1, db1)]), [true, false], 'in');
    await app1.heal();
    await app1.cut({ device: 'private', peer: 'app2' });
    t.strictSame(await Promise.all([hears(app2, app1), hears(db1, app1)]), [false, true], 'peer');
    await app2.heal();
    t.ok(await hears(app2, app1), 'healed from the other end');
    await app1.cut({ device: 'public', peer: 'router' });
    await t.rejects(direct(app1), { code: 'TIMEOUT' });
    await app1.heal('public');
    t.equal((await direct(app1)).body, 'app1');
  },
);

t.test('unplug: the device loses its carrier', async (t) => {
  const carrier = async () => (await app1.readFile('/sys/class/net/eth1/carrier')).trim();
  await app1.unplug('private');
  t.equal(await carrier(), '0');
  await app1.heal();
  await poll('the carrier to be back', async () => ((await carrier()) === '1' ? true : undefined));
  t.ok(await ping(app1, db1.privateAddress));
});

t.test('delay: a round trip takes twice as much longer', async (t) => {
  await app1.delay(40, 'private');
  // Of so many, some meet a timer that fires before its time.
  const delayed = (await ping(app1, db1.privateAddress, 100)) ?? 0;
  t.ok(delayed >= 2 * 40, `no frame is early: ${delayed} ms`);
  await app1.cut({ device: 'private', peer: 'app2' });
  t.equal(await ping(app1, app2.privateAddress), undefined, 'a cut holds on a delayed wire');
  await app1.heal();
  const healed = (await ping(app1, db1.privateAddress, 3)) ?? 1000;
  t.ok(healed < 40, `${healed} ms`);
});

t.test('drop: a share of the frames is lost', async (t) => {
  await app1.drop(50, 'private');
  const { stdout } = await app1.exec([
    'ping',
    '-n',
    '-c',
    '60',
    '-i',
    '0.01',
    '-W',
    '0.2',
    db1.privateAddress,
  ]);
  const received = Number(/(\d+) received/.exec(stdout)?.[1]);
  // Both ways are lossy: a quarter comes back, 15 of 60 on the average; 0 or 45 and more are one in ten million.
  t.ok(received > 0 && received < 45, `${received} of 60`);
  await app1.heal();
  const healed = await app1.exec(['ping', '-n', '-c', '20', '-i', '0.01', '-W', '1', db1.privateAddress]);
  t.match(healed.stdout, /20 received/);
});

t.test('fill the disk: nothing more can be written until it is freed', async (t) => {
  const write = () => db1.exec(['dd', 'if=/etc/hosts', 'of=/var/lib/couchdb/probe']);
  await db1.fillDisk('/var/lib');
  t.match((await write()).stderr, /No space left/);
  await db1.freeDisk('/var/lib');
  t.equal((await write()).code, 0);
});

t.test('load: every request is counted, and a killed edge shows', async (t) => {
  const calm = await lab.client.load({ url: page, ratePerSecond: 200, seconds: 1 });
  t.match(calm, { requests: 200, failed: 0, byStatus: { 200: 200 } });
  t.comment(`longest gap ${calm.longestGapMs} ms`);
  const load = lab.client.startLoad({ url: `http://${app1.publicAddress}:8080/`, ratePerSecond: 100 });
  await app1.restart('bornemisza-haproxy@app.service');
  await app1.stop('bornemisza-haproxy@app.service');
  await poll('the client to notice', async () =>
    direct(app1).then(
      () => undefined,
      () => true,
    ),
  );
  const hurt = await load.stop();
  t.ok(hurt.failed > 0, `${hurt.failed} of ${hurt.requests} failed: ${JSON.stringify(hurt.byError)}`);
  await app1.start('bornemisza-haproxy@app.service');
});

t.test(
  'load: requests of a client machine that is gone are refused, and the next one has another',
  async (t) => {
    await lab.client.request({ url: page, timeoutMs: 1000 });
    const agents = await childrenWith('client-agent.ts');
    t.equal(agents.length, 1);
    for (const pid of agents) process.kill(pid, 'SIGKILL');
    // It ends, and this process has no time to hear of it.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    await t.rejects(lab.client.request({ url: page, timeoutMs: 1000 }), /the client machine is gone/);
    await poll('another client machine', () =>
      lab.client.request({ url: page, timeoutMs: 1000 }).then(
        ({ status }) => status === 200,
        () => undefined,
      ),
    );
  },
);

/** This process’s own, by a word of their command lines. */
async function childrenWith(word: string): Promise<number[]> {
  const pids = await childrenOf(process.pid);
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return pids.filter((_, at) => lines[at]?.includes(word));
}

/** Refuses its first streams, `argv[1]` of them; then answers. Ends when the file at `argv[2]` is there. */
const REFUSING = `
const { createSecureServer, constants } = require('node:http2');
const { existsSync, readFileSync } = require('node:fs');
const [refused, over] = process.argv.slice(1);
const server = createSecureServer({ key: readFileSync('/srv/key.pem'), cert: readFileSync('/srv/cert.pem') });
let count = 0;
server.on('stream', (stream) => {
  stream.on('error', () => undefined);
  count += 1;
  if (count <= Number(refused)) return stream.close(constants.NGHTTP2_REFUSED_STREAM);
  stream.respond({ ':status': 200 });
  stream.end('ok');
});
server.listen(8470);
setInterval(() => existsSync(over) && process.exit(0), 50);
`;

t.test('load: a refused HTTP/2 stream is sent again, as a browser does, but not for ever', async (t) => {
  const { key, cert } = await selfSigned(t.testdir(), 'app1', `IP:${app1.publicAddress}`);
  for (const [name, file] of [
    ['key', key],
    ['cert', cert],
  ] as const)
    await app1.writeFile(`/srv/${name}.pem`, await readFile(file, 'utf8'));
  const url = `https://${app1.publicAddress}:8470/`;
  const ask = { url, http2: true, sources: 1, ratePerSecond: 10, seconds: 0.5, timeoutMs: 10_000 } as const;
  for (const [refused, failed] of [
    [2, 0],
    [1000, 5],
  ] as const) {
    const over = `/run/over-${refused}`;
    const server = app1.exec([process.execPath, '-e', REFUSING, String(refused), over]);
    await poll('the server to listen', async () =>
      (await app1.exec(['ss', '-Hltn', 'sport = :8470'])).stdout === '' ? undefined : true,
    );
    const report = await lab.client.load(ask);
    t.match(report, { requests: 5, failed, resets: 0 }, JSON.stringify(report));
    await app1.must(['touch', over]);
    await server;
  }
});

t.test('reboot: the disk stays, everything else is new', async (t) => {
  const bootId = await app1.readFile('/proc/sys/kernel/random/boot_id');
  const machineId = await app1.readFile('/etc/machine-id');
  await app1.writeFile('/var/lib/bornemisza/kept', 'kept');
  await app1.writeFile('/run/lost', 'lost');
  await app1.must(['systemctl', 'enable', 'bornemisza@app.service']);
  await app1.reboot();
  t.equal(await app1.readFile('/var/lib/bornemisza/kept'), 'kept');
  t.equal(await app1.readFile('/etc/machine-id'), machineId);
  t.not((await app1.exec(['cat', '/run/lost'])).code, 0);
  t.not(await app1.readFile('/proc/sys/kernel/random/boot_id'), bootId);
  t.equal((await app1.unit('bornemisza@app.service')).sub, 'running', 'what is enabled is up again');
  t.match(
    await app1.must(['journalctl', '--list-boots']),
    /-1 .*\n.*0 /,
    'the journal of the boot before is kept',
  );
  await lab.router.waitForAnnouncers(floating, both);
});

t.test('power cut: no node receives a goodbye', async (t) => {
  const before = lab.router.history(floating).length;
  await app2.freeze();
  await app2.powerCut();
  t.equal(app2.running, false);
  await t.rejects(app2.exec(['true']), /switched off/);
  t.strictSame((await lab.router.sessions())['app2'], 'Established', 'the provider knows nothing yet');
  t.equal(lab.router.history(floating).length, before);
  await app2.unplug('private');
  await app2.delay(20, 'public');
  await app2.boot();
  t.equal((await app2.readFile('/sys/class/net/eth1/carrier')).trim(), '0', 'faults wait for the next boot');
  const delayed = await poll('an answer of the router', () => ping(app2, '198.51.100.1', 3));
  t.ok(delayed >= 2 * 20, `delay as well: ${delayed} ms`);
  await app2.heal();
  await serve(app2);
  await lab.router.waitForAnnouncers(floating, both, 30_000);
});

t.test('a host is added while the lab runs, and all reboot', async (t) => {
  const app3 = await lab.addHost({ name: 'app3', roles: ['app'] });
  t.ok(await ping(app3, app1.privateAddress));
  await lab.rebootAll();
  for (const host of lab.hosts)
    t.equal((await host.exec(['systemctl', 'is-system-running'])).stdout, 'running\n', host.name);
  await serve(app2);
  await lab.router.waitForAnnouncers(floating, both);
});

t.test('no host can reach what is outside of its lab', async (t) => {
  const { stdout } = await app1.exec(['ip', '-o', 'link', 'show', 'type', 'veth']);
  t.strictSame(new Set([...stdout.matchAll(/: (\w+)@/g)].map(([, name]) => name)), new Set(['eth0', 'eth1']));
  const write = await app1.exec(['sh', '-c', 'echo 1 >/proc/sys/kernel/panic']);
  t.match(write.stderr, /Read-only file system/);
});
