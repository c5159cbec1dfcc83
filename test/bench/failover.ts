import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Instance } from '../lab/cluster.ts';
import type { LoadReport } from '../lab/index.ts';
import { carrying } from '../integration/cluster-bed.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { setMode, signal, UNIT } from './answering.ts';
import { FailoverBed, FLOATING, PATIENCE_MS, type Watched } from './failover-bed.ts';
import { chosen, createReport, percentile } from './report.ts';
import { type Rival, RIVALS } from './rivals.ts';

/**
 * `bench:failover`: from a fault at one of some edges until the provider's router sends its address nowhere near it,
 * and until the last edge hands it no request; beside it, on the same hosts, at the same moment and looking at the same
 * service, Debian's keepalived (adverts each 1 s, and each 0.2 s) and Monit. Then what a client notices, a calm cluster
 * with one core hogged, and a flood of new TLS clients at one edge. Needs root.
 */
const CASES = [
  'service_kill',
  'service_500',
  'unit_stop',
  'service_hang',
  'host',
  'host_no_bfd',
  'client',
  'calm',
  'flood',
] as const;
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '3' },
    samples: { type: 'string', default: '10' },
    cases: { type: 'string', default: CASES.join(',') },
    rivals: { type: 'string', default: RIVALS.join(',') },
    rate: { type: 'string', default: '200' },
    'calm-minutes': { type: 'string', default: '30' },
    /** Prints what the victim's daemon did after each fault, and when; of a whole host, what the others did. */
    trace: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const n = Number(values.n);
const samples = Number(values.samples);
const rate = Number(values.rate);
const wanted = chosen(CASES, values.cases);
const rivals = values.rivals === '' ? [] : [...chosen(RIVALS, values.rivals)];
const report = createReport('failover', values.json);

const KEPT_TIMEOUT_MS = 2000;
/** A client's window: a fault and what follows from it, before anything is put right. */
const WINDOW_MS = 6000;
const FLOOD_CLIENTS = 300;
const FLOOD_ROUNDS = 5;
const CALM_RATE = 20;

interface Fault {
  /** @returns Unix time, ms, just before it */
  inject(bed: FailoverBed): Promise<number>;
  repair(bed: FailoverBed): Promise<void>;
  /** Set while the fault is measured, and taken back afterwards. */
  readonly setting?: (bed: FailoverBed, on: boolean) => Promise<void>;
  /** The whole machine is silent: its own edge is asked nothing, and Monit has no part in it. */
  readonly wholeHost?: boolean;
  readonly goneMs: { readonly p50: number; readonly p99: number } | undefined;
  readonly stopsMs: number | undefined;
}

const silence: Pick<Fault, 'inject' | 'repair' | 'wholeHost'> = {
  wholeHost: true,
  inject: async ({ victim }) => {
    const atMs = Date.now();
    await victim.host.cut();
    return atMs;
  },
  repair: ({ victim }) => victim.host.heal(),
};

const FAULTS: Readonly<Record<string, Fault>> = {
  service_kill: {
    inject: ({ victim }) => signal(victim.host, 'SIGKILL'),
    repair: ({ victim }) => victim.host.restart(UNIT),
    goneMs: { p50: 350, p99: 700 },
    stopsMs: 500,
  },
  service_500: {
    inject: ({ victim }) => setMode(victim.host, '500'),
    repair: async ({ victim }) => void (await setMode(victim.host, 'well')),
    goneMs: { p50: 350, p99: 700 },
    stopsMs: 500,
  },
  unit_stop: {
    setting: (bed, on) => bed.nameUnit(on),
    inject: ({ victim }) => signal(victim.host, 'SIGSTOP'),
    repair: async ({ victim }) => void (await signal(victim.host, 'SIGCONT')),
    goneMs: { p50: 600, p99: 600 },
    stopsMs: undefined,
  },
  service_hang: {
    inject: ({ victim }) => setMode(victim.host, 'hang'),
    repair: async ({ victim }) => void (await setMode(victim.host, 'well')),
    goneMs: { p50: KEPT_TIMEOUT_MS + 300, p99: KEPT_TIMEOUT_MS + 300 },
    stopsMs: undefined,
  },
  host: { ...silence, goneMs: { p50: 500, p99: 500 }, stopsMs: 1000 },
  host_no_bfd: { ...silence, setting: (bed, on) => bed.setBfd(!on), goneMs: undefined, stopsMs: undefined },
};

/** The hops of one event at these nodes, by their own trails. */
async function trace({ cluster }: FailoverBed, nodes: readonly Instance[], sinceMs: number): Promise<void> {
  for (const node of nodes)
    for (const { at, kind, plugin = '', summary, trigger, durationMs = 0 } of await cluster.audit(node)) {
      const afterMs = Date.parse(at) - sinceMs;
      if (afterMs >= 0)
        report.say(
          `    ${node.name} ${afterMs} ms (${durationMs} ms) ${kind} ${plugin} ${summary} [${trigger}]`,
        );
    }
}

