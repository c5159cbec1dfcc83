import { readdir, readFile, readlink, writeFile } from 'node:fs/promises';

/** systemd holds 7 to 8, its bus, the daemon and path units the rest; counted on hosts of both roles. */
const INSTANCES_PER_HOST = 12;
/** What the machine's other programs may still open meanwhile. */
const SPARE = 32;
const LIMIT_FILE = '/proc/sys/fs/inotify/max_user_instances';

/**
 * Makes room for the inotify instances of a lab's hosts. A host that gets none hangs without a word: systemd waits for
 * its bus, and path units fail for good. The limit is this machine's, and is raised where that is permitted.
 *
 * @throws Error with the limit, what is in use, and the command that raises it
 */
export async function makeInotifyRoom(
  hosts: number,
  { file = LIMIT_FILE, inUse = inotifyInUse }: { file?: string; inUse?: () => Promise<number> } = {},
): Promise<void> {
  const limit = Number(await readFile(file, 'utf8'));
  const used = await inUse();
  const needed = used + hosts * INSTANCES_PER_HOST + SPARE;
  if (needed <= limit) return;
  const wanted = 2 ** Math.ceil(Math.log2(needed));
  try {
    await writeFile(file, `${wanted}\n`);
  } catch (error) {
    throw new Error(
      `this machine has inotify instances for no ${hosts} hosts more: ${used} of ${limit} are in use. ` +
        `Next: sysctl fs.inotify.max_user_instances=${wanted}`,
      { cause: error },
    );
  }
}

/** Of all users: root's processes are nearly all, and a process may end while it is looked at. */
async function inotifyInUse(): Promise<number> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const counts = await Promise.all(
    pids.map(async (pid) => {
      const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
      const links = await Promise.all(
        files.map((file) => readlink(`/proc/${pid}/fd/${file}`).catch(() => '')),
      );
      return links.filter((link) => link === 'anon_inode:inotify').length;
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}
