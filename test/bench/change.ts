import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parseProcesses } from '../../src/plugins/haproxy/runtime.ts';
import { killDaemon, reviveDaemon } from '../integration/cluster-bed.ts';
import type { Instance } from '../lab/cluster.ts';
import type { LoadReport } from '../lab/index.ts';
import { until } from '../support/until.ts';
import { signal, UNIT } from './answering.ts';
import { FailoverBed, FLOATING, PATIENCE_MS } from './failover-bed.ts';
import { installPlain, PLAIN_PORT, removePlain, setPlain } from './plain-haproxy.ts';
import { chosen, createReport, type Subject } from './report.ts';

/**
 * `bench:change`: what clients lose while the cluster changes, by new and kept connections, HTTP/1.1 and HTTP/2:
 * backends that go and come behind an edge that stays, edges that go and come, a service that is killed, all daemons
 * dead. And how long a change of the membership takes until each HAProxy acts on it, and how many reloads many changes
 * cost. Needs root.
 */
const CASES = ['backend', 'edge', 'crash', 'view', 'burst', 'daemons_masked'] as const;
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '3' },
    changes: { type: 'string', default: '100' },
    rate: { type: 'string', default: '1000' },
    samples: { type: 'string', default: '10' },
    cases: { type: 'string', default: CASES.join(',') },
    json: { type: 'boolean', default: false },
  },
});
const n = Number(values.n);
const rate = Number(values.rate);
const samples = Number(values.samples);
const wanted = chosen(CASES, values.cases);
const report = createReport('change', values.json);

const VIEW_LIMIT_MS = 300;
const BURST_CHANGES = 50;
const BURST_MS = 5000;
const BURST_RELOADS = 2;
const MASKED_MS = 20_000;
/** Percent; the client is one thread. Above it, requests are late before anything else has them. */
const CLIENT_CPU_LIMIT = 90;
/** Before the first change; what fails then counts as well. */
const WARM_UP_MS = 3000;
/** Then it is the other one's turn, so that both meet the same machine. */
const CHANGES_IN_TURN = 50;
/** A machine that is too small for the load makes each change late; the count of changes tells. */
const MOST_OF_A_TURN_MS = 45_000;
/** After the last change, so that what it broke is counted. */
const AFTERWARDS_MS = 2000;

interface Counts {
  readonly requests: number;
  readonly failed: number;
  /** Connections that the router moved to an edge that did not know them. */
  readonly moved: number;
  /** Failed requests that were under way on those. */
  readonly under_way: number;
  readonly kinds: readonly string[];
  /** The longest time, ms, that one of a hundred answers took, of the three loads. */
  readonly p99: number;
  /** Of one processor; at 100 the load was less than it should be. */
  readonly client_cpu: number;
}

/** A third each by kept connections, new connections (POST, which nobody may repeat), and HTTP/2. */
function load(bed: FailoverBed, address: string): () => Promise<Counts> {
  const { client } = bed.cluster.lab;
  const of = { url: `https://${address}/`, ratePerSecond: rate / 3, timeoutMs: 15_000 };
  const loads = [
    client.startLoad({ ...of, connectionsPerSource: 2 }),
    client.startLoad({ ...of, method: 'POST', body: 'x', headers: { connection: 'close' } }),
    client.startLoad({ ...of, http2: true }),
  ];
  return async () => counted(await Promise.all(loads.map((each) => each.stop())));
}

function counted(reports: readonly LoadReport[]): Counts {
  const sum = (of: (each: LoadReport) => number): number => reports.reduce((all, each) => all + of(each), 0);
  const kinds = reports.flatMap(({ byStatus, byError }, index) =>
    [...Object.entries(byStatus), ...Object.entries(byError)]
      .filter(([kind]) => !/^[1-4]\d\d$/.test(kind))
      .map(([kind, count]) => `${['kept', 'new', 'http2'][index]} ${kind} ${count}`),
  );
  return {
    requests: sum(({ requests }) => requests),
    failed: sum(({ failed }) => failed),
    moved: sum(({ resets }) => resets),
    under_way: sum(({ lostInResets }) => lostInResets),
    kinds,
    p99: Math.round(Math.max(...reports.map(({ p99Ms }) => p99Ms ?? 0))),
    client_cpu: Math.round(Math.max(...reports.map(({ clientCpuPercent }) => clientCpuPercent))),
  };
}

type More = Readonly<Record<string, string | number>>;

function tell(name: string, counts: Counts, more: More = {}, subject: Subject = 'bornemisza'): void {
  const { requests, failed, moved, under_way, kinds, p99, client_cpu } = counts;
  report.value(name, n, subject, 'requests', 'count', requests, { ...more, p99, client_cpu });
  report.value(name, n, subject, 'failed', 'count', failed, { ...more, kinds });
  report.value(name, n, subject, 'moved_by_router', 'count', moved, { ...more, under_way });
  const busy = `${name}, ${subject}: the client used ${client_cpu} % of a processor, so the load was not as wanted`;
  report.expect(client_cpu < CLIENT_CPU_LIMIT, busy);
}

