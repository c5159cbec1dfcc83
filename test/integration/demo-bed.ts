import { join, resolve } from 'node:path';
import type { Test } from 'tap';
import { storyOf } from '../demo/story.ts';
import type { Around } from '../demo/world.ts';
import { spawnWithUs } from '../support/with-us.ts';

const root = resolve(import.meta.dirname, '../..');

interface Step {
  readonly title: string;
  readonly ok: boolean;
  readonly seen: Readonly<Record<string, number>>;
  readonly client: { readonly requests: number; readonly failed: number; readonly longestGap: number };
}

/**
 * The demo ends well, and each step of the cluster’s own story was seen in each of these programs.
 *
 * @param around whether a firewall, a name server and a CA are shown
 * @returns the steps
 */
export async function tellsWholeStory(
  t: Test,
  args: readonly string[],
  programs: readonly string[],
  around: boolean,
): Promise<readonly Step[]> {
  const story = storyOf({ around: around ? ({} as Around) : undefined });
  const { code, steps, said } = await demo(args);
  if (code !== 0) t.comment(said);
  t.equal(code, 0);
  t.same(
    steps.map((step) => step.title),
    story.map((step) => step.title),
  );
  for (const [at, step] of steps.entries()) {
    t.ok(step.ok, step.title);
    const { requests, failed, longestGap } = step.client;
    t.ok(requests > 0 && failed <= requests, `${step.title}: ${failed} of ${requests} requests failed`);
    t.type(longestGap, 'number', `${step.title}: the longest gap`);
    if (story[at]?.needs !== undefined) continue;
    for (const where of programs) t.type(step.seen[where], 'number', `${step.title}: seen in ${where}`);
  }
  return steps;
}

/** Runs the demo as a user would, but for the set-up that the test command has done already. */
const demo = (args: readonly string[]): Promise<{ code: number | null; steps: Step[]; said: string }> =>
  new Promise((done, failed) => {
    const child = spawnWithUs(
      process.execPath,
      [join(root, 'test/demo/main.ts'), '--script', '--json', ...args],
      {
        cwd: root,
      },
    );
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
          .map((line) => JSON.parse(line) as Step),
      }),
    );
  });
