import t from 'tap';
import { Cluster } from '../lab/cluster.ts';
import { until } from '../support/until.ts';

/** Two of three edges come back at one moment: the provider's router gets their routes one after the other. */

const FLOATING = '203.0.113.10';
const PATIENCE_MS = 180_000;
/** Between the returns, less what the provider's BIRD and a busy machine may take from it. */
const APART_MS = 4_000;

t.setTimeout(2_300_000);
const cluster = await Cluster.create({ app: 3 });
t.teardown(() => cluster.close());

t.test('edges that come back at one moment are announced one after the other', async (t) => {
  const { router } = cluster.lab;
  const [app1, app2, app3] = cluster.instancesOf('app');
  if (app1 === undefined || app2 === undefined || app3 === undefined) throw new Error('a node is missing');
  await cluster.settled(PATIENCE_MS);
  await router.waitForAnnouncers(FLOATING, ['app1', 'app2', 'app3'], PATIENCE_MS);
  for (const app of [app2, app3]) await app.host.must(['bornemisza', 'maintenance', 'on']);
  await router.waitForAnnouncers(FLOATING, ['app1'], PATIENCE_MS);
  const before = router.history(FLOATING).length;
  const seen: string[] = [];
  const back = Promise.all([app2, app3].map((app) => app.host.must(['bornemisza', 'maintenance', 'off'])));
  await until(
    async () => {
      for (const app of [app2, app3]) {
        const { plugins } = await cluster.status(app);
        seen.push(plugins.find(({ name }) => name === 'bird')?.seen ?? '');
      }
      return (await router.announcers(FLOATING)).length === 3;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'all three announced' },
  );
  await back;
  const changes = router.history(FLOATING).slice(before);
  t.same(
    changes.map(({ hosts }) => hosts.length),
    [2, 3],
    'one, and then the other',
  );
  const [first, second] = changes;
  const apartMs = (second?.atMs ?? 0) - (first?.atMs ?? 0);
  t.ok(apartMs >= APART_MS, `${Math.round(apartMs)} ms apart`);
  t.ok(
    seen.some((words) => /^not announced yet: app[23]\/app began less than 5 s ago$/.test(words)),
    `status of the later one says why it waits: ${[...new Set(seen)].join(' | ')}`,
  );
});
