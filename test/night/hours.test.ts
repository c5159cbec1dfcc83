import t from 'tap';
import { nobodyDies } from '../sim/troubled-hours.ts';

/** The hours of test/sim, five times as many. */
t.setTimeout(2_300_000);

t.test('in twenty hours of a tenth of all segments lost nobody of thirty is held for dead', async (t) => {
  const { suspicions } = nobodyDies(t, 'loss10', 20);
  t.ok(suspicions > 1000, `${suspicions} suspicions: the segments were lost`);
});

t.test(
  'in twenty hours of pauses of a second nobody of thirty is held for dead, and hardly anybody suspected',
  async (t) => {
    const { suspicions } = nobodyDies(t, 'pause1s', 20);
    t.ok(suspicions < 100, `${suspicions} suspicions`);
  },
);
