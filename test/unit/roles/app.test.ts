import t from 'tap';
import type { AppSituation } from '../../../src/roles/situation.ts';
import { announcementOf, type FloatingMode } from '../../../src/roles/app.ts';
import type { EffectiveMember } from '../../../src/roles/effective.ts';
import { appDesired, appInput, type MemberCase, member, view, well } from './cases.ts';

const self = member('app1/app', { self: true });
const servers = (group: { servers: readonly { name: string; duty: string }[] } | undefined): string[] =>
  (group?.servers ?? []).map(({ name, duty }) => `${name} ${duty}`);

t.test('the door knows which of its own services answer wrongly', async (t) => {
  const { haproxy } = appDesired({ ...appInput([self]), answerWrongly: ['api'] });
  t.equal(haproxy.services[0]?.answersWrongly, true);
  t.equal(appDesired(appInput([self])).haproxy.services[0]?.answersWrongly, undefined);
});

t.test('the databases: each db member with the duty of its rotation, at its app door', async (t) => {
  const cases: [string, MemberCase, string][] = [
    ['alive', {}, 'ready'],
    ['suspect', { state: 'suspect' }, 'ready'],
    ['restarting', { restarting: true }, 'ready'],
    ['dead', { state: 'dead' }, 'out-when-down'],
    ['leaving', { state: 'leaving' }, 'drain'],
    ['left', { state: 'left' }, 'maint'],
    ['in maintenance', { record: { maintenance: true } }, 'maint'],
    ['down', { record: { health: 'down' } }, 'maint'],
  ];
  for (const [what, of, duty] of cases) {
    const { haproxy } = appDesired(appInput([self, member('db1/db', of), member('db2/db')]));
    t.same(servers(haproxy.databases), [`db1 ${duty}`, 'db2 ready'], what);
  }
  const down: MemberCase = { record: { health: 'down' } };
  for (const [what, of, expected] of [
    ['none is well: a check decides', down, ['db1 out-when-down', 'db2 out-when-down']],
    ['one in maintenance', { record: { maintenance: true } }, ['db1 out-when-down', 'db2 maint']],
    ['one suspected', { state: 'suspect' }, ['db1 maint', 'db2 ready']],
  ] as [string, MemberCase, string[]][]) {
    const said = appDesired(appInput([self, member('db1/db', down), member('db2/db', of)])).haproxy;
    t.same(servers(said.databases), expected, what);
  }
  const { haproxy } = appDesired(appInput([self, member('db1/db')]));
  t.match(haproxy.databases, {
    verifySuffix: 'db.shop.internal',
    servers: [{ address: '10.0.0.21', port: 6984, why: 'alive and up' }],
  });
});

t.test('what a guard makes of a member is what counts, not its state', async (t) => {
  const held: EffectiveMember = {
    ...member('db1/db', { state: 'dead' }),
    rotation: 'in',
    reason: 'held: more than half of its role vanished at once',
  };
  const { haproxy } = appDesired(appInput([self, held]));
  t.match(haproxy.databases.servers, [{ name: 'db1', duty: 'ready', why: /held/ }]);
});

