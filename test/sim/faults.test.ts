import t, { type Test } from 'tap';
import { type Action, runScenario } from './scenario.ts';

/**
 * Faults that take minutes or years of a real clock, in virtual time: every invariant holds at every event, and
 * afterwards all agree. Six nodes, several seeds each, since chance decides who hears what first.
 */
const SEEDS = [1, 2, 3, 4, 5];
const TEN_YEARS_MS = 10 * 365.25 * 86_400_000;

function holds(t: Test, what: string, actions: readonly Action[]): void {
  for (const seed of SEEDS) {
    const { violations, events } = runScenario({ seed, nodes: 6, drifts: [], actions });
    t.same(violations, [], `${what}, seed ${seed}`);
    t.ok(events > 500, `${events} events were looked at`);
  }
}

for (const seconds of [5, 30])
  t.test(`a process that is stopped for ${seconds} s is back in all views, and blames nobody`, async (t) => {
    holds(t, 'one', [{ atMs: 5000, kind: 'pause', host: 2, forMs: seconds * 1000 }]);
    const two = [1, 3].map((host): Action => ({ atMs: 5000, kind: 'pause', host, forMs: seconds * 1000 }));
    holds(t, 'two at once', two);
  });

t.test('a clock ten years ahead, and right again after a start without a memory', async (t) => {
  holds(t, 'ahead and back', [
    { atMs: 1000, kind: 'clockJump', host: 1, byMs: TEN_YEARS_MS },
    { atMs: 2000, kind: 'crash', host: 1, forMs: 2000, forget: true },
    { atMs: 40_000, kind: 'clockJump', host: 1, byMs: -TEN_YEARS_MS },
    { atMs: 41_000, kind: 'crash', host: 1, forMs: 2000, forget: true },
  ]);
  holds(t, 'behind', [
    { atMs: 1000, kind: 'clockJump', host: 1, byMs: -3_600_000 },
    { atMs: 2000, kind: 'crash', host: 1, forMs: 2000, forget: true },
  ]);
});

t.test('a fifth of all segments lost and 300 ms of jitter', async (t) => {
  holds(t, 'for a minute', [
    { atMs: 1000, kind: 'loss', share: 0.2, forMs: 60_000 },
    { atMs: 1000, kind: 'jitter', byMs: 300, forMs: 60_000 },
    { atMs: 20_000, kind: 'change', host: 4 },
  ]);
});

t.test('a cut that lets one direction through, for two minutes', async (t) => {
  for (const hosts of [[0], [1, 2], [0, 1, 2]])
    holds(t, `from ${hosts.length}`, [
      { atMs: 1000, kind: 'partition', hosts, oneWay: true, forMs: 120_000 },
      { atMs: 60_000, kind: 'change', host: 5 },
    ]);
});
