import { loadavg } from 'node:os';
import t, { type Test } from 'tap';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import {
  allUp,
  birdConfigured,
  carrying,
  daemonOf,
  inOneLine,
  killDaemon,
  PATIENCE_MS,
  programs,
  reviveDaemon,
  trailEnd,
  wordOf,
} from './cluster-bed.ts';

/** The daemons are not in the path of any request: HAProxy, BIRD and CouchDB serve on without them. */
t.setTimeout(2_300_000);

const FLOATING = '203.0.113.10';
const SITE_PER_SECOND = 60;
const DATABASE_PER_SECOND = 20;
/** Long enough for each of HAProxy's checks to fail and to be believed several times over. */
const DEAD_MS = 10_000;
/** Between two looks while requests are counted: each look costs some processes on the same cores. */
const CALM_MS = 1000;

/**
 * Reads a document by the listener that a service on an app node uses, over connections that are kept, until the file
 * appears that is named by the second argument; counts the answers by kind.
 */
const DATABASE_LOAD = `
const { existsSync } = require('node:fs');
const http = require('node:http');
const [authorization, over] = process.argv.slice(1);
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
const seen = {};
let asked = 0;
const count = (kind) => { seen[kind] = (seen[kind] ?? 0) + 1; };
const ask = () => {
  const options = { port: 5984, path: '/deaths/one', agent, headers: { authorization }, timeout: 10_000 };
  const request = http.get(options, (response) => {
    response.resume().on('end', () => count(response.statusCode));
  });
  request.on('timeout', () => request.destroy(Object.assign(new Error('late'), { code: 'TIMEOUT' })));
  request.on('error', (error) => count(error.code ?? error.message));
};
const startMs = performance.now();
const timer = setInterval(() => {
  const due = Math.floor(((performance.now() - startMs) * ${DATABASE_PER_SECOND}) / 1000);
  for (; asked < due; asked += 1) ask();
  if (!existsSync(over) && performance.now() - startMs < 300_000) return;
  clearInterval(timer);
}, 20);
process.on('exit', () => console.log(JSON.stringify({ asked, seen })));
`;

let cluster: Cluster;
let app1: Instance;
let all: readonly Instance[];
let authorization: string;

t.before(async () => {
  cluster = await Cluster.create({ app: 2, db: 2 });
  app1 = cluster.instance('app1');
  all = cluster.instances;
  await allUp(cluster);
  await warm();
  await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1', 'app2'], PATIENCE_MS);
  const { host } = cluster.instance('db1');
  await cluster.couch(host, '/deaths', 'PUT');
  await cluster.couch(host, '/deaths/one', 'PUT', '{"all":"well"}');
  const { admin } = JSON.parse(await host.readFile('/var/lib/bornemisza/db/secrets.json')) as {
    admin: { user: string; password: string };
  };
  authorization = `Basic ${Buffer.from(`${admin.user}:${admin.password}`).toString('base64')}`;
});
t.teardown(() => cluster?.close());

/** Waits until HAProxy has raised each server's load to the full (`slowstart 5s`), which it counts as a change. */
async function warm(): Promise<void> {
  await until(
    async () => {
      const servers = await Promise.all(all.map((instance) => carrying(cluster, instance)));
      return servers.flat().every(({ changedSecondsAgo }) => changedSecondsAgo >= 7);
    },
    { deadlineMs: PATIENCE_MS, what: 'every server at its full load' },
  );
}

/** Why HAProxy took servers out, of all its life: `SERVER` and the reason, e.g. `Layer7 timeout`. */
async function takenOut({ host, role }: Instance): Promise<{ server: string; reason: string }[]> {
  const said = await host.journalEntries(`bornemisza-haproxy@${role}.service`);
  return said.flatMap(({ MESSAGE }) => {
    const [, server = '', reason = ''] = /Server (\S+) is DOWN, reason: ([^,.]+)/.exec(`${MESSAGE}`) ?? [];
    return server === '' ? [] : [{ server, reason }];
  });
}

