import type { Done } from '../daemon/control/api.ts';
import { tell } from './failure.ts';
import type { Io } from './io.ts';

/** Prints JSON for programs: one document and a newline. */
export function printJson(io: Io, value: unknown): void {
  io.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Prints the result of an order: its message, or with `--json` the whole answer. */
export function printDone(io: Io, { json }: { readonly json?: boolean }, done: Done): void {
  if (json === true) printJson(io, done);
  else io.stdout.write(`${done.message}\n`);
}

/** The JSON form of a failure. */
export function failureJson(error: unknown): {
  readonly error: { readonly code: string; readonly message: string; readonly next: string };
} {
  const { code, message, next } = tell(error);
  return { error: { code, message, next } };
}
