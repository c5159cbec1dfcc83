import { readFile, mkdir, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cgroupRoot } from '../lab/place.ts';
import { childrenOf } from '../support/children.ts';

/** Short, so that a program that waits for its next period adds little to the time of an answer. */
const PERIOD_US = 10_000;

/**
 * Bounds programs to a part of a core each, by the kernel's CPU groups: as if each had a core of its own, which is
 * slower by that part. It makes figures that need more cores than this machine has. Needs root.
 */
export class CoreShares {
  readonly #root: string;
  readonly #files: readonly (readonly [name: string, content: string])[];
  readonly #groups: string[] = [];

  private constructor(root: string, files: readonly (readonly [name: string, content: string])[]) {
    this.#root = root;
    this.#files = files;
  }

  /** @param share of a core, for each program; 0.1 to 1 */
  static async create(share: number): Promise<CoreShares> {
    const quota = String(Math.round(PERIOD_US * share));
    const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' '));
    const isOld = ([, , type, options]: string[]): boolean =>
      type === 'cgroup' && options?.split(',').includes('cpu') === true;
    const old = mounts.find(isOld)?.[1];
    if (old !== undefined)
      return new CoreShares(old, [
        ['cpu.cfs_period_us', String(PERIOD_US)],
        ['cpu.cfs_quota_us', quota],
      ]);
    const root = await cgroupRoot();
    await writeFile(join(root, 'cgroup.subtree_control'), '+cpu');
    return new CoreShares(root, [['cpu.max', `${quota} ${PERIOD_US}`]]);
  }

  /** Makes a group. @returns the file that takes the pids of its programs */
  async group(name: string): Promise<string> {
    const group = join(this.#root, `bornemisza-bench-${process.pid}-${name}`);
    await mkdir(group);
    this.#groups.push(group);
    for (const [file, content] of this.#files) await writeFile(join(group, file), content);
    return join(group, 'cgroup.procs');
  }

  /** Puts a program that runs, and what it started, into a group of its own. */
  async bound(name: string, pid: number): Promise<void> {
    const file = await this.group(name);
    for (const each of await tree(pid)) await writeFile(file, String(each));
  }

  /** The programs must have ended. */
  async close(): Promise<void> {
    for (const group of this.#groups) await rmdir(group);
  }
}

async function tree(pid: number): Promise<number[]> {
  return [pid, ...(await Promise.all((await childrenOf(pid)).map(tree))).flat()];
}