/** Requests to both tiers while something happens, and what the programs say of the time since just before. */
async function underLoad(act: () => Promise<void>) {
  const { client, router } = cluster.lab;
  const { host } = app1;
  const over = '/run/load-is-over';
  await host.must(['rm', '-f', over]);
  const load = client.startLoad({
    url: `https://${FLOATING}/`,
    ratePerSecond: SITE_PER_SECOND,
    sources: 16,
    connectionsPerSource: 2,
    timeoutMs: 10_000,
  });
  const node = ['/usr/libexec/bornemisza/node', '-e', DATABASE_LOAD, authorization, over];
  const reads = host.must(node, { timeoutMs: 330_000 });
  reads.catch(() => undefined);
  const before = await stateOfAll();
  const changes = router.history(FLOATING).length;
  try {
    await act();
  } finally {
    await host.must(['touch', over]);
  }
  const site = await load.stop();
  const database = JSON.parse(await reads) as { asked: number; seen: Record<string, number> };
  const after = await stateOfAll();
  return { site, database, before, after, moved: router.history(FLOATING).slice(changes) };
}

/** The processes that serve, BIRD's configuration, and each server's record of how often and when it changed. */
async function stateOfAll() {
  const atMs = performance.now();
  const states = await Promise.all(
    all.map(async (instance) => ({
      name: instance.name,
      programs: await programs(instance),
      bird: await birdConfigured(instance),
      servers: await carrying(cluster, instance),
      outs: await takenOut(instance),
    })),
  );
  return { atMs, states };
}

/** Entries of a daemon that changed something which carries requests. */
async function meddling(instance: Instance, afterId: number): Promise<string[]> {
  const entries = (await cluster.audit(instance)).filter(
    ({ id, kind, changes }) => id > afterId && kind === 'change' && changes !== undefined,
  );
  // The second checks of unwatched members, and the line of the file that says that they are on, carry nothing.
  const harmless = /^\S+\.(unwatched|panic|watch)\/\S+: |^haproxy\.cfg: rewritten/;
  return entries
    .filter(({ changes = [] }) => changes.some((change) => !harmless.test(change)))
    .map((entry) => `${instance.name}: ${inOneLine(entry)}`);
}

async function judge(t: Test, result: Awaited<ReturnType<typeof underLoad>>, ends: readonly number[]) {
  const { site, database, before, after } = result;
  const seconds = (after.atMs - before.atMs) / 1000;
  t.comment(`${seconds.toFixed(1)} s, load of the machine ${loadavg()[0]?.toFixed(1)}`);
  t.comment(`site ${JSON.stringify(site)}`);
  t.comment(`databases ${JSON.stringify(database)}`);
  t.strictSame(site.byError, {}, 'every request to the site was answered');
  t.strictSame(site.byStatus, { 200: site.requests }, 'and well');
  t.strictSame(database.seen, { 200: database.asked }, 'every request to a database was answered well');
  // How fast a shared machine asks is not judged; that it asked all the while is.
  t.ok(site.requests >= 0.1 * SITE_PER_SECOND * seconds, `${site.requests} requests to the site`);
  t.ok(database.asked >= 0.1 * DATABASE_PER_SECOND * seconds, `${database.asked} requests to a database`);
  t.strictSame(result.moved, [], 'the provider’s route did not change');
  let starved = false;
  for (const [index, { name, servers, outs, ...was }] of before.states.entries()) {
    const {
      servers: serversNow,
      outs: outsNow,
      ...now
    } = after.states[index] ?? { servers: [], outs: [], bird: '' };
    // BIRD counts its times back from now with each answer, and is a millisecond off now and then.
    const birdNow = sameWithin(was.bird, now.bird, 100) ? was.bird : now.bird;
    t.strictSame(
      { ...now, bird: birdNow },
      { name, ...was },
      `${name}: the same processes, no reload, nothing reconfigured`,
    );
    const changed = servers.flatMap((before) => {
      const after = serversNow.find(({ server }) => server === before.server);
      const same =
        after !== undefined &&
        wordOf(after.status) === wordOf(before.status) &&
        after.downs === before.downs &&
        // Whatever it may have been in between, HAProxy keeps when it last changed; in whole seconds.
        after.changedSecondsAgo >= Math.floor(seconds) - 1;
      if (same) return [];
      // A machine that stands still lets a check run out of time, and its server comes back: no daemon's doing.
      const reasons = outsNow.slice(outs.length).filter(({ server }) => server === before.server);
      const late = reasons.length > 0 && reasons.every(({ reason }) => reason.includes('timeout'));
      if (late && after !== undefined && wordOf(after.status) === wordOf(before.status)) {
        t.comment(`${name}: ${before.server} was out by ${reasons.map(({ reason }) => reason).join(', ')}`);
        starved = true;
        return [];
      }
      return [{ before, after, reasons }];
    });
    t.strictSame(changed, [], `${name}: no server was taken out, not even for a moment`);
    t.equal(serversNow.length, servers.length, `${name}: and none came`);
  }
  const changed = await Promise.all(all.map((instance, index) => meddling(instance, ends[index] ?? 0)));
  // What follows from a check that ran out of time is right as well.
  if (starved) t.comment(`on a machine that stood still: ${changed.flat().join('\n')}`);
  else t.strictSame(changed.flat(), [], 'what was right was left alone');
}

