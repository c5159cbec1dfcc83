import { readFile } from 'node:fs/promises';
import { CliFailure, EXIT } from '../failure.ts';
import { type Io, readInput } from '../io.ts';

/** The recovery bundle in text, and what opens it. */
interface Recovery {
  readonly bundle: string;
  readonly passphrase: string;
}

/** A bundle has about 4 kB; more input is a mistake. */
const MAX_INPUT_BYTES = 65_536;
const BEGIN = '-----BEGIN';
const END = /-----END [A-Z ]+-----/;

/**
 * Reads the bundle from a file or, for `-`, from standard input. The passphrase comes from its own file, else from the
 * terminal, else from beside the bundle: the line that `init` wrote above it, or the first line after it.
 *
 * @throws CliFailure `recovery-missing`, `passphrase-missing`, `file-unreadable`
 */
export async function readRecovery(io: Io, file: string, passphraseFile?: string): Promise<Recovery> {
  const typed = file === '-' ? io.typed?.() : undefined;
  try {
    const text = file !== '-' ? await readSecret(file, 'the name of the bundle') : await input(io, typed);
    const { bundle, ...around } = cut(text);
    if (passphraseFile !== undefined) {
      const passphrase = (await readSecret(passphraseFile, '--passphrase-file')).trim();
      return { bundle, passphrase: passphrase === '' ? missing() : passphrase };
    }
    return { bundle, passphrase: (beside(around) ?? (await asked(io, file, typed))).trim() };
  } finally {
    typed?.close();
  }
}

interface Cut {
  readonly before: string;
  readonly bundle: string;
  readonly after: string;
}

function cut(text: string): Cut {
  const begin = text.indexOf(BEGIN);
  const end = END.exec(text);
  if (begin >= 0 && end !== null && end.index > begin) {
    const at = end.index + end[0].length;
    return { before: text.slice(0, begin), bundle: text.slice(begin, at), after: text.slice(at) };
  }
  throw new CliFailure(
    EXIT.usage,
    'recovery-missing',
    'no recovery bundle was given',
    'name the file that holds it, or paste it from -----BEGIN to the end of the -----END line',
  );
}

/**
 * Before the bundle is the text of `init`, where the passphrase follows its name; after it, only the passphrase.
 */
function beside({ before, after }: Pick<Cut, 'before' | 'after'>): string | undefined {
  const named = /^Passphrase: ([^(\n]+)$/m.exec(before)?.[1];
  return named ?? after.split('\n').find((line) => line.trim() !== '');
}

async function asked(io: Io, file: string, typed: Typed | undefined): Promise<string> {
  const terminal = typed ?? io.typed?.();
  try {
    const text = terminal === undefined ? await piped(io, file) : await terminal.line('Passphrase: ', true);
    const passphrase = text?.trim() ?? '';
    return passphrase === '' ? missing() : passphrase;
  } finally {
    if (typed === undefined) terminal?.close();
  }
}

type Typed = ReturnType<NonNullable<Io['typed']>>;

/** Standard input without a terminal was read whole if it held the bundle; else it holds only the passphrase. */
async function piped(io: Io, file: string): Promise<string | undefined> {
  return file === '-' ? undefined : readInput(io, MAX_INPUT_BYTES);
}

async function input(io: Io, typed: Typed | undefined): Promise<string> {
  if (typed === undefined) return readInput(io, MAX_INPUT_BYTES);
  let text = '';
  for (
    let prompt = 'Paste the recovery bundle:\n';
    !END.test(text) && text.length < MAX_INPUT_BYTES;
    prompt = ''
  ) {
    const line = await typed.line(prompt, false);
    if (line === undefined) break;
    text += `${line}\n`;
  }
  return text;
}

function missing(): never {
  throw new CliFailure(
    EXIT.usage,
    'passphrase-missing',
    'no passphrase was given',
    'pass --passphrase-file, type it on a terminal, or put it on the line after the bundle',
  );
}

/** Secrets of the operator: read from files, since everybody on the host can see argv. */
export async function readSecret(file: string, flag: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code;
    throw new CliFailure(
      EXIT.failure,
      'file-unreadable',
      `cannot read ${file}: ${reason}`,
      `correct ${flag}`,
      { cause: error },
    );
  }
}
