import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CGROUPS } from './unit-cgroup.ts';

/** Percent. systemd-oomd kills at 60 % of ten seconds; below a tenth, requests are hardly slower. */
export const STALL_BEGINS = 10;

/**
 * How much work on this machine waits for memory (Documentation/accounting/psi.rst): the root's cgroup has the figures
 * of the whole system, and the daemon sees it, unlike /proc/pressure (`ProcSubset=pid`).
 *
 * @returns percent of the last minute in which no process made progress, since each waited for memory
 * @throws NodeJS.ErrnoException `EOPNOTSUPP` where the kernel does not measure it (EL's default), `ENOENT` without
 *   cgroup v2
 */
export async function memoryStall(root = CGROUPS): Promise<number> {
  const text = await readFile(join(root, 'memory.pressure'), 'utf8');
  return Number(/^full .*\bavg60=(\d+(?:\.\d+)?)/m.exec(text)?.[1] ?? 0);
}