t.test('a service: the doors of the app nodes that carry it, this one included', async (t) => {
  const other = (of: MemberCase) => appDesired(appInput([self, member('app2/app', of)])).haproxy.services[0];
  const cases: [string, MemberCase, string[]][] = [
    ['carries it', {}, ['app1 ready', 'app2 ready']],
    ['never said that it carries it', { record: { services: [] } }, ['app1 ready']],
    [
      'says that it is down there',
      { record: { services: [{ name: 'api', health: 'down' }] } },
      ['app1 ready', 'app2 maint'],
    ],
    [
      'says that it is down there, and is suspected',
      { state: 'suspect', record: { services: [{ name: 'api', health: 'down' }] } },
      ['app1 ready', 'app2 out-when-down'],
    ],
    [
      'is down for another reason, the service is up',
      { record: { health: 'down' } },
      ['app1 ready', 'app2 ready'],
    ],
    [
      'is down with the service',
      { record: { health: 'down', services: [{ name: 'api', health: 'down' }] } },
      ['app1 ready', 'app2 maint'],
    ],
    ['in maintenance', { record: { maintenance: true } }, ['app1 ready', 'app2 maint']],
    [
      'in maintenance and down',
      { record: { maintenance: true, health: 'down' } },
      ['app1 ready', 'app2 maint'],
    ],
    ['leaving', { state: 'leaving' }, ['app1 ready', 'app2 drain']],
    ['left', { state: 'left', record: { health: 'down' } }, ['app1 ready', 'app2 maint']],
    ['dead', { state: 'dead' }, ['app1 ready', 'app2 out-when-down']],
  ];
  for (const [what, of, expected] of cases) t.same(servers(other(of)?.peers), expected, what);
  const down: MemberCase = { record: { services: [{ name: 'api', health: 'down' }] } };
  t.same(
    servers(
      appDesired(appInput([member('app1/app', { ...down, self: true }), member('app2/app', down)])).haproxy
        .services[0]?.peers,
    ),
    ['app1 out-when-down', 'app2 out-when-down'],
    'all say so: their checks decide',
  );
  const busy: MemberCase = { record: { health: 'down', services: [{ name: 'api', health: 'down' }] } };
  const last = (others: MemberCase) =>
    appDesired(appInput([member('app1/app', { ...busy, self: true }), member('app2/app', others)])).haproxy
      .services[0]?.peers.servers;
  for (const [what, of, duty] of [
    ['the others are in maintenance', { record: { maintenance: true } }, 'maint'],
    ['the others are dead', { state: 'dead' }, 'out-when-down'],
    ['the others left', { state: 'left' }, 'maint'],
    ['the others are down as nodes', busy, 'out-when-down'],
  ] as [string, MemberCase, string][]) {
    t.match(last(of), [{ duty: 'out-when-down', lastResort: true }, { duty }], what);
  }
  t.equal(last({})?.[0]?.lastResort, undefined, 'somebody else is well');
  t.equal(last({})?.[0]?.duty, 'maint');
  t.match(other({}), {
    name: 'api',
    prefix: '/api',
    healthPath: '/healthz',
    localPort: 3000,
    peers: { verifySuffix: 'app.shop.internal', servers: [{ port: 8443 }, {}] },
  });
});

t.test(
  'edges share what they count with every app node that may come back, and only for a limit',
  async (t) => {
    const own = { name: 'api', port: 3000, prefix: '/api', healthPath: '/', local: true };
    const members = [
      self,
      member('app2/app'),
      member('app3/app', { state: 'dead' }),
      member('app4/app', { state: 'left' }),
      member('db1/db'),
    ];
    const sharingWith = (services: (typeof own & { limit?: { paths: string[]; perMinute: number } })[]) =>
      appDesired(appInput(members, {}, { config: { services } })).haproxy.sharing;
    t.equal(sharingWith([own]), undefined);
    const sharing = sharingWith([{ ...own, limit: { paths: ['/api'], perMinute: 10 } }]);
    t.match(sharing, { host: 'app1', port: 8444, verifySuffix: 'app.shop.internal' });
    t.same(
      sharing?.edges.map(({ name }) => name),
      ['app2', 'app3'],
    );
  },
);

t.test('a node that only routes to a service is no server of it', async (t) => {
  const services = [{ name: 'api', port: 3000, prefix: '/api', healthPath: '/', local: false }];
  const [service] = appDesired(appInput([self, member('app2/app')], {}, { config: { services } })).haproxy
    .services;
  t.equal(service?.localPort, undefined);
  t.same(servers(service?.peers), ['app2 ready']);
});

