import t from 'tap';
import type { AuditEntry } from '../../src/daemon/control/api.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { Outside } from '../lab/outside.ts';
import { askAsPage, pageHeaders } from '../lab/page-request.ts';
import { until } from '../support/until.ts';
import { PATIENCE_MS } from './cluster-bed.ts';

/** The app tier under its own unit on two app nodes, behind the edge, with a real mail server beside it. */
t.setTimeout(1_100_000);

const SITE = 'https://203.0.113.10';
const PASSWORD = 'four green turtles';
const cluster = await Cluster.create({ app: 2, db: 1 });
t.teardown(() => cluster.close());
const [app1, app2] = cluster.instancesOf('app');
if (app1 === undefined || app2 === undefined) throw new Error('two app nodes');
await cluster.settled(PATIENCE_MS);
const outside = await Outside.prepare(t.testdir());
t.teardown(() => outside.close());
const mail = await outside.startMail(cluster.lab);

const ACCOUNTS = `public_url = "${SITE}"
site_name = "Notes"
[mail]
from = "notes@notes.test"
smtp_url = "${mail}"
smtp_tls = "off"
`;
const service = (name: string, prefix: string, health: string): string =>
  `name = "${name}"\nport = 8090\npath_prefix = "${prefix}"\nhealth_path = "${health}"\n`;

async function beginAppTier({ host }: Instance): Promise<void> {
  const own = { mode: 0o640, group: 'bornemisza' } as const;
  await host.writeFile('/etc/bornemisza/accounts.toml', { content: ACCOUNTS, mode: 0o600 });
  await host.must(['rm', '/etc/bornemisza/services.d/site.toml']);
  for (const [name, prefix, health] of [
    ['web', '/', '/healthz'],
    ['api', '/api', '/api/health'],
  ] as const) {
    const content = service(name, prefix, health);
    await host.writeFile(`/etc/bornemisza/services.d/${name}.toml`, { content, ...own });
  }
  await host.must(['systemctl', 'enable', '--now', 'bornemisza-app.service']);
  await host.must(['systemctl', 'reload', 'bornemisza@app.service']);
}

interface Asked {
  readonly status: number;
  readonly body: Record<string, unknown>;
  readonly cookie: string;
}

let jar = '';
async function ask(method: string, path: string, body?: unknown): Promise<Asked> {
  const request = { site: SITE, method, path, body, cookie: jar, timeoutMs: 30_000 };
  const { status, text, cookie } = await askAsPage(cluster.lab.client, request);
  if (cookie !== '') jar = cookie;
  let parsed: Record<string, unknown> = { text };
  try {
    parsed = JSON.parse(text) as Record<string, unknown>;
  } catch {
    // The page is no JSON.
  }
  return { status, body: parsed, cookie: jar };
}

/** Straight to one node's app tier, as a service beside it asks. */
async function statusAt({ host }: Instance, path: string): Promise<string> {
  const url = `http://127.0.0.1:8090${path}`;
  const curl = ['curl', '-sS', '-o', '/dev/null', '-w', '%{http_code}', '--max-time', '10'];
  return (await host.exec([...curl, '-H', `cookie: ${jar}`, url])).stdout;
}

function tokenFor(address: string): Promise<string> {
  return until(() => outside.mailedSecret(address), {
    what: `mail to ${address}`,
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
  });
}

/** Whether every edge sends requests to these hosts' instances of the app tier, and to no other. */
async function edgesUse(...hosts: readonly string[]): Promise<boolean> {
  for (const edge of cluster.instancesOf('app')) {
    const servers = await cluster.servers(edge);
    for (const backend of ['svc_web', 'svc_api']) {
      const serving = servers.filter((each) => each.backend === backend && each.status === 'UP');
      const found = serving.map(({ name }) => name).toSorted();
      if (found.join() !== hosts.join()) throw new Error(`${edge.name}: ${JSON.stringify(servers)}`);
    }
  }
  return true;
}
const bothServe = (): Promise<boolean> => edgesUse('app1', 'app2');

t.test('the app tier comes up from its configuration alone, and the edge finds page and API', async (t) => {
  for (const instance of [app1, app2]) await beginAppTier(instance);
  await until(bothServe, { what: 'both edges find both', deadlineMs: PATIENCE_MS, everyMs: 200 });
  for (const path of ['/healthz', '/api/health'])
    await until(async () => (await ask('GET', path)).status === 200, {
      what: `${path} through the edge`,
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
    });
  t.match((await ask('GET', '/')).body, { text: /<script/ });
  t.equal((await ask('GET', '/api/me')).status, 401);
  for (const { host } of [app1, app2]) {
    const { mainPid } = await host.unit('bornemisza-app.service');
    const user = await host.must(['stat', '-c', '%U', `/proc/${mainPid}`]);
    t.equal(user.trim(), 'bornemisza-app');
    const place = '/var/lib/bornemisza/accounts';
    const rights = await host.must(['stat', '-c', '%a %U %G', place, `${place}/secrets.json`]);
    t.equal(rights, '2750 bornemisza bornemisza-app\n640 bornemisza bornemisza-app\n');
    const other = ['runuser', '-u', 'bornemisza-haproxy', '--', 'cat', `${place}/secrets.json`];
    t.not((await host.exec(other)).code, 0, 'nobody else reads it');
    const own = ['runuser', '-u', 'bornemisza-app', '--', 'touch', `${place}/x`];
    t.not((await host.exec(own)).code, 0, 'nor does its reader write there');
  }
});

