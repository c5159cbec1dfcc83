import { readFile } from 'node:fs/promises';

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

/** The groups that the daemon's units have beside its own, as far as their packages are here. */
export function daemonGroups({ groups }: Accounts): number[] {
  return ['bornemisza-haproxy', 'bornemisza-app', 'bird', 'couchdb'].flatMap(
    (name) => groups.get(name) ?? [],
  );
}

/**
 * Makes this process the given user's, for good: no code that it runs afterwards has a right of root. The kernel closes
 * the memory of a process that changed its user to other processes of that user (PR_SET_DUMPABLE in prctl(2)), so what
 * it holds, such as a root key that it opens for a moment, stays its own.
 *
 * @throws Error when the process still is, or can become, another user
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
