import type { Io } from './io.ts';

/** Prints JSON for programs: one document, one line more. */
export function printJson(io: Io, value: unknown): void {
  io.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}
