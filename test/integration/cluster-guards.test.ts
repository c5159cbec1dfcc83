import t from 'tap';
import type { PingAnswer } from '../../src/daemon/control/api.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import {
  allUp,
  daemonOf,
  haproxyOf,
  inOneLine,
  killDaemon,
  nextEntry,
  PATIENCE_MS,
  programs,
  reviveDaemon,
  serverIs,
  serving,
  trailEnd,
} from './cluster-bed.ts';

/** Each guard, shown by what HAProxy, the provider’s router and the audit trail say when it has something to hold. */
t.setTimeout(2_300_000);

const FLOATING = '203.0.113.10';
const REFUSED = 5;

let cluster: Cluster;
let app1: Instance;
let app2: Instance;
let db1: Instance;
let db2: Instance;

t.before(async () => {
  cluster = await Cluster.create({ app: 2, db: 2 });
  app1 = cluster.instance('app1');
  app2 = cluster.instance('app2');
  db1 = cluster.instance('db1');
  db2 = cluster.instance('db2');
  // Checks fail again and again here; the damping of their return is a matter of other tests.
  for (const { host, role } of cluster.instances) {
    await host.must([
      'sh',
      '-c',
      `printf '\\n[health]\\ndamping_ms = 500\\n[metrics]\\nenabled = true\\n' >>/etc/bornemisza/${role}.toml`,
    ]);
    await host.restart(`bornemisza@${role}.service`);
  }
  await allUp(cluster);
  await announced('app1', 'app2');
  await cluster.couch(db1.host, '/kept', 'PUT');
});
t.teardown(() => cluster?.close());

const announced = (...hosts: string[]): Promise<void> =>
  cluster.lab.router.waitForAnnouncers(FLOATING, hosts, PATIENCE_MS);

/** Runs `bornemisza ARGS` on an instance’s host as its operator would, whatever comes of it. */
const operator = ({ host, role }: Instance, ...args: readonly string[]) =>
  host.exec(['bornemisza', ...args, '--role', role], { timeoutMs: PATIENCE_MS });

const sees = (
  watcher: Instance,
  name: string,
  what: Partial<Awaited<ReturnType<Cluster['members']>>[number]>,
): Promise<true> =>
  until(
    async () => {
      const row = (await cluster.members(watcher)).find((each) => each.name === name);
      const differs = Object.entries(what).filter(([key, value]) => row?.[key as 'state'] !== value);
      if (differs.length > 0) throw new Error(JSON.stringify(row));
      return true as const;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 200, what: `${name} as ${JSON.stringify(what)} to ${watcher.name}` },
  );

t.test(
  'Prometheus reads daemons and HAProxies from the private network, and nobody from outside',
  async (t) => {
    const curl = (url: string): string[] => ['curl', '-sS', '--max-time', '10', url];
    const scraped = async ({ host }: Instance, port: number): Promise<string[]> =>
      (await db2.host.must(curl(`http://${host.privateAddress}:${port}/metrics`))).split('\n');
    const daemon = await scraped(app1, 4105);
    for (const line of [
      'bornemisza_node_up 1',
      'bornemisza_members{role="db",state="alive"} 2',
      'bornemisza_members_in_traffic{role="app"} 2',
      'bornemisza_floating_ip_held 1',
      'bornemisza_program_converged{program="haproxy"} 1',
    ])
      t.ok(daemon.includes(line), line);
    const [, gossip] = daemon.flatMap(
      (line) => /^bornemisza_membership_bytes_total.*"in"} (\d+)$/.exec(line) ?? [],
    );
    t.ok(Number(gossip) > 0, 'what was heard is counted');
    t.ok((await scraped(db1, 4106)).includes('bornemisza_check_up{check="couchdb",required="true"} 1'));
    t.ok(
      (await scraped(app1, 8404)).includes(
        'haproxy_server_status{proxy="db_nodes",server="db1",state="UP"} 1',
      ),
    );
    for (const port of [4105, 8404]) {
      const outside = await cluster.lab.client.exec(
        curl(`http://${app1.host.publicAddress}:${port}/metrics`),
      );
      t.not(outside.code, 0, `${port}: ${outside.stdout}`);
    }
  },
);

