import t from 'tap';
import type { MemberRow } from '../../../src/daemon/control/api.ts';
import { dnsWarnings } from '../../../src/daemon/node/dns-warnings.ts';

const row = (name: string, ready: boolean, more: Partial<MemberRow> = {}): MemberRow =>
  ({
    ...{ name, role: name.endsWith('/db') ? 'db' : 'app', state: 'alive' },
    tags: ready ? { dns: 'ready' } : {},
    ...more,
  }) as MemberRow;

t.test('one writer of several app nodes is named', (t) => {
  const only = [row('app1/app', true), row('app2/app', false)];
  t.match(dnsWarnings(only), [{ code: 'one-dns-writer', message: /only app1\/app can write/ }]);
  for (const rows of [
    [row('app1/app', true), row('app2/app', true)],
    [row('app1/app', true)],
    [row('app1/app', true), row('db1/db', false)],
    [row('app1/app', true), row('app2/app', false, { state: 'left' })],
    [row('app1/app', false), row('app2/app', false)],
  ])
    t.strictSame(dnsWarnings(rows), []);
  t.end();
});
