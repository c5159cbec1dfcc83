import t from 'tap';
import { runHours } from './hours.ts';

t.test(
  'in four hours of pauses of a second nobody of thirty is held for dead, and hardly anybody suspected',
  async (t) => {
    const tally = runHours({ nodes: 30, trouble: 'pause1s', firstSeed: 1, hours: 4, pieceHours: 1 });
    t.equal(tally.hours, 4);
    t.same(tally.falseDeaths, []);
    t.ok(tally.suspicions < 20, `${tally.suspicions} suspicions`);
  },
);