t.test('one node answers for all of them, while all is well', async (t) => {
  t.match(await operator(app1, 'wait', 'healthy', '--timeout', '2m'), { code: 0, stdout: 'healthy\n' });
  t.equal((await operator(app1, 'status', '--check')).code, 0);
  const names = cluster.instances.map(({ name }) => name).toSorted();

  const ping = await operator(app1, 'ping', '--json');
  const { nodes } = JSON.parse(ping.stdout) as PingAnswer;
  t.equal(ping.code, 0, ping.stderr);
  t.same(
    nodes.map(({ name }) => name).toSorted(),
    names.filter((name) => name !== 'app1/app'),
  );
  for (const { name, problem, roundTripMs, portsThere, portsBack = [] } of nodes) {
    t.equal(problem, '', name);
    t.ok((roundTripMs?.median ?? 0) > 0, `${name} answers in ${roundTripMs?.median} ms`);
    t.ok(portsThere.length > 0 && portsBack.length > 0, `${name}: ports in both directions`);
  }

  const asked = await operator(app1, 'services', '--json');
  const { services } = JSON.parse(asked.stdout) as {
    services: { name: string; up: string[]; down: string[] }[];
  };
  t.match(Object.fromEntries(services.map(({ name, up }) => [name, up.toSorted()])), {
    haproxy: names,
    couchdb: ['db1/db', 'db2/db'],
    site: ['app1/app', 'app2/app'],
  });
  t.ok(services.every(({ down }) => down.length === 0));

  const merged = await operator(app1, 'events', '--cluster', '--limit', '500', '--json');
  const told = merged.stdout.trim().split('\n');
  const from = told.flatMap((line) => {
    const { node, also } = JSON.parse(line) as { node: string; also: string[] };
    return [node, ...also];
  });
  t.same([...new Set(from)].toSorted(), names, 'the trails of all nodes');
});

t.test('a dead daemon is not a dead service: only a failed check beside it takes a server out', async (t) => {
  const end = await trailEnd(cluster, app1);
  await killDaemon(db2);
  await sees(app1, 'db2/db', { state: 'dead' });
  // The second, faster check is on and decides: it passes.
  await serverIs(cluster, app1, 'db_nodes.unwatched/db2', 'UP');
  await sees(app1, 'db2/db', { rotation: 'unwatched' });
  await until(async () => (await cluster.status(app1)).plugins.every(({ state }) => state === 'converged'), {
    deadlineMs: PATIENCE_MS,
    everyMs: 100,
  });
  t.equal((await serving(cluster, app1))['db_nodes/db2'], 'UP', 'its CouchDB gets requests as before');
  t.equal((await serving(cluster, app2))['db_nodes/db2'], 'UP');
  t.equal(
    (await serving(cluster, db1))['permissions/databases'],
    'no',
    'CouchDB itself says that it is there',
  );

  await db2.host.stop(haproxyOf(db2));
  await serverIs(cluster, app1, 'db_nodes/db2', 'MAINT');
  const entry = await nextEntry(cluster, app1, end, (each) =>
    /db_nodes\/db2: ready → maint/.test(inOneLine(each)),
  );
  t.match(inOneLine(entry), /its daemon is dead; its own check decides, and its check fails/);
  t.match(entry.subjects, ['db2/db'], 'so that `explain db2` finds it');

  await t.test('data is never given up on suspicion: CouchDB’s cluster and its maps keep it', async (t) => {
    await sees(db1, 'db2/db', { state: 'dead' });
    await until(async () => (await cluster.status(db1)).plugins.every(({ state }) => state === 'converged'), {
      deadlineMs: PATIENCE_MS,
      everyMs: 100,
    });
    const both = [db1, db2].map(({ host }) => `couchdb@${host.privateAddress}`);
    t.strictSame((await cluster.couchMembership(db1)).cluster_nodes.toSorted(), both);
    const { shards } = JSON.parse(await cluster.couch(db1.host, '/kept/_shards')) as {
      shards: Record<string, string[]>;
    };
    for (const [range, holders] of Object.entries(shards)) t.strictSame(holders.toSorted(), both, range);
    const { code, stderr } = await operator(app1, 'remove', 'db2');
    t.equal(code, REFUSED, stderr);
    t.match(stderr, /db2\/db did not leave: its copies of the data would be lost[\s\S]*--dead/);
  });

  await db2.host.start(haproxyOf(db2));
  await serverIs(cluster, app1, 'db_nodes/db2', 'UP');
  await reviveDaemon(db2);
  await allUp(cluster);
});

