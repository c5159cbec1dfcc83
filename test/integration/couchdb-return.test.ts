import t from 'tap';
import { Checker } from './couchdb-checker.ts';
import { Cluster, type Node } from './couchdb-cluster.ts';
import { Users } from './couchdb-users.ts';

// A loaded machine and a real CouchDB: joins under load wait for CouchDB's own sync, some 5 s a round.
t.setTimeout(2_300_000);

const security = { admins: { names: [], roles: ['_admin'] }, members: { names: ['alice'], roles: [] } };

async function clusterOf(
  count: number,
  t: { teardown(end: () => Promise<void>): void },
): Promise<{ cluster: Cluster; nodes: Node[] }> {
  const cluster = await Cluster.make();
  t.teardown(() => cluster.close());
  const nodes: Node[] = [];
  for (let number = 0; number < count; number += 1) {
    nodes.push(await cluster.add());
    await cluster.serving(nodes);
  }
  return { cluster, nodes };
}

async function fill(node: Node, database: string, prefix: string, count: number): Promise<string[]> {
  const docs = Array.from({ length: count }, (_, number) => ({ _id: `${prefix}-${number}`, number }));
  const { status } = await node.ask('POST', `${database}/_bulk_docs`, { docs });
  if (status !== 201 && status !== 202) throw new Error(`_bulk_docs answered ${status}`);
  return docs.map(({ _id: id }) => id);
}

async function countThrough(node: Node, database: string): Promise<number> {
  return ((await node.ask('GET', database)).body as { doc_count: number }).doc_count;
}

t.test('nodes that come back', async (t) => {
  const { cluster, nodes } = await clusterOf(3, t);
  const [first, second, third] = nodes as [Node, Node, Node];
  await first.ask('PUT', 'app');
  await first.ask('PUT', 'app/_security', security);
  await first.ask('PUT', 'app/_revs_limit', 77);
  const known = await fill(first, 'app', 'before', 500);
  const users = new Users(cluster);
  t.teardown(() => users.stop());

  await t.test('after an absence it serves only when it has caught up', async (t) => {
    await third.stop();
    known.push(...(await fill(first, 'app', 'meanwhile', 3000)));
    const checker = new Checker(cluster, 'app', known);
    t.teardown(() => checker.stop());
    await third.start();
    t.comment(`serves again after ${Math.round(await cluster.serving(nodes))} ms`);
    const verdict = await checker.stop();
    t.same(verdict.wrongReads, []);
    t.same(await checker.lostOn(third), []);
    t.ok(
      third.applied.some((text) => text.includes('databases are complete here')),
      'it proved its copies',
    );
  });

  await t.test('with its data gone it is filled again, _security and _revs_limit included', async (t) => {
    await third.stop('SIGKILL');
    await third.wipe();
    const checker = new Checker(cluster, 'app', known);
    t.teardown(() => checker.stop());
    await third.start();
    await cluster.until('it knows that its data is gone', () => third.plugin.known().phase !== 'serving');
    t.comment(`serves again after ${Math.round(await cluster.serving(nodes))} ms`);
    const verdict = await checker.stop();
    t.same(verdict.wrongReads, []);
    t.same(await checker.lostOn(third), []);
    t.equal((await third.ask('GET', 'app/_revs_limit')).body, 77);
    const map = (await third.ask('GET', '_node/_local/_dbs/app')).body as {
      shard_suffix: number[];
      by_range: object;
    };
    for (const range of Object.keys(map.by_range)) {
      const copy = encodeURIComponent(`shards/${range}/app${String.fromCharCode(...map.shard_suffix)}`);
      t.same((await third.ask('GET', `_node/_local/${copy}/_security`)).body, security);
    }
  });

  await t.test('all restarted at once: they serve again by themselves', async (t) => {
    await Promise.all(nodes.map((node) => node.stop('SIGKILL')));
    await Promise.all(nodes.map((node) => node.start()));
    t.comment(`all serve after ${Math.round(await cluster.serving(nodes))} ms`);
    for (const node of nodes) t.ok((await countThrough(node, 'app')) >= known.length);
  });

  await t.test('a setting that reaches all together restarts them one at a time', async (t) => {
    const restarts = () => nodes.map((node) => node.pid);
    const before = restarts();
    const checker = new Checker(cluster, 'app', known);
    t.teardown(() => checker.stop());
    let most = 0;
    const order: Node[] = [];
    cluster.settings = { q: 3 };
    await cluster.until('all run with it', () => {
      const down = nodes.filter((node) => node.plugin.known().phase !== 'serving' || !node.running);
      most = Math.max(most, down.length);
      order.push(...down.filter((node) => !order.includes(node)));
      return (
        restarts().every((pid, index) => pid !== undefined && pid !== before[index]) && down.length === 0
      );
    });
    await cluster.serving(nodes);
    const verdict = await checker.stop();
    t.equal(most, 1, 'never two at once');
    t.same(
      order.map(({ address }) => address),
      nodes.map(({ address }) => address),
      'in order of admission',
    );
    t.same(verdict.wrongReads, []);
    t.same(await checker.lostOn(third), []);
  });

  await t.test(
    'everybody who registered meanwhile has a database of the own, who went has none',
    async (t) => {
      await users.stop();
      t.ok(users.stay.length > 10, `${users.stay.length} people`);
      await cluster.serving(nodes);
      for (const node of nodes) t.same(await users.wrongOn(node, 3), [], node.address);
    },
  );

  await t.test('one alone after a full stop serves what it has', async (t) => {
    await Promise.all(nodes.map((node) => node.stop()));
    for (const node of [second, third]) node.alive = false;
    // What its plugin said last was of before the stop.
    await cluster.until('its end is seen', () => first.plugin.known().phase !== 'serving');
    await first.start();
    await cluster.until('the first serves', () => first.plugin.known().phase === 'serving');
    t.ok((await countThrough(first, 'app')) >= known.length);
    for (const node of [second, third]) {
      node.alive = true;
      await node.start();
    }
    await cluster.serving(nodes);
  });

  await t.test('a node that the operator gave up is taken out of the cluster and of every map', async (t) => {
    await third.stop('SIGKILL');
    third.alive = false;
    await cluster.until(
      'the others wait',
      () => first.plugin.known().waiting?.includes('not connected') === true,
    );
    const { body } = await first.ask('GET', '_membership');
    t.match(body, { cluster_nodes: nodes.map((node) => node.nodeName) }, 'silence alone takes nobody out');
    third.phase = 'removed';
    await cluster.serving([first, second]);
    const names = [first.nodeName, second.nodeName];
    t.match((await second.ask('GET', '_membership')).body, { cluster_nodes: names });
    const map = (await second.ask('GET', '_node/_local/_dbs/app')).body as { by_node: object };
    t.same(Object.keys(map.by_node).sort(), names);
    t.equal((await countThrough(second, 'app')) >= known.length, true);
  });
});
