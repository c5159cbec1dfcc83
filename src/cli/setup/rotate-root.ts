import type { Done } from '../../daemon/control/api.ts';
import { pathsFor } from '../../daemon/config/config.ts';
import type { RootReplaced } from '../../daemon/identity/root/rotation.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { printJson } from '../answer.ts';
import type { RotateOptions } from './options.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import { instanceOf } from './authority.ts';
import { readRecovery } from './recovery-input.ts';
import { exists, ownPlace, type WrittenRecovery, writeRecovery } from './recovery-output.ts';
import { stateWork } from './state-work.ts';

/**
 * Opens a root key in this process, which has no network access, as `authority add` does, and leaves the daemon what
 * the root signed. A new root is given out before the daemon is notified: a run that ends in between changes nothing.
 */
export async function rotateRoot(io: Io, file: string, options: RotateOptions): Promise<void> {
  const { role, socket } = await instanceOf(io, options);
  const { root = '', end = false, json = false } = options;
  const running = socket === 'answers';
  const { state: stateDir } = pathsFor(role, root);
  const tell = (): Promise<Done> => stateWork(io, root, 'ask', { role, root, path: '/v1/authority/root' });
  const { cluster, left } = await stateWork(io, root, 'root-change-left', { stateDir });
  if (left) {
    // An earlier run ended before it notified the daemon: the bundle that it gave out is valid.
    if (!running) throw changeLeft(role);
    report(io, await tell(), [], json);
    return;
  }
  if (end && options.force !== true) await mustBeUsed(io, role, root, running);
  const recovery = await readRecovery(io, file, options.passphraseFile);
  let written: WrittenRecovery | undefined;
  if (end) await stateWork(io, root, 'end-root', { stateDir, recovery });
  else {
    const again = options.again === true;
    const made = await stateWork(io, root, 'replace-root', { stateDir, recovery, again });
    written = await giveOut(io, cluster, made, options);
    await stateWork(io, root, 'leave-root-change', { stateDir, change: made.change });
  }
  const next = end
    ? ['keep the new bundle, and destroy the old one']
    : [
        'store the new bundle and its passphrase; keep the old one until the old root has ended',
        'wait until `bornemisza status` says that all members use the new root; then:',
        'sudo bornemisza authority rotate-root --end -        (with the new bundle)',
      ];
  try {
    const answer: Done = running
      ? await tell()
      : { done: true, message: 'the daemon applies it at its next start, and notifies the others' };
    report(io, { ...answer, ...(written !== undefined && { recoveryFile: written.file }) }, next, json);
  } finally {
    await written?.handOver();
  }
}

function report(
  io: Io,
  answer: Done & { recoveryFile?: string },
  next: readonly string[],
  json: boolean,
): void {
  if (json) printJson(io, answer);
  else io.stdout.write([answer.message, ...next.map((line) => `  next: ${line}`), ''].join('\n'));
}

async function giveOut(
  io: Io,
  cluster: string,
  made: RootReplaced,
  { recoveryFile, root = '', json = false }: RotateOptions,
): Promise<WrittenRecovery> {
  // The bundle of the old root, which is still needed, can be in the same directory.
  const file = recoveryFile ?? ownPlace({ ...made, cluster, root });
  if (await exists(file)) {
    throw new CliFailure(
      EXIT.failure,
      'recovery-file-exists',
      `${file} exists, and can hold the bundle of the old root`,
      'pass another --recovery-file; nothing was changed',
    );
  }
  return await writeRecovery(io, { ...made, cluster, file, root, json, reachedAt: io.host.hostname() });
}

/** HAProxy and CouchDB of the others would refuse a reachable member that does not use the new root yet. */
async function mustBeUsed(io: Io, role: Role, root: string, running: boolean): Promise<void> {
  if (!running) {
    throw new CliFailure(
      EXIT.notRunning,
      'root-change-unseen',
      'the daemon does not run, so it is unknown which members use the new root',
      'start it, or add --force',
    );
  }
  const { rootChange } = await stateWork(io, root, 'status', { role, root });
  const notYet = rootChange?.notYet ?? [];
  if (notYet.length === 0) return;
  throw new CliFailure(
    EXIT.refused,
    'guard-root-unused',
    `these members do not use the new root ${rootChange?.root ?? ''} yet: ${notYet.join(', ')}`,
    'wait until `bornemisza status` says that all use it (it shows the cause), or add --force',
  );
}

function changeLeft(role: string): CliFailure {
  return new CliFailure(
    EXIT.notRunning,
    'root-change-left',
    'an earlier run left a change of the root that the daemon has not applied',
    `start the daemon, which applies it: systemctl start bornemisza@${role}`,
  );
}
