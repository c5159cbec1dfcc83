import { type FSWatcher, watch } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { replaceWhole } from '../../host/whole-file.ts';

export interface UnitWatchPaths {
  /** Written here: the cgroups whose processes are to be watched. */
  readonly watched: string;
  /** Written by the program: those of them that are stopped. */
  readonly stopped: string;
}

/** What the program reads; it watches no more. */
const MOST_UNITS = 64;
const MOST_BYTES = 64 * 1024;
/** The program repeats itself each second. If it is stopped itself, what it said last counts no more. */
const STALE_MS = 5000;

/**
 * The daemon's side of systemd/unit-watch, which sees the state of each process, as the daemon does not. Each side
 * writes one file, a cgroup below /sys/fs/cgroup in each line. Without the program nothing is stopped: checks decide.
 */
export class UnitWatch {
  readonly #paths: UnitWatchPaths;
  #units: ReadonlyMap<string, string> = new Map();
  #changed: (unit: string) => void = () => undefined;
  #said: ReadonlySet<string> = new Set();
  #listening: FSWatcher | undefined;
  #written: string | undefined;
  #writing: Promise<void> = Promise.resolve();
  #reading: Promise<void> = Promise.resolve();

  constructor(paths: UnitWatchPaths) {
    this.#paths = paths;
  }

  /**
   * Replaces what is watched.
   *
   * @param units name of each unit, by its cgroup
   * @param changed called when one of them was stopped, or continues
   */
  watch(units: ReadonlyMap<string, string>, changed: (unit: string) => void): void {
    this.#units = units;
    this.#changed = changed;
    this.#writing = this.#writing.then(() => this.#write());
  }

  async isStopped(cgroup: string): Promise<boolean> {
    this.#listen();
    await this.#read();
    return this.#said.has(cgroup);
  }

  close(): void {
    this.#listening?.close();
    this.#listening = undefined;
  }

  async #write(): Promise<void> {
    const { watched } = this.#paths;
    const text = [...this.#units.keys()]
      .slice(0, MOST_UNITS)
      .map((cgroup) => `${cgroup}\n`)
      .join('');
    if (text === this.#written) return;
    try {
      // tmpfiles creates the directory, as the daemon may not.
      if (this.#written === undefined)
        await mkdir(dirname(watched), { recursive: true }).catch(() => undefined);
      await replaceWhole(watched, text, { mode: 0o644, oneWriter: true, durable: false });
      this.#written = text;
    } catch {
      // The next change of a unit writes it; until then checks decide.
    }
  }

  /** The program may start after us, and its directory goes with it. */
  #listen(): void {
    if (this.#listening !== undefined) return;
    const { stopped } = this.#paths;
    try {
      this.#listening = watch(dirname(stopped), { persistent: false }, (_, name) => {
        if (name === basename(stopped)) void this.#read();
        else if (name === basename(dirname(stopped))) this.close();
      }).on('error', () => this.close());
    } catch {
      // Not there, or no inotify left: each check reads the file.
    }
  }

  /** One after the other, so that the newest content is what counts. */
  #read(): Promise<void> {
    this.#reading = this.#reading.then(() => this.#readOnce());
    return this.#reading;
  }

  async #readOnce(): Promise<void> {
    const said = await linesOf(this.#paths.stopped);
    const before = this.#said;
    this.#said = said;
    for (const [cgroup, unit] of this.#units)
      if (said.has(cgroup) !== before.has(cgroup)) this.#changed(unit);
  }
}

/** None if the file is old, too long, or not there. */
async function linesOf(path: string): Promise<ReadonlySet<string>> {
  const handle = await open(path).catch(() => undefined);
  if (handle === undefined) return new Set();
  try {
    const { mtimeMs, size } = await handle.stat();
    if (size === 0 || size > MOST_BYTES || Date.now() - mtimeMs > STALE_MS) return new Set();
    return new Set((await handle.readFile('utf8')).split('\n'));
  } catch {
    return new Set();
  } finally {
    await handle.close();
  }
}
