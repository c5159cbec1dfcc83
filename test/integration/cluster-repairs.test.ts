import t from 'tap';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import {
  allUp,
  haproxyOf,
  inOneLine,
  nextEntry,
  PATIENCE_MS,
  serving,
  slackMs,
  trailEnd,
} from './cluster-bed.ts';

/** Whatever is done by hand to what the daemon owns is put back, and the audit trail says so. */
t.setTimeout(2_300_000);

const FLOATING = '203.0.113.10';
const CONFIG = '/var/lib/bornemisza/haproxy/app/haproxy.cfg';
/** What is watched is repaired within two seconds, the rest with the next resync. */
const WATCHED_MS = 2000;
const RESYNC_MS = 33_000;
let cluster: Cluster;
let app1: Instance;

t.before(async () => {
  cluster = await Cluster.create({ app: 2, db: 2 });
  app1 = cluster.instance('app1');
  await allUp(cluster);
  await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1', 'app2'], PATIENCE_MS);
});
t.teardown(() => cluster?.close());

const shell = (script: string): Promise<string> => app1.host.must(['sh', '-c', script]);

interface Repair {
  readonly what: string;
  readonly damage: () => Promise<unknown>;
  /** What the entry in the audit trail says was put back. */
  readonly says: RegExp;
  readonly withinMs: number;
}

const REPAIRS: readonly Repair[] = [
  {
    what: 'a line of haproxy.cfg changed by hand',
    damage: () => shell(`sed -i 's/maxconn 8000/maxconn 7/' ${CONFIG} && grep -q 'maxconn 7' ${CONFIG}`),
    says: /haproxy\.cfg: rewritten/,
    withinMs: RESYNC_MS,
  },
  {
    what: 'haproxy.cfg replaced by a file that the daemon may not read',
    damage: () => shell(`echo global >/tmp/other && chmod 600 /tmp/other && mv /tmp/other ${CONFIG}`),
    says: /haproxy\.cfg: (re)?written/,
    withinMs: RESYNC_MS,
  },
  {
    what: 'haproxy.cfg removed',
    damage: () => shell(`rm ${CONFIG}`),
    says: /haproxy\.cfg: (re)?written/,
    withinMs: RESYNC_MS,
  },
  {
    what: '`set server … state maint` over HAProxy’s socket',
    damage: () => cluster.haproxy(app1, 'set server db_nodes/db1 state maint'),
    says: /db_nodes\/db1: maint → ready/,
    withinMs: WATCHED_MS,
  },
  {
    what: '`del server` over HAProxy’s socket',
    damage: () =>
      until(
        async () => {
          // Refused while a request is under way there.
          const [, said] = (
            await cluster.haproxy(
              app1,
              'set server db_nodes/db1 state maint; shutdown sessions server db_nodes/db1; del server db_nodes/db1',
            )
          ).split(/(?=Server)/);
          if (said?.startsWith('Server deleted') !== true) throw new Error(said);
          return true;
        },
        { deadlineMs: PATIENCE_MS, what: 'db_nodes/db1 deleted' },
      ),
    says: /db_nodes\/db1: added as ready/,
    withinMs: WATCHED_MS,
  },
  {
    what: '`disable frontend` over HAProxy’s socket',
    damage: () => cluster.haproxy(app1, 'disable frontend databases'),
    says: /frontend databases: closed → open/,
    withinMs: WATCHED_MS,
  },
  {
    what: '`ip addr del` of the floating IP',
    damage: () => shell(`ip addr del ${FLOATING}/32 dev bm-float`),
    says: /203\.0\.113\.10\/32: added to bm-float/,
    withinMs: WATCHED_MS,
  },
  {
    what: '`birdc disable` of the announcement',
    damage: () => shell('birdc disable bornemisza_floating'),
    says: /floating IPs: announced/,
    withinMs: WATCHED_MS,
  },
  {
    what: 'BIRD killed',
    damage: () => app1.host.kill('bird.service', 'SIGKILL'),
    says: /bird is correct again/,
    withinMs: RESYNC_MS,
  },
  {
    what: 'HAProxy killed',
    damage: () => app1.host.kill(haproxyOf(app1), 'SIGKILL'),
    // systemd may have it back before the daemon looks, which then says what it was that began again.
    says: /haproxy is correct again|\[.*HAProxy was restarted/,
    withinMs: RESYNC_MS,
  },
];

for (const { what, damage, says, withinMs } of REPAIRS) {
  t.test(`${what} is repaired, and the audit trail has it`, async (t) => {
    const before = { config: await shell(`cat ${CONFIG}`), serving: await serving(cluster, app1) };
    const end = await trailEnd(cluster, app1);
    await damage();
    const damagedMs = Date.now();
    const entry = await nextEntry(
      cluster,
      app1,
      end,
      (each) => each.kind === 'change' && each.result === 'ok' && says.test(inOneLine(each)),
    );
    const tookMs = Date.parse(entry.at) - damagedMs;
    t.comment(`${what}: ${tookMs} ms; ${inOneLine(entry)}`);
    t.not(entry.trigger, '', 'says what set it off');
    t.ok(tookMs <= withinMs + (await slackMs(app1.host)), `after ${tookMs} ms`);
    t.match(await shell(`stat -c '%U:%G %a' ${CONFIG}`), 'bornemisza:bornemisza-haproxy 640');
    t.match(await shell('ip -br addr show dev bm-float'), `${FLOATING}/32`);
    await until(
      async () => {
        const now = { config: await shell(`cat ${CONFIG}`), serving: await serving(cluster, app1) };
        if (JSON.stringify(now) !== JSON.stringify(before)) throw new Error(JSON.stringify(now));
        return true;
      },
      { deadlineMs: PATIENCE_MS, everyMs: 100, what: 'HAProxy’s file and servers as before' },
    );
    await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1', 'app2'], PATIENCE_MS);
    await allUp(cluster);
  });
}