t.test('a person registers through the edge, and is known at both nodes', async (t) => {
  const asked = await ask('POST', '/api/registrations', { email: 'anna@example.org' });
  // No mail would come: with its answer the test ends here, and does not wait for one.
  if (asked.status !== 202) throw new Error(`${asked.status} ${JSON.stringify(asked.body)}`);
  const token = await tokenFor('anna@example.org');
  const made = await ask('POST', '/api/accounts', { token, password: PASSWORD });
  t.equal(made.status, 201, JSON.stringify(made.body));
  for (const instance of [app1, app2]) t.equal(await statusAt(instance, '/api/me'), '200', instance.name);
  await until(async () => (await ask('GET', '/api/data')).status === 200, {
    what: 'the database of the person',
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
  });
  t.equal((await ask('PUT', '/api/data/note-1', { text: 'hello' })).status, 201);
});

t.test('only the founder reaches accounts, at any node', async (t) => {
  for (const instance of [app1, app2]) {
    const found = await instance.host.must(['bornemisza', 'accounts', 'list', '--json']);
    t.match(JSON.parse(found), { accounts: [{ email: 'anna@example.org', disabled: false }], more: false });
  }
  await app1.host.must(['bornemisza', 'accounts', 'disable', 'anna@example.org']);
  t.equal(await statusAt(app1, '/api/me'), '401', 'at once');
  await until(async () => (await statusAt(app2, '/api/me')) === '401', {
    what: 'the other node refuses the session',
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
  });
  await app2.host.must(['bornemisza', 'accounts', 'enable', 'anna@example.org']);
  const events = await app1.host.must(['bornemisza', 'events', '--json']);
  t.match(events, /account a[a-z2-7]{32} was disabled/);
  t.notMatch(events, 'anna@example.org');
  for (const user of ['bornemisza-haproxy', 'nobody']) {
    const asked = ['runuser', '-u', user, '--', 'ls', '/run/bornemisza-app/operator.sock'];
    t.not((await app1.host.exec(asked)).code, 0, user);
  }
  const signedIn = await ask('POST', '/api/session', { email: 'anna@example.org', password: PASSWORD });
  t.equal(signedIn.status, 200, JSON.stringify(signedIn.body));
});

t.test('a restart in maintenance, one node after the other, costs no answer', async (t) => {
  const { client } = cluster.lab;
  await until(bothServe, {
    what: 'both edges find both',
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
  });
  // Few connections that are kept: this is about the change of nodes, not about a flood of handshakes.
  const load = { ratePerSecond: 20, timeoutMs: 20_000, sources: 8, connectionsPerSource: 2 };
  const movesBefore = cluster.lab.router.history(new URL(SITE).hostname).length;
  const pages = client.startLoad({ url: `${SITE}/`, ...load });
  const posts = client.startLoad({
    url: `${SITE}/api/data/_all_docs?limit=1`,
    method: 'POST',
    headers: pageHeaders(SITE, jar),
    body: '{}',
    ...load,
  });
  for (const [instance, other] of [
    [app1, 'app2'],
    [app2, 'app1'],
  ] as const) {
    const { host } = instance;
    const before = await host.unit('bornemisza-app.service');
    await cluster.command(instance, ['maintenance', 'on']);
    await until(() => edgesUse(other), {
      what: 'the edges send nothing there',
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
    });
    await host.must(['systemctl', 'restart', 'bornemisza-app.service'], { timeoutMs: PATIENCE_MS });
    await until(async () => (await host.exec(['curl', '-sSf', 'http://127.0.0.1:8090/healthz'])).code === 0, {
      what: 'it answers again',
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
    });
    t.not((await host.unit('bornemisza-app.service')).mainPid, before.mainPid);
    await cluster.command(instance, ['maintenance', 'off']);
    // Who restarts the next one waits until every edge sends requests here again.
    await until(bothServe, {
      what: 'both edges find both',
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
    });
  }
  const moves = cluster.lab.router.history(new URL(SITE).hostname).length - movesBefore;
  for (const report of [await pages.stop(), await posts.stop()]) {
    const { requests, failed, byStatus, byError, badAnswers, mostConnections } = report;
    t.comment(`${requests} requests, ${failed} resets, ${moves} moves, ${mostConnections} connections`);
    t.ok(requests > 100);
    t.same(Object.keys(byStatus), ['200'], `every answer is good: ${badAnswers.join('; ')}`);
    // The floating address moves, and with it connections that are open: TCP knows no other way.
    t.same(
      Object.keys(byError).filter((code) => code !== 'ECONNRESET'),
      [],
    );
    t.ok(failed <= moves * mostConnections, `${failed} resets in ${moves} moves of ${mostConnections}`);
  }
});

