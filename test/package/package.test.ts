/** The package in its life: built, installed, started, upgraded under load, downgraded, removed, installed again. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { buildPackage, PARTS } from '../../scripts/rpm.ts';
import type { UpgradeAnswer } from '../../src/daemon/control/api.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import type { Host } from '../lab/index.ts';
import { repository as tree } from '../lab/layers.ts';
import { until } from '../support/until.ts';
import { dnf, labelOf, makeRepository, must, useRepository } from './repository-bed.ts';
import { leaksOn, secretsOf } from './secret-scan.ts';

const SETTLE_MS = 120_000;
const SITE = 'https://203.0.113.10/';
const FLOATING = '203.0.113.10';
const ROLES = ['app', 'db'] as const;
const APP_HOSTS = ['app1', 'app2', 'both1'];
/** The least exposure that a unit's settings may leave, 0 to 10. */
const EXPOSURE_LIMIT = 2.0;
/** Longest rest that the journal is watched for. The promise is one line a minute from each daemon. */
const REST_MS = 30_000;
/** Longer than HAProxy needs for its checks, and for a process without connections to end. */
const OVER_MS = 15_000;
/** The shipped timer, but every few seconds in place of once a night. */
const OFTEN = '[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nRandomizedDelaySec=0\nAccuracySec=1s\n';
/** Three hosts, each with dnf's work on a busy machine. */
const ROLLOUT_MS = 400_000;

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
  t.equal(await digest(again.selinux), await digest(first.selinux), 'the SELinux package as well');
  t.not(await digest(second.file), await digest(first.file), 'another release is another package');
  // The unsigned one: rpmlint looks for the key in this machine's own database.
  const lint = await must('rpmlint', ['-c', join(tree, 'rpm/rpmlintrc.toml'), again.file, again.selinux]);
  t.match(lint, /0 errors, 0 warnings/);
});

t.test('it is small, and signed', async (t) => {
  t.ok(first.bytes <= 42_000_000, `${(first.bytes / 1e6).toFixed(1)} MB`);
  const database = ['--define', `_dbpath ${join(directory, 'rpmdb')}`];
  await must('rpmkeys', [...database, '--import', packages.keyFile]);
  t.match(await must('rpmkeys', [...database, '--checksig', first.file]), /digests signatures OK/);
  t.match(await must('rpmkeys', [...database, '--checksig', first.selinux]), /digests signatures OK/);
});

