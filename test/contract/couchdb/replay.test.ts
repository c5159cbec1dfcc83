import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { DistCertificates } from './certificates.ts';
import { Fronts } from './fronts.ts';
import { type Exchange, type Manifest, type Outcome, Replay, type Scenario } from './replay.ts';

/** The share of recorded exchanges that must be answered as recorded. */
const wantedShare = 0.8;
/** The long scenario beside all the short ones: one lane for each core. */
const lanes = 2;

const read = async (file: string) => await readFile(join(import.meta.dirname, file), 'utf8');
const manifest = JSON.parse(await read('manifest.json')) as Manifest;
const exchanges = (await read('transcripts.jsonl'))
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as Exchange);

async function replay(scenario: Scenario): Promise<Outcome[]> {
  const fronts = await Fronts.create(new DistCertificates());
  try {
    return await new Replay(fronts, exchanges, manifest).run(scenario);
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

t.test('the front answers as the recorded cluster did', async (t) => {
  const only = process.env.REPLAY_ONLY;
  const outcomes = await replayAll(
    manifest.scenarios.filter(({ name }) => only === undefined || name.includes(only)),
  );
  const wrong = outcomes.filter(
    ({ number, difference }) => difference !== undefined && manifest.notHeld[number] === undefined,
  );
  for (const { number, name, difference } of wrong) t.fail(`${number} ${name}: ${difference}`);
  const held = outcomes.filter(({ difference }) => difference === undefined).length;
  const share = held / exchanges.length;
  t.comment(
    `transcripts.jsonl: ${held} of ${exchanges.length} exchanges answered as recorded (${(share * 100).toFixed(1)} %)`,
  );
  for (const [number, reason] of Object.entries(manifest.notHeld)) {
    t.comment(`not held: ${number} ${exchanges[Number(number)]?.name}: ${reason}`);
  }
  if (only === undefined)
    t.ok(share >= wantedShare, `at least ${wantedShare * 100} % of the exchanges are answered as recorded`);
});
