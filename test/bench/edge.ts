import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { allUp, PATIENCE_MS } from '../integration/cluster-bed.ts';
import type { Host } from '../lab/index.ts';
import { until } from '../support/until.ts';
import { EdgeBed } from './edge-bed.ts';
import { chosen, createReport } from './report.ts';
import { unitCost } from './unit-cost.ts';

/**
 * `bench:edge`: the site's certificate, the records, the firewall and the floating IP by a provider's API, on real app
 * nodes with BIND, pebble and a stand-in of a provider around them. Needs root.
 */
const CASES = ['certificate', 'renewal', 'record', 'firewall', 'idle', 'floating_api'] as const;
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '3' },
    samples: { type: 'string', default: '5' },
    renewals: { type: 'string', default: '10' },
    /** Requests a second at each edge, half of them on new connections. */
    rate: { type: 'string', default: '50' },
    cases: { type: 'string', default: CASES.join(',') },
    'warmup-seconds': { type: 'string', default: '60' },
    'idle-seconds': { type: 'string', default: '60' },
    json: { type: 'boolean', default: false },
  },
});
const n = Number(values.n);
const samples = Number(values.samples);
const wanted = chosen(CASES, values.cases);
const report = createReport('edge', values.json);

const LIMITS = {
  onAllEdgesMs: 10_000,
  recordGoneMs: 25_000,
  recordBackMs: 3000,
  listToRulesMs: 1000,
  cutMs: 1000,
  toCallMs: 5000,
  helperCpuPercent: 0.2,
  helperMb: 5,
};
const DAEMON = 'bornemisza@app.service';
const HELPER = 'bornemisza-firewall.service';
/** A private address that no host of the lab has. */
const NEWCOMER = '10.77.0.200';
/** In a cut: longer than a silent holder's address needs to be moved. */
const CUT_MS = 15_000;

async function certificate(bed: EdgeBed): Promise<void> {
  await bed.configure(hosts(bed), bed.withNames, bed.withCertificate);
  const times: number[] = [];
  const seen = new Set([await bed.certificateOnAll(new Set())]);
  const before = await bed.orders();
  for (let done = 0; done < samples; done += 1) {
    const sinceMs = await bed.startWithoutCertificate();
    seen.add(await bed.certificateOnAll(seen));
    times.push(performance.now() - sinceMs);
    await allUp(bed.cluster);
  }
  const orders = (await bed.orders()) - before;
  const { p99 } = report.times('certificate', n, 'bornemisza', 'on_all_edges', times);
  report.value('certificate', n, 'bornemisza', 'orders', 'count', orders, { starts: samples });
  report.expect(p99 <= LIMITS.onAllEdgesMs, `certificate: on all edges p99 ${p99} ms`);
  report.expect(orders === samples, `certificate: ${orders} orders in ${samples} starts`);
}

async function renewal(bed: EdgeBed): Promise<void> {
  const { client } = bed.cluster.lab;
  const loads = hosts(bed).flatMap(({ publicAddress }) => {
    const of = {
      url: `https://${publicAddress}/`,
      ratePerSecond: Number(values.rate) / 2,
      timeoutMs: 10_000,
    };
    return [client.startLoad(of), client.startLoad({ ...of, headers: { connection: 'close' } })];
  });
  const seen = new Set([await bed.certificateOnAll(new Set())]);
  for (let done = 0; done < Number(values.renewals); done += 1) {
    const { host } = bed.edges[done % n] ?? first(bed);
    await host.must(['bornemisza', 'certificate', 'renew', '--force'], { timeoutMs: PATIENCE_MS });
    seen.add(await bed.certificateOnAll(seen));
  }
  const reports = await Promise.all(loads.map((each) => each.stop()));
  const sum = (of: 'requests' | 'failed'): number => reports.reduce((all, each) => all + each[of], 0);
  const more = { renewals: Number(values.renewals) };
  report.value('renewal', n, 'bornemisza', 'requests', 'count', sum('requests'), more);
  report.value('renewal', n, 'bornemisza', 'failed', 'count', sum('failed'), more);
  report.expect(sum('failed') === 0, `renewal: ${sum('failed')} requests failed`);
}

