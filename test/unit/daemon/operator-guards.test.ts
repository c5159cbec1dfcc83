import t from 'tap';
import type { MemberRow } from '../../../src/daemon/control/api.ts';
import {
  isLastAuthority,
  mustBeRemovable,
  mustNotBeLast,
} from '../../../src/daemon/control/operator-guards.ts';
import { member } from '../cli/fake-daemon.ts';
import { member as effective } from '../roles/cases.ts';

/** The code of the refusal; '' when nothing is refused. */
function refusal(ask: () => void): string {
  try {
    ask();
    return '';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

t.test('the last of a role in rotation is not taken out unasked', async (t) => {
  const self = { name: 'app1/app', role: 'app' } as const;
  const own = effective('app1/app', { self: true });
  const ask = (...others: Parameters<typeof effective>[]) =>
    refusal(() =>
      mustNotBeLast(self, { members: [own, ...others.map((each) => effective(...each))] }, 'leave'),
    );
  t.equal(ask(), 'guard-last-of-role');
  t.equal(ask(['app2/app']), '');
  t.equal(ask(['db1/db']), 'guard-last-of-role', 'the other role does not help');
  t.equal(ask(['app2/app', { record: { maintenance: true } }]), 'guard-last-of-role', 'in maintenance');
  t.equal(ask(['app2/app', { record: { health: 'down' } }]), 'guard-last-of-role', 'down');
  t.equal(ask(['app2/app', { state: 'dead' }]), 'guard-last-of-role', 'unwatched is not in');
  t.equal(ask(['app2/app', { state: 'dead' }], ['app3/app']), '');
  t.throws(() => mustNotBeLast(self, { members: [own] }, 'maintenance'), {
    message: 'app1/app is the last app node that gets traffic: after maintenance there would be none',
    next: 'first bring another app node into traffic, or add --force',
  });
});

t.test(
  'a node that serves or holds needed copies is not removed, unless an operator forces it',
  async (t) => {
    const self = member({ name: 'app1/app', self: true, authority: true });
    const ask = (facts: Partial<MemberRow> & { readonly name: string }, flags = {}): string => {
      const row = member(facts);
      return refusal(() => mustBeRemovable([self, row], row, flags));
    };
    const FORCE = { force: true };
    const DEAD = { dead: true };
    for (const [facts, without, withForce, withDead] of [
      [{ name: 'app2/app' }, 'guard-alive', '', 'guard-alive'],
      [{ name: 'app2/app', rotation: 'out' }, '', '', ''],
      [{ name: 'app2/app', state: 'dead', rotation: 'unwatched' }, '', '', ''],
      [{ name: 'db1/db' }, 'guard-alive', 'guard-data', 'guard-alive'],
      [{ name: 'db1/db', state: 'dead', rotation: 'unwatched' }, 'guard-data', 'guard-data', ''],
      [{ name: 'db1/db', state: 'leaving', rotation: 'drain' }, 'guard-data', 'guard-data', ''],
      [{ name: 'db1/db', state: 'left', rotation: 'out' }, '', '', ''],
    ] as const) {
      const about = JSON.stringify(facts);
      t.equal(ask(facts), without, about);
      t.equal(ask(facts, FORCE), withForce, `${about}, by force`);
      t.equal(ask(facts, DEAD), withDead, `${about}, said to be dead`);
    }
    t.equal(ask({ name: 'db1/db' }, { ...FORCE, ...DEAD }), '');
    t.equal(
      refusal(() => mustBeRemovable([self], self, { ...FORCE, ...DEAD })),
      'remove-self',
      'no flag helps',
    );
    t.equal(
      refusal(() => mustBeRemovable([self], undefined, {})),
      '',
      'the roster knows better',
    );
  },
);

t.test('the last authority is not removed unasked', async (t) => {
  const asked = member({ name: 'app1/app', self: true });
  const last = member({ name: 'app2/app', authority: true, state: 'dead', rotation: 'unwatched' });
  t.equal(
    refusal(() => mustBeRemovable([asked, last], last, {})),
    'guard-last-authority',
  );
  t.equal(
    refusal(() => mustBeRemovable([asked, last], last, { force: true })),
    '',
  );
  const other = member({ name: 'app3/app', authority: true });
  t.equal(
    refusal(() => mustBeRemovable([asked, last, other], last, {})),
    '',
  );
});

t.test('the last authority is the last one alive that stays, where others are left to miss it', async (t) => {
  const row = (name: string, facts: Partial<Parameters<typeof member>[0]>) => member({ ...facts, name });
  const first = row('app1/app', { authority: true });
  const plain = row('app2/app', { authority: false });
  const second = (state: 'alive' | 'suspect' | 'leaving' | 'dead' | 'left') =>
    row('app3/app', { authority: true, state });
  t.equal(isLastAuthority([first, plain], 'app1/app'), true);
  t.equal(isLastAuthority([first, plain], 'app2/app'), false, 'who is none may go');
  t.equal(isLastAuthority([first], 'app1/app'), false, 'a cluster of one');
  t.equal(isLastAuthority([first, row('app2/app', { authority: false, state: 'left' })], 'app1/app'), false);
  t.equal(isLastAuthority([first, plain, second('alive')], 'app1/app'), false);
  for (const state of ['suspect', 'leaving', 'dead', 'left'] as const)
    t.equal(isLastAuthority([first, plain, second(state)], 'app1/app'), true, `the other one is ${state}`);
  // Asked at one that is going itself: who would be left is neither.
  t.equal(
    isLastAuthority(
      [row('app1/app', { authority: true, state: 'leaving' }), plain, second('alive')],
      'app3/app',
    ),
    true,
  );
});
