import { stat } from 'node:fs/promises';
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
import { handOver } from './recovery-output.ts';
import { stateWork } from './state-work.ts';

/**
 * Opens a root here, in a process that hears nobody, as `authority add` does, and leaves the daemon what the root
 * signed. A new root is given out before anything is told: a run that ends in between has changed nothing.
 */
export async function rotateRoot(io: Io, file: string, options: RotateOptions): Promise<void> {
  const { role, socket } = await instanceOf(io, options);
  const { root = '', end = false, json = false } = options;
  const running = socket === 'answers';
  const { state: stateDir } = pathsFor(role, root);
  const tell = (): Promise<Done> => stateWork(io, root, 'ask', { role, root, path: '/v1/authority/root' });
  const { cluster, left } = await stateWork(io, root, 'root-change-left', { stateDir });
  if (left) {
    // A run that was ended before the daemon heard of it: what it gave out counts.
    if (!running) throw changeLeft(role);
    report(io, await tell(), [], json);
    return;
  }
  if (end && options.force !== true) await mustBeUsed(io, role, root, running);
  const recovery = await readRecovery(io, file, options.passphraseFile);
  let recoveryFile: string | undefined;
  if (end) await stateWork(io, root, 'end-root', { stateDir, recovery });
  else {
    const again = options.again === true;
    const made = await stateWork(io, root, 'replace-root', { stateDir, recovery, again });
    recoveryFile = await giveOut(io, cluster, made, options);
    await stateWork(io, root, 'leave-root-change', { stateDir, change: made.change });
  }
  const answer: Done = running
    ? await tell()
    : { done: true, message: 'the daemon takes it up at its next start, and tells the others' };
  const next = end
    ? ['keep the new bundle, and destroy the old one']
    : [
        'put the new bundle and its passphrase away; keep the old one until the old root has ended',
        'bornemisza status says when all members use the new root; then:',
        'sudo bornemisza authority rotate-root --end -        (with the new bundle)',
      ];
  report(io, { ...answer, ...(recoveryFile !== undefined && { recoveryFile }) }, next, json);
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

/** @returns the file that holds the new bundle, where it was not printed */
async function giveOut(
  io: Io,
  cluster: string,
  made: RootReplaced,
  { recoveryFile, root = '', json = false }: RotateOptions,
): Promise<string | undefined> {
  // A name of its own: beside it may lie the bundle of the old root, which is still needed.
  const own = `${root}/root/bornemisza-recovery-${cluster}-${made.rootFingerprint.slice(0, 8)}.txt`;
  const file = recoveryFile ?? (io.terminal && !json ? undefined : own);
  if (file !== undefined && (await exists(file))) {
    throw new CliFailure(
      EXIT.failure,
      'recovery-file-exists',
      `${file} is there already, and may hold the bundle of the old root`,
      'nothing was changed: give another --recovery-file',
    );
  }
  return await handOver(io, { ...made, cluster, file, root, json });
}

/** Who is here and does not use the new root yet would be refused by the others' HAProxy and CouchDB. */
async function mustBeUsed(io: Io, role: Role, root: string, running: boolean): Promise<void> {
  if (!running) {
    throw new CliFailure(
      EXIT.notRunning,
      'root-change-unseen',
      'the daemon does not run, so nobody knows who uses the new root',
      'start it, or add --force',
    );
  }
  const { rootChange } = await stateWork(io, root, 'status', { role, root });
  const notYet = rootChange?.notYet ?? [];
  if (notYet.length === 0) return;
  throw new CliFailure(
    EXIT.refused,
    'guard-root-unused',
    `the new root ${rootChange?.root ?? ''} is not used yet by ${notYet.join(', ')}`,
    'wait until `bornemisza status` says that all use it; see there what keeps them, or add --force',
  );
}

function changeLeft(role: string): CliFailure {
  return new CliFailure(
    EXIT.notRunning,
    'root-change-left',
    'an earlier run left a change of the root that the daemon has not taken up',
    `start the daemon, which takes it up: systemctl start bornemisza@${role}`,
  );
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
