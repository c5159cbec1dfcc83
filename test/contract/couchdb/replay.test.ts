import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { DistCertificates } from './certificates.ts';
import { Fronts } from './fronts.ts';
import { type Exchange, type Manifest, type Outcome, Replay, type Scenario } from './replay.ts';

/** The share of transcripts.jsonl that must be answered as recorded. */
const wantedShare = 0.8;
/** The long scenario beside the short ones, which mostly wait. */
const lanes = 3;
/** How many exchanges were recorded in all; of the second recording only what is replayed is kept here. */
const recorded = { 'transcripts.jsonl': 804, 'transcripts-2.jsonl': 1037 };
/** A minute on two free cores; the machine may be shared. */
const timeoutMs = 400_000;

const read = async (file: string) => await readFile(join(import.meta.dirname, file), 'utf8');
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
  const fronts = await Fronts.create(new DistCertificates());
  try {
    return await new Replay(fronts, exchanges[scenario.file], manifest).run(scenario);
  } finally {
    await fronts.close();
  }
}

async function replayAll(scenarios: Scenario[]): Promise<Outcome[]> {
  const waiting = [...scenarios];
  const outcomes: Outcome[] = [];
  const lane = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift())
      outcomes.push(...(await replay(next)));
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return outcomes;
}

function reasonFor({ file, number }: Outcome): string | undefined {
  return file === 'transcripts.jsonl' ? manifest.notHeld[number] : undefined;
}

t.setTimeout(timeoutMs);
t.test('the front answers as the recorded cluster did', { timeout: timeoutMs }, async (t) => {
  const only = process.env.REPLAY_ONLY;
  const outcomes = await replayAll(
    manifest.scenarios.filter(({ name }) => only === undefined || name.includes(only)),
  );
  for (const outcome of outcomes) {
    if (outcome.difference === undefined || reasonFor(outcome) !== undefined) continue;
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
    if (only === undefined && file === 'transcripts.jsonl')
      t.ok(share >= wantedShare, 'enough of it is answered as recorded');
  }
  for (const [number, reason] of Object.entries(manifest.notHeld)) {
    console.log(`# not held: ${number} ${exchanges['transcripts.jsonl'][Number(number)]?.name}: ${reason}`);
  }
  for (const [part, reason] of Object.entries(manifest.notReplayed))
    console.log(`# transcripts-2.jsonl, not replayed: ${part}: ${reason}`);
});
