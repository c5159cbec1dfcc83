import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');

/** Runs the demo as a user would, but for the set-up that the test command has done already. */
export const demo = (
  args: readonly string[],
): Promise<{
  code: number | null;
  steps: { title: string; ok: boolean; seen: Record<string, number> }[];
  said: string;
}> =>
  new Promise((done, failed) => {
    const child = spawn(process.execPath, [join(root, 'test/demo/main.ts'), '--script', '--json', ...args], {
      cwd: root,
    });
    let out = '';
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => (out += part));
    child.stderr.setEncoding('utf8').on('data', (part: string) => (said += part));
    child.on('error', failed);
    child.on('close', (code) =>
      done({
        code,
        said,
        steps: out
          .split('\n')
          .filter((line) => line.startsWith('{'))
          .map((line) => JSON.parse(line) as { title: string; ok: boolean; seen: Record<string, number> }),
      }),
    );
  });
