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

/** Neither read at run time nor small. */
const LEFT_OUT = /^\/usr\/share\/(doc|man|locale|info|perl|lintian|bug|zoneinfo)\/|^\/usr\/lib\/[^/]+\/perl/;
/** Directories that are links in each of these distributions. */
const MERGED = ['bin', 'sbin', 'lib', 'lib64'];

/**
 * Makes at `root` the files of Debian's packages, as they are installed here, and of what these depend on; without a
 * policy.
 */
export async function makeRoot(root: string, packages: readonly string[]): Promise<void> {
  for (const name of MERGED) {
    await mkdir(join(root, 'usr', name), { recursive: true });
    await symlink(`usr/${name}`, join(root, name));
  }
  await copyPackages(root, packages);
  for (const name of ['passwd', 'group', 'nsswitch.conf'])
    await cp(join('/etc', name), join(root, 'etc', name));
  await must('ldconfig', ['-r', root]);
  for (const name of ['proc', 'sys', 'dev', 'run', 'tmp', 'root'])
    await mkdir(join(root, name), { recursive: true });
}

/** Writes a file below `root`, with its directory. */
export async function put(root: string, path: string, text: string): Promise<void> {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), text);
}

async function copyPackages(root: string, packages: readonly string[]): Promise<void> {
  const files = new Set<string>();
  for (const name of await withDependencies(packages)) {
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

const DPKG_ARCH = await must('dpkg', ['--print-architecture']).then(
  (printed) => printed.trim(),
  () => {
    throw new Error('the SELinux machine is made of the packages of a Debian, and dpkg is not here');
  },
);

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
  const absent = names.filter((name) => !needs.has(name));
  if (absent.length > 0)
    throw new Error(`not installed: ${absent.join(' ')}; \`npm run test:selinux\` installs them`);
  const all = new Set(names);
  // A set that grows while it is walked: what was added is visited as well.
  for (const name of all) for (const need of needs.get(name) ?? []) all.add(need);
  return all;
}

/** A directory with the policy `targeted`, made elsewhere; '' for Debian's own. */
export const givenPolicy = process.env['LAB_SELINUX'] ?? '';

/**
 * Gives the tree the given policy, or Debian's with what EL's has and Debian's lacks; and the rules that log what
 * starts in which domain. What is compiled is still the former policy: the package's scriptlet compiles it.
 */
export async function placeGivenPolicy(root: string): Promise<void> {
  const store = join(root, 'var/lib/selinux/targeted/active/modules');
  if (givenPolicy === '') {
    await placePolicy(root, { store: '/', name: 'default' });
    await addModule(store, 'like_el', 'like-el.cil');
    // EL has no module of BIRD.
    await put(store, 'disabled/bird', '');
  } else await placePolicy(root, { store: givenPolicy, name: 'targeted' });
  await addModule(store, 'seen_starting', 'seen-starting.cil');
}

/** As `semodule -i` writes it, which would compile the policy each time. */
async function addModule(store: string, name: string, file: string): Promise<void> {
  await put(store, `400/${name}/lang_ext`, 'cil');
  await put(store, `400/${name}/cil`, await readFile(join(import.meta.dirname, file), 'utf8'));
}

/** Runs a scriptlet of the package in the tree, as rpm does. */
export async function runScriptlet(
  root: string,
  rpm: string,
  name: string,
  remaining: number,
): Promise<void> {
  const body = await must('rpm', ['-qp', '--nosignature', '--qf', `%{${name}}`, rpm]);
  await must('chroot', [root, '/bin/sh', '-c', body, 'scriptlet', String(remaining)]);
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
