import type { Command } from 'commander';
import type { MemberRow, MembersAnswer } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { isHeard } from '../members.ts';
import { type Paint, paintFor } from '../paint.ts';
import { renderTable } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

interface ServiceRow {
  readonly name: string;
  readonly up: readonly string[];
  readonly down: readonly string[];
  /** Members that have the service and do not report now. */
  readonly unheard: readonly string[];
}

export function addServices(program: Command, io: Io): void {
  addVerb(program, 'services', {
    summary: 'list the services of the cluster, and where they are up',
    description:
      'Lists every service and program that a node checks, with the nodes that report it up or down. Nodes ' +
      'that do not report now have a column of their own.',
    examples: [
      'bornemisza services',
      "bornemisza services --json | jq -r '.services[] | select(.down != []).name'",
    ],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    const { members } = await (await anyDaemonOf(options)).get<MembersAnswer>('/v1/members');
    const services = servicesOf(members);
    if (options.json === true) printJson(io, { services });
    else io.stdout.write(renderServices(services, paintFor(io.stdout), io.stdout.columns));
  });
}

function servicesOf(members: readonly MemberRow[]): ServiceRow[] {
  const present = members.filter(({ state }) => state !== 'left');
  const names = new Set(present.flatMap(({ services }) => services.map(({ name }) => name)));
  return [...names].sort().map((name) => {
    const said = present.flatMap((member) => {
      const service = member.services.find((each) => each.name === name);
      if (service === undefined) return [];
      return [{ member: member.name, word: isHeard(member) ? service.health : 'unheard' }];
    });
    const on = (word: string): string[] =>
      said.filter((each) => each.word === word).map(({ member }) => member);
    return { name, up: on('up'), down: on('down'), unheard: on('unheard') };
  });
}

function renderServices(services: readonly ServiceRow[], paint: Paint, columns: number): string {
  const list = (names: readonly string[]): string => (names.length === 0 ? '-' : names.join(', '));
  const rows = services.map(({ name, up, down, unheard }) => [
    name,
    down.length > 0 ? paint('red', list(down)) : '-',
    list(unheard),
    list(up),
  ]);
  return renderTable(['SERVICE', 'DOWN ON', 'NO REPORT FROM', 'UP ON'], rows, { columns, paint });
}
