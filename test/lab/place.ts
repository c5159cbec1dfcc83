import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LabPlace } from './namespace.ts';
import { run } from './process.ts';

const runRoot = '/run/bornemisza-lab';
const teardown = fileURLToPath(new URL('teardown.sh', import.meta.url));

/** A place of this process: with it goes all that stands under its name, however the process ends. */
export type ClaimedPlace = LabPlace & {
  /** What is set for the whole machine: called before it is changed. The last one is put back first. */
  putBackAtEnd(file: string): Promise<void>;
  /** Takes everything away. Throws with what could not be removed. */
  close(): Promise<void>;
};

/**
 * A directory, a cgroup, and names of namespaces, for one lab. The directory appears with its owner's name in it, or
 * not at all.
 */
export async function claimPlace(): Promise<ClaimedPlace> {
  const id = randomBytes(3).toString('hex');
  const cgroups = await cgroupRoot();
  const [directory, cgroup] = [join(runRoot, id), join(cgroups, `lab-${id}`)];
  const draft = join(runRoot, `.draft-${id}`);
  await mkdir(draft, { recursive: true });
  await writeFile(join(draft, 'owner'), `${process.pid} ${await startTimeOf(process.pid)}`);
  await rename(draft, directory);
  const reaper = spawn('/bin/sh', [teardown, directory, '--when-owner-ends'], {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { PATH: process.env['PATH'], LAB_CGROUP_ROOT: cgroups },
    detached: true,
  });
  await writeFile(join(directory, 'reaper'), String(reaper.pid));
  reaper.unref();
  for (const end of [reaper.stdin, reaper.stderr]) (end as unknown as { unref(): void }).unref();
  await mkdir(cgroup);
  let putBack = '';
  let ended: Promise<void> | undefined;
  const end = (): Promise<void> =>
    new Promise((resolve, reject) => {
      let complaint = '';
      reaper.stderr.on('data', (part: Buffer) => (complaint += part.toString()));
      reaper.on('close', (code) => {
        if (code === 0) resolve();
        else reject(new Error(`lab ${id}: ${complaint.trim()}`));
      });
      reaper.ref();
      reaper.stdin.end();
    });
  return {
    id,
    directory,
    cgroup,
    async putBackAtEnd(file) {
      putBack = `${file} ${(await readFile(file, 'utf8')).trim()}\n${putBack}`;
      await writeFile(join(directory, 'put-back'), putBack);
    },
    close: () => (ended ??= end()),
  };
}

/** Takes away every place whose owner is gone, and what is left of half a teardown. Returns their ids. */
export async function sweepPlaces(): Promise<string[]> {
  const swept: string[] = [];
  await removeDrafts();
  for (const { id, owned } of await listPlaces()) {
    if (owned) continue;
    await endPlace(join(runRoot, id));
    swept.push(id);
  }
  return swept;
}

/** The places of this machine; `owned` says whether the process that made it still lives. */
export async function listPlaces(): Promise<
  { readonly id: string; readonly owner: number; readonly owned: boolean }[]
> {
  const places = [];
  for (const id of await traces()) {
    const [pid = '0', startTime = ''] = (await readText(join(runRoot, id, 'owner'))).split(' ');
    const owned = startTime !== '' && (await startTimeOf(Number(pid))) === startTime;
    places.push({ id, owner: Number(pid), owned });
  }
  return places;
}

/** Where the version 2 tree is mounted: alone, or beside version 1 hierarchies. */
export async function cgroupRoot(): Promise<string> {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const mount = mounts.find((line) => / - cgroup2 /.test(line))?.split(' ')[4];
  if (mount === undefined) throw new Error('a lab needs a mounted cgroup version 2 tree');
  return mount;
}

/**
 * Ids of all places of which there is anything left: a run directory, which comes first, or a cgroup or namespace
 * without.
 */
async function traces(): Promise<Set<string>> {
  const names = async (directory: string): Promise<string[]> => readdir(directory).catch(() => []);
  const ids = (await names(runRoot)).filter((name) => /^[0-9a-f]{6}$/.test(name));
  for (const name of [...(await names(await cgroupRoot())), ...(await names('/run/netns'))]) {
    const id = /^lab-([0-9a-f]{6})(-|$)/.exec(name)?.[1];
    if (id !== undefined) ids.push(id);
  }
  return new Set(ids);
}

/** Run directories whose maker died between making and naming them, which takes a millisecond. */
async function removeDrafts(): Promise<void> {
  for (const name of await readdir(runRoot).catch(() => [])) {
    const draft = join(runRoot, name);
    const madeMs = await stat(draft).then(
      ({ mtimeMs }) => mtimeMs,
      () => Number.POSITIVE_INFINITY,
    );
    if (name.startsWith('.draft-') && madeMs < Date.now() - 60_000)
      await rm(draft, { recursive: true, force: true });
  }
}

async function endPlace(directory: string): Promise<void> {
  const cgroup = await cgroupRoot();
  const result = await run(['env', `LAB_CGROUP_ROOT=${cgroup}`, 'sh', teardown, directory]);
  if (result.code !== 0) throw new Error(`lab in ${directory}: ${result.stderr.trim()}`);
}

const readText = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');

/** Field 22 of /proc/PID/stat (proc(5)): tells a process from a later one with its number. Empty when there is none. */
async function startTimeOf(pid: number): Promise<string> {
  const text = await readText(`/proc/${pid}/stat`);
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}
