import t from 'tap';
import { CouchDbPlugin } from '../../../src/plugins/couchdb/plugin.ts';
import { restartUnits, unitStates } from '../../../src/plugins/couchdb/restart-units.ts';
import { desired, look, member, observed, type SceneFacts } from './scene.ts';

const three = [member(1), member(2), member(3)];
const never = { self: 1, members: three, marker: undefined, record: undefined };
const asked = (restartAskedAgoMs: number) => ({ restartPending: true, restartAskedAgoMs });
const codes = (facts: SceneFacts): string[] =>
  look(facts).changes.flatMap((change) => (change.kind === 'refuse' ? [change.code] : []));

t.test(
  'a restart that was asked for and did not happen is a fault, whether CouchDB answers or not',
  async (t) => {
    const code = 'couchdb-restart-not-done';
    const down = { kind: 'down' } as const;
    for (const [when, more, expected] of [
      ['serving, just asked', asked(20_000), []],
      ['serving, asked long ago', asked(31_000), [code]],
      ['down, just asked', { ...asked(20_000), http: down }, []],
      ['down, asked long ago', { ...asked(31_000), http: down }, [code]],
      ['serving, nothing asked', { restartAskedAgoMs: 3_600_000 }, []],
    ] as const)
      t.same(codes({ self: 1, members: three, observed: more }), expected, when);
    t.same(codes({ ...never, observed: asked(31_000) }), [code], 'never in');
  },
);

/** The plugin's word of a scene, as `status` has it. */
function said(facts: SceneFacts) {
  const wanted = desired(facts.self, facts.members);
  const plugin = new CouchDbPlugin({ credentials: () => ({ name: 'admin', password: 'x' }) });
  return plugin.status(wanted, observed(facts, wanted));
}

t.test(
  'it names this node, the units and the command, and takes remove --dead out of all advice',
  async (t) => {
    const scene = { self: 1, members: three, connected: [1, 2] };
    const { alarms, seen } = said({ ...scene, observed: asked(60_000) });
    const undone = alarms.find(({ code }) => code === 'couchdb-restart-not-done');
    t.match(undone, { message: /on db1\/db .*bornemisza-couchdb-restart\.path/, next: /systemctl restart/ });
    t.ok(alarms.some(({ code }) => code === 'couchdb-disagreement'));
    for (const { next } of alarms) t.notMatch(next, '--dead');
    t.match(seen, /^waits for .+, for 0 s$/);
  },
);

t.test('systemd names the unit that prevents the restart', async (t) => {
  const shown = (path: string, service: string): string =>
    `Id=bornemisza-couchdb-restart.path\n${path}\n\nId=bornemisza-couchdb-restart.service\n${service}\n`;
  const idle = 'Result=success\nActiveState=inactive';
  const watching = 'Result=success\nActiveState=active';
  for (const [what, text, words] of [
    [
      'no inotify instance left',
      shown('Result=resources\nActiveState=failed', idle),
      /: \S+\.path has failed \(resources\)$/,
    ],
    ['stopped', shown(idle, idle), /: \S+\.path is inactive$/],
    [
      'a request that cannot be taken',
      shown(watching, 'Result=exit-code\nActiveState=failed'),
      /\.service has failed \(exit-code\)$/,
    ],
    ['slow', shown(watching, 'Result=success\nActiveState=activating'), /\.service is still running$/],
    ['nobody answers', '', /\.path or \S+\.service has failed$/],
  ] as const) {
    const overdue = { ...asked(31_000), restartUnits: unitStates(text) };
    const [fault] = look({ self: 1, members: three, observed: overdue }).changes;
    t.match(fault, { code: 'couchdb-restart-not-done', summary: words }, what);
  }
  t.same(await restartUnits(AbortSignal.timeout(60_000), '/nonexistent/systemctl'), []);
});

t.test('remove --dead is suggested only for an unreachable node', async (t) => {
  const adviceFor = (facts: SceneFacts): string =>
    said(facts).alarms.find(({ code }) => code === 'couchdb-disagreement')?.next ?? '';
  const scene = { self: 1, connected: [1, 2] };
  const heard = adviceFor({ ...scene, members: three });
  t.match(heard, /db3\/db runs and its CouchDB is not connected/);
  t.notMatch(heard, '--dead');
  const unheard = adviceFor({ ...scene, members: [member(1), member(2), member(3, { alive: false })] });
  t.match(unheard, /^check this host first \(sudo bornemisza doctor\).*--dead/);
  t.equal(said({ self: 1, members: three }).seen, undefined, 'a node that waits for nothing says nothing');
});
