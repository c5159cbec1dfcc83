import { chmod, chown, mkdir, readFile, stat } from 'node:fs/promises';
import { CliFailure, EXIT } from '../failure.ts';
import type { Host } from '../io.ts';

export interface Ids {
  readonly uid: number;
  readonly gid: number;
}

/** Users and groups by name, from /etc/passwd and /etc/group: sysusers writes them there and nowhere else. */
export interface Accounts {
  readonly users: ReadonlyMap<string, Ids>;
  readonly groups: ReadonlyMap<string, number>;
}

export async function readAccounts(): Promise<Accounts> {
  const rows = async (file: string): Promise<string[][]> =>
    (await readFile(file, 'utf8')).split('\n').map((line) => line.split(':'));
  const [users, groups] = await Promise.all([rows('/etc/passwd'), rows('/etc/group')]);
  return {
    users: new Map(users.map(([name = '', , uid, gid]) => [name, { uid: Number(uid), gid: Number(gid) }])),
    groups: new Map(groups.map(([name = '', , gid]) => [name, Number(gid)])),
  };
}

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

/** Makes a directory that is missing; one that is there keeps the owner and mode that it has. */
export async function ensureDirectory(path: string, mode: number, ids?: Ids): Promise<void> {
  if ((await stat(path).catch(() => undefined)) !== undefined) return;
  await mkdir(path, { recursive: true });
  if (ids !== undefined) await chown(path, ids.uid, ids.gid);
  // After chown, which clears setgid; and the umask doesn't apply to chmod.
  await chmod(path, mode);
}
