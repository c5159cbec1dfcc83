import t from 'tap';
import { findingsOfAll, isCaught, isClean, wrongWays } from '../integration/couchdb-coordinators.ts';

// Each has two CouchDBs of its own; a real one on a loaded machine takes its time.
t.setTimeout(2_300_000);

t.test('the checker sees what a wrong coordinator does, and nothing after the verified order', async (t) => {
  const found = await findingsOfAll(['the verified order', ...wrongWays]);
  const right = found.get('the verified order');
  t.ok(right !== undefined && isClean(right), `the verified order: ${JSON.stringify(right)}`);
  for (const way of wrongWays)
    t.ok(isCaught(way, found.get(way)), `${way}: ${JSON.stringify(found.get(way))}`);
});
