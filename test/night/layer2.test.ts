import t from 'tap';
import { hardwareAddress } from '../lab/addresses.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { must } from '../lab/process.ts';
import { until } from '../support/until.ts';
import {
  allUp,
  daemonOf,
  haproxyOf,
  killDaemon,
  nextEntry,
  PATIENCE_MS,
  reviveDaemon,
  trailEnd,
} from '../integration/cluster-bed.ts';

/**
 * The floating IP where the provider has no BGP: judged by the devices’ addresses, the router’s ARP table and a client.
 */
t.setTimeout(2_300_000);

const FLOATING = '203.0.113.10';
let cluster: Cluster;
let apps: readonly Instance[];

t.before(async () => {
  cluster = await Cluster.create({ app: 3, floating: 'layer2' });
  // The address is on the wire of the public network, as with providers that route it there and to nobody.
  await provider('route', 'add', `${FLOATING}/32`, 'dev', 'public');
  apps = cluster.instances;
  for (const { host } of apps) {
    await host.must(['sh', '-c', `printf '\\n[health]\\ndamping_ms = 500\\n' >>/etc/bornemisza/app.toml`]);
    await host.restart('bornemisza@app.service');
  }
  await allUp(cluster);
});
t.teardown(() => cluster?.close());

async function provider(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.lab.router.exec(['ip', ...args]);
  if (code !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Hosts that have the address on their public device now, by their kernels’ word. */
async function holders(): Promise<string[]> {
  const looked = apps
    .filter(({ host }) => host.running)
    .map(async ({ host }) => {
      const text = await must(['ip', '-n', host.namespace, '-br', 'addr', 'show', 'eth0']);
      return text.includes(` ${FLOATING}/32`) ? [host.name] : [];
    });
  return (await Promise.all(looked)).flat();
}

/** Waits for the one holder; `most` is how many there were at once on the way. */
async function heldBy(name: string): Promise<{ readonly most: number }> {
  let most = 0;
  await until(
    async () => {
      const now = await holders();
      most = Math.max(most, now.length);
      if (now.join() !== name) throw new Error(`held by ${now.join(', ') || 'nobody'}`);
      return true;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 50, what: `${FLOATING} on ${name}` },
  );
  return { most };
}

/** To which host the router sends the address’s packets, by its ARP table. */
async function neighbour(): Promise<string | undefined> {
  const entry = await provider('neigh', 'show', FLOATING, 'dev', 'public');
  const found = /lladdr (\S+)/.exec(entry)?.[1];
  return apps.map(({ host }) => host.name).find((_, index) => hardwareAddress('public', index) === found);
}

const pointsTo = (name: string): Promise<boolean> =>
  until(async () => (await neighbour()) === name, {
    deadlineMs: PATIENCE_MS,
    everyMs: 50,
    what: `the router’s ARP table at ${name}`,
  });

const request = async (): Promise<number> =>
  (await cluster.lab.client.request({ url: `https://${FLOATING}/` })).status;

const operator = ({ host }: Instance, ...args: readonly string[]): Promise<string> =>
  host.must(['bornemisza', ...args, '--role', 'app']);

t.test('one node takes it, and the neighbours know', async (t) => {
  await heldBy('app1');
  t.equal(await request(), 200);
  t.equal(await neighbour(), 'app1');
  for (const app of apps) {
    const { announcing, announcingWhy } = await cluster.status(app);
    const [held, why] = app.host.name === 'app1' ? [true, 'it has them'] : [false, 'app1/app has them'];
    t.match({ announcing, announcingWhy }, { announcing: held, announcingWhy: why }, app.name);
  }
});

t.test('a restart of the holder’s daemon moves nothing', async (t) => {
  const { host } = cluster.instance('app1');
  const ended = { yet: false };
  const restarted = host
    .restart('bornemisza@app.service')
    .then(() => allUp(cluster))
    .finally(() => (ended.yet = true));
  const seen = new Set<string>();
  while (!ended.yet) seen.add((await holders()).join());
  await restarted;
  t.strictSame([...seen], ['app1']);
});

t.test('the holder’s power fails: another node takes the address, and requests continue', async (t) => {
  const load = cluster.lab.client.startLoad({
    url: `https://${FLOATING}/`,
    ratePerSecond: 20,
    timeoutMs: 1000,
  });
  await cluster.instance('app1').host.powerCut();
  await heldBy('app2');
  await pointsTo('app2');
  await until(async () => (await request()) === 200, { deadlineMs: PATIENCE_MS });
  const report = await load.stop();
  t.comment(
    `longest gap ${(report.longestGapMs / 1000).toFixed(1)} s, ${report.failed} of ${report.requests} failed`,
  );
  const after = await cluster.lab.client.load({ url: `https://${FLOATING}/`, ratePerSecond: 20, seconds: 1 });
  t.match(after, { requests: 20, failed: 0, byStatus: { 200: 20 } });

  await cluster.instance('app1').host.boot();
  await allUp(cluster);
  t.strictSame(await holders(), ['app2'], 'who comes back takes nothing from one that is well');
});

t.test('a minority gives it up before the others take it', async (t) => {
  const { host } = cluster.instance('app2');
  await host.cut({ device: 'private' });
  const { most } = await heldBy('app1');
  t.equal(most, 1, 'never on two machines');
  await pointsTo('app1');
  t.equal(await request(), 200);
  await host.heal();
  await allUp(cluster);
  t.strictSame(await holders(), ['app1']);
});

t.test('maintenance moves the address, and the neighbours are notified without a request', async (t) => {
  t.equal(await neighbour(), 'app1');
  await operator(cluster.instance('app1'), 'maintenance', 'on');
  await heldBy('app2');
  // No packet to the address was sent meanwhile: only what the new holder says changes the table.
  await pointsTo('app2');
  await operator(cluster.instance('app1'), 'maintenance', 'off');
  await allUp(cluster);
  t.strictSame(await holders(), ['app2']);
});

t.test('an address that a stranger has is not taken, and that is reported until it is free', async (t) => {
  const app1 = cluster.instance('app1');
  const end = await trailEnd(cluster, app1);
  await provider('addr', 'add', `${FLOATING}/32`, 'dev', 'public');
  await operator(cluster.instance('app2'), 'maintenance', 'on');
  const entry = await nextEntry(cluster, app1, end, ({ error }) => error?.code === 'layer2-address-taken');
  t.match(entry.error?.message, /^203\.0\.113\.10 is not taken on eth0: \S{17} answers for it there$/);
  t.strictSame(await holders(), []);
  const plugin = (await cluster.status(app1)).plugins.find(({ name }) => name === 'layer2');
  t.match(plugin, { state: 'failing', detail: /is not taken/, next: /find that machine/ });
  await provider('addr', 'del', `${FLOATING}/32`, 'dev', 'public');
  await heldBy('app1');
  await operator(cluster.instance('app2'), 'maintenance', 'off');
  await allUp(cluster);
});

t.test('a dead daemon serves on with it; with its HAProxy dead too, the switch lets it go', async (t) => {
  const app1 = cluster.instance('app1');
  const end = await trailEnd(cluster, cluster.instance('app2'));
  await killDaemon(app1);
  await nextEntry(
    cluster,
    cluster.instance('app2'),
    end,
    ({ error }) => error?.code === 'layer2-address-taken',
  );
  t.strictSame(await holders(), ['app1']);
  t.equal(await request(), 200);
  await app1.host.stop(haproxyOf(app1));
  const { most } = await heldBy('app2');
  t.equal(most, 1);
  await pointsTo('app2');
  t.equal(await request(), 200);
  await app1.host.start(haproxyOf(app1));
  await reviveDaemon(app1);
  await allUp(cluster);
  t.strictSame(await holders(), ['app2']);
});

t.test('another mode takes away what the former one left, and nobody loses the address by it', async (t) => {
  const app1 = cluster.instance('app1');
  await mode(app1, 'bgp');
  t.match(await devices(app1), /bm-float .* 203\.0\.113\.10\/32/);
  await mode(app1, 'layer2');
  t.notMatch(await devices(app1), /bm-float/);
  t.notMatch(await app1.host.must(['birdc', 'show protocols']), /bornemisza_floating/);
  t.equal(await app1.host.must(['ls', '/etc/bird/bornemisza.d']), '');
  t.strictSame(await holders(), ['app2'], 'what BGP’s device had was not held');

  const app2 = cluster.instance('app2');
  await mode(app2, 'off');
  await heldBy('app1');
  t.match(await app2.host.readFile('/run/bornemisza/deadman/heartbeat'), /^\d+ bm-float 80\n$/);
  await mode(app2, 'layer2');
  t.strictSame(await holders(), ['app1']);
});

/** Sets `floating.mode`, with a restart of the daemon alone. */
async function mode(instance: Instance, word: string): Promise<void> {
  const { host } = instance;
  await host.must(['sed', '-i', `s/^mode = ".*"/mode = "${word}"/`, '/etc/bornemisza/app.toml']);
  await host.restart(daemonOf(instance));
  await cluster.settled(PATIENCE_MS);
}

const devices = ({ host }: Instance): Promise<string> => host.must(['ip', '-br', 'addr']);

t.test('a stop gives it up', async (t) => {
  await cluster.instance('app1').host.stop(daemonOf(cluster.instance('app1')));
  const { most } = await heldBy('app2');
  t.equal(most, 1);
});
