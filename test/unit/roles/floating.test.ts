import t from 'tap';
import { floatingDecision } from '../../../src/roles/app.ts';
import type { EffectiveMember, EffectiveView } from '../../../src/roles/effective.ts';
import { floatingOf, floatingWarnings } from '../../../src/roles/floating.ts';
import { HOLDS, HOLDS_TAG, SERVER_TAG } from '../../../src/roles/holder.ts';
import type { AppSituation } from '../../../src/roles/situation.ts';
import { type MemberCase, member, view, well } from './cases.ts';

const config = { mode: 'api', addresses: ['203.0.113.7'], device: '' } as const;
const server = (id: string, words = 'ready') => ({ [SERVER_TAG]: `${id} ${words}` });
const held = { [HOLDS_TAG]: HOLDS };
const dead = { state: 'dead' as const };
const app = (number: number, of: MemberCase = {}, tags: Record<string, string> = server(String(number))) =>
  member(`app${number}/app`, { ...of, record: { tags, ...of.record } });
const holder = (number: number, of: MemberCase = {}) =>
  app(number, of, { ...server(String(number)), ...held });
/** This node is app2, the second in order. */
const self = (tags = server('2')) => app(2, { self: true }, tags);

function desire(
  others: readonly EffectiveMember[],
  local: Partial<AppSituation> = {},
  { own = self(), ...changes }: Partial<EffectiveView> & { own?: EffectiveMember } = {},
) {
  const seen = view([own, ...others], changes);
  const at = { ...well, ...local };
  return floatingOf(seen, at, floatingDecision('api', { view: seen, local: at }), config);
}

t.test('who has the floating IPs assigned to it', async (t) => {
  type Case = [what: string, Parameters<typeof desire>, take: boolean, why: RegExp];
  const unready = { own: self({ [SERVER_TAG]: '2' }) };
  const cases: Case[] = [
    ['alone', [[]], true, /first in line/],
    ['another is before it', [[app(1), app(3)]], false, /app1\/app is before/],
    [
      'the one before it has no look that worked',
      [[app(1, {}, { [SERVER_TAG]: '1' }), app(3)]],
      true,
      /first/,
    ],
    ['the one before it has no token', [[app(1, {}, {}), app(3)]], true, /first/],
    ['its own looks do not work', [[app(3, {}, {})], {}, unready], false, /the provider answers neither/],
    ['its own looks do not work, and it has them', [[app(3)], { holds: true }, unready], true, /has them/],
    [
      'a holder whose looks fail keeps them',
      [[app(1), app(3, {}, { ...held })]],
      false,
      /app3\/app has them/,
    ],
    ['the holder is dead', [[holder(1, dead), app(3)]], true, /first in line/],
    ['the holder is suspect', [[holder(1, { state: 'suspect' }), app(3)]], false, /app1\/app has them/],
    ['half of the nodes', [[holder(1, dead)]], false, /no majority/],
    ['it has them, and half of the nodes', [[app(1, dead)], { holds: true }], false, /no majority/],
    ['before the first sync', [[app(1, dead), app(3)], {}, { synced: false }], false, /since the start/],
    ['maintenance', [[app(3)], { maintenance: true }], false, /maintenance/],
  ];
  for (const [what, given, take, why] of cases) {
    const got = desire(...given);
    t.equal(got.take, take, `${what}: ${got.why}`);
    t.match(got.why, why, what);
  }
});

t.test('however a cluster is cut, at most one side has a caller', async (t) => {
  const names = ['app1/app', 'app2/app', 'app3/app', 'db1/db'];
  const subsets = names.reduce<string[][]>(
    (all, each) => [...all, ...all.map((one) => [...one, each])],
    [[]],
  );
  for (const side of subsets) {
    for (const holds of [undefined, ...names.slice(0, 3)]) {
      const callers = side.filter((name) => {
        if (!name.endsWith('/app')) return false;
        const members = names.map((each) =>
          member(each, {
            self: each === name,
            state: side.includes(each) ? 'alive' : 'dead',
            record: { tags: each.endsWith('/app') ? { ...server(each), ...(each === holds && held) } : {} },
          }),
        );
        const at = { ...well, holds: holds === name };
        return floatingDecision('api', { view: view(members), local: at }).announce;
      });
      const wanted = side.length * 2 > names.length && side.some((name) => name.endsWith('/app')) ? 1 : 0;
      t.equal(callers.length, wanted, `${side.join()} with ${holds}: ${callers.join()}`);
    }
  }
});

