import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { AuditEntry } from '../control/api.ts';

/** In the state directory of a role instance; the older part beside it ends in `.1`. */
export const AUDIT_FILE = 'audit.jsonl';
/** Twice the limit of the trail: it did not write a longer file, and only the end of such a file is read. */
const MAX_READ_BYTES = 4 * 1024 * 1024;

/**
 * One line of the trail; undefined where it is no entry.
 *
 * @param reviver as JSON.parse takes it, e.g. for text that goes to a terminal
 */
export function parseEntry(
  line: string,
  reviver?: (key: string, value: unknown) => unknown,
): AuditEntry | undefined {
  try {
    const value = JSON.parse(line, reviver) as Partial<AuditEntry>;
    const whole =
      Number.isSafeInteger(value.id) &&
      typeof value.at === 'string' &&
      typeof value.summary === 'string' &&
      Array.isArray(value.subjects) &&
      value.subjects.every((each) => typeof each === 'string');
    return whole ? (value as AuditEntry) : undefined;
  } catch {
    return undefined;
  }
}

/** What failed, was rolled back or is held: what `events --failed` asks for. */
export function hasFailed({ result }: AuditEntry): boolean {
  return result === 'failed' || result === 'rolled-back' || result === 'held';
}

/**
 * The trail on the disk, oldest first, for when no daemon answers. Lines that are no entries are skipped.
 * The caller must not be root: the daemon's user writes these files.
 *
 * @param file the newer of the two
 * @throws NodeJS.ErrnoException where a file is there and cannot be read
 */
export async function storedEntries(
  file: string,
  reviver?: (key: string, value: unknown) => unknown,
): Promise<AuditEntry[]> {
  const texts = [await endOf(`${file}.1`), await endOf(file)];
  return texts.flatMap((text) => text.split('\n').flatMap((line) => parseEntry(line, reviver) ?? []));
}

async function endOf(path: string): Promise<string> {
  // A FIFO would block the command until somebody writes into it.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  });
  if (handle === undefined) return '';
  try {
    const facts = await handle.stat();
    if (!facts.isFile()) return '';
    const bytes = Buffer.alloc(Math.min(facts.size, MAX_READ_BYTES));
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, facts.size - bytes.length);
    return bytes.subarray(0, bytesRead).toString('utf8');
  } finally {
    await handle.close();
  }
}
