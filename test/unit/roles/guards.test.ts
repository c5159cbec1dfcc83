import t from 'tap';
import type { Member, MembershipView, NodeRecord } from '../../../src/daemon/membership/types.ts';
import {
  DEFAULT_GUARD_OPTIONS,
  EMPTY_GUARD_STATE,
  guarded,
  type GuardState,
  released,
} from '../../../src/roles/guards.ts';
import { member } from './cases.ts';

const APPS = ['app1/app', 'app2/app', 'app3/app', 'app4/app'];
const DBS = ['db1/db', 'db2/db', 'db3/db', 'db4/db'];
const SELF = 'app1/app';
const { stableAfterMs, landslideHoldMs } = DEFAULT_GUARD_OPTIONS;

/** What this node believes: members by name, alive and up unless said otherwise; `absent` was never heard. */
interface Belief {
  readonly synced?: boolean;
  readonly states?: Readonly<Record<string, Member['state'] | 'restarting' | 'absent'>>;
  readonly records?: Readonly<Record<string, Partial<NodeRecord>>>;
  /** Admitted and not revoked. Default: four app and four db nodes. */
  readonly roster?: readonly string[];
}

function viewOf({
  synced = true,
  states = {},
  records = {},
  roster = [...APPS, ...DBS],
}: Belief): MembershipView {
  const members = roster.flatMap((name): Member[] => {
    const said = states[name] ?? 'alive';
    if (said === 'absent') return [];
    const state = said === 'restarting' ? 'dead' : said;
    const { record } = member(name, { record: records[name] ?? {} });
    const restarting = said === 'restarting';
    return [{ record, state, sinceMs: 0, heardMs: 900, restarting, self: name === SELF, accusers: [] }];
  });
  return { version: 1, self: `peer-${SELF}`, synced, members };
}

function look(belief: Belief, state: GuardState, wallMs = 0) {
  const names = belief.roster ?? [...APPS, ...DBS];
  const roster = names.map((name, index) => {
    const { record } = member(name);
    const { peerId, role, address } = record;
    return { peerId, name, role, address, admittedAtMs: index };
  });
  const result = guarded(
    {
      view: viewOf(belief),
      roster,
      revoked: [],
      revokedAuthorities: [],
      knownCertificates: [],
      nowMs: 1000,
      wallMs,
    },
    state,
  );
  const of = (name: string) => {
    const found = result.effective.members.find((each) => each.record.name === name);
    if (found === undefined) throw new Error(`${name} is not in the effective view`);
    return found;
  };
  return { ...result, rotation: (name: string) => of(name).rotation, of };
}

/** All eight serve, and have for long. */
function settled(belief: Belief = {}): GuardState {
  const first = look(belief, EMPTY_GUARD_STATE, 0).state;
  return look(belief, first, stableAfterMs).state;
}

const dead = (...names: string[]): Belief => ({
  states: Object.fromEntries(names.map((name) => [name, 'dead' as const])),
});

t.test('which vanishings are a landslide', async (t) => {
  const cases: [what: string, belief: Belief, before: Belief, held: string[]][] = [
    ['nobody', {}, {}, []],
    ['one of four', dead('db1/db'), {}, []],
    ['half of four', dead('db1/db', 'db2/db'), {}, []],
    ['three of four', dead('db1/db', 'db2/db', 'db3/db'), {}, ['db']],
    ['half of each role', dead('db1/db', 'db2/db', 'app2/app', 'app3/app'), {}, []],
    ['most of both roles', dead('app2/app', 'app3/app', 'app4/app', ...DBS), {}, ['app', 'db']],
    [
      'three who restart: their checks go on',
      { states: { 'db1/db': 'restarting', 'db2/db': 'restarting', 'db3/db': 'restarting' } },
      {},
      [],
    ],
    [
      'three who are suspected only',
      { states: { 'db1/db': 'suspect', 'db2/db': 'suspect', 'db3/db': 'suspect' } },
      {},
      [],
    ],
    ['three who left', { states: { 'db1/db': 'left', 'db2/db': 'left', 'db3/db': 'leaving' } }, {}, []],
    [
      'two dead of the two who did not leave',
      { states: { 'db1/db': 'left', 'db2/db': 'left', 'db3/db': 'dead', 'db4/db': 'dead' } },
      {},
      ['db'],
    ],
    [
      'three whose records and daemons are unknown now',
      { states: { 'db1/db': 'absent', 'db2/db': 'absent', 'db3/db': 'absent' } },
      {},
      ['db'],
    ],
    ['three whom the operator removed', { roster: [...APPS, 'db4/db'] }, {}, []],
    [
      'the only one of its role',
      { roster: [...APPS, 'db1/db'], ...dead('db1/db') },
      { roster: [...APPS, 'db1/db'] },
      [],
    ],
    [
      'both of two',
      { roster: [...APPS, 'db1/db', 'db2/db'], ...dead('db1/db', 'db2/db') },
      { roster: [...APPS, 'db1/db', 'db2/db'] },
      ['db'],
    ],
    [
      'two of three',
      { roster: [...APPS, 'db1/db', 'db2/db', 'db3/db'], ...dead('db1/db', 'db2/db') },
      { roster: [...APPS, 'db1/db', 'db2/db', 'db3/db'] },
      ['db'],
    ],
    [
      'three who said that they are down, and live',
      {
        records: { 'db1/db': { health: 'down' }, 'db2/db': { health: 'down' }, 'db3/db': { health: 'down' } },
      },
      {},
      [],
    ],
    [
      'all in maintenance: announced is not held',
      { records: Object.fromEntries(DBS.map((name) => [name, { maintenance: true }])) },
      {},
      [],
    ],
  ];
  for (const [what, belief, before, roles] of cases) {
    const { state, effective } = look(belief, settled(before), stableAfterMs + 1);
    t.strictSame(
      state.landslides.map(({ role }) => role),
      roles,
      what,
    );
    const codes = effective.held.map(({ code }) => code);
    t.strictSame(codes, Array(roles.length).fill('landslide'), `${what}: said to people`);
  }
});

