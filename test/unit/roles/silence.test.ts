import t from 'tap';
import type { EffectiveMember } from '../../../src/roles/effective.ts';
import { withSilence } from '../../../src/roles/silence.ts';
import { appDesired, appInput, member, type MemberCase, view } from './cases.ts';

const NOW = 100_000;
const doors = { app: 8443, db: 6984 };
const ADDRESSES: Readonly<Record<string, string>> = {
  app1: '10.0.0.11',
  app2: '10.0.0.12',
  app3: '10.0.0.13',
  db1: '10.0.0.21',
  db2: '10.0.0.22',
};

/** @param silent hosts without an answer, of the asked ones; by default all others were asked */
function seen(
  members: readonly EffectiveMember[],
  silent: readonly string[],
  { synced = true, deadForMs = 0, asked = ['app2', 'app3', 'db1', 'db2'] } = {},
) {
  const of = (hosts: readonly string[]) => hosts.map((host) => ADDRESSES[host] ?? host);
  const believed = members.map(({ record, state }) => ({
    ...{ record, state, heardMs: NOW, restarting: false, self: false, accusers: [] },
    sinceMs: NOW - deadForMs,
  }));
  return withSilence({
    effective: view(members, { synced }),
    view: { version: 1, self: 'peer-app1/app', synced, members: believed },
    found: { asked: of(asked), silent: of(silent) },
    doors,
    nowMs: NOW,
  });
}

const cluster = (changes: Readonly<Record<string, MemberCase>> = {}): EffectiveMember[] =>
  ['app1/app', 'app2/app', 'app3/app', 'db1/db', 'db2/db'].map((name) =>
    member(name, { self: name === 'app1/app', ...changes[name] }),
  );

const marked = (of: ReturnType<typeof seen>): string[] =>
  of.view.members.filter(({ silent }) => silent === true).map(({ record }) => record.name);

t.test('whose silence counts', async (t) => {
  const dead: MemberCase = { state: 'dead' };
  const cases: [string, ReturnType<typeof seen>, string[]][] = [
    ['nobody is silent', seen(cluster(), []), []],
    ['one of four hosts', seen(cluster(), ['app2']), ['app2/app']],
    ['a db host', seen(cluster(), ['db1']), ['db1/db']],
    ['before the first sync', seen(cluster(), ['app2'], { synced: false }), []],
    ['half of the asked hosts', seen(cluster(), ['app2', 'db1']), ['app2/app', 'db1/db']],
    ['more than half of them: this host’s own link', seen(cluster(), ['app2', 'db1', 'db2']), []],
    ['all of them', seen(cluster(), ['app2', 'app3', 'db1', 'db2']), []],
    ['the only other one that was asked', seen(cluster(), ['app2'], { asked: ['app2'] }), []],
    ['most app nodes', seen(cluster(), ['app2', 'app3']), []],
    ['every db node', seen(cluster(), ['db1', 'db2']), []],
    ['one that just died', seen(cluster({ 'app2/app': dead }), ['app2'], { deadForMs: 9000 }), ['app2/app']],
    ['one that is dead for long', seen(cluster({ 'app2/app': dead }), ['app2'], { deadForMs: 10_000 }), []],
    ['one that is leaving', seen(cluster({ 'app2/app': { state: 'leaving' } }), ['app2']), []],
    [
      'a host of both roles',
      seen(cluster({ 'db2/db': { record: { address: '10.0.0.12' } } }), ['app2']),
      ['app2/app', 'db2/db'],
    ],
    [
      'this node’s own host, by its other role',
      seen(cluster({ 'db2/db': { record: { address: '10.0.0.11' } } }), ['app1']),
      [],
    ],
  ];
  for (const [what, of, expected] of cases) t.same(marked(of), expected, what);
});

t.test('the hosts to watch: each once, with the doors and daemons of its members', async (t) => {
  const members = cluster({
    'db2/db': { record: { address: '10.0.0.12', port: 4103 } },
    'app3/app': { record: { port: 0 } },
  });
  t.same(seen(members, []).watched, [
    { address: '10.0.0.12', names: ['app2/app', 'db2/db'], doors: [8443, 6984], daemons: [4101, 4103] },
    { address: '10.0.0.21', names: ['db1/db'], doors: [6984], daemons: [4101] },
  ]);
});

t.test('its servers are marked, in each backend of its role, and its rotation stays', async (t) => {
  const { view: now } = seen(cluster({ 'db2/db': { record: { maintenance: true } } }), ['app2', 'db2']);
  const input = appInput(now.members);
  const { haproxy } = appDesired(input);
  const why = 'its host does not answer';
  t.match(haproxy.services[0]?.peers.servers, [
    { name: 'app1', silent: undefined },
    { name: 'app2', duty: 'ready', silent: true, why },
    { name: 'app3', silent: undefined },
  ]);
  t.match(haproxy.databases.servers, [
    { name: 'db1', silent: undefined },
    { name: 'db2', duty: 'maint', silent: true, why: 'is in maintenance' },
  ]);
  t.same(
    haproxy.doors.servers.map(({ name, port }) => `${name}:${port}`),
    ['app2:8443', 'app3:8443'],
    'HAProxy asks the other app nodes',
  );
});
