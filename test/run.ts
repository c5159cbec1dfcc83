/**
 * Everything that says whether this tree is good: format, lint, types, and every test. Ends with `N passed, N failed`.
 *
 * A test file that fails beside others runs once more, alone. Passes it then, it is named as unsteady, and what it
 * failed with stands above: something in it depends on how busy the machine is, and is to be mended.
 */
import { spawn, spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

/**
 * Three on two cores: an integration test waits most of its time, and takes half a core (by its lab's cgroup) at the
 * most.
 */
const JOBS = '3';
const FILES = 'test/{architecture,browser,contract,integration,property,sim,unit}/**/*.test.ts';
/** More is no chance: the tree is broken, and a second run would only take longer to say so. */
const MOST_SECOND_TRIES = 4;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { jobs: { type: 'string', default: JOBS }, 'tests-only': { type: 'boolean', default: false } },
});

const CHECKS: readonly (readonly [string, ...string[]])[] = [
  ['biome', 'format', '.'],
  ['oxlint', '--type-aware', '--deny-warnings', 'src', 'test', 'scripts'],
  ['tsc'],
  ['tsc', '-p', 'src/web'],
];

interface Outcome {
  readonly passed: number;
  readonly failed: number;
  readonly exitCode: number;
  readonly good: ReadonlySet<string>;
}

process.exitCode = await main();

async function main(): Promise<number> {
  for (const [program, ...args] of values['tests-only'] ? [] : CHECKS) {
    process.stdout.write(`# ${[program, ...args].join(' ')}\n`);
    const { status } = spawnSync(program, args, { stdio: 'inherit' });
    if (status !== 0) {
      process.stdout.write('\n0 passed, 1 failed\n');
      return 1;
    }
  }
  const files = positionals.length > 0 ? positionals : globSync(FILES).toSorted();
  const first = await tap(files, values.jobs);
  if (first.exitCode === 0) return end(first.passed, first.failed);
  // A file that never said how it ended failed too.
  const bad = files.filter((file) => !first.good.has(file));
  if (bad.length === 0 || bad.length > MOST_SECOND_TRIES) return end(first.passed, Math.max(1, first.failed));
  process.stdout.write(`\n# once more, alone: ${bad.join(' ')}\n`);
  const second = await tap(bad, '1');
  for (const file of bad)
    process.stdout.write(
      `# ${second.good.has(file) ? 'unsteady, good when alone' : 'failed twice'}: ${file}\n`,
    );
  const still = bad.filter((file) => !second.good.has(file)).length;
  return end(first.passed, second.exitCode === 0 ? still : Math.max(1, still, second.failed));
}

function end(passed: number, failed: number): number {
  process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
  return failed === 0 ? 0 : 1;
}

/** Runs test files, shows what the reporter writes but its last line, and reads that. */
async function tap(files: readonly string[], jobs: string): Promise<Outcome> {
  const args = [`--jobs=${jobs}`, '--timeout=2400', ...files];
  const child = spawn('tap', args, { stdio: ['inherit', 'pipe', 'inherit'] });
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
  let [passed, failed] = [0, 0];
  const good = new Set<string>();
  for await (const line of createInterface({ input: child.stdout })) {
    const totals = /^(\d+) passed, (\d+) failed$/.exec(line);
    if (totals === null) process.stdout.write(`${line}\n`);
    else [passed, failed] = [Number(totals[1]), Number(totals[2])];
    const file = /^ok \d+ - (\S+)/.exec(line)?.[1];
    if (file !== undefined) good.add(file);
  }
  return { passed, failed, exitCode: await ended, good };
}
