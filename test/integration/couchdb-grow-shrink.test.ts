import t from 'tap';
import { Checker, copiesOf, mapOf, underReplicated } from './couchdb-checker.ts';
import { Cluster, type Node } from './couchdb-cluster.ts';
import { Users } from './couchdb-users.ts';

// A loaded machine and a real CouchDB: joins under load wait for CouchDB's own sync, some 5 s a round.
t.setTimeout(2_300_000);

const security = { admins: { names: [], roles: ['_admin'] }, members: { names: ['alice'], roles: [] } };

async function memberNames(node: Node): Promise<unknown> {
  return (await node.ask('GET', '_membership')).body;
}

t.test('a cluster grows from one node to three and shrinks to two while clients write', async (t) => {
  const cluster = await Cluster.make();
  t.teardown(() => cluster.close());
  const first = await cluster.add();
  await cluster.serving([first]);
  t.same(
    ((await first.ask('GET', '_all_dbs')).body as string[]).filter((name) => !name.startsWith('userdb-')),
    ['_global_changes', '_replicator', '_users'],
    'a cluster of one has its system databases',
  );

  await first.ask('PUT', 'app');
  await first.ask('PUT', 'app/_security', security);
  await first.ask('PUT', 'app/_revs_limit', 77);
  const before: string[] = [];
  for (let number = 0; number < 200; number += 1) {
    const id = `before-${number}`;
    t.equal((await first.ask('PUT', `app/${id}`, { number })).status, 201);
    before.push(id);
  }
  const checker = new Checker(cluster, 'app', before);
  t.teardown(() => checker.stop());
  const users = new Users(cluster);
  t.teardown(() => users.stop());

  const second = await cluster.add();
  t.comment(`second serves after ${Math.round(await cluster.serving([first, second]))} ms`);
  const third = await cluster.add();
  t.comment(`third serves after ${Math.round(await cluster.serving([first, second, third]))} ms`);

  await t.test('every range has three copies, with _security and _revs_limit kept', async (t) => {
    for (const database of ['app', '_users', '_replicator', '_global_changes']) {
      for (const holders of Object.values((await mapOf(second, database)).by_range))
        t.equal(holders.length, 3, database);
    }
    for (const copies of (await copiesOf(third, 'app', '/_security')).values()) {
      t.equal(copies.length, 3);
      for (const copy of copies) t.same(copy, security);
    }
    for (const copies of (await copiesOf(third, 'app', '/_revs_limit')).values())
      t.same(copies, [77, 77, 77]);
  });

  await t.test('a new database uses all three', async (t) => {
    t.match((await third.ask('PUT', 'later')).status, 201);
    t.equal(Object.keys((await mapOf(first, 'later')).by_node).length, 3);
  });

  await t.test('one leaves: nothing is lost, nobody names it any more', async (t) => {
    second.phase = 'leaving';
    const tookMs = await cluster.until('it has left', () => second.plugin.known().phase === 'left');
    t.comment(`left after ${Math.round(tookMs)} ms`);
    await cluster.serving([first, third]);
    const names = [first.nodeName, third.nodeName];
    for (const node of [first, third]) t.match(await memberNames(node), { cluster_nodes: names });
    for (const database of ['app', 'later', '_users']) {
      t.same(Object.keys((await mapOf(first, database)).by_node).sort(), names, database);
    }
    await second.stop();
  });

  await t.test(
    'everybody who registered meanwhile has a database of the own, who went has none',
    async (t) => {
      await users.stop();
      t.ok(users.stay.length > 10, `${users.stay.length} people`);
      await cluster.serving([first, third]);
      for (const node of [first, third]) t.same(await users.wrongOn(node, 2), [], node.address);
    },
  );

  const verdict = await checker.stop();
  t.comment(JSON.stringify({ ...verdict, wrongReads: verdict.wrongReads.length }));
  t.ok(verdict.acknowledged > before.length + 100, 'the writers wrote');
  t.ok(verdict.reads > 100, 'the readers read');
  t.same(verdict.wrongReads, [], 'no read was wrong');
  for (const node of [first, third])
    t.same(await checker.lostOn(node), [], `every acknowledged document is there through ${node.address}`);
  await cluster.until('all copies to be equal', async () => (await underReplicated(first, 'app', 2)) === 0);
  t.pass('each range has two copies, which are equal');
});
