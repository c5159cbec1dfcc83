import t from 'tap';
import { copiesOf, newMap, parseMap, rangeOf, validateMap } from '../../standin/couchdb/cluster/shard_map.ts';

const nodes = ['a@1', 'a@2', 'a@3'];

t.test('copies are dealt out in turn from the node that the rotation names', async (t) => {
  t.same(newMap(nodes, 2, 2, '.1', 1).by_range, {
    '00000000-7fffffff': ['a@1', 'a@2'],
    '80000000-ffffffff': ['a@2', 'a@3'],
  });
  t.same(newMap(nodes, 2, 2, '.1', 0).by_range, {
    '00000000-7fffffff': ['a@2', 'a@3'],
    '80000000-ffffffff': ['a@1', 'a@3'],
  });
});

t.test('with fewer nodes than copies there are fewer copies', async (t) => {
  t.equal(copiesOf(parseMap('db', newMap(['a@1'], 4, 3, '.1', 0))), 1);
  t.throws(() => newMap([], 2, 3, '.1', 0), { code: 'no_nodes_in_zone' });
});

t.test('a document falls in the range that the real one puts it in', async (t) => {
  const map = parseMap('big', newMap(nodes, 2, 3, '.1', 0));
  t.equal(rangeOf(map, 'd000001').range, '00000000-7fffffff');
});

t.test('a map whose two halves disagree is refused, a node that does not exist is not', async (t) => {
  const map = newMap(nodes, 1, 1, '.1', 0) as {
    by_node: Record<string, string[]>;
    by_range: Record<string, string[]>;
  };
  const range = '00000000-ffffffff';
  t.throws(() => validateMap({ ...map, by_range: { [range]: ['a@1', 'a@3'] } }), {
    message: `by_node for a@1 missing ${range}`,
  });
  t.throws(() => validateMap({ by_node: map.by_node }), { message: 'by_range is mandatory' });
  t.doesNotThrow(() => validateMap({ by_node: { 'ghost@9': [range] }, by_range: { [range]: ['ghost@9'] } }));
});
