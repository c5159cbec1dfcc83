import { readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Paths } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import { DROP_IN } from './layer2.ts';

/** A stop drains for as long as the unit allows, 30 s. */
const STOP_TIMEOUT_MS = 60_000;

/** Whether this node has left before, so that only the wipe is to be done. */
export async function hasLeft(paths: Paths): Promise<boolean> {
  const text = await readFile(join(paths.state, 'local.json'), 'utf8').catch(() => '');
  try {
    return (JSON.parse(text) as { left?: unknown }).left === true;
  } catch {
    return false;
  }
}

/** @throws CliFailure `not-root`, before anything was done */
export function mayWipe(io: Io, root: string): void {
  if (root !== '' || io.host.uid === 0) return;
  throw new CliFailure(
    EXIT.permission,
    'not-root',
    'wiping takes root: keys, configuration and data belong to several users',
    'run it with sudo, or leave without --wipe',
  );
}

/**
 * Takes away what a node that has left leaves behind: its units, keys, memory, configuration and, for role db, its copy of
 * the data. What belongs to the other role on this machine stays.
 *
 * @throws CliFailure `wipe-failed` when a unit does not stop; nothing was removed then
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
    units.push(role === 'db' ? 'couchdb.service' : 'bornemisza-deadman.service');
    const { code, stderr } = await io.host.run('systemctl', ['disable', '--now', ...units], STOP_TIMEOUT_MS);
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
  for (const path of [paths.state, ...(await ownConfig(paths))]) await remove(path, say);
  if (role === 'app') await rm(`${root}${DROP_IN}`, { force: true });
  for (const directory of [
    paths.haproxyFiles,
    ...(role === 'app' ? [paths.birdFragments] : [paths.couchdbFiles, paths.couchdbData]),
  ]) {
    for (const name of await namesIn(directory))
      await rm(join(directory, name), { recursive: true, force: true });
    say(`emptied ${directory}`);
  }
  // The first configurations, as they came with the package.
  if (root === '') await io.host.run('systemd-tmpfiles', ['--create', 'bornemisza.conf']);
}

/** ROLE.toml and what is kept beside it. */
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
