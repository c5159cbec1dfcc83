import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { must } from './process.ts';

/** Names of one lab's things; the prefix is what a sweep looks for. */
export type LabPlace = {
  readonly id: string;
  /** Run directory: owner, logs, host disks. */
  readonly directory: string;
  /** The lab's own cgroup in the v2 tree: every process of the lab is in it, so that one write kills all. */
  readonly cgroup: string;
};

export const namespaceOf = (place: Pick<LabPlace, 'id'>, name: string): string => `lab-${place.id}-${name}`;

/** Runs `ip` commands, one a line, in one namespace by one process; the first that fails throws. */
export async function ip(namespace: string | undefined, commands: readonly string[]): Promise<void> {
  const where = namespace === undefined ? [] : ['-n', namespace];
  await must(['ip', ...where, '-batch', '-'], { stdin: `${commands.join('\n')}\n` });
}

/** Runs a program in a network namespace, in this machine's mount namespace. */
export const inNamespace = (namespace: string, argv: readonly string[]): string[] => [
  'nsenter',
  `--net=/run/netns/${namespace}`,
  '--',
  ...argv,
];

/**
 * Starts a long-lived program of the lab: inside `cgroup` before its first instruction, in a session of its own (so
 * that Ctrl-C reaches the lab's owner alone), not holding the owner's event loop open.
 */
export function spawnInside(cgroup: string, argv: readonly string[], stdio: StdioOptions): ChildProcess {
  const enter = 'echo 0 >"$0/cgroup.procs"; exec "$@"';
  const child = spawn('/bin/sh', ['-c', enter, cgroup, ...argv], { stdio, detached: true });
  child.unref();
  return child;
}
