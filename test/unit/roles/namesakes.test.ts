import t from 'tap';
import { mustBeOne } from '../../../src/daemon/control/operator-guards.ts';
import { namesakeWarnings } from '../../../src/daemon/control/warnings.ts';
import type { Member, NodeRecord } from '../../../src/daemon/membership/types.ts';
import { memberRows } from '../../../src/daemon/control/member-rows.ts';
import { floatingDecision } from '../../../src/roles/app.ts';
import { dbCouchDb, dbHaproxy } from '../../../src/roles/db.ts';
import { firewallOf } from '../../../src/roles/firewall.ts';
import { EMPTY_GUARD_STATE, guarded } from '../../../src/roles/guards.ts';
import { appDesired, appInput, dbInput, member, well } from './cases.ts';

/** In order of admission: PeerId, name, address. */
type Row = readonly [peerId: string, name: string, address: string];
const CALM: readonly Row[] = [
  ['p1', 'app1/app', '10.0.0.11'],
  ['p2', 'app2/app', '10.0.0.12'],
  ['p3', 'db1/db', '10.0.0.21'],
  ['p4', 'db2/db', '10.0.0.22'],
  ['p5', 'app2/db', '10.0.0.12'],
];
/** What two authorities, or one that was taken over, can add to them. */
const LATER: readonly (readonly [what: string, rows: readonly Row[]])[] = [
  ['an app node by the name of another', [['q1', 'app2/app', '10.0.0.31']]],
  ['a db node by the name of another', [['q1', 'db2/db', '10.0.0.31']]],
  ['an app node by the address of another', [['q1', 'app7/app', '10.0.0.12']]],
  ['a db node by the address of another', [['q1', 'db7/db', '10.0.0.22']]],
  ['a db node by the address of an app node', [['q1', 'db7/db', '10.0.0.11']]],
  [
    'several of each',
    [
      ['q1', 'app2/app', '10.0.0.31'],
      ['q2', 'app2/app', '10.0.0.32'],
      ['q3', 'app1/app', '10.0.0.12'],
      ['q4', 'db1/db', '10.0.0.21'],
    ],
  ],
];

function seenBy(self: string, rows: readonly Row[]) {
  const members = rows.map(([peerId, name, address]): Member => {
    const record: NodeRecord = { ...member(name).record, peerId, address };
    const times = { sinceMs: 0, heardMs: 900, restarting: false };
    return { record, state: 'alive', ...times, self: peerId === self, accusers: [] };
  });
  const view = { version: 1, self, synced: true, members };
  const roster = rows.map(([peerId, name, address], admittedAtMs) => {
    const { role } = member(name).record;
    return { peerId, name, role, address, admittedAtMs };
  });
  const lists = { revoked: [], revokedAuthorities: [], knownCertificates: [] };
  const input = { view, roster, ...lists, nowMs: 1000, wallMs: 0 };
  return { input, view, effective: guarded(input, EMPTY_GUARD_STATE).effective };
}

/** What the programs of a node are to be. */
function programs(self: string, rows: readonly Row[]): string {
  const { effective } = seenBy(self, rows);
  if (effective.members.some((each) => each.self && each.record.role === 'app')) {
    const input = appInput([], {}, { view: effective });
    const announcement = floatingDecision('bgp', { view: effective, local: well });
    return JSON.stringify(appDesired({ ...input, announcement }));
  }
  const db = dbInput(effective, { node: 'node', ca: 'ca', edge: undefined });
  return JSON.stringify([dbHaproxy(db), dbCouchDb(db)]);
}

t.test('who is admitted under the name or address of another changes no program of anybody', async (t) => {
  const was = new Map(CALM.map(([peerId]) => [peerId, programs(peerId, CALM)]));
  for (const [what, later] of LATER) {
    for (const [peerId] of CALM) t.equal(programs(peerId, [...CALM, ...later]), was.get(peerId), what);
    const { effective } = seenBy('p1', [...CALM, ...later]);
    t.strictSame(
      effective.namesakes.map(({ record, rotation }) => [record.peerId, rotation]),
      later.map(([peerId]) => [peerId, 'out']),
    );
  }
});

t.test(
  'the later one draws no floating IP, serves nobody and can still be reached and removed',
  async (t) => {
    const rows: readonly Row[] = [...CALM, ['q1', 'app2/app', '10.0.0.31']];
    for (const mode of ['bgp', 'layer2'] as const) {
      const announces = (self: string): boolean =>
        floatingDecision(mode, { view: seenBy(self, rows).effective, local: { ...well, holds: true } })
          .announce;
      t.equal(announces('q1'), false, mode);
      t.equal(announces('p1'), true);
    }
    const own = seenBy('q1', rows).effective;
    t.match(
      own.members.find(({ self }) => self),
      { rotation: 'out', guard: 'namesake', reason: /of app2\/app at 10\.0\.0\.12, p2/ },
    );
    const { view, effective } = seenBy('p1', rows);
    t.ok(firewallOf(effective, '10.0.0.0/24').apps.includes('10.0.0.31'), 'it can hear of its removal');
    t.match(namesakeWarnings(effective.namesakes), [
      { code: 'name-shared', message: /^app2\/app, q1, .*p2$/, next: /bornemisza remove q1; then join/ },
    ]);
    t.match(namesakeWarnings(own.namesakes), [{ message: /^app2\/app, p2, / }], 'and it says so itself');
    const members = memberRows({ view, effective, certificates: [], authorities: [], nowMs: 0 });
    const named = (name: string) => members.filter((each) => each.name === name);
    t.strictSame(
      named('app2/app').map(({ peerId, rotation }) => [peerId, rotation]),
      [
        ['p2', 'in'],
        ['q1', 'out'],
      ],
    );
    t.throws(() => mustBeOne(named('app2/app')), {
      code: 'name-shared',
      message: /p2 at 10\.0\.0\.12 .*q1 at 10\.0\.0\.31/,
    });
    t.doesNotThrow(() => mustBeOne(named('app1/app')));
  },
);

t.test('nodes that live under the names of nodes that vanish do not hide a landslide', async (t) => {
  const rows: readonly Row[] = [...CALM, ['q1', 'db1/db', '10.0.0.31'], ['q2', 'db2/db', '10.0.0.32']];
  const { input } = seenBy('p1', rows);
  const { state } = guarded(input, EMPTY_GUARD_STATE);
  const members = input.view.members.map((each) =>
    ['p3', 'p4'].includes(each.record.peerId) ? { ...each, state: 'dead' as const } : each,
  );
  const { effective } = guarded({ ...input, view: { ...input.view, members } }, state);
  t.match(effective.held, [{ code: 'landslide', subjects: ['db1/db', 'db2/db'] }]);
});
