import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { root, run } from './run.ts';
import { withKey } from './signing.ts';

/** Names in the repository; hosts keep the second as /etc/yum.repos.d/bornemisza.repo. */
const KEY_FILE = 'RPM-GPG-KEY-bornemisza';
const REPO_FILE = 'bornemisza.repo';

/**
 * Makes a directory of signed packages a repository for dnf: its metadata, their signature, the public key, and the
 * file that a host needs to know of it.
 *
 * @param url where a web server hands the directory out
 * @param key see {@link withKey}
 * @returns the path of the repo file
 * @throws Error without a key, since nobody could tell our packages from another's; and for a URL that is none
 */
export async function writeRepository(
  directory: string,
  url: string,
  key: string | undefined,
): Promise<string> {
  if (key === undefined || key === '')
    throw new Error(
      'a repository is signed: set RPM_GPG_KEY to the name of a key, or to a file that holds one',
    );
  const base = new URL(url);
  if (!/^(https?|file):$/.test(base.protocol)) throw new Error(`dnf reads https, http and file, not ${url}`);
  const at = base.href.replace(/\/+$/, '');
  const packages = (await readdir(directory)).filter((name) => name.endsWith('.rpm'));
  if (packages.length === 0) throw new Error(`${directory} holds no package`);
  await run('createrepo_c', ['--quiet', directory]);
  const metadata = join(directory, 'repodata/repomd.xml');
  await rm(`${metadata}.asc`, { force: true });
  const text = await withKey(key, async ({ gpg, name, env }) => {
    const as = ['--batch', '--yes', '--local-user', name, '--armor'];
    await run(gpg, [...as, '--output', `${metadata}.asc`, '--detach-sign', metadata], root, env);
    return await run(gpg, ['--batch', '--armor', '--export', name], root, env);
  });
  await writeFile(join(directory, KEY_FILE), text);
  const file = join(directory, REPO_FILE);
  const lines = [
    '[bornemisza]',
    'name=Bornemisza',
    `baseurl=${at}`,
    'enabled=1',
    'gpgcheck=1',
    'repo_gpgcheck=1',
    `gpgkey=${at}/${KEY_FILE}`,
  ];
  await writeFile(file, `${lines.join('\n')}\n`);
  return file;
}
