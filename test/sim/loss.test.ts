import t from 'tap';
import { nobodyDies } from './troubled-hours.ts';

t.test('in four hours of a tenth of all segments lost nobody of thirty is held for dead', async (t) => {
  const { suspicions } = nobodyDies(t, 'loss10', 4);
  t.ok(suspicions > 1000, `${suspicions} suspicions: the segments were lost`);
});
