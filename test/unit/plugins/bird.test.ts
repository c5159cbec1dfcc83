import t from 'tap';
import { parseProtocols, parseReply } from '../../../src/plugins/bird/control.ts';
import type { BirdDesired } from '../../../src/plugins/bird/desired.ts';
import { parseDevices } from '../../../src/plugins/bird/device.ts';
import {
  addressesIn,
  type BirdObserved,
  localAsIn,
  planBird,
  renderFragment,
} from '../../../src/plugins/bird/plan.ts';
import { lookAt } from '../../../src/plugins/bird/observe.ts';
import { faultOf, reportOf, wordOf } from '../../../src/plugins/bird/report.ts';

const desired: BirdDesired = {
  device: 'bm-float',
  addresses: ['192.0.2.8', '192.0.2.7'],
  mode: 'equal',
  rank: 0,
  announce: true,
  why: 'this node is up',
};
const fragment = renderFragment(desired, 64512);

/** All as it should be. */
const settled: BirdObserved = {
  devices: new Map([['bm-float', { up: true, kind: 'dummy', addresses: ['192.0.2.7/32', '192.0.2.8/32'] }]]),
  fragment: fragment.content,
  localAs: 64512,
  running: { loaded: fragment.digest, announcing: true, sessions: [] },
  fault: undefined,
};
const plan = (of: Partial<BirdObserved>, changes: Partial<BirdDesired> = {}): string[] =>
  planBird({ ...desired, ...changes }, { ...settled, ...of }).map(({ summary }) => summary);

t.test('what differs, and what is done about it, in this order', async (t) => {
  const running = settled.running!;
  const off = renderFragment({ ...desired, announce: false }, 64512).content;
  const device = (up: boolean, ...addresses: string[]) =>
    new Map([['bm-float', { up, kind: 'dummy', addresses }]]);
  const cases: [string, string[], string[]][] = [
    ['nothing', plan({}), []],
    [
      'withdraw: first of all, then the file',
      plan({}, { announce: false, why: 'maintenance' }),
      ['floating IPs: withdrawn (maintenance)', 'bornemisza.conf: rewritten'],
    ],
    [
      'announce: last of all',
      plan({ fragment: off, running: { ...running, announcing: false } }),
      ['bornemisza.conf: rewritten', 'floating IPs: announced (this node is up)'],
    ],
    [
      'disabled by hand',
      plan({ running: { ...running, announcing: false } }),
      ['floating IPs: announced (this node is up)'],
    ],
    [
      'enabled by hand',
      plan({ fragment: off }, { announce: false }),
      ['floating IPs: withdrawn (this node is up)'],
    ],
    ['an address gone', plan({ devices: device(true, '192.0.2.8/32') }), ['192.0.2.7/32: added to bm-float']],
    [
      'an address too many',
      plan({ devices: device(true, '192.0.2.7/32', '192.0.2.8/32', '10.0.0.1/24') }),
      ['10.0.0.1/24: removed from bm-float'],
    ],
    [
      'the device down',
      plan({ devices: device(false, '192.0.2.7/32', '192.0.2.8/32') }),
      ['device bm-float: up'],
    ],
    [
      'no device',
      plan({ devices: new Map() }),
      ['device bm-float: added', '192.0.2.7/32: added to bm-float', '192.0.2.8/32: added to bm-float'],
    ],
    ['the fragment edited', plan({ fragment: 'mine' }), ['bornemisza.conf: rewritten']],
    [
      'the fragment not loaded',
      plan({ running: { ...running, loaded: undefined } }),
      ['BIRD reads its configuration: the fragment is not loaded'],
    ],
    [
      'another fragment loaded',
      plan({ running: { ...running, loaded: 'other' } }),
      ['BIRD reads its configuration: the fragment changed'],
    ],
    [
      'BIRD is not running',
      plan({ running: undefined }),
      ['BIRD is not running: it reads the fragment at its start'],
    ],
  ];
  for (const [what, is, expected] of cases) t.same(is, expected, what);
});

t.test('a change of the announcement alone is no change of what BIRD must read', async (t) => {
  t.equal(renderFragment({ ...desired, announce: false }, 64512).digest, fragment.digest);
  t.not(renderFragment({ ...desired, addresses: ['192.0.2.7'] }, 64512).digest, fragment.digest);
});

