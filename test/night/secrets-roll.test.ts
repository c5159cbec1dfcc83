import t from 'tap';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import { allUp, PATIENCE_MS } from '../integration/cluster-bed.ts';

/**
 * A db node that was removed knows the Erlang cookie and CouchDB's secret, so both are made again. `LAB_COUCHDB` runs
 * the same on a real release.
 */
t.setTimeout(2_300_000);

const cluster = await Cluster.create({ app: 1, db: 3, floating: false });
t.teardown(() => cluster.close());
const app1 = cluster.instance('app1/app');
const [db1, db2, db3] = cluster.instancesOf('db');
if (db1 === undefined || db2 === undefined || db3 === undefined) throw new Error('three db nodes');

interface Secrets {
  readonly generation: number;
  readonly cookie: string;
  readonly authSecret: string;
  readonly admin: { readonly password: string };
}
const secretsOf = async ({ host }: Instance): Promise<Secrets> =>
  JSON.parse(await host.readFile('/var/lib/bornemisza/db/secrets.json')) as Secrets;
const nodesSeenBy = async (instance: Instance): Promise<string> => {
  const { all_nodes, cluster_nodes } = await cluster.couchMembership(instance);
  return `${all_nodes.toSorted().join()} of ${cluster_nodes.toSorted().join()}`;
};
const nodeOf = ({ host }: Instance): string => `couchdb@${host.privateAddress}`;
/** What the Erlang of a host was started with. */
const cookieInUse = ({ host }: Instance): Promise<string> => host.readFile('/var/lib/couchdb/.erlang.cookie');

/**
 * Looks on a host itself, each twentieth of a second, so that looking costs little, as long as a shell condition holds.
 *
 * @returns when it first did not, ms since the epoch: one clock for all hosts of a lab
 */
async function endOf({ host }: Instance, condition: string): Promise<number> {
  const script = `while ${condition}; do sleep 0.05; done; date +%s%3N`;
  return Number(await host.must(['sh', '-c', script], { timeoutMs: PATIENCE_MS }));
}
/** Established connections with an address at certain ports, as the kernel has them. */
const connected = (address: string, ports: string): string =>
  `ss -tnH state established dst ${address} | grep -qE ':(${ports})( |$)'`;
const LIBP2P = '4101|4103';
const ERLANG = '9100';

/**
 * Asks the databases through the app role's listener. @returns what ends it, and gives the longest time without an
 * answer, ms
 */
function watchOutage(): () => Promise<number> {
  const ask = ['curl', '-sS', '-o', '/dev/null', '-f', '--max-time', '2', 'http://127.0.0.1:5984/_up'];
  const over = new AbortController();
  let longestMs = 0;
  const watching = (async () => {
    for (let goodMs = performance.now(); !over.signal.aborted; ) {
      const { code } = await app1.host.exec(ask);
      if (code === 0) {
        longestMs = Math.max(longestMs, performance.now() - goodMs);
        goodMs = performance.now();
      }
    }
  })();
  return async () => {
    over.abort();
    await watching;
    return longestMs;
  };
}

await allUp(cluster);
await cluster.couch(db1.host, '/kept', 'PUT');
await cluster.couch(db1.host, '/kept/one', 'PUT', '{"said":"before"}');
const before = await secretsOf(db1);

