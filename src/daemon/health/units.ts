import { type FSWatcher, watch } from 'node:fs';
import { relative } from 'node:path';
import { CGROUPS, eventsFile, findUnit, unitEvents } from '../../host/unit-cgroup.ts';
import type { UnitWatch } from './unit-watch.ts';

/** `stopped`: by SIGSTOP. `unknown`: it cannot be seen here, which is no result about the unit. */
export type UnitState = 'runs' | 'ended' | 'frozen' | 'stopped' | 'unknown';

interface Known {
  readonly directory: string;
  readonly inode: number;
  readonly watcher: FSWatcher | undefined;
}

/** The units that run services of this node, and a sign as soon as one may have ended. */
export class Units {
  readonly #root: string;
  readonly #changed: (unit: string) => void;
  readonly #watch: UnitWatch | undefined;
  readonly #known = new Map<string, Known>();

  /** @param changed called when the kernel reports an event of a unit that was looked at; it may be a false alarm */
  constructor(changed: (unit: string) => void, root = CGROUPS, watch?: UnitWatch) {
    this.#changed = changed;
    this.#root = root;
    this.#watch = watch;
  }

  async look(unit: string): Promise<UnitState> {
    try {
      const known = this.#known.get(unit)?.directory;
      const events = known === undefined ? undefined : await unitEvents(known);
      if (known !== undefined && events !== undefined) return await this.#seen(unit, known, events);
      const directory = await findUnit(unit, this.#root);
      const found = directory === undefined ? undefined : await unitEvents(directory);
      if (directory !== undefined && found !== undefined) return await this.#seen(unit, directory, found);
      this.#forget(unit);
      return 'ended';
    } catch {
      this.#forget(unit);
      return 'unknown';
    }
  }

  /** Ends the watch of all other units. */
  keep(units: ReadonlySet<string | undefined>): void {
    for (const unit of [...this.#known.keys()]) if (!units.has(unit)) this.#forget(unit);
    if (units.size === 0) this.#watch?.close();
  }

  async #seen(
    unit: string,
    directory: string,
    { populated, frozen, inode }: { populated: boolean; frozen: boolean; inode: number },
  ): Promise<UnitState> {
    const known = this.#known.get(unit);
    if (known?.inode !== inode || known.directory !== directory) {
      this.#forget(unit);
      this.#known.set(unit, { directory, inode, watcher: this.#listen(unit, directory) });
      this.#tellWatch();
    }
    if (!populated) return 'ended';
    if (frozen) return 'frozen';
    return (await this.#watch?.isStopped(relative(this.#root, directory))) === true ? 'stopped' : 'runs';
  }

  #tellWatch(): void {
    const units = [...this.#known].map(
      ([unit, { directory }]) => [relative(this.#root, directory), unit] as const,
    );
    this.#watch?.watch(new Map(units), this.#changed);
  }

  /** Without inotify (the limit of the user is reached, say), the next check sees it. */
  #listen(unit: string, directory: string): FSWatcher | undefined {
    try {
      return watch(eventsFile(directory), { persistent: false }, () => this.#changed(unit)).on(
        'error',
        () => undefined,
      );
    } catch {
      return undefined;
    }
  }

  #forget(unit: string): void {
    this.#known.get(unit)?.watcher?.close();
    if (this.#known.delete(unit)) this.#tellWatch();
  }
}
