import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { Cluster } from './couchdb-cluster.ts';

// A loaded machine and a real CouchDB: joins under load wait for CouchDB's own sync, some 5 s a round.
t.setTimeout(400_000);

t.test('what is refused, and says what to do next', async (t) => {
  const cluster = await Cluster.make();
  t.teardown(() => cluster.close());
  const first = await cluster.add();
  await cluster.serving([first]);
  await first.ask('PUT', 'app');
  await first.ask('PUT', 'app/kept', { here: true });

  await t.test('a wrong password is tried once, and the right one works at once', async (t) => {
    first.password = 'wrong-password';
    await cluster.until('it is refused', () => first.lastError?.code === 'couchdb-password-refused');
    t.equal(first.lastError?.outcome, 'terminal');
    // Some ten turns of the reconciler: five wrong passwords would lock the account, for the right one too.
    await delay(4000);
    t.equal((await first.ask('GET', '_membership')).status, 200, 'the account is not locked');
    first.password = 'right-password';
    await cluster.serving([first]);
    t.notMatch(JSON.stringify(first.applied), 'wrong-password');
  });

  await t.test('the last node cannot leave', async (t) => {
    first.phase = 'leaving';
    await cluster.until('it is refused', () => first.lastError?.code === 'couchdb-last-node');
    t.match(first.lastError?.message, 'app', 'the databases are named');
    t.equal((await first.ask('GET', 'app/kept')).status, 200);
    first.phase = 'in';
    await cluster.serving([first]);
  });

  await t.test('a joiner with databases of its own is not taken in, until they are gone', async (t) => {
    const second = await cluster.add();
    // It makes a database of its own before anybody takes it in: nobody hears of it meanwhile.
    cluster.hush(second);
    await cluster.until('it runs', () => second.plugin.status().phase === 'fresh');
    t.equal((await second.ask('PUT', 'app')).status, 201, 'the same name as one of the cluster');
    await cluster.until('it is refused', () => second.lastError?.code === 'couchdb-joiner-has-databases');
    cluster.hush(undefined);
    t.match(second.lastError?.message, 'app');
    await cluster.until('the coordinator looked several times', () => second.plugin.status().tag === 'out');
    t.same(((await first.ask('GET', '_membership')).body as { cluster_nodes: string[] }).cluster_nodes, [
      first.nodeName,
    ]);
    t.equal((await first.ask('GET', 'app/kept')).status, 200);

    await second.stop();
    await second.wipe();
    await second.start();
    await cluster.serving([first, second]);
    t.equal((await second.ask('GET', 'app/kept')).status, 200);
  });

  await t.test('a copied disk is refused', async (t) => {
    const [, second] = cluster.nodes;
    if (second === undefined) throw new Error('the second was added');
    await writeFile(
      join(second.directory, 'couch', 'data', 'bornemisza-identity.json'),
      '{"nodeName":"couchdb@127.9.9.9","peerId":"other"}\n',
    );
    await cluster.until('it is refused', () => second.lastError?.code === 'couchdb-foreign-data');
    t.equal(second.lastError?.outcome, 'terminal');
  });
});
