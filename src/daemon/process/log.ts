import pino, { type Logger } from 'pino';

export type Log = Logger;
export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** syslog(3) priorities by pino's numeric levels; journald reads `<N>` at the start of a line (sd-daemon(3)). */
const PRIORITY_BY_LEVEL: Readonly<Record<number, number>> = { 60: 2, 50: 3, 40: 4, 30: 6, 20: 7, 10: 7 };
const OWN_FIELDS = new Set(['level', 'time', 'msg', 'next', 'err']);
/** The journal shows one line for an entry; a longer value hides the rest. */
const MAX_VALUE_CHARACTERS = 400;
/** journald cuts a line at 48 KiB (LineMax=) and reads the rest as a second entry, which could have its own `<N>`. */
const MAX_LINE_CHARACTERS = 8000;

/**
 * A pino logger whose lines are made for `journalctl`: `<priority>what happened: why (next step) key=value …`.
 * Fields: `next` (what the operator can do), `err`, and any scalar. Secrets never belong in a field.
 *
 * @param journal whether to write the `<N>` prefix (under systemd) or leave it out (a terminal).
 */
export function createLog(options: {
  level: LogLevel;
  journal: boolean;
  write?: (line: string) => void;
}): Log {
  const write = options.write ?? ((line: string) => void process.stdout.write(line));
  return pino(
    { level: options.level, base: null },
    {
      write: (json: string) =>
        write(`${formatLine(JSON.parse(json) as Record<string, unknown>, options.journal)}\n`),
    },
  );
}

export function formatLine(entry: Record<string, unknown>, journal: boolean): string {
  const prefix = journal ? `<${PRIORITY_BY_LEVEL[entry['level'] as number] ?? 6}>` : '';
  const parts = [text(entry['msg'])];
  const error = entry['err'];
  if (typeof error === 'object' && error !== null && 'message' in error)
    parts[0] += `: ${String(error.message)}`;
  if (entry['next'] !== undefined) parts.push(`-- ${text(entry['next'])}`);
  for (const [key, value] of Object.entries(entry)) {
    if (OWN_FIELDS.has(key) || value === undefined) continue;
    const shown = text(value);
    parts.push(
      `${key}=${/[\s"=]/.test(shown) ? JSON.stringify(shown) : shown}`.slice(0, MAX_VALUE_CHARACTERS),
    );
  }
  return prefix + oneLine(parts.join(' ')).slice(0, MAX_LINE_CHARACTERS);
}

/**
 * One event is one line: a newline inside a value must not forge a second journal entry. For any other control
 * character journalctl shows `[1K blob data]` instead of the line, which would hide the error.
 */
export function oneLine(words: string): string {
  return (
    words
      .replaceAll(/[\n\r]+/g, '\\n')
      .replaceAll('\t', ' ')
      // oxlint-disable-next-line no-control-regex -- these are the characters that must go
      .replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, '\uFFFD')
  );
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}
