import { access, mkdir, readdir, readFile, readlink, rmdir, writeFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import { daemonOf, PATIENCE_MS, trailEnd } from '../integration/cluster-bed.ts';

/**
 * What machines do to a daemon under its unit: they stop it, take away its memory, its files and its disk, lose its
 * packets, and are copied. Each time the others go on, and the node is back by itself once the fault is gone.
 */
t.setTimeout(2_300_000);

const cluster = await Cluster.create({ app: 3, floating: false });
t.teardown(() => cluster.close());
const [app1, app2, app3] = cluster.instancesOf('app');
if (app1 === undefined || app2 === undefined || app3 === undefined) throw new Error('three hosts');
await cluster.settled(PATIENCE_MS);

const STATE = '/var/lib/bornemisza/app';

async function states(from: Instance): Promise<Record<string, string>> {
  return Object.fromEntries((await cluster.members(from)).map(({ name, state }) => [name, state]));
}

const restarts = async ({ host }: Instance): Promise<number> =>
  Number(
    (
      await host.must(['systemctl', 'show', '--property=NRestarts', '--value', 'bornemisza@app.service'])
    ).trim(),
  );

const mainPid = async (instance: Instance): Promise<number> =>
  (await instance.host.unit(daemonOf(instance))).mainPid;

async function heldDead(observer: Instance, about: Instance): Promise<void> {
  await until(async () => (await states(observer))[about.name] === 'dead', {
    deadlineMs: PATIENCE_MS,
    what: `${observer.name} to hold ${about.name} for dead`,
  });
}

/** Everybody is well, and nobody but the node concerned was held for dead by those who were not concerned. */
async function allWell(t: Test): Promise<void> {
  await cluster.settled(PATIENCE_MS);
  for (const instance of cluster.instances)
    t.strictSame(
      await states(instance),
      Object.fromEntries(cluster.instances.map(({ name }) => [name, 'alive'])),
      `as ${instance.name} sees it`,
    );
}

t.test('a daemon that is stopped for 5 seconds continues as the same process', async (t) => {
  const before = { pid: await mainPid(app2), restarts: await restarts(app2) };
  await app2.host.kill(daemonOf(app2), 'SIGSTOP');
  await heldDead(app1, app2);
  await app2.host.kill(daemonOf(app2), 'SIGCONT');
  await allWell(t);
  t.strictSame({ pid: await mainPid(app2), restarts: await restarts(app2) }, before);
});

t.test('a daemon that is stopped for longer than its watchdog allows is restarted', async (t) => {
  const before = { pid: await mainPid(app2), restarts: await restarts(app2) };
  await app2.host.kill(daemonOf(app2), 'SIGSTOP');
  await until(async () => (await restarts(app2)) === before.restarts + 1, {
    deadlineMs: PATIENCE_MS,
    what: 'systemd to start the daemon again',
  });
  await allWell(t);
  t.not(await mainPid(app2), before.pid);
  t.match(await app2.host.journal(daemonOf(app2)), /Watchdog timeout/);
});

/** Limits of the running process, set as its own user: root of a lab’s host may not set another user’s. */
async function limit(instance: Instance, which: 'nofile' | 'data', value: number | string): Promise<void> {
  const pid = await mainPid(instance);
  await instance.host.must(['prlimit', `--pid=${pid}`, `--${which}=${value}:`], { user: 'bornemisza' });
}

const status = ({ host }: Instance): ReturnType<Instance['host']['exec']> =>
  host.exec(['bornemisza', 'status', '--role', 'app'], { timeoutMs: 20_000 });

t.test('a daemon that gets no more memory ends, and is restarted', async (t) => {
  const before = { pid: await mainPid(app2), restarts: await restarts(app2) };
  await limit(app2, 'data', 1024 * 1024);
  await until(
    async () => {
      await status(app2);
      return (await restarts(app2)) > before.restarts;
    },
    { deadlineMs: PATIENCE_MS, what: 'the daemon to end and systemd to start it' },
  );
  await allWell(t);
  t.not(await mainPid(app2), before.pid);
});

/** The process that the host calls `pid`, as this machine calls it. */
async function outerPid({ host }: Instance, pid: number): Promise<number> {
  const namespace = await readlink(`/proc/${host.pid}/ns/pid`);
  for (const outer of await readdir('/proc')) {
    const status = await readFile(`/proc/${outer}/status`, 'utf8').catch(() => '');
    if (Number(/^NSpid:.*\s(\d+)$/m.exec(status)?.[1]) !== pid) continue;
    if ((await readlink(`/proc/${outer}/ns/pid`).catch(() => '')) === namespace) return Number(outer);
  }
  throw new Error(`no process ${pid} on ${host.name}`);
}

/** A group of the kernel's, as `MemoryMax=` makes one. What it has already does not count, all that it takes does. */
async function confine(t: Test, pid: number, bytes: number): Promise<void> {
  const unified = '/sys/fs/cgroup/cgroup.controllers';
  const isUnified = await access(unified).then(
    () => true,
    () => false,
  );
  if (isUnified) await writeFile('/sys/fs/cgroup/cgroup.subtree_control', '+memory');
  const group = `/sys/fs/cgroup/${isUnified ? '' : 'memory/'}bornemisza-night-${process.pid}`;
  await mkdir(group);
  t.teardown(() => rmdir(group));
  await writeFile(`${group}/${isUnified ? 'memory.max' : 'memory.limit_in_bytes'}`, String(bytes));
  await writeFile(`${group}/cgroup.procs`, String(pid));
}

t.test('a daemon that the kernel kills at its memory limit is restarted', async (t) => {
  const before = { pid: await mainPid(app2), restarts: await restarts(app2) };
  await confine(t, await outerPid(app2, before.pid), 1024 * 1024);
  await until(
    async () => {
      await status(app2);
      return (await restarts(app2)) > before.restarts;
    },
    { deadlineMs: PATIENCE_MS, what: 'the kernel to end the daemon and systemd to start it' },
  );
  t.match(await app2.host.journal(daemonOf(app2)), /code=killed, status=9\/KILL/);
  await allWell(t);
  t.not(await mainPid(app2), before.pid);
});

t.test(
  'one that has no file descriptor left blames no service, and serves again when it has some',
  async (t) => {
    const before = await trailEnd(cluster, app2);
    const pid = await mainPid(app2);
    // The lowest numbers belong to Node.js itself for as long as the process lives.
    await limit(app2, 'nofile', 16);
    await until(async () => /EMFILE/.test(await app2.host.journal(daemonOf(app2))), {
      deadlineMs: PATIENCE_MS,
      what: 'the daemon to miss a descriptor',
    });
    // Several checks fall into this time, and at most one sign of life for the watchdog is missed.
    await pause(5_000);
    t.equal((await states(app1))[app2.name], 'alive', 'its links stand');
    await limit(app2, 'nofile', 16_384);
    await allWell(t);
    t.equal(await mainPid(app2), pid, 'the same process');
    const told = (await cluster.audit(app2)).filter(({ id }) => id > before).map(({ summary }) => summary);
    t.notOk(
      told.some((summary) => / is down/.test(summary)),
      told.join('; '),
    );
  },
);

t.test(
  'a daemon whose disk turns read-only continues, reports it, and writes again afterwards',
  async (t) => {
    const pid = await mainPid(app2);
    const maintenance = (how: 'on' | 'off'): ReturnType<typeof status> =>
      app2.host.exec(['bornemisza', 'maintenance', how, '--role', 'app']);
    const remount = async (how: 'ro' | 'rw'): Promise<void> => {
      for (const place of [STATE, '/var/lib/bornemisza/haproxy/app'])
        await app2.host.must([
          'nsenter',
          '-t',
          String(pid),
          '-m',
          'mount',
          '-o',
          `remount,${how},bind`,
          place,
        ]);
    };
    await remount('ro');
    const asked = await maintenance('on');
    const { stdout } = await status(app2);
    const said = `${asked.stdout}${asked.stderr}${stdout}${await app2.host.journal(daemonOf(app2))}`;
    t.match(said, /read-only file system/, said);
    t.match(said, /findmnt -T/, 'and what to do');
    t.equal((await states(app1))[app2.name], 'alive');
    await remount('rw');
    t.equal((await maintenance('on')).code, 0);
    t.equal((await maintenance('off')).code, 0);
    await allWell(t);
    t.equal(await mainPid(app2), pid, 'the same process');
  },
);

/** Shortest and longest round trip of some packets, ms, of those that came back. */
async function roundTrips(from: Instance, to: Instance): Promise<readonly [least: number, most: number]> {
  const ping = ['ping', '-q', '-c', '20', '-i', '0.2', '-W', '2', to.host.privateAddress];
  const { stdout } = await from.host.exec(ping, { timeoutMs: 30_000 });
  const [, least, most] = /= ([\d.]+)\/[\d.]+\/([\d.]+)\//.exec(stdout) ?? [];
  return [Number(least), Number(most)];
}

t.test(
  'a fifth of all packets lost and 300 ms of jitter, then one direction cut for two minutes: all agree afterwards',
  async (t) => {
    const pids = await Promise.all(cluster.instances.map(mainPid));
    await app2.host.delay(1, 'private', 300);
    await app2.host.drop(20, 'private');
    const [least, most] = await roundTrips(app1, app2);
    t.ok(most - least > 100, `the fault is there: round trips of ${least} to ${most} ms`);
    await pause(60_000);
    await app2.host.heal();
    await allWell(t);
    await app2.host.cut({ device: 'private', direction: 'in' });
    await heldDead(app1, app2);
    await pause(120_000);
    await app2.host.heal();
    await allWell(t);
    t.strictSame(await Promise.all(cluster.instances.map(mainPid)), pids, 'the same processes');
  },
);

t.test('a copy of a machine’s disk on another machine is refused there, and harms nobody', async (t) => {
  const pid = await mainPid(app3);
  await cluster.lab.addHost({ name: 'app4', roles: ['app'] });
  const copy = cluster.lab.host('app4');
  const tar = await app3.host.must([
    'sh',
    '-c',
    'tar -C / -cz etc/bornemisza var/lib/bornemisza | base64 -w0',
  ]);
  await copy.must(['sh', '-c', 'base64 -d | tar -C / -xz'], { stdin: tar });
  const started = await copy.exec(['systemctl', 'start', 'bornemisza@app.service']);
  const journal = await copy.journal('bornemisza@app.service');
  t.not(started.code, 0, journal);
  t.match(journal, /address/, journal);
  t.equal(await mainPid(app3), pid, 'the real one runs on');
  await allWell(t);
});

/** Each has some of the links, and hears of the other by a sync, of which there is one in half a minute. */
const CLONE_MS = 300_000;

t.test('a clone with the same address: the later one ends, the first one continues', async (t) => {
  const pid = await mainPid(app3);
  const copy = cluster.lab.host('app4');
  const address = `${app3.host.privateAddress}/24`;
  await copy.must(['sh', '-c', `ip addr flush dev eth1 && ip addr add ${address} dev eth1`]);
  await copy.exec(['systemctl', 'start', '--no-block', 'bornemisza@app.service']);
  await until(
    async () =>
      /process with this node.s key started first/.test(await copy.journal('bornemisza@app.service')),
    { deadlineMs: CLONE_MS, everyMs: 500, what: 'the clone to be told' },
  );
  await copy.waitForUnit('bornemisza@app.service', ({ active }) => active === 'failed', PATIENCE_MS);
  t.equal(await mainPid(app3), pid, 'the first one runs on');
  await copy.powerCut();
  await allWell(t);
  t.equal(await mainPid(app3), pid);
});
