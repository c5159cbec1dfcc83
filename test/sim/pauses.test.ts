import t from 'tap';
import { nobodyDies } from './troubled-hours.ts';

t.test(
  'in four hours of pauses of a second nobody of thirty is held for dead, and hardly anybody suspected',
  async (t) => {
    const { suspicions } = nobodyDies(t, 'pause1s', 4);
    t.ok(suspicions < 20, `${suspicions} suspicions`);
  },
);
