import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import type { DistributionTls } from '../../src/plugins/couchdb/desired.ts';
import { Cluster } from './couchdb-cluster.ts';

// A loaded machine and a real CouchDB: a join takes its time.
t.setTimeout(2_300_000);

const run = promisify(execFile);

/** A throw-away authority and certificates whose address is a DNS SAN, which is where Erlang looks for it. */
class Authority {
  readonly directory: string;
  constructor(directory: string) {
    this.directory = directory;
  }

  static async make(name: string): Promise<Authority> {
    const authority = new Authority(await mkdtemp(join(tmpdir(), 'couchdb-ca-')));
    const { directory } = authority;
    const subject = [
      '-subj',
      `/CN=${name}`,
      '-days',
      '2',
      '-keyout',
      join(directory, 'ca.key'),
      '-out',
      join(directory, 'ca.pem'),
    ];
    await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...subject]);
    return authority;
  }

  async issue(address: string): Promise<DistributionTls> {
    const file = (end: string): string => join(this.directory, `${address}.${end}`);
    await run('openssl', [
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      `/CN=${address}`,
      '-keyout',
      file('key'),
      '-out',
      file('csr'),
    ]);
    await writeFile(file('ext'), `subjectAltName=DNS:${address},IP:${address}\n`);
    const signer = [
      '-CA',
      join(this.directory, 'ca.pem'),
      '-CAkey',
      join(this.directory, 'ca.key'),
      '-CAcreateserial',
    ];
    await run('openssl', [
      'x509',
      '-req',
      '-days',
      '2',
      ...signer,
      '-in',
      file('csr'),
      '-out',
      file('crt'),
      '-extfile',
      file('ext'),
    ]);
    const [caPem, certPem, keyPem] = await Promise.all(
      [join(this.directory, 'ca.pem'), file('crt'), file('key')].map((path) => readFile(path, 'utf8')),
    );
    return { caPem, certPem, keyPem } as DistributionTls;
  }
}

t.test('nodes speak TLS to each other, with the user time-out on their links', async (t) => {
  const authority = await Authority.make('test authority');
  const cluster = await Cluster.make();
  t.teardown(async () => {
    await cluster.close();
    await rm(authority.directory, { recursive: true, force: true });
  });
  const first = await cluster.add(async (node) => {
    node.tls = await authority.issue(node.address);
  });
  await cluster.serving([first]);
  await first.ask('PUT', 'app');
  await first.ask('PUT', 'app/kept', { here: true });
  const second = await cluster.add(async (node) => {
    node.tls = await authority.issue(node.address);
  });
  await cluster.serving([first, second]);
  t.equal((await second.ask('GET', 'app/kept')).status, 200);

  const { stdout } = await run('ss', [
    '-tnoHi',
    'state',
    'established',
    `( sport = :19100 or dport = :19100 ) and dst ${second.address}`,
  ]);
  t.ok(stdout.length > 0, 'there is a link on the pinned port');
  t.match(await readFile(join(first.directory, 'config', 'vm.args'), 'utf8'), '{raw,6,18,<<184,11,0,0>>}');

  const stranger = await Authority.make('another authority');
  t.teardown(() => rm(stranger.directory, { recursive: true, force: true }));
  const third = await cluster.add(async (node) => {
    node.tls = await stranger.issue(node.address);
  });
  await cluster.until('the stranger’s join is taken back', () =>
    first.applied.some((text) => text.includes('undo a join')),
  );
  await cluster.until(
    'the cluster goes on without it',
    () =>
      first.plugin.known().alarms.some((alarm) => alarm.code === 'couchdb-joiner-silent') &&
      first.plugin.known().disagreement === undefined,
  );
  t.match((await first.ask('GET', '_membership')).body, { cluster_nodes: [first.nodeName, second.nodeName] });
  t.equal(third.plugin.known().phase, 'fresh');
});
