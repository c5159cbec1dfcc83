import type { Command } from 'commander';
import type { StatusAnswer } from '../../daemon/control/api.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { printJson } from '../answer.ts';
import { ControlClient, notRunning } from '../client.ts';
import { formatDuration, formatInstant } from '../duration.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { gradeOf, worst } from '../grade.ts';
import { daemonOf, type Instance, instances, noMember, whyNone } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor, paintWord } from '../paint.ts';
import { controlSocketOf } from '../places.ts';
import { renderFacts, renderTable, wrap } from '../table.ts';
import { certificateIn, certificateLine } from './certificate.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addStatus(program: Command, io: Io): void {
  addVerb(program, 'status', {
    summary: 'show the state of this node',
    description:
      'Shows the health of this node, the programs that its daemon manages, what guards hold, and warnings. ' +
      'If both roles run on this host, both are shown; with --json they are in "instances" then (pass ' +
      '--role to get one).',
    examples: [
      'bornemisza status',
      'bornemisza status --check',
      'bornemisza status --role db --json | jq .health',
    ],
    role: true,
    json: true,
  })
    .option('--check', 'exit code 0 if all is well, 1 if something is degraded, 2 if this node is down')
    .action(async (options: StatusOptions) => {
      if (options.role === undefined) {
        await showAll(io, options);
        return;
      }
      const answer = await (await daemonOf(options)).get<StatusAnswer>('/v1/status');
      show(io, [answer], options.json === true);
      if (options.check === true) refuseBad([answer]);
    });
}

interface StatusOptions extends CommonOptions {
  readonly check?: boolean;
}

/** For monitoring: the exit code is the state. */
function refuseBad(answers: readonly StatusAnswer[]): void {
  const { level, why } = worst(answers.map(gradeOf));
  if (level === 'well') return;
  // Monitoring programs read 2 as critical. A wrong command line ends with 2 as well, and prints no status.
  const exit = level === 'down' ? EXIT.usage : EXIT.failure;
  throw new CliFailure(exit, level === 'down' ? 'status-down' : 'status-degraded', why, 'bornemisza doctor');
}

async function showAll(io: Io, { root = '', json = false, check = false }: StatusOptions): Promise<void> {
  const all = await instances(root);
  const running = all.filter((each) => each.socket === 'answers');
  if (running.length === 0) throw whyNone(all);
  const answers = await Promise.all(running.map(({ role }) => ask(role, root)));
  show(io, answers, json);
  const stopped = all.find((each: Instance) => each.socket === 'absent' && each.configured === 'yes');
  if (stopped !== undefined) throw stopped.left ? noMember(stopped.role) : notRunning(stopped.role);
  if (check) refuseBad(answers);
}

function ask(role: Role, root: string): Promise<StatusAnswer> {
  return new ControlClient(controlSocketOf(role, root), role).get<StatusAnswer>('/v1/status');
}

function show(io: Io, answers: readonly StatusAnswer[], json: boolean): void {
  if (json) {
    printJson(io, answers.length === 1 ? answers[0] : { instances: answers });
    return;
  }
  const paint = paintFor(io.stdout);
  io.stdout.write(answers.map((answer) => renderStatus(answer, paint, io.stdout.columns)).join('\n'));
}

function renderStatus(status: StatusAnswer, paint: Paint, columns: number): string {
  const words = [
    ...status.held.map(({ message, next }) =>
      wrap(`${paint('yellow', 'held:')} ${message} -- ${next}`, columns),
    ),
    ...status.warnings.map(({ message, next }) =>
      wrap(`${paint('yellow', 'note:')} ${message} -- ${next}`, columns),
    ),
  ];
  return [
    headline(status, paint),
    renderFacts(facts(status, paint), paint),
    checksTable(status, paint, columns),
    pluginsTable(status, paint, columns),
    ...(words.length === 0 ? [] : ['\n', ...words]),
  ]
    .filter((part) => part !== '')
    .join('');
}

function headline(status: StatusAnswer, paint: Paint): string {
  const maintenance = status.maintenance ? `, ${paint('yellow', 'in maintenance')}` : '';
  const phase =
    status.phase === 'running'
      ? `running for ${formatDuration(status.upMs)}`
      : paintWord(paint, status.phase);
  const alone = cutOffFrom(status);
  const cut =
    alone === 0
      ? ''
      : `, ${paint('red', `reaches none of ${alone} other ${alone === 1 ? 'member' : 'members'}`)}`;
  const health = paintWord(paint, status.health);
  return `${paint('bold', status.name)} of cluster ${status.cluster}: ${health}${cut}${maintenance}, ${phase}\n`;
}

