import t from 'tap';
import { isGlobalUnicast } from '../../../src/host/public-address.ts';
import type { DnsSet } from '../../../src/plugins/dns/desired.ts';
import { dnsOf, type DnsRoleConfig } from '../../../src/roles/dns.ts';
import type { EffectiveMember, EffectiveView } from '../../../src/roles/effective.ts';
import { member, view } from './cases.ts';

const CONFIG: DnsRoleConfig = {
  cluster: 'shop',
  zone: 'shop.example',
  names: ['@', 'www'],
  ttlS: 60,
  floating: [],
  challenges: [],
  provedNames: ['*.shop.example', 'www.eu.shop.example'],
  isPublic: isGlobalUnicast,
};
const app = (number: number, more: Parameters<typeof member>[1] = {}, tags: Record<string, string> = {}) =>
  member(`app${number}/app`, {
    ...more,
    record: {
      ...more.record,
      tags: { public: `192.0.2.${number} 2001:db8::${number}`, dns: 'ready', ...tags },
    },
  });
const records = (
  members: readonly EffectiveMember[],
  config: Partial<DnsRoleConfig> = {},
  changes: Partial<EffectiveView> = {},
) => dnsOf(view(members, changes), { ...CONFIG, ...config });
const valuesOf = (sets: readonly DnsSet[], name: string, type: DnsSet['type'] = 'A') =>
  sets.find((each) => each.name === name && each.type === type)?.values;

t.test('names, hosts and members have their records', (t) => {
  const members = [app(1, { self: true }), app(2), member('db1/db', { record: { port: 4103 } })];
  const { sets, owner, writer } = records([...members, member('app1/db', { record: { port: 4103 } })]);
  t.strictSame([owner, writer], ['shop', true]);
  for (const name of ['shop.example', 'www.shop.example']) {
    t.strictSame(valuesOf(sets, name), ['192.0.2.1', '192.0.2.2'], name);
    t.strictSame(valuesOf(sets, name, 'AAAA'), ['2001:db8::1', '2001:db8::2'], name);
  }
  t.strictSame(valuesOf(sets, 'app2.shop.example'), ['192.0.2.2']);
  t.strictSame(valuesOf(sets, 'internal.db1.shop.example'), ['10.0.0.21']);
  t.equal(valuesOf(sets, 'db1.shop.example'), undefined, 'it names no public address');
  t.strictSame(valuesOf(sets, '_app._tcp.shop.example', 'SRV'), [
    '1 0 4101 internal.app1.shop.example',
    '1 0 4101 internal.app2.shop.example',
  ]);
  t.strictSame(valuesOf(sets, '_db._tcp.shop.example', 'SRV'), [
    '1 0 4103 internal.app1.shop.example',
    '1 0 4103 internal.db1.shop.example',
  ]);
  const floating = records(members, { floating: ['203.0.113.7'] }).sets;
  t.strictSame(valuesOf(floating, 'shop.example'), ['203.0.113.7']);
  t.strictSame(valuesOf(floating, 'shop.example', 'AAAA'), undefined);
  const both = records(members, { floating: ['203.0.113.7', '2001:db8::7'] }).sets;
  t.strictSame(valuesOf(both, 'shop.example'), ['203.0.113.7']);
  t.strictSame(valuesOf(both, 'shop.example', 'AAAA'), ['2001:db8::7']);
  t.end();
});

t.test('the site’s names have the serving nodes; the other names have all members', (t) => {
  const cases: readonly (readonly [what: string, app2: EffectiveMember, serves: boolean, found: boolean])[] =
    [
      ['well', app(2), true, true],
      ['suspected', app(2, { state: 'suspect' }), true, true],
      ['its daemon is dead', app(2, { state: 'dead' }), true, true],
      ['leaving', app(2, { state: 'leaving' }), false, true],
      ['left', app(2, { state: 'left' }), false, false],
      ['in maintenance', app(2, { record: { maintenance: true } }), false, true],
      ['says that it is down', app(2, { record: { health: 'down' } }), false, true],
      ['names a private address', app(2, {}, { public: '10.0.0.12 fd00::1' }), false, true],
      ['names what is no address', app(2, {}, { public: '192.0.2.2.shop.example $(x)' }), false, true],
    ];
  for (const [what, app2, serves, found] of cases) {
    const { sets, doubtful } = records([app(1, { self: true }), app2]);
    t.equal(valuesOf(sets, 'shop.example')?.includes('192.0.2.2'), serves, what);
    t.equal(valuesOf(sets, '_app._tcp.shop.example', 'SRV')?.length, found ? 2 : 1, what);
    t.strictSame(doubtful, app2.state === 'dead' ? ['192.0.2.2', '2001:db8::2'] : [], what);
  }
  t.end();
});

