import { appendFile, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { writeRepository } from '../../scripts/repository.ts';
import { run } from '../../scripts/run.ts';
import { makeKey } from './repository-bed.ts';

/** What `npm run rpm -- --repository URL` hands out, read by a real dnf that knows nothing but the repo file. */
const directory = await mkdtemp('/var/tmp/bm-repository-');
t.teardown(() => rm(directory, { recursive: true, force: true }));
const [packages, known] = [join(directory, 'packages'), join(directory, 'yum.repos.d')];
const key = await makeKey(directory);
await mkdir(packages);
await mkdir(known);
const spec = join(directory, 'probe.spec');
await writeFile(
  spec,
  'Name: bornemisza-probe\nVersion: 1\nRelease: 1\nSummary: A package\nLicense: Apache-2.0\nBuildArch: noarch\n' +
    '%description\nNothing.\n%files\n',
);
const at = ['--define', `_topdir ${directory}/rpm`, '--define', `_rpmdir ${packages}`];
await run('rpmbuild', ['-bb', '--quiet', ...at, '--define', '_build_name_fmt %{NAME}.rpm', spec]);

/** As on a host that never saw the repository: else it goes on with what it has in its cache. */
async function dnf(): Promise<string> {
  for (const name of ['cache', 'persist', 'root'])
    await rm(join(directory, name), { recursive: true, force: true });
  return await run('dnf', [
    '-y',
    '-q',
    '--releasever=9',
    '--noplugins',
    // Debian's dnf.conf has it otherwise: a repository that is refused would be passed over.
    '--setopt=skip_if_unavailable=False',
    `--setopt=reposdir=${known}`,
    `--setopt=cachedir=${directory}/cache`,
    `--setopt=persistdir=${directory}/persist`,
    `--installroot=${directory}/root`,
    'repoquery',
    'bornemisza*',
  ]);
}

t.test(
  'dnf takes the repository by its repo file, and refuses metadata that the key did not sign',
  async (t) => {
    const file = await writeRepository(packages, `file://${packages}/`, key.secret);
    await copyFile(file, join(known, 'bornemisza.repo'));
    t.match(await readFile(file, 'utf8'), `baseurl=file://${packages}\n`, 'without the last slash');
    t.match(await dnf(), /^bornemisza-probe-0:1-1\.noarch$/m);

    // Whoever writes to the web server and has no key.
    await appendFile(join(packages, 'repodata/repomd.xml'), '\n');
    await t.rejects(dnf(), /GPG|signature/i);

    await writeRepository(packages, `file://${packages}`, key.secret);
    t.match(await dnf(), 'bornemisza-probe', 'written again, it is signed again');
  },
);

t.test('without a key, without packages and for what dnf cannot read there is no repository', async (t) => {
  const url = 'https://packages.shop.example/el';
  await t.rejects(writeRepository(packages, url, undefined), /RPM_GPG_KEY/);
  await t.rejects(writeRepository(packages, 'ftp://packages.shop.example', key.secret), /https/);
  await t.rejects(writeRepository(known, url, key.secret), /no package/);
});
