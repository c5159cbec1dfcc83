import { connect } from 'node:net';
import { access, readFile } from 'node:fs/promises';
import type { Role } from '../daemon/membership/types.ts';
import { ControlClient, notPermitted, notRunning } from './client.ts';
import { CliFailure, EXIT } from './failure.ts';
import { configOf, controlSocketOf, memoryOf, ROLES } from './places.ts';

const CONNECT_TIMEOUT_MS = 2000;

/** One role instance as this host shows it from outside. */
export interface Instance {
  readonly role: Role;
  readonly socket: 'answers' | 'absent' | 'forbidden';
  /** Whether its configuration exists; `hidden` if this user may not read it. */
  readonly configured: 'yes' | 'no' | 'hidden';
  /** It has left or was removed; false also if this user may not read that. */
  readonly left?: boolean;
}

export async function instances(root = ''): Promise<Instance[]> {
  return await Promise.all(
    ROLES.map(async (role) => ({
      role,
      socket: await probe(controlSocketOf(role, root)),
      configured: await exists(configOf(role, root)),
      left: await hasLeft(memoryOf(role, root)),
    })),
  );
}

/**
 * The daemon that a command speaks to: the one that `--role` names, else the only one that runs here.
 *
 * @throws CliFailure `role-ambiguous`, `daemon-not-running`, `not-permitted` or `not-initialised`
 */
export async function daemonOf(options: {
  role?: Role | undefined;
  root?: string | undefined;
}): Promise<ControlClient> {
  const { role, root = '' } = options;
  const first = theOnly(await instances(root), role);
  return new ControlClient(controlSocketOf(first.role, root), first.role);
}

/**
 * A daemon for questions that each daemon of this host answers alike: the members, and the state of a rollout. If both
 * run, role app is asked.
 *
 * @throws CliFailure as {@link daemonOf}, but for `role-ambiguous`
 */
export async function anyDaemonOf(options: {
  role?: Role | undefined;
  root?: string | undefined;
}): Promise<ControlClient> {
  const { role, root = '' } = options;
  const all = (await instances(root)).filter((each) => role === undefined || each.role === role);
  const found = all.find(({ socket }) => socket === 'answers');
  if (found === undefined) throw whyNone(all);
  return new ControlClient(controlSocketOf(found.role, root), found.role);
}

/**
 * The app node of this host, for what only an app node has; where there is none, the daemon here says who to ask.
 *
 * @throws CliFailure as {@link daemonOf}
 */
export async function appDaemonOf({ root = '' }: { root?: string | undefined }): Promise<ControlClient> {
  const isHere = (await instances(root)).some(
    ({ role, socket, configured }) => role === 'app' && (socket !== 'absent' || configured === 'yes'),
  );
  return daemonOf({ root, ...(isHere && { role: 'app' }) });
}

/** The instance that runs here: the one of that role, else the only one. @throws CliFailure see {@link daemonOf} */
export function theOnly(all: readonly Instance[], role: Role | undefined): Instance {
  const usable = all.filter(
    (each) => each.socket === 'answers' && (role === undefined || each.role === role),
  );
  const [first, second] = usable;
  if (first === undefined) throw whyNone(all.filter((each) => role === undefined || each.role === role));
  if (second !== undefined) {
    throw new CliFailure(
      EXIT.usage,
      'role-ambiguous',
      'both roles run on this host',
      'choose one: --role app or --role db',
    );
  }
  return first;
}

/** The roles with a configuration here, or the one that is asked for. @throws CliFailure where there is none */
export async function configuredRoles(options: {
  role?: Role | undefined;
  root?: string | undefined;
}): Promise<readonly Role[]> {
  if (options.role !== undefined) return [options.role];
  const all = await instances(options.root);
  const roles = all.filter((each) => each.configured !== 'no').map((each) => each.role);
  if (roles.length === 0) throw whyNone(all);
  return roles;
}

/** Why there is no daemon to speak to, of these instances. */
export function whyNone(candidates: readonly Instance[]): CliFailure {
  const forbidden = candidates.find((each) => each.socket === 'forbidden');
  if (forbidden !== undefined) {
    return notPermitted(
      `the control socket of bornemisza@${forbidden.role} is for root and group bornemisza`,
    );
  }
  const configured = candidates.find((each) => each.configured === 'yes');
  if (configured?.left === true) return noMember(configured.role);
  if (configured !== undefined) return notRunning(configured.role);
  if (candidates.some((each) => each.configured === 'hidden')) {
    return notPermitted('no daemon runs here; only root and group bornemisza can see whether one should');
  }
  const role = candidates.length === 1 ? candidates[0]?.role : undefined;
  return new CliFailure(
    EXIT.notRunning,
    'not-initialised',
    role === undefined ? 'this host is not part of a cluster yet' : `role ${role} is not set up on this host`,
    `on the first machine: sudo bornemisza init --role ${role ?? 'app'}; on a further one: sudo bornemisza join -`,
  );
}

/** For a daemon that does not run: its identity is no longer valid, so a start would be refused. */
export function noMember(role: Role): CliFailure {
  return new CliFailure(
    EXIT.notRunning,
    'left',
    `the ${role} node of this host is no longer a member: it has left, or was removed from the cluster`,
    'to join again: sudo bornemisza join --reset - with a new token; to remove all from this machine: sudo ' +
      `bornemisza leave --wipe --role ${role}`,
  );
}

async function hasLeft(memory: string): Promise<boolean> {
  try {
    return (JSON.parse(await readFile(memory, 'utf8')) as { left?: unknown }).left === true;
  } catch {
    return false;
  }
}

function probe(path: string): Promise<Instance['socket']> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const settle = (result: Instance['socket']): void => {
      socket.destroy();
      resolve(result);
    };
    // A daemon that accepts late does run: the request itself has its own, longer limit.
    socket.setTimeout(CONNECT_TIMEOUT_MS, () => settle('answers'));
    socket.on('connect', () => settle('answers'));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      settle(error.code === 'EACCES' || error.code === 'EPERM' ? 'forbidden' : 'absent'),
    );
  });
}

async function exists(path: string): Promise<Instance['configured']> {
  try {
    await access(path);
    return 'yes';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'hidden' : 'no';
  }
}
