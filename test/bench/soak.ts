import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { settled, startAll } from './cases.ts';
import { ourFleet, type OurFleet } from './ours.ts';
import { createReport } from './report.ts';
import { type Segment, withSegment } from './segment.ts';
import { type Point, trendOf } from './trend.ts';

/**
 * `bench:soak`: one member that runs through while the others come, go, fall silent and change. Its heap is read after
 * a full collection, so that the slope is what is kept and not what waits for the collector.
 */
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '5' },
    minutes: { type: 'string', default: '20' },
    warmup: { type: 'string', default: '10' },
    'node-flags': { type: 'string', default: '' },
    json: { type: 'boolean', default: false },
  },
});
const n = Number(values.n);
const minutes = Number(values.minutes);
const warmupMinutes = Number(values.warmup);
const flags = values['node-flags'].split(' ').filter((flag) => flag !== '');
const report = createReport('soak', values.json);

/** The member that is watched. */
const WATCHED = 0;
const SAMPLE_MS = 5000;
const SILENT_MS = 6000;
/** V8 is done with its own tables after ten minutes; what rises then rises for good. */
const SLOPE_LIMIT_KB = 15;

interface Sample extends Point {
  /**
   * Of the heap, compiled code and its tables, kB: it grows until all that is called often is compiled, and then no
   * more.
   */
  readonly codeKb: number;
  readonly handles: number;
}

/** One round is about half a minute: changes all the time, a crash, a leave, a restart and a silence. */
async function churn(segment: Segment, ours: OurFleet, isOver: () => boolean): Promise<number> {
  let rounds = 0;
  let change = 0;
  /** Of the others, one that runs. */
  const some = (): number => {
    const running = [...ours.agents.keys()].filter((host) => host !== WATCHED);
    return running[Math.floor(Math.random() * running.length)] ?? WATCHED;
  };
  const changeFor = async (ms: number): Promise<void> => {
    for (let spentMs = 0; spentMs < ms; spentMs += 500) {
      change += 1;
      for (const host of [WATCHED, some()]) ours.tag(host, String(change));
      await pause(500);
    }
  };
  while (!isOver()) {
    const crashed = some();
    await ours.kill(crashed);
    await changeFor(3000);
    await ours.start(crashed);
    const left = some();
    await ours.leave(left);
    await changeFor(3000);
    await ours.start(left);
    const cut = some();
    await segment.cut(cut);
    await changeFor(SILENT_MS);
    await segment.restore(cut);
    await changeFor(10_000);
    await settled(ours);
    rounds += 1;
  }
  return rounds;
}

async function sample(ours: OurFleet, isOver: () => boolean): Promise<Sample[]> {
  const samples: Sample[] = [];
  while (!isOver()) {
    await pause(SAMPLE_MS);
    const { heapBytes, codeBytes, handles } = await ours.figures(WATCHED);
    if (heapBytes < 0) throw new Error('the member cannot collect its garbage: start it with --expose-gc');
    samples.push({ x: performance.now() / 60_000, y: heapBytes / 1024, codeKb: codeBytes / 1024, handles });
  }
  return samples;
}

const mostHandles = (samples: readonly Sample[]): number =>
  Math.max(...samples.map(({ handles }) => handles));

await withSegment(n, async (segment, directory, closers) => {
  const ours = await ourFleet(segment, directory, ['--expose-gc', ...flags]);
  closers.push(ours);
  await startAll(ours, n);
  const startMs = performance.now();
  const isOver = (): boolean => performance.now() - startMs > (warmupMinutes + minutes) * 60_000;
  const [rounds, all] = await Promise.all([churn(segment, ours, isOver), sample(ours, isOver)]);
  const samples = all.filter(({ x }) => x - startMs / 60_000 >= warmupMinutes);
  const { slope, upper95 } = trendOf(samples);
  const objects = trendOf(samples.map(({ x, y, codeKb }) => ({ x, y: y - codeKb })));
  report.value('churn', n, 'bornemisza', 'heap_slope_upper95', 'kB/min', upper95, {
    slope: Math.round(slope * 100) / 100,
    objects_upper95: Math.round(objects.upper95 * 100) / 100,
    heap_kb: Math.round(samples.at(-1)?.y ?? Number.NaN),
    samples: samples.length,
    minutes,
    warmup_minutes: warmupMinutes,
    rounds,
  });
  const third = Math.ceil(samples.length / 3);
  const before = mostHandles(samples.slice(0, third));
  const after = mostHandles(samples.slice(-third));
  report.value('churn', n, 'bornemisza', 'open_handles', 'count', after, { in_the_first_third: before });
  report.expect(
    upper95 < SLOPE_LIMIT_KB,
    `heap slope: ${upper95.toFixed(1)} kB/min, under ${SLOPE_LIMIT_KB}`,
  );
  report.expect(after <= before, `open handles: ${after} in the last third, ${before} in the first`);
});
report.end();
