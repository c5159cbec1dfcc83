import * as fc from 'fast-check';
import t from 'tap';
import { type FirewallHelper, parseState } from '../../../src/plugins/firewall/observe.ts';
import { FirewallPlugin } from '../../../src/plugins/firewall/plugin.ts';
import { planFirewall } from '../../../src/plugins/firewall/plan.ts';
import { describeBase, type FirewallBase, renderBase } from '../../../src/plugins/firewall/rules.ts';

const APP: FirewallBase = {
  roles: ['app'],
  sshPorts: [922],
  sshFrom: [],
  privateDevice: 'eth1',
  privateNetwork: '10.0.0.0/24',
  ports: {
    public: [80, 443],
    gossip: [4101, 4102],
    appDoor: 8443,
    appSharing: 8444,
    appStats: 8404,
    dbDoor: 6984,
    dbStats: 8405,
    dbPeers: [6985, 4369, 9100],
    metrics: [],
  },
  neighbours: [{ address: '169.254.169.254', multihop: true }],
  allow: [{ protocol: 'tcp', port: 9000, from: '192.0.2.0/24' }],
  beside: false,
};
const rulesOf = (text: string): string[] =>
  text
    .slice(text.indexOf('chain input'))
    .split('\n')
    .map((line) => line.trim());

t.test('ssh is judged before the cluster, and members before what is established', async (t) => {
  const rules = rulesOf(renderBase(APP).text);
  const at = (start: string): number => rules.findIndex((rule) => rule.startsWith(start));
  t.equal(at('iif "lo" accept'), 2, 'after the head of the chain');
  t.equal(at('tcp dport { 922 } accept'), 3);
  t.equal(at('iifname "eth1" ip saddr 10.0.0.0/24 jump members'), 4);
  t.equal(at('ct state established'), 5);
  t.match(renderBase(APP).text, 'policy drop');
});

t.test('a BGP neighbour of either kind has rules of its own kind', async (t) => {
  const neighbours = [
    { address: '169.254.169.254', multihop: true },
    { address: '2001:db8:9::2', multihop: false },
  ];
  const rules = rulesOf(renderBase({ ...APP, neighbours }).text);
  for (const rule of [
    'ip saddr 169.254.169.254 tcp dport 179 accept',
    'ip saddr 169.254.169.254 udp dport 4784 accept',
    'ip6 saddr 2001:db8:9::2 tcp dport 179 accept',
    'ip6 saddr 2001:db8:9::2 udp dport 3784 accept',
  ])
    t.ok(rules.includes(rule), rule);
  for (const address of ['2001:db8::1%eth0', '2001:db8::/32', 'provider'])
    t.throws(() => renderBase({ ...APP, neighbours: [{ address, multihop: false }] }), {
      code: 'firewall-value-refused',
    });
});

t.test('networks of either kind have rules of their own kind', async (t) => {
  const sshOf = (sshFrom: readonly string[]): string[] =>
    rulesOf(renderBase({ ...APP, sshFrom }).text).filter((rule) => rule.includes('dport { 922 }'));
  t.strictSame(sshOf(['192.0.2.0/24']), ['ip saddr { 192.0.2.0/24 } tcp dport { 922 } accept']);
  t.strictSame(sshOf(['2001:db8::/32']), ['ip6 saddr { 2001:db8::/32 } tcp dport { 922 } accept']);
  t.strictSame(sshOf(['2001:db8::/32', '192.0.2.0/24', '::1']), [
    'ip saddr { 192.0.2.0/24 } tcp dport { 922 } accept',
    'ip6 saddr { 2001:db8::/32, ::1 } tcp dport { 922 } accept',
  ]);
  const allow = [{ protocol: 'udp', port: 51820, from: '2001:db8::/32' }] as const;
  t.match(renderBase({ ...APP, allow }).text, 'ip6 saddr 2001:db8::/32 udp dport 51820 accept');
});

