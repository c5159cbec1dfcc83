import t from 'tap';
import { ordererOf } from '../../../src/roles/certificates.ts';
import { member, view } from './cases.ts';

const app = (number: number, more: Parameters<typeof member>[1] = {}, tags: Record<string, string> = {}) =>
  member(`app${number}/app`, { ...more, record: { ...more.record, tags: { orders: 'ready', ...tags } } });

t.test('the first reachable app node that can order does so', (t) => {
  type First = Parameters<typeof member>[1];
  const cases: readonly (readonly [
    what: string,
    first: First,
    takes: boolean,
    tags?: Record<string, string>,
  ])[] = [
    ['well', {}, false],
    ['suspected', { state: 'suspect' }, false],
    ['down, and still a daemon that can order', { record: { health: 'down' } }, false],
    ['dead', { state: 'dead' }, true],
    ['leaving', { state: 'leaving' }, true],
    ['left', { state: 'left' }, true],
    ['in maintenance', { record: { maintenance: true } }, true],
    ['restarting', { record: { goodbye: { kind: 'restart', windowMs: 30_000 } } }, false],
    ['stopping', { record: { goodbye: { kind: 'stop', windowMs: 30_000 } } }, true],
    ['its machine goes down', { record: { goodbye: { kind: 'shutdown', windowMs: 30_000 } } }, true],
    ['its settings are not complete', {}, true, { orders: '' }],
    ['it says something else', {}, true, { orders: 'READY' }],
  ];
  for (const [what, first, takes, tags] of cases) {
    const members = [app(1, first, tags), app(2, { self: true }), app(3)];
    const found = ordererOf(view(members));
    t.equal(found.orders, takes, what);
    t.equal(found.why, takes ? 'this node orders' : 'app1/app orders', what);
    t.equal(ordererOf(view(members, { synced: false })).orders, false, `${what}, nobody heard yet`);
  }
  t.end();
});

t.test('of all nodes with one view, one orders', (t) => {
  const states = ['alive', 'suspect', 'dead', 'left'] as const;
  for (let number = 0; number < states.length ** 3; number += 1) {
    const stateOf = (at: number) =>
      states[Math.floor(number / states.length ** at) % states.length] ?? 'alive';
    // Who looks is alive to itself.
    const living = [0, 1, 2].filter((at) => stateOf(at) === 'alive');
    const ordering = living.filter(
      (self) =>
        ordererOf(view([0, 1, 2].map((at) => app(at + 1, { state: stateOf(at), self: at === self })))).orders,
    );
    const first = [0, 1, 2].find((at) => stateOf(at) === 'alive' || stateOf(at) === 'suspect');
    t.strictSame(
      ordering,
      living.filter((at) => at === first),
      [0, 1, 2].map(stateOf).join(),
    );
  }
  t.end();
});

t.test('a node that goes, or works on itself, lets another order', (t) => {
  const going = [{ state: 'leaving' }, { state: 'left' }, { record: { maintenance: true } }] as const;
  for (const self of going)
    t.strictSame(ordererOf(view([app(1, { ...self, self: true }), app(2)])), {
      orders: false,
      why: 'app2/app orders',
    });
  t.end();
});

t.test('a db node never orders, and a cluster without a node that can order reports that', (t) => {
  const db = member('db1/db', { self: true, record: { tags: { orders: 'ready' } } });
  t.strictSame(ordererOf(view([db])), { orders: false, why: 'no app node can order' });
  t.end();
});
