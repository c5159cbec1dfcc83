import { styleText } from 'node:util';
import type { Output } from './io.ts';

type Format = Exclude<Parameters<typeof styleText>[0], readonly unknown[]>;
export type Paint = (format: Format, text: string) => string;

/** Colours text, or returns it as it is where the output takes none. */
export function paintFor(output: Output): Paint {
  return output.colour
    ? (format, text) => styleText(format, text, { validateStream: false })
    : (_format, text) => text;
}

const GOOD = new Set(['up', 'in', 'alive', 'ok', 'converged', 'running', 'yes']);
const DOUBTFUL = new Set([
  'suspect',
  'unwatched',
  'drain',
  'warn',
  'pending',
  'working',
  'leaving',
  'held',
  'starting',
  'stopping',
  'absent',
]);
const BAD = new Set(['down', 'out', 'dead', 'fail', 'failed', 'failing', 'stopped', 'rolled-back']);

/** Green: well. Yellow: unsure. Red: a problem. */
export function paintWord(paint: Paint, word: string): string {
  if (GOOD.has(word)) return paint('green', word);
  if (DOUBTFUL.has(word)) return paint('yellow', word);
  if (BAD.has(word)) return paint('red', word);
  return word;
}
