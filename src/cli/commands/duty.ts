import { Argument, type Command, Option } from 'commander';
import type { Done, MemberRow, MembersAnswer, Progress, StatusAnswer } from '../../daemon/control/api.ts';
import { printDone, printJson } from '../answer.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { exitOfRefusal } from '../client.ts';
import { waitDrained } from '../drain.ts';
import { formatDuration } from '../duration.ts';
import { CliFailure, EXIT, type Exit } from '../failure.ts';
import { anyDaemonOf, daemonOf, theOnly } from '../instances.ts';
import type { Io } from '../io.ts';
import { findMember, hostOf } from '../members.ts';
import { ask } from '../setup/ask.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { duration, waitFor } from './wait.ts';

interface Forced extends CommonOptions {
  readonly force?: boolean;
}

interface LeaveOptions extends Forced {
  readonly wipe?: boolean;
  readonly timeout?: number;
}

interface MaintenanceOptions extends Forced {
  readonly wait?: boolean;
  readonly timeout: number;
}

/** A page and its files end within seconds; for larger files or web sockets pass a longer time. */
const DRAIN_MS = 120_000;

const FORCE = 'do it even if a guard refuses, e.g. because it empties a role';

/** Takes this node out of traffic and back, or out of the cluster for good. */
export function addMaintenance(program: Command, io: Io): void {
  addVerb(program, 'maintenance', {
    summary: 'take this node out of traffic, or put it back',
    description:
      'Takes this node out of traffic (on) or puts it back (off). The node stays a member and keeps its data. ' +
      'Maintenance survives a reboot. Run it on the node itself; for another NODE it prints the command to ' +
      'run there. --wait returns when no request is open here; in the second half of --timeout it ends web ' +
      'sockets and event streams, one after another. If --timeout ends first, the exit code is 1 and the open ' +
      'requests are listed. After off, --wait returns when the node gets traffic. With --wait and --json it ' +
      'prints one object a line.',
    examples: [
      'bornemisza maintenance on --wait',
      'bornemisza maintenance on --wait --timeout 15m',
      'bornemisza maintenance off',
      'bornemisza maintenance on --role db',
    ],
    role: true,
    json: true,
  })
    .addArgument(new Argument('<state>', 'on or off').choices(['on', 'off']))
    .argument('[node]', 'HOST/ROLE, HOST if it has one role, address or PeerId; default: this host')
    .option('--force', FORCE)
    .option('--wait', 'wait until no request is open here, and show those that remain')
    .addOption(
      new Option('--timeout <duration>', 'with --wait: how long, e.g. 90s')
        .argParser(duration)
        .default(DRAIN_MS, '2m'),
    )
    .action(async (state: 'on' | 'off', node: string | undefined, options: MaintenanceOptions) => {
      await maintenance(io, state === 'on', node, options);
    });
}

async function maintenance(
  io: Io,
  on: boolean,
  node: string | undefined,
  options: MaintenanceOptions,
): Promise<void> {
  const { root, json = false, wait = false, timeout } = options;
  const role = node === undefined ? options.role : await roleHere(node, on, options);
  const daemon = await daemonOf({ root, role });
  const done = await daemon.post<Done>('/v1/maintenance', { on, force: options.force === true });
  if (!wait) {
    printDone(io, options, done);
    return;
  }
  io.stdout.write(json ? `${JSON.stringify(done)}\n` : `${done.message}\n`);
  if (on) {
    await waitDrained(io, daemon, { json, timeoutMs: timeout });
    return;
  }
  const missing = await waitFor('serving', { ...options, role: daemon.role }, timeout);
  if (missing === undefined) return;
  const late = `not serving within ${formatDuration(timeout)}: ${missing}`;
  throw new CliFailure(EXIT.failure, 'wait-timeout', late, 'bornemisza status');
}