t.test(
  'a db node is cut off: no database is created or deleted, on neither side, until it is back',
  async (t) => {
    const { admin } = JSON.parse(await db1.host.readFile('/var/lib/bornemisza/db/secrets.json')) as {
      admin: { user: string; password: string };
    };
    /** As a service on an app node asks: what HAProxy makes of it, headers first. */
    const ask = (method: string, path: string, ...more: readonly string[]): Promise<string> =>
      app1.host.must(
        ['curl', '-sS', '-i', '-m', '40', '-K', '-', '-X', method, ...more, `http://127.0.0.1:5984${path}`],
        { stdin: `user = "${admin.user}:${admin.password}"\n`, timeoutMs: 45_000 },
      );
    t.match(await ask('PUT', '/before'), /^HTTP\S+ 20[12] /);
    const ends = await Promise.all([db1, db2].map((each) => trailEnd(cluster, each)));
    const cutMs = performance.now();
    t.teardown(() => db2.host.heal());
    await db2.host.cut({ device: 'private' });
    // Not one that was rolled back, as when a check of the cut node changed its mind while that was made.
    const entry = await nextEntry(
      cluster,
      db1,
      ends[0] ?? 0,
      (each) => each.result === 'ok' && /permissions\/databases: ready → maint/.test(inOneLine(each)),
    );
    t.comment(`refused ${Math.round(performance.now() - cutMs)} ms after the cut`);
    t.match(
      inOneLine(entry),
      // With two nodes CouchDB answers no administrator until it notices the cut itself.
      new RegExp(
        /creating and deleting databases is refused: /.source +
          /(not connected: db2\/db|db2\/db does not|CouchDB does not answer, and db2\/db is not reachable)/
            .source,
      ),
    );
    t.ok(entry.subjects.includes('db2/db'), 'so that `explain db2` finds it');
    await serverIs(cluster, db2, 'permissions/databases', 'MAINT');
    // Its second check fails as well.
    await serverIs(cluster, app1, 'db_nodes/db2', 'MAINT');

    for (const [method, path] of [
      ['PUT', '/during'],
      ['DELETE', '/kept'],
    ] as const) {
      const answer = await ask(method, path);
      t.match(answer, /^HTTP\S+ 503 [^]*retry-after: 5\r\n/, `${method} ${path}`);
      t.match(JSON.parse(answer.slice(answer.indexOf('{'))), { error: 'service unavailable' });
    }
    t.match(await ask('PUT', '/kept/written', '-d', '{}'), /^HTTP\S+ 20[12] /, 'documents go on');
    t.match(await ask('GET', '/kept/written'), /^HTTP\S+ 200 /);
    const said = /databases is refused here: .*db2\/db.* -- .*`bornemisza remove HOST --dead`/;
    await until(
      async () =>
        said.test(
          (await cluster.status(db1)).warnings.map(({ message, next }) => `${message} -- ${next}`).join('\n'),
        ),
      {
        deadlineMs: PATIENCE_MS,
        everyMs: 200,
        what: 'status to say what to do, once CouchDB answers again',
      },
    );

    await db2.host.heal();
    for (const [index, each] of [db1, db2].entries())
      await nextEntry(
        cluster,
        each,
        ends[index] ?? 0,
        (one) => one.result === 'ok' && /permissions\/databases: maint → ready/.test(inOneLine(one)),
      );
    await allUp(cluster);
    t.match(await ask('DELETE', '/before'), /^HTTP\S+ 20[02] /);
    t.match(await ask('PUT', '/after'), /^HTTP\S+ 20[12] /);
    t.match(await ask('GET', '/during'), /^HTTP\S+ 404 /, 'refused, not queued');
    t.notMatch(
      (await cluster.status(db1)).warnings.map(({ message, next }) => `${message} -- ${next}`).join('\n'),
      'is refused here',
    );
  },
);

