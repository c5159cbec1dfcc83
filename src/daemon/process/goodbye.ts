import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Goodbye } from '../membership/types.ts';

const execute = promisify(execFile);
/**
 * systemd answers in 20 ms; on an overloaded machine two starts of systemctl take over a second. If a restart is taken
 * for a stop, the floating IPs are withdrawn, and all connections to them end. Until the answer this node keeps
 * working, so that it withdraws them if a shutdown has already ended HAProxy.
 */
const TIMEOUT_MS = 4000;

/**
 * Why this process was asked to end, by systemd: a job of type `restart` for our unit is an upgrade or a restart, a
 * stopping manager is a shutdown of the machine, anything else is a stop. Without systemd, or without its answer within
 * `timeoutMs`: a stop.
 */
export async function reasonToEnd(unit: string | undefined, timeoutMs = TIMEOUT_MS): Promise<Goodbye> {
  if (unit === undefined) return 'stop';
  const ask = async (args: string[]): Promise<string> => {
    // For `stopping`, is-system-running exits with a code other than 0 but prints the state.
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

/** Name of our own unit, from our cgroup; undefined if started by hand. */
export function ownUnit(cgroupText: string): string | undefined {
  return /\/(bornemisza@\w+\.service)$/m.exec(cgroupText)?.[1];
}
