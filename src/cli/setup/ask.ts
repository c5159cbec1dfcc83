import { CliFailure } from '../failure.ts';
import type { Io } from '../io.ts';

/** Tries before the command ends with the refusal: more would hide it. */
const TRIES = 3;

/**
 * Detects something, or asks for it on the terminal if only the operator can know it.
 *
 * @param find throws CliFailure with one of `codes` if only an answer helps; takes that answer
 * @param io undefined if nobody can be asked: then the refusal is thrown
 */
export async function foundOrAsked<T>(
  io: Io | undefined,
  question: { readonly codes: readonly string[]; readonly prompt: string },
  find: (answer?: string) => T,
): Promise<T> {
  let answer: string | undefined;
  for (let tries = 0; ; tries += 1) {
    try {
      return find(answer);
    } catch (error) {
      const mine = error instanceof CliFailure && (tries > 0 || question.codes.includes(error.code));
      if (!mine || tries === TRIES) throw error;
      answer = await ask(io, `${capital(error.message)}.\n${question.prompt}: `);
      if (answer === '') throw error;
    }
  }
}

/** One line from the terminal; '' without one. */
export async function ask(io: Io | undefined, prompt: string, hidden = false): Promise<string> {
  const typed = io?.typed?.();
  try {
    return (await typed?.line(prompt, hidden))?.trim() ?? '';
  } finally {
    typed?.close();
  }
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
