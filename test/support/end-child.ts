import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { childrenOf } from './children.ts';
import { slowness } from './patience.ts';

/** A HAProxy without traffic and a CouchDB end in less than a second on a free machine. */
const ORDERLY_MS = 3000;

/**
 * Ends a program that this process started, and resolves when it has gone: with the signal, or after the deadline (on a
 * busy machine later) with SIGKILL, together with what it started itself. Nothing is left to do if it has ended, by
 * itself or by a signal.
 *
 * @returns whether the signal was enough
 */
export async function endChild(
  child: ChildProcess,
  signal: NodeJS.Signals,
  deadlineMs = ORDERLY_MS,
): Promise<boolean> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return true;
  const { pid } = child;
  const gone = once(child, 'exit');
  let obeyed = true;
  const late = setTimeout(() => {
    obeyed = false;
    void killAll(pid);
  }, deadlineMs * slowness());
  child.kill(signal);
  await gone.finally(() => clearTimeout(late));
  return obeyed;
}

/** From the leaves on, so that nobody loses a parent before it was seen. */
async function killAll(pid: number): Promise<void> {
  for (const below of await childrenOf(pid).catch(() => [])) await killAll(below);
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}
