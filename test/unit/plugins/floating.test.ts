import t from 'tap';
import type { ApiDesired, Owner } from '../../../src/plugins/floating/desired.ts';
import { AddressWatch } from '../../../src/plugins/floating/observe.ts';
import {
  type ApiObserved,
  findingsOf,
  heldIn,
  labelOf,
  paceMs,
  planFloating,
  verdictOf,
} from '../../../src/plugins/floating/plan.ts';
import { until } from '../../support/until.ts';

const A = '203.0.113.7';
const B = '203.0.113.8';
const owner = (name: string, id: string | undefined, from: Owner['from']): Owner => ({ name, id, from });

/** This node is server 2 and is to have the address; server 1 is dead and said nothing. */
const desired = (changes: Partial<ApiDesired> = {}): ApiDesired => ({
  ...{ addresses: [A], device: '', take: true, barred: undefined, ask: 'doubt', silentTo: [] },
  others: [owner('app1/app', '1', 'unheard'), owner('app3/app', '3', 'never')],
  why: 'first in line',
  ...changes,
});
const observed = (to: string | undefined, changes: Partial<ApiObserved> = {}): ApiObserved => ({
  ...{ label: 'DigitalOcean', self: '2', fresh: true, fault: undefined, failingForMs: 0, held: [] },
  assigned: new Map([[A, { to, busy: false }]]),
  asked: new Map(),
  pending: new Set(),
  again: new Set(),
  ids: new Map(),
  ...changes,
});
const silent = { asked: new Map([[A, 'silent' as const]]) };
const answers = { asked: new Map([[A, 'answers' as const]]) };
const onDevice = { held: [{ device: 'eth0', address: A }] };
const given = [owner('app1/app', '1', 'given')];
const kinds = (wanted: ApiDesired, seen: ApiObserved): string =>
  planFloating(wanted, seen)
    .map(({ kind, address }) => (address === A ? kind : `${kind} ${address}`))
    .join(', ');

t.test('when the provider is called, and when not', async (t) => {
  type Case = [what: string, wanted: ApiDesired, seen: ApiObserved, changes: string];
  const cases: Case[] = [
    ['nobody has it', desired(), observed(undefined), 'assign'],
    ['it is here', desired(), observed('2'), ''],
    [
      'it is here, and this node is to have it no more: nobody unassigns',
      desired({ take: false }),
      observed('2'),
      '',
    ],
    ['this node is not to have it, and nobody has', desired({ take: false }), observed(undefined), ''],
    ['its dead holder was not asked yet', desired(), observed('1'), ''],
    ['its dead holder is silent', desired(), observed('1', silent), 'assign'],
    ['its dead holder answers', desired(), observed('1', answers), ''],
    [
      'its holder gave it up itself: nobody is asked',
      desired({ others: given }),
      observed('1', answers),
      'assign',
    ],
    ['its holder is well', desired(), observed('3', silent), ''],
    ['a server of no member has it', desired(), observed('9', silent), ''],
    [
      'one of a former member has it',
      desired(),
      observed('9', { ids: new Map([['app9/app', '9']]) }),
      'assign',
    ],
    [
      'its holder has restarted and not told its server again',
      desired({ others: [owner('app3/app', undefined, 'never')] }),
      observed('3', { ids: new Map([['app3/app', '3']]) }),
      '',
    ],
    ['the look of now did not work', desired({ others: given }), observed('1', { fresh: false }), ''],
    ['this server is not known', desired(), observed(undefined, { self: undefined }), ''],
    ['nothing was looked at', desired(), observed('1', { ...silent, assigned: new Map() }), ''],
    ['the provider works on it', desired({ others: given }), observed('1', { assigned: busy('1') }), ''],
    ['it was ordered', desired({ others: given }), observed('1', { pending: new Set([A]) }), ''],
    ['it is elsewhere', desired({ others: given }), observed('1', { assigned: elsewhere('1') }), ''],
    [
      'another is silent to it, and this node has it',
      desired({ silentTo: ['app3/app'] }),
      observed('2'),
      'assign',
    ],
    [
      'that was ordered once already',
      desired({ silentTo: ['app3/app'] }),
      observed('2', { again: new Set([A]) }),
      '',
    ],
  ];
  for (const [what, wanted, seen, changes] of cases) t.equal(kinds(wanted, seen), changes, what);
});

