import t from 'tap';
import { NO_RETURNS, nextReturns, type Returns, waitOf } from '../../../src/roles/returns.ts';
import { type MemberCase, member, view } from './cases.ts';

const exported = { tags: { floating: 'exported' } };
const announcing: MemberCase = { record: exported };
const ready: MemberCase = {};
const down: MemberCase = { record: { health: 'down' } };

/** What this node, app2 of three, says after each of these moments: ms, and the state of app1 and app3. */
function saysOf(moments: readonly (readonly [number, MemberCase, MemberCase])[], may = true): string {
  let returns: Returns = NO_RETURNS;
  let says = '';
  for (const [nowMs, app1, app3] of moments) {
    const seen = view([
      member('app1/app', app1),
      member('app2/app', { self: true }),
      member('app3/app', app3),
    ]);
    returns = nextReturns(seen, may, nowMs, returns);
    says = waitOf(seen, nowMs, returns) ?? 'begins';
  }
  return says;
}

t.test('when an edge that is ready begins to announce', async (t) => {
  const maintenance: MemberCase = { record: { maintenance: true } };
  const leaves: MemberCase = { record: { goodbye: { kind: 'stop', windowMs: 0 } } };
  const faulty: MemberCase = { record: { tags: { floating: 'bird-session-down' } } };
  const moment = 'another edge may begin at this moment';
  for (const [what, moments, expected] of [
    ['nobody announces: at once', [[0, ready, ready]], 'begins'],
    ['nobody announces and all are down: at once', [[0, down, down]], 'begins'],
    ['one that is dead announces nothing', [[0, { ...announcing, state: 'dead' }, ready]], 'begins'],
    ['one announces: the others may not be heard yet', [[0, down, announcing]], moment],
    [
      'one announces, and 1 s has passed',
      [
        [0, down, announcing],
        [1_000, down, announcing],
      ],
      'begins',
    ],
    [
      'before it one is ready',
      [
        [0, ready, announcing],
        [1_000, ready, announcing],
      ],
      'app1/app begins first',
    ],
    [
      'that one came just now',
      [
        [0, down, announcing],
        [900, ready, announcing],
      ],
      'app1/app begins first',
    ],
    [
      'it came later than this node’s turn',
      [
        [0, ready, announcing],
        [20_000, ready, announcing],
      ],
      'begins',
    ],
    [
      'one that is ready is later in the order',
      [
        [0, announcing, ready],
        [1_000, announcing, ready],
      ],
      'begins',
    ],
    [
      'one that has a problem with BIRD',
      [
        [0, faulty, announcing],
        [1_000, faulty, announcing],
      ],
      'begins',
    ],
    [
      'one in maintenance',
      [
        [0, maintenance, announcing],
        [1_000, maintenance, announcing],
      ],
      'begins',
    ],
    [
      'one that stops',
      [
        [0, leaves, announcing],
        [1_000, leaves, announcing],
      ],
      'begins',
    ],
    [
      'one that is suspected',
      [
        [0, { state: 'suspect' }, announcing],
        [1_000, { state: 'suspect' }, announcing],
      ],
      'begins',
    ],
    [
      'the one before it began a moment ago',
      [
        [0, ready, announcing],
        [2_000, announcing, announcing],
        [6_999, announcing, announcing],
      ],
      'app1/app began less than 5 s ago',
    ],
    [
      'the one before it began 5 s ago',
      [
        [0, ready, announcing],
        [2_000, announcing, announcing],
        [7_000, announcing, announcing],
      ],
      'begins',
    ],
    [
      'one later in the order began a moment ago',
      [
        [0, announcing, ready],
        [500, announcing, announcing],
        [1_500, announcing, announcing],
      ],
      'app3/app began less than 5 s ago',
    ],
    [
      'the only one that began ended again',
      [
        [0, down, ready],
        [500, down, announcing],
        [1_500, down, down],
      ],
      'begins',
    ],
  ] as [string, [number, MemberCase, MemberCase][], string][])
    t.equal(saysOf(moments), expected, what);
});

t.test('an edge that already announces, or may not, waits for nothing', async (t) => {
  t.equal(saysOf([[0, announcing, announcing]], false), 'begins', 'may not');
  const seen = view([member('app1/app', announcing), member('app2/app', { self: true, record: exported })]);
  t.equal(waitOf(seen, 0, nextReturns(seen, true, 0, NO_RETURNS)), undefined, 'announces');
});

t.test('what announced before this daemon reached the others has not returned', async (t) => {
  const members = [member('app1/app', announcing), member('app2/app', { self: true })];
  const alone = view([member('app2/app', { self: true })], { synced: false });
  let returns = nextReturns(alone, true, 0, NO_RETURNS);
  returns = nextReturns(view(members, { synced: false }), true, 100, returns);
  returns = nextReturns(view(members), true, 200, returns);
  t.equal(returns.last, undefined);
  t.equal(waitOf(view(members), 1_200, returns), undefined);
});

t.test('edges that are ready at one moment begin one after another, in the order of admission', async (t) => {
  for (const [count, delayMs] of [
    [2, 0],
    [3, 30],
    [4, 300],
    [6, 900],
  ] as const) {
    // app1 announces all the while. The others are ready from 1,000 ms on, and each hears of each change so much later.
    const begunMs = new Map([['app1', -60_000]]);
    const returns = new Map<string, Returns>();
    const names = Array.from({ length: count }, (_, index) => `app${index + 1}`);
    for (let nowMs = 0; nowMs < 120_000; nowMs += 50) {
      for (const name of names.slice(1)) {
        const heardMs = nowMs - delayMs;
        const seen = view(
          names.map((each) => {
            const sinceMs = each === name ? nowMs : heardMs;
            const announces = (begunMs.get(each) ?? Number.POSITIVE_INFINITY) <= sinceMs;
            const health = each === 'app1' || sinceMs >= 1_000 ? ('up' as const) : ('down' as const);
            return member(`${each}/app`, {
              self: each === name,
              record: announces ? exported : { health },
            });
          }),
        );
        const next = nextReturns(seen, nowMs >= 1_000, nowMs, returns.get(name) ?? NO_RETURNS);
        returns.set(name, next);
        const begins = nowMs >= 1_000 && waitOf(seen, nowMs, next) === undefined;
        if (begins && !begunMs.has(name)) begunMs.set(name, nowMs);
      }
    }
    const order = [...begunMs].sort(([, one], [, other]) => one - other);
    t.same(
      order.map(([name]) => name),
      names,
      `${count} edges that hear after ${delayMs} ms: all begin, in the order of admission`,
    );
    const gaps = order.slice(1).map(([, atMs], index) => atMs - (order[index]?.[1] ?? 0));
    t.ok(
      gaps.every((gapMs) => gapMs >= 5_000),
      `5 s and more apart: ${gaps.join()}`,
    );
  }
});