async function record(bed: EdgeBed): Promise<void> {
  const founders = await bed.founders();
  const last = bed.edges.at(-1) ?? first(bed);
  const [gone, back]: [number[], number[]] = [[], []];
  for (let done = 0; done < samples; done += 1) {
    await bed.recordIs(last.host, true);
    const sinceMs = performance.now();
    await last.host.powerCut();
    await bed.recordIs(last.host, false);
    gone.push(performance.now() - sinceMs);
    // A record can be back while the host still boots.
    const booted = last.host.boot();
    const [wellMs, thereMs] = await Promise.all([
      bed.isWell(last).then(() => performance.now()),
      bed.recordIs(last.host, true).then(() => performance.now()),
      booted,
    ]);
    back.push(Math.max(0, thereMs - wellMs));
    await allUp(bed.cluster);
  }
  const now = await bed.founders();
  const changed = now.filter((each, at) => each !== founders[at]).length;
  const { p99 } = report.times('record', n, 'bornemisza', 'gone_after_death', gone);
  const again = report.times('record', n, 'bornemisza', 'back_after_return', back);
  report.value('record', n, 'bornemisza', 'founders_changed', 'count', changed);
  report.expect(p99 <= LIMITS.recordGoneMs, `record: gone after p99 ${p99} ms`);
  report.expect(again.p99 <= LIMITS.recordBackMs, `record: back after p99 ${again.p99} ms`);
  report.expect(changed === 0, `record: ${changed} of the founder's records changed`);
}

async function firewallOn(host: Host): Promise<void> {
  if ((await host.exec(['nft', 'list', 'table', 'inet', 'bornemisza'])).code === 0) return;
  await host.must(['sh', '-c', 'mkdir -p /run/sshd && ssh-keygen -A']);
  for (const verb of ['on', 'confirm'])
    await host.must(['bornemisza', 'firewall', verb], { timeoutMs: PATIENCE_MS });
}

/** From a list that the daemon could have written to the kernel's set. Measured on the host, with its own clock. */
async function listToRules({ host }: { readonly host: Host }): Promise<number> {
  const script = `cd /run/bornemisza/app && cp -p firewall firewall.was && cp -p firewall firewall.new || exit 9
    echo 'app ${NEWCOMER}' >>firewall.new; has() { nft list set inet bornemisza apps | grep -q '${NEWCOMER}'; }
    since=\${EPOCHREALTIME/./}; mv firewall.new firewall
    until has; do [ $((\${EPOCHREALTIME/./} - since)) -lt 30000000 ] || exit 8; done
    echo $(((\${EPOCHREALTIME/./} - since) / 1000)); mv firewall.was firewall; while has; do sleep 0.1; done`;
  return Number(await host.must(['bash', '-c', script], { timeoutMs: PATIENCE_MS }));
}

async function firewall(bed: EdgeBed): Promise<void> {
  const edge = first(bed);
  await firewallOn(edge.host);
  const times: number[] = [];
  for (let done = 0; done < samples; done += 1) {
    // Not in step with the helper's looks.
    await pause(Math.random() * 1000);
    times.push(await listToRules(edge));
  }
  const { p99 } = report.times('firewall', n, 'bornemisza', 'list_to_rules', times);
  report.expect(p99 <= LIMITS.listToRulesMs, `firewall: list to rules p99 ${p99} ms`);
}

/** What a removed node has open: an echo in place of HAProxy, so that the firewall alone can end it. Comes last. */
async function removal(bed: EdgeBed): Promise<void> {
  const [edge, removed] = [first(bed), bed.edges.at(-1) ?? first(bed)];
  await edge.host.mask('bornemisza-haproxy@app.service');
  await edge.host.stop('bornemisza-haproxy@app.service');
  await edge.host.must(['systemd-run', '--unit=echo', 'socat', 'TCP-LISTEN:8443,fork,reuseaddr', 'EXEC:cat']);
  const door = `/dev/tcp/${edge.host.privateAddress}/8443`;
  await until(async () => (await removed.host.exec(['bash', '-c', `exec 3<>${door}`])).code === 0, {
    what: 'the echo',
  });
  const talk = `exec 3<>${door}; while echo x >&3 && read -t 3 -u 3; do echo \${EPOCHREALTIME/./} >/run/heard
    read -t 0.01 <> <(:); done 2>/dev/null; cat /run/heard`;
  const ended = removed.host.must(['bash', '-c', talk], { timeoutMs: PATIENCE_MS });
  await until(async () => (await removed.host.exec(['test', '-e', '/run/heard'])).code === 0, {
    what: 'the link',
  });
  const sinceMs = Date.now();
  await bed.cluster.command(edge, ['remove', removed.name, '--force']);
  const saidMs = Date.now();
  const lastMs = Number(await ended) / 1000;
  const afterMs = Math.max(0, lastMs - saidMs);
  const more = { after_start_of_command: Math.round(lastMs - sinceMs) };
  report.times('firewall', n, 'bornemisza', 'cut_after_removal', [afterMs], more);
  report.expect(afterMs <= LIMITS.cutMs, `firewall: cut ${Math.round(afterMs)} ms after the removal`);
}

interface Cost {
  readonly cpuPercent: number;
  readonly rssMb: number;
}

