import { readFileSync } from 'node:fs';
import { get } from 'node:http';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type Config, parseConfig } from '../../../src/daemon/config/config.ts';
import { MetricsEndpoint } from '../../../src/daemon/metrics/endpoint.ts';
import { expose } from '../../../src/daemon/metrics/exposition.ts';
import { familiesOf, type MetricsFacts } from '../../../src/daemon/metrics/families.ts';
import { Lag, processFacts } from '../../../src/daemon/metrics/process-facts.ts';
import { createLog } from '../../../src/daemon/process/log.ts';
import { freePort } from '../../support/free-port.ts';
import { until } from '../../support/until.ts';
import { MEMBERS, status } from '../cli/fake-daemon.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

const counters = {
  linksUp: 7,
  linksDown: 2,
  gossipInBytes: 4096,
  faults: 3,
  strangersRefused: 1,
  suspicions: 2,
};
const facts = (changes: Partial<MetricsFacts> = {}): MetricsFacts => ({
  status: status({ counters, restarts: [{ unit: 'shop.service', restarts: 4 }] }),
  members: MEMBERS.map((each) => (each.self ? { ...each, tags: { floating: 'exported' } } : each)),
  upgrade: {
    state: 'running',
    startedAt: '',
    why: '',
    next: '',
    hosts: [{ host: 'app1', members: [], step: 'done', problem: '' }],
  },
  siteEndMs: Date.parse('2027-01-01T00:00:00Z'),
  process: processFacts(new Lag(1000)),
  wallMs: Date.parse('2026-11-30T00:00:00Z'),
  ...changes,
});
const exposed = (changes: Partial<MetricsFacts> = {}): string[] =>
  expose(familiesOf(facts(changes))).split('\n');

t.test('a scrape agrees with status, members and upgrade status', async (t) => {
  const lines = exposed();
  for (const line of [
    'bornemisza_node_up 1',
    'bornemisza_members{role="db",state="dead"} 1',
    'bornemisza_members{role="app",state="alive"} 3',
    'bornemisza_members_in_traffic{role="app"} 2',
    'bornemisza_check_up{check="haproxy",required="true"} 1',
    'bornemisza_guard_holding{guard="landslide"} 1',
    'bornemisza_warnings{code="one-authority"} 1',
    'bornemisza_links 5',
    'bornemisza_membership_bytes_total{via="gossip",direction="in"} 4096',
    'bornemisza_messages_refused_total{reason="fault"} 3',
    'bornemisza_connections_refused_total{reason="stranger"} 1',
    'bornemisza_suspicions_total 2',
    'bornemisza_reconcile_runs_total{program="haproxy"} 4',
    'bornemisza_reconcile_seconds_total{program="haproxy"} 0.12',
    'bornemisza_program_converged{program="bird"} 0',
    'bornemisza_program_last_converged_timestamp_seconds{program="haproxy"} 1795996798.8',
    'bornemisza_haproxy_old_processes 1',
    'bornemisza_unit_restarts_total{unit="shop.service"} 4',
    'bornemisza_haproxy_old_connections 40',
    'bornemisza_floating_ip_wanted 1',
    'bornemisza_floating_ip_held 1',
    'bornemisza_rollout_state{state="running"} 1',
    'bornemisza_rollout_hosts{step="done"} 1',
    'bornemisza_certificate_not_after_timestamp_seconds{certificate="node"} 1800439200',
    'bornemisza_certificate_not_after_timestamp_seconds{certificate="site"} 1798761600',
    'process_start_time_seconds 1795993200',
  ])
    t.ok(lines.includes(line), line);
  t.ok(
    exposed({ members: MEMBERS }).includes('bornemisza_floating_ip_held 0'),
    'wanted is not held: only what was seen counts',
  );
  t.notOk(
    exposed({ status: status({ floating: [], announcing: undefined }) }).some((line) =>
      line.includes('floating'),
    ),
    'a node without floating IPs says nothing of them',
  );
});

t.test('text of others cannot forge a line', async (t) => {
  const name = 'x"} 1\nbornemisza_node_up 0\\';
  const text = expose([
    { name: 'a', help: 'one\ntwo \\', type: 'gauge', samples: [{ labels: { name }, value: 1 }] },
  ]);
  t.equal(text, `# HELP a one\\ntwo \\\\\n# TYPE a gauge\na{name="x\\"} 1\\nbornemisza_node_up 0\\\\"} 1\n`);
});

t.test('lateness is a histogram, cumulative as Prometheus wants it', async (t) => {
  const lag = new Lag(1000);
  for (const at of [0, 1000, 2020, 2900, 9000]) lag.came(at);
  const { buckets, count, sumSeconds } = lag.histogram;
  const within = (le: number): number | undefined => buckets.find((each) => each.le === le)?.count;
  t.same(
    [within(0.005), within(0.025), within(2.5), within(10), within(Number.POSITIVE_INFINITY)],
    [2, 3, 3, 4, 4],
  );
  t.equal(count, 4);
  t.equal(sumSeconds.toFixed(2), '5.12', 'one that comes early is not late');
});

