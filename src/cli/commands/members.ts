import type { Command } from 'commander';
import type { MemberRow, MembersAnswer } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { formatDuration } from '../duration.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { isHeard } from '../members.ts';
import { type Paint, paintFor, paintWord } from '../paint.ts';
import { renderTable } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addMembers(program: Command, io: Io): void {
  addVerb(program, 'members', {
    summary: 'list the nodes of the cluster, as this one sees them',
    description:
      'Lists every admitted node: its state, its health by its own word, whether it gets traffic, and ' +
      'why. The node that answers is marked with *; where both roles run here, that is app unless --role ' +
      'says db.',
    examples: [
      'bornemisza members',
      'bornemisza members --wide',
      'bornemisza members --json | jq -r \'.members[] | select(.rotation != "in").name\'',
    ],
    role: true,
    json: true,
  })
    .option('--wide', 'with version, authority, services and the end of the certificate')
    .action(async (options: CommonOptions & { readonly wide?: boolean }) => {
      const answer = await (await anyDaemonOf(options)).get<MembersAnswer>('/v1/members');
      if (options.json === true) printJson(io, answer);
      else
        io.stdout.write(renderMembers(answer, paintFor(io.stdout), io.stdout.columns, options.wide === true));
    });
}

export function renderMembers(answer: MembersAnswer, paint: Paint, columns: number, wide = false): string {
  const floating = answer.members.some(({ tags }) => tags['floating'] !== undefined);
  const rows = answer.members.map((member) => [
    member.self ? `${member.name} *` : member.name,
    member.address,
    `${paintWord(paint, member.state)} ${formatDuration(member.stateForMs)}`,
    healthWord(member, paint),
    paintWord(paint, member.rotation),
    ...(floating ? [floatingWord(member)] : []),
    ...(wide ? wideWords(member) : []),
    why(member),
  ]);
  const head = [
    'NODE',
    'ADDRESS',
    'STATE',
    'HEALTH',
    'TRAFFIC',
    ...(floating ? ['FLOATING IP'] : []),
    ...(wide ? WIDE : []),
    'WHY',
  ];
  return `${renderTable(head, rows, { columns, paint })}${summary(answer.members)}\n`;
}

const WIDE = ['VERSION', 'AUTHORITY', 'SERVICES', 'CERT UNTIL'];

function wideWords(member: MemberRow): string[] {
  const { version, authority, services, certificateNotAfter } = member;
  const down = services.filter((each) => each.health === 'down').map((each) => `${each.name} down`);
  const said = down.length === 0 ? `${services.length} up` : down.join(', ');
  const heard = isHeard(member) ? said : `was ${said}`;
  return [version, authority ? 'yes' : 'no', heard, certificateNotAfter.slice(0, 10)];
}

/** Of a member that is not heard only its last word is known. */
function healthWord(member: MemberRow, paint: Paint): string {
  return isHeard(member) ? paintWord(paint, member.health) : `was ${member.health}`;
}

/** All of it in one line, e.g. `3 app: 2 in traffic; 2 db: 1 in traffic, 1 dead`. */
function summary(members: MembersAnswer['members']): string {
  const parts = (['app', 'db'] as const).flatMap((role) => {
    const own = members.filter((each) => each.role === role);
    if (own.length === 0) return [];
    const states = ['suspect', 'dead', 'absent', 'leaving', 'left'] as const;
    const counts = states.map((state) => [own.filter((each) => each.state === state).length, state] as const);
    const rest = counts.filter(([count]) => count > 0).map(([count, state]) => `${count} ${state}`);
    return [
      `${own.length} ${role}: ` +
        [`${own.filter((each) => each.rotation === 'in').length} in traffic`, ...rest].join(', '),
    ];
  });
  return parts.join('; ');
}

/** As the node itself saw it in BIRD or on its device; codes are those of docs/troubleshooting.md. */
function floatingWord({ role, tags, state }: MemberRow): string {
  if (role !== 'app') return '';
  return state === 'alive' ? (tags['floating'] ?? 'no') : '?';
}

function why(member: MemberRow): string {
  const marks = [
    member.reason,
    member.maintenance ? 'maintenance' : '',
    member.restarting ? 'restarting' : '',
    member.tags['disk'] === 'full' && isHeard(member) ? 'a disk is full' : '',
  ];
  return [...new Set(marks.filter((mark) => mark !== ''))].join('; ');
}
