import t from 'tap';
import type { NodeRecord } from '../../../src/daemon/membership/types.ts';
import { floatingDecision } from '../../../src/roles/app.ts';
import type { AppSituation } from '../../../src/roles/situation.ts';
import type { EffectiveMember, EffectiveView } from '../../../src/roles/effective.ts';
import { HOLDS, HOLDS_TAG } from '../../../src/roles/holder.ts';
import { type MemberCase, member, view, well } from './cases.ts';

const tags = { [HOLDS_TAG]: HOLDS };
const down: Partial<NodeRecord> = { health: 'down' };
/** This node is app2, the second in order. */
const self = member('app2/app', { self: true });
const app = (number: number, of: MemberCase = {}): EffectiveMember => member(`app${number}/app`, of);
const db = (number: number, of: MemberCase = {}): EffectiveMember => member(`db${number}/db`, of);
const dead: MemberCase = { state: 'dead' };
const suspect: MemberCase = { state: 'suspect' };

const decide = (
  others: readonly EffectiveMember[],
  local: Partial<AppSituation> = {},
  changes: Partial<EffectiveView> = {},
) => floatingDecision('layer2', { view: view([self, ...others], changes), local: { ...well, ...local } });

t.test('who holds the floating IPs by layer 2', async (t) => {
  const holds: Partial<AppSituation> = { holds: true };
  const unsynced: Partial<EffectiveView> = { synced: false };
  type Case = [
    string,
    readonly EffectiveMember[],
    Partial<AppSituation>,
    boolean,
    RegExp,
    Partial<EffectiveView>?,
  ];
  const cases: Case[] = [
    ['alone in its cluster', [], {}, true, /first in line/],
    ['nobody holds, one is before it', [app(1), app(3)], {}, false, /app1\/app is before/],
    ['nobody holds, the one before it is dead', [app(1, dead), app(3)], {}, true, /first in line/],
    [
      'the one before it is in maintenance',
      [app(1, { record: { maintenance: true } }), app(3)],
      {},
      true,
      /first/,
    ],
    ['the one before it is down', [app(1, { record: down }), app(3)], {}, true, /first/],
    [
      'the one before it says that its HAProxy is down',
      [app(1, { record: { services: [{ name: 'haproxy', health: 'down' }] } }), app(3)],
      {},
      true,
      /first/,
    ],
    [
      'the one before it said goodbye',
      [app(1, { record: { goodbye: { kind: 'shutdown', windowMs: 1000 } } }), app(3)],
      {},
      true,
      /first/,
    ],
    ['the one before it is leaving', [app(1, { state: 'leaving' }), app(3)], {}, true, /first/],
    [
      'a later one holds: nothing moves without need',
      [app(1), app(3, { record: { tags } })],
      {},
      false,
      /app3\/app has them/,
    ],
    ['it holds, and one before it came back', [app(1), app(3)], holds, true, /it has them/],
    [
      'two hold: the first in order keeps them',
      [app(1, { record: { tags } }), app(3)],
      holds,
      false,
      /app1\/app has them/,
    ],
    [
      'two hold, and this is the first in order',
      [app(1), app(3, { record: { tags } })],
      holds,
      true,
      /it has them/,
    ],
    [
      'the holder restarts its daemon',
      [app(1, { restarting: true, record: { tags, goodbye: { kind: 'restart', windowMs: 9000 } } }), app(3)],
      {},
      false,
      /app1\/app has them/,
    ],
    [
      'the holder is only suspected',
      [app(1, { ...suspect, record: { tags } }), app(3), db(1)],
      {},
      false,
      /app1\/app has/,
    ],
    ['the holder is dead', [app(1, { ...dead, record: { tags } }), app(3)], {}, true, /first in line/],
    [
      'the holder says that it is down',
      [app(1, { record: { tags, ...down } }), app(3)],
      {},
      true,
      /first in line/,
    ],
    ['it holds and is down, another is up', [app(3)], { ...holds, health: 'down' }, false, /may be up/],
    [
      'it holds, and all are down and say so: the last one standing',
      [app(1, { record: down }), app(3, { record: down })],
      { ...holds, health: 'down' },
      true,
      /it has them/,
    ],
    [
      'all are down, another holds',
      [app(1, { record: { ...down, tags } }), app(3, { record: down })],
      { health: 'down' },
      false,
      /app1\/app has them/,
    ],
    ['its HAProxy is silent', [app(3)], { ...holds, edge: 'silent' }, false, /HAProxy/],
    [
      'its HAProxy is silent, and so is the other’s: at most one may hold',
      [app(3, { record: { ...down, services: [{ name: 'haproxy', health: 'down' }] } })],
      { ...holds, ...down, edge: 'silent' },
      false,
      /HAProxy/,
    ],
    ['its HAProxy refuses', [app(3)], { ...holds, edge: 'fails' }, false, /HAProxy/],
    ['maintenance', [app(3)], { ...holds, maintenance: true }, false, /maintenance/],
    ['going', [app(3)], { ...holds, leaving: true }, false, /leaving/],
    [
      'half of the nodes is no majority',
      [app(1, dead)],
      holds,
      false,
      /reaches 1 of 2 nodes, itself included: no majority/,
    ],
    ['it hears two of four', [app(1), app(3, dead), db(1, dead)], holds, false, /reaches 2 of 4/],
    ['nodes for data count', [app(1, dead), db(1), db(2), db(3, dead)], {}, true, /first in line/],
    [
      'who left does not count',
      [app(1, { state: 'left' }), app(3, { state: 'left' })],
      {},
      true,
      /first in line/,
    ],
    [
      'the suspected do not make a majority that takes',
      [app(1, suspect), app(3, suspect)],
      {},
      false,
      /reaches 1 of 3/,
    ],
    [
      'the suspected do not end one that holds',
      [app(1, suspect), app(3, suspect)],
      holds,
      true,
      /it has them/,
    ],
    ['before the first sync nothing is taken', [app(3)], {}, false, /reached since the start/, unsynced],
    [
      'before the first sync what it had is kept',
      [app(1), app(3)],
      { ...holds, upMs: 2000 },
      true,
      /before the start/,
      unsynced,
    ],
    [
      'but not for long',
      [app(1), app(3)],
      { ...holds, upMs: 10_000 },
      false,
      /reached since the start/,
      unsynced,
    ],
  ];
  for (const [what, others, local, hold, why, changes] of cases) {
    const decided = decide(others, local, changes);
    t.equal(decided.announce, hold, `${what}: ${decided.why}`);
    t.match(decided.why, why, what);
  }
});

