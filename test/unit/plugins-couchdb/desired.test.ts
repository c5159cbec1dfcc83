import t from 'tap';
import { clusterDigest, configFiles, restartDigest } from '../../../src/plugins/couchdb/config.ts';
import { formatClaim, nodeNameOf, parseClaim } from '../../../src/plugins/couchdb/desired.ts';
import { desired, directory, member, settings } from './scene.ts';

const refusal = { code: 'couchdb-desired-refused' };

function file(name: string, more: Partial<ReturnType<typeof settings>> = {}): string {
  const wanted = desired(1, [member(1)], { settings: { ...settings(), ...more } });
  return configFiles(wanted, directory, []).find((one) => one.name === name)?.content ?? '';
}

t.test('the generated files say what the rules ask for', async (t) => {
  const ini = file('bornemisza.ini');
  t.match(ini, '[couchdb]\nuuid = 0123456789abcdef0123456789abcdef\n');
  t.match(ini, '\nmaintenance_mode = true\n', 'every start begins in maintenance');
  t.match(ini, '[chttpd]\nbind_address = 127.0.0.1\nport = 15984\n');
  t.match(ini, 'reconnect_interval_sec = 5\n');
  t.match(ini, `admin = ${settings().adminHash}\n`);
  t.notMatch(ini, 'seedlist');
  const args = file('vm.args');
  t.match(args, '-name couchdb@10.0.0.1\n');
  t.match(args, '-kernel inet_dist_use_interface {10,0,0,1}\n');
  t.match(args, 'inet_dist_listen_min 9100 inet_dist_listen_max 9100\n');
  t.match(args, '-kernel net_ticktime 15\n');
  t.notMatch(args, 'setcookie', 'ps would show it');
  t.notMatch(args, 'proto_dist');
  t.match(file('couchdb.env'), 'ERL_EPMD_ADDRESS=10.0.0.1\n');
  t.match(
    file('couchdb.env'),
    'bornemisza.ini /var/lib/couchdb/local.ini"',
    'the server writes the last file, which is not ours',
  );
});

t.test('a release elsewhere is named to the start program, and a move asks for a restart', async (t) => {
  const moved = { releaseDirectory: '/usr/lib/couchdb' };
  t.match(file('couchdb.env'), 'COUCHDB_INI_FILES="/opt/couchdb/etc/default.ini ');
  t.notMatch(file('couchdb.env'), 'COUCHDB_DIRECTORY', 'as the start program of an older version has it');
  t.match(file('couchdb.env', moved), 'COUCHDB_INI_FILES="/usr/lib/couchdb/etc/default.ini ');
  t.match(file('couchdb.env', moved), '\nCOUCHDB_DIRECTORY=/usr/lib/couchdb\n');
  const of = (more: Partial<ReturnType<typeof settings>>): string =>
    restartDigest(desired(1, [member(1)], { settings: { ...settings(), ...more } }), directory);
  t.equal(of({}), of({ releaseDirectory: '/opt/couchdb' }));
  t.not(of({}), of(moved));
  t.equal(
    clusterDigest(desired(1, [member(1)]).settings),
    clusterDigest({ ...desired(1, [member(1)]).settings, ...moved }),
    'each machine has its own',
  );
});

t.test('a peer that acknowledges nothing is given up after three seconds', async (t) => {
  const option = '[{raw,6,18,<<184,11,0,0>>}]';
  t.match(file('vm.args'), `inet_dist_connect_options ${option}`, 'TCP_USER_TIMEOUT, 3000 little endian');
  t.match(file('vm.args'), `inet_dist_listen_options ${option}`, 'whoever dialled');
});

t.test('with TLS the distribution is mutual', async (t) => {
  const tls = { caPem: 'CA\n', certPem: 'CERT\n', keyPem: 'KEY\n' };
  t.match(
    file('vm.args', { tls }),
    `-proto_dist couch\n-couch_dist no_tls false\n-ssl_dist_optfile ${directory}/couch_dist.conf\n`,
  );
  const conf = file('couch_dist.conf', { tls });
  t.equal(conf.match(/verify_peer/g)?.length, 2);
  t.equal(conf.match(/fail_if_no_peer_cert, true/g)?.length, 1);
  t.equal(file('key.pem', { tls }), 'KEY\n');
});

