import * as fc from 'fast-check';
import t from 'tap';
import type { DnsDesired, DnsSet } from '../../../src/plugins/dns/desired.ts';
import { EdgeWatch } from '../../../src/plugins/dns/observe.ts';
import { type DnsChange, planDns, type ZoneRecord } from '../../../src/plugins/dns/plan.ts';
import { markChange, shownRecords } from '../../../src/plugins/dns/shown.ts';

const OWNER = 'shop';
const record = (name: string, value: string, more: Partial<ZoneRecord> = {}): ZoneRecord => ({
  name: `${name}shop.example`,
  type: 'A',
  value,
  ttlS: 60,
  owner: OWNER,
  ...more,
});
const set = (name: string, values: readonly string[], more: Partial<DnsSet> = {}): DnsSet => ({
  name: `${name}shop.example`,
  type: 'A',
  values,
  ttlS: 60,
  guard: 'serves',
  ...more,
});
const plan = (sets: readonly DnsSet[], zone: readonly ZoneRecord[], more: Partial<DnsDesired> = {}) =>
  planDns({ owner: OWNER, sets, challenges: [], doubtful: [], ...more }, zone);
const inShort = ({ kind, name, values }: DnsChange): string => `${kind} ${name} ${values.join(' ')}`;

t.test('a record that is as wanted is not changed, whoever made it', async (t) => {
  for (const owner of [OWNER, undefined, 'another'])
    t.strictSame(plan([set('', ['192.0.2.1'])], [record('', '192.0.2.1', { owner })]), {
      changes: [],
      findings: [],
    });
});

t.test('a set without our mark is never changed', async (t) => {
  const others: ZoneRecord[][] = [
    [record('', '192.0.2.9', { owner: undefined })],
    [record('', '192.0.2.9', { owner: 'another' })],
    [record('', '192.0.2.9'), record('', '192.0.2.8', { owner: undefined })],
    [record('', '192.0.2.9'), record('', '192.0.2.8', { owner: 'another' })],
    [record('', 'other.example', { type: 'CNAME', owner: undefined })],
  ];
  for (const zone of others) {
    const { changes, findings } = plan([set('', ['192.0.2.1'])], zone);
    t.strictSame(changes, [], JSON.stringify(zone));
    t.match(findings, [{ code: 'dns-foreign' }]);
    t.strictSame(
      plan([], zone).changes.filter(({ ids }) => ids.length > 0),
      [],
    );
  }
});

t.test('a new value is added before an old one is removed', async (t) => {
  const before = [record('', '192.0.2.1'), record('', '192.0.2.2')];
  t.strictSame(plan([set('', ['192.0.2.2', '192.0.2.3'])], before).changes.map(inShort), [
    'add shop.example 192.0.2.3',
  ]);
  const after = [...before, record('', '192.0.2.3')];
  t.strictSame(plan([set('', ['192.0.2.2', '192.0.2.3'])], after).changes.map(inShort), [
    'remove shop.example 192.0.2.1',
  ]);
});

t.test('a name that serves never becomes empty; one that finds does, with its mark', async (t) => {
  const zone = [record('', '192.0.2.1')];
  t.match(plan([set('', [])], zone), { changes: [], findings: [{ code: 'dns-held' }] });
  t.match(plan([set('', [], { guard: 'finds' })], zone).changes, [{ kind: 'remove', last: true }]);
  t.match(plan([], [record('app1.', '192.0.2.1')]).changes, [{ kind: 'remove', last: true }]);
});

t.test('a hold takes nothing out, and lets additions through', async (t) => {
  const zone = [record('', '192.0.2.1'), record('', '192.0.2.2'), record('app9.', '192.0.2.9')];
  const hold = 'more than half of the app nodes vanished';
  t.match(plan([set('', ['192.0.2.1'])], zone, { hold }), { changes: [], findings: [{ code: 'dns-held' }] });
  t.strictSame(
    plan([set('', ['192.0.2.1', '192.0.2.2', '192.0.2.3'])], zone, { hold }).changes.map(inShort),
    ['add shop.example 192.0.2.3'],
  );
});

