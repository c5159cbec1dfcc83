import Table from 'cli-table3';
import { stripVTControlCharacters } from 'node:util';
import type { Paint } from './paint.ts';

const GAP = 2;
/** Narrower than this a wrapped last column is no longer read as a sentence. */
const MIN_LAST_COLUMN = 20;

const NO_LINES = Object.fromEntries(
  [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
    'left',
    'left-mid',
    'mid',
    'mid-mid',
    'right',
    'right-mid',
  ].map((name) => [name, '']),
);

/**
 * A table without lines. Columns are as wide as their content; the last one takes what is left of `columns` and
 * wraps at words.
 */
export function renderTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  options: { columns: number; paint: Paint },
): string {
  const widths = head.map((title, at) => widthOf([title, ...rows.map((row) => row[at] ?? '')]));
  const fixed = widths.slice(0, -1).reduce((sum, each) => sum + each + GAP, 0);
  const last = Math.max(MIN_LAST_COLUMN, Math.min(widths.at(-1) ?? 0, options.columns - fixed));
  const table = new Table({
    head: head.map((title) => options.paint('bold', title)),
    chars: { ...NO_LINES, middle: ' '.repeat(GAP) },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
    colWidths: [...widths.slice(0, -1), last],
    wordWrap: true,
    wrapOnWordBoundary: true,
  });
  table.push(...rows.map((row) => [...row]));
  return `${table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')}\n`;
}

/** The width of these columns, with the gap after each. */
export function tableWidth(columns: readonly (readonly string[])[]): number {
  return columns.reduce((sum, words) => sum + widthOf(words) + GAP, 0);
}

function widthOf(words: readonly string[]): number {
  return Math.max(...words.map(width));
}

/** Two columns without a head, e.g. the facts of `status`. */
export function renderFacts(
  facts: readonly (readonly [string, string])[],
  paint: Paint,
  indent = '  ',
): string {
  const widest = Math.max(0, ...facts.map(([name]) => name.length));
  return facts.map(([name, value]) => `${indent}${paint('dim', name.padEnd(widest))}  ${value}\n`).join('');
}

/** Breaks text at words so that no line is longer than `columns`; each line starts with `indent`. */
export function wrap(text: string, columns: number, indent = ''): string {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(/\s+/)) {
    if (line.length > indent.length && width(line) + 1 + width(word) > columns) {
      lines.push(line);
      line = indent;
    }
    line += line.length > indent.length ? ` ${word}` : word;
  }
  return `${[...lines, line].join('\n')}\n`;
}

function width(text: string): number {
  return stripVTControlCharacters(text).length;
}
