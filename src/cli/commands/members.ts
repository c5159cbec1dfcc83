import type { Command } from 'commander';
import type { MemberRow, MembersAnswer } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { formatDuration } from '../duration.ts';
import { daemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor, paintWord } from '../paint.ts';
import { renderTable } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addMembers(program: Command, io: Io): void {
  addVerb(program, 'members', {
    summary: 'list the nodes of the cluster, as this one sees them',
    description:
      'Lists every admitted node: its state, its health by its own word, whether it gets traffic, and why. The node that answers is marked with *.',
    examples: [
      'bornemisza members',
      'bornemisza members --json | jq -r \'.members[] | select(.rotation != "in").name\'',
    ],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    const answer = await (await daemonOf(options)).get<MembersAnswer>('/v1/members');
    if (options.json === true) printJson(io, answer);
    else io.stdout.write(renderMembers(answer, paintFor(io.stdout), io.stdout.columns));
  });
}

export function renderMembers(answer: MembersAnswer, paint: Paint, columns: number): string {
  const rows = answer.members.map((member) => [
    member.self ? `${member.name} *` : member.name,
    member.address,
    `${paintWord(paint, member.state)} ${formatDuration(member.stateForMs)}`,
    paintWord(paint, member.health),
    paintWord(paint, member.rotation),
    why(member),
  ]);
  return renderTable(['NODE', 'ADDRESS', 'STATE', 'HEALTH', 'TRAFFIC', 'WHY'], rows, { columns, paint });
}

function why(member: MemberRow): string {
  const marks = [
    member.reason,
    member.maintenance ? 'maintenance' : '',
    member.restarting ? 'restarting' : '',
  ];
  return [...new Set(marks.filter((mark) => mark !== ''))].join('; ');
}
