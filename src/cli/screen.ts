import type { AuditEntry, MemberRow } from '../daemon/control/api.ts';
import { type Paint, paintWord } from './paint.ts';

/** A cluster on one screen of a terminal: what `bornemisza top` and the demo draw. */

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

interface ScreenParts {
  /** From the title on; on a small screen its end gives way. */
  readonly body: readonly string[];
  /** Below the body as many as there is room for, the newest last. */
  readonly events: readonly AuditEntry[];
  /** Always on the screen. */
  readonly foot: readonly string[];
}

/** At most `rows` lines of `columns` characters. */
export function layOut({ body, events, foot }: ScreenParts, size: ScreenSize, paint: Paint): string {
  const room = Math.max(0, size.rows - body.length - foot.length);
  const shown = room === 0 ? [] : events.slice(-room);
  const lines = [...body, ...shown.map((entry) => eventLine(entry, paint))];
  return [...lines.slice(0, Math.max(1, size.rows - foot.length)), ...foot]
    .map((line) => cut(line, size.columns))
    .join('\n');
}

export const MEMBERS_HEAD = 'NODE        ADDRESS       STATE     HEALTH  TRAFFIC    WHY';

export function memberLine(
  { name, address, state, health, rotation, reason }: MemberRow,
  paint: Paint,
): string {
  const word = (text: string, width: number): string => paintWord(paint, text) + ' '.repeat(pad(text, width));
  return (
    `${name.padEnd(11)} ${address.padEnd(13)} ${word(state, 9)} ${word(health, 7)} ${word(rotation, 10)} ` +
    paint('dim', reason)
  );
}

const pad = (text: string, width: number): number => Math.max(0, width - text.length);

/** @param server `BACKEND/NAME` @param status as `show stat` prints it, e.g. `UP 1/2`, `MAINT`, `no check` */
export function serverWord({ server, status }: { server: string; status: string }, paint: Paint): string {
  const colour =
    status.startsWith('UP') || status === 'no check'
      ? 'green'
      : status.startsWith('MAINT') || status.startsWith('DRAIN')
        ? 'yellow'
        : 'red';
  return `${paint('dim', server.replace(/^svc_/, ''))} ${paint(colour, status)}`;
}

function eventLine({ at, result, summary }: AuditEntry, paint: Paint): string {
  const bad = result === 'failed' || result === 'rolled-back';
  const said = bad ? paint('red', summary) : result === 'held' ? paint('yellow', summary) : summary;
  return `${paint('dim', at.slice(11, 19))} ${said}`;
}

/** Cuts to a width without cutting an escape sequence, and says with `…` that it did. */
export function cut(line: string, columns: number): string {
  let width = 0;
  let out = '';
  // oxlint-disable-next-line no-control-regex -- colour sequences begin with ESC
  for (const part of line.split(/(\u001B\[[0-9;]*m)/)) {
    if (part.startsWith('\u001B')) {
      out += part;
    } else {
      const left = Math.max(0, columns - width);
      out += part.length > left && left > 0 ? `${part.slice(0, left - 1)}…` : part.slice(0, left);
      width += part.length;
    }
  }
  return out;
}

/** The screen while something is drawn on it again and again: its own page, without a cursor (ECMA-48, xterm). */
export const FULL_SCREEN = { enter: '\u001B[?1049h\u001B[?25l', leave: '\u001B[?25h\u001B[?1049l' } as const;

/** Draws over what was there, so that nothing flickers. */
export function redrawn(screen: string): string {
  return `\u001B[H${screen.replaceAll('\n', '\u001B[K\n')}\u001B[K\u001B[J`;
}
