import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { poll } from '../lab/process.ts';
import { createReport } from './report.ts';
import { unitCost } from './unit-cost.ts';

/**
 * `bench:start`: the daemon under its own unit on a whole host. Ready is systemd's own word: from the start of
 * ExecStart to READY=1. Afterwards what the daemon costs with all that it does, default checks included.
 */
const { values } = parseArgs({
  options: {
    samples: { type: 'string', default: '10' },
    /** A process that does little is compiled slowly, and then runs for months. */
    'warmup-seconds': { type: 'string', default: '60' },
    'idle-seconds': { type: 'string', default: '30' },
    json: { type: 'boolean', default: false },
  },
});
const samples = Number(values.samples);
const report = createReport('start', values.json);
const READY_LIMIT_MS = 1500;
const UNIT = 'bornemisza@app.service';

async function property(of: Instance, name: string): Promise<number> {
  const text = await of.host.must(['systemctl', 'show', '--value', `--property=${name}`, UNIT]);
  return Number(text.trim());
}

/** @returns milliseconds from ExecStart to READY=1 */
async function coldStart(app: Instance): Promise<number> {
  await app.host.stop(UNIT);
  await app.host.start(UNIT);
  const readyUs = await poll(`${UNIT} to be active`, async () => {
    const activeUs = await property(app, 'ActiveEnterTimestampMonotonic');
    return activeUs > (await property(app, 'ExecMainStartTimestampMonotonic')) ? activeUs : undefined;
  });
  return (readyUs - (await property(app, 'ExecMainStartTimestampMonotonic'))) / 1000;
}

const cluster = await Cluster.create({ app: 2, db: 1 });
try {
  await cluster.settled(60_000);
  const app = cluster.instance('app2');
  const n = cluster.instances.length;
  const times: number[] = [];
  for (let sample = 0; sample < samples; sample += 1) {
    times.push(await coldStart(app));
    await pause(2000);
  }
  const ready = report.times('cold', n, 'bornemisza', 'ready', times);
  report.expect(ready.p50 <= READY_LIMIT_MS, `ready p50 after ${ready.p50} ms, at most ${READY_LIMIT_MS}`);
  await cluster.settled(60_000);
  await pause(Number(values['warmup-seconds']) * 1000);
  const [beforeMs, before] = [performance.now(), await unitCost(app.host, UNIT)];
  await pause(Number(values['idle-seconds']) * 1000);
  const after = await unitCost(app.host, UNIT);
  const cpuPercent = (100 * (after.cpuMs - before.cpuMs)) / (performance.now() - beforeMs);
  report.value('cold', n, 'bornemisza', 'rss_mb', 'MB', after.rssMb);
  report.value('idle', n, 'bornemisza', 'cpu_percent', '%', cpuPercent);
  report.expect(cpuPercent <= 2, `the whole app daemon: ${cpuPercent.toFixed(2)} % of a core, at most 2`);
} finally {
  await cluster.close();
}
report.end();
