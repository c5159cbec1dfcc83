import type { Test } from 'tap';
import { runHours, type Tally } from './hours.ts';
import type { Trouble } from './measure.ts';

/** Asserts that in so many hours of trouble nobody of thirty is held for dead. */
export function nobodyDies(t: Test, trouble: Trouble, hours: number): Tally {
  const tally = runHours({ nodes: 30, trouble, firstSeed: 1, hours, pieceHours: 1 });
  t.equal(tally.hours, hours);
  t.same(tally.falseDeaths, []);
  return tally;
}
