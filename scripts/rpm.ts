/**
 * Builds the package bornemisza-node: `npm run rpm [-- --arch aarch64 --release 2 --out DIR --repository URL]`. The
 * same tree gives the same bytes. RPM_GPG_KEY, the name of a key in gpg's keyring or a file that holds a secret key,
 * signs it. With `--repository`, what a web server at URL has to hand out lies in repository/ beside it.
 */
import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { bundledPackages, licenceBook, licenceExpression, type Bundled } from './licences.ts';
import { PROGRAM_PARTS } from './parts.ts';
import { writeRepository } from './repository.ts';
import { root, run } from './run.ts';
import { withKey } from './signing.ts';

const ARCHITECTURES = ['x86_64', 'aarch64'] as const;
type Architecture = (typeof ARCHITECTURES)[number];
/** Above this the package is no quick download any more; Node.js alone is 37 MB of it. */
const LIMIT_BYTES = 42_000_000;

/** What is bundled, each with a list of what is inside. */
export const PARTS = ['bornemisza', 'app', 'web'] as const;

export type PackageOptions = {
  readonly arch?: Architecture;
  /** Default 1. */
  readonly release?: string;
  /** Where the package goes. Default: build/ in the tree. */
  readonly out?: string;
  /** False: `dist` is taken as it is. */
  readonly bundle?: boolean;
  /** Where the bundle lies. Default: dist/ in the tree. */
  readonly dist?: string;
  /** See RPM_GPG_KEY. */
  readonly key?: string | undefined;
};

export type BuiltPackage = {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
  /** The package bornemisza-selinux of the same version. */
  readonly selinux: string;
};

type Runtime = { readonly version: string } & Readonly<
  Record<Architecture, { readonly package: string; readonly sha256: string }>
>;

/**
 * @throws Error when a program is missing, a licence is unknown, the runtime is not the one pinned, or the size is over
 *   the limit
 */
export async function buildPackage(options: PackageOptions = {}): Promise<BuiltPackage> {
  const { arch = hostArchitecture(), release = '1', out = join(root, 'build'), bundle = true } = options;
  const dist = options.dist ?? join(root, 'dist');
  if (bundle) await run(process.execPath, [join(root, 'scripts/build.ts')]);
  await mkdir(out, { recursive: true });
  const top = await mkdtemp(join(out, '.rpm-'));
  try {
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
    const epoch = await sourceDate();
    const runtime = JSON.parse(await readFile(join(root, 'rpm/runtime.json'), 'utf8')) as Runtime;
    const packages = await licences();
    const stage = join(top, `bornemisza-node-${version}`);
    await stageFiles(stage, packages, runtime.version, dist);
    await stageRuntime(join(stage, 'runtime/node'), runtime, arch);
    await pack(stage, epoch);
    const include = buildFacts({ version, release, runtime: runtime.version, packages, epoch });
    await writeFile(join(top, 'build.inc'), include);
    await copyFile(join(root, 'systemd/sysusers.d/bornemisza.conf'), join(top, 'bornemisza.sysusers'));
    const built = await rpmbuild(top, arch, epoch);
    for (const file of [built.main, built.selinux])
      if (options.key !== undefined && options.key !== '') await sign(file, options.key);
    const selinux = join(out, basename(built.selinux));
    await rename(built.selinux, selinux);
    return { ...(await deliver(built.main, out)), selinux };
  } finally {
    await rm(top, { recursive: true, force: true });
  }
}

function hostArchitecture(): Architecture {
  const known: Readonly<Record<string, Architecture>> = { x64: 'x86_64', arm64: 'aarch64' };
  const arch = known[process.arch];
  if (arch === undefined)
    throw new Error(
      `there is no package for ${process.arch}; name one of ${ARCHITECTURES.join(', ')} by --arch`,
    );
  return arch;
}

/** Seconds since 1970 of what is packaged: of the last commit, unless SOURCE_DATE_EPOCH says otherwise. */
async function sourceDate(): Promise<number> {
  const told = process.env['SOURCE_DATE_EPOCH'];
  const text = told ?? (await commitDate());
  if (!/^\d{1,10}$/.test(text)) throw new Error(`SOURCE_DATE_EPOCH is ${JSON.stringify(text)}, not a number`);
  return Number(text);
}

