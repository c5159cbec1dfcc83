import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
/** Of the tree. */
export const root = resolve(import.meta.dirname, '..');
/** Longest step: compression, or fetching the other architecture's runtime. */
const STEP_TIMEOUT_MS = 300_000;

/** Runs a program that a package or a repository is made with. Returns standard output. */
export async function run(
  program: string,
  args: readonly string[],
  cwd = root,
  env = process.env,
): Promise<string> {
  try {
    const { stdout } = await execute(program, args, {
      cwd,
      env,
      timeout: STEP_TIMEOUT_MS,
      maxBuffer: 64 * 1024 * 1024,
    });
    return stdout;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new Error(
        `${program} is missing: dnf install rpm-build rpm-sign createrepo_c gnupg2 git tar (or apt-get install rpm ` +
          'createrepo-c gnupg git tar)',
        { cause: error },
      );
    throw error;
  }
}
