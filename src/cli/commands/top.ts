import type { Command } from 'commander';
import type { AuditAnswer, MembersAnswer, StatusAnswer, HaproxyTraffic } from '../../daemon/control/api.ts';
import { failureJson } from '../answer.ts';
import { formatDuration } from '../duration.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor, paintWord } from '../paint.ts';
import {
  cut,
  FULL_SCREEN,
  layOut,
  MEMBERS_HEAD,
  memberLine,
  redrawn,
  type ScreenSize,
  serverWord,
} from '../screen.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

const EVERY_MS = 2000;
/** More than a screen shows. */
const EVENTS = 100;
/** Faults come above events, and leave room for them. */
const MOST_NOTES = 3;
const KEYS = 'q quit';

interface TopOptions extends CommonOptions {
  readonly once?: boolean;
}

/** The content of one screen, as this node's daemon reports it. */
interface TopAnswer {
  readonly status: StatusAnswer;
  readonly members: MembersAnswer['members'];
  readonly traffic: HaproxyTraffic;
  readonly events: AuditAnswer['entries'];
}

export function addTop(program: Command, io: Io): void {
  addVerb(program, 'top', {
    summary: 'watch the cluster on one screen, as this node sees it',
    description:
      'Shows on one screen the members, the servers of this node’s HAProxy, the floating IPs, open problems and ' +
      'the last events. It refreshes every 2 s until q or Ctrl-C. With --json it prints one object a line. ' +
      'Without a terminal it prints one screen.',
    examples: ['bornemisza top', 'bornemisza top --once', 'bornemisza top --once --json | jq .traffic'],
    role: true,
    json: true,
  })
    .option('--once', 'print one screen and end')
    .action(async (options: TopOptions) => {
      const live = options.json === true ? options.once !== true : io.terminal && options.once !== true;
      if (live) await watch(io, options);
      else io.stdout.write(await frame(io, options, { columns: io.stdout.columns, rows: Infinity }));
    });
}

async function watch(io: Io, options: TopOptions): Promise<void> {
  const ended = new AbortController();
  const release = io.keys?.((key) => {
    if (key === 'q' || key === '\u0003') ended.abort();
  });
  const json = options.json === true;
  if (!json) io.stdout.write(FULL_SCREEN.enter);
  try {
    while (!ended.signal.aborted && io.stdout.gone !== true) {
      const size = { columns: io.stdout.columns, rows: io.stdout.rows };
      const text = await frame(io, options, size).catch((error: unknown) => failed(error, json));
      io.stdout.write(json ? text : redrawn(text.trimEnd()));
      await untilNext(ended.signal);
    }
  } finally {
    if (!json) io.stdout.write(FULL_SCREEN.leave);
    release?.();
  }
}

function untilNext(ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, EVERY_MS);
    function done(): void {
      clearTimeout(timer);
      ended.removeEventListener('abort', done);
      resolve();
    }
    ended.addEventListener('abort', done);
    if (ended.aborted) done();
  });
}

/** A restart of the daemon does not end the screen. */
function failed(error: unknown, json: boolean): string {
  const failure = failureJson(error);
  const { message, next } = failure.error;
  return json ? `${JSON.stringify(failure)}\n` : `${message}\n  next: ${next}\n\n${KEYS}\n`;
}

async function frame(io: Io, options: TopOptions, size: ScreenSize): Promise<string> {
  const answer = await ask(options);
  if (options.json === true) return `${JSON.stringify(answer)}\n`;
  return `${renderTop(answer, paintFor(io.stdout), size)}\n`;
}

async function ask(options: TopOptions): Promise<TopAnswer> {
  const daemon = await anyDaemonOf(options);
  const [status, { members }, traffic, { entries }] = await Promise.all([
    daemon.get<StatusAnswer>('/v1/status'),
    daemon.get<MembersAnswer>('/v1/members'),
    daemon.get<HaproxyTraffic>('/v1/traffic'),
    daemon.get<AuditAnswer>(`/v1/audit?limit=${EVENTS}`),
  ]);
  return { status, members, traffic, events: entries };
}

function renderTop({ status, members, traffic, events }: TopAnswer, paint: Paint, size: ScreenSize): string {
  const present = members.filter(({ state }) => state !== 'left');
  const body = [
    title(status, paint),
    traffic.summary,
    ...floatingLine(status, paint),
    '',
    paint('dim', MEMBERS_HEAD),
    ...present.map((member) => memberLine(member, paint)),
    '',
    ...serverLines(traffic, paint, size.columns),
    programsLine(status, paint),
    ...notes(status, paint),
    '',
    paint('dim', 'what happened'),
  ];
  return layOut({ body, events, foot: ['', paint('dim', KEYS)] }, size, paint);
}

function title(
  { cluster, name, health, maintenance, phase, upMs, version }: StatusAnswer,
  paint: Paint,
): string {
  const state = phase === 'running' ? `running for ${formatDuration(upMs)}` : phase;
  return (
    `${paint('bold', 'Bornemisza')}  cluster ${cluster}, ${paint('bold', name)} ${paintWord(paint, health)}` +
    `${maintenance ? `, ${paint('yellow', 'in maintenance')}` : ''}, ${state}, version ${version}`
  );
}

/** The observed state of the floating IPs, not the desired one. */
function floatingLine({ floating, plugins, announcing }: StatusAnswer, paint: Paint): string[] {
  if (floating.length === 0 || announcing === undefined) return [];
  const sight = plugins.find(
    ({ name, seen }) => (name === 'bird' || name === 'layer2') && seen !== undefined,
  );
  const well = announcing && sight?.alarms.length === 0 && sight.state === 'converged';
  const seen = sight?.seen ?? 'not checked yet';
  return [`${floating.join(', ')}  ${paint(well ? 'green' : 'yellow', seen)}`];
}

/** By backend, each on as many lines as it needs. */
function serverLines({ servers }: HaproxyTraffic, paint: Paint, columns: number): string[] {
  const backends = [...new Set(servers.map(({ server }) => server.split('/')[0] ?? ''))];
  return backends.flatMap((backend) => {
    const own = servers.filter(({ server }) => server.startsWith(`${backend}/`));
    const head = `${paint('bold', backend)}  `;
    const words = own.map((each) =>
      serverWord({ server: each.server.slice(backend.length + 1), status: each.status }, paint),
    );
    return [cut(head + words.join('  '), columns)];
  });
}

function programsLine({ plugins }: StatusAnswer, paint: Paint): string {
  const words = plugins.map(({ name, state }) => `${paint('dim', name)} ${paintWord(paint, state)}`);
  return `${paint('bold', 'keeps')}  ${words.join('  ')}`;
}

function notes({ held, warnings, plugins }: StatusAnswer, paint: Paint): string[] {
  const alarms = plugins.flatMap((each) => each.alarms);
  const all = [
    ...alarms.map(({ message }) => `${paint('red', '!')} ${message}`),
    ...held.map(({ message }) => `${paint('yellow', 'held:')} ${message}`),
    ...warnings.map(({ message }) => `${paint('yellow', 'note:')} ${message}`),
  ];
  const more = all.length - MOST_NOTES;
  return [
    ...all.slice(0, MOST_NOTES),
    ...(more > 0 ? [paint('dim', `and ${more} more: bornemisza status`)] : []),
  ];
}
