import { hasNextStep, OperatorError } from '../daemon/errors.ts';

/** Exit codes of the command, as `bornemisza --help` and the manual page print them. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  notRunning: 3,
  permission: 4,
  refused: 5,
} as const;
export type Exit = (typeof EXIT)[keyof typeof EXIT];

export const EXIT_MEANINGS: readonly (readonly [Exit, string])[] = [
  [EXIT.ok, 'done'],
  [EXIT.failure, 'it failed; the message says why and what to do next'],
  [EXIT.usage, 'the command line is wrong'],
  [EXIT.notRunning, 'the daemon is not running'],
  [EXIT.permission, 'not permitted: root or group bornemisza is needed'],
  [EXIT.refused, 'refused by a guard: it would have hurt the cluster'],
];

/** An error that ends the command with a code of its own. */
export class CliFailure extends OperatorError {
  readonly exit: Exit;

  constructor(exit: Exit, code: string, message: string, next: string, options?: { cause?: unknown }) {
    super(code, message, next, options);
    this.name = 'CliFailure';
    this.exit = exit;
  }
}

/** What is printed about an error, whichever room it comes from. */
export interface Told {
  readonly exit: Exit;
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

export function tell(error: unknown): Told {
  if (error instanceof CliFailure) return error;
  if (hasNextStep(error)) {
    const { code, next } = error;
    return {
      exit: isPermission(error) ? EXIT.permission : EXIT.failure,
      code,
      message: error.message.replace(/\.$/, ''),
      next,
    };
  }
  const message = error instanceof Error ? error.message : String(error);
  if (isPermission(error)) {
    return {
      exit: EXIT.permission,
      code: 'not-permitted',
      message,
      next: 'run the command as root: sudo bornemisza …',
    };
  }
  return {
    exit: EXIT.failure,
    code: 'unexpected',
    message: message === '' ? 'unexpected error' : message,
    next: 'run `bornemisza doctor`; if the error repeats, report it with the output of `bornemisza version`',
  };
}

function isPermission(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ('code' in at && (at.code === 'EACCES' || at.code === 'EPERM')) return true;
  }
  return false;
}