t.test('a port that a role does not have is not opened', async (t) => {
  t.notMatch(renderBase(APP).text, /dport \{? ?6984.*accept/);
  const db = renderBase({ ...APP, roles: ['db'], ports: { ...APP.ports, public: [], gossip: [4103, 4104] } });
  t.notMatch(db.text, /dport \{ 80/);
  t.match(db.text, 'tcp dport { 6985, 4369, 9100 } ip saddr @dbs accept');
  t.match(db.text, 'tcp dport { 6984 } ip saddr @apps accept');
});

t.test('where metrics are on, who scrapes them need be no member', async (t) => {
  const metrics = [4105, 8404];
  const open = 'iifname "eth1" ip saddr 10.0.0.0/24 tcp dport { 4105, 8404 } accept';
  for (const beside of [false, true]) {
    const base = { ...APP, beside, ports: { ...APP.ports, metrics } };
    const rules = rulesOf(renderBase(base).text);
    t.ok(rules.indexOf(open) > rules.indexOf('iif "lo" accept'));
    t.ok(
      rules.indexOf(open) < rules.findIndex((rule) => rule.endsWith('jump members')),
      'before the members’ own',
    );
    t.match(describeBase(base).join('\n'), 'tcp 4105, 8404 (metrics): 10.0.0.0/24');
  }
  t.notMatch(renderBase(APP).text, open);
});

t.test('beside another firewall nothing is judged but member ports', async (t) => {
  const { text } = renderBase({ ...APP, beside: true });
  t.match(text, 'policy accept');
  t.strictSame(
    rulesOf(text).filter((rule) => /accept|drop|jump/.test(rule) && !rule.startsWith('type')),
    ['iif "lo" accept', 'iifname "eth1" ip saddr 10.0.0.0/24 jump members'],
  );
  t.match(describeBase({ ...APP, beside: true }), ['tcp 8443, 8444: app nodes']);
});

t.test('no value that could be read as a rule gets into one', async (t) => {
  const wrong: Partial<FirewallBase>[] = [
    { sshPorts: [] },
    { sshPorts: [22.5] },
    { sshPorts: [0] },
    { roles: [] },
    { privateDevice: 'eth1" accept' },
    { privateNetwork: '10.0.0.0/33' },
    { privateNetwork: '0.0.0.0/0 accept' },
    { sshFrom: ['anywhere'] },
    { sshFrom: ['2001:db8::/129'] },
    { sshFrom: ['fe80::1%eth0;accept/64'] },
    { sshFrom: ['fe80::1%eth0'] },
    { privateNetwork: '2001:db8::/64' },
    { allow: [{ protocol: 'tcp', port: 70, from: '2001:db8::/32 accept' }] },
    { neighbours: [{ address: '169.254.169.254; accept', multihop: false }] },
    { allow: [{ protocol: 'tcp', port: 70000, from: undefined }] },
    { allow: [{ protocol: 'tcp', port: 70, from: '}' }] },
    { ports: { ...APP.ports, appDoor: Number.NaN } },
  ];
  for (const each of wrong)
    t.throws(() => renderBase({ ...APP, ...each }), { code: 'firewall-value-refused' }, JSON.stringify(each));
});

const members = { apps: ['10.0.0.11', '10.0.0.12'], dbs: ['10.0.0.21'], why: 'test', keep: false };
const LIST = 'app 10.0.0.11\napp 10.0.0.12\ndb 10.0.0.21\n';
const helper = { ageS: 1, outcome: 'loaded', apps: members.apps, dbs: members.dbs } as const;

t.test('the plan is empty when the list and the helper hold the members', async (t) => {
  t.strictSame(planFirewall(members, { list: LIST, on: true, helper }), []);
  t.strictSame(planFirewall(members, { list: LIST, on: false, helper: undefined }), [], 'off');
});

t.test('what differs is written, and loaded where the firewall is on', async (t) => {
  const kinds = (list: string | undefined, on: boolean, seen: FirewallHelper | undefined = helper) =>
    planFirewall(members, { list, on, helper: seen }).map(({ kind }) => kind);
  t.strictSame(kinds(undefined, false), ['list']);
  t.strictSame(kinds('app 10.0.0.11\n', true), ['list', 'load']);
  t.strictSame(kinds(LIST, true, { ...helper, ageS: 30 }), ['load'], 'the helper is silent');
  t.strictSame(kinds(LIST, true, { ...helper, outcome: 'refused' }), ['load']);
  t.strictSame(kinds(LIST, true, { ...helper, dbs: [] }), ['load']);
  t.strictSame(planFirewall(members, { list: LIST, on: true, helper: undefined }).length, 1);
});

t.test('status says what is allowed, and a helper that is silent or refused', async (t) => {
  const plugin = new FirewallPlugin({ list: '/nowhere', base: '/nowhere', state: '/nowhere' });
  const status = (on: boolean, seen: FirewallHelper | undefined) =>
    plugin.status(members, { list: LIST, on, helper: seen });
  t.strictSame(status(false, undefined), { seen: 'off: every port is open', alarms: [] });
  t.strictSame(status(true, { ...helper, ageS: 29 }), { seen: 'on: 3 members allowed', alarms: [] });
  t.match(status(true, { ...helper, ageS: 30 }).alarms, [
    {
      code: 'firewall-silent',
      message: /^the helper of the firewall did not report for 30 s: the rules do not follow the members$/,
      next: /systemctl restart bornemisza-firewall/,
    },
  ]);
  t.match(status(true, { ...helper, outcome: 'refused' }).alarms, [
    { code: 'firewall-refused', message: /^the kernel refuses the rules .*; the old rules stay$/ },
  ]);
});

t.test('before the first sync no member is removed, and new ones are allowed', async (t) => {
  const [change] = planFirewall(
    { apps: ['10.0.0.13'], dbs: [], why: 'test', keep: true },
    { list: LIST, on: false, helper: undefined },
  );
  t.match(change, { kind: 'list', content: 'app 10.0.0.11\napp 10.0.0.12\napp 10.0.0.13\ndb 10.0.0.21\n' });
  const [later] = planFirewall(
    { ...members, apps: ['10.0.0.11'] },
    { list: LIST, on: false, helper: undefined },
  );
  t.match(later, { content: 'app 10.0.0.11\ndb 10.0.0.21\n', summary: '-10.0.0.12' });
});

t.test('a file that is half written, or of another program, counts as no state', async (t) => {
  t.match(parseState('100 loaded 0123456789abcdef\napps 10.0.0.1, 10.0.0.2\ndbs \n', 103), {
    ageS: 3,
    outcome: 'loaded',
    apps: ['10.0.0.1', '10.0.0.2'],
    dbs: [],
  });
  for (const text of ['', '100 loaded', '100 loaded aa\napps 10.0.0.1', 'x loaded aa\napps \ndbs \n'])
    t.equal(parseState(text, 1), undefined, JSON.stringify(text));
  fc.assert(
    fc.property(fc.string(), (text) => parseState(text, 1) === undefined || /^\d/.test(text)),
    { numRuns: 200 },
  );
});
