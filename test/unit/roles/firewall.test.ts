import t from 'tap';
import { firewallOf } from '../../../src/roles/firewall.ts';
import { member, view } from './cases.ts';

const NETWORK = '10.0.0.0/24';

t.test('all admitted members are allowed, by role, except those that left', async (t) => {
  const members = [
    member('app2/app', { self: true }),
    member('app1/app', { state: 'dead' }),
    member('app3/app', { state: 'left' }),
    member('db1/db', { state: 'suspect' }),
    member('db2/db', { state: 'leaving', record: { maintenance: true, health: 'down' } }),
  ];
  t.match(firewallOf(view(members), NETWORK), {
    apps: ['10.0.0.11', '10.0.0.12'],
    dbs: ['10.0.0.21', '10.0.0.22'],
    keep: false,
  });
});

t.test('before the first sync nothing is taken out', async (t) => {
  t.equal(firewallOf(view([member('app1/app')], { synced: false }), NETWORK).keep, true);
});

t.test('a member cannot name an address outside of the private network', async (t) => {
  for (const address of [
    '8.8.8.8',
    '10.0.1.11',
    '',
    'app 10.0.0.11',
    '10.0.0',
    '10.0.0.300',
    '10.0.0.11\napp 10.0.0.99',
  ])
    t.strictSame(
      firewallOf(view([member('app1/app', { record: { address } }), member('db1/db')]), NETWORK),
      { apps: [], dbs: ['10.0.0.21'], keep: false, why: 'follows the members' },
      JSON.stringify(address),
    );
});