t.test('nothing before the first sync: a node that reaches no peer after a start removes none', async (t) => {
  const before = await programs(app1);
  const end = await trailEnd(cluster, app1);
  await killDaemon(app1);
  // Daemons cannot speak with it, while the doors of HAProxy stay open; and it knows no member from before.
  await app1.host.must(['nft', '-f', '-'], {
    stdin: `table inet deaf {
      chain in { type filter hook input priority 0; tcp dport { 4101, 4103 } drop; tcp sport { 4101, 4103 } drop; }
    }`,
  });
  await app1.host.must(['rm', '/var/lib/bornemisza/app/members.snapshot']);
  await reviveDaemon(app1);
  const status = await until(
    async () => {
      const now = await cluster.status(app1);
      return now.phase === 'running' && now.plugins.every(({ state }) => state === 'converged')
        ? now
        : undefined;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 100 },
  );
  t.equal(status.synced, false);
  t.match(status.held, [{ code: 'not-synced' }]);
  t.ok(status.held[0]?.subjects.includes('db1/db'));
  t.equal((await cluster.members(app1)).find(({ name }) => name === 'db1/db')?.state, 'absent');
  t.strictSame(await serving(cluster, app1), {
    'db_nodes/db1': 'UP',
    'db_nodes/db2': 'UP',
    'local_site/_local': 'UP',
    'svc_site/app1': 'UP',
    'svc_site/app2': 'UP',
  });
  t.equal(await programs(app1), before, 'not even a reload');
  // Its own word is not held: it is up, and says so.
  await announced('app1', 'app2');

  await app1.host.must(['nft', 'delete', 'table', 'inet', 'deaf']);
  await nextEntry(
    cluster,
    app1,
    end,
    ({ kind, summary }) => kind === 'guard' && summary.startsWith('first sync done'),
  );
  await allUp(cluster);
  t.strictSame((await cluster.status(app1)).held, []);
});

t.test('when every db node vanishes at once', async (t) => {
  const end = await trailEnd(cluster, app1);
  await Promise.all([db1.host.powerCut(), db2.host.powerCut()]);

  await t.test('the landslide is held and reported', async (t) => {
    const entry = await nextEntry(
      cluster,
      app1,
      end,
      ({ kind, result }) => kind === 'guard' && result === 'held',
    );
    t.match(entry.error, { code: 'landslide', next: /bornemisza guards release/ });
    t.match(entry.subjects, ['db1/db', 'db2/db']);
    for (const app of [app1, app2]) {
      for (const name of ['db1', 'db2']) {
        // HAProxy's own check goes on: configured, and down.
        await serverIs(cluster, app, `db_nodes/${name}`, 'DOWN');
        await sees(app, `${name}/db`, { state: 'dead', rotation: 'in' });
      }
      await nextEntry(cluster, app, 0, ({ error }) => error?.code === 'landslide');
    }
    t.match((await operator(app1, 'guards', 'list')).stdout, /db1\/db, db2\/db .*guards release/);
    t.match((await operator(app1, 'members')).stdout, /db1\/db +dead .* was up /);
    t.match(await operator(app1, 'ping', 'db1'), { code: 1, stderr: /db1\/db/ });
  });

  await t.test(
    'the last one standing: all nodes report down, so all of them continue to announce',
    async (t) => {
      await sees(app1, 'app2/app', { state: 'alive', health: 'down' });
      await sees(app2, 'app1/app', { state: 'alive', health: 'down' });
      await announced('app1', 'app2');
      for (const app of [app1, app2]) {
        const { health, announcing } = await cluster.status(app);
        t.match({ health, announcing }, { health: 'down', announcing: true }, app.name);
      }
      t.match(await operator(app1, 'status', '--check'), { code: 2, stderr: /app1\/app is down: database/ });
      t.match(await operator(app1, 'wait', 'serving', '--timeout', '1s'), { code: 1, stderr: /not serving/ });
    },
  );

  await t.test('nobody announces while its HAProxy does not answer, last one standing or not', async () => {
    await app2.host.stop(haproxyOf(app2));
    await announced('app1');
    await app2.host.start(haproxyOf(app2));
    await announced('app1', 'app2');
  });

  await t.test('the operator releases it on one node', async (t) => {
    const { code, stdout, stderr } = await operator(app1, 'guards', 'release');
    t.equal(code, 0, stderr);
    t.match(stdout, /1 held, now released/);
    for (const name of ['db1', 'db2']) await serverIs(cluster, app1, `db_nodes/${name}`, 'MAINT');
    t.strictSame((await cluster.status(app1)).held, []);
    t.equal((await serving(cluster, app2))['db_nodes/db1'], 'DOWN', 'the other still holds');
    t.equal((await cluster.status(app2)).held.length, 1);
  });

  await t.test('their return ends it', async (t) => {
    const heldSince = await trailEnd(cluster, app2);
    await Promise.all([db1.host.boot(), db2.host.boot()]);
    await nextEntry(
      cluster,
      app2,
      heldSince,
      ({ kind, result, subjects }) => kind === 'guard' && result === 'info' && subjects.includes('db1/db'),
    );
    for (const app of [app1, app2])
      for (const name of ['db1', 'db2']) await serverIs(cluster, app, `db_nodes/${name}`, 'UP');
    await allUp(cluster);
    t.strictSame((await cluster.status(app2)).held, []);
    await announced('app1', 'app2');
  });
});

