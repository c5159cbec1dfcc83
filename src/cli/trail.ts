import { dirname, join } from 'node:path';
import { AUDIT_FILE, storedEntries } from '../daemon/audit/stored.ts';
import type { AuditEntry } from '../daemon/control/api.ts';
import type { Role } from '../daemon/membership/types.ts';
import { notRunning, printable } from './client.ts';
import { CliFailure, EXIT } from './failure.ts';
import { instances } from './instances.ts';
import type { Io } from './io.ts';
import { memoryOf } from './places.ts';

interface StoredTrail {
  readonly role: Role;
  readonly entries: readonly AuditEntry[];
}

/**
 * The audit trail on the disk of a daemon that does not run. Read as the daemon's user, since root reads nothing that
 * this user can write.
 *
 * @returns undefined where a daemon answers, or where there is no trail
 * @throws CliFailure `role-ambiguous`, `daemon-not-running` where the trail may not be read
 */
export async function storedTrail(
  { host }: Pick<Io, 'host'>,
  { role, root = '' }: { readonly role?: Role | undefined; readonly root?: string | undefined },
): Promise<StoredTrail | undefined> {
  if (root === '' && host.uid === 0) return undefined;
  const all = (await instances(root)).filter(
    (each) => (role === undefined || each.role === role) && each.configured !== 'no',
  );
  if (all.some(({ socket }) => socket !== 'absent')) return undefined;
  const found: StoredTrail[] = [];
  for (const each of all) {
    const entries = await entriesOf(each.role, root);
    if (entries.length > 0) found.push({ role: each.role, entries });
  }
  if (found.length < 2) return found[0];
  throw new CliFailure(
    EXIT.usage,
    'role-ambiguous',
    'neither daemon runs on this host, and both have a trail',
    'choose one: --role app or --role db',
  );
}

async function entriesOf(role: Role, root: string): Promise<readonly AuditEntry[]> {
  const file = join(dirname(memoryOf(role, root)), AUDIT_FILE);
  try {
    return await storedEntries(file, (_key, value) => (typeof value === 'string' ? printable(value) : value));
  } catch (error) {
    const { exit, code, message, next } = notRunning(role);
    const why = `${message}, and its trail cannot be read (${(error as NodeJS.ErrnoException).code})`;
    throw new CliFailure(
      exit,
      code,
      why,
      `${next}; to read the trail from the disk: sudo bornemisza events`,
      {
        cause: error,
      },
    );
  }
}
