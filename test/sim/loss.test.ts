import t from 'tap';
import { runHours } from './hours.ts';

t.test('in four hours of a tenth of all segments lost nobody of thirty is held for dead', async (t) => {
  const tally = runHours({ nodes: 30, trouble: 'loss10', firstSeed: 1, hours: 4, pieceHours: 1 });
  t.equal(tally.hours, 4);
  t.same(tally.falseDeaths, []);
  t.ok(tally.suspicions > 1000, `${tally.suspicions} suspicions: the segments were lost`);
});
