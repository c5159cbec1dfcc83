import type { StatsFs } from 'node:fs';
import { stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type DiskRoom, diskRoom } from '../../host/disk-room.ts';
import type { Config, Paths } from '../config/config.ts';
import type { HostFinding } from './host-finding.ts';

/** A directory in which this node, or a program that it manages, must be able to write. */
interface WatchedDirectory {
  readonly path: string;
  readonly kind: 'disk' | 'run';
}

interface DisksDependencies {
  readonly nowMs: () => number;
  /** Called when a file system has become full, or has room again. */
  readonly changed: (finding: HostFinding, full: boolean) => void;
  /** Default: statfs(2) and the device of stat(2); tests name file systems that do not exist. */
  readonly read?: (path: string) => Promise<{ readonly device: number; readonly facts: StatsFs }>;
}

/** Two calls for each directory are cheap; a disk that fills at 100 MB/s is noticed before it is full. */
const LOOK_MS = 10_000;

/** The free space where this node has to write: bytes, and inodes, which run out with many small files. */
export class Disks {
  readonly #directories: readonly WatchedDirectory[];
  readonly #dependencies: DisksDependencies;
  #lastMs = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;
  #findings: readonly HostFinding[] = [];

  constructor(directories: readonly WatchedDirectory[], dependencies: DisksDependencies) {
    this.#directories = directories;
    this.#dependencies = dependencies;
  }

  /** What an operator must know, the worst first. */
  get findings(): readonly HostFinding[] {
    return this.#findings;
  }

  /** For this node's record. */
  get tag(): 'full' | undefined {
    return this.#findings.some(isFull) ? 'full' : undefined;
  }

  /** Once a second. Resolves when the present check has ended. */
  async look(): Promise<void> {
    const nowMs = this.#dependencies.nowMs();
    // A file system that does not answer blocks one check, not one more each second.
    if (this.#looking === undefined && nowMs - this.#lastMs >= LOOK_MS) {
      this.#lastMs = nowMs;
      this.#looking = this.#look().finally(() => (this.#looking = undefined));
    }
    await this.#looking;
  }

  async #look(): Promise<void> {
    const rooms = new Map<number, DiskRoom>();
    for (const { path, kind } of this.#directories) {
      const seen = await (this.#dependencies.read ?? read)(path).catch(() => undefined);
      // Another part reports a missing directory; two directories on one file system are one finding.
      if (seen === undefined || rooms.has(seen.device)) continue;
      rooms.set(seen.device, diskRoom(path, seen.facts, kind));
    }
    const bad = [...rooms.values()].filter(({ level }) => level !== 'ok');
    const findings = bad
      .map(({ level, detail, next }): HostFinding => {
        const full = level === 'full';
        const message = full ? `a disk is full: ${detail}` : `a disk is nearly full: ${detail}`;
        const over = 'the disk has room again';
        return { code: full ? 'disk-full' : 'disk-filling', message, next, over };
      })
      .sort((a, b) => Number(isFull(b)) - Number(isFull(a)));
    const [was, now] = [this.#findings.find(isFull), findings.find(isFull)];
    this.#findings = findings;
    if (was === undefined && now !== undefined) this.#dependencies.changed(now, true);
    if (was !== undefined && now === undefined) this.#dependencies.changed(was, false);
  }
}

const isFull = ({ code }: HostFinding): boolean => code === 'disk-full';

async function read(path: string): Promise<{ device: number; facts: StatsFs }> {
  return { device: (await stat(path)).dev, facts: await statfs(path) };
}

/** The directories in which this node and its programs have to write. */
export function writtenTo(paths: Paths, role: Config['role']): WatchedDirectory[] {
  const data = role === 'db' ? [paths.couchdbFiles, paths.couchdbData, join(paths.couchdbData, 'data')] : [];
  const disks = [paths.state, paths.haproxyFiles, dirname(paths.config), ...data];
  return [
    ...disks.map((path): WatchedDirectory => ({ path, kind: 'disk' })),
    // Sockets, and requests to root's units.
    { path: paths.run, kind: 'run' },
  ];
}
