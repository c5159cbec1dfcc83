/** The package in its life: built, installed, started, upgraded under load, downgraded, removed, installed again. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { buildPackage } from '../../scripts/rpm.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import type { Host } from '../lab/index.ts';
import { repository as tree } from '../lab/layers.ts';
import { until } from '../support/until.ts';
import { dnf, labelOf, makeRepository, must, useRepository } from './repository-bed.ts';

const SETTLE_MS = 120_000;
const SITE = 'https://203.0.113.10/';
const FLOATING = '203.0.113.10';

// Not below the tree's test directories: a package has 40 MB, and a path of its own in each host.
const directory = await mkdtemp('/var/tmp/bornemisza-package-');
const clean = (): Promise<void> => rm(directory, { recursive: true, force: true });
t.teardown(clean);
const packages = await makeRepository(directory).catch(async (error: unknown) => {
  await clean();
  throw error;
});
const { first, second } = packages;

t.test('the same tree gives the same package, and rpmlint finds nothing that is not explained', async (t) => {
  const digest = (file: string): Promise<string> =>
    must('rpm', ['-qp', '--nosignature', '--qf', '%{SHA256HEADER} %{PAYLOADDIGEST}', file]);
  const again = await buildPackage({ out: join(directory, 'again'), bundle: false });
  t.match(await digest(first.file), /^[0-9a-f]{64} [0-9a-f]{64}$/);
  t.equal(await digest(again.file), await digest(first.file), 'header and payload, byte for byte');
  t.not(await digest(second.file), await digest(first.file), 'another release is another package');
  // The unsigned one: rpmlint looks for the key in this machine's own database.
  const lint = await must('rpmlint', ['-c', join(tree, 'rpm/rpmlintrc.toml'), again.file]);
  t.match(lint, /0 errors, 0 warnings/);
});

t.test('it is small, and signed', async (t) => {
  t.ok(first.bytes <= 45_000_000, `${(first.bytes / 1e6).toFixed(1)} MB`);
  const database = ['--define', `_dbpath ${join(directory, 'rpmdb')}`];
  await must('rpmkeys', [...database, '--import', packages.keyFile]);
  t.match(await must('rpmkeys', [...database, '--checksig', first.file]), /digests signatures OK/);
});

t.test('every package in the bundle is named in the header and has its licence inside', async (t) => {
  const meta = JSON.parse(await readFile(join(tree, 'dist/bornemisza.meta.json'), 'utf8')) as {
    inputs: Record<string, unknown>;
  };
  const names = new Set(
    Object.keys(meta.inputs).flatMap(
      (path) => /^.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? [],
    ),
  );
  t.ok(names.size > 30, `${names.size} packages`);
  const provides = await must('rpm', ['-qp', '--nosignature', '--provides', first.file]);
  const inside = await must('sh', [
    '-c',
    'rpm2cpio "$1" | cpio --quiet -i --to-stdout "*/LICENSES.bundled"',
    'sh',
    first.file,
  ]);
  for (const name of names) {
    if (!provides.includes(`bundled(npm(${name})) = `)) t.fail(`${name} is not in the header`);
    if (!inside.includes(`\n${name} `)) t.fail(`${name} has no licence`);
  }
});

