import { crc32 } from 'node:zlib';
import t from 'tap';
import { type MapBody, mapOf } from './couchdb-checker.ts';
import { Cluster, type Node } from './couchdb-cluster.ts';

// A loaded machine and a real CouchDB: joins under load wait for CouchDB's own sync, some 5 s a round.
t.setTimeout(2_300_000);

/** The revisions that lost against this one. */
function losersOf({ _conflicts: losers }: MapBody): readonly string[] {
  return losers ?? [];
}

function only(map: MapBody, holder: string, suffix = map.shard_suffix) {
  const ranges = Object.keys(map.by_range);
  return {
    shard_suffix: suffix,
    changelog: ranges.map((range) => ['add', range, holder]),
    by_node: { [holder]: ranges },
    by_range: Object.fromEntries(ranges.map((range) => [range, [holder]])),
  };
}

/** A document of the lower range: CouchDB's internal sync passes by what is outside the range of its copy. */
function lowId(): string {
  for (let number = 0; ; number += 1) if (crc32(`hidden${number}`) < 0x8000_0000) return `hidden${number}`;
}

/** Two writers at the same moment through two nodes: both are answered 201, and one revision loses. */
async function atOnce(writes: readonly [Node, string, unknown][]): Promise<number[]> {
  const answers = await Promise.all(writes.map(([node, path, body]) => node.ask('PUT', path, body)));
  return answers.map((answer) => answer.status);
}

t.test('shard maps with two revisions', async (t) => {
  const cluster = await Cluster.make();
  t.teardown(() => cluster.close());
  const first = await cluster.add();
  await cluster.serving([first]);
  const second = await cluster.add();
  await cluster.serving([first, second]);
  const stop = (): void => {
    for (const node of [first, second]) node.alive = false;
  };
  const go = (): void => {
    for (const node of [first, second]) node.alive = true;
  };

  await t.test('edited on both sides: all holders of both, no document lost', async (t) => {
    let met = false;
    for (let attempt = 0; attempt < 10 && !met; attempt += 1) {
      const database = `edited${attempt}`;
      stop();
      await first.ask('PUT', database);
      for (let number = 0; number < 20; number += 1)
        await first.ask('PUT', `${database}/d${number}`, { number });
      const map = await mapOf(first, database);
      const path = `_node/_local/_dbs/${database}`;
      const { _rev: rev } = map;
      const [a, b] = [first, second].map((node) => ({
        _id: database,
        _rev: rev,
        ...only(map, node.nodeName),
      }));
      const statuses = await atOnce([
        [first, path, a],
        [second, path, b],
      ]);
      if (statuses.every((status) => status === 201)) {
        await cluster.until(
          'the conflict to be seen',
          async () => losersOf(await mapOf(first, database)).length > 0,
        );
        met = true;
      }
      go();
      await cluster.serving([first, second]);
      if (!met) continue;
      for (const node of [first, second]) {
        const healed = await mapOf(node, database);
        t.same(losersOf(healed), []);
        t.same(Object.keys(healed.by_node).sort(), [first.nodeName, second.nodeName]);
        for (let number = 0; number < 20; number += 1)
          t.equal((await node.ask('GET', `${database}/d${number}`)).status, 200);
      }
      t.ok(first.applied.some((text) => text.startsWith(`${database}: repair`)));
    }
    t.ok(met, 'a conflict came about');
  });

  await t.test('created twice, one without documents: the one with documents stays', async (t) => {
    let met = false;
    for (let attempt = 0; attempt < 10 && !met; attempt += 1) {
      const database = `twin${attempt}`;
      stop();
      const path = `_node/_local/_dbs/${database}`;
      const pattern = await mapOf(first, '_users');
      const suffixes = ['.1700000001', '.1700000002'].map((text) =>
        [...text].map((letter) => letter.charCodeAt(0)),
      );
      const bodies = [first, second].map((node, side) => ({
        _id: database,
        ...only(pattern, node.nodeName, suffixes[side]),
      }));
      const statuses = await atOnce([
        [first, path, bodies[0]],
        [second, path, bodies[1]],
      ]);
      if (statuses.every((status) => status === 201)) {
        await cluster.until(
          'the conflict to be seen',
          async () => losersOf(await mapOf(first, database)).length > 0,
        );
        const winner = await mapOf(first, database);
        // Documents into the losing one, past its map: files of a database that the map no longer shows.
        const lost =
          String.fromCharCode(...winner.shard_suffix) === '.1700000001' ? '.1700000002' : '.1700000001';
        const holder = lost === '.1700000001' ? first : second;
        const copy = encodeURIComponent(`shards/00000000-7fffffff/${database}${lost}`);
        const made = await holder.ask('PUT', `_node/_local/${copy}/${lowId()}`, { here: true });
        t.equal(made.status, 201);
        met = true;
        go();
        await cluster.serving([first, second]);
        const healed = await mapOf(second, database);
        t.same(losersOf(healed), []);
        t.equal(String.fromCharCode(...healed.shard_suffix), lost, 'the one with the document rules');
      } else {
        go();
      }
    }
    t.ok(met, 'a conflict came about');
  });
});
