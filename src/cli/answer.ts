import type { Done } from '../daemon/control/api.ts';
import { tell } from './failure.ts';
import type { Io } from './io.ts';

/** Prints JSON for programs: one document, one line more. */
export function printJson(io: Io, value: unknown): void {
  io.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** What an order came to: its sentence, or with `--json` all of it. */
export function printDone(io: Io, { json }: { readonly json?: boolean }, done: Done): void {
  if (json === true) printJson(io, done);
  else io.stdout.write(`${done.message}\n`);
}

/** A failure as programs read it. */
export function failureJson(error: unknown): {
  readonly error: { readonly code: string; readonly message: string; readonly next: string };
} {
  const { code, message, next } = tell(error);
  return { error: { code, message, next } };
}