/**
 * One fault, watched until each subject is through with it. @returns ms since just before the fault; how long it took
 * to make it is in them
 */
async function sample(bed: FailoverBed, fault: Fault): Promise<Map<Watched | 'edges' | 'fault', number>> {
  // No subject's clock is in step with the faults.
  await pause(1000 + Math.random() * 2000);
  const edges = fault.wholeHost === true ? bed.edges.filter((edge) => edge !== bed.victim) : bed.edges;
  const stops = bed.lastEdgeStops(edges, PATIENCE_MS);
  const sinceMs = await fault.inject(bed);
  const tookMs = Date.now() - sinceMs;
  const found = new Map<Watched | 'edges' | 'fault', number>([['fault', tookMs]]);
  const subjects = bed.watched.filter((subject) => !(fault.wholeHost === true && subject === 'monit'));
  const endMs = performance.now() + PATIENCE_MS;
  while (performance.now() < endMs && subjects.some((subject) => !found.has(subject))) {
    for (const subject of subjects) {
      const atMs = bed.goneAt(subject, sinceMs);
      if (atMs !== undefined) found.set(subject, atMs - sinceMs);
    }
    await pause(20);
  }
  // Not gone in all that time counts as all that time, so that the run goes on to its end.
  for (const subject of subjects) if (!found.has(subject)) found.set(subject, PATIENCE_MS);
  const stoppedMs = await stops;
  if (values.trace) await trace(bed, fault.wholeHost === true ? edges : [bed.victim], sinceMs);
  found.set('edges', (stoppedMs ?? sinceMs + PATIENCE_MS) - sinceMs);
  await fault.repair(bed);
  await bed.allWell();
  return found;
}

async function measure(bed: FailoverBed, name: string, fault: Fault): Promise<void> {
  const all: Map<Watched | 'edges' | 'fault', number>[] = [];
  for (let done = 0; done < samples; done += 1) {
    const found = await sample(bed, fault);
    all.push(found);
    report.say(`  ${name}: ${[...found].map(([of, ms]) => `${of} ${Math.round(ms)}`).join(', ')}`);
  }
  const of = (subject: Watched | 'edges' | 'fault'): number[] =>
    all.map((found) => found.get(subject)).filter((ms) => ms !== undefined);
  const more = { fault_took: Math.max(...of('fault')) };
  const gone = report.times(name, n, 'bornemisza', 'gone_upstream', of('bornemisza'), more);
  for (const rival of rivals)
    if (of(rival).length > 0) report.times(name, n, rival, 'gone_upstream', of(rival));
  const stops = report.times(name, n, 'bornemisza', 'last_edge_stops', of('edges'));
  if (fault.goneMs !== undefined) {
    const { p50, p99 } = fault.goneMs;
    report.expect(gone.p50 <= p50, `${name}: gone upstream p50 ${gone.p50} ms, at most ${p50}`);
    report.expect(gone.p99 <= p99, `${name}: gone upstream p99 ${gone.p99} ms, at most ${p99}`);
  }
  if (fault.stopsMs !== undefined)
    report.expect(
      stops.p99 <= fault.stopsMs,
      `${name}: last edge stops p99 ${stops.p99} ms, at most ${fault.stopsMs}`,
    );
  const fast = of('keepalived_fast');
  if (fast.length > 0 && fault.wholeHost !== true)
    report.expect(
      gone.p50 <= percentile(fast, 0.5),
      `${name}: p50 ${gone.p50} ms, keepalived at 0.2 s ${Math.round(percentile(fast, 0.5))}`,
    );
}

/** Keep-alive and new connections, so that a fault meets both. */
function load(bed: FailoverBed) {
  const { client } = bed.cluster.lab;
  const of = { url: `https://${FLOATING}/`, ratePerSecond: rate / 2, timeoutMs: 10_000 };
  const kept = client.startLoad({ ...of, connectionsPerSource: 2 });
  const fresh = client.startLoad({ ...of, headers: { connection: 'close' } });
  return async (): Promise<readonly LoadReport[]> => Promise.all([kept.stop(), fresh.stop()]);
}

