import t from 'tap';
import { runHours } from '../sim/hours.ts';

/** The hours of test/sim, five times as many. */
t.setTimeout(2_300_000);

t.test('in twenty hours of a tenth of all segments lost nobody of thirty is held for dead', async (t) => {
  const tally = runHours({ nodes: 30, trouble: 'loss10', firstSeed: 1, hours: 20, pieceHours: 1 });
  t.equal(tally.hours, 20);
  t.same(tally.falseDeaths, []);
  t.ok(tally.suspicions > 1000, `${tally.suspicions} suspicions: the segments were lost`);
});

t.test(
  'in twenty hours of pauses of a second nobody of thirty is held for dead, and hardly anybody suspected',
  async (t) => {
    const tally = runHours({ nodes: 30, trouble: 'pause1s', firstSeed: 1, hours: 20, pieceHours: 1 });
    t.equal(tally.hours, 20);
    t.same(tally.falseDeaths, []);
    t.ok(tally.suspicions < 100, `${tally.suspicions} suspicions`);
  },
);
