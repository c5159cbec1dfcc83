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

t.test('the last authority does not leave unasked', async (t) => {
  const refused = await app1.host.exec(['bornemisza', 'leave']);
  t.equal(refused.code, 5, refused.stderr);
  t.match(refused.stderr, /app1\/app is the last authority that is alive.*\n.*authority add/s);
  t.equal((await cluster.status(app1)).phase, 'running');
});

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

/** Subject and issuer of the certificate that a node uses. */
const certificateOf = ({ host, role }: Instance): Promise<string> =>
  host.must(['openssl', 'x509', '-noout', '-issuer', '-in', `/var/lib/bornemisza/${role}/chain.pem`]);
const barredAt = (instance: Instance): Promise<string> =>
  cluster.haproxy(instance, `show acl /var/lib/bornemisza/haproxy/${instance.role}/revoked.list`);

t.test('removing an authority bars what it signs, and leaves in what it had signed', async (t) => {
  const app4 = cluster.instance('app4/app');
  const rows = await cluster.members(app3);
  const wordOf = (name: string): string => rows.find((each) => each.name === name)?.peerId.slice(-8) ?? '?';
  t.match(await certificateOf(app3), `authority ${wordOf('app1/app')}`);
  const startMs = performance.now();
  await cluster.command(app3, ['remove', 'app1/app']);
  await until(async () => (await barredAt(app4)).includes(` ${wordOf('app1/app')}\n`), {
    deadlineMs: PATIENCE_MS,
    everyMs: 20,
    what: 'HAProxy of app4 bars the removed authority',
  });
  t.comment(
    `HAProxy of another node barred it ${(performance.now() - startMs).toFixed(0)} ms after the command began`,
  );
  await until(async () => (await certificateOf(app3)).includes(`authority ${wordOf('app3/app')}`), {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'app3 uses the certificate that was signed anew',
  });
  await cluster.command(app3, ['remove', 'app2/app']);
  await authoritiesAre(['app3/app'], [app3, app4]);
  await cluster.settled(PATIENCE_MS);
});

t.test('a removed authority that still runs admits nobody whom the others know', async (t) => {
  const app4 = cluster.instance('app4/app');
  await app1.host.boot();
  await app1.host.waitForUnit('bornemisza@app.service', ({ mainPid }) => mainPid !== 0, PATIENCE_MS);
  const host = await cluster.lab.addHost({ name: 'app5', roles: ['app'] });
  const token = await until(() => cluster.command(app1, ['token', 'create', '--role', 'app']), {
    deadlineMs: PATIENCE_MS,
    everyMs: 500,
    what: 'a token of the removed authority',
  });
  await host.must(['bornemisza', 'join', '-', '--host', 'app5', '--private-address', host.privateAddress], {
    stdin: token.split('\n')[0] ?? '',
    timeoutMs: PATIENCE_MS,
  });
  const refusedBefore = (await cluster.status(app3)).counters['strangersRefused'] ?? 0;
  await host.must(['systemctl', 'enable', '--now', 'bornemisza@app.service'], { timeoutMs: PATIENCE_MS });
  await until(async () => ((await cluster.status(app3)).counters['strangersRefused'] ?? 0) > refusedBefore, {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'app5 shows its certificate to app3',
  });
  for (const each of [app3, app4]) {
    const names = (await cluster.members(each)).map(({ name }) => name);
    t.strictSame(names, ['app3/app', 'app4/app'], each.name);
  }
});
