import t from 'tap';
import { type Claim, decide, type Known } from '../../../src/daemon/membership/precedence.ts';
import type { MemberState, NodeRecord } from '../../../src/daemon/membership/types.ts';

const STATES = ['alive', 'suspect', 'dead', 'leaving', 'left'] as const satisfies readonly MemberState[];
const STATUSES = ['alive', 'leaving', 'left'] as const satisfies readonly NodeRecord['status'][];

const known = (state: MemberState, over: Partial<Known> = {}): Known => ({
  state,
  incarnation: 5,
  sequence: 3,
  startId: 'm',
  restarting: false,
  ...over,
});
const record = (
  status: NodeRecord['status'],
  over: Partial<Extract<Claim, { kind: 'record' }>> = {},
): Claim => ({
  kind: 'record',
  incarnation: 5,
  sequence: 4,
  startId: 'm',
  status,
  goodbye: false,
  ...over,
});

/** Rows: known state. Columns: status of a later record of the same incarnation. `-`: stale. */
const SAME_LIFE: Record<MemberState, Record<NodeRecord['status'], MemberState | '-'>> = {
  alive: { alive: 'alive', leaving: 'leaving', left: 'left' },
  suspect: { alive: 'suspect', leaving: 'leaving', left: 'left' },
  leaving: { alive: '-', leaving: 'leaving', left: 'left' },
  dead: { alive: '-', leaving: '-', left: 'left' },
  left: { alive: '-', leaving: '-', left: '-' },
};

/** Rows: known state. Columns: what a claim by others about the same incarnation makes of it. */
const BY_OTHERS: Record<MemberState, { accusation: MemberState | '-'; verdict: MemberState | '-' }> = {
  alive: { accusation: 'suspect', verdict: 'dead' },
  suspect: { accusation: 'suspect', verdict: 'dead' },
  leaving: { accusation: 'leaving', verdict: 'dead' },
  dead: { accusation: '-', verdict: '-' },
  left: { accusation: '-', verdict: '-' },
};

t.test(
  'a later record of the same incarnation can bring a member nearer to its end, never back',
  async (t) => {
    for (const state of STATES)
      for (const status of STATUSES)
        for (const restarting of [false, true])
          for (const goodbye of [false, true]) {
            const expected = SAME_LIFE[state][status];
            const outcome = decide(known(state, { restarting }), record(status, { goodbye }));
            const name = `${state} hears ${status}${goodbye ? ' with a goodbye' : ''}`;
            t.equal(outcome.accepted, expected !== '-', name);
            t.equal(outcome.state, expected === '-' ? state : expected, `${name}: state`);
            const window = expected === '-' ? 'keep' : status === 'alive' && goodbye ? 'open' : 'close';
            t.equal(outcome.window, window, `${name}: window`);
            t.equal(outcome.absolved, outcome.accepted && status === 'left', `${name}: accusations`);
          }
  },
);

t.test(
  'a higher incarnation wins over every state, absolves, and decides whether a window opens',
  async (t) => {
    for (const state of STATES)
      for (const status of STATUSES)
        for (const goodbye of [false, true])
          for (const sequence of [0, 3, 9]) {
            const outcome = decide(known(state), record(status, { incarnation: 6, sequence, goodbye }));
            const window = status === 'alive' && goodbye ? 'open' : 'close';
            t.same(outcome, { accepted: true, state: status, window, absolved: true }, `${state}, ${status}`);
          }
  },
);

t.test('a lower incarnation is stale whatever it says', async (t) => {
  const claims: Claim[] = [
    ...STATUSES.map((status) => record(status, { incarnation: 4, sequence: 99 })),
    { kind: 'accusation', incarnation: 4 },
    { kind: 'verdict', incarnation: 4 },
  ];
  for (const state of STATES)
    for (const claim of claims)
      t.same(decide(known(state), claim), { accepted: false, state, window: 'keep', absolved: false }, state);
});

t.test('an equal or lower sequence of the same incarnation is stale', async (t) => {
  for (const state of STATES)
    for (const status of STATUSES)
      for (const sequence of [0, 2, 3])
        t.notOk(
          decide(known(state), record(status, { sequence })).accepted,
          `${state}, ${status}, ${sequence}`,
        );
});

t.test('of two holders of one key with the same sequence, all members accept the same one', async (t) => {
  t.ok(decide(known('alive'), record('alive', { sequence: 3, startId: 'z' })).accepted);
  t.notOk(decide(known('alive'), record('alive', { sequence: 3, startId: 'a' })).accepted);
});

t.test(
  'accusations and verdicts touch only who has not gone, and only the incarnation they name',
  async (t) => {
    for (const state of STATES)
      for (const kind of ['accusation', 'verdict'] as const) {
        const expected = BY_OTHERS[state][kind];
        const outcome = decide(known(state), { kind, incarnation: 5 });
        t.equal(outcome.accepted, expected !== '-', `${kind} of ${state}`);
        t.equal(outcome.state, expected === '-' ? state : expected, `${kind} of ${state}: state`);
        t.equal(decide(known(state), { kind, incarnation: 6 }).accepted, false, `${kind} of the future`);
      }
  },
);

t.test(
  'while a goodbye window is open an accusation is noted, the member stays alive and no verdict is reached',
  async (t) => {
    const outcome = decide(known('alive', { restarting: true }), { kind: 'accusation', incarnation: 5 });
    t.match(outcome, { accepted: true, state: 'alive', window: 'keep' });
    for (const state of STATES)
      t.notOk(
        decide(known(state, { restarting: true }), { kind: 'verdict', incarnation: 5 }).accepted,
        state,
      );
  },
);
