import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { AppBed, type AppNode, type Browser, ORIGIN } from '../integration/app-bed.ts';
import { cpuMs, rssMb } from './agents.ts';
import { CoreShares } from './core-shares.ts';
import { createReport, percentile } from './report.ts';
import { nodeFlags, unitEnvironment } from './unit-flags.ts';

/**
 * `bench:app`: what the app tier adds to CouchDB, what a password costs, what it holds in memory, and how much a
 * visitor loads. One node of the app tier, as its unit starts it, and one CouchDB: the release that LAB_COUCHDB names,
 * or the stand-in, whose rate says nothing. Documents are asked for by wrk, alternately through the API and at CouchDB
 * itself, so that both meet the same machine. With `--core-share 0.6`, wrk, API and CouchDB get 60 % of a core each:
 * the rates then say what they would where each has a core of its own. Needs root.
 */
const { values } = parseArgs({
  options: {
    samples: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '8' },
    'core-share': { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  },
});
const samples = Number(values.samples);
const seconds = Number(values.seconds);
const coreShare = Number(values['core-share']);
const report = createReport('app', values.json);
const run = promisify(execFile);

const LIMITS = {
  rateRatio: 0.85,
  p50AddedMs: 1,
  p99AddedMs: 5,
  cpuMsPerRequest: 0.5,
  signInsPerCore: 25,
  refusedMs: 100,
  rssMb: 130,
  hashingRssMb: 200,
  pageBytes: 40_000,
  brotliBytes: 12_000,
};
const EMAIL = 'anna@example.org';
const PASSWORD = 'four green turtles';
/** A page asks for a few documents at once; 16 keep both programs busy. */
const BUSY_CONNECTIONS = 16;
const NOTES = 20;