/** @returns the role of the instance on this host that `wanted` names @throws CliFailure `maintenance-elsewhere` */
async function roleHere(wanted: string, on: boolean, options: CommonOptions): Promise<Role> {
  const { members } = await (await anyDaemonOf(options)).get<MembersAnswer>('/v1/members');
  const { name, role, address } = findMember(members, wanted);
  const here = members.find((each) => each.self);
  if (here !== undefined && hostOf(here.name) === hostOf(name)) return role;
  throw new CliFailure(
    EXIT.usage,
    'maintenance-elsewhere',
    `${name} is another machine; maintenance is set on the machine itself`,
    `ssh ${address} sudo bornemisza maintenance ${on ? 'on --wait' : 'off'} --role ${role}`,
  );
}

export function addLeave(program: Command, io: Io): void {
  addVerb(program, 'leave', {
    summary: 'leave the cluster for good, in the right order',
    description:
      'Drains traffic, withdraws the announcement, moves the data to other nodes, and leaves the cluster. Web ' +
      'sockets and event streams end one after another in the second half of --timeout. ' +
      'Prints each step as it ends, and says when you can delete the machine. With --json it prints one ' +
      'object a line (ndjson).',
    examples: ['bornemisza leave', 'bornemisza leave --role db --json', 'sudo bornemisza leave --wipe'],
    role: true,
    json: true,
    asRoot: '--wipe stops units as root; all else, and all in the daemon’s directories, runs without root',
  })
    .option('--force', FORCE)
    .addOption(
      new Option(
        '--timeout <duration>',
        'how long to wait for open requests to end (default: 30s)',
      ).argParser(duration),
    )
    .option(
      '--wipe',
      'then remove its keys, configuration and data from this machine (as root); with --role this works ' +
        'after an earlier leave too',
    )
    .action(async (options: LeaveOptions) => {
      await leave(io, options);
    });
}

async function leave(io: Io, options: LeaveOptions): Promise<void> {
  if (options.wipe !== true) {
    if ((options.root ?? '') === '') await io.host.becomeDaemon();
    await leaveCluster(io, options);
    return;
  }
  const [{ hasLeft, mayWipe, wipe }, { pathsFor }] = await Promise.all([
    import('../setup/wipe.ts'),
    import('../../daemon/config/config.ts'),
  ]);
  const { root = '' } = options;
  mayWipe(io, root);
  const say = (message: string): void =>
    io.stdout.write(options.json === true ? `${JSON.stringify({ message })}\n` : `${message}\n`);
  const left = options.role !== undefined && (await hasLeft(io, pathsFor(options.role, root), root));
  const role = left ? options.role : await leaveFirst(io, options);
  await wipe(io, role, pathsFor(role, root), root, say);
  say(`removed all of the ${role} node from this machine`);
}

/** Runs as the daemon's user in a process of its own: this one stays root. @returns the role that has left */
async function leaveFirst(io: Io, options: LeaveOptions): Promise<Role> {
  const { root = '', force = false, json = false, timeout } = options;
  if (root !== '') return await leaveCluster(io, options);
  const { stateWork } = await import('../setup/state-work.ts');
  const { role } = theOnly(await stateWork(io, root, 'instances', { root }), options.role);
  const within = timeout === undefined ? [] : ['--timeout', `${Math.ceil(timeout / 1000)}s`];
  const flags = [...(force ? ['--force'] : []), ...(json ? ['--json'] : []), ...within];
  const exit = await io.host.again(['leave', '--role', role, ...flags]);
  if (exit === EXIT.ok) return role;
  throw new CliFailure(
    exitOf(exit),
    'wipe-not-left',
    'the node has not left its cluster, so nothing was removed',
    'do the next step that the line above names, then run this again',
  );
}

const exitOf = (code: number): Exit => Object.values(EXIT).find((each) => each === code) ?? EXIT.failure;

/** @returns the role that has left */
async function leaveCluster(io: Io, options: LeaveOptions): Promise<Role> {
  const daemon = await daemonOf(options);
  let done = false;
  const request = { force: options.force === true, drainMs: options.timeout };
  for await (const step of daemon.lines<Progress>('POST', '/v1/leave', request)) {
    if (step.error !== undefined) {
      const { code, message, next } = step.error;
      throw new CliFailure(exitOfRefusal(code), code, message, next);
    }
    io.stdout.write(options.json === true ? `${JSON.stringify(step)}\n` : `${step.message}\n`);
    done = step.done === true;
  }
  if (done) return daemon.role;
  throw new CliFailure(
    EXIT.failure,
    'leave-unfinished',
    'the daemon ended before the leave was complete',
    `systemctl start bornemisza@${daemon.role}, then run \`bornemisza leave\` again: it continues where it stopped`,
  );
}