/** The number of other members if none of them is reachable; otherwise 0. This node itself counts as alive. */
function cutOffFrom({ counts, phase }: StatusAnswer): number {
  const lost = counts.suspect + counts.dead + counts.absent;
  return phase === 'running' && counts.alive + counts.leaving <= 1 ? lost : 0;
}

function facts(status: StatusAnswer, paint: Paint): (readonly [string, string])[] {
  const counts = Object.entries(status.counts)
    .filter(([, count]) => count > 0)
    .map(([state, count]) => `${count} ${paintWord(paint, state)}`);
  const alone = cutOffFrom(status) > 0 ? ' -- check the private network: sudo bornemisza doctor' : '';
  const certificate = certificateIn(status);
  const members = (counts.length === 0 ? 'none known' : counts.join(', ')) + alone;
  return [
    [
      'members',
      status.synced
        ? members
        : `${members}; ${paint('yellow', 'not synced yet: no peer is removed before the first sync')}`,
    ],
    ...(status.floating.length > 0
      ? ([['floating', `${status.floating.join(', ')} ${floatingWords(status, paint)}`]] as const)
      : []),
    ...(status.requestLogUntil === undefined
      ? []
      : ([['log', requestLogLine(status.requestLogUntil, paint)]] as const)),
    ...(certificate === undefined
      ? []
      : ([['site', certificateLine(certificate, Date.now(), paint)]] as const)),
    ...restartsFact(status),
    ['address', status.address],
    ['peer id', status.peerId],
    ['version', status.version],
  ];
}

/** A daemon of before an upgrade does not report them. */
function restartsFact({
  restarts = [],
}: Partial<Pick<StatusAnswer, 'restarts'>>): (readonly [string, string])[] {
  const some = restarts.filter((each) => each.restarts > 0);
  return some.length === 0
    ? []
    : [
        [
          'restarts',
          `${some.map(({ unit, restarts: count }) => `${unit} ${count}`).join(', ')} (by systemd)`,
        ],
      ];
}

/** People's addresses are in that log, so it must not be forgotten. */
const requestLogLine = (until: string, paint: Paint): string =>
  `${paint('yellow', 'every request')} until ${formatInstant(until)} (bornemisza log requests off)`;

/** The observed state of the floating IPs with its age, and what this node wants. */
function floatingWords({ announcing, announcingWhy, plugins }: StatusAnswer, paint: Paint): string {
  if (announcing === undefined) return 'not announced here: floating.mode is "off"';
  const sight = plugins.find(({ name, seen }) => FLOATING_PLUGINS.includes(name) && seen !== undefined);
  const well = sight?.alarms.length === 0 && sight.state === 'converged';
  const seen = sight === undefined ? 'not checked yet' : sightOf(sight);
  const wanted = announcing ? 'announce' : 'do not announce';
  return `${paint(announcing && well ? 'green' : 'yellow', seen)}; wanted: ${wanted} (${announcingWhy ?? ''})`;
}

/** The programs that have the floating IPs. */
const FLOATING_PLUGINS: readonly string[] = ['bird', 'layer2', 'floating'];

function checksTable(status: StatusAnswer, paint: Paint, columns: number): string {
  if (status.checks.length === 0) return '';
  const rows = status.checks.map((check) => [
    check.required ? check.name : `${check.name} (optional)`,
    paintWord(paint, check.health),
    formatDuration(check.sinceMs),
    check.detail,
  ]);
  return `\n${renderTable(['CHECK', 'HEALTH', 'FOR', 'DETAIL'], rows, { columns, paint })}`;
}

function pluginsTable(status: StatusAnswer, paint: Paint, columns: number): string {
  if (status.plugins.length === 0) return '';
  const rows = status.plugins.map((plugin) => [
    plugin.name,
    paintWord(paint, plugin.state),
    plugin.lastConvergedAgoMs === undefined ? 'never' : `${formatDuration(plugin.lastConvergedAgoMs)} ago`,
    plugin.next === '' ? plugin.detail || sightOf(plugin) : `${plugin.detail} -- ${plugin.next}`,
  ]);
  const alarms = status.plugins.flatMap(({ alarms }) =>
    alarms.map(({ code, message, next }) => `\n! ${message} (${code})\n  ${next}`),
  );
  return `\n${renderTable(['KEEPS', 'STATE', 'LAST OK', 'DETAIL'], rows, { columns, paint })}${alarms.join('')}`;
}

/** The observed state, and its age if it is not new. */
function sightOf({ seen, seenAgoMs = 0 }: StatusAnswer['plugins'][number]): string {
  if (seen === undefined) return '';
  return `${seen} (${formatDuration(seenAgoMs)} ago)`;
}
