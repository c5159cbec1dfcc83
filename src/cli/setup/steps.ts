import { printJson } from '../answer.ts';
import type { Io } from '../io.ts';
import { paintFor } from '../paint.ts';

/** One step of a set-up. Each can be repeated: what exists stays. */
export interface Step {
  /** As it is shown, e.g. `write /etc/bornemisza/app.toml`. */
  readonly title: string;
  /** What exists already; undefined if the step has to be done. */
  readonly already?: string | undefined;
  /** Does it. A returned text is for the operator: what was found or must be done by hand. */
  run(): Promise<string | undefined>;
}

type Facts = readonly (readonly [string, string])[];

/** What a dry run shows in addition to the steps. */
interface Shown {
  readonly facts: Facts;
  readonly configText: string;
  readonly paths: { readonly config: string };
}

/** What `--dry-run` shows. No step is run. */
export function showSteps(io: Io, setup: Shown, steps: readonly Step[], json: boolean): void {
  const { facts, configText, paths } = setup;
  if (json) {
    const found = Object.fromEntries(facts);
    const would = steps.map(({ title, already }) => ({ step: title, already: already ?? null }));
    printJson(io, { dryRun: true, found, would, configuration: { file: paths.config, text: configText } });
    return;
  }
  io.stdout.write(foundText(facts));
  io.stdout.write(listOf('This would:', steps));
  io.stdout.write(
    `${paths.config} with this content:\n${configText.trimEnd().replaceAll(/^(?=.)/gm, '  ')}\n`,
  );
  io.stdout.write('\nNothing was written. Without --dry-run the same command does it.\n');
}

function foundText(facts: Facts): string {
  const widest = Math.max(...facts.map(([name]) => name.length));
  return `Found:\n${facts.map(([name, value]) => `  ${name.padEnd(widest)}  ${value}\n`).join('')}\n`;
}

function listOf(head: string, steps: readonly Step[]): string {
  const lines = steps.map(
    ({ title, already }) => `  - ${title}${already === undefined ? '' : ` (${already})`}\n`,
  );
  return `${head}\n${lines.join('')}\n`;
}

/** Prints what will be done, does it, and reports each finished step. */
export async function runSteps(io: Io, facts: Facts, steps: readonly Step[], quiet: boolean): Promise<void> {
  const paint = paintFor(io.stdout);
  const say = (text: string): void => (quiet ? undefined : io.stdout.write(text));
  say(foundText(facts));
  say(listOf('This will:', steps));
  for (const step of steps) {
    if (step.already !== undefined) continue;
    const note = await step.run();
    say(`${paint('green', 'done')}  ${step.title}\n`);
    if (note !== undefined) say(`${note.replaceAll(/^/gm, '      ').trimEnd()}\n`);
  }
}
