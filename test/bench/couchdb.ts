import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Checker, securityDisagreements, underReplicated } from '../integration/couchdb-checker.ts';
import { Cluster, type Node, real } from '../integration/couchdb-cluster.ts';
import {
  fewest,
  findingsOfAll,
  isCaught,
  secondsToGrow,
  wrongWays,
} from '../integration/couchdb-coordinators.ts';
import { Users } from '../integration/couchdb-users.ts';
import { createReport } from './report.ts';

/**
 * `check:couchdb`: a CouchDB cluster grows, loses a node for a while and shrinks while clients write and read; then
 * what was acknowledged is looked for on every node. Beside it five coordinators that do one thing wrong, which the
 * same checker has to catch. On the stand-in, or on the release that LAB_COUCHDB names.
 */
const { values } = parseArgs({
  options: { full: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
});
const report = createReport('couchdb', values.json);

const documents = values.full ? 20_000 : 6000;
const idleMs = values.full ? 60_000 : 15_000;
/** A release on a loaded machine: a join waits for CouchDB's own rounds. */
const servingMs = 300_000;
/** `/proc/PID/stat` counts in these, on every Linux that Node runs on. */
const ticksPerSecond = 100;

const security = { admins: { names: [], roles: ['_admin'] }, members: { names: ['alice'], roles: [] } };

async function fill(node: Node): Promise<string[]> {
  await node.ask('PUT', 'app');
  await node.ask('PUT', 'app/_security', security);
  const ids: string[] = [];
  for (let from = 0; from < documents; from += 2000) {
    const docs = Array.from({ length: 2000 }, (_, i) => ({
      _id: `before-${from + i}`,
      pad: 'x'.repeat(200),
    }));
    const { status } = await node.ask('POST', 'app/_bulk_docs', { docs }, 60_000);
    if (status !== 201) throw new Error(`filling the database answered ${status}`);
    ids.push(...docs.map(({ _id: id }) => id));
  }
  return ids;
}

/** Seconds that two processors' worth of time would be 200 % of. */
async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

async function idlePercent(nodes: readonly Node[]): Promise<number> {
  const pids = nodes.map(({ pid }) => pid).filter((pid) => pid !== undefined);
  const used = async (): Promise<number> =>
    (await Promise.all(pids.map(cpuSeconds))).reduce((sum, seconds) => sum + seconds, 0);
  const before = await used();
  await pause(idleMs);
  return (((await used()) - before) / (idleMs / 1000) / pids.length) * 100;
}

async function story(cluster: Cluster, first: Node): Promise<{ seconds: number; stayers: Node[] }> {
  const beganMs = performance.now();
  /** On the same clock as the checker's wrong reads. */
  const say = (what: string): void =>
    report.say(`  ${((performance.now() - beganMs) / 1000).toFixed(1)} s: ${what}`);
  const second = await cluster.add();
  await cluster.serving([first, second], servingMs);
  const seconds = (performance.now() - beganMs) / 1000;
  say('two nodes serve');
  const third = await cluster.add();
  await cluster.serving([first, second, third], servingMs);
  say('three nodes serve');
  const back = async (what: string): Promise<void> => {
    await third.start();
    await cluster.serving([first, second, third], servingMs);
    say(`the third is back ${what}`);
  };
  await third.stop('SIGKILL');
  await cluster.until('its end is seen', () => third.plugin.known().phase !== 'serving', servingMs);
  await back('after a crash');
  if (values.full) {
    await third.stop('SIGKILL');
    await third.wipe();
    await cluster.until('its end is seen', () => third.plugin.known().phase !== 'serving', servingMs);
    await back('with its data gone');
  }
  second.phase = 'leaving';
  await cluster.until('the second has left', () => second.plugin.known().phase === 'left', servingMs);
  await cluster.serving([first, third], servingMs);
  await second.stop();
  say('the second has left');
  return { seconds, stayers: [first, third] };
}

async function checkProduct(): Promise<void> {
  const cluster = await Cluster.make();
  let checker: Checker | undefined;
  let users: Users | undefined;
  try {
    const first = await cluster.add();
    await cluster.serving([first], servingMs);
    checker = new Checker(cluster, 'app', await fill(first));
    users = new Users(cluster);
    const { seconds, stayers } = await story(cluster, first);
    await users.stop();
    await cluster.serving(stayers, servingMs);
    const verdict = await checker.stop();
    for (const wrong of verdict.wrongReads.slice(0, 10)) report.say(`  wrong read: ${wrong}`);
    const lost = new Set<string>();
    for (const node of stayers) for (const id of await checker.lostOn(node)) lost.add(id);
    const strays: string[] = [];
    for (const node of stayers) strays.push(...(await users.wrongOn(node, 2)));
    for (const wrong of strays.slice(0, 10)) report.say(`  a person: ${wrong}`);
    const under = await fewest(() => underReplicated(first, 'app', 2));
    const disagreements = await securityDisagreements(first, 'app', security);
    const value = (name: string, metric: string, amount: number, more = {}): void =>
      report.value(name, 3, 'bornemisza', metric, 'count', amount, more);
    value('writes', 'acknowledged', verdict.acknowledged, { failed: verdict.failed, reads: verdict.reads });
    value('writes', 'lost', lost.size);
    value('writes', 'wrong_reads', verdict.wrongReads.length);
    value('copies', 'under_replicated', under);
    value('security', 'disagreements', disagreements);
    value('people', 'registered', users.stay.length, { wrong: strays.length });
    report.value('grow', 2, 'bornemisza', 'seconds', 's', seconds, { documents });
    for (const [what, count] of [
      ['writes lost', lost.size],
      ['wrong reads', verdict.wrongReads.length],
      ['ranges with too few copies', under],
      ['copies with another _security', disagreements],
      ['people without their database, or databases without people', strays.length],
    ] as const)
      report.expect(count === 0, `${what}: ${count}, none allowed`);
    // As a daemon that has nothing to do: a look every 30 s, and the plugin's own small ones.
    cluster.everyMs = 30_000;
    const watches = stayers.map((node) => node.plugin.watch(() => undefined));
    const percent = await idlePercent(stayers);
    for (const end of watches) end();
    report.value('idle', stayers.length, 'bornemisza', 'couchdb_cpu_percent', '%', percent);
  } finally {
    await users?.stop();
    await checker?.stop();
    await cluster.close();
  }
}

report.say(real ? 'on a release of CouchDB' : 'on the stand-in');
await checkProduct();
report.value('grow', 2, 'bare', 'seconds', 's', await secondsToGrow(documents), { documents });
const findings = await findingsOfAll(wrongWays);
const caught = wrongWays.filter((way) => isCaught(way, findings.get(way)));
for (const way of wrongWays) report.say(`  ${way}: ${JSON.stringify(findings.get(way))}`);
report.value('wrong_coordinators', 2, 'bare', 'caught', 'count', caught.length, { of: wrongWays.length });
report.expect(
  caught.length === wrongWays.length,
  `wrong coordinators caught: ${caught.length} of ${wrongWays.length}`,
);
report.end();
