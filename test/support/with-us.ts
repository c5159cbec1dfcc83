import { spawn } from 'node:child_process';

/** Before a command: the kernel ends the program with the process that started it, even one that got SIGKILL. */
export const ENDS_WITH_US = ['setpriv', '--pdeathsig', 'KILL'] as const;

/**
 * Before a command: without what tap has each Node.js below a test load, 0.9 s of CPU time a start (1.3 s in place of
 * 0.35 s for a command of ours), with an error on stderr where the program may not write into this tree.
 */
export const WITHOUT_TAP = ['env', '--unset=NODE_OPTIONS'] as const;

/**
 * `spawn` of node:child_process, for a program that must not outlive the test or bench that starts it. The kernel tells
 * that program alone: what it starts itself, it ends itself. A program that changes its user is not told any more
 * (PR_SET_PDEATHSIG in prctl(2)). One that is missing gives exit code 127, and no event `error`.
 */
export const spawnWithUs = ((program: string, ...more: readonly unknown[]) => {
  const [first, second] = more;
  const [args, options] = Array.isArray(first) ? [first as readonly string[], second] : [[], first];
  const [setpriv, ...flags] = ENDS_WITH_US;
  return spawn(setpriv, [...flags, ...WITHOUT_TAP, program, ...args], options ?? {});
}) as typeof spawn;
