import { readFileSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';

export type Section = Record<string, string>;
type Watcher = (section: string, key: string, value: string | undefined) => void;

/** Sections that the HTTP API may not change (config.erl keeps code-running ones out of reach). */
const blacklisted = new Set([
  'daemons',
  'external',
  'httpd_design_handlers',
  'httpd_db_handlers',
  'native_query_servers',
  'query_servers',
]);

/**
 * CouchDB's configuration: ini files in order, later ones win, changes are written to the last of them.
 * A change made without persistence lives until `reload`.
 */
export class Settings {
  readonly #files: string[];
  readonly #watchers: Watcher[] = [];
  #sections = new Map<string, Map<string, string>>();
  #writing: Promise<void> = Promise.resolve();

  constructor(files: string[]) {
    this.#files = files;
    this.#sections = readAll(files);
  }

  watch(watcher: Watcher): void {
    this.#watchers.push(watcher);
  }

  get(section: string, key: string): string | undefined {
    return this.#sections.get(section)?.get(key);
  }

  flag(section: string, key: string, otherwise: boolean): boolean {
    const value = this.get(section, key);
    return value === undefined ? otherwise : value === 'true';
  }

  number(section: string, key: string, otherwise: number): number {
    const value = Number(this.get(section, key));
    return Number.isFinite(value) && this.get(section, key) !== undefined ? value : otherwise;
  }

  section(name: string): Section {
    return Object.fromEntries([...(this.#sections.get(name) ?? [])].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }

  all(): Record<string, Section> {
    const names = [...this.#sections.keys()].toSorted();
    return Object.fromEntries(names.map((name) => [name, this.section(name)]));
  }

  isBlacklisted(section: string): boolean {
    return blacklisted.has(section);
  }

  /** Sets or, with `undefined`, removes a value; resolves when it is in the file. */
  async set(section: string, key: string, value: string | undefined, persist: boolean): Promise<void> {
    const keys = this.#sections.get(section) ?? new Map<string, string>();
    if (value === undefined) keys.delete(key);
    else keys.set(key, value);
    if (keys.size === 0) this.#sections.delete(section);
    else this.#sections.set(section, keys);
    if (persist) {
      this.#writing = this.#writing.then(() => this.#write(section, key, value));
      await this.#writing;
    }
    for (const watcher of this.#watchers) watcher(section, key, value);
  }

  /** Reads the files again: what was set without persistence is gone. */
  reload(): void {
    const before = this.#sections;
    this.#sections = readAll(this.#files);
    for (const [section, keys] of before) {
      for (const [key, value] of keys) this.#tellIfChanged(section, key, value);
    }
    for (const [section, keys] of this.#sections) {
      for (const key of keys.keys()) this.#tellIfChanged(section, key, before.get(section)?.get(key));
    }
  }

  #tellIfChanged(section: string, key: string, before: string | undefined): void {
    const now = this.get(section, key);
    if (now === before) return;
    for (const watcher of this.#watchers) watcher(section, key, now);
  }

  async #write(section: string, key: string, value: string | undefined): Promise<void> {
    const file = this.#files.at(-1);
    if (file === undefined) return;
    const text = await readFile(file, 'utf8').catch(() => '');
    await replaceFile(file, editIni(text, section, key, value));
  }
}

/** A reader never sees half a file where the directory can be written; else the file itself is. */
async function replaceFile(file: string, text: string): Promise<void> {
  try {
    await writeFile(`${file}.new`, text, { mode: 0o640 });
    await rename(`${file}.new`, file);
  } catch {
    await writeFile(file, text);
  }
}

function readAll(files: string[]): Map<string, Map<string, string>> {
  const sections = new Map<string, Map<string, string>>();
  for (const file of files) {
    let text = '';
    try {
      text = readFileSync(file, 'utf8');
    } catch {
      continue; // the release starts without a missing local.ini too
    }
    parseInto(sections, text);
  }
  return sections;
}

function parseInto(sections: Map<string, Map<string, string>>, text: string): void {
  let section = '';
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith(';') || line.startsWith('#')) continue;
    const head = line.match(/^\[(.+)\]$/)?.[1];
    if (head !== undefined) {
      section = head;
      continue;
    }
    const at = line.indexOf('=');
    if (at < 1) continue;
    const keys = sections.get(section) ?? new Map<string, string>();
    const value = line.slice(at + 1).trim();
    if (value === '') keys.delete(line.slice(0, at).trim());
    else keys.set(line.slice(0, at).trim(), value);
    sections.set(section, keys);
  }
}

/** Changes one value in an ini text and leaves every other line, comments too, as it was. */
export function editIni(text: string, section: string, key: string, value: string | undefined): string {
  const lines = text === '' ? [] : text.replace(/\n$/, '').split('\n');
  const start = lines.findIndex((line) => line.trim() === `[${section}]`);
  if (start < 0) {
    if (value === undefined) return text;
    return `${[...lines, `[${section}]`, `${key} = ${value}`].join('\n')}\n`;
  }
  let end = lines.findIndex((line, i) => i > start && line.trim().startsWith('['));
  if (end < 0) end = lines.length;
  const at = lines.findIndex((line, i) => i > start && i < end && line.split('=')[0]?.trim() === key);
  if (value === undefined) {
    if (at >= 0) lines.splice(at, 1);
  } else if (at >= 0) lines[at] = `${key} = ${value}`;
  else lines.splice(start + 1, 0, `${key} = ${value}`);
  return `${lines.join('\n')}\n`;
}