interface Round {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  readonly failed: number;
}
/** One of the two ways to the same documents. */
interface Way {
  readonly origin: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

const bed = await AppBed.start();
const shares = coreShare > 0 ? await CoreShares.create(coreShare) : undefined;
const forWrk = await shares?.group('wrk');
try {
  const node = await bed.addNode('', await asItsUnit());
  const browser = bed.browser(node);
  await bed.register(browser, EMAIL, PASSWORD);
  await bed.until(async () => (await browser.ask('GET', '/api/data')).status === 200, 'the database');
  await idle(node);
  await signIns(node);
  await shares?.bound('api', node.pid);
  await shares?.bound('couchdb', bed.couchPid);
  await documents(node, browser);
  await page();
} finally {
  await bed.close();
  await shares?.close();
}
report.end();

async function asItsUnit(): Promise<readonly string[]> {
  // What this process starts has its environment.
  Object.assign(process.env, await unitEnvironment('bornemisza-app.service'));
  const root = join(import.meta.dirname, '../..');
  return [...(await nodeFlags('bornemisza-app.service')), join(root, 'dist/app.mjs')];
}

/** After its first requests, as a node that has nothing to do. */
async function idle(node: AppNode): Promise<void> {
  await pause(5000);
  const held = await rssMb(node.pid);
  report.value('idle', 1, 'bornemisza', 'rss_mb', 'MB', held);
  report.expect(held <= LIMITS.rssMb, `idle: ${held.toFixed(0)} MB, at most ${LIMITS.rssMb}`);
}

async function documents(node: AppNode, browser: Browser): Promise<void> {
  for (let at = 0; at < NOTES; at += 1) {
    const { status } = await browser.ask('PUT', `/api/data/note-${at}`, { text: 'buy milk' });
    if (status !== 201) throw new Error(`a note answers ${status}`);
  }
  const { body } = await browser.ask('GET', '/api/data');
  const api: Way = {
    origin: `http://127.0.0.1:${node.port}`,
    path: '/api/data',
    headers: { cookie: browser.cookie, origin: ORIGIN, 'sec-fetch-site': 'same-origin' },
  };
  const bare: Way = {
    origin: `http://127.0.0.1:${bed.couchPort}`,
    path: `/${String(body['db_name'])}`,
    headers: bed.administrator,
  };
  await busy(node, api, bare);
  // What one person waits says nothing where each program stands still for a part of each period.
  if (shares === undefined) await alone(api, bare);
}

/** The most that each way gives. */
async function busy(node: AppNode, api: Way, bare: Way): Promise<void> {
  const [ratios, costs, failed] = [[] as number[], [] as number[], [] as number[]];
  const rates = { api: [] as number[], bare: [] as number[] };
  for (let sample = 0; sample < samples; sample += 1) {
    const direct = await load(bare, BUSY_CONNECTIONS);
    const before = await cpuMs(node.pid);
    const through = await load(api, BUSY_CONNECTIONS);
    costs.push(((await cpuMs(node.pid)) - before) / (through.perSecond * seconds));
    ratios.push(through.perSecond / direct.perSecond);
    rates.api.push(through.perSecond);
    rates.bare.push(direct.perSecond);
    failed.push(through.failed + direct.failed);
  }
  const cores = coreShare > 0 ? `3 of ${coreShare}` : availableParallelism();
  const [ratio, cost] = [percentile(ratios, 0.5), percentile(costs, 0.5)];
  for (const [subject, all] of [
    ['bornemisza', rates.api],
    ['bare', rates.bare],
  ] as const)
    report.value('documents', 1, subject, 'requests_per_s', '1/s', percentile(all, 0.5), { cores, samples });
  report.value('documents', 1, 'bornemisza', 'rate_ratio', 'ratio', ratio, { cores, samples });
  report.value('documents', 1, 'bornemisza', 'cpu_per_request', 'ms', cost, { samples });
  report.value('documents', 1, 'bornemisza', 'failed', 'count', sum(failed));
  const { rateRatio, cpuMsPerRequest } = LIMITS;
  report.expect(ratio >= rateRatio, `documents: ${ratio.toFixed(2)} of the bare rate, at least ${rateRatio}`);
  report.expect(
    cost <= cpuMsPerRequest,
    `documents: ${cost.toFixed(2)} ms of CPU, at most ${cpuMsPerRequest}`,
  );
  report.expect(sum(failed) === 0, `documents: ${sum(failed)} failed`);
}

/** What one person waits longer, where nobody else asks. */
async function alone(api: Way, bare: Way): Promise<void> {
  const added = { p50: [] as number[], p99: [] as number[] };
  for (let sample = 0; sample < samples; sample += 1) {
    const [direct, through] = [await load(bare, 1), await load(api, 1)];
    added.p50.push(through.p50 - direct.p50);
    added.p99.push(through.p99 - direct.p99);
  }
  const [p50, p99] = [percentile(added.p50, 0.5), percentile(added.p99, 0.5)];
  report.value('documents', 1, 'bornemisza', 'p50_added', 'ms', p50, { samples });
  report.value('documents', 1, 'bornemisza', 'p99_added', 'ms', p99, { samples });
  const { p50AddedMs, p99AddedMs } = LIMITS;
  report.expect(p50 <= p50AddedMs, `documents: ${p50.toFixed(1)} ms added at p50, at most ${p50AddedMs}`);
  report.expect(p99 <= p99AddedMs, `documents: ${p99.toFixed(1)} ms added at p99, at most ${p99AddedMs}`);
}

async function load({ origin, path, headers }: Way, connections: number): Promise<Round> {
  const script = join(import.meta.dirname, 'documents.lua');
  const rate = ['-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, origin, '--'];
  const salt = randomBytes(6).toString('hex');
  const enter = forWrk === undefined ? [] : ['sh', '-c', 'echo $$ >"$0" && exec "$@"', forWrk];
  const [program, ...more] = [...enter, 'wrk'];
  const { stdout } = await run(program, [...more, ...rate, path, salt, ...Object.entries(headers).flat()]);
  const line = stdout.split('\n').find((each) => each.startsWith('{'));
  if (line === undefined) {
    const answer = await fetch(`${origin}${path}/note-1`, { headers });
    throw new Error(`wrk gives no figures: ${stdout}; a note answers ${await answer.text()}`);
  }
  const found = JSON.parse(line) as { requests: number; seconds: number } & Omit<Round, 'perSecond'>;
  return { ...found, perSecond: found.requests / found.seconds };
}

/** Passwords that are right, as many at once as are hashed at once; then 120 wrong ones at once. */
async function signIns(node: AppNode): Promise<void> {
  const before = await cpuMs(node.pid);
  const endMs = performance.now() + seconds * 1000;
  let done = 0;
  const right = async (): Promise<void> => {
    while (performance.now() < endMs) {
      const { status } = await bed
        .browser(node)
        .ask('POST', '/api/session', { email: EMAIL, password: PASSWORD });
      if (status === 200) done += 1;
      else if (status !== 503) throw new Error(`a sign-in answers ${status}`);
    }
  };
  await Promise.all([right(), right()]);
  const perCore = (1000 * done) / ((await cpuMs(node.pid)) - before);
  report.value('sign_in', 1, 'bornemisza', 'per_core_per_s', '1/s', perCore, { done });
  report.expect(
    perCore >= LIMITS.signInsPerCore,
    `sign-ins: ${perCore.toFixed(1)} a second and core, at least ${LIMITS.signInsPerCore}`,
  );
  await flood(node);
}

async function flood(node: AppNode): Promise<void> {
  const refused: number[] = [];
  let most = 0;
  const watch = setInterval(() => void rssMb(node.pid).then((now) => (most = Math.max(most, now))), 50);
  const guesses = Array.from({ length: 120 }, async (_, at) => {
    const startMs = performance.now();
    const guess = { email: `nobody${at}@example.org`, password: PASSWORD };
    const { status } = await bed.browser(node).ask('POST', '/api/session', guess);
    if (status === 503) refused.push(performance.now() - startMs);
  });
  await Promise.all(guesses);
  clearInterval(watch);
  const { p99 } = report.times('flood', 1, 'bornemisza', 'refused', refused);
  report.value('flood', 1, 'bornemisza', 'rss_mb', 'MB', most);
  report.expect(p99 <= LIMITS.refusedMs, `flood: refused after ${p99} ms, at most ${LIMITS.refusedMs}`);
  report.expect(most <= LIMITS.hashingRssMb, `flood: ${most.toFixed(0)} MB, at most ${LIMITS.hashingRssMb}`);
}

/** All that a visitor's browser may load. */
async function page(): Promise<void> {
  const root = join(import.meta.dirname, '../../dist/web');
  const files = await readdir(root);
  const sizes = async (of: (name: string) => boolean): Promise<number> =>
    sum(await Promise.all(files.filter(of).map(async (name) => (await stat(join(root, name))).size)));
  const bytes = await sizes((name) => !/\.(br|gz)$/.test(name));
  const brotli = await sizes((name) => name.endsWith('.br'));
  report.value('page', 1, 'bornemisza', 'bytes', 'bytes', bytes);
  report.value('page', 1, 'bornemisza', 'brotli', 'bytes', brotli);
  report.expect(bytes <= LIMITS.pageBytes, `page: ${bytes} bytes, at most ${LIMITS.pageBytes}`);
  report.expect(
    brotli <= LIMITS.brotliBytes,
    `page: ${brotli} bytes by brotli, at most ${LIMITS.brotliBytes}`,
  );
}

function sum(all: readonly number[]): number {
  return all.reduce((total, each) => total + each, 0);
}