t.test('from whom they may be taken', async (t) => {
  type Case = [what: string, EffectiveMember, from: string];
  const says = (record: MemberCase['record']): MemberCase => ({
    ...dead,
    record: { tags: server('1'), ...record },
  });
  const cases: Case[] = [
    ['alive and well', holder(1), 'never'],
    ['suspect', holder(1, { state: 'suspect' }), 'never'],
    ['dead, without a word', holder(1, dead), 'unheard'],
    ['dead while it restarted', app(1, says({ goodbye: { kind: 'restart', windowMs: 1 } })), 'unheard'],
    ['dead, and said that it stops', app(1, says({ goodbye: { kind: 'stop', windowMs: 1 } })), 'given'],
    ['dead, and said that it is down', app(1, says({ health: 'down' })), 'given'],
    ['in maintenance', app(1, { record: { tags: server('1'), maintenance: true } }), 'given'],
    ['leaving', app(1, { state: 'leaving' }), 'given'],
    ['left', app(1, { state: 'left' }), 'given'],
    [
      'its HAProxy is down',
      app(1, { record: { tags: server('1'), services: [{ name: 'haproxy', health: 'down' }] } }),
      'given',
    ],
  ];
  for (const [what, one, from] of cases)
    t.match(desire([one, app(3)]).others[0], { name: 'app1/app', id: '1', from }, what);
  t.equal(
    desire([app(1, {}, { ...server('1'), ...held }), app(3)], { holds: true }).others[0]?.from,
    'never',
  );
  t.equal(desire([app(1), holder(3)], { holds: true }).others[1]?.from, 'rival');
});

t.test('who asks the addresses whether they answer', async (t) => {
  const ask = (...given: Parameters<typeof desire>) => desire(...given).ask;
  t.equal(ask([holder(1), app(3)]), 'watch', 'the next in line');
  t.equal(ask([holder(1, { state: 'suspect' }), app(3)]), 'doubt', 'from the suspicion on');
  t.equal(ask([holder(1, dead), app(3)]), 'doubt');
  t.equal(ask([app(1), holder(3)]), undefined, 'another one is next');
  t.equal(ask([app(1), app(3)]), undefined, 'nobody has them, and another is before it');
  t.equal(ask([app(3)]), 'doubt', 'who is to take them, from whomever the provider names');
  t.equal(ask([holder(1)]), undefined, 'who would have no majority');
});

t.test('an operator can have them where the node is well and in a majority', async (t) => {
  t.equal(desire([holder(1), app(3)]).barred, undefined);
  t.match(desire([holder(1), app(3)], { maintenance: true }).barred, /maintenance/);
  t.match(desire([holder(1, dead)]).barred, /no majority/);
});

t.test('another mode has nothing to do with the provider', async (t) => {
  const seen = view([self(), holder(1, dead)]);
  const decided = { announce: true, rivals: [], why: 'x' };
  const got = floatingOf(seen, well, decided, { ...config, mode: 'bgp' });
  t.match(got, { addresses: [], take: false, ask: undefined, why: 'floating.mode is "bgp"' });
});

t.test('an address that another node finds silent counts, and one node alone is a warning', async (t) => {
  t.strictSame(desire([app(1, {}, server('1', 'ready floating-unmoved')), app(3)]).silentTo, ['app1/app']);
  t.match(floatingWarnings({ members: [self(), app(1, {}, {})] }), [{ code: 'one-floating-caller' }]);
  t.strictSame(floatingWarnings({ members: [self(), app(1)] }), []);
  t.strictSame(floatingWarnings({ members: [self()] }), []);
});