async function commitDate(): Promise<string> {
  try {
    return (await run('git', ['log', '-1', '--format=%ct'])).trim();
  } catch (error) {
    throw new Error('the date of the last commit is not known; set SOURCE_DATE_EPOCH', { cause: error });
  }
}

async function licences(): Promise<Bundled[]> {
  const inputs = new Set<string>();
  for (const part of PARTS) {
    const meta = JSON.parse(await readFile(join(root, `dist/${part}.meta.json`), 'utf8')) as {
      inputs: Record<string, unknown>;
    };
    for (const input of Object.keys(meta.inputs)) inputs.add(input);
  }
  return bundledPackages([...inputs], root, join(root, 'rpm/licences'));
}

/** Everything but the runtime, as the spec expects it. */
async function stageFiles(
  stage: string,
  packages: readonly Bundled[],
  node: string,
  dist: string,
): Promise<void> {
  for (const directory of ['runtime', 'dist', 'man', 'completion', 'licences', 'doc'])
    await mkdir(join(stage, directory), { recursive: true });
  const copy = (from: string, to: string): Promise<void> =>
    cp(resolve(root, from), join(stage, to), { recursive: true });
  const programs = ['bornemisza', ...Object.keys(PROGRAM_PARTS), 'app'];
  const files = programs.flatMap((name) => [`${name}.mjs`, `${name}.mjs.map`]);
  for (const name of [...files, 'web', 'page']) await copy(join(dist, name), `dist/${name}`);
  await copy('rpm/bornemisza', 'bornemisza');
  for (const directory of ['systemd', 'monitoring', 'rpm/firewalld', 'rpm/examples', 'rpm/selinux'])
    await copy(directory, basename(directory));
  await copy('LICENSE', 'LICENSE');
  await writeFile(join(stage, 'licences/LICENSES.bundled'), licenceBook(packages));
  await copy(`rpm/licences/node-${node}.txt`, 'licences/LICENSE.nodejs');
  await copy('rpm/cloud-init.yaml', 'doc/cloud-init.yaml');
  for (const name of await readdir(root)) {
    if (/^(README|CHANGELOG|SECURITY|ARCHITECTURE)\.md$/.test(name)) await copy(name, `doc/${name}`);
  }
  for (const name of await readdir(join(root, 'docs'))) {
    if (name.endsWith('.md')) await copy(`docs/${name}`, `doc/${name}`);
  }
  const pages = (await readdir(join(root, 'docs/man'))).filter((name) => /^bornemisza.*\.8$/.test(name));
  if (pages.length === 0) throw new Error('docs/man has no bornemisza*.8; make it by node scripts/man.ts');
  for (const page of pages) await copy(`docs/man/${page}`, `man/${page}`);
  for (const shell of ['bash', 'zsh', 'fish']) {
    const script = await run(process.execPath, [join(root, 'dist/bornemisza.mjs'), 'completion', shell]);
    await writeFile(join(stage, 'completion', shell), script);
  }
}

/**
 * The one that npm installed where it is the right one; else the architecture's npm package. Both are held to
 * runtime.json.
 */
async function stageRuntime(to: string, runtime: Runtime, arch: Architecture): Promise<void> {
  const { package: name, sha256 } = runtime[arch];
  const installed = join(root, 'node_modules/node/bin/node');
  if ((await digest(installed).catch(() => '')) === sha256) {
    await copyFile(installed, to);
  } else {
    const fetched = await mkdtemp(join(tmpdir(), 'bornemisza-runtime-'));
    try {
      await run(
        'npm',
        ['pack', '--silent', '--pack-destination', fetched, `${name}@${runtime.version}`],
        fetched,
      );
      const [archive = ''] = await readdir(fetched);
      await run('tar', ['-xzf', join(fetched, archive), '-C', fetched, 'package/bin/node']);
      await copyFile(join(fetched, 'package/bin/node'), to);
    } finally {
      await rm(fetched, { recursive: true, force: true });
    }
    const got = await digest(to);
    if (got !== sha256)
      throw new Error(`${name}@${runtime.version}: bin/node is ${got}, rpm/runtime.json says ${sha256}`);
  }
  await chmod(to, 0o755);
}

async function pack(stage: string, epoch: number): Promise<void> {
  const directory = basename(stage);
  const same = [
    '--sort=name',
    `--mtime=@${epoch}`,
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--format=gnu',
    // Whatever umask the tree was checked out under.
    '--mode=u+rw,go+r,go-w,a+X',
  ];
  await run('tar', [...same, '-cf', `${stage}.tar`, '-C', resolve(stage, '..'), directory]);
  await rm(stage, { recursive: true });
}

