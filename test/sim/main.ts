import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Rule } from '../../src/daemon/membership/core.ts';
import { makeScenario, runScenario, type Scenario } from './scenario.ts';
import { shrink } from './shrink.ts';

/**
 * `node test/sim/main.ts --seeds 1000`: runs scenarios from seed `--from` (default 1) on, shrinks and keeps the failing
 * ones under test/sim/seeds, and notes its progress there so that the next call goes on where this one ended.
 * `--replay FILE`: runs a kept scenario and prints its trace. `--fresh`: starts from the beginning.
 */
const here = dirname(fileURLToPath(import.meta.url));

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    fresh: { type: 'boolean', default: false },
    without: { type: 'string', multiple: true, default: [] },
    replay: { type: 'string' },
    directory: { type: 'string', default: join(here, 'seeds') },
  },
});

const options = { withoutRules: values.without as Rule[] };
if (values.replay === undefined) soak();
else process.exitCode = report(JSON.parse(readFileSync(values.replay, 'utf8')) as Scenario) ? 0 : 1;

function soak(): void {
  const progressFile = join(values.directory, '.progress');
  const first = Number(values.from);
  const last = first + Number(values.seeds) - 1;
  const startMs = performance.now();
  let events = 0;
  let failed = 0;
  mkdirSync(values.directory, { recursive: true });
  for (let seed = values.fresh ? first : resumeAt(progressFile, first, last); seed <= last; seed += 1) {
    const scenario = makeScenario(seed);
    const outcome = runScenario(scenario, options);
    events += outcome.events;
    if (outcome.violations.length > 0) {
      failed += 1;
      keep(scenario, seed);
    }
    writeFileSync(progressFile, `${JSON.stringify({ first, last, done: seed })}\n`);
    if (seed % 100 === 0) console.log(`seed ${seed}: ${failed} failed, ${events} events`);
  }
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  console.log(`seeds ${first} to ${last}: ${failed} failed in this run, ${events} events in ${seconds} s`);
  process.exitCode = failed > 0 ? 1 : 0;
}

function resumeAt(file: string, first: number, last: number): number {
  try {
    const done = JSON.parse(readFileSync(file, 'utf8')) as { first: number; last: number; done: number };
    return done.first === first && done.last === last && done.done < last ? done.done + 1 : first;
  } catch {
    return first;
  }
}

function keep(scenario: Scenario, seed: number): void {
  const small = shrink(scenario, runScenario(scenario, options), options);
  const file = join(values.directory, `${seed}.json`);
  writeFileSync(file, `${JSON.stringify(small.scenario, undefined, 2)}\n`);
  console.log(
    `seed ${seed} failed; ${scenario.actions.length} actions shrunk to ${small.scenario.actions.length}, ` +
      `kept in ${file}`,
  );
  report(small.scenario);
}

function report(scenario: Scenario): boolean {
  const { violations, log } = runScenario(scenario, options);
  console.log(`${scenario.nodes} nodes, seed ${scenario.seed}`);
  for (const action of scenario.actions) console.log(`  ${JSON.stringify(action)}`);
  for (const line of log.slice(-60)) console.log(`    ${line}`);
  for (const violation of violations.slice(0, 5))
    console.log(`  ${violation.invariant} at ${(violation.atMs / 1000).toFixed(3)} s: ${violation.detail}`);
  return violations.length === 0;
}
