import { setTimeout as pause } from 'node:timers/promises';
import t from 'tap';
import { trustOf, verifyChain } from '../../src/daemon/identity/keys/chain.ts';
import { Cluster, CLUSTER_NAME, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import { daemonOf, nextEntry, PATIENCE_MS, serverIs, trailEnd } from '../integration/cluster-bed.ts';

/**
 * Further authorities by the recovery bundle, another root, the loss of all authorities, and what the removal of one
 * leaves standing.
 */
t.setTimeout(2_300_000);

const cluster = await Cluster.create({ app: 3, floating: false });
t.teardown(() => cluster.close());
const [app1, app2, app3] = cluster.instancesOf('app');
if (app1 === undefined || app2 === undefined || app3 === undefined) throw new Error('three hosts');
await cluster.settled(PATIENCE_MS);
/** As `init` wrote it on the first host, taken off that machine by its operator. */
const oldBundle = await app1.host.readFile('/root/recovery.txt');
let bundle = oldBundle;

function addAuthority({ host, role }: Instance): Promise<string> {
  return host.must(['bornemisza', 'authority', 'add', '-', '--role', role], { stdin: bundle });
}

/** What each instance says of who may sign, once they agree. */
function authoritiesAre(names: readonly string[], at: readonly Instance[]): Promise<true> {
  return until(
    async () => {
      for (const instance of at) {
        const seen = (await cluster.members(instance))
          .filter((each) => each.authority)
          .map(({ name }) => name);
        if (seen.join() !== names.join()) throw new Error(`${instance.name} sees ${seen.join()}`);
      }
      return true as const;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 200, what: `authorities ${names.join()}` },
  );
}

const warningsAt = async (instance: Instance): Promise<string> =>
  (await cluster.status(instance)).warnings.map(({ message, next }) => `${message} -- ${next}`).join('\n');

/** For the daemons' units alone. */
const DROP_IN = '/etc/systemd/system/bornemisza@app.service.d/clock.conf';
const HOUR_MS = 3_600_000;
const DAY_S = 86_400;
const CLOCK = '/etc/bornemisza-clock';
/**
 * The wall clock of a host's daemon from now on, against that of this machine; what measures durations goes on. Whole
 * at any moment.
 */
const setClock = ({ host }: Instance, offsetS: number): Promise<string> =>
  host.must([
    'sh',
    '-c',
    `echo ${offsetS < 0 ? '' : '+'}${offsetS} >${CLOCK}.new && mv ${CLOCK}.new ${CLOCK}`,
  ]);

/** From now on a file says what time it is for the daemons. */
async function giveClocks(all: readonly Instance[]): Promise<void> {
  const [first] = all;
  const asked = ['faketime', '-m', '-f', '+0', 'printenv', 'LD_PRELOAD'];
  const environment = {
    LD_PRELOAD: (await first?.host.must(asked))?.trim(),
    FAKETIME_TIMESTAMP_FILE: CLOCK,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    FAKETIME_DISABLE_SHM: '1',
  };
  const lines = Object.entries(environment).map(([name, value]) => `Environment=${name}=${value}`);
  for (const each of all) {
    await setClock(each, 0);
    await each.host.writeFile(DROP_IN, `[Service]\n${lines.join('\n')}\n`);
    await each.host.must(['systemctl', 'daemon-reload']);
    await each.host.restart(daemonOf(each));
  }
  await cluster.settled(PATIENCE_MS);
}

async function takeClocks(all: readonly Instance[]): Promise<void> {
  for (const each of all) {
    await each.host.must(['rm', DROP_IN]);
    await each.host.must(['systemctl', 'daemon-reload']);
    await each.host.restart(daemonOf(each));
  }
  await cluster.settled(PATIENCE_MS);
}

t.test('clocks that jump by an hour, one or all, forward and back, harm nobody', async (t) => {
  const all = [app1, app2, app3];
  await giveClocks(all);
  const pids = (): Promise<number[]> =>
    Promise.all(all.map(async (each) => (await each.host.unit(daemonOf(each))).mainPid));
  const before = await pids();
  const ends = new Map<Instance, number>();
  for (const each of all) ends.set(each, await trailEnd(cluster, each));

  /**
   * Sets clocks and waits until each of them is seen to have jumped, and members have talked for some rounds of probes.
   */
  const jump = async (offsetS: number, hosts: readonly Instance[]): Promise<void> => {
    for (const each of hosts) {
      await setClock(each, offsetS);
      const end = await trailEnd(cluster, each);
      await cluster.command(each, ['guards', 'release']);
      const { at } = await nextEntry(cluster, each, end, ({ summary }) => summary === 'guards released');
      const off = Date.parse(at) - Date.now() - offsetS * 1000;
      t.ok(Math.abs(off) < 60_000, `${each.name} writes ${at}`);
    }
    const framesOf = async (each: Instance) => (await cluster.status(each)).counters['framesIn'] ?? 0;
    const talked = await Promise.all(all.map(framesOf));
    await until(
      async () => (await Promise.all(all.map(framesOf))).every((now, at) => now > (talked[at] ?? 0) + 8),
      { deadlineMs: PATIENCE_MS, everyMs: 300, what: 'some rounds of probes' },
    );
    await cluster.settled(PATIENCE_MS);
  };
  await jump(3600, [app1]);
  // What an authority signs and promises goes by its own clock.
  const { expiresAt } = JSON.parse(
    await cluster.command(app1, ['token', 'create', '--role', 'app', '--ttl', '30m', '--json']),
  );
  t.ok(Math.abs(Date.parse(expiresAt) - Date.now() - 1.5 * HOUR_MS) < 60_000, expiresAt);
  await jump(-3600, [app1]);
  await jump(3600, all);
  await jump(-3600, all);
  t.strictSame(await pids(), before, 'no daemon was started again');

  // One that starts while its clock is behind all that it has said before.
  await app2.host.restart(daemonOf(app2));
  await cluster.settled(PATIENCE_MS);
  for (const each of all) {
    await setClock(each, 0);
    const entries = (await cluster.audit(each)).filter(({ id }) => id > (ends.get(each) ?? 0));
    const members = entries.filter(({ kind }) => kind === 'member').map(({ summary }) => summary);
    t.strictSame(
      members.filter((summary) => /dead|left/.test(summary)),
      [],
      each.name,
    );
    const ids = entries.map(({ id }) => id);
    t.strictSame(
      ids,
      ids.toSorted((a, b) => a - b),
      'the trail is in the order of what happened',
    );
    t.strictSame(
      entries.filter(({ result }) => result === 'failed'),
      [],
      each.name,
    );
    t.notMatch(
      (await cluster.status(each)).warnings.map(({ message, next }) => `${message} -- ${next}`).join('\n'),
      'certificate',
    );
  }
  await takeClocks(all);
});

/** What a node shows to its peers, valid by the clock of this machine or not. */
async function shownBy({ host, role }: Instance) {
  const directory = `/var/lib/bornemisza/${role}`;
  const trust = trustOf(CLUSTER_NAME, await host.readFile(`${directory}/roots.pem`));
  return verifyChain(await host.readFile(`${directory}/chain.pem`), trust, 'any-time');
}

/**
 * As a machine whose clock is wrong until it has asked for the time. By that clock its certificate has ended; after ten
 * years that of the authority as well.
 *
 * @param signs an authority that can sign itself another one, which for the others begins in the future
 */
async function startAhead(of: Instance, days: number, signs: boolean): Promise<void> {
  await setClock(of, days * DAY_S);
  await of.host.restart(daemonOf(of));
  const beginsAfter = async (ms: number): Promise<boolean> => (await shownBy(of)).notBeforeMs > ms;
  await until(
    async () => Date.parse((await cluster.audit(of)).at(-1)?.at ?? '') > Date.now() + DAY_S * 1000,
    { deadlineMs: PATIENCE_MS, everyMs: 300, what: `${of.name} lives ${days} days ahead` },
  );
  if (signs)
    await until(() => beginsAfter(Date.now() + DAY_S * 1000), {
      deadlineMs: PATIENCE_MS,
      everyMs: 300,
      what: `${of.name} shows one that nobody else takes`,
    });
  // It asks every three seconds where its certificate has ended.
  else await pause(7000);
  await setClock(of, 0);
  await until(async () => !(await beginsAfter(Date.now())), {
    deadlineMs: PATIENCE_MS,
    everyMs: 300,
    what: `${of.name} shows one that has begun`,
  });
}

t.test('a clock that is a hundred days or ten years ahead, and right again: all is as before', async (t) => {
  const all = [app1, app2, app3];
  await giveClocks(all);
  for (const [of, days] of [
    [app1, 100],
    [app1, 3653],
    [app2, 3653],
  ] as const) {
    await startAhead(of, days, of === app1 && days === 100);
    await cluster.settled(PATIENCE_MS);
    for (const other of all)
      if (other !== of) await serverIs(cluster, other, `svc_site/${of.host.name}`, 'UP');
  }
  for (const each of all) t.notMatch(await warningsAt(each), 'certificate');
  await takeClocks(all);
});

t.test('the last authority does not leave unasked', async (t) => {
  const refused = await app1.host.exec(['bornemisza', 'leave']);
  t.equal(refused.code, 5, refused.stderr);
  t.match(refused.stderr, /app1\/app is the last authority that is alive.*\n.*authority add/s);
  t.equal((await cluster.status(app1)).phase, 'running');
});

t.test('a running member becomes a second authority by the bundle, and everybody knows', async (t) => {
  t.match(await warningsAt(app3), 'app1/app is the only authority');
  t.match(await app3.host.exec(['bornemisza', 'token', 'create', '--role', 'app']), {
    code: 1,
    stderr: /run this on app1\/app/,
  });
  t.match(await addAuthority(app2), 'app2/app is an authority');
  await authoritiesAre(['app1/app', 'app2/app'], cluster.instances);
  t.notMatch(await warningsAt(app3), 'authority');
  t.match(await app2.host.must(['bornemisza', 'authority', 'list']), /^app2\/app \*/m);
  t.match(await cluster.command(app2, ['token', 'create', '--role', 'app', '--json']), '"token"');
});

const rotate = (args: readonly string[], stdin: string) =>
  app1.host.exec(['bornemisza', 'authority', 'rotate-root', '-', ...args], { stdin });
const rootsAt = async ({ host, role }: Instance): Promise<string[]> =>
  trustOf(CLUSTER_NAME, await host.readFile(`/var/lib/bornemisza/${role}/roots.pem`)).roots.map(
    ({ fingerprint }) => fingerprint,
  );
const rootsOf = (text: string): string => /, root ([0-9a-f]{64})\.$/m.exec(text)?.[1] ?? 'none';
/** Whether what a node shows hangs on the newest root that it holds. */
const isOnNewest = async ({ host, role }: Instance): Promise<boolean> => {
  const directory = `/var/lib/bornemisza/${role}`;
  const newest = trustOf(CLUSTER_NAME, await host.readFile(`${directory}/roots.pem`)).roots.at(-1)?.pem ?? '';
  const chain = await host.readFile(`${directory}/chain.pem`);
  return verifyChain(chain, trustOf(CLUSTER_NAME, newest), 'any-time').host === host.name;
};

t.test(
  'the root is replaced without an interruption, and a node that was away all the time follows',
  async (t) => {
    await serverIs(cluster, app1, 'svc_site/app2', 'UP');
    await app3.host.powerOff();
    // Out of rotation: none of the requests below is lost with it.
    await until(
      async () =>
        !(await cluster.servers(app1)).some(
          ({ server, status }) => server === 'svc_site/app3' && status.startsWith('UP'),
        ),
      { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'app3 is out at app1' },
    );
    const startMs = performance.now();
    const said = (what: string): void =>
      t.comment(`${what} ${((performance.now() - startMs) / 1000).toFixed(1)} s after the command began`);
    const load = cluster.lab.client.startLoad({
      url: `https://${app1.host.publicAddress}/`,
      ratePerSecond: 20,
    });
    const wrong = await rotate([], bundle.replace(/^Passphrase: .*$/m, 'Passphrase: none-of-it'));
    t.match([wrong.code, wrong.stderr], [1, /The passphrase does not open the recovery bundle/]);
    const begun = await rotate(['--recovery-file', '/root/new.txt'], bundle);
    t.match([begun.code, begun.stdout, begun.stderr], [0, /follows .* and both are valid/, '']);
    const newBundle = await app1.host.readFile('/root/new.txt');
    const both = [rootsOf(oldBundle), rootsOf(newBundle)];
    const again = await rotate([], bundle);
    t.match([again.code, again.stderr], [1, /The root is already being replaced/]);
    const here = [app1, app2];
    await until(
      async () => {
        const { rootChange, warnings } = await cluster.status(app2);
        if (rootChange?.notYet.length !== 0)
          throw new Error(warnings.map(({ message }) => message).join('\n'));
        return true;
      },
      { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'both that are here use the new root' },
    );
    said('all who are here used the new root');
    for (const each of here) {
      t.strictSame(await rootsAt(each), both, each.name);
      t.equal(await isOnNewest(each), true);
    }
    const early = await rotate(['--end'], bundle);
    t.match(
      [early.code, early.stderr],
      [1, /The recovery bundle is of the root/],
      'the new bundle ends the old root',
    );
    const ended = await rotate(['--end'], newBundle);
    t.match([ended.code, ended.stdout, ended.stderr], [0, /is the only valid one/, '']);
    await until(async () => (await rootsAt(app2)).join() === both[1], {
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
      what: 'app2 believes in the new root alone',
    });
    await serverIs(cluster, app1, 'svc_site/app2', 'UP');

    // It holds the old root, in which nobody believes, and a chain that hangs on it.
    await app3.host.boot();
    await cluster.settled(PATIENCE_MS);
    await until(async () => (await rootsAt(app3)).join() === both[1] && (await isOnNewest(app3)), {
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
      what: 'app3 hangs on the new root',
    });
    for (const [at, of] of [
      [app1, 'app3'],
      [app3, 'app1'],
      [app3, 'app2'],
    ] as const)
      await serverIs(cluster, at, `svc_site/${of}`, 'UP');
    said('the old root was ended and the third node was back');
    const { requests, failed, byError, byStatus } = await load.stop();
    t.ok(requests > 50);
    t.equal(failed, 0, JSON.stringify({ requests, byError, byStatus }));
    const downs = (await cluster.servers(app1)).filter(({ server }) => server === 'svc_site/app2');
    t.match(downs, [{ downs: 0 }], 'HAProxy never refused the other one');
    t.notMatch(await warningsAt(app1), 'root');

    const outdated = await app3.host.exec(['bornemisza', 'authority', 'add', '-'], { stdin: bundle });
    t.match([outdated.code, outdated.stderr], [1, /The recovery bundle is of the root/]);
    bundle = newBundle;
  },
);

t.test(
  'after the loss of all authorities the bundle makes one of a member that is left, and a new node joins',
  async (t) => {
    await app1.host.powerCut();
    await app2.host.powerCut();
    cluster.forget('app1/app');
    cluster.forget('app2/app');
    await until(async () => (await warningsAt(app3)).includes('no authority is alive (app1/app, app2/app)'), {
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
      what: 'the warning that no authority is alive',
    });
    t.match(await addAuthority(app3), 'app3/app is an authority');
    const app4 = await cluster.addHost('app4', 'app');
    await until(
      async () =>
        (await cluster.members(app3)).some((each) => each.name === 'app4/app' && each.state === 'alive'),
      { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'app4 alive in the eyes of app3' },
    );
    await authoritiesAre(['app1/app', 'app2/app', 'app3/app'], [app3, app4]);
    const trail = JSON.stringify([...(await cluster.audit(app3)), ...(await cluster.audit(app4))]);
    t.notMatch(trail, 'RECOVERY BUNDLE');
    const journal = await app3.host.must(['journalctl', '-o', 'cat', '--no-pager']);
    const passphrase = /^Passphrase: (\S+)$/m.exec(bundle)?.[1] ?? 'none';
    t.match(passphrase, /-/);
    t.notMatch(journal, passphrase);
  },
);

/** Subject and issuer of the certificate that a node uses. */
const certificateOf = ({ host, role }: Instance): Promise<string> =>
  host.must(['openssl', 'x509', '-noout', '-issuer', '-in', `/var/lib/bornemisza/${role}/chain.pem`]);
const barredAt = (instance: Instance): Promise<string> =>
  cluster.haproxy(instance, `show acl /var/lib/bornemisza/haproxy/${instance.role}/revoked.list`);

t.test('removing an authority bars what it signs, and leaves in what it had signed', async (t) => {
  const app4 = cluster.instance('app4/app');
  const rows = await cluster.members(app3);
  const wordOf = (name: string): string => rows.find((each) => each.name === name)?.peerId.slice(-8) ?? '?';
  t.match(await certificateOf(app3), `authority ${wordOf('app1/app')}`);
  const startMs = performance.now();
  await cluster.command(app3, ['remove', 'app1/app']);
  await until(async () => (await barredAt(app4)).includes(` ${wordOf('app1/app')}\n`), {
    deadlineMs: PATIENCE_MS,
    everyMs: 20,
    what: 'HAProxy of app4 bars the removed authority',
  });
  t.comment(
    `HAProxy of another node barred it ${(performance.now() - startMs).toFixed(0)} ms after the command began`,
  );
  await until(async () => (await certificateOf(app3)).includes(`authority ${wordOf('app3/app')}`), {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'app3 uses the certificate that was signed again',
  });
  await cluster.command(app3, ['remove', 'app2/app']);
  await authoritiesAre(['app3/app'], [app3, app4]);
  await cluster.settled(PATIENCE_MS);
});

t.test('a removed authority that still runs admits nobody whom the others know', async (t) => {
  const app4 = cluster.instance('app4/app');
  // It would hear of its removal from them, and end.
  for (const peer of ['app3', 'app4']) await app1.host.cut({ device: 'private', peer });
  await app1.host.boot();
  await app1.host.waitForUnit('bornemisza@app.service', ({ mainPid }) => mainPid !== 0, PATIENCE_MS);
  const host = await cluster.lab.addHost({ name: 'app5', roles: ['app'] });
  const token = await until(() => cluster.command(app1, ['token', 'create', '--role', 'app']), {
    deadlineMs: PATIENCE_MS,
    everyMs: 500,
    what: 'a token of the removed authority',
  });
  await host.must(['bornemisza', 'join', '-', '--host', 'app5', '--private-address', host.privateAddress], {
    stdin: token.split('\n')[0] ?? '',
    timeoutMs: PATIENCE_MS,
  });
  const refusedBefore = (await cluster.status(app3)).counters['strangersRefused'] ?? 0;
  await host.must(['systemctl', 'enable', '--now', 'bornemisza@app.service'], { timeoutMs: PATIENCE_MS });
  await until(async () => ((await cluster.status(app3)).counters['strangersRefused'] ?? 0) > refusedBefore, {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'app5 shows its certificate to app3',
  });
  for (const each of [app3, app4]) {
    const names = (await cluster.members(each)).map(({ name }) => name);
    t.strictSame(names, ['app3/app', 'app4/app'], each.name);
  }
});
