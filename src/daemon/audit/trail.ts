import { spawn } from 'node:child_process';
import { appendFile, readFile, rename, stat } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import type { AuditEntry } from '../control/api.ts';
import { type Log, oneLine } from '../process/log.ts';
import { parseEntry } from './stored.ts';

export type NewAuditEntry = Omit<AuditEntry, 'id' | 'at'>;

/** Entries in memory for `events` and `explain`: about a week of a busy cluster, under 2 MB. */
const MAX_ENTRIES_IN_MEMORY = 2000;
/** The file is rolled over at this size and one older file is kept, so the trail never fills a disk. */
const MAX_FILE_BYTES = 2 * 1024 * 1024;

interface AuditOptions {
  readonly file: string;
}
interface AuditDependencies {
  readonly clock: Clock;
  /** The second destination of each entry besides the file: the journal. */
  readonly announce: (entry: AuditEntry) => void;
  /** Called if the file cannot be written or has foreign content; the trail continues in memory. */
  readonly onProblem: (error: Error) => void;
}

/** The append-only answer to "why is this backend out?". One line of JSON an entry, in the order it happened. */
export class AuditTrail {
  readonly #options: AuditOptions;
  readonly #dependencies: AuditDependencies;
  readonly #followers = new Set<(entry: AuditEntry) => void>();
  #entries: AuditEntry[] = [];
  #nextId = 1;
  #fileBytes = 0;
  /** Ends an incomplete line after a power cut or a full disk, so that only that line is lost. */
  #lineEnd = '';
  #writing: Promise<void> = Promise.resolve();

  constructor(options: AuditOptions, dependencies: AuditDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  /** Reads the entries of earlier runs. Lines that are not entries (a file cut short) are skipped and reported. */
  async load(): Promise<void> {
    const { file } = this.#options;
    let refused = 0;
    for (const path of [`${file}.1`, file]) {
      const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') this.#dependencies.onProblem(error);
        return '';
      });
      for (const line of text.split('\n')) {
        if (line === '') continue;
        const entry = parseEntry(line);
        if (entry === undefined) refused += 1;
        else this.#entries.push(entry);
      }
      this.#lineEnd = text === '' || text.endsWith('\n') ? '' : '\n';
    }
    this.#entries = this.#entries.slice(-MAX_ENTRIES_IN_MEMORY);
    this.#nextId = Math.max(0, ...this.#entries.map((entry) => entry.id)) + 1;
    this.#fileBytes = await stat(file).then(
      (found) => found.size,
      () => 0,
    );
    if (refused > 0) {
      this.#dependencies.onProblem(
        new Error(`${refused} lines of ${file} are not audit entries and were skipped`),
      );
    }
  }

  append(entry: NewAuditEntry): AuditEntry {
    const complete: AuditEntry = {
      id: this.#nextId,
      at: new Date(this.#dependencies.clock.wallMs()).toISOString(),
      ...entry,
    };
    this.#nextId += 1;
    this.#entries.push(complete);
    if (this.#entries.length > MAX_ENTRIES_IN_MEMORY) this.#entries.shift();
    this.#writing = this.#writing.then(() => this.#write(complete));
    for (const follower of this.#followers) follower(complete);
    this.#dependencies.announce(complete);
    return complete;
  }

  /** Oldest first. `subject` is a HOST/ROLE, a HOST or a plugin's name. */
  query(options: { subject?: string; sinceId?: number; limit?: number } = {}): readonly AuditEntry[] {
    const { subject, sinceId = 0, limit = MAX_ENTRIES_IN_MEMORY } = options;
    return this.#entries
      .filter((entry) => entry.id > sinceId && (subject === undefined || isAbout(entry, subject)))
      .slice(-limit);
  }

  /** @returns the function that ends it */
  follow(follower: (entry: AuditEntry) => void): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  /** Waits until everything is on disk. */
  async close(): Promise<void> {
    this.#followers.clear();
    await this.#writing;
  }

  async #write(entry: AuditEntry): Promise<void> {
    const { file } = this.#options;
    const line = `${JSON.stringify(entry)}\n`;
    try {
      if (this.#fileBytes + line.length > MAX_FILE_BYTES) {
        await rename(file, `${file}.1`);
        this.#fileBytes = 0;
        this.#lineEnd = '';
      }
      await appendFile(file, this.#lineEnd + line, { mode: 0o600 });
      this.#lineEnd = '';
      this.#fileBytes += line.length;
    } catch (error) {
      this.#lineEnd = '\n';
      this.#dependencies.onProblem(error as Error);
    }
  }
}

export function isAbout(entry: AuditEntry, subject: string): boolean {
  return (
    entry.plugin === subject ||
    entry.subjects.some((name) => name === subject || name.startsWith(`${subject}/`))
  );
}

/**
 * Hands an entry to journald with structured fields, so that `journalctl BM_EVENT=change` finds it. Standard output
 * carries priority and message only (sd-daemon(3)); logger(1) keeps the unit and takes the fields on standard input.
 */
function journalEntry(entry: AuditEntry, onError: (error: Error) => void): void {
  const fields: Record<string, string | undefined> = {
    MESSAGE: messageOf(entry),
    PRIORITY:
      entry.result === 'failed' || entry.result === 'rolled-back' ? '4' : entry.result === 'held' ? '4' : '6',
    SYSLOG_IDENTIFIER: 'bornemisza',
    BM_EVENT: entry.kind,
    BM_RESULT: entry.result,
    BM_PLUGIN: entry.plugin,
    BM_NODES: entry.subjects.join(' '),
    BM_CODE: entry.error?.code,
    BM_AUDIT_ID: String(entry.id),
  };
  const child = spawn('logger', ['--journald'], { stdio: ['pipe', 'ignore', 'ignore'], timeout: 5000 });
  child.once('error', onError);
  // Without a file descriptor, `spawn` gives back a child without streams.
  if (child.pid === undefined) return;
  child.stdin.on('error', onError);
  child.stdin.end(
    Object.entries(fields)
      .filter(([, value]) => value !== undefined && value !== '')
      .map(([key, value]) => `${key}=${oneLine(value ?? '')}\n`)
      .join(''),
  );
}

/** Writes an entry to the journal, if this process has one, or to the log. */
export function announceEntry(entry: AuditEntry, log: Log, journal: boolean): void {
  if (entry.result === 'failed' || entry.result === 'rolled-back' || entry.result === 'held') {
    // Also on our own output: journald may not know the unit of a logger that has already ended, and `journalctl -u`
    // would miss the entry.
    log.warn({ audit: entry.id }, messageOf(entry));
  } else if (journal) {
    journalEntry(entry, (error) => log.warn({ err: error }, messageOf(entry)));
  } else {
    log.info({ audit: entry.id }, messageOf(entry));
  }
}

/** What happened, why, and what next, in one line. */
export function messageOf(entry: AuditEntry): string {
  const why = entry.trigger === '' ? '' : ` [${entry.trigger}]`;
  const took = entry.durationMs === undefined ? '' : ` in ${Math.round(entry.durationMs)} ms`;
  const { message, next } = entry.error ?? { message: '', next: '' };
  const failed = message === '' || entry.summary.endsWith(message) ? '' : `: ${message}`;
  const error = next === '' ? failed : `${failed} -- ${next}`;
  return `${entry.summary}${took}${error}${why}`;
}
