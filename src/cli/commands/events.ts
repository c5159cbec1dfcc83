import { type Command, InvalidArgumentError } from 'commander';
import type { AuditAnswer, AuditEntry, ClusterAuditAnswer } from '../../daemon/control/api.ts';
import { hasFailed } from '../../daemon/audit/stored.ts';
import { mergeTrails } from '../cluster-trail.ts';
import { parseDuration } from '../duration.ts';
import { anyDaemonOf, daemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { paintFor } from '../paint.ts';
import { tellEntry } from '../story.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { storedTrail } from '../trail.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

interface EventsOptions extends CommonOptions {
  readonly follow?: boolean;
  readonly cluster?: boolean;
  readonly limit: number;
  readonly since?: Since;
  readonly node?: string;
  readonly failed?: boolean;
}

/** The id of an entry, or a duration before now. */
type Since = { readonly id: number } | { readonly ms: number };

/** The control socket gives no more at once. */
const MAX_LIMIT = 2000;
/** Each node gets a few seconds, and eight are asked at once. */
const CLUSTER_ANSWER_MS = 120_000;

export function addEvents(program: Command, io: Io): void {
  addVerb(program, 'events', {
    summary: 'show what happened, newest last',
    description:
      'Shows the audit trail of this node: what changed, why, what was done about it and how it ended. ' +
      'While the daemon is down, shows the trail on the disk. --cluster merges the trails of all nodes by ' +
      'time; equal entries of several nodes are shown once. With --json it prints one object a line ' +
      '(ndjson).',
    examples: [
      'bornemisza events',
      'bornemisza events --since 1h --failed',
      'bornemisza events --cluster --since 10m',
      'bornemisza events --node db2/db --limit 500',
      'bornemisza events --follow',
      'bornemisza events --follow --json | jq \'select(.result == "failed")\'',
    ],
    role: true,
    json: true,
  })
    .option('-f, --follow', 'print new entries as they come, until interrupted')
    .option('--cluster', 'show the trails of all reachable nodes')
    .option('-n, --limit <count>', 'how many of the latest entries to show first', wholeNumber, 50)
    .option(
      '--since <time>',
      'only entries of the last 90s, 30m, 1h, 1d, or after the entry with this id',
      sinceOf,
    )
    .option('--node <name>', 'only entries about this node: HOST/ROLE, or HOST')
    .option('--failed', 'only entries that failed, were rolled back or are held')
    .action(async (options: EventsOptions) => {
      if (options.cluster === true) await showCluster(io, options);
      else await showOwn(io, options);
    });
}

async function showOwn(io: Io, options: EventsOptions): Promise<void> {
  const print = printer(io, options.json === true);
  const stored = options.follow === true ? undefined : await storedTrail(io, options);
  if (stored !== undefined) {
    io.stderr.write(`bornemisza@${stored.role} is not running: this is its trail on the disk\n`);
    stored.entries.filter(wantedBy(options, Date.now())).slice(-clamp(options.limit)).forEach(print);
    return;
  }
  const daemon = await daemonOf(options);
  const narrowed = options.since !== undefined || options.node !== undefined || options.failed === true;
  // Wanted entries can be old: all that the socket gives is searched, and the latest matches are shown.
  const asked = narrowed ? MAX_LIMIT : clamp(options.limit);
  const { entries } = await daemon.get<AuditAnswer>(`/v1/audit?limit=${asked}`);
  const wanted = wantedBy(options, Date.now());
  entries.filter(wanted).slice(-clamp(options.limit)).forEach(print);
  if (options.follow !== true) return;
  // Starts at the last one shown, so that no entry is missed between the two requests.
  const last = entries.at(-1)?.id ?? idOf(options.since) ?? 0;
  for await (const entry of daemon.lines<AuditEntry>('GET', `/v1/events?follow=1&since=${last}`)) {
    if (entry.id > last && wanted(entry)) print(entry);
    if (io.stdout.gone === true) return;
  }
  throw new CliFailure(
    EXIT.notRunning,
    'daemon-gone',
    `the daemon bornemisza@${daemon.role} ended the stream of events`,
    `see why: systemctl status bornemisza@${daemon.role}`,
  );
}

async function showCluster(io: Io, options: EventsOptions): Promise<void> {
  const { follow = false, since, node, failed = false, json = false } = options;
  if (follow) throw notOfCluster('--follow follows the trail of one node');
  if (since !== undefined && 'id' in since) throw notOfCluster('an id belongs to the trail of one node');
  const limit = clamp(options.limit);
  const asked = new URLSearchParams({
    limit: String(limit),
    failed: failed ? '1' : '0',
    ...(node === undefined ? {} : { node }),
    ...(since === undefined ? {} : { since_ms: String(Math.max(0, Date.now() - since.ms)) }),
  });
  const daemon = await anyDaemonOf(options);
  const answer = await daemon.get<ClusterAuditAnswer>(
    `/v1/cluster/audit?${asked.toString()}`,
    CLUSTER_ANSWER_MS,
  );
  const telling = { paint: paintFor(io.stdout), columns: io.stdout.columns };
  for (const { also, ...entry } of mergeTrails(answer).slice(-limit)) {
    const by = [entry.node, ...also].join(', ');
    const told = json ? `${JSON.stringify({ ...entry, also })}\n` : tellEntry(entry, telling, by);
    io.stdout.write(told);
  }
  for (const { node: name, missing } of answer.trails) {
    if (missing === '') continue;
    io.stderr.write(json ? `${JSON.stringify({ node: name, missing })}\n` : `without ${name}: ${missing}\n`);
  }
}

function notOfCluster(why: string): CliFailure {
  const next = 'remove one of the two';
  return new CliFailure(EXIT.usage, 'usage', `--cluster cannot be combined with that: ${why}`, next);
}

/** @param nowMs since the epoch */
function wantedBy(
  { since, node, failed }: Pick<EventsOptions, 'since' | 'node' | 'failed'>,
  nowMs: number,
): (entry: AuditEntry) => boolean {
  const names = (subject: string): boolean => subject === node || subject.startsWith(`${node}/`);
  return (entry) =>
    (since === undefined ||
      ('id' in since ? entry.id > since.id : Date.parse(entry.at) >= nowMs - since.ms)) &&
    (node === undefined || entry.subjects.some(names)) &&
    (failed !== true || hasFailed(entry));
}

const idOf = (since: Since | undefined): number | undefined =>
  since !== undefined && 'id' in since ? since.id : undefined;

function sinceOf(text: string): Since {
  const ms = parseDuration(text);
  if (ms !== undefined) return { ms };
  if (/^\d{1,15}$/.test(text)) return { id: Number(text) };
  throw new InvalidArgumentError('It must be a time like 90s, 30m, 1h or 1d, or the id of an entry.');
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
