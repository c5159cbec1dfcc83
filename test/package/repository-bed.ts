import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { buildPackage, type BuiltPackage } from '../../scripts/rpm.ts';
import type { Host } from '../lab/index.ts';
import { repository as tree } from '../lab/layers.ts';

const execute = promisify(execFile);
const REPOSITORY_IN_HOST = '/srv/lab-repository';
/** Unpacking 135 MB on a busy machine. */
const DNF_TIMEOUT_MS = 180_000;

/** Empty packages with the names of EL's: dnf resolves against them, the programs are this machine's. */
const STUBS: Readonly<Record<string, { readonly version: string; readonly provides: readonly string[] }>> = {
  bash: { version: '5.1', provides: ['/bin/sh', '/usr/bin/sh', '/bin/bash'] },
  coreutils: { version: '8.32', provides: [] },
  iproute: { version: '6.2', provides: [] },
  'util-linux': { version: '2.37', provides: [] },
  systemd: { version: '252', provides: [] },
  haproxy: { version: '2.6.12', provides: [] },
  bird: { version: '2.0.12', provides: [] },
};

export type Repository = {
  readonly first: BuiltPackage;
  readonly second: BuiltPackage;
  /** For LabOptions. */
  readonly bind: { readonly source: string; readonly target: string };
  readonly keyFile: string;
  /**
   * Release 3, not signed; and release 4, signed, whose daemon ends as soon as it starts. Not offered before `offer`.
   */
  readonly unsigned: BuiltPackage;
  readonly broken: BuiltPackage;
  offer(file: string): Promise<void>;
  retract(file: string): Promise<void>;
};

/** Two signed builds of the package, one release apart, in a repository that a host's dnf can install them from. */
export async function makeRepository(directory: string): Promise<Repository> {
  const packages = join(directory, 'repository');
  await mkdir(packages, { recursive: true });
  const key = await makeKey(directory);
  const first = await buildPackage({ out: packages, key: key.secret });
  const second = await buildPackage({ out: packages, key: key.secret, release: '2', bundle: false });
  await makeStubs(directory, packages, await libraryNeeds(first.file));
  await must('cp', [key.public, join(packages, 'RPM-GPG-KEY-lab')]);
  const index = (): Promise<string> => must('createrepo_c', ['--quiet', packages]);
  await index();
  const aside = join(directory, 'aside');
  const unsigned = await buildPackage({ out: aside, release: '3', bundle: false });
  const dist = await brokenBundle(directory);
  const broken = await buildPackage({ out: aside, key: key.secret, release: '4', bundle: false, dist });
  return {
    first,
    second,
    unsigned,
    broken,
    offer: async (file) => {
      await rename(file, join(packages, basename(file)));
      await index();
    },
    retract: async (file) => {
      await rm(join(packages, basename(file)));
      await index();
    },
    bind: { source: packages, target: REPOSITORY_IN_HOST },
    keyFile: key.public,
  };
}

/** The program as it is, but for a daemon that ends before it has said a word. */
async function brokenBundle(directory: string): Promise<string> {
  const dist = join(directory, 'broken-dist');
  await cp(join(tree, 'dist'), dist, { recursive: true });
  const file = join(dist, 'bornemisza.mjs');
  const text = await readFile(file, 'utf8');
  const [first = '', ...rest] = text.split('\n');
  await writeFile(file, [first, "if (process.argv[2] === 'daemon') process.exit(1);", ...rest].join('\n'));
  return dist;
}

/** The stubs carry no signature; the package must, and be of the key that the repository names. */
const repositoryFile = (checked: boolean): string =>
  [
    ['stubs', 'excludepkgs=bornemisza*', 'gpgcheck=0'],
    [
      'bornemisza',
      'includepkgs=bornemisza*',
      `gpgcheck=${checked ? 1 : 0}`,
      `gpgkey=file://${REPOSITORY_IN_HOST}/RPM-GPG-KEY-lab`,
    ],
  ]
    .map(([name, ...lines]) =>
      [`[${name}]`, `name=${name}`, `baseurl=file://${REPOSITORY_IN_HOST}`, 'enabled=1', ...lines, ''].join(
        '\n',
      ),
    )
    .join('\n');

