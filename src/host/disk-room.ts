import type { StatsFs } from 'node:fs';

/** Below this, HAProxy's and our own files cannot be replaced safely, and CouchDB's compaction stops. */
const LEAST_BYTES = 100 * 1024 * 1024;
/** The files of a few databases of CouchDB with all their ranges. */
const LEAST_FILES = 1000;
/** /run is in memory and holds sockets and requests of some bytes each. */
const LEAST_RUN_BYTES = 1024 * 1024;
const LEAST_RUN_FILES = 100;
const LOW_SHARE = 0.1;

export interface DiskRoom {
  /** `full`: a necessary write can fail now. `low`: soon. */
  readonly level: 'ok' | 'low' | 'full';
  readonly detail: string;
  readonly next: string;
}

type Facts = Pick<StatsFs, 'bavail' | 'blocks' | 'bsize' | 'files' | 'ffree'>;

/**
 * The same decision for `doctor` and the daemon.
 *
 * @param facts as statfs(2) gives them
 */
export function diskRoom(
  path: string,
  { bavail, blocks, bsize, files, ffree }: Facts,
  kind: 'disk' | 'run' = 'disk',
): DiskRoom {
  const leastFiles = kind === 'run' ? LEAST_RUN_FILES : LEAST_FILES;
  // Some file systems do not count files and report 0.
  if (files > 0 && ffree < leastFiles)
    return {
      level: 'full',
      detail: `room for only ${ffree} more files under ${path}, however much space is free`,
      next: `remove small files: du -x --inodes ${path} | sort -n | tail`,
    };
  const freeBytes = bavail * bsize;
  const share = blocks === 0 ? 1 : bavail / blocks;
  const detail = `${Math.round(freeBytes / 1024 / 1024)} MiB free under ${path} (${Math.round(share * 100)} %)`;
  const next = `free space: du -xh ${path} | sort -h | tail`;
  if (freeBytes < (kind === 'run' ? LEAST_RUN_BYTES : LEAST_BYTES)) return { level: 'full', detail, next };
  return share < LOW_SHARE ? { level: 'low', detail, next } : { level: 'ok', detail, next: '' };
}
