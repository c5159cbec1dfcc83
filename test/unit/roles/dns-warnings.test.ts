import t from 'tap';
import { dnsWarnings } from '../../../src/roles/dns.ts';
import type { EffectiveMember } from '../../../src/roles/effective.ts';
import { member, view } from './cases.ts';

const row = (name: string, ready: boolean, more: Partial<EffectiveMember> = {}): EffectiveMember => {
  const plain = member(name);
  return { ...plain, record: { ...plain.record, tags: ready ? { dns: 'ready' } : {} }, ...more };
};

t.test('one writer of several app nodes is named', (t) => {
  const only = [row('app1/app', true), row('app2/app', false)];
  t.match(dnsWarnings(view(only)), [{ code: 'one-dns-writer', message: /only app1\/app can write/ }]);
  for (const rows of [
    [row('app1/app', true), row('app2/app', true)],
    [row('app1/app', true)],
    [row('app1/app', true), row('db1/db', false)],
    [row('app1/app', true), row('app2/app', false, { state: 'left' })],
    [row('app1/app', false), row('app2/app', false)],
  ])
    t.strictSame(dnsWarnings(view(rows)), []);
  t.end();
});
