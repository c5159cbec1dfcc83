import t from 'tap';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import { daemonOf, PATIENCE_MS } from '../integration/cluster-bed.ts';

/**
 * A compromised authority: what it does to the others, what they see of it, and what an operator takes back
 * with the recovery bundle. Then two authorities that admit one name while they do not hear each other.
 */
t.setTimeout(2_300_000);

const cluster = await Cluster.create({ app: 3, floating: false });
t.teardown(() => cluster.close());
const [bad, good, victim] = cluster.instancesOf('app');
if (bad === undefined || good === undefined || victim === undefined) throw new Error('three hosts');
await cluster.settled(PATIENCE_MS);
/** As `init` wrote it, taken off that machine by its operator. */
const bundle = await bad.host.readFile('/root/recovery.txt');

const namesAt = async (instance: Instance): Promise<string[]> =>
  (await cluster.members(instance)).map(({ name }) => name).toSorted();
const trailOf = async (instance: Instance, about: string): Promise<string> =>
  (await cluster.audit(instance, { node: about }))
    .map(({ summary, trigger }) => `${summary} [${trigger}]`)
    .join('\n');

/** Waits until the daemon of a removed node has ended by itself, and systemd does not start it again. */
async function ended(instance: Instance): Promise<void> {
  await instance.host.waitForUnit(
    daemonOf(instance),
    ({ active, mainPid }) => mainPid === 0 && active !== 'activating',
    PATIENCE_MS,
  );
}

const addAuthority = ({ host }: Instance): Promise<string> =>
  host.must(['bornemisza', 'authority', 'add', '-', '--role', 'app'], { stdin: bundle });

/** Admits a host with a token of `by`; its daemon does not run yet. */
async function admitted(
  by: Instance,
  { host }: Instance,
  name: string,
  more: readonly string[] = [],
): Promise<void> {
  const made = await cluster.command(by, ['token', 'create', '--role', 'app', '--json']);
  const { token } = JSON.parse(made) as { token: string };
  await host.must(
    ['bornemisza', 'join', '-', ...more, '--host', name, '--private-address', host.privateAddress],
    { stdin: token, timeoutMs: PATIENCE_MS },
  );
}
const begin = ({ host }: Instance): Promise<unknown> =>
  host.must(['systemctl', 'enable', '--now', 'bornemisza@app.service'], { timeoutMs: PATIENCE_MS });

let intruder: Instance;

t.test(
  'a compromised authority admits and removes nodes, and the trail of each node says who signed',
  async (t) => {
    intruder = await cluster.addHost('app4', 'app');
    await cluster.settled(PATIENCE_MS);
    await cluster.command(bad, ['remove', 'app3/app', '--force']);
    cluster.forget('app3/app');
    await ended(victim);
    await cluster.settled(PATIENCE_MS);
    t.strictSame(await namesAt(good), ['app1/app', 'app2/app', 'app4/app']);
    t.match(await trailOf(good, 'app3/app'), /app3\/app was removed from the cluster \[signed by app1\/app/);
    t.match(await trailOf(good, 'app4/app'), /app4\/app was admitted with a token \[signed by app1\/app/);
  },
);

t.test(
  'the recovery bundle makes another authority, which removes it and the node that it admitted',
  async (t) => {
    t.match(await good.host.exec(['bornemisza', 'remove', 'app1/app', '--force']), {
      code: 1,
      stderr: /run this on app1\/app|authority add/,
    });
    await addAuthority(good);
    await cluster.command(good, ['remove', 'app1/app', '--force']);
    cluster.forget('app1/app');
    await ended(bad);
    // What it signed before stays valid, also the node that it admitted: the operator must find that.
    await cluster.settled(PATIENCE_MS);
    t.strictSame(await namesAt(good), ['app2/app', 'app4/app']);
    t.strictSame(await namesAt(intruder), ['app2/app', 'app4/app']);
    await cluster.command(good, ['remove', 'app4/app', '--force']);
    cluster.forget('app4/app');
    await ended(intruder);
    t.strictSame(await namesAt(good), ['app2/app']);
  },
);

t.test('a node that it removed is refused with the old key, and joins again with a new token', async (t) => {
  await victim.host.exec(['systemctl', 'reset-failed', 'bornemisza@app.service']);
  await victim.host.exec(['systemctl', 'start', 'bornemisza@app.service']);
  await ended(victim);
  t.strictSame(await namesAt(good), ['app2/app']);
  await admitted(good, victim, 'app3', ['--reset']);
  await victim.host.exec(['systemctl', 'reset-failed', 'bornemisza@app.service']);
  await begin(victim);
  await until(async () => (await namesAt(good)).join() === 'app2/app,app3/app', {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'app3 is back',
  });
  await until(async () => (await cluster.status(victim)).counts.alive === 2, {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'app3 sees app2',
  });
});

/** Two daemons start, and are heard. */
const STARTS_MS = 3 * PATIENCE_MS;

t.test('two authorities on two sides of a cut admit one name, and all nodes use the same one', async (t) => {
  await addAuthority(victim);
  await until(async () => (await cluster.members(good)).every(({ authority }) => authority), {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'app2 knows that app3 is an authority as well',
  });
  for (const { host } of [bad, intruder])
    await host.must(['bornemisza', 'leave', '--wipe', '--role', 'app'], { timeoutMs: PATIENCE_MS });
  await good.host.cut({ device: 'private', peer: victim.host.name });
  await Promise.all([admitted(good, bad, 'app5'), admitted(victim, intruder, 'app5')]);
  await good.host.heal('private');
  await Promise.all([begin(bad), begin(intruder)]);
  const rows = async (at: Instance) => (await cluster.members(at)).filter(({ name }) => name === 'app5/app');
  const used = async (at: Instance): Promise<string> => {
    const both = await rows(at);
    const inUse = both.filter(({ rotation }) => rotation === 'in').map(({ peerId }) => peerId);
    const { warnings } = await cluster.status(at);
    const told = warnings.some(({ message }) => message.startsWith('app5/app, '));
    if (both.length !== 2 || inUse.length !== 1 || !told)
      throw new Error(`${at.name}: ${JSON.stringify({ both, warnings })}`);
    return inUse[0] ?? '';
  };
  const [byGood, byVictim] = [
    await until(() => used(good), { deadlineMs: STARTS_MS, everyMs: 300, what: 'app2 uses one' }),
    await until(() => used(victim), { deadlineMs: STARTS_MS, everyMs: 300, what: 'app3 uses one' }),
  ];
  t.equal(byGood, byVictim, 'the same one');
  const refused = await good.host.exec(['bornemisza', 'remove', 'app5/app', '--force']);
  t.match([refused.code, refused.stderr], [2, /2 machines were admitted as app5\/app/]);
  const later = (await rows(good)).find(({ peerId }) => peerId !== byGood);
  await cluster.command(good, ['remove', later?.peerId ?? '', '--force']);
  for (const at of [good, victim])
    await until(async () => (await rows(at)).map(({ peerId }) => peerId).join() === byGood, {
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
      what: `${at.name} knows one app5`,
    });
  const runs = async ({ host }: Instance): Promise<boolean> =>
    (await host.unit('bornemisza@app.service')).mainPid !== 0;
  await until(
    async () => {
      const running = await Promise.all([bad, intruder].map(runs));
      if (running.filter(Boolean).length !== 1) throw new Error(running.join());
      return true;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 300, what: 'the later one ends, and the first one continues' },
  );
});