t.test('rivals are reachable nodes that report the addresses', async (t) => {
  const { rivals } = decide([app(1, { record: { tags } }), app(3, { ...dead, record: { tags } }), app(4)], {
    holds: true,
  });
  t.same(rivals, ['app1/app']);
});

t.test('however a cluster is cut: one holder where a majority is, none elsewhere', async (t) => {
  const names = ['app1/app', 'app2/app', 'app3/app', 'db1/db', 'db2/db'];
  /** What the nodes of one side decide; all of them have the same view, and hold or not as they say. */
  const holdersOf = (
    side: readonly string[],
    holding: ReadonlySet<string>,
    sick: ReadonlySet<string>,
  ): string[] =>
    side.filter((name) => {
      if (!name.endsWith('/app')) return false;
      const members = names.map((each) =>
        member(each, {
          self: each === name,
          state: side.includes(each) ? 'alive' : 'dead',
          record: {
            health: sick.has(each) ? 'down' : 'up',
            tags: holding.has(each) ? tags : {},
          },
        }),
      );
      const local: AppSituation = {
        ...well,
        health: sick.has(name) ? 'down' : 'up',
        holds: holding.has(name),
      };
      return floatingDecision('layer2', { view: view(members), local }).announce;
    });
  const subsets = (of: readonly string[]): string[][] =>
    of.reduce<string[][]>((all, each) => [...all, ...all.map((one) => [...one, each])], [[]]);
  const apps = names.filter((name) => name.endsWith('/app'));
  let looked = 0;
  for (const side of subsets(names)) {
    for (const holding of subsets(apps)) {
      for (const sick of subsets(apps)) {
        const holders = holdersOf(side, new Set(holding), new Set(sick));
        const majority = side.length > names.length / 2;
        const well = side.filter((name) => apps.includes(name) && !sick.includes(name));
        const wanted = majority && well.length > 0 ? 1 : 0;
        const right = well.length > 0 || !majority ? holders.length === wanted : holders.length <= 1;
        if (!right) t.fail(JSON.stringify({ side, holding, sick, holders }));
        looked += 1;
      }
    }
  }
  t.equal(looked, 32 * 8 * 8);
});