const TIME = /(\d\d):(\d\d):(\d\d\.\d+)/g;

/** Whether two texts differ in nothing but times of day, and in those by so little. */
function sameWithin(one: string, other: string, withinMs: number): boolean {
  const times = (text: string): number[] =>
    [...text.matchAll(TIME)].map(([, hours, minutes, seconds]) =>
      Math.round((Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1000),
    );
  const others = times(other);
  return (
    one.replaceAll(TIME, '') === other.replaceAll(TIME, '') &&
    times(one).every((ms, index) => Math.abs(ms - (others[index] ?? Number.NaN)) <= withinMs)
  );
}

const ends = (): Promise<number[]> => Promise.all(all.map((instance) => trailEnd(cluster, instance)));

t.test('kill -9 of one daemon, then of another: each rejoins, and nobody has noticed', async (t) => {
  const from = await ends();
  const result = await underLoad(async () => {
    for (const name of ['app2', 'db1']) {
      const { host, ...victim } = cluster.instance(name);
      const unit = daemonOf({ host, ...victim });
      const { restarts } = await host.unit(unit);
      await host.kill(unit, 'SIGKILL');
      await host.waitForUnit(unit, (now) => now.restarts > restarts && now.active === 'active', PATIENCE_MS);
      await allUp(cluster, CALM_MS);
    }
  });
  await judge(t, result, from);
});

t.test(
  'kill -9 of all daemons at once, for good: everything serves on, and they come back to it',
  async (t) => {
    const from = await ends();
    const result = await underLoad(async () => {
      await Promise.all(all.map(killDaemon));
      const deadMs = performance.now();
      await until(() => performance.now() - deadMs >= DEAD_MS, { deadlineMs: 2 * DEAD_MS, everyMs: 100 });
      const units = await Promise.all(all.map((each) => each.host.unit(daemonOf(each))));
      t.strictSame(
        units.map(({ mainPid }) => mainPid),
        all.map(() => 0),
        'no daemon runs',
      );
      t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app1', 'app2']);
      const { all_nodes: nodes } = await cluster.couchMembership(cluster.instance('db1'));
      t.equal(nodes.length, 2, 'CouchDB is whole');
      await Promise.all(all.map(reviveDaemon));
      await allUp(cluster, CALM_MS);
    });
    await judge(t, result, from);
  },
);
