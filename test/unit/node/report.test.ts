import t from 'tap';
import { isLastAuthority, warningsOf } from '../../../src/daemon/node/report.ts';
import { member } from '../cli/fake-daemon.ts';

t.test('status warns where one node alone tells people, since nobody tells of its own death', async (t) => {
  const nowMs = Date.parse('2026-06-01T00:00:00Z');
  const about = (...tags: Readonly<Record<string, string>>[]): string[] =>
    warningsOf(
      tags.map((each, at) => member({ name: `app${at + 1}/app`, tags: each })),
      nowMs,
    ).filter((text) => text.includes('[notify]'));
  t.same(about({}, {}), [], 'nobody was to tell');
  t.same(about({}, { notify: 'ok' }), [
    'app2/app alone has [notify]: nobody tells when it is the one that dies',
  ]);
  t.same(about({ notify: 'ok' }, { notify: 'failing' }), []);
  t.same(about({ notify: 'ok' }), [], 'a cluster of one has nobody else');
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
