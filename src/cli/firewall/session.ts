import { readFile, readlink } from 'node:fs/promises';
import { basename } from 'node:path';

/** sshd(8), and what OpenSSH 9.8 and later run for each connection. */
const SSHD = ['sshd', 'sshd-session'];
/** Shells, sudo and multiplexers can be nested: sixteen levels are more than anybody uses. */
const MOST_ANCESTORS = 16;

/** When a trial of the rules began, in clock ticks since boot, and whether it was started over ssh. */
interface TrialOrigin {
  readonly atTicks: number;
  readonly by: 'ssh' | 'console';
}

/**
 * When the ssh connection of this command began, in clock ticks since boot: the start time of root's sshd process for
 * it. Only what the kernel reports of processes is read, since users write environments and command lines.
 *
 * @returns undefined on a console, or in a shell that outlives its connection (tmux, screen)
 */
export async function sshSince(proc = '/proc', pid = process.pid): Promise<number | undefined> {
  let at = pid;
  for (let depth = 0; depth < MOST_ANCESTORS && at > 1; depth += 1) {
    const status = await readFile(`${proc}/${at}/status`, 'latin1').catch(() => '');
    // The kernel escapes a newline in the name of a process, so no name can add a line.
    const isRoots = /^Uid:\t0\t0\t0\t0$/m.test(status);
    if (isRoots && (await isSshd(`${proc}/${at}/exe`))) return await startedAt(proc, at);
    at = Number(/^PPid:\t(\d+)$/m.exec(status)?.[1] ?? 0);
  }
  return undefined;
}

/** When this command was started. */
export async function trialOrigin(proc = '/proc', pid = process.pid): Promise<TrialOrigin> {
  const by = (await sshSince(proc, pid)) === undefined ? 'console' : 'ssh';
  return { atTicks: (await startedAt(proc, pid)) ?? 0, by };
}

export function renderOrigin({ atTicks, by }: TrialOrigin): string {
  return `${ORIGIN}${atTicks} ${by}\n`;
}

/** Marks the line of the origin, which follows the rules. */
export const ORIGIN = '# asked for at: ';

/** The trial that root's own file describes; a file without it gets the strictest check. */
export function readOrigin(trial: string): TrialOrigin {
  const found = /^# asked for at: (\d+) (ssh|console)$/m.exec(trial);
  if (found === null) return { atTicks: Number.POSITIVE_INFINITY, by: 'ssh' };
  return { atTicks: Number(found[1]), by: found[2] === 'console' ? 'console' : 'ssh' };
}

/** Whether a connection that began at `since` has passed the rules of the trial. A console needs no connection. */
export function proves({ atTicks, by }: TrialOrigin, since: number | undefined): boolean {
  return since === undefined ? by === 'console' : since > atTicks;
}

async function isSshd(exe: string): Promise<boolean> {
  const target = await readlink(exe).catch(() => '');
  // After an upgrade of sshd the old program can still run.
  return SSHD.includes(basename(target.replace(/ \(deleted\)$/, '')));
}

/** Field 22 of /proc/PID/stat (proc(5)); field 2, the name, can hold blanks and brackets. */
async function startedAt(proc: string, pid: number): Promise<number | undefined> {
  const stat = await readFile(`${proc}/${pid}/stat`, 'latin1').catch(() => '');
  const ticks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  return ticks === undefined || !/^\d+$/.test(ticks) ? undefined : Number(ticks);
}
