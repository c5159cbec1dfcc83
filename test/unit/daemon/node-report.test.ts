import t from 'tap';
import { warningsOf } from '../../../src/daemon/node-report.ts';
import type { MemberRow } from '../../../src/daemon/control/api.ts';
import { member } from '../cli/fake-daemon.ts';

const NOW_MS = Date.parse('2026-11-22T12:00:00Z');

/** Warnings about authorities: `+` marks one, `!` a dead node. */
function about(...nodes: string[]): string[] {
  const rows: MemberRow[] = nodes.map((text) =>
    member({
      name: `${text.replaceAll(/[+!]/g, '')}/app`,
      authority: text.includes('+'),
      state: text.includes('!') ? 'dead' : 'alive',
    }),
  );
  return warningsOf(rows, NOW_MS).filter((each) => each.includes('authority'));
}

t.test('from the third node on a single authority is warned of, with what to do', async (t) => {
  t.same(about('a+', 'b'), []);
  t.match(about('a+', 'b', 'c'), [/^a\/app is the only authority.*`sudo bornemisza authority add`/]);
  t.same(about('a+', 'b+', 'c'), []);
  t.match(about('a', 'b', 'c'), [/^no node is an authority/]);
});

t.test('authorities of which none is alive are warned of, however many', async (t) => {
  t.match(about('a+!', 'b'), [/^no authority is alive \(a\/app\)/]);
  t.match(about('a+!', 'b+!', 'c'), [/^no authority is alive \(a\/app, b\/app\)/]);
  t.same(about('a+!', 'b+', 'c'), []);
});