t.test(
  'unreachable is not down: a node that reaches no peer and fails its own check withdraws',
  async (t) => {
    await app2.host.cut({ device: 'private' });
    // Only when it holds every peer for dead would a node that takes silence for *down* think itself the last one.
    await sees(app2, 'app1/app', { state: 'dead' });
    await until(async () => (await cluster.status(app2)).health === 'down', {
      deadlineMs: PATIENCE_MS,
      everyMs: 100,
    });
    await announced('app1');
    const { health, announcing } = await cluster.status(app2);
    t.match({ health, announcing }, { health: 'down', announcing: false });
    t.equal((await cluster.status(app1)).health, 'up');
    const answer = await cluster.lab.client.request({ url: `https://${FLOATING}/` });
    t.equal(answer.status, 200);
    await app2.host.heal();
    await allUp(cluster);
    await announced('app1', 'app2');
  },
);

const SWITCH = 'bornemisza-deadman.service';
/** Longer than the switch needs for its five questions, by half. */
const FIVE_QUESTIONS_MS = 8000;
const HEARTBEAT = '/run/bornemisza/deadman/heartbeat';

const carriesAddress = async ({ host }: Instance): Promise<boolean> =>
  (await host.must(['ip', '-br', 'addr', 'show', 'bm-float'])).includes(`${FLOATING}/32`);

const switchSaid = async ({ host }: Instance): Promise<string> =>
  (await host.journalEntries(SWITCH, '--priority=err', '--identifier=bornemisza-deadman'))
    .map(({ MESSAGE }) => MESSAGE)
    .join('\n');

const lastChange = (): number => cluster.lab.router.history(FLOATING).at(-1)?.atMs ?? 0;

/** How old the daemon’s last sign of life is, in seconds. */
async function silentFor({ host }: Instance): Promise<number> {
  const [beat, uptime] = await Promise.all([host.readFile(HEARTBEAT), host.readFile('/proc/uptime')]);
  return Number.parseFloat(uptime) - Number.parseFloat(beat);
}

