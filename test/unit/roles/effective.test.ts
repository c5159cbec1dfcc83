import t from 'tap';
import { type MemberCase, member } from './cases.ts';

t.test('what each state of a member means for traffic, when no guard holds anything', async (t) => {
  const cases: [string, MemberCase, string][] = [
    ['alive and up', {}, 'in'],
    ['suspect: still serving', { state: 'suspect' }, 'in'],
    [
      'restarting its daemon: its checks go on',
      { restarting: true, record: { goodbye: { kind: 'restart', windowMs: 10_000 } } },
      'in',
    ],
    ['dead by membership alone: its own check decides', { state: 'dead' }, 'unwatched'],
    [
      'dead, and was in maintenance: still its own check',
      { state: 'dead', record: { maintenance: true } },
      'unwatched',
    ],
    ['leaving: finishes what it has', { state: 'leaving' }, 'drain'],
    ['left', { state: 'left' }, 'out'],
    ['in maintenance', { record: { maintenance: true } }, 'out'],
    ['reports down', { record: { health: 'down' } }, 'out'],
    ['stopping', { record: { goodbye: { kind: 'stop', windowMs: 0 } } }, 'drain'],
    ['shutting down', { record: { goodbye: { kind: 'shutdown', windowMs: 0 } } }, 'drain'],
  ];
  for (const [what, of, rotation] of cases) t.equal(member('db1/db', of).rotation, rotation, what);
});

t.test('a member’s own report of down is believed', async (t) => {
  const services = [
    { name: 'couchdb', health: 'down' as const },
    { name: 'haproxy', health: 'up' as const },
  ];
  t.equal(member('db1/db', { record: { health: 'down', services } }).reason, 'reports down: couchdb');
});