/** By the socket and not by the command, which takes longer to start than the change. @returns Unix time just before */
async function maintenance(bed: FailoverBed, of: Instance, on: boolean): Promise<number> {
  const atMs = Date.now();
  await bed.cluster.post(of, '/v1/maintenance', { on, force: false });
  return atMs;
}

/** Waits until these edges send to a node, or do not. @returns Unix time, ms, of the look that showed the last */
async function applied(bed: FailoverBed, edges: readonly Instance[], of: Instance, sends: boolean) {
  const waiting = new Set(edges);
  return until(
    async () => {
      for (const edge of waiting) if ((await bed.sends(edge, of)) === sends) waiting.delete(edge);
      return waiting.size === 0 ? Date.now() : undefined;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 5, what: `${of.name} ${sends ? 'gets' : 'gets no'} requests` },
  );
}

/**
 * One node after the other leaves the backends and comes back, each change seen by the edge before the next. The same
 * in turn at a plain HAProxy on the same host: what fails there as well, the load does.
 */
async function backend(bed: FailoverBed): Promise<void> {
  const { victim, edges } = bed;
  const others = edges.filter((edge) => edge !== victim);
  const changes = Number(values.changes);
  const { publicAddress } = victim.host;
  const subjects = {
    bornemisza: {
      address: publicAddress,
      change: async (of: Instance, sends: boolean) => {
        await maintenance(bed, of, !sends);
        await applied(bed, [victim], of, sends);
      },
    },
    haproxy: {
      address: `${publicAddress}:${PLAIN_PORT}`,
      change: (of: Instance, sends: boolean) => setPlain(victim, of, sends),
    },
  } as const;
  await installPlain(edges);
  const all: Record<keyof typeof subjects, Counts[]> = { bornemisza: [], haproxy: [] };
  const made = { bornemisza: 0, haproxy: 0 };
  for (let turn = 0; turn * CHANGES_IN_TURN < changes; turn += 1) {
    for (const subject of ['bornemisza', 'haproxy'] as const) {
      const { address, change } = subjects[subject];
      const stop = load(bed, address);
      await pause(WARM_UP_MS);
      const endMs = performance.now() + MOST_OF_A_TURN_MS;
      for (let done = 0; done < Math.min(CHANGES_IN_TURN, changes) && performance.now() < endMs; done += 2) {
        const of = others[(done / 2) % others.length] ?? victim;
        await change(of, false);
        await change(of, true);
        made[subject] += 2;
      }
      await pause(AFTERWARDS_MS);
      const counts = await stop();
      all[subject].push(counts);
      report.say(`  ${subject}, ${made[subject]} changes: ${JSON.stringify(counts)}`);
    }
  }
  await removePlain(edges);
  const [ours, plain] = [whole(all.bornemisza), whole(all.haproxy)];
  tell('backend', ours, { changes: made.bornemisza });
  tell('backend', plain, { changes: made.haproxy }, 'haproxy');
  const beside = `plain HAProxy: ${plain.failed} of ${plain.requests}`;
  report.expect(ours.failed === 0, `backend: ${ours.failed} of ${ours.requests} failed (${beside})`);
  report.expect(made.bornemisza >= changes, `backend: ${made.bornemisza} of ${changes} changes in time`);
  await bed.allWell();
}

function whole(parts: readonly Counts[]): Counts {
  const sum = (of: (each: Counts) => number): number => parts.reduce((total, each) => total + of(each), 0);
  return {
    requests: sum(({ requests }) => requests),
    failed: sum(({ failed }) => failed),
    moved: sum(({ moved }) => moved),
    under_way: sum(({ under_way }) => under_way),
    kinds: parts.flatMap(({ kinds }) => kinds),
    p99: Math.max(...parts.map(({ p99 }) => p99)),
    client_cpu: Math.max(...parts.map(({ client_cpu }) => client_cpu)),
  };
}

