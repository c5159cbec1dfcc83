import { type Command, InvalidArgumentError } from 'commander';
import type { AuditAnswer, AuditEntry } from '../../daemon/control/api.ts';
import { daemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { paintFor } from '../paint.ts';
import { tellEntry } from '../story.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

interface EventsOptions extends CommonOptions {
  readonly follow?: boolean;
  readonly limit: number;
  readonly since?: number;
}

/** The control socket gives no more at once. */
const MAX_LIMIT = 2000;

export function addEvents(program: Command, io: Io): void {
  addVerb(program, 'events', {
    summary: 'show what happened, newest last',
    description:
      'Shows the audit trail of this node: what changed, why, what was done about it and how it ended. With --json one object a line (ndjson).',
    examples: [
      'bornemisza events',
      'bornemisza events --follow',
      'bornemisza events --follow --json | jq \'select(.result == "failed")\'',
    ],
    role: true,
    json: true,
  })
    .option('-f, --follow', 'go on as things happen, until interrupted')
    .option('-n, --limit <count>', 'how many of the latest to show first', wholeNumber, 50)
    .option('--since <id>', 'only those after the entry with this id', wholeNumber)
    .action(async (options: EventsOptions) => {
      const daemon = await daemonOf(options);
      const print = printer(io, options.json === true);
      const { entries } = await daemon.get<AuditAnswer>(`/v1/audit?limit=${clamp(options.limit)}`);
      const past = entries.filter((entry) => options.since === undefined || entry.id > options.since);
      past.forEach(print);
      if (options.follow !== true) return;
      // From the last one shown, so that nothing falls between the two questions.
      const last = entries.at(-1)?.id ?? options.since ?? 0;
      for await (const entry of daemon.lines<AuditEntry>('GET', `/v1/events?follow=1&since=${last}`)) {
        if (entry.id > last) print(entry);
        if (io.stdout.gone === true) return;
      }
      throw new CliFailure(
        EXIT.notRunning,
        'daemon-gone',
        `the daemon bornemisza@${daemon.role} ended the stream of events`,
        `look why: systemctl status bornemisza@${daemon.role}`,
      );
    });
}

function printer(io: Io, json: boolean): (entry: AuditEntry) => void {
  const telling = { paint: paintFor(io.stdout), columns: io.stdout.columns };
  return (entry) => io.stdout.write(json ? `${JSON.stringify(entry)}\n` : tellEntry(entry, telling));
}

/** How many entries to ask for: at least one, at most what the control socket gives. */
export function clamp(limit: number): number {
  return Math.min(Math.max(1, limit), MAX_LIMIT);
}

export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}
