import t, { type Test } from 'tap';
import { Cluster, type ClusterOptions } from '../lab/cluster.ts';
import { allUp, PATIENCE_MS, serving } from '../integration/cluster-bed.ts';

/** The smallest clusters: everything serves, although each role has one node only. */
t.setTimeout(2_300_000);

const FLOATING = '203.0.113.10';

/**
 * Judged from outside: the site through the floating IP, CouchDB through the app role’s listener, HAProxy’s own word.
 */
async function everythingServes(t: Test, cluster: Cluster): Promise<void> {
  await allUp(cluster);
  const [app] = cluster.instancesOf('app');
  const [db] = cluster.instancesOf('db');
  if (app === undefined || db === undefined) throw new Error('a node is missing');
  await cluster.lab.router.waitForAnnouncers(FLOATING, [app.host.name], PATIENCE_MS);

  const page = await cluster.lab.client.request({ url: `https://${FLOATING}/` });
  t.equal(page.status, 200);
  t.match(page.body, `served by ${app.host.name}`);
  const plain = await cluster.lab.client.request({ url: `http://${FLOATING}/` });
  t.equal(plain.status, 308);

  t.strictSame(await serving(cluster, app), {
    [`db_nodes/${db.host.name}`]: 'UP',
    'local_site/_local': 'UP',
    [`svc_site/${app.host.name}`]: 'UP',
  });
  t.strictSame(await serving(cluster, db), {
    'couchdb/_local': 'UP',
    'couchdb_local/_local': 'UP',
    // The switch for creating and deleting databases has no check.
    'permissions/databases': 'no',
  });

  const node = `couchdb@${db.host.privateAddress}`;
  t.match(await cluster.couchMembership(db), { all_nodes: [node], cluster_nodes: [node] });
  // A document goes in through the app node's listener, and is there when CouchDB itself is asked.
  t.match(JSON.parse(await cluster.couch(db.host, '/small', 'PUT')), { ok: true });
  const listener = ['curl', '-sS', '--max-time', '10', 'http://127.0.0.1:5984/_up'];
  t.match(JSON.parse(await app.host.must(listener)), { status: 'ok' });
  t.match(JSON.parse(await cluster.couch(db.host, '/small')), { db_name: 'small' });
}

async function clusterOf(t: Test, options: ClusterOptions): Promise<Cluster> {
  const cluster = await Cluster.create(options);
  t.teardown(() => cluster.close());
  return cluster;
}

t.test('one host with both roles serves everything, and its two daemons are two members', async (t) => {
  const cluster = await clusterOf(t, { both: 1 });
  await everythingServes(t, cluster);
  const [app, db] = [cluster.instance('both1/app'), cluster.instance('both1/db')];
  const names = (await cluster.members(app)).map(({ name, state }) => `${name} ${state}`);
  t.strictSame(names, ['both1/app alive', 'both1/db alive']);

  // The last of a role is the last of a role, whatever else runs beside it.
  for (const { host, role } of [app, db]) {
    const { code } = await host.exec(['bornemisza', 'maintenance', 'on', '--role', role]);
    t.equal(code, 5, role);
  }
  // A command that does not say which daemon it means is asked back.
  const unclear = await app.host.exec(['bornemisza', 'maintenance', 'on']);
  t.not(unclear.code, 0);
  t.match(unclear.stderr, /--role/);

  await app.host.reboot();
  await everythingServesAgain(cluster);
  t.equal((await cluster.lab.client.request({ url: `https://${FLOATING}/` })).status, 200, 'after a reboot');
  t.match(JSON.parse(await cluster.couch(db.host, '/small')), { db_name: 'small' });
});

async function everythingServesAgain(cluster: Cluster): Promise<void> {
  await allUp(cluster);
  await cluster.lab.router.waitForAnnouncers(FLOATING, ['both1'], PATIENCE_MS);
}

t.test('one app and one db node are a cluster', async (t) => {
  await everythingServes(t, await clusterOf(t, { app: 1, db: 1 }));
});