async function idleCost(host: Host, unit: string): Promise<Cost> {
  await pause(Number(values['warmup-seconds']) * 1000);
  const [sinceMs, before] = [performance.now(), await unitCost(host, unit)];
  await pause(Number(values['idle-seconds']) * 1000);
  const after = await unitCost(host, unit);
  return {
    cpuPercent: (100 * (after.cpuMs - before.cpuMs)) / (performance.now() - sinceMs),
    rssMb: after.rssMb,
  };
}

/** What the daemon of the node that orders and writes costs with one more section than with none. */
async function idle(bed: EdgeBed): Promise<void> {
  const { host } = first(bed);
  const sections = { certificates: bed.withCertificate, dns: bed.withNames, floating: bed.withProvider };
  await bed.configure(hosts(bed));
  const bare = await idleCost(host, DAEMON);
  const tell = (subject: 'bare' | 'firewall' | keyof typeof sections, { cpuPercent, rssMb }: Cost): void => {
    report.value('idle', n, subject, 'cpu_percent', '%', cpuPercent);
    report.value('idle', n, subject, 'rss_mb', 'MB', rssMb);
  };
  tell('bare', bare);
  for (const [subject, section] of Object.entries(sections)) {
    await bed.configure(hosts(bed), section);
    if (subject === 'certificates') await bed.certificateOnAll(new Set());
    const { cpuPercent, rssMb } = await idleCost(host, DAEMON);
    tell(subject as keyof typeof sections, {
      ...{ cpuPercent: cpuPercent - bare.cpuPercent, rssMb: rssMb - bare.rssMb },
    });
  }
  await firewallOn(host);
  const helper = await idleCost(host, HELPER);
  tell('firewall', helper);
  report.expect(
    helper.cpuPercent <= LIMITS.helperCpuPercent && helper.rssMb <= LIMITS.helperMb,
    `idle: the firewall's helper has ${helper.cpuPercent.toFixed(2)} % of a core and ${helper.rssMb.toFixed(1)} MB`,
  );
}

async function floatingApi(bed: EdgeBed): Promise<void> {
  await bed.configure(hosts(bed), bed.withProvider);
  const [provider, { lab }] = [await bed.provider(), bed.cluster];
  const [address = ''] = lab.floatingAddresses;
  const holder = (): Promise<string> =>
    until(async () => (await lab.router.announcers(address))[0], {
      ...{ deadlineMs: PATIENCE_MS, everyMs: 100, what: 'a holder' },
    });
  const times: number[] = [];
  for (let done = 0; done < samples; done += 1) {
    const host = lab.host(await holder());
    const sinceMs = Date.now();
    await host.powerCut();
    const order = await until(async () => (await provider.orders(sinceMs))[0], {
      ...{ deadlineMs: PATIENCE_MS, everyMs: 50, what: 'an order' },
    });
    times.push(order.atMs - sinceMs);
    await host.boot();
    await allUp(bed.cluster);
  }
  const sinceMs = Date.now();
  const cut = hosts(bed).slice(1);
  for (const host of cut) await host.cut({ device: 'private' });
  await pause(CUT_MS);
  const moved = (await provider.orders(sinceMs)).length;
  for (const host of cut) await host.heal();
  await allUp(bed.cluster);
  const { p99 } = report.times('floating_api', n, 'bornemisza', 'death_to_call', times);
  report.value('floating_api', n, 'bornemisza', 'moved_in_cut', 'count', moved, { seconds: CUT_MS / 1000 });
  report.expect(p99 <= LIMITS.toCallMs, `floating_api: death to call p99 ${p99} ms`);
  report.expect(moved === 0, `floating_api: ${moved} orders in a cut`);
}

const hosts = (bed: EdgeBed): Host[] => bed.edges.map(({ host }) => host);

function first({ edges: [edge] }: EdgeBed) {
  if (edge === undefined) throw new Error('a cluster has an edge');
  return edge;
}

const directory = await mkdtemp(join(tmpdir(), 'bm-edge-'));
const bed = await EdgeBed.create(n, directory);
try {
  const needsBoth = (['renewal', 'record'] as const).some((each) => wanted.has(each));
  if (wanted.has('certificate')) await certificate(bed);
  else if (needsBoth) await bed.configure(hosts(bed), bed.withNames, bed.withCertificate);
  if (wanted.has('renewal')) await renewal(bed);
  if (wanted.has('record')) await record(bed);
  if (wanted.has('firewall')) await firewall(bed);
  if (wanted.has('idle')) await idle(bed);
  if (wanted.has('floating_api')) await floatingApi(bed);
  if (wanted.has('firewall')) await removal(bed);
} finally {
  await bed.close();
  await rm(directory, { recursive: true, force: true });
}
report.end();