function busy(to: string): ApiObserved['assigned'] {
  return new Map([[A, { to, busy: true }]]);
}
function elsewhere(to: string): ApiObserved['assigned'] {
  return new Map([[A, { to, busy: false, elsewhere: 'nyc3' }]]);
}

t.test('the device follows the assignment, and an order comes after the address is there', async (t) => {
  const device = { device: 'eth0' };
  const foreign = {
    held: [
      { device: 'eth9', address: A },
      { device: 'eth0', address: '203.0.113.99' },
    ],
  };
  type Case = [what: string, wanted: ApiDesired, seen: ApiObserved, changes: string];
  const cases: Case[] = [
    ['assigned here', desired(device), observed('2'), 'device-on'],
    ['assigned here, not wanted', desired({ ...device, take: false }), observed('2'), 'device-on'],
    ['nothing to do', desired(device), observed('2', onDevice), ''],
    ['it is taken', desired(device), observed('1', silent), 'device-on, assign'],
    ['another has it', desired(device), observed('3', onDevice), 'device-off'],
    ['the dead holder is to be asked, from outside', desired(device), observed('1', onDevice), 'device-off'],
    [
      'another has it, by an older look',
      desired(device),
      observed('3', { ...onDevice, fresh: false }),
      'device-off',
    ],
    ['ordered, not done yet', desired(device), observed('1', { ...onDevice, pending: new Set([A]) }), ''],
    ['never looked', desired(device), observed('1', { ...onDevice, assigned: new Map() }), ''],
    [
      'left on another device, and of a former configuration',
      desired(device),
      observed('2', { held: [...foreign.held, ...onDevice.held] }),
      'device-off, device-off 203.0.113.99',
    ],
    [
      'another mode',
      desired({ addresses: [], device: '', take: false }),
      observed('2', onDevice),
      'device-off',
    ],
  ];
  for (const [what, wanted, seen, changes] of cases) t.equal(kinds(wanted, seen), changes, what);
});

t.test('two that have a part each become one, and one address is never a part', async (t) => {
  const rival = desired({ addresses: [A, B], others: [owner('app1/app', '1', 'rival')] });
  const both = (a: string, b: string) =>
    observed(a, {
      assigned: new Map([A, B].map((each, at) => [each, { to: at === 0 ? a : b, busy: false }])),
    });
  t.equal(kinds(rival, both('2', '1')), `assign ${B}`);
  t.equal(kinds(rival, both('1', '1')), '');
  t.equal(kinds({ ...rival, addresses: [A] }, observed('1')), '');
});

t.test('each finding has its code, and a healthy state has none', async (t) => {
  const codes = (wanted: ApiDesired, seen: ApiObserved): string =>
    findingsOf(wanted, seen)
      .map(({ code, message, next }) => {
        t.ok(message.includes(A) && next.length > 10, message);
        return code;
      })
      .join();
  const watch = desired({ take: false, ask: 'watch' });
  t.equal(codes(desired(), observed('2')), '');
  t.equal(codes(desired(), observed('1', silent)), '');
  t.equal(codes(desired(), observed('1', answers)), 'floating-serves');
  t.equal(codes(desired(), observed('9')), 'floating-foreign');
  t.equal(codes(desired({ take: false }), observed('9')), '');
  t.equal(codes(desired(), observed('1', { assigned: busy('1') })), 'floating-busy');
  t.equal(codes(desired(), observed('1', { assigned: elsewhere('1') })), 'floating-region');
  t.equal(codes(watch, observed('3', silent)), 'floating-unmoved');
  t.equal(codes(watch, observed('3', answers)), '');
  const told = desired({ silentTo: ['app3/app'] });
  t.equal(codes(told, observed('2')), '', 'it is ordered once more first');
  t.equal(codes(told, observed('2', { again: new Set([A]) })), 'floating-unmoved');
  const fault = { code: 'floating-api-down', message: `no answer about ${A}`, next: 'it is tried again' };
  t.equal(codes(desired(), observed('1', { fault, fresh: false })), 'floating-api-down');
});

