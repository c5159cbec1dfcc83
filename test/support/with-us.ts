import { spawn } from 'node:child_process';

/** Before a command: the kernel ends the program with the process that started it, even one that got SIGKILL. */
export const ENDS_WITH_US = ['setpriv', '--pdeathsig', 'KILL'] as const;

/**
 * `spawn` of node:child_process, for a program that must not outlive the test or bench that starts it. The kernel tells
 * that program alone: what it starts itself, it ends itself. A program that changes its user is not told any more
 * (PR_SET_PDEATHSIG in prctl(2)). One that is missing gives exit code 127, and no event `error`.
 */
export const spawnWithUs = ((program: string, ...more: readonly unknown[]) => {
  const [first, second] = more;
  const [args, options] = Array.isArray(first) ? [first as readonly string[], second] : [[], first];
  const [setpriv, ...flags] = ENDS_WITH_US;
  return spawn(setpriv, [...flags, program, ...args], options ?? {});
}) as typeof spawn;
