import { chown, constants, mkdir, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Ids, readAccounts } from '../../host/account.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Host } from '../io.ts';

/**
 * Users and directories as the package's sysusers.d and tmpfiles.d say. Both are idempotent.
 *
 * @throws CliFailure `accounts-missing` when they don't bring user bornemisza
 */
export async function ensureAccounts(host: Host): Promise<Ids> {
  const ran = [
    await host.run('systemd-sysusers', ['bornemisza.conf']),
    await host.run('systemd-tmpfiles', ['--create', 'bornemisza.conf']),
  ];
  const owner = (await readAccounts()).users.get('bornemisza');
  if (owner !== undefined) return owner;
  const said = ran.map((each) => each.stderr.trim().split('\n')[0] ?? '').find((line) => line !== '');
  throw new CliFailure(
    EXIT.failure,
    'accounts-missing',
    `there is no user bornemisza, and systemd-sysusers did not make it${said === undefined ? '' : `: ${said}`}`,
    'install the package again (it brings /usr/lib/sysusers.d/bornemisza.conf), then run this again',
  );
}

/**
 * Makes a directory that is missing; one that is there keeps the owner and mode that it has. Where it is to be another
 * user's (`ids`), each directory above it must be root's alone: elsewhere a link could stand in its place a moment
 * later.
 *
 * @throws CliFailure `directory-not-roots`
 */
export async function ensureDirectory(path: string, mode: number, ids?: Ids): Promise<void> {
  if (ids !== undefined) await mustBeRootsAbove(path);
  if ((await stat(path).catch(() => undefined)) !== undefined) return;
  await mkdir(path, { recursive: true });
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    if (ids !== undefined) await directory.chown(ids.uid, ids.gid);
    // After chown, which clears setgid; and the umask doesn't apply to chmod.
    await directory.chmod(mode);
  } finally {
    await directory.close();
  }
}

async function mustBeRootsAbove(path: string): Promise<void> {
  for (let above = dirname(path); ; above = dirname(above)) {
    const facts = await stat(above).catch(() => undefined);
    // Others' write permission is none where the sticky bit keeps each name to its owner.
    const open = facts !== undefined && (facts.mode & 0o022) !== 0 && (facts.mode & 0o1000) === 0;
    if (facts !== undefined && (facts.uid !== 0 || open)) {
      throw new CliFailure(
        EXIT.failure,
        'directory-not-roots',
        `${above} can be written by another user than root, so ${path} cannot be made in it safely`,
        `see why: ls -ld ${above}; then: chown root:root ${above} && chmod go-w ${above}`,
      );
    }
    if (above === dirname(above)) return;
  }
}

/** Readable for the daemon, and nobody else. */
export async function giveToGroup(file: string): Promise<void> {
  const gid = (await readAccounts()).groups.get('bornemisza');
  const { uid } = await stat(file);
  if (gid !== undefined) await chown(file, uid, gid);
}
