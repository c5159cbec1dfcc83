import * as fc from 'fast-check';
import t from 'tap';
import {
  checkpointId,
  copyPath,
  holdersOf,
  lastCopies,
  loadOf,
  rangesOf,
  rangesOn,
  rangesToAdd,
  type ShardMap,
  unionOf,
  withHolder,
  withoutHolder,
} from '../../../src/plugins/couchdb/shards.ts';
import { map, node } from './scene.ts';

/** CouchDB answers 403 to a map where the two do not say the same. */
function consistent(one: ShardMap): boolean {
  const byRange = rangesOf(one).flatMap((range) =>
    holdersOf(one, range).map((holder) => `${holder} ${range}`),
  );
  const byNode = Object.keys(one.by_node).flatMap((holder) =>
    rangesOn(one, holder).map((range) => `${holder} ${range}`),
  );
  return byRange.sort().join() === byNode.sort().join();
}

const holders = fc.uniqueArray(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 });

t.test('by_node and by_range always say the same', async (t) => {
  fc.assert(
    fc.property(
      holders,
      fc.integer({ min: 1, max: 5 }),
      fc.subarray(['00000000-7fffffff', '80000000-ffffffff']),
      (first, added, ranges) => {
        const grown = withHolder(map('app', first), node(added), ranges);
        if (!consistent(grown)) return false;
        const others = Object.keys(grown.by_node).filter(
          (holder) => lastCopies([grown], [holder]).length === 0,
        );
        return others.every((holder) => {
          const shrunk = withoutHolder(grown, holder);
          return consistent(shrunk) && shrunk.by_node[holder] === undefined;
        });
      },
    ),
  );
  t.pass();
});

t.test('a last copy is never taken out of a map', async (t) => {
  t.throws(() => withoutHolder(map('app', [1]), node(1)), /the last copy is on couchdb@10.0.0.1/);
  t.same(lastCopies([map('a', [1]), map('b', [1, 2]), map('c', [1, 3])], [node(1), node(3)]), ['a', 'c']);
});

t.test('the union of two maps has every holder of both', async (t) => {
  fc.assert(
    fc.property(holders, holders, (a, b) => {
      const union = unionOf(map('app', a), [map('app', b)]);
      const all = [...new Set([...a, ...b])].map(node).sort().join();
      return (
        consistent(union) &&
        rangesOf(union).every((range) => [...holdersOf(union, range)].sort().join() === all)
      );
    }),
  );
  t.pass();
});

t.test('all nodes together add just what is missing, and nothing twice', async (t) => {
  fc.assert(
    fc.property(
      holders,
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 4 }),
      (present, nodes, n) => {
        const eligible = Array.from({ length: nodes }, (_, index) => node(index + 1));
        const one = map('app', present);
        const load = loadOf([one]);
        return rangesOf(one).every((range) => {
          const had = holdersOf(one, range).filter((holder) => eligible.includes(holder)).length;
          const added = eligible.filter((target) =>
            rangesToAdd(one, target, eligible, n, load).includes(range),
          );
          return (
            added.length === Math.max(0, Math.min(n, nodes) - had) &&
            added.every((target) => !holdersOf(one, range).includes(target))
          );
        });
      },
    ),
  );
  t.pass();
});

t.test('a copy’s name is one path segment', async (t) => {
  t.equal(copyPath(map('app', [1]), '00000000-7fffffff'), 'shards%2F00000000-7fffffff%2Fapp.1700000000');
  t.equal(
    copyPath(map('a/b+c', [1]), '00000000-7fffffff'),
    'shards%2F00000000-7fffffff%2Fa%2Fb%2Bc.1700000000',
  );
});

t.test('the checkpoint’s id is the one that a real CouchDB 3.5.0 used', async (t) => {
  t.equal(
    checkpointId('7ed169ab565454d71fcabffa42e8f46b', 'd37210ff6697abaa8d5cdb98eb285983'),
    '_local/shard-sync-0lcLeFK7OB2TtEuB4hLn9A-DyrS0AyX8qkICUE0Ds2ODg',
  );
});