t.test('how often the provider is asked', async (t) => {
  const pace = (wanted: Partial<ApiDesired>, to: string | undefined, calls = 1) =>
    paceMs(desired(wanted), observed(to), calls);
  t.equal(pace({}, '2'), 10_000, 'the holder');
  t.equal(pace({}, '1'), 3300, 'who is to have them, and waits for something');
  t.equal(pace({ take: false, ask: undefined }, '2'), 3300, 'who gives up');
  const ordered = observed('1', { pending: new Set([A]) });
  t.equal(paceMs(desired(), ordered, 1), 1100, 'who has ordered');
  t.equal(paceMs(desired(), ordered, 3), 3300, 'never above sixty calls a minute');
  t.equal(pace({ take: false, ask: 'watch' }, '1'), 60_000, 'the next in line');
  t.equal(pace({ take: false, ask: undefined }, '1'), 600_000, 'the others');
});

t.test('verdicts need a current observation', async (t) => {
  t.equal(verdictOf(A, desired(), observed('2', { fresh: false })), 'ours');
  t.equal(verdictOf(A, desired(), observed(undefined, { fresh: false })), 'stays');
  t.equal(verdictOf(B, desired(), observed('2')), 'stays');
});

t.test('only what bears our label is ours', async (t) => {
  const entry = (ifname: string, label: string, local: string) => ({
    ifname,
    addr_info: [{ family: 'inet', local, prefixlen: 32, label }],
  });
  const all = [entry('eth0', 'eth0', B), entry('eth0', 'eth0:bf', A), entry('eth1', 'eth1:bm', B)];
  t.strictSame(heldIn(JSON.stringify(all)), [{ device: 'eth0', address: A }]);
  t.equal(labelOf('a-long-device-x').length, 15);
});

t.test('silence is three questions in doubt and four in a watch, and one answer ends it', async (t) => {
  let asked = 0;
  let up = false;
  const heard: string[] = [];
  const watch = new AddressWatch(async () => {
    asked += 1;
    return up;
  });
  let nowMs = 0;
  const turn = async (mode: ApiDesired['ask'], stepMs: number): Promise<string | undefined> => {
    nowMs += stepMs;
    watch.look(mode, [A], nowMs, (what) => heard.push(what));
    await new Promise((resolve) => setImmediate(resolve));
    return watch.said.get(A);
  };
  const seen: (string | undefined)[] = [];
  for (let count = 0; count < 4; count += 1) seen.push(await turn('doubt', 500));
  t.strictSame(seen, [undefined, undefined, 'silent', 'silent']);
  t.equal(await turn('doubt', 100), 'silent');
  t.equal(asked, 4, 'not asked before its time');
  up = true;
  t.equal(await turn('doubt', 500), 'answers');
  up = false;
  t.equal(await turn('doubt', 500), undefined, 'one silence is none');
  t.equal(await turn('watch', 500), undefined, 'what was heard in doubt is forgotten');
  for (let count = 0; count < 2; count += 1) t.equal(await turn('watch', 5000), undefined);
  t.equal(await turn('watch', 5000), 'silent');
  await until(() => heard.length === 3, { what: `three changes: ${heard.join('; ')}` });
  t.strictSame(heard, [`${A} no longer answers`, `${A} answers`, `${A} no longer answers`]);
  const before = asked;
  await turn(undefined, 60_000);
  t.equal(asked, before);
});