t.test(
  'removing a db node makes cookie and secret again, the same on all that are left, and loses nothing',
  async (t) => {
    t.strictSame(await secretsOf(db3), before);
    const serial = /serial=(\w+)/.exec(
      await db3.host.must([
        'openssl',
        'x509',
        '-noout',
        '-serial',
        '-in',
        '/var/lib/bornemisza/db/chain.pem',
      ]),
    )?.[1];
    const gone = db3.host.privateAddress;
    const list = 'show acl /var/lib/bornemisza/haproxy/db/revoked.list';
    const notBarred =
      `! echo "${list}" | socat - unix-connect:/run/bornemisza-haproxy/db/stats.sock | grep -q ` +
      (serial ?? '?');
    for (const each of [db1, db2])
      for (const ports of [LIBP2P, ERLANG])
        t.equal(
          (await each.host.exec(['sh', '-c', connected(gone, ports)])).code,
          0,
          `${each.name} ${ports}`,
        );
    cluster.forget('db3/db');
    const startMs = performance.now();
    const outage = watchOutage();
    // It runs and serves: nothing of what follows is due to its absence.
    const removed = cluster.command(app1, ['remove', 'db3/db', '--dead', '--force']);
    const lookedMs = await Promise.all([
      Promise.all([app1, db1, db2].map((each) => endOf(each, connected(gone, LIBP2P)))),
      Promise.all([db1, db2].map((each) => endOf(each, notBarred))),
      Promise.all([db1, db2].map((each) => endOf(each, connected(gone, ERLANG)))),
      removed,
    ]);
    const signedMs = Date.parse(
      (await cluster.audit(app1)).find(({ summary }) => summary === 'db3/db was removed from the cluster')
        ?.at ?? '',
    );
    for (const [at, what] of [
      'libp2p: all others have cut their connections with it',
      'HAProxy: both other db nodes refuse its certificate',
      'CouchDB: both others have no Erlang connection with it',
    ].entries()) {
      const afterMs = Math.max(...(lookedMs[at] as number[])) - signedMs;
      t.ok(Number.isFinite(afterMs), what);
      t.comment(`${what} ${afterMs} ms after it was signed`);
    }
    const both = `${[db1, db2].map(nodeOf).toSorted().join()} of ${[db1, db2].map(nodeOf).toSorted().join()}`;
    await until(
      async () => {
        for (const each of [db1, db2]) {
          const { cookie, generation } = await secretsOf(each);
          if (generation < 2 || (await cookieInUse(each)) !== cookie)
            throw new Error(`${each.name} has the old cookie`);
          if ((await nodesSeenBy(each)) !== both)
            throw new Error(`${each.name} sees ${await nodesSeenBy(each)}`);
        }
        return true;
      },
      { deadlineMs: 2 * PATIENCE_MS, everyMs: 300, what: 'db1 and db2 run together with another cookie' },
    );
    await cluster.settled(2 * PATIENCE_MS);
    t.comment(
      `both serve with new secrets ${((performance.now() - startMs) / 1000).toFixed(1)} s after the command`,
    );
    t.comment(`the databases did not answer an app node for ${((await outage()) / 1000).toFixed(1)} s`);
    const [one, other] = [await secretsOf(db1), await secretsOf(db2)];
    t.strictSame(one, other);
    t.not(one.cookie, before.cookie);
    t.not(one.authSecret, before.authSecret);
    t.equal(one.admin.password, before.admin.password);
    const trails = await Promise.all([db1, db2].map((each) => cluster.audit(each)));
    const made = trails
      .flat()
      .filter(({ kind, summary }) => kind === 'daemon' && summary.startsWith('replaced the Erlang'));
    t.equal(made.length, 1, 'exactly one made them');
    t.match(JSON.parse(await cluster.couch(db2.host, '/kept/one')), { said: 'before' });
    await cluster.couch(db2.host, '/kept/two', 'PUT', '{"said":"after"}');
    t.match(JSON.parse(await cluster.couch(db1.host, '/kept/two')), { said: 'after' });
  },
);

t.test('neither the old cookie nor the certificate lets the removed node back into Erlang', async (t) => {
  await db3.host.restart('couchdb.service');
  await until(async () => (await nodesSeenBy(db3)).includes(nodeOf(db3)), {
    deadlineMs: PATIENCE_MS,
    everyMs: 300,
    what: 'CouchDB of db3 answers',
  });
  t.equal(await cookieInUse(db3), before.cookie);
  // Its own node documents still name the others, so it tries to reach them each few seconds.
  const rounds = 4;
  for (let round = 0; round < rounds; round += 1) {
    await cluster.couch(db3.host, '/_membership');
    t.notMatch((await cluster.couchMembership(db1)).all_nodes, [nodeOf(db3)]);
    t.strictSame((await cluster.couchMembership(db3)).all_nodes, [nodeOf(db3)]);
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
  t.notOk((await secretsOf(db3)).generation > 1, 'nor is it told the new ones');
});

t.test(
  'no secret, old or new, shows in a journal, a process list, an environment or an answer of a daemon',
  async (t) => {
    const after = await secretsOf(db1);
    const secrets = [before, after].flatMap(({ cookie, authSecret, admin }) => [
      cookie,
      authSecret,
      admin.password,
    ]);
    for (const instance of [app1, db1, db2]) {
      const { host } = instance;
      const places: Record<string, string> = {
        journal: await host.must(['journalctl', '-o', 'json', '--no-pager']),
        'process list': await host.must(['ps', 'axww', '-o', 'args']),
        environments: await host.must([
          'sh',
          '-c',
          'cat /proc/[0-9]*/environ 2>/dev/null | tr "\\0" "\\n"; true',
        ]),
        'audit trail': JSON.stringify(await cluster.audit(instance)),
        status: JSON.stringify([await cluster.status(instance), await cluster.members(instance)]),
        configuration: await host.must(['sh', '-c', 'cat /etc/bornemisza/*.toml']),
      };
      for (const [place, text] of Object.entries(places)) {
        t.ok(text.length > 50, `${instance.name} has a ${place}`);
        for (const secret of secrets) t.notOk(text.includes(secret), `${instance.name}: ${place}`);
      }
    }
  },
);
