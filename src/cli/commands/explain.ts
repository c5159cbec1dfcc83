import type { Command } from 'commander';
import type { AuditAnswer, MembersAnswer } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import type { ControlClient } from '../client.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { findMember } from '../members.ts';
import { paintFor } from '../paint.ts';
import { tellHistory, tellMember } from '../story.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { clamp, wholeNumber } from './events.ts';

export function addExplain(program: Command, io: Io): void {
  addVerb(program, 'explain', {
    summary: 'say why a node gets traffic or not',
    description:
      'Says whether a node gets traffic now and why, then shows from the audit trail what happened to it, ' +
      'newest last. Works for removed nodes too.',
    examples: ['bornemisza explain db2/db', 'bornemisza explain db2', 'bornemisza explain 10.0.0.12 --json'],
    role: true,
    json: true,
  })
    .argument('<node>', 'HOST/ROLE, HOST if it has one role, address or PeerId')
    .option('-n, --limit <count>', 'how many entries of the audit trail', wholeNumber, 30)
    .action(async (node: string, options: CommonOptions & { limit: number }) => {
      await explain(await anyDaemonOf(options), node, options, io);
    });
}

async function explain(
  daemon: ControlClient,
  node: string,
  options: CommonOptions & { limit: number },
  io: Io,
): Promise<void> {
  const { members } = await daemon.get<MembersAnswer>('/v1/members');
  const telling = { paint: paintFor(io.stdout), columns: io.stdout.columns };
  const known = members.some((each) => each.name === node);
  // A removed node is no longer in the list, but the trail still has its entries.
  const past = known ? [] : (await trail(daemon, node, options.limit)).entries;
  if (past.length > 0 && !members.some((each) => each.name.split('/')[0] === node)) {
    if (options.json === true) printJson(io, { member: null, entries: past });
    else io.stdout.write(`${node} is not a node of this cluster now.\n\n${tellHistory(node, past, telling)}`);
    return;
  }
  const member = findMember(members, node);
  const { entries } = await trail(daemon, member.name, options.limit);
  if (options.json === true) printJson(io, { member, entries });
  else io.stdout.write(tellMember(member, entries, telling));
}

function trail(daemon: ControlClient, node: string, limit: number): Promise<AuditAnswer> {
  return daemon.get<AuditAnswer>(`/v1/audit?node=${encodeURIComponent(node)}&limit=${clamp(limit)}`);
}
