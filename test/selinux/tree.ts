/**
 * A tree of files of a machine on which the package is installed, with an SELinux policy of its own. No part of it
 * needs SELinux on the machine that runs it.
 */
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
/** Copying 200 MB, or compiling a policy, takes 20 s on an idle machine. */
const STEP_TIMEOUT_MS = 600_000;
/** A whole policy listed. */
const OUTPUT_BYTES = 64 * 1024 * 1024;

/** Returns standard output. */
export async function must(program: string, args: readonly string[], cwd = '/'): Promise<string> {
  const { stdout } = await execute(program, args, { cwd, timeout: STEP_TIMEOUT_MS, maxBuffer: OUTPUT_BYTES });
  return stdout;
}

/** Debian's packages of the tree; what they depend on comes along. */
const PACKAGES = ['libc-bin', 'base-files', 'dash', 'coreutils', 'selinux-utils', 'policycoreutils'];
/** Neither read at run time nor small. */
const LEFT_OUT = /^\/usr\/share\/(doc|man|locale|info|perl|lintian|bug|zoneinfo)\/|^\/usr\/lib\/[^/]+\/perl/;
/** Directories that are links in each of these distributions. */
const MERGED = ['bin', 'sbin', 'lib', 'lib64'];

/** Makes at `root` a tree of files with the packages and the rpm; without a policy. */
export async function makeRoot(root: string, rpm: string): Promise<void> {
  for (const name of MERGED) {
    await mkdir(join(root, 'usr', name), { recursive: true });
    await symlink(`usr/${name}`, join(root, name));
  }
  await copyPackages(root);
  await must('sh', ['-c', 'rpm2cpio "$1" | cpio -idm --quiet', 'sh', rpm], root);
  for (const name of ['passwd', 'group', 'nsswitch.conf'])
    await cp(join('/etc', name), join(root, 'etc', name));
  await must('ldconfig', ['-r', root]);
  for (const name of ['proc', 'sys', 'dev', 'run', 'tmp', 'root'])
    await mkdir(join(root, name), { recursive: true });
}

async function put(root: string, path: string, text: string): Promise<void> {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), text);
}

async function copyPackages(root: string): Promise<void> {
  const files = new Set<string>();
  for (const name of await withDependencies(PACKAGES)) {
    // "multi-arch: same" packages have their architecture in the name.
    for (const list of [`${name}.list`, `${name}:${DPKG_ARCH}.list`]) {
      const text = await readFile(join('/var/lib/dpkg/info', list), 'utf8').catch(() => '');
      for (const path of text.split('\n'))
        if (path.length > 2 && !LEFT_OUT.test(path) && !MERGED.includes(path.slice(1))) files.add(path);
    }
  }
  const list = `${root}.files`;
  await writeFile(list, [...files].join('\n'));
  const copy = [
    'tar -C / --no-recursion --ignore-failed-read -cf - -T "$1" 2>/dev/null',
    'tar -C "$2" --keep-directory-symlink -xf -',
  ].join(' | ');
  await must('sh', ['-c', copy, 'sh', list, root]);
  await rm(list);
}

const DPKG_ARCH = (await must('dpkg', ['--print-architecture'])).trim();

/** Names of installed packages, with all that they need. */
async function withDependencies(names: readonly string[]): Promise<ReadonlySet<string>> {
  const format = '${Package}|${Provides}|${Pre-Depends}, ${Depends}\n';
  const needs = new Map<string, string[]>();
  const namesIn = (text: string): string[] =>
    text.split(/[,|]/).flatMap((each) => /^\s*([a-z0-9.+-]+)/.exec(each)?.[1] ?? []);
  for (const line of (await must('dpkg-query', ['-W', '-f', format])).split('\n')) {
    const [name = '', provides = '', ...depends] = line.split('|');
    for (const known of [name, ...namesIn(provides)])
      needs.set(known, [...(needs.get(known) ?? []), name, ...namesIn(depends.join('|'))]);
  }
  const all = new Set(names);
  // A set that grows while it is walked: what was added is visited as well.
  for (const name of all) for (const need of needs.get(name) ?? []) all.add(need);
  return all;
}

/** A policy as its store has it: `etc/selinux/NAME` and `var/lib/selinux/NAME` below `store`. */
export type Policy = { readonly store: string; readonly name: string };

/** Gives the tree the policy under the name that EL has for it, as the package's scriptlets look for that name. */
export async function placePolicy(root: string, { store, name }: Policy): Promise<void> {
  for (const directory of ['etc/selinux', 'var/lib/selinux']) {
    const to = join(root, directory, 'targeted');
    await rm(to, { recursive: true, force: true });
    await mkdir(dirname(to), { recursive: true });
    await must('cp', ['-a', join(store, directory, name), to]);
  }
  await put(root, '/etc/selinux/config', 'SELINUX=enforcing\nSELINUXTYPE=targeted\n');
  await put(root, '/etc/selinux/semanage.conf', 'module-store = direct\nexpand-check = 0\n');
}