t.test('a landslide keeps who vanished where they were, and adds who comes', async (t) => {
  const before = settled({
    records: { 'db2/db': { goodbye: { kind: 'stop', windowMs: 0 } }, 'db3/db': { maintenance: true } },
    states: { 'db4/db': 'absent' },
  });
  const { rotation, of } = look(dead('db1/db', 'db2/db', 'db3/db'), before, stableAfterMs + 1);
  t.equal(rotation('db1/db'), 'in');
  t.equal(of('db1/db').guard, 'landslide');
  t.equal(rotation('db2/db'), 'drain', 'drained before, drains still');
  t.equal(rotation('db3/db'), 'unwatched', 'was out before: nothing to keep');
  t.equal(rotation('db4/db'), 'in', 'additions go on');
  t.equal(rotation('app2/app'), 'in');
});

t.test('what ends a landslide', async (t) => {
  const gone = dead('db1/db', 'db2/db', 'db3/db');
  const startMs = stableAfterMs + 1;
  const held = look(gone, settled(), startMs).state;
  const cases: [
    what: string,
    belief: Belief,
    state: GuardState,
    wallMs: number,
    held: boolean,
    rotation: string,
  ][] = [
    ['nothing yet', gone, held, startMs + 1000, true, 'in'],
    ['a minute of the same view does not', gone, held, startMs + stableAfterMs + 1000, true, 'in'],
    ['nearly ten minutes do not', gone, held, startMs + landslideHoldMs - 1, true, 'in'],
    ['ten minutes', gone, held, startMs + landslideHoldMs, false, 'unwatched'],
    ['the operator', gone, released(held), startMs + 1000, false, 'unwatched'],
    [
      'the return of one: half is no landslide',
      dead('db1/db', 'db2/db'),
      held,
      startMs + 1000,
      false,
      'unwatched',
    ],
    ['the return of all', {}, held, startMs + 1000, false, 'in'],
    [
      'their own word',
      { states: { 'db1/db': 'left', 'db2/db': 'left', 'db3/db': 'left' } },
      held,
      startMs + 1000,
      false,
      'out',
    ],
  ];
  for (const [what, belief, state, wallMs, isHeld, rotation] of cases) {
    const result = look(belief, state, wallMs);
    t.equal(result.state.landslides.length > 0, isHeld, what);
    t.equal(result.rotation('db1/db'), rotation, `${what}: db1`);
  }
});

t.test('a landslide that ended does not begin again by itself', async (t) => {
  const gone = dead('db1/db', 'db2/db', 'db3/db');
  const startMs = stableAfterMs + 1;
  const held = look(gone, settled(), startMs).state;
  const outlasted = look(gone, held, startMs + landslideHoldMs).state;
  const endings = { outlasted, released: look(gone, released(held), startMs + 1000).state };
  for (const [how, state] of Object.entries(endings)) {
    for (let laterMs = 1000; laterMs <= 2 * stableAfterMs; laterMs += stableAfterMs / 2) {
      const again = look(gone, state, startMs + landslideHoldMs + laterMs);
      t.strictSame(again.effective.held, [], `${how}, ${laterMs} ms later`);
    }
  }
});

t.test(
  'a landslide is measured against the last view that was stable for a minute, plus additions',
  async (t) => {
    const two: Belief = { states: { 'db3/db': 'absent', 'db4/db': 'absent' } };
    const young = look(two, EMPTY_GUARD_STATE, 0).state;
    t.strictSame(
      young.stable.filter((name) => name.endsWith('db')),
      ['db1/db', 'db2/db'],
      'guarded from the first moment',
    );
    const grown = look({}, young, 1000).state;
    t.equal(grown.stable.length, 8, 'who comes counts at once');
    const less = look(dead('db1/db'), settled(), stableAfterMs + 1).state;
    t.ok(less.stable.includes('db1/db'), 'who has just gone is still part of it');
    t.notOk(
      look(dead('db1/db'), less, 2 * stableAfterMs + 1).state.stable.includes('db1/db'),
      'not after a minute',
    );
    const slowly = look(dead('db1/db', 'db2/db'), less, stableAfterMs + 30_000);
    t.strictSame(slowly.effective.held, []);
    const third = look(dead('db1/db', 'db2/db', 'db3/db'), slowly.state, stableAfterMs + 59_000);
    t.equal(
      third.effective.held.length,
      1,
      'three within a minute, one after the other, are a landslide too',
    );
  },
);

