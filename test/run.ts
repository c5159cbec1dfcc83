/**
 * Everything that says whether this tree is good: format, lint, types, and every test. Ends with `N passed, N failed`.
 */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

/**
 * Three on two cores: an integration test waits most of its time, and takes half a core (by its lab's cgroup) at the
 * most.
 */
const JOBS = '3';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { jobs: { type: 'string', default: JOBS } },
});

const CHECKS: readonly (readonly [string, ...string[]])[] = [
  ['biome', 'format', '.'],
  ['oxlint', '--type-aware', '--deny-warnings', 'src', 'test', 'scripts'],
  ['tsc'],
  ['tsc', '-p', 'src/web'],
];

process.exitCode = main();

function main(): number {
  for (const [program, ...args] of CHECKS) {
    process.stdout.write(`# ${[program, ...args].join(' ')}\n`);
    const { status } = spawnSync(program, args, { stdio: 'inherit' });
    if (status !== 0) {
      process.stdout.write('\n0 passed, 1 failed\n');
      return 1;
    }
  }
  const { status } = spawnSync('tap', [`--jobs=${values.jobs}`, '--timeout=2400', ...positionals], {
    stdio: 'inherit',
  });
  return status ?? 1;
}
