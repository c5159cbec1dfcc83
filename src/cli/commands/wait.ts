import { setTimeout as sleep } from 'node:timers/promises';
import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import type { StatusAnswer } from '../../daemon/control/api.ts';
import { ControlClient } from '../client.ts';
import { formatDuration, parseDuration } from '../duration.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { type Grade, gradeOf, worst } from '../grade.ts';
import { instances } from '../instances.ts';
import type { Io } from '../io.ts';
import { controlSocketOf } from '../places.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

/** An answer takes milliseconds; people notice a second. */
const EVERY_MS = 500;
/** Limit of one request to a daemon that is just starting. */
const ASK_MS = 5000;
const DEFAULT_MS = 60_000;

type Wanted = 'healthy' | 'serving';

export function addWait(program: Command, io: Io): void {
  addVerb(program, 'wait', {
    summary: 'wait until this node is healthy or serving',
    description:
      'Waits until this node is healthy (`status --check` finds no problem) or serving (it is up and gets ' +
      'traffic, even with other problems). If both roles run here, it waits for both. If --timeout ends first, the ' +
      'exit code is 1, and it prints what is missing.',
    examples: ['bornemisza wait healthy', 'bornemisza wait serving --timeout 5m --role db'],
    role: true,
  })
    .addArgument(new Argument('<state>', 'healthy or serving').choices(['healthy', 'serving']))
    .addOption(
      new Option('--timeout <duration>', 'how long, e.g. 90s').argParser(duration).default(DEFAULT_MS, '1m'),
    )
    .action(async (wanted: Wanted, options: CommonOptions & { timeout: number }) => {
      const missing = await waitFor(wanted, options, options.timeout);
      if (missing === undefined) {
        io.stdout.write(`${wanted}\n`);
        return;
      }
      throw new CliFailure(
        EXIT.failure,
        'wait-timeout',
        `not ${wanted} within ${formatDuration(options.timeout)}: ${missing}`,
        'bornemisza status',
      );
    });
}

/** @returns what is missing at the end; undefined when it is as wanted */
export async function waitFor(
  wanted: Wanted,
  options: CommonOptions,
  timeoutMs: number,
): Promise<string | undefined> {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const { level, why } = await gradeNow(options);
    if (level === 'well' || (wanted === 'serving' && level === 'degraded')) return undefined;
    if (performance.now() + EVERY_MS > endMs) return why;
    await sleep(EVERY_MS);
  }
}

async function gradeNow({ role, root = '' }: CommonOptions): Promise<Grade> {
  const all = await instances(root);
  const chosen = all.filter((each) =>
    role === undefined ? each.socket !== 'absent' || each.configured === 'yes' : each.role === role,
  );
  if (chosen.length === 0) return { level: 'down', why: 'this host is not part of a cluster yet' };
  const grades = chosen.map(async (each): Promise<Grade> => {
    try {
      const client = new ControlClient(controlSocketOf(each.role, root), each.role);
      return gradeOf(await client.get<StatusAnswer>('/v1/status', ASK_MS));
    } catch (error) {
      return { level: 'down', why: (error as Error).message };
    }
  });
  return worst(await Promise.all(grades));
}

export function duration(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new InvalidArgumentError('It must be a duration, e.g. 90s.');
  return ms;
}
