import { createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import t from 'tap';
import { buildNodeCertificate, publicPem } from '../../src/daemon/identity/keys/certificates.ts';
import { trustOf, verifyChain } from '../../src/daemon/identity/keys/chain.ts';
import { Roster } from '../../src/daemon/identity/roster/roster.ts';
import { Cluster, CLUSTER_NAME, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import { nextEntry, PATIENCE_MS, serverIs, trailEnd } from './cluster-bed.ts';

/**
 * Coming back after long: an expired certificate, and further places to look for members.
 *
 * Nodes that find nobody where their roster says: each has lost its snapshot and listens at a port that no certificate
 * names. What brings them together is one further source at one of them.
 */
t.setTimeout(2_300_000);

const cluster = await Cluster.create({ app: 2, floating: false });
t.teardown(() => cluster.close());
const [app1, app2] = cluster.instancesOf('app');
if (app1 === undefined || app2 === undefined) throw new Error('two hosts');
await cluster.settled(PATIENCE_MS);

const CONFIG = '/etc/bornemisza/app.toml';
const plain = new Map<Instance, string>();
for (const each of [app1, app2]) plain.set(each, await each.host.readFile(CONFIG));

/**
 * Both start again, without a snapshot, at a port of their own; `membership` stands in the configuration of app2 alone.
 */
async function startLost(ports: { app1: number; app2: number }, membership: string): Promise<void> {
  for (const { host } of [app1, app2] as Instance[]) {
    await host.stop('bornemisza@app.service');
    await host.must(['rm', '-f', '/var/lib/bornemisza/app/members.snapshot']);
  }
  for (const [instance, port, more] of [
    [app1, ports.app1, ''],
    [app2, ports.app2, membership],
  ] as [Instance, number, string][]) {
    const text = plain.get(instance) ?? '';
    await instance.host.writeFile(CONFIG, {
      content: `${text.replace('[network]', `[network]\nlibp2p_port = ${port}`)}\n[membership]\n${more}\n`,
      group: 'bornemisza',
      mode: 0o640,
    });
    await instance.host.start('bornemisza@app.service');
  }
}

async function found(afterId: number, where: string): Promise<void> {
  const entry = await nextEntry(cluster, app2 as Instance, afterId, ({ summary }) =>
    summary.startsWith('found '),
  );
  t.equal(entry.summary, `found app1/app at ${where}, which is not the address in its record`);
  await cluster.settled(PATIENCE_MS);
}

t.test('a seed of the configuration brings them together', async (t) => {
  const end = await trailEnd(cluster, app2);
  const where = `${app1.host.privateAddress}:4998`;
  // Where nobody is, and where the node itself is, costs nothing but a dial.
  await startLost(
    { app1: 4998, app2: 4999 },
    `seeds = ["10.77.0.250", "${app2.host.privateAddress}", "${where}"]`,
  );
  await found(end, where);
  t.equal((await cluster.members(app1)).filter(({ state }) => state === 'alive').length, 2);
});

t.test('so do SRV records, of which only those inside the private network are dialled', async (t) => {
  const end = await trailEnd(cluster, app2);
  const name = '_bornemisza._tcp.lab.internal';
  await app2.host.must([
    'systemd-run',
    '--unit=dns-for-test',
    'dnsmasq',
    '--keep-in-foreground',
    '--user=root',
    '--conf-file=/dev/null',
    '--no-resolv',
    '--no-hosts',
    '--listen-address=127.0.0.1',
    '--bind-interfaces',
    '--log-queries',
    '--log-facility=-',
    `--srv-host=${name},outside.lab.internal,4996`,
    `--srv-host=${name},nobody.lab.internal,4996`,
    `--srv-host=${name},app1.lab.internal,4996`,
    '--address=/outside.lab.internal/192.0.2.1',
    '--address=/nobody.lab.internal/10.77.0.250',
    `--address=/app1.lab.internal/${app1.host.privateAddress}`,
  ]);
  await app2.host.writeFile('/etc/resolv.conf', 'nameserver 127.0.0.1\n');
  await startLost({ app1: 4996, app2: 4997 }, `srv = "${name}"`);
  await found(end, `${app1.host.privateAddress}:4996`);
  t.match(await app2.host.journal('dns-for-test'), new RegExp(`query\\[SRV\\] ${name}`));
});

t.test('a node that was off until its certificate had ended renews it by its key, and serves', async (t) => {
  const DAY_MS = 86_400_000;
  for (const { host } of [app1, app2]) await host.stop('bornemisza@app.service');
  for (const { host } of [app1, app2])
    await host.writeFile(CONFIG, {
      content: plain.get(app1.host === host ? app1 : app2) ?? '',
      group: 'bornemisza',
      mode: 0o640,
    });
  const state = '/var/lib/bornemisza/app';
  const read = ({ host }: Instance, name: string): Promise<string> => host.readFile(`${state}/${name}`);
  const trust = trustOf(CLUSTER_NAME, await read(app1, 'roots.pem'));
  const own = verifyChain(await read(app2, 'chain.pem'), trust, 'any-time');
  const issuer = {
    certificatePem: await read(app1, 'authority/intermediate.pem'),
    key: createPrivateKey(await read(app1, 'authority/intermediate.key')),
  };
  const spkiPem = publicPem(createPrivateKey(await read(app2, 'tls.key')));
  // What its authority would have signed 120 days ago: it ended 30 days ago.
  const ended = await buildNodeCertificate(issuer, { ...own, spkiPem }, Date.now() - 120 * DAY_MS);
  const chain = ended + issuer.certificatePem;
  const file = `${t.testdir()}/roster.json`;
  const roster = new Roster(trust, file);
  roster.present(
    await read(app1, 'chain.pem'),
    verifyChain(await read(app1, 'chain.pem'), trust, 'any-time').peerId,
  );
  roster.present(chain, own.peerId);
  await roster.save();
  const content = await readFile(file, 'utf8');
  for (const { host } of [app1, app2]) {
    const ours = { owner: 'bornemisza', mode: 0o600 };
    await host.writeFile(`${state}/roster.json`, { content, ...ours });
    await host.must(['rm', '-f', `${state}/roster.json.previous`]);
  }
  await app2.host.writeFile(`${state}/chain.pem`, { content: chain, owner: 'bornemisza', mode: 0o600 });
  const validAt = async (): Promise<boolean> => {
    const { code } = await app2.host.exec([
      'openssl',
      'x509',
      '-noout',
      '-checkend',
      '0',
      '-in',
      `${state}/chain.pem`,
    ]);
    return code === 0;
  };
  t.equal(await validAt(), false);
  for (const { host } of [app2, app1]) await host.start('bornemisza@app.service');
  await until(validAt, { deadlineMs: PATIENCE_MS, everyMs: 300, what: 'a certificate that is valid' });
  await cluster.settled(PATIENCE_MS);
  await serverIs(cluster, app1, 'svc_site/app2', 'UP');
  const renewed = verifyChain(await read(app2, 'chain.pem'), trust, Date.now());
  t.match(renewed, { peerId: own.peerId, name: own.name, admittedAtMs: own.admittedAtMs });
});