t.test('who announces the floating IP', async (t) => {
  const down = { health: 'down' as const };
  const saysDown = member('app2/app', { record: down });
  const edgeDown = (changes: MemberCase = {}) =>
    member('app2/app', {
      ...changes,
      record: { ...down, services: [{ name: 'haproxy', health: 'down' }] },
    });
  const cases: [string, Partial<AppSituation>, EffectiveMember[], boolean][] = [
    ['up', {}, [member('app2/app')], true],
    ['up and alone', {}, [], true],
    ['its HAProxy refuses, though it is alone', { edge: 'fails', ...down }, [], false],
    ['its HAProxy refuses and all others are down', { edge: 'fails', ...down }, [saysDown], false],
    ['its HAProxy is silent, and the other’s may answer', { edge: 'silent', ...down }, [saysDown], false],
    ['its HAProxy is silent, and the other is up', { edge: 'silent' }, [member('app2/app')], false],
    ['its HAProxy is silent, and there is no other', { edge: 'silent', ...down }, [], true],
    ['the HAProxy of all edges is silent', { edge: 'silent', ...down }, [edgeDown()], true],
    [
      'the HAProxy of two is silent, and of the third it is not known',
      { edge: 'silent', ...down },
      [edgeDown(), member('app3/app', { record: down })],
      false,
    ],
    [
      'the HAProxy of all edges was silent, and one is not heard',
      { edge: 'silent', ...down },
      [edgeDown({ state: 'suspect' })],
      false,
    ],
    ['maintenance', { maintenance: true }, [saysDown], false],
    ['leaving', { leaving: true }, [saysDown], false],
    ['down, another is up', down, [member('app2/app')], false],
    [
      'down, and all others say so of themselves',
      down,
      [saysDown, member('app3/app', { record: down })],
      true,
    ],
    ['down, one of two others is up', down, [saysDown, member('app3/app')], false],
    ['down, the only app node', down, [member('db1/db')], true],
    ['down, and a database is up: no candidate', down, [saysDown, member('db1/db')], true],
    [
      'down, the other said down but is not heard: dead',
      down,
      [member('app2/app', { state: 'dead', record: down })],
      false,
    ],
    [
      'down, the other said down but is not heard: suspect',
      down,
      [member('app2/app', { state: 'suspect', record: down })],
      false,
    ],
    ['down, the other left', down, [member('app2/app', { state: 'left' })], true],
    [
      'down, the other is in maintenance',
      down,
      [member('app2/app', { record: { maintenance: true } })],
      true,
    ],
  ];
  for (const [what, local, others, expected] of cases) {
    const { announce, why } = announcementOf({ view: view([self, ...others]), local: { ...well, ...local } });
    t.equal(announce, expected, `${what}: ${why}`);
  }
});

t.test(
  'the last one standing stays for as long as the others report down, however old the reports are',
  async (t) => {
    const old = { ...member('app2/app', { record: { health: 'down' } }), freshMs: 3_600_000 };
    const local = { ...well, health: 'down' as const };
    t.ok(announcementOf({ view: view([self, old]), local }).announce);
    t.notOk(
      announcementOf({ view: view([self, old], { synced: false }), local }).announce,
      'not synced: nobody was heard yet',
    );
  },
);

t.test('the rank is the order of admission, and no death changes it', async (t) => {
  const me = member('app3/app', { self: true });
  const rank = (...others: EffectiveMember[]) =>
    appDesired(
      appInput(
        [...others, me],
        {},
        { config: { floating: { mode: 'ranked', device: 'f', addresses: ['192.0.2.7'] } } },
      ),
    ).bird;
  t.match(rank(member('app1/app'), member('app2/app')), { mode: 'ranked', rank: 2 });
  t.match(rank(member('app1/app', { state: 'dead' }), member('app2/app', { state: 'left' })), {
    mode: 'ranked',
    rank: 2,
  });
});

t.test('each mode has its program, and of the others nothing is to stay', async (t) => {
  const inMode = (mode: FloatingMode) =>
    appDesired(
      appInput([self], {}, { config: { floating: { mode, device: 'f', addresses: ['192.0.2.7'] } } }),
    );
  for (const mode of ['off', 'layer2'] as const)
    t.same(inMode(mode).bird, { retired: true, why: `floating.mode is "${mode}"` });
  for (const mode of ['off', 'bgp', 'ranked'] as const)
    t.match(inMode(mode).layer2, { addresses: [], hold: false, why: `floating.mode is "${mode}"` });
  t.match(inMode('layer2').layer2, { device: 'f', addresses: ['192.0.2.7'] });
  t.match(appDesired(appInput([self])).bird, {
    mode: 'equal',
    device: 'bm-float',
    addresses: ['192.0.2.7'],
    announce: true,
    why: 'this node is up',
  });
});

t.test('revoked certificates reach the doors', async (t) => {
  const revoked = [{ serialHex: 'ab', address: '10.0.0.9' }, { serialHex: 'cd' }];
  t.same(appDesired(appInput([self], {}, { view: { revoked } })).haproxy.revoked, [
    { serialHex: 'ab', address: '10.0.0.9' },
    { serialHex: 'cd', address: undefined },
  ]);
});
