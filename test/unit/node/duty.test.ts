import t from 'tap';
import { EMPTY_LOCAL_STATE, type LocalState } from '../../../src/daemon/local-state.ts';
import { Duty } from '../../../src/daemon/node/duty.ts';
import type { Hold } from '../../../src/roles/effective.ts';
import { EMPTY_GUARD_STATE, type GuardState } from '../../../src/roles/guards.ts';
import { member, view } from '../roles/cases.ts';
import { seen } from './scenes.ts';

/** A node, and in order what its duty did to it. */
function node(full = false) {
  const did: string[] = [];
  let state: LocalState = EMPTY_LOCAL_STATE;
  let members = [member('app1/app', { self: true }), member('app2/app')];
  let held: readonly Hold[] = [];
  const duty = new Duty(
    { name: 'app1/app', role: 'app' },
    {
      local: {
        get state() {
          return state;
        },
        update: async (change) => {
          state = { ...state, ...change };
          if (full) throw new Error('the disk is full');
          did.push('saved');
        },
      },
      node: {
        get last() {
          return seen(view(members, { held }));
        },
        operatorDid: (what) => did.push(`audit: ${what}`),
        turn: (reason) => did.push(`turn: ${reason}`),
      },
      retryNow: (reason) => did.push(`retry: ${reason}`),
    },
  );
  return {
    duty,
    did,
    state: () => state,
    alone: () => (members = members.slice(0, 1)),
    hold: (guards: GuardState, holds: readonly Hold[]) => {
      state = { ...state, guards };
      held = holds;
    },
  };
}

t.test('maintenance is on the disk before peers learn of it', async (t) => {
  const { duty, did, state } = node();
  t.match(await duty.maintenance({ on: true }), { message: /gets no traffic, also after a reboot/ });
  t.strictSame(did, ['saved', 'audit: maintenance on', 'turn: maintenance on by the operator']);
  t.equal(state().maintenance, true);
  await duty.maintenance({ on: false });
  t.equal(state().maintenance, false);
});

t.test('what cannot be kept is refused, and nothing is different then', async (t) => {
  const { duty, did, state } = node(true);
  await t.rejects(duty.maintenance({ on: true }), /disk is full/);
  t.equal(state().maintenance, false);
  t.strictSame(did, [], 'nobody heard of it');
});

t.test('the last one goes into maintenance by force alone, and comes back without', async (t) => {
  const { duty, did, alone } = node();
  alone();
  await t.rejects(duty.maintenance({ on: true }), { code: 'guard-last-of-role' });
  t.strictSame(did, []);
  await duty.maintenance({ on: true, force: true });
  await duty.maintenance({ on: false });
  t.equal(did.filter((each) => each === 'saved').length, 2);
});

t.test('guards that are released hold nothing more, and what they held is tried at once', async (t) => {
  const { duty, did, state, hold } = node();
  t.match(await duty.releaseGuards(), { message: 'no guard held anything' });
  const landslides = [{ role: 'db', sinceMs: 0, gone: ['db1/db', 'db2/db'] }] as const;
  const held = { code: 'landslide', subjects: ['db1/db', 'db2/db'], message: 'two', next: 'look' } as const;
  hold({ ...EMPTY_GUARD_STATE, landslides }, [held]);
  did.length = 0;
  t.match(await duty.releaseGuards(), { message: '1 held, now released' });
  t.strictSame((state().guards as GuardState).landslides, []);
  t.strictSame(did, [
    'saved',
    'audit: guards released',
    'turn: guards released by the operator',
    'retry: guards released by the operator',
  ]);
});
