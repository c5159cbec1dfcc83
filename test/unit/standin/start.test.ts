import t from 'tap';
import { editIni } from '../../standin/couchdb/start/settings.ts';
import { parseVmArgs } from '../../standin/couchdb/start/vm_args.ts';

t.test('vm.args as the product writes it', async (t) => {
  const vm = parseVmArgs(`
# comment
-name couchdb@10.77.0.3
-kernel inet_dist_use_interface {10,77,0,3}
-kernel inet_dist_listen_min 9100 inet_dist_listen_max 9100
-kernel net_ticktime 15
-kernel inet_dist_connect_options [{raw,6,18,<<136,19,0,0>>}] inet_dist_listen_options [{raw,6,18,<<136,19,0,0>>}]
-proto_dist couch
-couch_dist no_tls '"*@10.77.0.9"'
-ssl_dist_optfile /etc/couch_dist.conf
+K true
`);
  t.same(vm, {
    name: 'couchdb@10.77.0.3',
    distAddress: '10.77.0.3',
    distPort: 9100,
    netTickTimeMs: 15_000,
    userTimeoutMs: 5000,
    tls: true,
    plainPatterns: ['*@10.77.0.9'],
    tlsOptionsFile: '/etc/couch_dist.conf',
  });
});

t.test('by default the distribution is plain and on loopback, as in the release', async (t) => {
  const vm = parseVmArgs('-name couchdb@127.0.0.1\n-setcookie monster\n');
  t.match(vm, {
    cookie: 'monster',
    distAddress: '127.0.0.1',
    tls: false,
    netTickTimeMs: 60_000,
    userTimeoutMs: 0,
  });
  t.throws(() => parseVmArgs('-setcookie monster'), { message: 'vm.args has no -name' });
});

t.test('a changed setting leaves the other lines of the file alone', async (t) => {
  const text = '; kept\n[couchdb]\nuuid = 1\n\n[admins]\nadmin = -pbkdf2\n';
  t.equal(editIni(text, 'couchdb', 'uuid', '2'), text.replace('uuid = 1', 'uuid = 2'));
  t.equal(editIni(text, 'couchdb', 'uuid', undefined), text.replace('uuid = 1\n', ''));
  t.match(editIni(text, 'cluster', 'n', '3'), /\[cluster\]\nn = 3\n$/);
  t.equal(editIni(text, 'cluster', 'n', undefined), text);
});