/** What a provider makes of a change. */
function applied(zone: readonly ZoneRecord[], change: DnsChange): ZoneRecord[] {
  const { kind, name, type, values, ttlS } = change;
  if (kind === 'remove')
    return zone.filter((each) => !(each.name === name && each.type === type && values.includes(each.value)));
  return [...zone, ...values.map((value) => ({ name, type, value, ttlS, owner: OWNER }))];
}

t.test('through any sequence of wishes the founder’s rows stay, and no name goes empty', async (t) => {
  const address = fc.integer({ min: 1, max: 6 }).map((last) => `192.0.2.${last}`);
  const wish = fc.record({
    site: fc.uniqueArray(address, { maxLength: 3 }),
    app1: fc.uniqueArray(address, { maxLength: 2 }),
    hold: fc.boolean(),
  });
  const founders = [
    record('app1.', '198.51.100.1', { owner: undefined }),
    record('mail.', '198.51.100.2', { owner: undefined }),
    record('', '10 mail.shop.example.', { type: 'MX', owner: undefined }),
    record('', '"v=spf1 -all"', { type: 'TXT', owner: undefined }),
    record('other.', '192.0.2.1', { owner: 'another' }),
  ];
  fc.assert(
    fc.property(fc.array(wish, { maxLength: 20 }), (wishes) => {
      let zone: ZoneRecord[] = [...founders];
      for (const { site, app1, hold } of wishes) {
        const sets = [
          set('', site),
          set('app1.', app1),
          set('_app._tcp.', site, { type: 'A', guard: 'finds' }),
        ];
        const why = hold ? 'a test' : undefined;
        // Enough looks to settle: an addition, then the removal that waited for it.
        for (let look = 0; look < 3; look += 1)
          for (const change of plan(sets, zone, { hold: why }).changes) {
            const served = zone.some(({ name, type }) => name === 'shop.example' && type === 'A');
            zone = applied(zone, change);
            if (served && !zone.some(({ name, type }) => name === 'shop.example' && type === 'A'))
              return false;
          }
        if (!founders.every((row) => zone.includes(row))) return false;
        const ours = zone
          .filter(({ name, type }) => name === 'shop.example' && type === 'A')
          .map(({ value }) => value);
        if (!hold && site.length > 0 && [...ours].sort().join() !== [...site].sort().join()) return false;
      }
      return true;
    }),
  );
  t.pass('held');
});

t.test(
  'answers for a CA: each value has an owner of its own, and none is removed while an order is open',
  async (t) => {
    const at = '_acme-challenge.';
    const text = (value: string, more: Partial<ZoneRecord> = {}) =>
      record(at, `"${value}"`, { type: 'TXT', id: `id ${value}`, ...more });
    const [foreign, another] = [text('f', { owner: undefined }), text('x', { owner: 'another' })];
    const ours = [text('A'), text('b')];
    const spf = record('', '"v=spf1 -all"', { type: 'TXT' });
    const mark = record('_bornemisza-txt._acme-challenge.', '"shop:A"', { type: 'TXT' });
    const alias = record(at, 'elsewhere.example', { type: 'CNAME', owner: undefined });
    const wanted = (values: string) => [...values].map((value) => ({ name: `${at}shop.example`, value }));
    const add = (values: string) => [`add ${at}shop.example ${values}`];
    type Case = readonly [
      what: string,
      values: string,
      zone: readonly ZoneRecord[],
      changes: readonly string[],
    ];
    const cases: readonly Case[] = [
      ['nothing is there', 'Ab', [], add('A b')],
      ['one is there', 'Ab', [text('A')], add('b')],
      ['all are there', 'Ab', ours, []],
      ['in the other case of letters', 'a', [text('A')], add('a')],
      ['beside a value of the founder', 'Ab', [foreign, another], add('A b')],
      ['the founder has it already', 'f', [foreign], []],
      ['one of a former order is left over', 'c', ours, add('c')],
      ['the other side of a partition has an order too', 'c', [...ours, text('c')], []],
      ['a CNAME', 'A', [alias], []],
      ['the order has ended', '', [...ours, foreign, another], [`remove ${at}shop.example A b`]],
      ['nothing of ours is there', '', [foreign, another], []],
      ['other names', '', [spf, mark], []],
    ];
    for (const [what, values, zone, changes] of cases)
      t.strictSame(plan([], zone, { challenges: wanted(values) }).changes.map(inShort), changes, what);
    t.strictSame(plan([], [...ours, foreign]).changes[0]?.ids, ['id A', 'id b']);
    t.match(plan([], [alias], { challenges: wanted('A') }).findings, [
      { code: 'dns-foreign', message: /_acme-challenge\.shop\.example has a CNAME record/ },
    ]);
    const many = Array.from({ length: 60 }, (_, number) => set(`h${number}.`, ['192.0.2.1']));
    t.match(
      plan(many, [], { challenges: wanted('A'), hold: 'a test' }).changes[0],
      { type: 'TXT' },
      'comes first',
    );
  },
);

