import { existsSync, readFileSync } from 'node:fs';
import { appendFile, mkdir, readdir, rm, truncate } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Copy } from './copy.ts';

type Open = { copy: Copy; pending: string[]; writing: Promise<void> | undefined };

/**
 * The copies on this node, one file each under `database_dir` (`_dbs.couch`, `shards/RANGE/DB.SUFFIX.couch`),
 * opened at first use, so that a file copied there while the node runs is found, and a wiped directory is empty.
 */
export class Files {
  readonly #dir: string;
  readonly #open = new Map<string, Open>();
  #onOpen: (copy: Copy) => void = () => undefined;

  constructor(dir: string) {
    this.#dir = dir;
  }

  onOpen(listener: (copy: Copy) => void): void {
    this.#onOpen = listener;
  }

  path(name: string): string {
    return join(this.#dir, `${name}.couch`);
  }

  exists(name: string): boolean {
    return this.#open.has(name) || existsSync(this.path(name));
  }

  /** @returns the copy, or undefined when there is no such file. */
  open(name: string): Copy | undefined {
    const open = this.#open.get(name);
    if (open !== undefined) return open.copy;
    let text: string;
    try {
      text = readFileSync(this.path(name), 'utf8');
    } catch {
      return undefined;
    }
    return this.#load(name, text);
  }

  #load(name: string, text: string): Copy {
    const copy = new Copy(name);
    const whole = text.lastIndexOf('\n') + 1; // a last line without its end was cut off by a crash
    for (const line of text.slice(0, whole).split('\n')) copy.replay(line);
    this.#enter(name, copy, whole === 0);
    if (whole < text.length)
      void truncate(this.path(name), Buffer.byteLength(text.slice(0, whole))).catch(() => undefined);
    return copy;
  }

  /** Opens the copy or makes an empty one; `fresh` tells which. */
  async create(name: string): Promise<{ copy: Copy; fresh: boolean }> {
    const found = this.open(name);
    if (found !== undefined) return { copy: found, fresh: false };
    await mkdir(dirname(this.path(name)), { recursive: true });
    const already = this.open(name); // another request may have made it meanwhile
    if (already !== undefined) return { copy: already, fresh: false };
    const copy = new Copy(name);
    this.#enter(name, copy, true);
    await this.flush(name);
    return { copy, fresh: true };
  }

  #enter(name: string, copy: Copy, fresh: boolean): void {
    const open: Open = { copy, pending: [], writing: undefined };
    this.#open.set(name, open);
    copy.writeTo((line) => {
      open.pending.push(line);
      open.writing ??= this.#write(name, open);
      open.writing.catch(() => undefined); // whoever flushes hears of it
    }, fresh);
    this.#onOpen(copy);
  }

  /** Resolves when all that was changed so far is in the file. */
  async flush(name: string): Promise<void> {
    await this.#open.get(name)?.writing;
  }

  async flushAll(): Promise<void> {
    await Promise.all([...this.#open.keys()].map((name) => this.flush(name)));
  }

  /** Lines that come while one write is under way go out together in the next. */
  async #write(name: string, open: Open): Promise<void> {
    await Promise.resolve();
    try {
      while (open.pending.length > 0 && this.#open.get(name) === open) {
        const text = `${open.pending.join('\n')}\n`;
        const count = open.pending.length;
        await appendFile(this.path(name), text, { mode: 0o640 });
        open.pending.splice(0, count); // a full disk keeps them for the next try
      }
    } finally {
      open.writing = undefined;
    }
  }

  async remove(name: string): Promise<boolean> {
    const existed = this.exists(name);
    const open = this.#open.get(name);
    this.#open.delete(name);
    await open?.writing;
    await rm(this.path(name), { force: true });
    return existed;
  }

  /** Names of all copies on this node, orphans included, sorted. */
  async list(): Promise<string[]> {
    const found = await readdir(this.#dir, { recursive: true }).catch(() => []);
    return found
      .filter((path) => path.endsWith('.couch'))
      .map((path) => path.slice(0, -'.couch'.length))
      .toSorted();
  }

  opened(): Copy[] {
    return [...this.#open.values()].map(({ copy }) => copy);
  }
}
