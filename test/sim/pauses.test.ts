import t from 'tap';
import { runHours } from './hours.ts';

t.test(
  'in twenty hours of pauses of a second nobody of thirty is held for dead, and hardly anybody suspected',
  async (t) => {
    const tally = runHours({ nodes: 30, trouble: 'pause1s', firstSeed: 1, hours: 20, pieceHours: 1 });
    t.equal(tally.hours, 20);
    t.same(tally.falseDeaths, []);
    t.ok(tally.suspicions < 100, `${tally.suspicions} suspicions`);
  },
);