t.test(
  'a founder’s own part of HAProxy’s configuration serves, also after restarts of its units',
  async (t) => {
    const { host } = app1;
    const own = '/etc/bornemisza/haproxy.d/own.cfg';
    const url = `https://${host.publicAddress}/own`;
    const serves = (wanted: boolean, what: string) =>
      until(
        async () => {
          const { status, body } = await cluster.lab.client.request({ url });
          if ((body === 'of the founder') !== wanted) throw new Error(`${status} ${body.slice(0, 80)}`);
          return true;
        },
        { what, deadlineMs: PATIENCE_MS, everyMs: 200 },
      );
    const line =
      'http-request return status 200 content-type text/plain string "of the founder" if { path /own }';
    await host.writeFile(own, { content: `frontend edge\n  ${line}\n`, mode: 0o644 });
    await host.must(['bornemisza', 'config', 'check', '--role', 'app']);
    await host.must(['systemctl', 'reload', 'bornemisza@app.service']);
    t.ok(await serves(true, 'after a reload of the daemon'));
    await host.restart('bornemisza-haproxy@app.service');
    t.ok(await serves(true, 'after a restart of HAProxy'));
    await host.restart('bornemisza@app.service');
    await host.restart('bornemisza-haproxy@app.service');
    t.ok(await serves(true, 'after a restart of both'));
    await host.must(['rm', own]);
    await host.must(['systemctl', 'reload', 'bornemisza@app.service']);
    t.ok(await serves(false, 'and no more without the file'));
  },
);

t.test('a unit that is stopped, is frozen or has ended is out by what the kernel says of it', async (t) => {
  await until(bothServe, { what: 'both edges find both', deadlineMs: PATIENCE_MS, everyMs: 200 });
  const { host } = app2;
  const reports = (detail: string) =>
    until(
      async () => (await cluster.status(app2)).checks.find(({ name }) => name === 'web')?.detail === detail,
      { what: detail, deadlineMs: PATIENCE_MS, everyMs: 200 },
    );
  // The other service is the same program, found by its check.
  await host.writeFile('/etc/bornemisza/services.d/web.toml', {
    content: `${service('web', '/', '/healthz')}unit = "bornemisza-app.service"\n`,
    ...{ mode: 0o640, group: 'bornemisza' },
  });
  await host.must(['systemctl', 'reload', 'bornemisza@app.service']);
  await host.must(['systemctl', 'kill', '--signal=STOP', 'bornemisza-app.service']);
  const again = 'systemctl kill --signal=SIGCONT bornemisza-app.service';
  await reports(`bornemisza-app.service is stopped by a signal: ${again}`);
  await until(() => edgesUse('app1'), {
    what: 'the edges send nothing there',
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
  });
  await host.must(['sh', '-c', again]);
  await until(bothServe, { what: 'it continues', deadlineMs: PATIENCE_MS, everyMs: 200 });
  await host.must(['systemctl', 'freeze', 'bornemisza-app.service']);
  await reports('bornemisza-app.service is frozen: systemctl status bornemisza-app.service');
  await until(() => edgesUse('app1'), {
    what: 'the edges send nothing there',
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
  });
  await host.must(['systemctl', 'thaw', 'bornemisza-app.service']);
  await host.must(['systemctl', 'stop', 'bornemisza-app.service'], { timeoutMs: PATIENCE_MS });
  await reports('bornemisza-app.service has no process: systemctl status bornemisza-app.service');
  const lines = (await host.must(['bornemisza', 'events', '--json'])).trim().split('\n');
  const entries = lines.map((line) => JSON.parse(line) as AuditEntry);
  const down = entries.find(({ summary }) => summary.startsWith('web is down: bornemisza-app.service is'));
  t.equal(down?.trigger, '1 checks in a row, was up', 'no second failure was waited for');
});

t.test(
  'an app node dies and the session continues; after its removal the old key opens nothing',
  async (t) => {
    await app2.host.powerCut();
    await until(async () => (await cluster.members(app1)).some(({ state }) => state === 'dead'), {
      what: 'it is known to be dead',
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
    });
    await until(async () => (await ask('GET', '/api/data/note-1')).status === 200, {
      what: 'the note at the other node',
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
    });
    await cluster.command(app1, ['remove', 'app2/app']);
    await until(async () => (await ask('GET', '/api/me')).status === 401, {
      what: 'another key counts',
      deadlineMs: PATIENCE_MS,
      everyMs: 500,
    });
    const signedIn = await ask('POST', '/api/session', { email: 'anna@example.org', password: PASSWORD });
    t.equal(signedIn.status, 200, JSON.stringify(signedIn.body));
    t.match((await ask('GET', '/api/data/note-1')).body, { text: 'hello' });
  },
);
