import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { mapOf } from './couchdb-checker.ts';
import { Cluster, type Node } from './couchdb-cluster.ts';

// A loaded machine and a real CouchDB: joins under load wait for CouchDB's own sync, some 5 s a round.
t.setTimeout(2_300_000);

/** Between two databases that are made: shorter than a look, so that each look finds a new one. */
const EVERY_MS = 150;
const BEFORE = 20;

/** Makes databases one after the other and deletes every second one, until it is stopped. */
function churn(node: Node) {
  const made: string[] = [];
  const stopping = new AbortController();
  const ended = (async () => {
    for (let number = 0; !stopping.signal.aborted; number += 1) {
      const name = `made-${number}`;
      const { status } = await node.ask('PUT', name, undefined, 60_000);
      if (status !== 201 && status !== 202) continue;
      if (number % 2 === 1) await node.ask('DELETE', name, undefined, 60_000);
      else made.push(name);
      await delay(EVERY_MS);
    }
  })();
  return {
    made,
    async stop() {
      stopping.abort();
      await ended;
    },
  };
}

t.test('a join ends while databases are made and deleted all the time', async (t) => {
  const cluster = await Cluster.make();
  t.teardown(() => cluster.close());
  const first = await cluster.add();
  await cluster.serving([first]);
  const before = Array.from({ length: BEFORE }, (_, number) => `before-${number}`);
  for (const name of before) t.equal((await first.ask('PUT', name)).status, 201);
  const making = churn(first);
  t.teardown(() => making.stop());

  const second = await cluster.add();
  const tookMs = await cluster.until('it serves', () => second.plugin.known().phase === 'serving');
  t.comment(`serves after ${Math.round(tookMs)} ms, ${making.made.length} databases made meanwhile`);
  for (const name of before)
    t.equal(Object.keys((await mapOf(first, name)).by_node).length, 2, 'what was there has two copies');
  const { length: madeBefore } = making.made;
  await cluster.until('more are made', () => making.made.length > madeBefore + 3);
  await making.stop();

  await cluster.serving([first, second]);
  for (const name of making.made)
    t.equal(Object.keys((await mapOf(first, name)).by_node).length, 2, `${name} has two copies`);
});
