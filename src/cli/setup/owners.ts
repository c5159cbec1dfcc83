import { chown, constants, mkdir, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Ids, readAccounts } from '../../host/account.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Host } from '../io.ts';

/**
 * Creates users and directories from the package's sysusers.d and tmpfiles.d. Both are idempotent.
 *
 * @throws CliFailure `accounts-missing` if they do not create user bornemisza
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
    `there is no user bornemisza, and systemd-sysusers did not create it${said === undefined ? '' : `: ${said}`}`,
    'install the package again (it has /usr/lib/sysusers.d/bornemisza.conf), then run this again',
  );
}

/**
 * Creates a missing directory; an existing one keeps its owner and mode. If it will belong to another user (`ids`),
 * each directory above it must belong to root and be writable only by root: else that user could replace it by a link
 * a moment later.
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
    // With the sticky bit other users cannot replace a name, so their write permission does no harm.
    const open = facts !== undefined && (facts.mode & 0o022) !== 0 && (facts.mode & 0o1000) === 0;
    if (facts !== undefined && (facts.uid !== 0 || open)) {
      throw new CliFailure(
        EXIT.failure,
        'directory-not-roots',
        `a user other than root can write ${above}, so it is not safe to create ${path} in it`,
        `see why: ls -ld ${above}; then: chown root:root ${above} && chmod go-w ${above}`,
      );
    }
    if (above === dirname(above)) return;
  }
}

/** Readable only for root and the daemon. */
export async function giveToGroup(file: string): Promise<void> {
  const gid = (await readAccounts()).groups.get('bornemisza');
  const { uid } = await stat(file);
  if (gid !== undefined) await chown(file, uid, gid);
}