t.test('the address of a dead daemon goes with its edge, never as the last', async (t) => {
  const zone = [record('', '192.0.2.1'), record('', '192.0.2.2')];
  const sets = [set('', ['192.0.2.1', '192.0.2.2'])];
  const changes = (
    doubtful: readonly string[],
    silent: readonly string[],
    guard: DnsSet['guard'] = 'serves',
  ) =>
    planDns(
      { owner: OWNER, sets: sets.map((each) => ({ ...each, guard })), challenges: [], doubtful },
      zone,
      new Set(silent),
    );
  t.strictSame(changes(['192.0.2.2'], []).changes, [], 'its edge answers');
  t.strictSame(changes([], ['192.0.2.2']).changes, [], 'its daemon is back');
  t.match(changes(['192.0.2.2'], ['192.0.2.2']).changes, [{ kind: 'remove', values: ['192.0.2.2'] }]);
  t.strictSame(changes(['192.0.2.2'], ['192.0.2.2'], 'finds').changes, [], 'it can still be found');
  const all = changes(['192.0.2.1', '192.0.2.2'], ['192.0.2.1', '192.0.2.2']);
  t.strictSame(all.changes, []);
  t.match(all.findings, [{ code: 'dns-held' }]);
});

t.test('an edge is silent after three questions in 15 s, and asked only while it is doubted', async (t) => {
  let answers = false;
  const asked: string[] = [];
  const changed: string[] = [];
  const edges = new EdgeWatch(async (address) => {
    asked.push(address);
    return answers;
  });
  const look = async (doubtful: readonly string[], nowMs: number): Promise<void> => {
    edges.look(doubtful, nowMs, (what) => changed.push(what));
    // The answer has come by the next turn.
    await Promise.resolve();
    await Promise.resolve();
  };
  for (let second = 0; second < 10; second += 1) await look(['192.0.2.2'], second * 1000);
  t.equal(asked.length, 2);
  t.equal(edges.silent.size, 0);
  await look(['192.0.2.2'], 10_000);
  t.strictSame([...edges.silent], ['192.0.2.2']);
  t.match(changed, [/no longer/]);
  answers = true;
  await look(['192.0.2.2'], 15_000);
  t.equal(edges.silent.size, 0, 'one answer is enough');
  t.match(changed, [/no longer/, /again/]);
  await look([], 20_000);
  answers = false;
  await look(['192.0.2.2'], 25_000);
  t.equal(edges.silent.size, 0, 'it is counted again');
});

