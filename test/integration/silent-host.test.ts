import t from 'tap';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { allUp, inOneLine, nextEntry, PATIENCE_MS, serverIs, trailEnd } from './cluster-bed.ts';

/** A host without power: its kernel answers nothing, so the app nodes need not wait until membership agrees. */
t.setTimeout(1_200_000);

let cluster: Cluster;
let app1: Instance;
let app2: Instance;

t.before(async () => {
  cluster = await Cluster.create({ app: 2, db: 2 });
  app1 = cluster.instance('app1');
  app2 = cluster.instance('app2');
  for (const { host, role } of cluster.instances) {
    await host.must([
      'sh',
      '-c',
      `printf '\\n[health]\\ndamping_ms = 500\\n' >>/etc/bornemisza/${role}.toml`,
    ]);
    await host.restart(`bornemisza@${role}.service`);
  }
  await allUp(cluster);
});
t.teardown(() => cluster?.close());

/** The entries in which app1 says that a host does not answer. */
const silences = async (afterId: number): Promise<string[]> =>
  (await cluster.audit(app1, { since: afterId }))
    .map(inOneLine)
    .filter((line) => /does not answer|no answer from/.test(line));

for (const [what, name, backends] of [
  ['app', 'app2', ['svc_site', 'svc_site.panic']],
  ['db', 'db2', ['db_nodes', 'db_nodes.panic']],
] as const)
  t.test(`a silent ${what} host gets no new requests, loses the old ones, and comes back`, async (t) => {
    const end = await trailEnd(cluster, app1);
    const silent = cluster.instance(name);
    await silent.host.cut();
    const entry = await nextEntry(cluster, app1, end, (each) =>
      inOneLine(each).includes(`no answer from ${silent.name}`),
    );
    for (const backend of backends)
      t.match(
        inOneLine(entry),
        new RegExp(`${backend}/${name}: ready → (drain|maint) \\(its host does not answer\\)`),
      );
    t.ok(entry.subjects?.includes(silent.name), 'so that `explain` finds it');
    await serverIs(cluster, app1, `${backends[0]}/${name}`, 'MAINT');
    // Long dead: HAProxy's second check alone decides, and no silence is left that a return would find.
    if (what === 'app')
      await nextEntry(cluster, app1, end, (each) =>
        inOneLine(each).includes(`local_site/${name}: drain → ready`),
      );
    await silent.host.heal();
    await allUp(cluster);
  });

t.test('an app node whose own link is cut takes nobody for silent', async (t) => {
  const end = await trailEnd(cluster, app1);
  await app1.host.cut({ device: 'private' });
  // By its own check, which takes longer.
  await serverIs(cluster, app1, 'svc_site/app2', 'DOWN');
  t.same(
    (await silences(end)).filter((line) => line.includes('does not answer')),
    [],
  );
  await app1.host.heal();
  await allUp(cluster);
});

t.test('a host whose programs are all frozen is not silent', async (t) => {
  const end = await trailEnd(cluster, app1);
  await app2.host.freeze();
  await nextEntry(cluster, app1, end, (each) => /app2\/app.* dead/.test(inOneLine(each)), PATIENCE_MS);
  t.same(await silences(end), []);
  await app2.host.thaw();
  await allUp(cluster);
});
