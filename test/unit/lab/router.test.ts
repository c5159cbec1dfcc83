import t from 'tap';
import { parseRouteChange } from '../../lab/router.ts';

const names = (gateway: string): string =>
  ({ '198.51.100.11': 'app1', '198.51.100.12': 'app2' })[gateway] ?? gateway;
const at = Date.parse('2026-01-02T03:04:05') + 678.901;

const cases = [
  [
    'one way',
    '[2026-01-02T03:04:05.678901] 203.0.113.10 via 198.51.100.12 dev public proto bird metric 32 ',
    { address: '203.0.113.10', hosts: ['app2'], atMs: at },
  ],
  [
    'two ways',
    '[2026-01-02T03:04:05.678901] 203.0.113.10 proto bird metric 32 \\\tnexthop via 198.51.100.12 dev ' +
      'public weight 1 \\\tnexthop via 198.51.100.11 dev public weight 1 ',
    { address: '203.0.113.10', hosts: ['app1', 'app2'], atMs: at },
  ],
  [
    'a route that went away',
    '[2026-01-02T03:04:05.678901] Deleted 203.0.113.10 via 198.51.100.11 dev public proto bird metric 32 ',
    { address: '203.0.113.10', hosts: [], atMs: at },
  ],
  [
    'a next hop of no host',
    '[2026-01-02T03:04:05] 203.0.113.11 via 198.51.100.99 dev public ',
    { hosts: ['198.51.100.99'] },
  ],
  ['another network', '[2026-01-02T03:04:05.678901] 198.51.100.0/24 dev public proto kernel', undefined],
  ['no route', 'anything else', undefined],
] as const;

t.test('a line of ip monitor is read as a change', async (t) => {
  for (const [what, line, wanted] of cases) {
    const change = parseRouteChange(line, names);
    if (wanted === undefined) t.equal(change, undefined, what);
    else t.match(change, wanted, what);
  }
});