t.test('a set is marked or given back only where that does what the operator means', async (t) => {
  const desired = { zone: 'shop.example', owner: OWNER, sets: [set('', ['192.0.2.1'])] };
  const yours = record('', '192.0.2.9', { owner: undefined, id: 'r1' });
  type Case = readonly [
    what: string,
    verb: 'adopt' | 'release',
    name: string,
    zone: readonly ZoneRecord[],
    found: object | undefined,
  ];
  const cases: readonly Case[] = [
    ['a record by hand', 'adopt', '', [yours], { from: undefined, to: OWNER, ids: ['r1'], ttlS: 60 }],
    ['ours already', 'adopt', '', [record('', '192.0.2.9')], undefined],
    [
      'of the cluster’s former name',
      'adopt',
      '',
      [record('', '192.0.2.9', { owner: 'former' })],
      { from: 'former', to: OWNER },
    ],
    [
      'one that nobody wants would be deleted',
      'adopt',
      'mail.',
      [record('mail.', '192.0.2.9', { owner: undefined })],
      { code: 'dns-not-wanted' },
    ],
    ['nothing there', 'adopt', '', [], { code: 'dns-set-unknown' }],
    [
      'another type there',
      'adopt',
      '',
      [record('', 'x', { type: 'MX', owner: undefined })],
      { code: 'dns-set-unknown' },
    ],
    [
      'two records of which one is ours',
      'adopt',
      '',
      [yours, record('', '192.0.2.8', { id: 'r2' })],
      { to: OWNER, ids: ['r1', 'r2'] },
    ],
    ['given back', 'release', '', [record('', '192.0.2.9')], { from: OWNER, to: undefined }],
    [
      'given back, though nobody wants it',
      'release',
      'old.',
      [record('old.', '192.0.2.9')],
      { from: OWNER, to: undefined },
    ],
    ['yours already', 'release', '', [yours], undefined],
    ['another cluster’s', 'release', '', [record('', '192.0.2.9', { owner: 'other' })], undefined],
    ['nothing to give back', 'release', '', [], { code: 'dns-set-unknown' }],
  ];
  for (const [what, verb, name, zone, found] of cases) {
    const judged = markChange(verb, { name: `${name}shop.example`, type: 'A' }, desired, zone);
    if (found === undefined) t.equal(judged, undefined, what);
    else t.match(judged, found, what);
  }
});

t.test('what is shown are the sets that are wanted and those with our mark', async (t) => {
  const zone = [
    record('', '192.0.2.9', { owner: undefined }),
    record('old.', '192.0.2.8'),
    record('mail.', '192.0.2.7', { owner: undefined }),
    record('app2.', '192.0.2.2', { owner: 'other' }),
  ];
  const sets = [set('', ['192.0.2.1']), set('app1.', ['192.0.2.1']), set('app2.', ['192.0.2.2'])];
  zone.push(record('_acme-challenge.old.', '"A"', { type: 'TXT' }));
  zone.push(record('_acme-challenge.old.', '"f"', { type: 'TXT', owner: undefined }));
  const desired = {
    zone: 'shop.example',
    owner: OWNER,
    writer: true,
    why: 'this node writes',
    sets,
    challenges: [{ name: '_acme-challenge.shop.example', value: 'b' }],
    doubtful: [],
  };
  const shown = shownRecords(desired, zone, new Set());
  t.strictSame(
    shown.sets.map(({ name, whose, wanted, present }) => [name, whose, wanted.join(), present.join()]),
    [
      ['shop.example', 'yours', '192.0.2.1', '192.0.2.9'],
      ['app1.shop.example', 'none', '192.0.2.1', ''],
      ['app2.shop.example', 'another', '192.0.2.2', '192.0.2.2'],
      ['old.shop.example', 'ours', '', '192.0.2.8'],
      ['_acme-challenge.shop.example', 'none', 'b', ''],
      ['_acme-challenge.old.shop.example', 'ours', '', 'A,f'],
    ],
  );
  t.match(shown.findings, [{ code: 'dns-foreign', next: /dns adopt shop\.example A/ }]);
});