t.test('a new certificate asks for no restart, a new cookie does', async (t) => {
  const of = (more: Partial<ReturnType<typeof settings>>): string =>
    restartDigest(desired(1, [member(1)], { settings: { ...settings(), ...more } }), directory);
  const tls = { caPem: 'CA\n', certPem: 'CERT\n', keyPem: 'KEY\n' };
  t.equal(of({ tls }), of({ tls: { ...tls, certPem: 'RENEWED\n' } }));
  t.not(of({}), of({ cookie: 'anothercookie0123456789' }));
  t.not(of({}), of({ tls }));
});

t.test(
  'the digest that a joiner shows is over what must be equal everywhere, and shows no secret',
  async (t) => {
    const one = desired(1, [member(1), member(2)]).settings;
    const two = desired(2, [member(1), member(2)], {
      settings: { ...settings(), httpPort: 25_984 },
    }).settings;
    t.equal(clusterDigest(one), clusterDigest(two));
    t.not(clusterDigest(one), clusterDigest({ ...one, secret: 'ffffffffffffffffffffffffffffffff' }));
    t.match(clusterDigest(one), /^[0-9a-f]{16}$/);
  },
);

t.test('values that could end a line or a term are refused', async (t) => {
  const refused: readonly Partial<ReturnType<typeof settings>>[] = [
    { cookie: 'has space and more letters' },
    { cookie: "quote'quote'quote'quote" },
    { secret: '00\n[admins]\nevil = x' },
    { adminName: 'admin = x\n' },
    { adminHash: 'plain-password' },
    { uuid: 'short' },
    { dataDirectory: '/tmp/a b' },
    { dataDirectory: '/tmp/"x' },
    { httpAddress: '0.0.0.0' },
    { httpPort: 5984 },
    { httpPort: 80 },
    { n: 0 },
    { netTicktimeS: 8 },
  ];
  for (const more of refused)
    t.throws(
      () => desired(1, [member(1)], { settings: { ...settings(), ...more } }),
      refusal,
      JSON.stringify(more),
    );
  for (const address of ['10.0.0.256', '10.0.0', 'db1', '10.0.0.1\n', '::1', '10.0.0.1 -eval x']) {
    t.throws(() => nodeNameOf(address), refusal, JSON.stringify(address));
  }
  t.throws(
    () => desired(1, [member(1), member(2, { address: '10.0.0.1' })]),
    refusal,
    'two nodes at one address',
  );
  t.throws(() => desired(9, [member(1)]), refusal, 'not in the roster');
});

t.test('what a node says of itself survives the tag, anything else counts as out', async (t) => {
  for (const kind of ['proving', 'serving', 'left', 'down', 'out'] as const)
    t.same(parseClaim(formatClaim({ kind })), { kind });
  const fresh = { kind: 'fresh', version: '3.5.0', digest: '0123456789abcdef' } as const;
  t.same(parseClaim(formatClaim(fresh)), fresh);
  t.ok(formatClaim(fresh).length <= 64);
  for (const tag of ['', 'SERVING', 'serving ', 'fresh:3.5.0', 'fresh:3.5.0:xyz', 'x'.repeat(5000)])
    t.same(parseClaim(tag), { kind: 'out' }, tag.slice(0, 20));
});

t.test('the first admitted member that is in may found', async (t) => {
  t.equal(desired(1, [member(1), member(2)]).mayFound, true);
  t.equal(desired(2, [member(1), member(2)]).mayFound, false);
  t.equal(desired(2, [member(1, { phase: 'removed' }), member(2)]).mayFound, true);
  t.equal(desired(2, [member(1, { alive: false }), member(2)]).mayFound, false, 'silence changes no rank');
});
