import { CliFailure, EXIT } from './failure.ts';
import type { Ran } from './io.ts';

/**
 * What a program answered, or that it is not installed. An answer that did not come is no empty answer: what would be
 * decided without it is decided wrongly.
 *
 * @throws CliFailure `program-no-answer`
 */
export function answered(ran: Ran): Ran {
  if (ran.silence === undefined) return ran;
  throw new CliFailure(EXIT.failure, 'program-no-answer', ran.silence.message, ran.silence.next);
}

/**
 * What a program answered, where an error of it is no answer either.
 *
 * @throws CliFailure `program-no-answer`, `program-failed`
 */
export function succeeded(command: string, ran: Ran): string {
  const { code, stdout, stderr } = answered(ran);
  if (code === 0) return stdout;
  throw new CliFailure(
    EXIT.failure,
    'program-failed',
    `\`${command}\` failed: ${stderr.trim().split('\n')[0] || `exit code ${code}`}`,
    `run \`${command}\` by hand and correct what it names`,
  );
}