t.test('an announcement that waits is not made, and one that is made is not withdrawn', async (t) => {
  const wait = 'app1 begins first';
  const withdrawn = renderFragment({ ...desired, announce: false }, 64512).content;
  const running = { ...settled.running!, announcing: false };
  const away = { fragment: withdrawn, running };
  t.same(plan(away, { wait }), [], 'not made');
  t.match(plan(away), [/rewritten/, /^floating IPs: announced/], 'made when nothing waits');
  t.same(plan({}, { wait }), [], 'not withdrawn');
  t.match(plan({ running }, { wait }), [/rewritten/], 'BIRD that starts again begins after the others, too');
  t.match(
    plan({ running: undefined }, { wait }),
    [/BIRD is not running/],
    'BIRD that is down for a moment is not held',
  );
  t.match(plan({}, { wait, announce: false }), [/withdrawn/], 'what must not be announced is withdrawn');
  t.match(reportOf({ ...desired, wait }, { ...settled, ...away }), {
    seen: 'not announced yet: app1 begins first',
    alarms: [],
    exported: false,
  });
});

t.test('the former device’s addresses are taken off when the configuration names another', async (t) => {
  const devices = new Map([
    ['bm-float', { up: true, kind: 'dummy', addresses: ['192.0.2.7/32', '192.0.2.8/32', '10.0.0.1/24'] }],
    ['other', { up: true, kind: 'dummy', addresses: [] }],
  ]);
  t.same(plan({ devices }, { device: 'other' }).slice(0, 4), [
    '192.0.2.7/32: added to other',
    '192.0.2.8/32: added to other',
    '192.0.2.7/32: removed from bm-float',
    '192.0.2.8/32: removed from bm-float',
  ]);
});

t.test('another mode takes away what this one made, the file last', async (t) => {
  const retire = (of: Partial<BirdObserved>): string[] =>
    planBird({ retired: true, why: 'floating.mode is "off"' }, { ...settled, ...of }).map(
      ({ summary }) => summary,
    );
  const all = retire({});
  t.same(all, [
    'floating IPs: withdrawn (floating.mode is "off")',
    'device bm-float: removed (floating.mode is "off")',
    'bornemisza.conf: emptied',
    'BIRD reads its configuration without the fragment',
    'bornemisza.conf: removed',
  ]);
  const devices = new Map([
    ['bm-float', { up: true, kind: 'bridge', addresses: ['192.0.2.7/32', '10.0.0.1/24'] }],
  ]);
  const cases: [string, string[], string[]][] = [
    ['nothing of ours is there', retire({ fragment: undefined }), []],
    ['BIRD is not running', retire({ running: undefined }), [all[1]!, all[4]!]],
    [
      'a crash in the middle: BIRD still has it',
      retire({
        fragment: '# emptied',
        devices: new Map(),
        running: { ...settled.running!, announcing: false },
      }),
      all.slice(2),
    ],
    [
      'a device that the founder made stays, with what is not ours',
      retire({ devices, running: undefined }),
      ['192.0.2.7/32: removed from bm-float', all[4]!],
    ],
  ];
  for (const [what, is, expected] of cases) t.same(is, expected, what);
});

t.test('the fragment lets nothing in but the configured addresses', async (t) => {
  t.match(
    fragment.content,
    /if net !~ \[ 192\.0\.2\.7\/32, 192\.0\.2\.8\/32 \] then reject;\n {4}preference = 1000;\n {4}accept;/,
  );
  t.notMatch(renderFragment({ ...desired, addresses: [] }, 1).content, /accept/);
});