/** What the spec takes from the tree. */
function buildFacts(facts: {
  readonly version: string;
  readonly release: string;
  readonly runtime: string;
  readonly packages: readonly Bundled[];
  readonly epoch: number;
}): string {
  const { version, release, runtime, packages, epoch } = facts;
  // RPM: Sun Nov 22 2026.
  const [weekday, day, month, year] = new Date(epoch * 1000).toUTCString().replace(',', '').split(' ');
  const date = `${weekday} ${month} ${day} ${year}`;
  return [
    `%global node_version ${version}`,
    `%global node_release ${release}`,
    // Node.js names the licences of all that is inside it in its own LICENSE.
    `%global node_licence ${licenceExpression([...packages, { licence: 'MIT' }], 'Apache-2.0')}`,
    `%global node_changelog * ${date} The Bornemisza authors - ${version}-${release} %{expand:\\\n}- See CHANGELOG.md.`,
    `Provides: bundled(nodejs) = ${runtime}`,
    // A hyphen would separate version and release.
    ...packages.map((each) => `Provides: bundled(npm(${each.name})) = ${each.version.replaceAll('-', '~')}`),
    '',
  ].join('\n');
}

async function rpmbuild(
  top: string,
  arch: Architecture,
  epoch: number,
): Promise<{ readonly main: string; readonly selinux: string }> {
  const defines = { _topdir: top, _sourcedir: top, _rpmdir: join(top, 'out'), _builddir: join(top, 'work') };
  await run(
    'rpmbuild',
    [
      '-bb',
      // Of EL's macros; nothing is needed to build that is not here.
      '--nodeps',
      '--quiet',
      '--target',
      `${arch}-linux`,
      ...Object.entries(defines).flatMap(([name, value]) => ['--define', `${name} ${value}`]),
      join(root, 'rpm/bornemisza-node.spec'),
    ],
    top,
    { ...process.env, SOURCE_DATE_EPOCH: String(epoch), LC_ALL: 'C.UTF-8', TZ: 'UTC' },
  );
  const only = async (directory: string): Promise<string> => {
    const [name = ''] = await readdir(join(top, 'out', directory));
    return join(top, 'out', directory, name);
  };
  return { main: await only(arch), selinux: await only('noarch') };
}

async function sign(file: string, key: string): Promise<void> {
  await withKey(key, async ({ gpg, name, env }) => {
    // Debian's rpm looks for gpg under a name that Debian does not have.
    const defines = ['--define', `__gpg ${gpg}`, '--define', `_gpg_name ${name}`];
    await run('rpmsign', [...defines, '--addsign', file], root, env);
  });
}

async function deliver(built: string, out: string): Promise<Omit<BuiltPackage, 'selinux'>> {
  const { size: bytes } = await stat(built);
  if (bytes > LIMIT_BYTES) throw new Error(`${basename(built)} has ${bytes} bytes, more than ${LIMIT_BYTES}`);
  const file = join(out, basename(built));
  await rename(built, file);
  return { file, bytes, sha256: await digest(file) };
}

async function digest(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

if (import.meta.main) {
  const startedMs = performance.now();
  const { values } = parseArgs({
    options: {
      arch: { type: 'string' },
      release: { type: 'string' },
      out: { type: 'string' },
      repository: { type: 'string' },
    },
  });
  const key = process.env['RPM_GPG_KEY'];
  const arch = ARCHITECTURES.find((each) => each === values.arch);
  if (values.arch !== undefined && arch === undefined)
    throw new Error(`--arch is one of ${ARCHITECTURES.join(', ')}`);
  const { file, bytes, sha256, selinux } = await buildPackage({
    ...(arch === undefined ? {} : { arch }),
    ...(values.release === undefined ? {} : { release: values.release }),
    ...(values.out === undefined ? {} : { out: resolve(values.out) }),
    key,
  });
  if (values.repository !== undefined) {
    const directory = join(file, '../repository');
    await mkdir(directory, { recursive: true });
    for (const each of [file, selinux]) await copyFile(each, join(directory, basename(each)));
    console.log(await writeRepository(directory, values.repository, key));
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  console.log(`${selinux}\n${file}\n${(bytes / 1e6).toFixed(1)} MB, sha256 ${sha256}, ${seconds} s`);
}