/** What happens to an edge behind the provider's router. */
async function edge(bed: FailoverBed): Promise<void> {
  const { cluster, edges } = bed;
  const last = edges.at(-1) ?? bed.victim;
  const { router } = cluster.lab;
  const routed = (names: readonly string[]): Promise<void> =>
    router.waitForAnnouncers(FLOATING, names, PATIENCE_MS);
  const others = bed.names.filter((name) => name !== last.host.name);
  const acts: Readonly<Record<string, () => Promise<void>>> = {
    maintenance: async () => {
      await maintenance(bed, last, true);
      await routed(others);
    },
    return: async () => {
      await maintenance(bed, last, false);
      await routed(bed.names);
    },
    join: async () => {
      await bed.add('app9');
      await routed([...bed.names, 'app9']);
    },
    leave: async () => {
      await cluster.command(cluster.instance('app9'), ['leave']);
      await routed(bed.names);
    },
  };
  for (const [act, happen] of Object.entries(acts)) {
    const stop = load(bed, FLOATING);
    await pause(AFTERWARDS_MS);
    await happen();
    await pause(AFTERWARDS_MS);
    const counts = await stop();
    tell('edge', counts, { act });
    const { failed, under_way, moved } = counts;
    const beside = `${under_way} under way on the ${moved} connections that moved`;
    report.expect(failed <= under_way, `edge, ${act}: ${failed} failed, ${beside}`);
  }
  cluster.forget('app9');
  await bed.allWell();
}

/** A service is killed behind an edge that stays. What it had been given is lost, and nothing else. */
async function crash(bed: FailoverBed): Promise<void> {
  const { victim, edges } = bed;
  const [of = victim] = edges.filter((each) => each !== victim);
  for (let sample = 0; sample < samples; sample += 1) {
    const stop = load(bed, victim.host.publicAddress);
    await pause(AFTERWARDS_MS + Math.random() * 1000);
    const before = await bed.unanswered(of);
    await signal(of.host, 'SIGKILL');
    await pause(AFTERWARDS_MS);
    const counts = await stop();
    const delivered = (await bed.unanswered(of)) - before;
    tell('crash', counts, { delivered });
    report.expect(counts.failed <= delivered, `crash: ${counts.failed} failed, ${delivered} were delivered`);
    await of.host.restart(UNIT);
    await bed.allWell();
  }
}

async function view(bed: FailoverBed): Promise<void> {
  const { edges, victim } = bed;
  const of = edges.at(-1) ?? victim;
  const all: number[] = [];
  for (let change = 0; change < 2 * samples; change += 1) {
    await pause(500 + Math.random() * 1000);
    const sinceMs = await maintenance(bed, of, change % 2 === 0);
    all.push((await applied(bed, edges, of, change % 2 === 1)) - sinceMs);
  }
  const { p50 } = report.times('view', n, 'bornemisza', 'applied_everywhere', all);
  report.expect(p50 <= VIEW_LIMIT_MS, `view: p50 ${p50} ms, at most ${VIEW_LIMIT_MS}`);
  await bed.allWell();
}

async function reloads(bed: FailoverBed): Promise<number[]> {
  const socket = ({ role }: Instance): string => `/run/bornemisza-haproxy/${role}/master.sock`;
  return Promise.all(
    bed.edges.map(async (each) => {
      const processes = parseProcesses(await each.host.askLine(socket(each), 'show proc'));
      return processes.find(({ kind }) => kind === 'master')?.reloads ?? 0;
    }),
  );
}

async function burst(bed: FailoverBed): Promise<void> {
  const of = bed.edges.at(-1) ?? bed.victim;
  const before = await reloads(bed);
  const beginMs = performance.now();
  for (let change = 0; change < BURST_CHANGES; change += 1) {
    await maintenance(bed, of, change % 2 === 0);
    await pause(Math.max(0, beginMs + ((change + 1) * BURST_MS) / BURST_CHANGES - performance.now()));
  }
  const seconds = (performance.now() - beginMs) / 1000;
  await bed.allWell();
  const after = await reloads(bed);
  const most = Math.max(...after.map((count, index) => count - (before[index] ?? 0)));
  report.value('burst', n, 'bornemisza', 'reloads', 'count', most, { changes: BURST_CHANGES, seconds });
  report.expect(most <= BURST_RELOADS, `burst: ${most} reloads, at most ${BURST_RELOADS}`);
}

async function daemonsMasked(bed: FailoverBed): Promise<void> {
  await Promise.all(bed.edges.map(killDaemon));
  const stop = load(bed, FLOATING);
  await pause(MASKED_MS);
  const { failed, requests, kinds } = await stop();
  await Promise.all(bed.edges.map(reviveDaemon));
  report.value('daemons_masked', n, 'bornemisza', 'failed', 'count', failed, { requests, kinds });
  report.expect(failed === 0, `daemons masked: ${failed} of ${requests} failed`);
  await bed.allWell();
}

const RUNS: Readonly<Record<(typeof CASES)[number], (bed: FailoverBed) => Promise<void>>> = {
  backend,
  edge,
  crash,
  view,
  burst,
  daemons_masked: daemonsMasked,
};
const bed = await FailoverBed.create(n, []);
try {
  for (const name of wanted) await RUNS[name](bed);
} finally {
  await bed.close();
}
report.end();
