import { readFile } from 'node:fs/promises';

export interface Ids {
  readonly uid: number;
  readonly gid: number;
}

/** Users and groups by name, from /etc/passwd and /etc/group, as sysusers writes them only there. */
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

/** The further groups of the daemon's units, as far as their packages are installed. */
export function daemonGroups({ groups }: Accounts): number[] {
  return ['bornemisza-haproxy', 'bornemisza-app', 'bird', 'couchdb'].flatMap(
    (name) => groups.get(name) ?? [],
  );
}

/**
 * Gives this process to another user, for good: nothing that it runs afterwards has a right of root. The kernel closes
 * the memory of a process that changed its user to other processes of that user (PR_SET_DUMPABLE in prctl(2)), so they
 * cannot read, for example, a root key that it opens for a moment.
 *
 * @throws Error if the process still is, or can become, another user
 */
export function becomeForGood({ uid, gid }: Ids, groups: readonly number[] = []): void {
  process.setgroups?.([...groups]);
  process.setgid?.(gid);
  process.setuid?.(uid);
  if (uid !== 0 && process.getuid?.() === uid && process.geteuid?.() === uid && !canReturn()) return;
  throw new Error(`this process could not become user ${uid}`);
}

function canReturn(): boolean {
  try {
    process.setuid?.(0);
    return true;
  } catch {
    return false;
  }
}