t.test('a cluster lives on the installed package', async (t) => {
  const cluster = await Cluster.create({
    app: 2,
    db: 1,
    package: first.file,
    binds: [packages.bind],
    diskMegabytes: 1024,
    install: (host) => installFirst(host),
  });
  t.teardown(() => cluster.close());
  const app1 = cluster.instance('app1');
  const app2 = cluster.instance('app2');
  const [floating] = cluster.lab.floatingAddresses;
  t.equal(floating, FLOATING);
  await cluster.settled(SETTLE_MS);

  await t.test('what was installed is what runs', async (t) => {
    for (const instance of cluster.instances) {
      const { host, role, name } = instance;
      t.equal(await host.must(['rpm', '-V', 'bornemisza-node']), '', `${name}: rpm -V is silent`);
      t.match(await host.must(['rpm', '-q', 'haproxy', 'bird']), /haproxy-2.*\nbird-2/, 'recommended');
      const daemon = await host.unit(`bornemisza@${role}.service`);
      t.equal(daemon.active, 'active', `${name} is READY`);
      t.equal(daemon.restarts, 0);
      const enabled = await host.must(['systemctl', 'is-enabled', 'bornemisza.target']);
      t.equal(enabled.trim(), 'enabled', 'the preset has enabled the target');
      const doctor = await host.exec(['bornemisza', 'doctor'], { timeoutMs: 60_000 });
      t.equal(doctor.code, 0, `${name}: doctor\n${doctor.stdout}${doctor.stderr}`);
    }
  });

  await t.test('an upgrade in place costs no member, no request, no HAProxy and no BIRD', async (t) => {
    await until(
      async () => (await cluster.lab.client.request({ url: SITE, timeoutMs: 1000 })).status === 200,
      { what: 'the site answers', deadlineMs: 30_000, everyMs: 100 },
    );
    const before = await pidsOf(cluster);
    const identities = await identitiesOf(cluster, app1);
    const sinceIds = await lastAudit(cluster);
    const kept = '/etc/bornemisza/services.d/shop.toml.example';
    await app1.host.writeFile(kept, { content: '# mine\n', mode: 0o640, group: 'bornemisza' });

    const load = cluster.lab.client.startLoad({ url: SITE, ratePerSecond: 50 });
    for (const { host } of cluster.instances) {
      await dnf(host, 'upgrade', await labelOf(second.file));
      await cluster.settled(SETTLE_MS);
    }
    const report = await load.stop();
    t.comment(
      `${report.requests} requests, longest gap ${Math.round(report.longestGapMs)} ms, p99 ${report.p99Ms} ms`,
    );
    t.ok(report.requests > 100);
    t.equal(report.failed, 0, JSON.stringify(report));

    const after = await pidsOf(cluster);
    for (const [name, was] of before) {
      const now = after.get(name);
      t.equal(now?.haproxy, was.haproxy, `${name}: the same HAProxy`);
      t.equal(now?.bird, was.bird, `${name}: the same BIRD`);
      t.not(now?.daemon, was.daemon, `${name}: another daemon`);
    }
    for (const { host } of cluster.instances)
      t.equal((await host.must(['rpm', '-q', 'bornemisza-node'])).includes('-2.'), true);
    t.same(await identitiesOf(cluster, app1), identities, 'everybody is who they were');
    t.equal(await app1.host.readFile(kept), '# mine\n', 'an edited example is kept');
    t.match(await app1.host.readFile('/etc/bornemisza/services.d/site.toml'), /name = "site"/);
    t.same(await deathsSince(cluster, sinceIds), [], 'nobody took a restart for a death');
  });

  await t.test('a downgrade keeps membership as well', async (t) => {
    const identities = await identitiesOf(cluster, app1);
    await dnf(app2.host, 'downgrade', await labelOf(first.file));
    await cluster.settled(SETTLE_MS);
    t.match(await app2.host.must(['rpm', '-q', 'bornemisza-node']), /-1\./);
    t.same(await identitiesOf(cluster, app1), identities);
  });

  await t.test('removal withdraws, stops everything of ours and keeps all data', async (t) => {
    const { host } = app2;
    await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1', 'app2'], 30_000);
    await dnf(host, 'remove', 'bornemisza-node');
    await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1']);
    const units = await host.must(['systemctl', 'list-units', '--plain', '--no-legend', '--state=active']);
    t.notMatch(units, /bornemisza@|bornemisza-haproxy@|bornemisza-site/);
    const left = await host.must(['ps', '-eo', 'args']);
    t.notMatch(left, /libexec\/bornemisza|var\/lib\/bornemisza/);
    await host.must(['test', '!', '-e', '/usr/libexec/bornemisza']);
    for (const path of [
      '/etc/bornemisza/app.toml',
      '/etc/bornemisza/services.d/site.toml',
      '/var/lib/bornemisza/app',
    ])
      t.equal((await host.exec(['test', '-e', path])).code, 0, `${path} is kept`);
    t.equal(
      (await host.must(['systemctl', 'is-active', 'bird.service'])).trim(),
      'active',
      'BIRD is not ours',
    );
  });

  await t.test('installed again, the node is who it was', async (t) => {
    const { host } = app2;
    await dnf(host, 'install', await labelOf(second.file));
    t.equal((await host.exec(['systemctl', 'is-active', 'bornemisza@app.service'])).code !== 0, true);
    await host.must(['systemctl', 'enable', '--now', 'bornemisza-site.service', 'bornemisza@app.service'], {
      timeoutMs: 60_000,
    });
    await cluster.settled(SETTLE_MS);
    await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1', 'app2'], 30_000);
    const members = await cluster.members(app1);
    t.match(members.map(({ name, state }) => `${name} ${state}`).sort(), [
      'app1/app alive',
      'app2/app alive',
      'db1/db alive',
    ]);
    t.equal(await host.must(['rpm', '-V', 'bornemisza-node']), '');
  });
});

