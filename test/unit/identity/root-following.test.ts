import t from 'tap';
import { buildRoot, createTlsKey } from '../../../src/daemon/identity/keys/certificates.ts';
import { trustOf } from '../../../src/daemon/identity/keys/chain.ts';
import type { Root } from '../../../src/daemon/identity/root/recovery.ts';
import { rootWord, signSuccession, verifySuccession } from '../../../src/daemon/identity/root/succession.ts';
import {
  notYetUsing,
  programsFollow,
  ROOT_TAG,
  rootTag,
  rootWarnings,
  unaware,
} from '../../../src/daemon/identity/root/following.ts';
import { member } from '../cli/fake-daemon.ts';

const nowMs = Date.parse('2026-06-01T00:00:00Z');
const [from, to] = (await Promise.all(['1111', '2222'].map(rootOf))) as [Root, Root];
const change = verifySuccession(await signSuccession(from, to, { sequence: 1, madeAtMs: nowMs }), 'prod');

async function rootOf(mark: string): Promise<Root> {
  const key = await createTlsKey();
  return { cluster: 'prod', key, certificatePem: await buildRoot('prod', mark, key, nowMs) };
}

const row = (name: string, tag: string | undefined, state: Parameters<typeof member>[0]['state'] = 'alive') =>
  member({ name, state, tags: tag === undefined ? {} : { [ROOT_TAG]: tag } });
const [knows, uses] = [rootTag(change.to, false), rootTag(change.to, true)];

t.test(
  'nobody uses the new root before all who are here know it, and the old one ends when all use it',
  async (t) => {
    const rows = [row('app1/app', uses), row('app2/app', knows), row('app3/app', undefined)];
    t.strictSame(unaware(rows, change.to), ['app3/app'], 'a version that does not know of it says nothing');
    t.strictSame(notYetUsing(rows, change.to), ['app2/app', 'app3/app']);
    const [other] = trustOf('prod', from.certificatePem).roots;
    t.strictSame(
      unaware([row('app1/app', rootTag(other ?? change.to, true))], change.to),
      ['app1/app'],
      'another root',
    );
    for (const state of ['dead', 'left', 'absent'] as const)
      t.strictSame(
        unaware([row('app1/app', undefined, state)], change.to),
        [],
        `${state} follows when it comes back`,
      );
    for (const state of ['suspect', 'leaving'] as const)
      t.strictSame(unaware([row('app1/app', undefined, state)], change.to), ['app1/app'], state);
  },
);

t.test('a node follows the new root when no old process uses the old one', async (t) => {
  t.equal(programsFollow('app', 0, true), false);
  t.equal(programsFollow('app', 0, false), true);
  t.equal(programsFollow('app', 80_000, true), true, 'what is left carries feeds only');
  t.equal(programsFollow('db', 80_000, false), false, 'Erlang has not looked yet');
  t.equal(programsFollow('db', 131_000, false), true);
});

t.test('status says how far it is, and that two roots claim to follow one', async (t) => {
  t.strictSame(rootWarnings(undefined, [], [row('app1/app', undefined)]), []);
  const word = rootWord(change.to);
  t.match(rootWarnings(change, [], [row('app1/app', knows), row('app2/app', uses)]), [
    {
      code: 'root-not-used-yet',
      message: `the root is being replaced by ${word} since 2026-06-01: app1/app does not use the new one yet`,
    },
  ]);
  t.match(rootWarnings(change, [], [row('app1/app', uses)]), [
    {
      code: 'root-ready-to-end',
      message: /all reachable members use the new one$/,
      next: /^end the old one: .*--end/,
    },
  ]);
  t.match(rootWarnings(undefined, ['Two follow.'], []), [
    { code: 'rival-root', message: 'Two follow.', next: /^if you did not make both, somebody has the key/ },
  ]);
});
