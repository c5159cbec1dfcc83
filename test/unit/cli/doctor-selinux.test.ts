import t from 'tap';
import { areaOf } from '../../../src/cli/doctor/check.ts';
import { checkSelinux } from '../../../src/cli/doctor/selinux.ts';
import type { Host } from '../../../src/cli/io.ts';

/** As EL 9 prints it. */
const PORTS = `SELinux Port Type              Proto    Port Number

brlp_port_t                    tcp      4101
couchdb_port_t                 tcp      5984, 6984
couchdb_port_t                 udp      5984, 6984
ephemeral_port_t               tcp      32768-60999
hi_reserved_port_t             tcp      512-1023
http_cache_port_t              tcp      8080, 8118, 8123, 10001-10010
http_port_t                    tcp      80, 81, 443, 488, 8008, 8009, 8443, 9000
jboss_management_port_t        tcp      4447, 4712, 7600, 9123, 9990, 9999, 18001
unreserved_port_t              tcp      61001-65535, 1024-32767
`;

const on = (answers: Readonly<Record<string, { code: number; stdout?: string }>>): Host =>
  ({
    uid: 0,
    run: async (program: string) => ({ stdout: '', stderr: '', ...(answers[program] ?? { code: 127 }) }),
  }) as unknown as Host;
const healthy = {
  selinuxenabled: { code: 0 },
  semodule: { code: 0, stdout: 'base\nbornemisza\ncups\n' },
  semanage: { code: 0, stdout: PORTS },
};
const check = (answers: Parameters<typeof on>[0], ...ports: number[]) =>
  checkSelinux(on(answers), areaOf('app'), ports);

t.test('where SELinux is off or absent, nothing is reported', async (t) => {
  t.same(await check({}, 443), []);
  t.same(await check({ ...healthy, selinuxenabled: { code: 1 } }, 443), []);
});

t.test('without the module HAProxy cannot start', async (t) => {
  for (const stdout of ['', 'base\ncups\n', 'bornemisza_of_mine\n'])
    t.match(await check({ ...healthy, semodule: { code: 0, stdout } }, 443), [
      { state: 'fail', next: 'dnf install bornemisza-selinux' },
    ]);
  t.match(await check({ ...healthy, semodule: { code: 1 } }, 443), [{ state: 'warn', next: /as root/ }]);
});

t.test('the command for a port that HAProxy may not bind is named', async (t) => {
  const fine = [80, 443, 5984, 6984, 6985, 8080, 8404, 8405, 8443, 10005, 61001];
  t.match(await check(healthy, ...fine), [{ state: 'ok' }]);
  const cases: [number, RegExp, string][] = [
    [9990, /9990 \(jboss_management_port_t\)/, 'semanage port -m -t http_port_t -p tcp 9990'],
    [4101, /4101 \(brlp_port_t\)/, 'semanage port -m -t http_port_t -p tcp 4101'],
    [600, /600 \(hi_reserved_port_t\)/, 'semanage port -a -t http_port_t -p tcp 600'],
    [40000, /40000 \(ephemeral_port_t\)/, 'semanage port -a -t http_port_t -p tcp 40000'],
  ];
  for (const [port, detail, next] of cases)
    t.match(await check(healthy, 443, port), [{ state: 'fail', detail, next }], String(port));
});

t.test('without semanage the ports are not known, and the package that brings it is named', async (t) => {
  t.match(await check({ ...healthy, semanage: { code: 127 } }, 443), [
    { state: 'warn', next: /policycoreutils-python-utils/ },
  ]);
});
