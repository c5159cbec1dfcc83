import type { Command } from 'commander';
import type { Done, UpgradeAnswer } from '../../daemon/control/api.ts';
import { printDone, printJson } from '../answer.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { paintFor } from '../paint.ts';
import { renderTable } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { VERSION } from '../../daemon/version.ts';

const PACKAGE = 'bornemisza-node';
/** Metadata of all repositories over a slow line. */
const DNF_TIMEOUT_MS = 300_000;
const LOOK_EVERY_MS = 1000;
/** This host's own daemons restart in its turn; a restart takes seconds. */
const SILENCE_MS = 120_000;
/** For dnf-automatic: of N hosts each has every N-th hour, and begins in the first part of it. */
const SLOT_MS = 3_600_000;
const SLOT_BEGIN_MS = 40 * 60_000;

interface UpgradeOptions extends CommonOptions {
  readonly dryRun?: boolean;
  readonly scheduled?: boolean;
}

/**
 * Installs a newer package on each host in turn; what needs root runs in bornemisza-upgrade.service of each host.
 */
export function addUpgrade(program: Command, io: Io): void {
  const upgrade = addVerb(program, 'upgrade', {
    summary: 'upgrade every node to the newest package, one host at a time',
    description:
      'Starts a rollout: one host after the other upgrades its package with dnf and restarts its daemons. ' +
      'Each host starts only when every node is healthy. HAProxy, BIRD and CouchDB keep running. A host ' +
      'that does not come back stops the rollout until `resume`. Prints each step; after Ctrl-C the ' +
      'rollout continues. With --json it prints one object a line (ndjson).',
    examples: ['sudo bornemisza upgrade --dry-run', 'sudo bornemisza upgrade', 'bornemisza upgrade status'],
    json: true,
  });
  upgrade
    .option('--dry-run', 'print what would be done, and do nothing')
    .option(
      '--scheduled',
      'for the timer, which has already queried dnf: start a rollout unless one runs, and do not wait for its end',
    )
    .action(async (options: UpgradeOptions) => {
      await begin(io, options);
    });
  addVerb(upgrade, 'status', {
    summary: 'show the progress of the rollout, or why it stopped',
    examples: ['bornemisza upgrade status', 'bornemisza upgrade status --json'],
    json: true,
  }).action(async (options: CommonOptions) => {
    const answer = await (await anyDaemonOf(options)).get<UpgradeAnswer>('/v1/upgrade');
    if (options.json === true) printJson(io, answer);
    else io.stdout.write(picture(answer, io));
  });
  addVerb(upgrade, 'stop', {
    summary: 'stop the rollout: a host that upgrades now finishes, no other starts',
    examples: ['bornemisza upgrade stop'],
    json: true,
  }).action(async (options: CommonOptions) => {
    printDone(io, options, await (await anyDaemonOf(options)).post<Done>('/v1/upgrade/stop', {}));
  });
  addVerb(upgrade, 'resume', {
    summary: 'resume a stopped rollout',
    description:
      'Starts the stopped rollout again at its first host; hosts that are done have nothing to do. Refused ' +
      'while a node is not healthy. Nothing else resumes a stopped rollout.',
    examples: ['bornemisza upgrade resume'],
    json: true,
  }).action(async (options: CommonOptions) => {
    const daemon = await anyDaemonOf(options);
    await daemon.post<Done>('/v1/upgrade/resume', {});
    await follow(io, options);
  });
  addVerb(upgrade, 'turn', {
    summary: 'say whether this host may be upgraded now, for dnf-automatic',
    description:
      'Exit code 0 if this host may be upgraded now: this is its hour (of N hosts each has every N-th hour), ' +
      'every node is healthy, and no rollout is running or stopped. Else exit code 5, with the reason.',
    examples: ['bornemisza upgrade turn && dnf -y upgrade'],
    json: true,
  }).action(async (options: CommonOptions) => {
    await turn(io, options);
  });
}

async function begin(io: Io, options: UpgradeOptions): Promise<void> {
  const daemon = await anyDaemonOf(options);
  const before = await daemon.get<UpgradeAnswer>('/v1/upgrade');
  if (options.scheduled === true) {
    if (before.state !== 'running') await daemon.post<Done>('/v1/upgrade/start', {});
    const message = before.state === 'running' ? 'a rollout is already running' : 'a rollout starts';
    if (options.json === true) printJson(io, { done: true, message });
    else io.stdout.write(`${message}\n`);
    return;
  }
  const newer = await newerHere(io);
  const versions = new Set(before.hosts.flatMap(({ members }) => members.map(({ version }) => version)));
  const needed = newer !== undefined || versions.size > 1;
  if (options.dryRun === true) {
    if (options.json === true) printJson(io, { newer: newer ?? null, needed, ...before });
    else io.stdout.write(`${offer(newer, versions)}\n${picture(before, io)}`);
    return;
  }
  if (!needed) {
    if (options.json === true) printJson(io, { done: true, message: offer(newer, versions) });
    else io.stdout.write(`${offer(newer, versions)}\n`);
    return;
  }
  if (before.state !== 'running') await daemon.post<Done>('/v1/upgrade/start', {});
  await follow(io, options);
}

function offer(newer: string | undefined, versions: ReadonlySet<string>): string {
  if (newer !== undefined) return `${PACKAGE} ${newer} is available, ${[...versions].join(' and ')} runs`;
  return versions.size > 1
    ? `no newer version is available for this host, but versions differ: ${[...versions].sort().join(', ')}`
    : `nothing to do: every node runs ${VERSION}, and the repositories have nothing newer`;
}

