import { lstat, readdir, rm, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Paths } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import { DROP_IN } from './layer2.ts';
import { stateWork } from './state-work.ts';

/** A stop can drain for up to the unit's limit of 30 s. */
const STOP_TIMEOUT_MS = 60_000;

/** Whether this node has left before, so that only the wipe is left to do. */
export async function hasLeft(io: Io, { state }: Paths, root: string): Promise<boolean> {
  return await stateWork(io, root, 'has-left', { stateDir: state });
}

/** @throws CliFailure `not-root`, before anything was done */
export function mayWipe(io: Io, root: string): void {
  if (root !== '' || io.host.uid === 0) return;
  throw new CliFailure(
    EXIT.permission,
    'not-root',
    'a wipe needs root: keys, configuration and data belong to several users',
    'run it with sudo, or leave without --wipe',
  );
}

/**
 * Removes what remains of a node that has left: its units, keys, state, configuration and, for role db, its copy of the
 * data. What belongs to the other role on this machine stays.
 *
 * @throws CliFailure `wipe-failed` if a unit does not stop; nothing was removed then
 */
export async function wipe(
  io: Io,
  role: Role,
  paths: Paths,
  root: string,
  say: (text: string) => void,
): Promise<void> {
  if (root === '') {
    const units = [`bornemisza@${role}.service`, `bornemisza-haproxy@${role}.service`];
    units.push(
      ...(role === 'db'
        ? ['couchdb.service']
        : ['bornemisza-deadman.service', 'bornemisza-unit-watch.service', 'bornemisza-app.service']),
    );
    const { code, stderr } = await io.host.run('systemctl', ['disable', '--now', ...units], {
      timeoutMs: STOP_TIMEOUT_MS,
    });
    if (code !== 0) {
      throw new CliFailure(
        EXIT.failure,
        'wipe-failed',
        `the units do not stop: ${stderr.trim().split('\n').at(-1) ?? ''}`,
        `systemctl status ${units.join(' ')}; then run it again`,
      );
    }
    say(`stopped for good: ${units.join(', ')}`);
  }
  for (const directory of [
    paths.state,
    paths.haproxyFiles,
    ...(role === 'app'
      ? [paths.birdFragments, paths.accountsFiles]
      : [paths.couchdbFiles, paths.couchdbData]),
  ]) {
    if (!(await exists(directory))) continue;
    const user = directory === paths.couchdbData ? 'couchdb' : 'bornemisza';
    await stateWork(io, root, 'empty', { directory }, user);
    say(`emptied ${directory}`);
  }
  // Its name is in a directory of root, so nobody else can replace it.
  await rmdir(paths.state).catch(ignoreAbsent);
  for (const path of await ownConfig(paths)) await remove(path, say);
  if (role === 'app') await rm(`${root}${DROP_IN}`, { force: true });
}

/** ROLE.toml and the files beside it. */
async function ownConfig({ config }: Paths): Promise<string[]> {
  const directory = dirname(config);
  const own = config.slice(directory.length + 1);
  const names = await namesIn(directory);
  return names
    .filter((name) => name === own || name.startsWith(`${own}.`))
    .map((name) => join(directory, name));
}

async function remove(path: string, say: (text: string) => void): Promise<void> {
  await rm(path, { recursive: true, force: true });
  say(`removed ${path}`);
}

async function namesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
}

async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(ignoreAbsent)) !== undefined;
}

function ignoreAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
