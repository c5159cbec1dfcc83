import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { MembersAnswer } from '../../daemon/control/api.ts';
import { failureJson, printJson } from '../answer.ts';
import { formatDuration, formatInstant } from '../duration.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { renderMembers } from '../member-table.ts';
import { paintFor } from '../paint.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { duration } from './wait.ts';

interface MembersOptions extends CommonOptions {
  readonly wide?: boolean;
  readonly watch?: true | number;
}

const WATCH_MS = 2000;
/** Moves the cursor home and clears the screen (ECMA-48: CUP, ED). */
const SCREEN = '\u001B[H\u001B[J';

export function addMembers(program: Command, io: Io): void {
  addVerb(program, 'members', {
    summary: 'list the nodes of the cluster, as this one sees them',
    description:
      'Lists every admitted node: its state, the health that it reports, whether it gets traffic, and why. ' +
      'The node that answers is marked with *; if both roles run here, that is app unless you pass --role db. ' +
      'CERT is how long the certificate is still valid. Columns that do not fit are named below the table.',
    examples: [
      'bornemisza members',
      'bornemisza members --wide',
      'bornemisza members --watch',
      'bornemisza members --json | jq -r \'.members[] | select(.rotation != "in").name\'',
    ],
    role: true,
    json: true,
  })
    .option('--wide', 'show all columns, even if lines are longer than the terminal')
    .option(
      '--watch [every]',
      'refresh every 2s or at the given interval, until interrupted; with --json one object a line',
      duration,
    )
    .action(async (options: MembersOptions) => {
      if (options.watch === undefined) show(io, options, await askMembers(options));
      else await watch(io, options, options.watch === true ? WATCH_MS : options.watch);
    });
}

async function askMembers(options: MembersOptions): Promise<MembersAnswer> {
  return (await anyDaemonOf(options)).get<MembersAnswer>('/v1/members');
}

function show(io: Io, { json, wide = false }: MembersOptions, answer: MembersAnswer): void {
  if (json === true) printJson(io, answer);
  else io.stdout.write(tableOf(io, answer, wide));
}

function tableOf(io: Io, answer: MembersAnswer, wide: boolean): string {
  const { columns } = io.stdout;
  return renderMembers(answer, { paint: paintFor(io.stdout), columns, wide, nowMs: Date.now() });
}

/** A daemon that restarts does not end it: the error is shown until the daemon answers. */
async function watch(io: Io, options: MembersOptions, everyMs: number): Promise<void> {
  const { json = false, wide = false } = options;
  const frame = (text: string): string => {
    const head = `${formatInstant(new Date().toISOString())}, every ${formatDuration(everyMs)}; Ctrl-C ends it\n`;
    return `${io.terminal ? SCREEN : ''}${head}${text}${io.terminal ? '' : '\n'}`;
  };
  while (io.stdout.gone !== true) {
    try {
      const answer = await askMembers(options);
      io.stdout.write(json ? `${JSON.stringify(answer)}\n` : frame(tableOf(io, answer, wide)));
    } catch (error) {
      const failed = failureJson(error);
      const { message, next } = failed.error;
      io.stdout.write(json ? `${JSON.stringify(failed)}\n` : frame(`${message}\n  next: ${next}\n`));
    }
    await sleep(everyMs);
  }
}