/** Version and release that dnf would install on this host, or undefined. */
async function newerHere(io: Io): Promise<string | undefined> {
  const args = [
    '-q',
    '--refresh',
    'repoquery',
    '--upgrades',
    '--latest-limit=1',
    '--qf',
    '%{version}-%{release}\n',
    PACKAGE,
  ];
  const { code, stdout, stderr } = await io.host.run('dnf', args, { timeoutMs: DNF_TIMEOUT_MS });
  if (code !== 0) {
    throw new CliFailure(
      EXIT.failure,
      'package-source',
      `dnf does not report whether there is a newer ${PACKAGE}: ` +
        (stderr.trim().split('\n').at(-1) ?? `it ended with ${code}`),
      `see what dnf says: dnf --refresh repoquery --upgrades ${PACKAGE}`,
    );
  }
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line !== '');
}

/** Prints what changes until the rollout ends. */
async function follow(io: Io, options: CommonOptions): Promise<void> {
  let last = '';
  const said = new Set<string>();
  let silentSinceMs: number | undefined;
  for (;;) {
    const answer = await ask(options);
    if (answer === undefined) {
      silentSinceMs ??= performance.now();
      if (performance.now() - silentSinceMs > SILENCE_MS) throw unwatched();
    } else {
      silentSinceMs = undefined;
      const text = JSON.stringify(answer);
      if (options.json === true && text !== last) io.stdout.write(`${text}\n`);
      last = text;
      for (const line of options.json === true ? [] : steps(answer)) {
        if (!said.has(line)) io.stdout.write(`${line}\n`);
        said.add(line);
      }
      if (answer.state === 'stopped')
        throw new CliFailure(
          EXIT.failure,
          'rollout-stopped',
          `the rollout stopped: ${answer.why}`,
          answer.next,
        );
      if (answer.state !== 'running') return;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

/** The state now, as lines that are each printed once. */
function steps({ state, why, hosts }: UpgradeAnswer): string[] {
  const runs = (members: UpgradeAnswer['hosts'][number]['members']): string =>
    [...new Set(members.map(({ version }) => version))].join(', ');
  return [
    `in this order: ${hosts.map(({ host }) => host).join(', ')}`,
    ...hosts.flatMap(({ host, step, members }) => {
      if (step === 'working') return [`${host}: upgrading`];
      return step === 'done' ? [`${host}: done, runs ${runs(members)}`] : [];
    }),
    ...(state === 'running' && why !== '' && hosts.every(({ step }) => step !== 'working')
      ? [`waiting: ${why}`]
      : []),
    ...(state === 'finished'
      ? [`finished: ${runs(hosts.flatMap(({ members }) => members))} everywhere`]
      : []),
  ];
}

/** Undefined while no daemon of this host answers. */
async function ask(options: CommonOptions): Promise<UpgradeAnswer | undefined> {
  try {
    return await (await anyDaemonOf(options)).get<UpgradeAnswer>('/v1/upgrade');
  } catch (error) {
    const passing = ['daemon-not-running', 'daemon-gone', 'daemon-silent', 'starting'];
    if (error instanceof CliFailure && passing.includes(error.code)) return undefined;
    throw error;
  }
}

function unwatched(): CliFailure {
  return new CliFailure(
    EXIT.notRunning,
    'rollout-unwatched',
    'no daemon of this host answers any more, so the rollout cannot be watched from here',
    'bornemisza upgrade status on another node; here: systemctl status bornemisza@ROLE',
  );
}

function picture(answer: UpgradeAnswer, io: Io): string {
  const { state, startedAt, why, next, hosts } = answer;
  const paint = paintFor(io.stdout);
  const heads: Readonly<Record<UpgradeAnswer['state'], string>> = {
    none: 'no rollout yet',
    running: `a rollout has been running since ${startedAt}`,
    finished: `the rollout of ${startedAt} has finished`,
    stopped: `the rollout of ${startedAt} is stopped`,
  };
  const rows = hosts.map(({ host, members, step, problem }) => [
    host,
    state === 'none' ? '' : step,
    members.map(({ name, version }) => `${name} ${version}`).join(', '),
    problem,
  ]);
  return [
    `${paint(state === 'stopped' ? 'red' : 'bold', heads[state])}${why === '' ? '' : `: ${why}`}\n`,
    next === '' ? '' : `  ${paint('bold', 'next:')} ${next}\n`,
    `\n${renderTable(['HOST', 'STEP', 'RUNS', 'PROBLEM'], rows, { columns: io.stdout.columns, paint })}`,
  ].join('');
}

async function turn(io: Io, options: CommonOptions): Promise<void> {
  const daemon = await anyDaemonOf(options);
  const { hosts, state, why } = await daemon.get<UpgradeAnswer>('/v1/upgrade');
  const { name } = await daemon.get<{ name: string }>('/v1/status');
  const nowMs = Date.now();
  const at = Math.floor(nowMs / SLOT_MS) % Math.max(1, hosts.length);
  const now = hosts[at]?.host ?? '';
  const refused = (code: string, message: string): CliFailure =>
    new CliFailure(
      EXIT.refused,
      code,
      message,
      'none: dnf-automatic asks again in an hour; for more: bornemisza upgrade status',
    );
  if (state === 'running' || state === 'stopped') throw refused('guard-rollout', `a rollout is ${state}`);
  if (why !== '') throw refused('guard-rollout', `not every node is healthy: ${why}`);
  if (now !== name.replace(/\/.*$/, '') || nowMs % SLOT_MS > SLOT_BEGIN_MS)
    throw refused('guard-not-its-hour', `this hour is for ${now}, and only its first 40 minutes`);
  const message = `this hour is for ${now}, and every node is healthy`;
  if (options.json === true) printJson(io, { done: true, message });
  else io.stdout.write(`${message}\n`);
}
