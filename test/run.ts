/**
 * Everything that says whether this tree is good: format, lint, types, and every test. Ends with `N passed, N failed`.
 *
 * A test file that fails beside others runs once more, alone. Passes it then, it is named as unsteady, and what it
 * failed with stands above: something in it depends on how busy the machine is, and is to be mended.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

/**
 * Three on two cores: an integration test waits most of its time, and takes half a core (by its lab's cgroup) at the
 * most.
 */
const JOBS = '3';
const FILES = 'test/{architecture,browser,contract,integration,property,selinux,sim,unit}/**/*.test.ts';
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
  const checked = await Promise.all((values['tests-only'] ? [] : CHECKS).map(check));
  if (checked.includes(false)) return end(0, 1);
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

/** Says whether a check is content, and shows what it printed, each check's lines together. */
async function check([program, ...args]: (typeof CHECKS)[number]): Promise<boolean> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  const exitCode = await ended(child);
  process.stdout.write(`# ${[program, ...args].join(' ')}\n${said}`);
  return exitCode === 0;
}

function ended(child: ChildProcess): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.on('error', reject);
  child.on('close', (code) => resolve(code ?? 1));
  return promise;
}

function end(passed: number, failed: number): number {
  process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
  return failed === 0 ? 0 : 1;
}

/** Runs test files, shows what the reporter writes but its last line, and reads that. */
async function tap(files: readonly string[], jobs: string): Promise<Outcome> {
  const args = [`--jobs=${jobs}`, '--timeout=2400', ...files];
  const child = spawn('tap', args, { stdio: ['inherit', 'pipe', 'inherit'] });
  const exitCode = ended(child);
  let [passed, failed] = [0, 0];
  const good = new Set<string>();
  for await (const line of createInterface({ input: child.stdout })) {
    const totals = /^(\d+) passed, (\d+) failed$/.exec(line);
    if (totals === null) process.stdout.write(`${line}\n`);
    else [passed, failed] = [Number(totals[1]), Number(totals[2])];
    const file = /^ok \d+ - (\S+)/.exec(line)?.[1];
    if (file !== undefined) good.add(file);
  }
  return { passed, failed, exitCode: await exitCode, good };
}