/** As its operator does it, and what must hold before anything is set up. */
async function installFirst(host: Host): Promise<void> {
  await host.must(['test', '!', '-e', '/usr/bin/bornemisza']);
  await useRepository(host);
  await dnf(host, 'install', await labelOf(first.file));
  const verified = await host.must(['rpm', '-V', 'bornemisza-node']);
  const running = await host.must([
    'systemctl',
    'list-units',
    '--plain',
    '--no-legend',
    'bornemisza*.service',
  ]);
  const doctor = await host.exec(['bornemisza', 'doctor'], { timeoutMs: 60_000 });
  const said = doctor.stdout + doctor.stderr;
  if (verified !== '') throw new Error(`${host.name}: rpm -V: ${verified}`);
  if (running !== '') throw new Error(`${host.name}: the installation has started ${running}`);
  if (!/init|join/.test(said)) throw new Error(`${host.name}: doctor names no next step: ${said}`);
}

type Pids = { readonly daemon: number; readonly haproxy: number; readonly bird: number };

async function pidsOf(cluster: Cluster): Promise<Map<string, Pids>> {
  const pids = new Map<string, Pids>();
  for (const { host, role, name } of cluster.instances) {
    const of = async (unit: string): Promise<number> => (await host.unit(unit)).mainPid;
    pids.set(name, {
      daemon: await of(`bornemisza@${role}.service`),
      haproxy: await of(`bornemisza-haproxy@${role}.service`),
      bird: await of('bird.service'),
    });
  }
  return pids;
}

async function identitiesOf(cluster: Cluster, seenBy: Instance): Promise<Record<string, string>> {
  const members = await cluster.members(seenBy);
  return Object.fromEntries(members.map(({ name, peerId, state }) => [name, `${peerId} ${state}`]));
}

async function lastAudit(cluster: Cluster): Promise<Map<string, number>> {
  const last = new Map<string, number>();
  for (const instance of cluster.instances)
    last.set(instance.name, Math.max(0, ...(await cluster.audit(instance)).map(({ id }) => id)));
  return last;
}

/** What any node has noted of a member's death or leave after its entry with that id. */
async function deathsSince(cluster: Cluster, since: ReadonlyMap<string, number>): Promise<string[]> {
  const noted: string[] = [];
  for (const instance of cluster.instances) {
    for (const { id, kind, summary, trigger } of await cluster.audit(instance)) {
      if (
        id > (since.get(instance.name) ?? 0) &&
        kind === 'member' &&
        /dead|left/.test(`${summary} ${trigger}`)
      )
        noted.push(`${instance.name}: ${summary} (${trigger})`);
    }
  }
  return noted;
}