export function addRemove(program: Command, io: Io): void {
  addVerb(program, 'remove', {
    summary: 'take another node out of the cluster for good',
    description:
      'Revokes a node: every node refuses its certificate within a second. With --dead you confirm that the ' +
      'machine will never come back: only then are its copies of the data given up. On a node that still ' +
      'runs, run `leave` instead.',
    examples: ['bornemisza remove db2/db', 'bornemisza remove db2/db --dead'],
    role: true,
    json: true,
  })
    .argument('<node>', 'HOST/ROLE, HOST where it has one role, address or PeerId')
    .option('--dead', 'the machine is gone for good: give up its copies of the data')
    .option('--force', FORCE)
    .action(async (node: string, options: Forced & { dead?: boolean }) => {
      const daemon = await daemonOf(options);
      const { members } = await daemon.get<MembersAnswer>('/v1/members');
      const row = findMember(members, node);
      const { name, peerId } = row;
      const isShared = members.some((each) => each.name === name && each.peerId !== peerId);
      // A node that is no authority refuses it in any case.
      const able = members.some((each) => each.self && each.authority);
      if (options.dead === true && able) await mayGiveUp(io, members, row);
      printDone(
        io,
        options,
        await daemon.post<Done>('/v1/remove', {
          node: isShared ? peerId : name,
          dead: options.dead === true,
          force: options.force === true,
        }),
      );
    });
}

/** Shows the cost of `--dead` before it is done; on a terminal the operator types the name. */
async function mayGiveUp(io: Io, members: MembersAnswer['members'], row: MemberRow): Promise<void> {
  const { name, role, state } = row;
  const rest = members.filter((each) => each.role === role && each.name !== name && each.state !== 'left');
  const alive = rest.filter((each) => each.state === 'alive').length;
  const copies =
    role === 'db'
      ? `Its copies of the data are lost for good; ${alive} of ${rest.length} other db nodes are reachable.`
      : `${alive} of ${rest.length} other app nodes are reachable.`;
  const running = state === 'alive' ? ` It RUNS now: \`bornemisza leave\` there loses nothing.` : '';
  io.stderr.write(`${copies} ${name} cannot come back with this identity.${running}\n`);
  if (io.typed === undefined) return;
  const typed = await ask(io, `To remove it, type ${name}: `);
  if (typed === name) return;
  throw new CliFailure(
    EXIT.usage,
    'remove-not-confirmed',
    `${name} was not removed`,
    'run it again and type its name',
  );
}

export function addGuards(program: Command, io: Io): void {
  const guards = addVerb(program, 'guards', { summary: 'what the guards hold', root: false });
  addVerb(guards, 'list', {
    summary: 'list what the guards hold now',
    description: 'Lists the changes that the guards hold back, with the reason. Changes nothing.',
    examples: ['bornemisza guards list', 'bornemisza guards list --json | jq .held'],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    const { name, held } = await (await daemonOf(options)).get<StatusAnswer>('/v1/status');
    if (options.json === true) printJson(io, { node: name, held });
    else if (held.length === 0) io.stdout.write(`no guard holds anything on ${name}\n`);
    else io.stdout.write(held.map(({ message, next }) => `${message} -- ${next}\n`).join(''));
  });
  addVerb(guards, 'release', {
    summary: 'allow the changes that the guards hold back',
    description:
      'Allows removals that a guard holds back, e.g. if more than half of a role vanished at once and you ' +
      'know why. `bornemisza status` shows what is held.',
    examples: ['bornemisza guards release', 'bornemisza guards release --role app'],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    printDone(io, options, await (await daemonOf(options)).post<Done>('/v1/guards/release', {}));
  });
}