t.test('each metric has its row, its name keeps the conventions, and no other is spoken of', async (t) => {
  const families = familiesOf(facts());
  const names = families.map(({ name }) => name);
  const rows = [...read('docs/metrics.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name);
  t.same([...rows].sort(), [...names].sort());
  for (const { name, type, help } of families) {
    t.match(name, /^(bornemisza|process)_[a-z_]+$/);
    t.equal(name.endsWith('_total'), type === 'counter', name);
    t.match(help, /\.$/, name);
  }
  for (const file of ['monitoring/alerts.yml', 'monitoring/alerts.test.yml', 'monitoring/dashboard.json']) {
    const used = new Set(read(file).match(/\b(bornemisza|process)_[a-z_]+/g));
    t.ok(used.size >= 4, file);
    const known = new Set([...names, 'bornemisza_event_loop_lag_seconds_bucket']);
    t.same(
      [...used].filter((name) => !known.has(name)),
      [],
      file,
    );
  }
  t.ok((JSON.parse(read('monitoring/dashboard.json')) as { panels: unknown[] }).panels.length > 10);
});

const configOf = (metrics: string, network = '127.0.0.0/8'): Config =>
  parseConfig(
    '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "127.0.0.1"\nprivate_network = ' +
      `"${network}"\nprivate_device = "lo"\n[metrics]\n${metrics}\n`,
    'app',
    'app.toml',
  );

/** An endpoint as a node has it: looked at each second, which is a call here. */
function endpoint(first: Config) {
  let config = first;
  let nowMs = 0;
  let made = 0;
  const said = facts();
  const logged: string[] = [];
  const subject = new MetricsEndpoint({
    clock: { monotonicMs: () => nowMs, wallMs: () => 0 },
    log: createLog({ level: 'warn', journal: false, write: (line) => logged.push(line) }),
    node: {
      get config() {
        return config;
      },
      actions: {
        status: () => {
          made += 1;
          return said.status;
        },
        members: () => ({ self: 'app1/app', members: said.members }),
        upgrade: () => said.upgrade,
      },
      last: { scene: { certificates: { siteEndMs: said.siteEndMs } } },
    },
  });
  const look = (changed = config): void => {
    config = changed;
    nowMs += 1000;
    subject.look();
  };
  return { subject, look, logged, made: () => made, pass: (ms: number) => (nowMs += ms) };
}

function ask(
  port: number,
  path = '/metrics',
  method = 'GET',
  auth?: string,
): Promise<{ status: number; type: string; body: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', port, path, method, agent: false, auth }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (part: string) => (body += part));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, type: String(response.headers['content-type']), body }),
      );
    });
    request.on('error', reject);
    request.end();
  });
}

t.test('with a password it answers only to that, and to nobody while it cannot be read', async (t) => {
  const port = await freePort();
  const open = configOf(`enabled = true\nport = ${port}`);
  const { subject, look } = endpoint(open);
  t.teardown(() => subject.close());
  look();
  t.equal((await until(() => ask(port))).status, 200);
  const secret = 'a-password-of-ours';
  look({ ...open, statisticsPassword: secret });
  t.match(await ask(port), { status: 401, body: /user metrics/ });
  for (const wrong of ['metrics:', `metrics:${secret}x`, `other:${secret}`, `metrics:${secret.slice(1)}`])
    t.equal((await ask(port, '/metrics', 'GET', wrong)).status, 401, wrong);
  t.match(await ask(port, '/metrics', 'GET', `metrics:${secret}`), {
    status: 200,
    body: /^bornemisza_node_up 1$/m,
  });
  t.equal((await ask(port, '/other', 'GET')).status, 401, 'whatever the path');
  look({ ...open, statisticsPassword: null });
  t.equal((await ask(port, '/metrics', 'GET', 'metrics:null')).status, 403);
});

t.test('it is off until it is turned on, and follows the configuration', async (t) => {
  const [port, other] = [await freePort(), await freePort()];
  const { subject, look, made } = endpoint(configOf(`port = ${port}`));
  t.teardown(() => subject.close());
  look();
  await t.rejects(ask(port), { code: 'ECONNREFUSED' });
  look(configOf(`enabled = true\nport = ${port}`));
  const first = await until(() => ask(port));
  t.match(first, { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8' });
  t.match(first.body, /^bornemisza_node_up 1$/m);
  await ask(port);
  t.equal(made(), 1, 'what is asked twice within a second is made once');
  t.match(await ask(port, '/metrics', 'HEAD'), { status: 200, body: '' });
  t.equal((await ask(port, '/metrics', 'POST')).status, 405);
  t.equal((await ask(port, '/')).status, 404);
  look(configOf(`enabled = true\nport = ${other}`));
  t.equal((await until(() => ask(other))).status, 200);
  await t.rejects(ask(port), { code: 'ECONNREFUSED' });
  look(configOf(''));
  await t.rejects(ask(other), { code: 'ECONNREFUSED' });
});

t.test('a connection from outside of the private network is closed', async (t) => {
  const port = await freePort();
  const { subject, look, made } = endpoint(configOf(`enabled = true\nport = ${port}`, '10.0.0.0/24'));
  t.teardown(() => subject.close());
  look();
  await until(() =>
    ask(port).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code !== 'ECONNREFUSED',
    ),
  );
  await t.rejects(ask(port), { code: 'ECONNRESET' });
  t.equal(made(), 0);
});

t.test('a port that is taken stops nothing, is reported once, and is bound later', async (t) => {
  const port = await freePort();
  const taker: Server = createServer();
  await new Promise<void>((resolve) => taker.listen(port, '127.0.0.1', resolve));
  const { subject, look, logged, pass } = endpoint(configOf(`enabled = true\nport = ${port}`));
  t.teardown(() => subject.close());
  look();
  await until(() => subject.warnings.length > 0);
  t.match(subject.warnings, [
    { code: 'metrics-listen', message: /127\.0\.0\.1:\d+: EADDRINUSE/, next: /ss -ltnp/ },
  ]);
  pass(20_000);
  look();
  await new Promise((resolve) => taker.close(resolve));
  pass(20_000);
  look();
  t.equal((await until(() => ask(port))).status, 200);
  t.same(subject.warnings, []);
  t.equal(logged.length, 1);
});