t.test('an answer for a CA is written only for a name that this node has configured', (t) => {
  const at = (name: string) => ({ name: `_acme-challenge.${name}`, value: 'v' });
  const own = [at('shop.example'), at('www.eu.shop.example')];
  const others = [at('mail.shop.example'), at('eu.shop.example'), at('shop.example.org')];
  const challenges = [...others, ...own];
  const members = [app(1, { self: true })];
  t.strictSame(records(members, { challenges }).challenges, own);
  t.strictSame(records(members, { challenges, provedNames: [] }).challenges, []);
  t.end();
});

t.test('a node that has not reported yet is no member that others can find', (t) => {
  const { sets } = records([
    app(1, { self: true }),
    member('db1/db', { state: 'dead', record: { port: 0 } }),
  ]);
  t.equal(valuesOf(sets, '_db._tcp.shop.example', 'SRV'), undefined);
  t.strictSame(valuesOf(sets, 'internal.db1.shop.example'), ['10.0.0.21']);
  t.end();
});

t.test('a name of the site keeps an A record; without one, its AAAA', (t) => {
  const guards = (sets: readonly DnsSet[]) =>
    sets
      .filter(({ name }) => name === 'shop.example')
      .map(({ type, guard, values }) => [type, guard, values.length]);
  t.strictSame(guards(records([app(1, { self: true })]).sets), [
    ['A', 'serves', 1],
    ['AAAA', 'finds', 1],
  ]);
  t.strictSame(guards(records([app(1, { self: true }, { public: '2001:db8::1' })]).sets), [
    ['A', 'serves', 0],
    ['AAAA', 'serves', 1],
  ]);
  t.strictSame(
    guards(records([app(1, { self: true, record: { maintenance: true } })]).sets),
    [
      ['A', 'serves', 0],
      ['AAAA', 'serves', 0],
    ],
    'nobody serves: the plan keeps what stands',
  );
  t.end();
});

t.test('one writes: the first by admission that is alive and could read the zone', (t) => {
  const me = (number: number, tags = {}) => app(number, { self: true }, tags);
  const cases: readonly (readonly [what: string, members: EffectiveMember[], writes: boolean])[] = [
    ['the first', [me(1), app(2)], true],
    ['the second', [app(1), me(2)], false],
    ['after a death', [app(1, { state: 'dead' }), me(2)], true],
    ['after a suspicion', [app(1, { state: 'suspect' }), me(2)], true],
    ['the first has no token', [app(1, {}, { dns: '' }), me(2)], true],
    ['this one could not read', [me(1, { dns: '' }), app(2)], false],
    ['a db node says that it could', [member('db1/db', { record: { tags: { dns: 'ready' } } }), me(1)], true],
  ];
  for (const [what, members, writes] of cases) t.equal(records(members).writer, writes, what);
  t.equal(records([me(1)], {}, { synced: false }).writer, false, 'before the first sync');
  t.end();
});

t.test('a landslide takes nothing out', (t) => {
  t.equal(records([app(1, { self: true })]).hold, undefined);
  const held = { ...app(2, { state: 'dead' }), guard: 'landslide' } as const;
  t.match(records([app(1, { self: true }), held]).hold, 'vanished at once');
  t.end();
});

t.test('only what the internet reaches is a public address', (t) => {
  for (const address of ['192.0.2.1', '1.1.1.1', '172.32.0.1', '2001:db8::1', '2a01:4f8::2'])
    t.ok(isGlobalUnicast(address), address);
  for (const address of [
    ...[
      '10.0.0.1',
      '100.64.0.1',
      '127.0.0.1',
      '169.254.1.1',
      '172.16.0.1',
      '192.168.1.1',
      '224.0.0.1',
      '255.255.255.255',
    ],
    ...[
      '0.0.0.0',
      '::1',
      'fe80::1',
      'fd00::1',
      'ff02::1',
      '::ffff:192.0.2.1',
      '2001:DB8::1',
      'shop.example',
      '',
    ],
  ])
    t.notOk(isGlobalUnicast(address), address);
  t.end();
});