t.test('the dead-man switch takes the floating IP off where HAProxy and daemon are both dead', async (t) => {
  for (const { host } of [app1, app2]) t.equal((await host.unit(SWITCH)).active, 'active');

  await t.test('both frozen at once: gone; the daemon dead beside a living HAProxy: stays', async (t) => {
    await killDaemon(app2);
    const frozenMs = Date.now();
    for (const unit of [haproxyOf(app1), daemonOf(app1)]) await app1.host.kill(unit, 'SIGSTOP');
    await announced('app2');
    t.comment(`frozen: withdrawn after ${((lastChange() - frozenMs) / 1000).toFixed(1)} s`);
    t.equal(await carriesAddress(app1), false);
    const said = new RegExp(`^${FLOATING}: removed from bm-float, as HAProxy missed .* answers in a row`);
    t.match(await switchSaid(app1), said);
    for (const unit of [haproxyOf(app1), daemonOf(app1)]) await app1.host.kill(unit, 'SIGCONT');
    await until(async () => (await silentFor(app2)) > 12, { deadlineMs: PATIENCE_MS, everyMs: 200 });
    await announced('app1', 'app2');
    t.equal(await switchSaid(app2), '');
  });

  await t.test('HAProxy dead: a living daemon withdraws, an unreadable heartbeat keeps it', async (t) => {
    await app2.host.must(['chmod', '000', HEARTBEAT]);
    for (const app of [app1, app2]) await app.host.stop(haproxyOf(app));
    const stoppedMs = performance.now();
    const before = await switchSaid(app1);
    await announced('app2');
    await until(() => performance.now() - stoppedMs > FIVE_QUESTIONS_MS, { everyMs: 100 });
    t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app2']);
    for (const app of [app1, app2]) t.equal(await carriesAddress(app), true, app.name);
    t.equal(await switchSaid(app1), before, 'it says nothing where the daemon lives');
    t.match(
      await switchSaid(app2),
      /heartbeat\S* cannot be used: it cannot be read; the floating addresses stay.* -- /,
    );
    await app1.host.start(haproxyOf(app1));
    await announced('app1', 'app2');
  });

  await t.test('daemon dead, then HAProxy: gone, and back with the daemon and HAProxy', async (t) => {
    await app2.host.must(['chmod', '644', HEARTBEAT]);
    const readableMs = Date.now();
    await announced('app1');
    t.comment(
      `daemon long dead, HAProxy dead: withdrawn after ${((lastChange() - readableMs) / 1000).toFixed(1)} s`,
    );
    t.equal(await carriesAddress(app2), false);
    // The daemon's unit wants HAProxy's, which would answer at once.
    await app2.host.mask(haproxyOf(app2));
    await reviveDaemon(app2);
    await until(() => carriesAddress(app2), { deadlineMs: PATIENCE_MS, everyMs: 100 });
    t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app1'], 'not before HAProxy answers');
    await app2.host.unmask(haproxyOf(app2));
    await app2.host.start(haproxyOf(app2));
    await announced('app1', 'app2');
    await allUp(cluster);
  });
});

t.test(
  'what would empty a role, or put out who serves, is refused at the asker without --force',
  async (t) => {
    const first = await operator(app2, 'maintenance', 'on', '--wait');
    t.equal(first.code, 0, first.stderr);
    t.match(first.stdout, /^app2\/app gets no traffic[^]*\ndrained: \d+ connections?, 0 open requests\n$/);
    t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app1'], 'withdrawn by then');
    await serverIs(cluster, app1, 'svc_site/app2', 'MAINT');
    for (const args of [['maintenance', 'on'], ['leave']]) {
      const { code, stderr } = await operator(app1, ...args);
      t.equal(code, REFUSED, `${args.join(' ')}: ${stderr}`);
      t.match(stderr, /app1\/app is the last app node that gets traffic/);
    }
    const removal = await operator(app1, 'remove', 'db1');
    t.equal(removal.code, REFUSED, removal.stderr);
    t.match(removal.stderr, /db1\/db is alive and serving/);
    const { phase, maintenance } = await cluster.status(app1);
    t.match({ phase, maintenance }, { phase: 'running', maintenance: false });
    t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app1']);

    const forced = await operator(app1, 'maintenance', 'on', '--force');
    t.equal(forced.code, 0, forced.stderr);
    await announced();
    t.strictSame((await cluster.status(app1)).held, [], 'once announced, it is not held');
    for (const app of [app1, app2])
      t.match(await operator(app, 'maintenance', 'off', '--wait'), { code: 0, stdout: /gets traffic again/ });
    await announced('app1', 'app2');
    await allUp(cluster);
  },
);

t.test('maintenance survives a reboot', async (t) => {
  const said = await operator(app2, 'maintenance', 'on');
  t.equal(said.code, 0, said.stderr);
  await announced('app1');
  await app2.host.reboot();
  await until(async () => (await cluster.status(app2)).health === 'up', {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
  });
  await sees(app1, 'app2/app', { state: 'alive', maintenance: true, rotation: 'out' });
  await serverIs(cluster, app1, 'svc_site/app2', 'MAINT');
  t.strictSame(await cluster.lab.router.announcers(FLOATING), ['app1']);
  t.equal((await cluster.status(app2)).announcing, false);
  t.equal((await operator(app2, 'maintenance', 'off')).code, 0);
  await announced('app1', 'app2');
  await serverIs(cluster, app1, 'svc_site/app2', 'UP');
});