t.test('every package in the bundle is named in the header and has its licence inside', async (t) => {
  const names = new Set<string>();
  for (const part of PARTS) {
    const meta = JSON.parse(await readFile(join(tree, `dist/${part}.meta.json`), 'utf8')) as {
      inputs: Record<string, unknown>;
    };
    for (const path of Object.keys(meta.inputs)) {
      const name = /^.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
      if (name !== undefined) names.add(name);
    }
  }
  for (const name of ['libp2p', 'hono', 'preact']) t.ok(names.has(name), name);
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
    both: 1,
    package: first.file,
    binds: [packages.bind],
    diskMegabytes: 1024,
    install: (host) => installFirst(host),
  });
  t.teardown(() => cluster.close());
  const app1 = cluster.instance('app1');
  const app2 = cluster.instance('app2');
  const hosts = cluster.lab.hosts;
  const rollout = async ({ host }: Instance): Promise<UpgradeAnswer> =>
    JSON.parse(await host.must(['bornemisza', 'upgrade', 'status', '--json'])) as UpgradeAnswer;
  const [floating] = cluster.lab.floatingAddresses;
  t.equal(floating, FLOATING);
  await cluster.settled(SETTLE_MS);
  for (const host of hosts) await prepareAutomatic(host);

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

  await t.test('the installed units have no mistake and little exposure', async (t) => {
    const { host } = cluster.instance('both1/db');
    const listed = await host.must([
      'sh',
      '-c',
      'rpm -ql bornemisza-node | sed -n "s:^/usr/lib/systemd/system/::p"',
    ]);
    const units = listed
      .split('\n')
      .filter((name) => /^bornemisza[^/]*\.(service|path|timer|target)$/.test(name))
      .flatMap((name) =>
        name.includes('@.') ? ROLES.map((role) => name.replace('@.', `@${role}.`)) : [name],
      );
    t.ok(units.length >= 8, units.join(' '));
    const verified = await host.exec(['systemd-analyze', 'verify', '--man=no', ...units]);
    t.equal(verified.stdout + verified.stderr, '');
    t.equal(verified.code, 0);
    const daemons = units.filter((name) => /^bornemisza(-haproxy)?@/.test(name));
    t.equal(daemons.length, 4);
    for (const unit of daemons) {
      const looked = await host.must([
        'systemd-analyze',
        'security',
        '--offline=true',
        '--no-pager',
        `--threshold=${EXPOSURE_LIMIT * 10}`,
        unit,
      ]);
      t.match(looked, /Overall exposure level/, unit);
    }
  });

  await t.test('the journal says what happened, is quiet at rest, and has nothing to warn of', async (t) => {
    const cursors = new Map<string, string>();
    for (const { name, host, role } of cluster.instances) {
      // By its fields, as an operator would ask: journald may miss the unit of a line whose sender has ended.
      const [start] = await entriesOf(host, 'BM_EVENT=daemon', `BM_NODES=${name}`);
      t.match(
        start,
        { MESSAGE: new RegExp(`^started .* as ${name}`), PRIORITY: '6' },
        'its start, with fields',
      );
      t.match(
        (await host.unit(`bornemisza@${role}.service`)).status,
        new RegExp(`^${name} up.* 4 alive`),
        'members in the status line',
      );
    }
    for (const host of hosts) {
      // What a start entails has to be over: a server comes up, the process of before a reload ends.
      await until(
        async () => {
          const [entry] = await entriesOf(host, '--lines=1', 'SYSLOG_IDENTIFIER=haproxy');
          return Date.now() - Number(entry?.['__REALTIME_TIMESTAMP']) / 1000 > OVER_MS;
        },
        { what: 'HAProxy has nothing more to say', deadlineMs: SETTLE_MS, everyMs: 500 },
      );
      const [newest] = await entriesOf(host, '--lines=1');
      cursors.set(host.name, newest?.['__CURSOR'] ?? '');
    }
    const since = performance.now();
    const load = cluster.lab.client.startLoad({ url: SITE, ratePerSecond: 20 });
    await until(() => performance.now() - since > REST_MS, {
      what: 'a rest',
      deadlineMs: 2 * REST_MS,
      everyMs: 500,
    });
    t.equal((await load.stop()).failed, 0);
    for (const host of hosts) {
      const cursor = `--after-cursor=${cursors.get(host.name)}`;
      const words = async (...asked: readonly string[]): Promise<readonly (string | undefined)[]> =>
        (await entriesOf(host, cursor, ...asked)).map(({ MESSAGE }) => MESSAGE);
      const said = await words('SYSLOG_IDENTIFIER=bornemisza');
      t.ok(said.length <= host.roles.length, `${host.name} at rest: ${said.join(' | ')}`);
      // With what it keeps, and the helpers: not a line.
      const kept = ['haproxy', 'bird', 'bornemisza-deadman', 'bornemisza-unit-watch', 'bornemisza-site'];
      kept.push('bornemisza-upgrade');
      t.same(await words(...kept.map((name) => `SYSLOG_IDENTIFIER=${name}`)), [], host.name);
      t.same(await words('--unit=bornemisza*', '--priority=warning'), [], host.name);
    }
  });

  await t.test(
    'a daemon that stops responding is ended by the watchdog and comes back, and no request fails',
    async (t) => {
      const { host } = app1;
      const unit = 'bornemisza@app.service';
      const before = await pidsOf(cluster);
      const daemon = await host.unit(unit);
      const load = cluster.lab.client.startLoad({ url: SITE, ratePerSecond: 50 });
      await host.kill(unit, 'SIGSTOP', 'main');
      await until(
        async () => (await cluster.members(app2)).find(({ name }) => name === 'app1/app')?.state === 'dead',
        { what: 'the others know that it is dead', deadlineMs: 15_000, everyMs: 200 },
      );
      const back = await host.waitForUnit(
        unit,
        ({ active, mainPid }) => active === 'active' && mainPid !== daemon.mainPid,
        60_000,
      );
      t.equal(back.restarts, daemon.restarts + 1);
      await cluster.settled(SETTLE_MS);
      const report = await load.stop();
      t.ok(report.requests > 500, `${report.requests} requests`);
      t.equal(report.failed, 0, JSON.stringify(report));
      const after = await pidsOf(cluster);
      t.equal(after.get('app1/app')?.haproxy, before.get('app1/app')?.haproxy, 'the same HAProxy');
      t.equal(after.get('app1/app')?.bird, before.get('app1/app')?.bird, 'the same BIRD');
      const warnings = await host.journalEntries(unit, '--priority=warning');
      t.ok(
        warnings.some(({ MESSAGE }) => /Watchdog timeout/.test(MESSAGE ?? '')),
        'the journal says so at priority warning',
      );
    },
  );

  await t.test(
    'no secret is in the journal, a command line, an environment, an answer or a public file',
    async (t) => {
      const made = await cluster.command(app1, ['token', 'create', '--role', 'app', '--json']);
      const { token } = JSON.parse(made) as { token: string };
      const found = await Promise.all(hosts.map((host) => secretsOf(host)));
      const secrets = [...new Set([token, ...found.flat()])];
      // Two keys and an authority's on the founder; a cookie, three passwords or hashes and a session secret on db.
      t.ok(secrets.length > 100, `${secrets.length} secrets`);
      for (const host of hosts) t.same(await leaksOn(host, secrets), [], host.name);

      const { host } = app2;
      const planted = secrets.at(-1) ?? '';
      await host.must(['logger', `the password is ${planted}`]);
      await host.writeFile('/srv/bornemisza/site/oops.txt', planted);
      await host.must(['systemd-run', '--unit=lab-leak', `--setenv=PASSWORD=${planted}`, 'sleep', '3600']);
      const seen = await until(
        async () => {
          const places = await leaksOn(host, secrets);
          return places.length >= 3 ? places : undefined;
        },
        { what: 'the scan sees what was planted', everyMs: 200 },
      );
      for (const place of ['journal', 'environ of sleep', '/srv/bornemisza/site/oops.txt'])
        t.ok(seen.includes(place), place);
      await host.must(['systemctl', 'stop', 'lab-leak.service']);
      await host.must(['rm', '/srv/bornemisza/site/oops.txt']);
    },
  );

  /**
   * Their daemons have restarted twice just now: once more within five minutes is no restart to the others
   * (goodbyeEveryMs).
   */
  const restless: string[] = [];
  await t.test('dnf-automatic upgrades the one host whose hour it is, and no other', async (t) => {
    // The hour is one host's, and its first 40 minutes; the clock may strike in between.
    const minute = new Date().getUTCMinutes();
    await Promise.all(hosts.map((host) => automaticUpdate(host)));
    const upgraded: Host[] = [];
    for (const host of hosts)
      if (/-2\./.test(await host.must(['rpm', '-q', 'bornemisza-node']))) upgraded.push(host);
    if (minute < 35) t.equal(upgraded.length, 1, 'on one host');
    else t.ok(upgraded.length <= 1, `on ${upgraded.length} hosts`);
    for (const host of upgraded) {
      t.match(
        await host.journal('dnf-automatic-install.service'),
        /every node is healthy[^]*Updates completed/,
      );
      await dnf(host, 'downgrade', await labelOf(first.file));
    }
    // Whichever hour it is: the others see the daemon of the only database as dead in the rollout.
    const { host: both1 } = cluster.instance('both1/db');
    if (!upgraded.includes(both1)) {
      await dnf(both1, 'upgrade', await labelOf(second.file));
      await dnf(both1, 'downgrade', await labelOf(first.file));
      upgraded.push(both1);
    }
    for (const { name, roles } of upgraded) restless.push(...roles.map((role) => `${name}/${role}`));
    await cluster.settled(SETTLE_MS);
  });

  await t.test('a rollout costs no member, no request, no HAProxy, no BIRD and no CouchDB', async (t) => {
    await until(
      async () => (await cluster.lab.client.request({ url: SITE, timeoutMs: 1000 })).status === 200,
      { what: 'the site answers', deadlineMs: 30_000, everyMs: 100 },
    );
    const before = await pidsOf(cluster);
    const identities = await identitiesOf(cluster, app1);
    const sinceIds = await lastAudit(cluster);
    const kept = '/etc/bornemisza/services.d/shop.toml.example';
    await app1.host.writeFile(kept, { content: '# mine\n', mode: 0o640, group: 'bornemisza' });

    // As a file looked before it named its format.
    const config = '/etc/bornemisza/app.toml';
    await app1.host.must(['sed', '-i', '/^format = /d', config]);
    const old = await app1.host.readFile(config);
    const dry = await app2.host.must(['bornemisza', 'upgrade', '--dry-run'], { timeoutMs: ROLLOUT_MS });
    t.match(dry, /bornemisza-node \S+-2 is available/);
    const movesBefore = cluster.lab.router.history(FLOATING).length;
    const load = cluster.lab.client.startLoad({ url: SITE, ratePerSecond: 50 });
    const told = await app2.host.must(['bornemisza', 'upgrade'], { timeoutMs: ROLLOUT_MS });
    const report = await load.stop();
    t.match(told, /^in this order: both1, app2, app1\nboth1: upgrading\nboth1: done/);
    t.match(told, /app1: done.*\nfinished: \S+-2 everywhere\n$/);
    await cluster.settled(SETTLE_MS);
    t.comment(
      `${report.requests} requests, longest gap ${Math.round(report.longestGapMs)} ms, p99 ${report.p99Ms} ms`,
    );
    t.ok(report.requests > 100);
    const moves = cluster.lab.router.history(FLOATING).slice(movesBefore);
    const trails = await Promise.all(cluster.instances.map((each) => cluster.audit(each)));
    const trail = trails
      .flat()
      .filter(({ kind, plugin }) => kind === 'health' || plugin === 'bird')
      .map(({ at, summary, trigger }) => `${at} ${summary} [${trigger}]`)
      .toSorted();
    t.equal(report.failed, 0, JSON.stringify({ ...report, moves, trail: trail.slice(-40) }));

    const after = await pidsOf(cluster);
    for (const [name, was] of before) {
      const now = after.get(name);
      t.equal(now?.haproxy, was.haproxy, `${name}: the same HAProxy`);
      t.equal(now?.bird, was.bird, `${name}: the same BIRD`);
      t.equal(now?.couchdb, was.couchdb, `${name}: the same CouchDB`);
      t.not(now?.daemon, was.daemon, `${name}: another daemon`);
    }
    t.ok((after.get('both1/db')?.couchdb ?? 0) > 1, 'CouchDB runs');
    for (const host of hosts) t.match(await host.must(['rpm', '-q', 'bornemisza-node']), /-2\./);
    for (const instance of cluster.instances) {
      t.match((await cluster.status(instance)).version, /-2$/, `${instance.name} says which build it is`);
      t.equal((await rollout(instance)).state, 'finished');
    }
    // Where the timer finds nothing newer, nothing begins.
    await app1.host.must(['systemctl', 'start', 'bornemisza-rollout.service'], { timeoutMs: ROLLOUT_MS });
    t.match(await app1.host.journal('bornemisza-rollout.service'), /Skipped due to 'exec-condition'/);
    t.equal((await rollout(app1)).state, 'finished');
    t.same(await identitiesOf(cluster, app1), identities, 'everybody is who they were');
    t.equal(await app1.host.readFile(kept), '# mine\n', 'an edited example is kept');
    t.match(await app1.host.readFile('/etc/bornemisza/services.d/site.toml'), /name = "site"/);
    t.equal(await app1.host.readFile(`${config}.format-0`), old, 'the configuration from before is kept');
    t.match(await app1.host.readFile(config), /^format = 1$/m, 'and the configuration was migrated');
    t.equal((await app1.host.exec(['test', '-e', `${config}.format-1`])).code, 1);
    const deaths = await deathsSince(cluster, sinceIds);
    t.same(
      deaths.filter((words) => !restless.some((name) => words.includes(`: ${name}: `))),
      [],
      'nobody took a restart for a death',
    );
  });

  await t.test(
    'a package without a signature stops the rollout, though a repository would not mind',
    async (t) => {
      await packages.offer(packages.unsigned.file);
      for (const host of hosts) await useRepository(host, false);
      const { code, stderr } = await app1.host.exec(['bornemisza', 'upgrade'], { timeoutMs: ROLLOUT_MS });
      t.equal(code, 1);
      t.match(stderr, /dnf failed on both1/);
      for (const host of hosts) {
        t.match(await host.must(['rpm', '-q', 'bornemisza-node']), /-2\./);
        await useRepository(host);
      }
      await packages.retract(packages.unsigned.file);
    },
  );

  await t.test('a build that does not come back halts the rollout, and nobody else is touched', async (t) => {
    await packages.offer(packages.broken.file);
    const before = await pidsOf(cluster);
    const movesBefore = cluster.lab.router.history(FLOATING).length;
    const load = cluster.lab.client.startLoad({ url: SITE, ratePerSecond: 50 });
    // The last one was stopped: a new one does not begin over it, the operator's word does.
    t.equal((await app2.host.exec(['bornemisza', 'upgrade'], { timeoutMs: ROLLOUT_MS })).code, 5);
    const { code, stderr } = await app2.host.exec(['bornemisza', 'upgrade', 'resume'], {
      timeoutMs: ROLLOUT_MS,
    });
    t.equal(code, 1);
    t.match(stderr, /a daemon on both1 did not come back after its upgrade\n.*next:.*dnf downgrade/);
    const report = await load.stop();
    const moves = cluster.lab.router.history(FLOATING).slice(movesBefore);
    // The floating address may move, and with it connections that are open: TCP knows no other way.
    t.same(Object.keys(report.byStatus), ['200'], JSON.stringify(report));
    t.same(
      Object.keys(report.byError).filter((code) => code !== 'ECONNRESET'),
      [],
    );
    t.ok(report.failed <= moves.length * report.mostConnections, JSON.stringify({ ...report, moves }));
    for (const instance of [app1, app2]) {
      const { name, host } = instance;
      t.match(await host.must(['rpm', '-q', 'bornemisza-node']), /-2\./, `${name} keeps its version`);
      t.same((await pidsOf(cluster)).get(name), before.get(name), `${name} runs on, untouched`);
      t.match(await rollout(instance), {
        state: 'stopped',
        hosts: [{ host: 'both1', step: 'working' }, {}, {}],
      });
      t.match(
        await host.must(['bornemisza', 'upgrade', 'status']),
        /is stopped: a daemon on both1 did not come back/,
      );
      t.match(
        (await cluster.status(instance)).warnings
          .map(({ message, next }) => `${message} -- ${next}`)
          .join('\n'),
        /^a rollout is stopped: a daemon on both1/m,
      );
      const warned = await host.journalEntries('bornemisza@app.service', '--priority=warning');
      t.ok(
        warned.some(({ MESSAGE }) => /rollout: stopped, a daemon on both1/.test(MESSAGE ?? '')),
        `${name}: the journal warns`,
      );
    }
    for (const { host } of [app1, app2]) {
      await automaticUpdate(host);
      t.match(await host.must(['rpm', '-q', 'bornemisza-node']), /-2\./, 'and dnf-automatic holds still');
      t.match(await host.journal('dnf-automatic-install.service'), /a rollout is stopped/);
    }
    const both1 = cluster.instance('both1/db');
    t.match(await both1.host.must(['rpm', '-q', 'bornemisza-node']), /-4\./);
    t.equal((await pidsOf(cluster)).get('both1/db')?.haproxy, before.get('both1/db')?.haproxy);
    t.equal((await pidsOf(cluster)).get('both1/db')?.couchdb, before.get('both1/db')?.couchdb);

    // Back to the version before: the daemons come back, and the rollout stays where it is, whoever restarts or asks.
    await dnf(both1.host, 'downgrade', await labelOf(second.file));
    await cluster.settled(SETTLE_MS);
    await app1.host.writeFile('/etc/systemd/system/bornemisza-rollout.timer.d/often.conf', OFTEN);
    await app1.host.must(['systemctl', 'enable', 'bornemisza-rollout.timer']);
    await cluster.lab.rebootAll();
    await cluster.settled(SETTLE_MS);
    await until(
      async () => {
        const said = await app1.host.journalEntries('bornemisza-rollout.service', '--boot');
        return said.filter(({ MESSAGE }) => /the last rollout was stopped/.test(MESSAGE ?? '')).length >= 2;
      },
      { what: 'the timer has asked twice since the boot', deadlineMs: 60_000, everyMs: 500 },
    );
    await app1.host.disable('bornemisza-rollout.timer');
    await cluster.command(app1, ['maintenance', 'on']);
    await until(
      async () => (await cluster.members(app2)).some((each) => each.name === 'app1/app' && each.maintenance),
      { what: 'app2 sees app1 in maintenance', deadlineMs: 15_000, everyMs: 200 },
    );
    const ill = await app2.host.exec(['bornemisza', 'upgrade', 'resume'], { timeoutMs: ROLLOUT_MS });
    t.equal(ill.code, 5, 'nor can the operator resume while a node is not well');
    t.match(ill.stderr, /app1\/app is in maintenance/);
    await cluster.command(app1, ['maintenance', 'off']);
    await cluster.settled(SETTLE_MS);
    for (const instance of cluster.instances) {
      const { host, name } = instance;
      t.equal((await rollout(instance)).state, 'stopped', name);
      t.match(await host.must(['rpm', '-q', 'bornemisza-node']), /-2\./, name);
    }
    await packages.retract(packages.broken.file);
    await app2.host.must(['bornemisza', 'upgrade', 'resume'], { timeoutMs: ROLLOUT_MS });
    for (const host of hosts) t.match(await host.must(['rpm', '-q', 'bornemisza-node']), /-2\./);
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
    await cluster.lab.router.waitForAnnouncers(FLOATING, APP_HOSTS, 30_000);
    await dnf(host, 'remove', 'bornemisza-node');
    await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1', 'both1']);
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
    await cluster.lab.router.waitForAnnouncers(FLOATING, APP_HOSTS, 30_000);
    const members = await cluster.members(app1);
    t.match(members.map(({ name, state }) => `${name} ${state}`).sort(), [
      'app1/app alive',
      'app2/app alive',
      'both1/app alive',
      'both1/db alive',
    ]);
    t.equal(await host.must(['rpm', '-V', 'bornemisza-node']), '');
  });

  await t.test('a node that leaves with --wipe leaves nothing of its own behind', async (t) => {
    const { host } = app2;
    const told = await cluster.command(app2, ['leave', '--wipe']);
    t.match(told, /has left the cluster[^]*removed all of the app node from this machine\n$/);
    cluster.forget('app2/app');
    const left = await host.must([
      'sh',
      '-c',
      'find /etc/bornemisza /var/lib/bornemisza /etc/bird/bornemisza.d -type f ! -path "*/services.d/*"',
    ]);
    t.same(
      left
        .split('\n')
        .filter((path) => path !== '')
        .sort(),
      [],
    );
    t.equal(
      (await host.exec(['systemctl', 'is-active', 'bornemisza@app.service'])).stdout.trim(),
      'inactive',
    );
    t.equal(
      (await host.exec(['systemctl', 'is-enabled', 'bornemisza@app.service'])).stdout.trim(),
      'disabled',
    );
    await cluster.lab.router.waitForAnnouncers(FLOATING, ['app1', 'both1']);
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

/**
 * dnf-automatic as it lies in Debian's dnf, which has no unit for it: EL's, and the package's drop-ins as the manual
 * says.
 */
async function prepareAutomatic(host: Host): Promise<void> {
  const manual = await readFile(join(tree, 'docs/install.md'), 'utf8');
  const [commands = ''] = /^ {4}for unit in dnf-automatic[^]*?daemon-reload$/m.exec(manual) ?? [];
  await host.writeFile('/usr/lib/systemd/system/dnf-automatic-install.service', AUTOMATIC);
  // EL's dnf takes it from the release that is installed, and dnf-automatic has no option for it.
  await host.writeFile('/etc/dnf/vars/releasever', '9\n');
  await host.must(['sh', '-euc', commands]);
}
const AUTOMATIC = `[Unit]
Description=dnf automatic install updates
After=network-online.target

[Service]
Type=oneshot
Nice=19
IOSchedulingClass=2
IOSchedulingPriority=7
ExecStart=/usr/bin/python3 -c "import sys; from dnf.automatic.main import main; sys.exit(main(sys.argv[1:]))" \\
  /etc/dnf/automatic.conf --timer --installupdates
`;

/** As its timer does it; where it is not the host's turn, the unit is skipped, which is no failure. */
function automaticUpdate(host: Host): Promise<string> {
  return host.must(['systemctl', 'start', 'dnf-automatic-install.service'], { timeoutMs: ROLLOUT_MS });
}

/** The journal of the whole host with all fields, oldest first. */
async function entriesOf(host: Host, ...asked: readonly string[]): Promise<Record<string, string>[]> {
  const text = await host.must(['journalctl', '--no-pager', '--quiet', '--output=json', ...asked]);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, string>);
}

type Pids = {
  readonly daemon: number;
  readonly haproxy: number;
  readonly bird: number;
  readonly couchdb: number;
};

async function pidsOf(cluster: Cluster): Promise<Map<string, Pids>> {
  const pids = new Map<string, Pids>();
  for (const { host, role, name } of cluster.instances) {
    const of = async (unit: string): Promise<number> => (await host.unit(unit)).mainPid;
    pids.set(name, {
      daemon: await of(`bornemisza@${role}.service`),
      haproxy: await of(`bornemisza-haproxy@${role}.service`),
      bird: await of('bird.service'),
      couchdb: await of('couchdb.service'),
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
