import t from 'tap';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { until } from '../support/until.ts';
import { PATIENCE_MS } from './cluster-bed.ts';

/** Further authorities by the recovery bundle, the loss of all of them, and what the removal of one leaves standing. */
t.setTimeout(400_000);

const cluster = await Cluster.create({ app: 3, floating: false });
t.teardown(() => cluster.close());
const [app1, app2, app3] = cluster.instancesOf('app');
if (app1 === undefined || app2 === undefined || app3 === undefined) throw new Error('three hosts');
await cluster.settled(PATIENCE_MS);
/** As `init` wrote it on the first host, taken off that machine by its operator. */
const bundle = await app1.host.readFile('/root/recovery.txt');

function addAuthority({ host, role }: Instance): Promise<string> {
  return host.must(['bornemisza', 'authority', 'add', '-', '--role', role], { stdin: bundle });
}

/** What each instance says of who may sign, once they agree. */
function authoritiesAre(names: readonly string[], at: readonly Instance[]): Promise<true> {
  return until(
    async () => {
      for (const instance of at) {
        const seen = (await cluster.members(instance))
          .filter((each) => each.authority)
          .map(({ name }) => name);
        if (seen.join() !== names.join()) throw new Error(`${instance.name} sees ${seen.join()}`);
      }
      return true as const;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 200, what: `authorities ${names.join()}` },
  );
}

const warningsAt = async (instance: Instance): Promise<string> =>
  (await cluster.status(instance)).warnings.join('\n');

t.test('a running member becomes a second authority by the bundle, and everybody knows', async (t) => {
  t.match(await warningsAt(app3), 'app1/app is the only authority');
  t.match(await app3.host.exec(['bornemisza', 'token', 'create', '--role', 'app']), {
    code: 1,
    stderr: /run this on app1\/app/,
  });
  t.match(await addAuthority(app2), 'app2/app is an authority');
  await authoritiesAre(['app1/app', 'app2/app'], cluster.instances);
  t.notMatch(await warningsAt(app3), 'authority');
  t.match(await app2.host.must(['bornemisza', 'authority', 'list']), /^app2\/app \*/m);
  t.match(await cluster.command(app2, ['token', 'create', '--role', 'app', '--json']), '"token"');
});

t.test(
  'after the loss of all authorities the bundle makes one of a member that is left, and a new node joins',
  async (t) => {
    await app1.host.powerCut();
    await app2.host.powerCut();
    cluster.forget('app1/app');
    cluster.forget('app2/app');
    await until(async () => (await warningsAt(app3)).includes('no authority is alive (app1/app, app2/app)'), {
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
      what: 'the warning that no authority is alive',
    });
    t.match(await addAuthority(app3), 'app3/app is an authority');
    const app4 = await cluster.addHost('app4', 'app');
    await until(
      async () =>
        (await cluster.members(app3)).some((each) => each.name === 'app4/app' && each.state === 'alive'),
      { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'app4 alive in the eyes of app3' },
    );
    await authoritiesAre(['app1/app', 'app2/app', 'app3/app'], [app3, app4]);
    const trail = JSON.stringify([...(await cluster.audit(app3)), ...(await cluster.audit(app4))]);
    t.notMatch(trail, 'RECOVERY BUNDLE');
    const journal = await app3.host.must(['journalctl', '-o', 'cat', '--no-pager']);
    const passphrase = /^Passphrase: (\S+)$/m.exec(bundle)?.[1] ?? 'none';
    t.match(passphrase, /-/);
    t.notMatch(journal, passphrase);
  },
);
