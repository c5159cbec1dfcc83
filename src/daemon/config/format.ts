import { parse } from 'smol-toml';

/**
 * The format of ROLE.toml. A later version of the program may need another one; root converts the file when the package
 * is upgraded (`bornemisza config migrate`), line by line, so that the comments of its owner stay.
 */
interface Migration {
  /** The resulting format. The input is the previous one. */
  readonly to: number;
  /** For the operator: what changes. */
  readonly what: string;
  apply(text: string): string;
}

/** In order, without a gap. */
export const MIGRATIONS: readonly Migration[] = [
  { to: 1, what: 'it names its format', apply: withFormatLine },
];

/** The format that this version reads and writes. */
export const CONFIG_FORMAT = MIGRATIONS.at(-1)?.to ?? 0;

const NOTE = '# Format of this file. Upgrades of the package convert it and keep the previous file.';

/** @throws TomlError when the text is no TOML */
export function formatOf(text: string): number {
  const { format } = parse(text);
  return typeof format === 'number' && Number.isSafeInteger(format) && format > 0 ? format : 0;
}

/** @returns the text in the newest format, and the changes; an up-to-date text unchanged */
export function migrated(
  text: string,
  migrations: readonly Migration[] = MIGRATIONS,
): { readonly text: string; readonly changes: readonly string[] } {
  const due = migrations.filter(({ to }) => to > formatOf(text));
  return {
    text: due.reduce((at, step) => withFormat(step.apply(at), step.to), text),
    changes: due.map(({ what }) => what),
  };
}

function withFormat(text: string, format: number): string {
  return text.replace(/^format\s*=\s*\d+/m, `format = ${format}`);
}

/** Before the first table, below the comment at the head of the file. */
function withFormatLine(text: string): string {
  const lines = text.split('\n');
  const at = lines.findIndex((line) => line.trim() !== '' && !line.trim().startsWith('#'));
  const head = at < 0 ? lines.length : at;
  return [...lines.slice(0, head), NOTE, 'format = 1', '', ...lines.slice(head)].join('\n');
}