/**
 * Makes the repository the only one that the host's dnf knows.
 *
 * @param checked false: set up by somebody who does not care for signatures
 */
export async function useRepository(host: Host, checked = true): Promise<void> {
  await host.writeFile('/etc/yum.repos.d/lab.repo', repositoryFile(checked));
  // As on EL. Debian's rpm keeps what is installed in the home of whoever asks.
  await host.writeFile('/etc/rpm/macros', '%_dbpath /var/lib/rpm\n');
  await host.writeFile('/etc/dnf/dnf.conf', '[main]\nplugins=0\n');
}

/** dnf in a host, as its operator calls it. Returns what it printed. */
export function dnf(host: Host, ...args: readonly string[]): Promise<string> {
  return host.must(['dnf', '-y', '--refresh', ...args], {
    timeoutMs: DNF_TIMEOUT_MS,
  });
}

export async function must(program: string, args: readonly string[], env = process.env): Promise<string> {
  return (await execute(program, args, { env, timeout: 120_000, maxBuffer: 16 * 1024 * 1024 })).stdout;
}

/** Name-version-release as dnf takes it. */
export async function labelOf(file: string): Promise<string> {
  return must('rpm', ['-qp', '--nosignature', '--qf', '%{NAME}-%{VERSION}-%{RELEASE}', file]);
}

export async function makeKey(
  directory: string,
): Promise<{ readonly secret: string; readonly public: string }> {
  // gpg's sockets need a short path.
  const home = `/tmp/bm-key-${createHash('sha256').update(directory).digest('hex').slice(0, 8)}`;
  await mkdir(home, { recursive: true, mode: 0o700 });
  const env = { ...process.env, GNUPGHOME: home };
  try {
    const parameters = join(directory, 'key.txt');
    await writeFile(
      parameters,
      '%no-protection\nKey-Type: RSA\nKey-Length: 2048\nKey-Usage: sign\nName-Real: lab\n%commit\n',
    );
    await must('gpg', ['--batch', '--quiet', '--generate-key', parameters], env);
    const keys = { secret: join(directory, 'secret.asc'), public: join(directory, 'public.asc') };
    await must('gpg', ['--batch', '--armor', '--output', keys.secret, '--export-secret-keys'], env);
    await must('gpg', ['--batch', '--armor', '--output', keys.public, '--export'], env);
    return keys;
  } finally {
    await must('gpgconf', ['--kill', 'all'], env).catch(() => '');
    await must('rm', ['-rf', home]);
  }
}

/** What rpm found that the runtime needs of the system's libraries. */
export async function libraryNeeds(file: string): Promise<string[]> {
  const needs = (await must('rpm', ['-qp', '--nosignature', '--requires', file])).split('\n');
  return needs.filter((need) => /^(lib.*\.so|ld-linux|rtld)/.test(need));
}

export async function makeStubs(
  directory: string,
  packages: string,
  libraries: readonly string[],
  more: typeof STUBS = {},
): Promise<void> {
  const all = { ...STUBS, ...more, glibc: { version: '2.34', provides: libraries } };
  const sections = Object.entries(all).map(
    ([name, { version, provides }]) =>
      `%package -n ${name}\nSummary: Stub\nVersion: ` +
      `${version}\n${provides.map((each) => `Provides: ${each}\n`).join('')}%description -n ` +
      `${name}\nStub.\n%files -n ${name}\n`,
  );
  const spec = join(directory, 'stubs.spec');
  await writeFile(
    spec,
    `Name: stubs\nVersion: 1\nRelease: 1\nSummary: Stubs\nLicense: ` +
      `Apache-2.0\n%description\nStubs.\n${sections.join('')}`,
  );
  await must('rpmbuild', [
    '-bb',
    '--quiet',
    '--define',
    `_topdir ${join(directory, 'stubs')}`,
    '--define',
    `_rpmdir ${packages}`,
    spec,
  ]);
}