/** What a client notices of a fault: of all that it asked in some seconds. */
async function client(bed: FailoverBed, name: 'service_kill' | 'host'): Promise<void> {
  const fault = FAULTS[name];
  if (fault === undefined) throw new Error(`no fault ${name}`);
  const gaps: number[] = [];
  const counts = { requests: 0, failed: 0, resets: 0 };
  const why: Record<string, number> = {};
  for (let done = 0; done < samples; done += 1) {
    const stop = load(bed);
    await pause(2000 + Math.random() * 1000);
    await fault.inject(bed);
    await pause(WINDOW_MS);
    const reports = await stop();
    for (const { requests, failed, resets, longestGapMs, byStatus, byError } of reports) {
      counts.requests += requests;
      counts.failed += failed;
      counts.resets += resets;
      gaps.push(longestGapMs);
      for (const [kind, count] of [...Object.entries(byStatus), ...Object.entries(byError)])
        if (!/^[1-4]\d\d$/.test(kind)) why[kind] = (why[kind] ?? 0) + count;
    }
    await fault.repair(bed);
    await bed.allWell();
  }
  const more = { fault: name };
  report.times('client', n, 'bornemisza', 'longest_gap', gaps, more);
  const { requests, failed, resets } = counts;
  const kinds = Object.entries(why).map(([kind, count]) => `${kind} ${count}`);
  report.value('client', n, 'bornemisza', 'failed', 'count', failed, { ...more, requests, kinds });
  report.value('client', n, 'bornemisza', 'moved_by_router', 'count', resets, more);
}

/** How often HAProxy's own checks took a server out, at all edges, of those that carry requests. */
async function takenOut(bed: FailoverBed): Promise<number> {
  const all = await Promise.all(bed.edges.map((edge) => carrying(bed.cluster, edge)));
  return all.flat().reduce((sum, { downs }) => sum + downs, 0);
}

/** With one core in a busy loop, and nothing else that happens. */
async function calm(bed: FailoverBed): Promise<void> {
  const minutes = Number(values['calm-minutes']);
  const { client: from, router } = bed.cluster.lab;
  const hog = spawnWithUs('sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' });
  const [changes, outs] = [router.history(FLOATING).length, await takenOut(bed)];
  const moved = (rival: Exclude<Rival, 'monit'>): number => bed.neighbours.moves(rival).length;
  const before = { keepalived: moved('keepalived'), keepalived_fast: moved('keepalived_fast') };
  const answers = await from.load({
    url: `https://${FLOATING}/`,
    ratePerSecond: CALM_RATE,
    seconds: minutes * 60,
    connectionsPerSource: 2,
    timeoutMs: 10_000,
  });
  hog.kill('SIGKILL');
  const withdrawals = router
    .history(FLOATING)
    .slice(changes)
    .filter(({ hosts }) => hosts.length < n).length;
  const falsely = (await takenOut(bed)) - outs;
  const more = { minutes };
  report.value('calm', n, 'bornemisza', 'withdrawals', 'count', withdrawals, more);
  for (const rival of ['keepalived', 'keepalived_fast'] as const)
    if (rivals.includes(rival))
      report.value('calm', n, rival, 'withdrawals', 'count', moved(rival) - before[rival], more);
  report.value('calm', n, 'bornemisza', 'false_outs', 'count', falsely, more);
  const p99 = answers.p99Ms ?? Number.NaN;
  report.value('calm', n, 'bornemisza', 'answer_p99', 'ms', p99, {
    ...more,
    requests: answers.requests,
    failed: answers.failed,
  });
  report.expect(withdrawals === 0, `calm: ${withdrawals} withdrawals`);
  report.expect(falsely === 0, `calm: ${falsely} servers taken out`);
  report.expect(p99 <= 300, `calm: answers p99 ${Math.round(p99)} ms, at most 300`);
}

/** All at once, each with a handshake of its own, at one edge's own address. */
async function flood(bed: FailoverBed): Promise<void> {
  const url = `https://${bed.victim.host.publicAddress}/`;
  const counts: Record<string, number> = {};
  for (let round = 0; round < FLOOD_ROUNDS; round += 1) {
    const asks = Array.from({ length: FLOOD_CLIENTS }, (_, index) =>
      bed.cluster.lab.client.request({ url, source: index % 64, timeoutMs: 30_000 }).then(
        ({ status }) => String(status),
        (error: { code?: string }) => error.code ?? 'ERROR',
      ),
    );
    for (const kind of await Promise.all(asks)) counts[kind] = (counts[kind] ?? 0) + 1;
  }
  const empty = counts['503'] ?? 0;
  const kinds = Object.entries(counts).map(([kind, count]) => `${kind} ${count}`);
  const more = { clients: FLOOD_CLIENTS, rounds: FLOOD_ROUNDS, kinds };
  report.value('flood', n, 'bornemisza', 'empty_backend_503', 'count', empty, more);
  report.expect(empty === 0, `flood: ${empty} × 503`);
}

const bed = await FailoverBed.create(n, rivals);
try {
  report.say(`${n} edges are up; rivals: ${rivals.join(', ') || 'none'}`);
  for (const name of wanted) {
    const fault = FAULTS[name];
    if (fault === undefined) continue;
    await fault.setting?.(bed, true);
    await measure(bed, name, fault);
    await fault.setting?.(bed, false);
  }
  if (wanted.has('client')) for (const name of ['service_kill', 'host'] as const) await client(bed, name);
  if (wanted.has('calm')) await calm(bed);
  if (wanted.has('flood')) await flood(bed);
} finally {
  await bed.close();
}
report.end();
