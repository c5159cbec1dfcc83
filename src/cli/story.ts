import type { AuditEntry, MemberRow } from '../daemon/control/api.ts';
import { formatDuration, formatInstant } from './duration.ts';
import { isHeard } from './members.ts';
import { type Paint, paintWord } from './paint.ts';
import { renderFacts, wrap } from './table.ts';

interface Telling {
  readonly paint: Paint;
  readonly columns: number;
}

const ROTATION_SENTENCE: Readonly<Record<MemberRow['rotation'], string>> = {
  in: 'gets traffic',
  unwatched: 'gets traffic, but its daemon does not report: only HAProxy’s own check decides',
  drain: 'is draining: it finishes its requests and gets no new ones',
  out: 'gets no traffic',
};

/** Why a node is in or out now, then what happened to it, newest last. */
export function tellMember(member: MemberRow, entries: readonly AuditEntry[], telling: Telling): string {
  const { paint, columns } = telling;
  const verdict =
    `${member.name} ` +
    `${ROTATION_SENTENCE[member.rotation]}${member.reason === '' ? '' : `: ${member.reason}`}.`;
  return [
    wrap(verdict, columns).replace(member.name, paint('bold', member.name)),
    '\n',
    tellNow(member, paint),
    '\n',
    tellHistory(member.name, entries, telling),
  ].join('');
}

function tellNow(member: MemberRow, paint: Paint): string {
  const restarting = member.restarting ? ', restarting' : '';
  const services = member.services.map((each) => `${each.name} ${paintWord(paint, each.health)}`).join(', ');
  const said = `${paintWord(paint, member.health)}${services === '' ? '' : ` (${services})`}`;
  // How nodes share the record of sent notifications is of no use to people.
  const tags = Object.entries(member.tags)
    .filter(([key]) => !/^told\d?$/.test(key))
    .map(([key, value]) => `${key}=${value}`);
  return renderFacts(
    [
      ['state', `${paintWord(paint, member.state)} for ${formatDuration(member.stateForMs)}${restarting}`],
      ['record', recordWords(member)],
      ['health', isHeard(member) ? said : `unknown; last report: ${said}`],
      ['maintenance', member.maintenance ? paint('yellow', 'on') : 'off'],
      ['address', member.address],
      ['peer id', member.peerId],
      ['version', `${member.version}, incarnation ${member.incarnation}`],
      [
        'certificate',
        `until ${formatInstant(member.certificateNotAfter)}${member.authority ? '; an authority' : ''}`,
      ],
      ...(tags.length > 0 ? ([['tags', tags.join(', ')]] as const) : []),
    ],
    paint,
  );
}

/** A node sends a record when something changes: an hour without one is normal. */
function recordWords({ self, heardAgoMs }: MemberRow): string {
  if (self) return 'this node itself';
  return `the newest is ${formatDuration(heardAgoMs)} old; a node sends one when something changes`;
}

/** The audit trail about one node, for people. */
export function tellHistory(name: string, entries: readonly AuditEntry[], telling: Telling): string {
  if (entries.length === 0) return `This node's audit trail says nothing about ${name}.\n`;
  return `What happened\n${entries.map((entry) => tellEntry(entry, telling)).join('')}`;
}

/**
 * One entry: when and what on the first line, then why, what was done (or wanted, if it failed) and how it ended.
 *
 * @param by the nodes whose trails have the entry
 */
export function tellEntry(entry: AuditEntry, { paint, columns }: Telling, by?: string): string {
  const detail = (label: string, text: string): string => wrap(`${label} ${text}`, columns, ' '.repeat(6));
  const took = entry.durationMs === undefined ? '' : ` (${formatDuration(entry.durationMs)})`;
  const well = entry.result === 'info' || entry.result === 'ok';
  const ended = well ? '' : ` [${paintWord(paint, entry.result)}]`;
  const instant = formatInstant(entry.at);
  const hanging = ' '.repeat(instant.length + 4);
  const what = wrap(`${entry.summary}${ended}${took}`, columns, hanging).trimStart();
  const lines = [`  ${paint('dim', instant)}  ${what}`];
  if (by !== undefined) lines.push(detail('on', by));
  if (entry.trigger !== '' && entry.trigger !== entry.summary) lines.push(detail('because', entry.trigger));
  // A few changes are the summary already.
  const changes = (entry.changes ?? []).filter((change) => !entry.summary.includes(change));
  for (const change of changes) lines.push(detail(well ? 'did' : 'wanted', change));
  if (entry.error !== undefined) {
    const { code, message, next } = entry.error;
    const isSaid = entry.summary.endsWith(message);
    lines.push(
      isSaid ? detail('code', code) : detail('failed', `${message} (${code})`),
      detail('next', next),
    );
  }
  return lines.join('');
}