t.test('what a node does with each member before its first sync', async (t) => {
  const before = settled({ records: { 'db3/db': { maintenance: true } }, states: { 'db4/db': 'leaving' } });
  const unknown: Belief['states'] = Object.fromEntries(
    [...APPS.slice(1), ...DBS].map((name) => [name, 'absent' as const]),
  );
  const cases: [what: string, belief: Belief, state: GuardState, name: string, rotation: string][] = [
    ['silent now, served before', { states: unknown }, before, 'db1/db', 'in'],
    ['silent now, in maintenance before', { states: unknown }, before, 'db3/db', 'out'],
    ['silent now, leaving before', { states: unknown }, before, 'db4/db', 'drain'],
    ['silent now, never seen by this node', { states: unknown }, EMPTY_GUARD_STATE, 'db1/db', 'in'],
    ['dead now, served before', dead('db1/db'), before, 'db1/db', 'in'],
    ['says down, served before', { records: { 'db1/db': { health: 'down' } } }, before, 'db1/db', 'in'],
    ['up again, in maintenance before: an addition', {}, before, 'db3/db', 'in'],
    ['left by its own word', { states: { 'db1/db': 'left' } }, before, 'db1/db', 'out'],
    ['leaving by its own word', { states: { 'db1/db': 'leaving' } }, before, 'db1/db', 'drain'],
    ['this node itself, down', { records: { [SELF]: { health: 'down' } } }, before, SELF, 'out'],
    ['this node itself, in maintenance', { records: { [SELF]: { maintenance: true } } }, before, SELF, 'out'],
  ];
  for (const [what, belief, state, name, rotation] of cases) {
    t.equal(look({ ...belief, synced: false }, state, stableAfterMs + 1).rotation(name), rotation, what);
  }
});

t.test('after the first sync the same news counts', async (t) => {
  const before = settled();
  t.equal(look({ states: { 'db1/db': 'absent' } }, before, stableAfterMs + 1).rotation('db1/db'), 'out');
  t.equal(look(dead('db1/db'), before, stableAfterMs + 1).rotation('db1/db'), 'unwatched');
  t.equal(
    look({ records: { 'db1/db': { health: 'down' } } }, before, stableAfterMs + 1).rotation('db1/db'),
    'out',
  );
});

t.test('a restart before the first sync neither finds nor forgets a landslide', async (t) => {
  const gone = dead('db1/db', 'db2/db', 'db3/db');
  const fresh = look({ ...gone, synced: false }, settled(), stableAfterMs + 1);
  t.strictSame(fresh.state.landslides, []);
  t.strictSame(fresh.state.stable, settled().stable, 'the measure stays');
  const held = look(gone, settled(), stableAfterMs + 1).state;
  const restarted = look({ ...gone, synced: false }, held, stableAfterMs + 2);
  t.strictSame(restarted.state.landslides, held.landslides);
  t.equal(restarted.rotation('db1/db'), 'in');
  t.match(restarted.effective.held, [{ code: 'landslide', subjects: ['db1/db', 'db2/db', 'db3/db'] }]);
});

t.test('what is held has a code, names who, and says what to do', async (t) => {
  const { effective } = look(dead('db1/db', 'db2/db', 'db3/db'), settled(), stableAfterMs + 1);
  t.match(effective.held, [
    { code: 'landslide', subjects: ['db1/db', 'db2/db', 'db3/db'], next: /bornemisza guards release/ },
  ]);
  const unsynced = look({ ...dead('db1/db'), synced: false }, settled(), stableAfterMs + 1);
  t.match(unsynced.effective.held, [{ code: 'not-synced', subjects: ['db1/db'], next: /doctor/ }]);
});

t.test('rank is the order of admission within a role, whoever is alive', async (t) => {
  const all = look({}, settled(), stableAfterMs + 1);
  const few = look(dead('app1/app', 'db1/db', 'db2/db'), settled(), stableAfterMs + 1);
  for (const name of [...APPS, ...DBS]) t.equal(few.of(name).rank, all.of(name).rank, name);
  t.strictSame(
    APPS.map((name) => all.of(name).rank),
    [0, 1, 2, 3],
  );
  t.strictSame(
    DBS.map((name) => all.of(name).rank),
    [0, 1, 2, 3],
  );
});

t.test('a member without a record promises nothing', async (t) => {
  const { of } = look({ states: { 'db1/db': 'absent' } }, settled(), stableAfterMs + 1);
  const { record, state, freshMs, reason } = of('db1/db');
  t.match(
    { state, freshMs, reason },
    { state: 'dead', freshMs: Number.POSITIVE_INFINITY, reason: /has not reported yet/ },
  );
  t.match(record, { health: 'down', services: [], address: '10.0.0.21' });
  t.equal(of('db2/db').freshMs, 100, 'of others: since their record came');
  t.equal(of(SELF).freshMs, 0);
});
