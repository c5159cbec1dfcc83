import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Goodbye } from '../membership/types.ts';

const execute = promisify(execFile);
/**
 * systemd answers in 20 ms; on a machine that is thirty times too busy, two starts of systemctl take over a second. A
 * restart that is taken for a stop withdraws the floating IPs, and all connections to them end. Meanwhile this node
 * does its duty, so that a HAProxy that a shutdown has ended already still withdraws them.
 */
const TIMEOUT_MS = 4000;

/**
 * Why this process was asked to end: systemd knows. A job of type `restart` for our unit is an upgrade or a restart,
 * a manager that is stopping is a shutdown of the machine, anything else is a stop. Without systemd, or without its
 * answer within `timeoutMs`: a stop.
 */
export async function reasonToEnd(unit: string | undefined, timeoutMs = TIMEOUT_MS): Promise<Goodbye> {
  if (unit === undefined) return 'stop';
  const ask = async (args: string[]): Promise<string> => {
    // is-system-running ends with a code that is not 0 for `stopping`, and prints the state nevertheless.
    const answer = await execute('systemctl', args, { timeout: timeoutMs }).catch(
      (error: { stdout?: string }) => error,
    );
    return answer.stdout ?? '';
  };
  const [running, jobs] = await Promise.all([
    ask(['is-system-running']),
    ask(['list-jobs', '--no-legend', unit]),
  ]);
  if (running.trim() === 'stopping') return 'shutdown';
  return /\b(re)?start\b/.test(jobs.replaceAll(unit, '')) ? 'restart' : 'stop';
}

/** Name of our own unit, from the cgroup that systemd put us in; undefined when started by hand. */
export function ownUnit(cgroupText: string): string | undefined {
  return /\/(bornemisza@\w+\.service)$/m.exec(cgroupText)?.[1];
}
