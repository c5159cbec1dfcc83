import type { Io } from '../io.ts';
import { paintFor } from '../paint.ts';

/** One thing that a set-up does. Each can be done again: what is there already stays. */
export interface Step {
  /** As it is announced, e.g. `write /etc/bornemisza/app.toml`. */
  readonly title: string;
  /** What is there already; undefined when it has to be done. */
  readonly already?: string | undefined;
  /** Does it. A text returned is for the operator: what was found or must be done by hand. */
  run(): Promise<string | undefined>;
}

/** Says what will be done, does it, and says of each step that it is done. */
export async function runSteps(
  io: Io,
  facts: readonly (readonly [string, string])[],
  steps: readonly Step[],
  quiet: boolean,
): Promise<void> {
  const paint = paintFor(io.stdout);
  const say = (text: string): void => (quiet ? undefined : io.stdout.write(text));
  const widest = Math.max(...facts.map(([name]) => name.length));
  say(`Found:\n${facts.map(([name, value]) => `  ${name.padEnd(widest)}  ${value}\n`).join('')}\n`);
  say(
    `This will:\n${steps.map((step) => `  - ${step.title}${step.already === undefined ? '' : ` (${step.already})`}\n`).join('')}\n`,
  );
  for (const step of steps) {
    if (step.already !== undefined) continue;
    const note = await step.run();
    say(`${paint('green', 'done')}  ${step.title}\n`);
    if (note !== undefined) say(`${note.replaceAll(/^/gm, '      ').trimEnd()}\n`);
  }
}
