import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { DistCertificates } from '../contract/couchdb/certificates.ts';
import { Fronts } from '../contract/couchdb/fronts.ts';
import {
  type Exchange,
  type Manifest,
  type Outcome,
  Replay,
  type Scenario,
} from '../contract/couchdb/replay.ts';

/** Cutting a link takes network namespaces. */
const mayCut = process.getuid?.() === 0;
const real = process.env.LAB_COUCHDB !== undefined;
/** The share that must be answered as recorded. Most of the second recording is about cuts. */
const wantedShare = { 'transcripts.jsonl': real ? 0.95 : 0.8, 'transcripts-2.jsonl': mayCut ? 0.55 : 0.1 };
/** The long scenario beside the short ones, which mostly wait; releases weigh more. */
const lanes = real ? 1 : 3;
/** How many exchanges were recorded in all; of the second recording only what is replayed is kept here. */
const recorded = { 'transcripts.jsonl': 804, 'transcripts-2.jsonl': 1037 };
/** Two minutes on two free cores, a release eight; the machine may be shared, and a scenario replayed again. */
const timeoutMs = real ? 2_400_000 : 2_300_000;

const read = async (file: string) =>
  await readFile(join(import.meta.dirname, '../contract/couchdb', file), 'utf8');
const exchangesOf = async (file: string) =>
  (await read(file))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Exchange);
const manifest = JSON.parse(await read('manifest.json')) as Manifest;
const exchanges = {
  'transcripts.jsonl': await exchangesOf('transcripts.jsonl'),
  'transcripts-2.jsonl': await exchangesOf('transcripts-2.jsonl'),
};

async function replay(scenario: Scenario): Promise<Outcome[]> {
  const certificates = new DistCertificates();
  const fronts = await (scenario.apart === true
    ? Fronts.createApart(certificates)
    : Fronts.create(certificates));
  try {
    return await new Replay(fronts, exchanges[scenario.file], manifest).run(scenario);
  } finally {
    await fronts.close();
  }
}

/** A race is lost now and then on a busy machine: what differs twice counts. */
async function replayAgain(scenario: Scenario, first: readonly Outcome[]): Promise<Outcome[]> {
  for (const { number, name, difference } of first.filter(unexplained))
    console.log(`# ${scenario.name}: replayed again for ${number} ${name}: ${difference}`);
  const second = await replay(scenario);
  return second.map((outcome) => {
    const before = first.find(({ number }) => number === outcome.number);
    return unexplained(outcome) && before?.difference === undefined ? (before ?? outcome) : outcome;
  });
}

async function replayAll(scenarios: Scenario[]): Promise<Outcome[]> {
  const waiting = [...scenarios];
  const outcomes: Outcome[] = [];
  const lane = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const beganMs = performance.now();
      const its = await replay(next);
      const held = its.filter(({ difference }) => difference === undefined).length;
      const seconds = Math.round((performance.now() - beganMs) / 1000);
      console.log(`# ${next.name}: ${held} of ${its.length} in ${seconds} s`);
      outcomes.push(...(its.some(unexplained) ? await replayAgain(next, its) : its));
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return outcomes;
}

function reasonFor({ file, number }: Outcome): string | undefined {
  const key = file === 'transcripts.jsonl' ? String(number) : `${file} ${number}`;
  return (real ? manifest.realMayDiffer : manifest.notHeld)[key];
}

function unexplained(outcome: Outcome): boolean {
  return outcome.difference !== undefined && reasonFor(outcome) === undefined;
}

t.setTimeout(timeoutMs);
t.test('the front answers as the recorded cluster did', { timeout: timeoutMs }, async (t) => {
  const only = process.env.REPLAY_ONLY;
  const outcomes = await replayAll(
    manifest.scenarios.filter(
      ({ name, apart }) => (only === undefined || name.includes(only)) && (apart !== true || mayCut),
    ),
  );
  t.not(outcomes.length, 0, 'something was replayed');
  for (const outcome of outcomes) {
    if (!unexplained(outcome)) continue;
    t.fail(`${outcome.file} ${outcome.number} ${outcome.name}: ${outcome.difference}`);
  }
  for (const file of Object.keys(recorded) as (keyof typeof recorded)[]) {
    const held = outcomes.filter(
      (outcome) => outcome.file === file && outcome.difference === undefined,
    ).length;
    const share = held / recorded[file];
    console.log(
      `# ${file}: ${held} of ${recorded[file]} exchanges answered as recorded (${(share * 100).toFixed(1)} %)`,
    );
    if (only === undefined) t.ok(share >= wantedShare[file], `enough of ${file} is answered as recorded`);
  }
  for (const outcome of real ? outcomes : []) {
    if (outcome.difference === undefined) continue;
    const { file, number, name, difference } = outcome;
    console.log(
      `# otherwise: ${file} ${number} ${name}: ${difference} (${reasonFor(outcome) ?? 'not explained'})`,
    );
  }
  for (const [which, reason] of real ? [] : Object.entries(manifest.notHeld))
    console.log(`# need not be held: ${which}: ${reason}`);
  for (const [part, reason] of Object.entries(manifest.notReplayed))
    console.log(`# transcripts-2.jsonl, not replayed: ${part}: ${reason}`);
});
