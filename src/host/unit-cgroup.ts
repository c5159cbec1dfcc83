import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * What the kernel says of a systemd unit's processes (cgroups(7); admin-guide/cgroup-v2.rst, "[Un]populated
 * Notification"). The daemon sees no process of another user, but everybody may read the events of a cgroup. A question
 * to systemd would be a process for each.
 */

/** Where cgroup v2 is mounted on EL. */
export const CGROUPS = '/sys/fs/cgroup';
/** `system.slice/system-shop.slice/shop@1.service`, and some room. */
const DEEPEST = 5;
/** A machine has some dozen slices. */
const MOST_SLICES = 500;

interface UnitEvents {
  /** The unit, or a cgroup of it, has a process. */
  readonly populated: boolean;
  readonly frozen: boolean;
  /** Of the file: a unit that was started again has another. */
  readonly inode: number;
}

/**
 * @returns the directory of a system unit that has one, which is each that runs; undefined: it does not run
 * @throws NodeJS.ErrnoException `ENOENT` without cgroup v2, or another if it cannot be looked for
 */
export async function findUnit(unit: string, root = CGROUPS): Promise<string | undefined> {
  await (await open(join(root, 'cgroup.controllers'))).close();
  // systemd puts `_` before a name that could be a file of the kernel's.
  const names = new Set([unit, `_${unit}`]);
  let slices = [root];
  for (let depth = 0; depth < DEEPEST && slices.length > 0; depth++) {
    const below: string[] = [];
    for (const slice of slices.slice(0, MOST_SLICES)) {
      const entries = await readdir(slice, { withFileTypes: true }).catch(gone([]));
      for (const entry of entries) {
        if (!entry.isDirectory()) continue;
        if (names.has(entry.name)) return join(slice, entry.name);
        // Not into services: a user's own systemd has units below its service, with names of its choice.
        if (entry.name.endsWith('.slice')) below.push(join(slice, entry.name));
      }
    }
    slices = below;
  }
  return undefined;
}

export const eventsFile = (directory: string): string => join(directory, 'cgroup.events');

/**
 * @returns undefined if the cgroup is gone
 * @throws NodeJS.ErrnoException if it cannot be read
 */
export async function unitEvents(directory: string): Promise<UnitEvents | undefined> {
  const handle = await open(eventsFile(directory)).catch(gone(undefined));
  if (handle === undefined) return undefined;
  try {
    const [{ ino: inode }, text] = await Promise.all([handle.stat(), handle.readFile('utf8')]);
    return { populated: /^populated 1$/m.test(text), frozen: /^frozen 1$/m.test(text), inode };
  } catch (error) {
    return gone(undefined)(error as NodeJS.ErrnoException);
  } finally {
    await handle.close();
  }
}

/** A cgroup can be removed while its file is open (`ENODEV`). */
function gone<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT' || error.code === 'ENODEV' || error.code === 'ENOTDIR') return value;
    throw error;
  };
}
