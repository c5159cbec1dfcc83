import { readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Done, StatusAnswer } from '../../daemon/control/api.ts';
import { joinCluster } from '../../daemon/identity/admission/join.ts';
import { becomeAuthority, loadIdentity } from '../../daemon/identity/identity.ts';
import { initCluster } from '../../daemon/identity/root/init-cluster.ts';
import type { Recovery } from '../../daemon/identity/root/open-root.ts';
import { mustBeLong, openRoot } from '../../daemon/identity/root/recovery.ts';
import {
  endRoot,
  isRootChangeLeft,
  leaveRootChange,
  replaceRoot,
} from '../../daemon/identity/root/rotation.ts';
import { resetState, stateOf } from '../../daemon/identity/state.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { becomeForGood, daemonGroups, readAccounts } from '../../host/account.ts';
import { ControlClient } from '../client.ts';
import { tell } from '../failure.ts';
import { instances } from '../instances.ts';
import { controlSocketOf } from '../places.ts';

/** The argument with which the command calls itself for one of these tasks; src/bornemisza.ts reads it. */
export const STATE_TASK = 'state-task';

interface Place {
  readonly stateDir: string;
}
interface Daemon {
  readonly role: Role;
  readonly root: string;
}

/**
 * All that the set-up commands do in directories that the daemon's user can write, and over its control socket. Each
 * task runs as that user: root would follow links that the user creates, and read what it writes.
 */
export const TASKS = {
  instances: ({ root }: { readonly root: string }) => instances(root),
  state: ({ stateDir }: Place) => stateOf(stateDir),
  reset: async ({ stateDir }: Place) =>
    (await stateOf(stateDir)) === 'empty' ? '' : resetState(stateDir, Date.now()),
  init: (request: Parameters<typeof initCluster>[0]) => initCluster(request),
  join: (request: Omit<Parameters<typeof joinCluster>[0], 'nowMs'>) =>
    joinCluster({ ...request, nowMs: () => Date.now() }),
  'add-authority': async ({ stateDir, recovery }: Place & { readonly recovery: Recovery }) => {
    const identity = await loadIdentity(stateDir, Date.now());
    await becomeAuthority(identity, recovery, Date.now());
    return identity.name;
  },
  'root-change-left': async ({ stateDir }: Place) => {
    const { cluster } = await loadIdentity(stateDir, Date.now());
    return { cluster, left: await isRootChangeLeft(stateDir) };
  },
  /** The cluster of the bundle, before anything is written. The root key stays in this process. */
  'check-recovery': async (given: Pick<Parameters<typeof initCluster>[0], 'passphrase' | 'recovery'>) => {
    if (given.passphrase !== undefined) mustBeLong(given.passphrase);
    const { recovery } = given;
    return recovery === undefined ? '' : (await openRoot(recovery.bundle, recovery.passphrase)).cluster;
  },
  'replace-root': async (asked: Place & { readonly recovery: Recovery; readonly again: boolean }) => {
    const identity = await loadIdentity(asked.stateDir, Date.now());
    return replaceRoot(identity, asked.recovery, Date.now(), asked.again);
  },
  'leave-root-change': async ({ stateDir, change }: Place & { readonly change: string }) => {
    await leaveRootChange(stateDir, change);
    return true;
  },
  'end-root': async ({ stateDir, recovery }: Place & { readonly recovery: Recovery }) => {
    const identity = await loadIdentity(stateDir, Date.now());
    await leaveRootChange(stateDir, await endRoot(identity, recovery, Date.now()), recovery.bundle);
    return true;
  },
  status: ({ role, root }: Daemon) =>
    new ControlClient(controlSocketOf(role, root), role).get<StatusAnswer>('/v1/status'),
  ask: ({ role, root, path }: Daemon & { readonly path: string }) =>
    new ControlClient(controlSocketOf(role, root), role).post<Done>(path, {}),
  'has-left': async ({ stateDir }: Place) => {
    const text = await readFile(join(stateDir, 'local.json'), 'utf8').catch(() => '{}');
    try {
      return (JSON.parse(text) as { left?: unknown }).left === true;
    } catch {
      return false;
    }
  },
  empty: async ({ directory }: { readonly directory: string }) => {
    for (const name of await readdir(directory))
      await rm(join(directory, name), { recursive: true, force: true });
    return true;
  },
};

export type Tasks = typeof TASKS;
export type TaskName = keyof Tasks;

/** The user whose directories a task works in. */
export type TaskUser = 'bornemisza' | 'couchdb';

interface Request {
  readonly task: TaskName;
  readonly user: TaskUser;
  readonly input: never;
}

/** Reads one task from standard input, becomes its user for good, does it, and prints the result as JSON. */
export async function runStateTask(): Promise<void> {
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) text += String(chunk);
  const { task, user, input } = JSON.parse(text) as Request;
  const accounts = await readAccounts();
  const ids = accounts.users.get(user);
  if (ids === undefined) throw new Error(`there is no user ${user}`);
  // BIRD's fragments are in a directory that only its group may enter.
  becomeForGood(ids, user === 'bornemisza' ? daemonGroups(accounts) : []);
  const answer = await Promise.resolve()
    .then(() => (TASKS[task] as (given: never) => Promise<unknown>)(input))
    .then(
      (done) => ({ done }),
      (error: unknown) => {
        const { exit, code, message, next } = tell(error);
        return { error: { exit, code, message, next } };
      },
    );
  process.stdout.write(JSON.stringify(answer));
}
