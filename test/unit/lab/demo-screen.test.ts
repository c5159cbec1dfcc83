import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import { Acts } from '../../demo/acts.ts';
import { draw, KEYS } from '../../demo/screen.ts';
import type { Picture, World } from '../../demo/world.ts';
import { svgOf } from '../../demo/svg.ts';
import { until } from '../../support/until.ts';
import { entry, MEMBERS, member } from '../cli/fake-daemon.ts';

const world = { title: 'seven machines in namespaces', site: 'https://203.0.113.10/', routed: true } as World;
const edges = ['app1', 'app2', 'app3'];
const picture: Picture = {
  askedName: 'app1/app',
  members: [...MEMBERS, ...['db3/db', 'db4/db'].map((name) => member({ name, reason: 'long '.repeat(40) }))],
  servers: new Map(
    edges.map((edge) => [
      edge,
      ['db1', 'db2', 'db3'].map((name) => ({ server: `db_nodes/${name}`, status: 'UP' })),
    ]),
  ),
  announcers: ['app1'],
  couch: new Map([['db1', { connected: ['a', 'b'], members: ['a', 'b'] }]]),
  events: Array.from({ length: 40 }, (_, id) => entry({ id, summary: `event ${id} ${'x'.repeat(120)}` })),
};

t.test('the screen fits whatever the terminal has, with title, note and keys', async (t) => {
  for (const [columns, rows] of [
    [80, 24],
    [80, 20],
    [80, 12],
    [120, 60],
    [200, 24],
  ] as const) {
    const lines = stripVTControlCharacters(draw(world, picture, 'a note', { columns, rows })).split('\n');
    const size = `${columns}×${rows}`;
    t.ok(lines.length <= rows, `${size}: ${lines.length} lines`);
    t.same(
      lines.filter((line) => [...line].length > columns),
      [],
      size,
    );
    t.match(lines[0], /^Bornemisza {2}seven machines/, size);
    t.equal(lines.at(-2), 'a note', size);
    t.equal(lines.at(-1), KEYS, `${size}: all keys are named`);
  }
  const wide = stripVTControlCharacters(draw(world, picture, '', { columns: 80, rows: 60 }));
  t.match(wide, /^.{79}…$/m, 'a line that is cut says so');
});

t.test(
  'a key that is pressed during a step is kept and shown, and the step is not shown as ended',
  async (t) => {
    const acts = new Acts('ready');
    const did: string[] = [];
    const first = Promise.withResolvers<void>();
    acts.begin('app2 is killed', () => first.promise);
    for (const what of ['db2 is cut off', 'db4 joins'])
      acts.begin(what, async () => {
        did.push(what);
        if (what === 'db4 joins') throw new Error('no room');
      });
    t.equal(acts.shown, 'app2 is killed … (then: db4 joins)');
    first.resolve();
    await until(() => did.length > 0 && !acts.note.endsWith('…'));
    t.same(did, ['db4 joins'], 'the last one pressed');
    t.equal(acts.shown, 'db4 joins: no room');
    acts.begin('app2 is killed', async () => undefined);
    await until(() => !acts.note.endsWith('…'));
    t.match(acts.shown, /^app2 is killed: asked in \d+\.\d s; watch the screen$/);
  },
);

t.test('a screen becomes a picture with its colours, each stretch in its column', async (t) => {
  const svg = svgOf('db1 \u001B[31mdead\u001B[39m <here> & \u001B[2mthere\u001B[22m\n');
  for (const part of [
    '>db1 <',
    '<tspan x="49.6" fill="#ff7b72">dead<',
    '> &lt;here&gt; &amp; <',
    '0.6">there<',
  ])
    t.match(svg, part);
  t.notMatch(svg, '\u001B');
});
