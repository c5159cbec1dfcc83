import type { MemberRow, MembersAnswer } from '../daemon/control/api.ts';
import { formatDuration } from './duration.ts';
import { isHeard } from './members.ts';
import { type Paint, paintWord } from './paint.ts';
import { renderTable, tableWidth, wrap } from './table.ts';

interface Column {
  readonly title: string;
  readonly word: (member: MemberRow) => string;
  /** On a narrow terminal columns are dropped in this order, 1 first; a column without a number stays. */
  readonly goes?: number;
}

/** Less than this is no room for a reason. */
const LEAST_WHY = 24;
const DAY_MS = 86_400_000;

/**
 * One row for each member and a summary. Columns that do not fit are left out and named; `wide` shows all.
 *
 * @param nowMs since the epoch
 */
export function renderMembers(
  { members }: MembersAnswer,
  { paint, columns, wide, nowMs }: { paint: Paint; columns: number; wide: boolean; nowMs: number },
): string {
  const all = columnsOf(members, paint, nowMs);
  const shown = wide ? all : fitting(all, members, columns);
  const titles = shown.map(({ title }) => title);
  const rows = members.map((member) => shown.map(({ word }) => word(member)));
  const left = all.filter((each) => !shown.includes(each)).map(({ title }) => title);
  const hint = left.length === 0 ? '' : wrap(`${left.join(', ')}: bornemisza members --wide`, columns);
  return `${renderTable(titles, rows, { columns, paint })}${wrap(summary(members), columns)}${hint}`;
}

function columnsOf(members: readonly MemberRow[], paint: Paint, nowMs: number): Column[] {
  const edge: Column = { title: 'EDGE', goes: 5, word: (member) => edgeWord(member, paint) };
  return [
    { title: 'NODE', word: ({ name, self }) => (self ? `${name} *` : name) },
    { title: 'ADDRESS', goes: 2, word: ({ address }) => address },
    {
      title: 'STATE',
      word: ({ state, stateForMs }) => `${paintWord(paint, state)} ${formatDuration(stateForMs)}`,
    },
    { title: 'HEALTH', word: (member) => healthWord(member, paint) },
    { title: 'TRAFFIC', word: ({ rotation }) => paintWord(paint, rotation) },
    ...(members.some(({ role }) => role === 'app') ? [edge] : []),
    { title: 'SERVICES', goes: 4, word: servicesWord },
    { title: 'AUTHORITY', goes: 3, word: ({ authority }) => (authority ? 'yes' : '-') },
    { title: 'VERSION', goes: 1, word: ({ version }) => version },
    { title: 'CERT', goes: 6, word: (member) => certificateWord(member, nowMs) },
    { title: 'WHY', word: why },
  ];
}

/** The columns that leave room for a reason. */
function fitting(all: readonly Column[], members: readonly MemberRow[], columns: number): Column[] {
  const reasons = Math.max(0, ...members.map((member) => why(member).length));
  let shown = [...all];
  for (;;) {
    const [first] = shown
      .filter(({ goes }) => goes !== undefined)
      .sort((a, b) => (a.goes ?? 0) - (b.goes ?? 0));
    const words = shown.slice(0, -1).map(({ title, word }) => [title, ...members.map(word)]);
    const room = columns - tableWidth(words);
    if (first === undefined || room >= Math.max('WHY'.length, Math.min(LEAST_WHY, reasons))) return shown;
    shown = shown.filter((each) => each !== first);
  }
}

/** Of a member that does not report now only its last report is known. */
function healthWord(member: MemberRow, paint: Paint): string {
  return isHeard(member) ? paintWord(paint, member.health) : `was ${member.health}`;
}

/** What the edge of an app node does with the floating IP; without one, whether it answers. */
function edgeWord(member: MemberRow, paint: Paint): string {
  const { role, tags, services } = member;
  if (role !== 'app') return '-';
  if (!isHeard(member)) return '?';
  // As the node itself reads it from BIRD or its device; codes are those of docs/troubleshooting.md.
  const floating = tags['floating'];
  if (floating !== undefined) return floating;
  const edge = services.find(({ name }) => name === 'haproxy');
  return edge === undefined ? '?' : paintWord(paint, edge.health);
}

function servicesWord(member: MemberRow): string {
  const { services } = member;
  const down = services.filter(({ health }) => health === 'down').map(({ name }) => `${name} down`);
  const said = down.length === 0 ? `${services.length} up` : down.join(', ');
  return isHeard(member) ? said : `was ${said}`;
}

/** For how long the certificate is valid. */
function certificateWord({ certificateNotAfter }: MemberRow, nowMs: number): string {
  const leftMs = Date.parse(certificateNotAfter) - nowMs;
  if (Number.isNaN(leftMs)) return '-';
  return leftMs <= 0 ? 'ended' : leftMs < DAY_MS ? '<1 d' : `${Math.floor(leftMs / DAY_MS)} d`;
}

/** All of it in one line, e.g. `3 app: 2 in traffic; 2 db: 1 in traffic, 1 dead; authorities: app1/app`. */
function summary(members: readonly MemberRow[]): string {
  const parts = (['app', 'db'] as const).flatMap((role) => {
    const own = members.filter((each) => each.role === role);
    if (own.length === 0) return [];
    const states = ['suspect', 'dead', 'absent', 'leaving', 'left'] as const;
    const counts = states.map((state) => [own.filter((each) => each.state === state).length, state] as const);
    const rest = counts.filter(([count]) => count > 0).map(([count, state]) => `${count} ${state}`);
    const traffic = `${own.filter((each) => each.rotation === 'in').length} in traffic`;
    return [`${own.length} ${role}: ${[traffic, ...rest].join(', ')}`];
  });
  const authorities = members.filter(({ authority }) => authority).map(({ name }) => name);
  const versions = [...new Set(members.map(({ version }) => version).filter((each) => each !== ''))].sort();
  return [
    ...parts,
    ...(authorities.length > 0 ? [`${plural('authority', authorities)}: ${authorities.join(', ')}`] : []),
    ...(versions.length > 0 ? [`${plural('version', versions)} ${versions.join(', ')}`] : []),
  ].join('; ');
}

const PLURALS = { authority: 'authorities', version: 'versions' } as const;

function plural(word: keyof typeof PLURALS, of: readonly unknown[]): string {
  return of.length === 1 ? word : PLURALS[word];
}

const MACHINE_MARKS: ReadonlyMap<string, string> = new Map([
  ['private-link', 'no link on its private device'],
  ['public-link', 'no link on its public device'],
  ['memory', 'too little memory'],
  ['restarts', 'a unit ends again and again'],
]);

function machineMarks({ tags }: MemberRow): string[] {
  const words = (tags['machine'] ?? '').split(' ');
  return [
    tags['disk'] === 'full' ? 'a disk is full' : '',
    ...words.map((word) => MACHINE_MARKS.get(word) ?? ''),
  ];
}

function why(member: MemberRow): string {
  const marks = [
    member.reason,
    member.maintenance && !member.reason.includes('maintenance') ? 'maintenance' : '',
    member.restarting ? 'restarting' : '',
    ...(isHeard(member) ? machineMarks(member) : []),
  ];
  return [...new Set(marks.filter((mark) => mark !== ''))].join('; ');
}
