import type { Command } from 'commander';
import type { Done, FloatingShown } from '../../daemon/control/api.ts';
import { printDone, printJson } from '../answer.ts';
import { appDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor } from '../paint.ts';
import { renderTable, wrap } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

/** A slow provider answers within 5 s a call, a program of the operator within 20 s. */
const TIMEOUT_MS = 45_000;

export function addFloating(program: Command, io: Io): void {
  const floating = addVerb(program, 'floating', {
    summary: 'the floating IPs that a provider assigns by its API',
    root: false,
  });
  addVerb(floating, 'show', {
    summary: 'show to which server each floating IP is assigned',
    description:
      'Queries the provider and shows, for each floating IP, the server and node to which it is assigned, and ' +
      'what prevents a move. Run it on an app node whose floating.mode is "api".',
    examples: [
      'bornemisza floating show',
      "bornemisza floating show --json | jq -r '.addresses[] | [.address, .owner] | @tsv'",
    ],
    json: true,
  }).action(async (options: CommonOptions) => {
    const answer = await (await appDaemonOf(options)).get<FloatingShown>('/v1/floating', TIMEOUT_MS);
    if (options.json === true) printJson(io, answer);
    else io.stdout.write(renderFloating(answer, paintFor(io.stdout), io.stdout.columns));
  });
  addVerb(floating, 'take', {
    summary: 'have the floating IPs assigned to this node, whichever node has them',
    description:
      'Has the provider assign every floating IP to this node, even from a server that is no member, and from a ' +
      'node that seems dead while its address still answers. This node must be healthy and reach more than half ' +
      'of the nodes. It keeps the addresses while it is healthy.',
    examples: ['bornemisza floating take'],
    json: true,
  }).action(async (options: CommonOptions) => {
    const daemon = await appDaemonOf(options);
    printDone(io, options, await daemon.post<Done>('/v1/floating/take', {}, TIMEOUT_MS));
  });
}

function renderFloating(answer: FloatingShown, paint: Paint, columns: number): string {
  const { provider, server, why, addresses, findings } = answer;
  const rows = addresses.map((each) => [
    each.address,
    each.known ? (each.server ?? '-') : '?',
    paint(each.owner === 'this node' ? 'green' : 'yellow', each.known ? each.owner : 'not known'),
    each.busy ? 'yes' : 'no',
    each.device ?? '-',
  ]);
  return [
    `${provider}; this server is ${server ?? 'not known there'}; ${why}\n\n`,
    renderTable(['ADDRESS', 'SERVER', 'NODE', 'BUSY', 'DEVICE'], rows, { columns, paint }),
    ...findings.map(
      ({ code, message, next }) =>
        `\n${wrap(`${paint('yellow', '!')} ${message} (${code}) -- ${next}`, columns)}`,
    ),
  ].join('');
}
