import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Paths } from '../daemon/config/config.ts';
import { OperatorError } from '../daemon/errors.ts';
import type { Host } from './io.ts';

/** Files of a founder's configuration; more are not asked one by one. */
const MOST_ASKED = 100;

/**
 * What root can read and the daemon cannot: a file that was made under umask 027 is root's alone. The kernel is asked as user
 * `bornemisza`, so that groups, directories and access control lists all count.
 */
export async function unreadableForDaemon(host: Host, paths: Paths, root: string): Promise<OperatorError[]> {
  if (root !== '' || host.uid !== 0) return [];
  const names = await readdir(paths.services).catch(() => []);
  const services = names.filter((name) => name.endsWith('.toml') && !/^[.#]/.test(name));
  const files = [paths.config, ...services.map((name) => join(paths.services, name))].slice(0, MOST_ASKED);
  const asked = await Promise.all(
    files.map(async (file) => ({ file, code: await testAsDaemon(host, file) })),
  );
  // 1 is the word of test(1); whatever else came is no answer.
  return asked.filter(({ code }) => code === 1).map(({ file }) => refusedTo(file));
}

async function testAsDaemon(host: Host, file: string): Promise<number> {
  const as = ['--reuid=bornemisza', '--regid=bornemisza', '--init-groups'];
  return (await host.run('setpriv', [...as, '--', 'test', '-r', file])).code;
}

function refusedTo(file: string): OperatorError {
  return new OperatorError(
    'config-unreadable',
    `the daemon (user bornemisza) cannot read ${file}, although root can`,
    `chown root:bornemisza ${file} && chmod 640 ${file}`,
  );
}