t.test('IPv6 has a channel of its own, with the same rules', async (t) => {
  const six = ['2001:db8::8', '2001:db8::7'];
  const both = renderFragment({ ...desired, addresses: [...six, ...desired.addresses] }, 64512).content;
  t.match(
    both,
    /ipv4 \{ import filter \{\n {4}if net !~ \[ 192\.0\.2\.7\/32, 192\.0\.2\.8\/32 \] then reject;/,
  );
  t.match(
    both,
    /ipv6 \{ import filter \{\n {4}if net !~ \[ 2001:db8::7\/128, 2001:db8::8\/128 \] then reject;/,
  );
  t.same(addressesIn(both), ['192.0.2.7/32', '192.0.2.8/32', '2001:db8::7/128', '2001:db8::8/128']);
  const ranked = renderFragment({ ...desired, addresses: [...six, '192.0.2.7'], mode: 'ranked', rank: 1 }, 7);
  t.equal(ranked.content.match(/bgp_path\.prepend\(7\);/g)?.length, 2);
  t.notMatch(fragment.content, 'ipv6', 'without such an address BIRD need not read its file again');
  t.notMatch(renderFragment({ ...desired, addresses: six }, 1).content, 'ipv4');
  for (const address of [
    '2001:DB8::7',
    '2001:db8:0::7',
    '2001:db8::7/128',
    'fe80::1',
    'ff02::1',
    '::ffff:192.0.2.7',
  ])
    t.throws(
      () => renderFragment({ ...desired, addresses: [address] }, 1),
      { code: 'bird-value-refused' },
      address,
    );
  t.same(plan({}, { addresses: [...desired.addresses, '2001:db8::7'] }), [
    '2001:db8::7/128: added to bm-float',
    'bornemisza.conf: rewritten',
    'BIRD reads its configuration: the fragment changed',
  ]);
});

t.test('ranked: the path is longer by the rank, bounded, and by the roster alone', async (t) => {
  const prepends = (rank: number, localAs: number | undefined) =>
    [...renderFragment({ ...desired, mode: 'ranked', rank }, localAs).content.matchAll(/prepend\(64512\)/g)]
      .length;
  t.same([prepends(0, 64512), prepends(2, 64512), prepends(50, 64512), prepends(2, undefined)], [0, 2, 8, 0]);
  t.equal(
    localAsIn(renderFragment({ ...desired, mode: 'ranked' }, 64512).content),
    64512,
    'known while BIRD is down',
  );
  t.equal(
    renderFragment(desired, undefined).digest,
    fragment.digest,
    'without ranks the number does not matter',
  );
});

t.test('hostile values are refused', async (t) => {
  const cases: Partial<BirdDesired>[] = [
    { device: 'x"; }' },
    { device: '' },
    { device: 'a-name-of-16-char' },
    { addresses: ['192.0.2.7/0'] },
    { addresses: ['192.0.2.7]\n'] },
    { addresses: ['::1'] },
    { rank: -1 },
    { rank: 1.5 },
  ];
  for (const changes of cases) {
    t.throws(
      () => renderFragment({ ...desired, ...changes }, 1),
      { code: 'bird-value-refused', outcome: 'terminal' },
      JSON.stringify(changes),
    );
  }
});

t.test(
  'answers: `-` continues, a space ends, a leading space repeats the code, the rest is kept',
  async (t) => {
    t.equal(parseReply('0001 BIRD'), undefined, 'not a whole line');
    t.equal(parseReply('1002-a\n b\n'), undefined, 'not at its end');
    t.same(parseReply('1002-a\n b\n+log line\n0000 \n0001 x\n'), {
      lines: [
        { code: 1002, text: 'a' },
        { code: 1002, text: 'b' },
        { code: 0, text: '' },
      ],
      rest: '0001 x\n',
    });
  },
);

t.test('protocols, as BIRD 2.0.12 prints them', async (t) => {
  const text = `2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     18:05:03.133  
1006-
1002-provider   BGP        ---        up     2026-11-22 18:05:03  Established   
1006-  BGP state:          Established
     Neighbor AS:      64515
     Local AS:         64512
     Hold timer:       7.144/9
     Keepalive timer:  1.207/3
 
1002-bornemisza_floating Direct     ---        down   18:05:03.133  
1006-  Description:    bornemisza abc
   Channel ipv4
     State:          DOWN
0000 
`;
  t.same(parseProtocols(parseReply(text)?.lines ?? []), [
    {
      name: 'device1',
      kind: 'Device',
      up: true,
      info: '',
      description: '',
      localAs: undefined,
      holdTimeS: undefined,
    },
    {
      name: 'provider',
      kind: 'BGP',
      up: true,
      info: 'Established',
      description: '',
      localAs: 64512,
      holdTimeS: 9,
    },
    {
      name: 'bornemisza_floating',
      kind: 'Direct',
      up: false,
      info: '',
      description: 'bornemisza abc',
      localAs: undefined,
      holdTimeS: undefined,
    },
  ]);
});

t.test('each family is judged by itself: a provider has a session for each, or one for both', async (t) => {
  const [four, six] = [['192.0.2.7', '192.0.2.8'], ['2001:db8::7']];
  const session = (name: string, ...addresses: string[]) => ({
    name,
    state: 'Established',
    up: true,
    routes: addresses.map((address) => ({ address, by: 'bornemisza_floating' })),
  });
  const down = (name: string) => ({ ...session(name), up: false, state: 'Active' });
  const lacks = 'bird-route-not-exported';
  const cases = [
    ['one session each', [session('up4', ...four), session('up6', ...six)], undefined],
    ['one for both', [session('up', ...four, ...six)], undefined],
    [
      'none for IPv6',
      [session('up4', ...four)],
      lacks,
      /^up4 does not export 2001:db8::7: /,
      /an ipv6 channel/,
    ],
    [
      'none for IPv4',
      [session('up6', ...six)],
      lacks,
      /^up6 does not export 192\.0\.2\.7, 192\.0\.2\.8: /,
      /an ipv4/,
    ],
    [
      'half of IPv4',
      [session('up4', '192.0.2.7'), session('up6', ...six)],
      lacks,
      /not export 192\.0\.2\.8: /,
      /./,
    ],
    [
      'IPv6 down',
      [session('up4', ...four), down('up6')],
      'bird-session-down',
      /has no route to 2001:db8::7 through this node$/,
      /protocols all up6`$/,
    ],
    [
      'the second of two is down',
      [session('up4', ...four), session('up6', ...six), down('second')],
      'bird-session-down',
      /only the others announce 192\.0\.2\.7, 192\.0\.2\.8, 2001:db8::7$/,
      /protocols all second`$/,
    ],
  ] as const;
  for (const [what, sessions, code, message, next] of cases) {
    const of = { ...desired, addresses: [...four, ...six] };
    t.equal(faultOf({ sessions }, of.addresses, true), code, what);
    const running = { ...settled.running!, sessions };
    const fault = code === undefined ? undefined : { code, forMs: 60_000 };
    const { alarms } = reportOf(of, { ...settled, running, fault });
    t.match(alarms, code === undefined ? [] : [{ code, message, next }], what);
    t.equal(alarms.length, code === undefined ? 0 : 1, what);
  }
});

t.test('a hold time above the configured one is an alarm, and does not end the announcement', async (t) => {
  const of = (holdTimeS: number | undefined, most: number | undefined) => {
    const routes = desired.addresses.map((address) => ({ address, by: 'bornemisza_floating' }));
    const sessions = [{ name: 'uplink', state: 'Established', up: true, routes, holdTimeS }];
    const running = { loaded: fragment.digest, announcing: true, sessions };
    return reportOf({ ...desired, ...(most !== undefined && { holdTimeS: most }) }, { ...settled, running });
  };
  for (const [hold, most, message] of [
    [9, 9, undefined],
    [3, 9, undefined],
    [undefined, 9, undefined],
    [240, undefined, undefined],
    [240, 9, /hold time of 240 s: if this machine dies/],
    [0, 9, /no hold time: if this machine dies/],
  ] as const) {
    const report = of(hold, most);
    t.match(
      report.alarms,
      message === undefined ? [] : [{ code: 'bird-hold-time', message, next: /hold time 9;/ }],
    );
    t.equal(report.alarms.length, message === undefined ? 0 : 1, `${hold} of ${most}`);
    t.equal(wordOf(report), 'exported', 'the others learn that it announces');
  }
});

t.test('devices, as ip prints them', async (t) => {
  const text = JSON.stringify([
    {
      ifname: 'lo',
      flags: ['LOOPBACK', 'UP'],
      addr_info: [
        { family: 'inet', local: '127.0.0.1', prefixlen: 8 },
        { family: 'inet6', local: '::1', prefixlen: 128 },
      ],
    },
    { ifname: 'bm-float', flags: ['BROADCAST'], linkinfo: { info_kind: 'ifb' }, addr_info: [] },
    {},
  ]);
  t.same(
    [...parseDevices(text)],
    [
      ['lo', { up: true, kind: undefined, addresses: ['127.0.0.1/8'] }],
      ['bm-float', { up: false, kind: 'ifb', addresses: [] }],
    ],
  );
  t.same([...parseDevices('')], []);
});

t.test('each session is asked about each address, and the report says how many were not', async (t) => {
  const addresses = Array.from({ length: 16 }, (_, index) => `192.0.2.${index + 1}`);
  const row = (name: string, kind: string): string => `${name} ${kind} --- up 08:56:20.126 Established`;
  /** BIRD with sessions of which the last BGP one alone exports. */
  const seen = async (bgp: number, others = 0) => {
    const names = Array.from({ length: bgp }, (_, index) => `up${index + 1}`);
    const rows = [
      ...Array.from({ length: others }, (_, index) => row(`ospf${index + 1}`, 'OSPF')),
      ...names.map((name) => row(name, 'BGP')),
    ];
    const sight = await lookAt(
      async (command) => {
        if (command === 'show protocols all') return rows.map((text) => ({ code: 1002, text }));
        const [, network, name] = /^show route (\S+) export (\S+)$/.exec(command) ?? [];
        if (name !== names.at(-1)) return [];
        return [{ code: 1007, text: `${network}  unicast [bornemisza_floating 08:56:20.126] * (240)` }];
      },
      addresses.map((address) => `${address}/32`),
    );
    const running = { ...settled.running!, ...sight };
    const of = { ...desired, addresses };
    return { ...reportOf(of, { ...settled, running }), fault: faultOf(running, addresses, true) };
  };
  t.match(await seen(6), { exported: true, fault: undefined, seen: /^announced: exported to up6 \(/ });
  t.match(await seen(16, 20), {
    exported: true,
    fault: undefined,
    seen: /; 20 more sessions were not asked/,
  });
  t.match(await seen(20), {
    exported: false,
    fault: undefined,
    seen: /^not announced: exported to no session .*; 4 more sessions were not asked what they export$/,
  });
});
