import { mkdir, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { replaceFile } from '../../host/files.ts';
import type { Io } from '../io.ts';

interface Made {
  readonly cluster: string;
  /** SHA-256 of the root certificate, lower-case hex. */
  readonly rootFingerprint: string;
  readonly recoveryBundle: string;
  /** Undefined: the operator gave it, and has it. */
  readonly passphrase: string | undefined;
  /** Where to write it; without a path it is written to /root. */
  readonly file: string | undefined;
  /** The value of --root. */
  readonly root: string;
  readonly json: boolean;
  /** Address or name by which the operator reaches this machine. */
  readonly reachedAt: string;
}

export interface WrittenRecovery {
  readonly file: string;
  /** Says how to take the bundle off the machine and, on a terminal, the passphrase. Nothing with --json. */
  handOver(): Promise<void>;
}

/**
 * Writes the recovery bundle to a file that only root can read, with its passphrase: a run that is interrupted loses
 * neither. On a terminal `handOver` shows the passphrase, and the file is without it from then on. Elsewhere it stays
 * in the file, because cloud-init keeps the output of a command in a log.
 */
export async function writeRecovery(io: Io, made: Made): Promise<WrittenRecovery> {
  const { passphrase, json } = made;
  const usual = usualPlace(made);
  const file = made.file ?? ((await exists(usual)) ? ownPlace(made) : usual);
  const shown = io.terminal && !json && passphrase !== undefined;
  await mkdir(dirname(file), { recursive: true });
  await replaceFile(file, textOf(made, passphrase ?? '(the one you gave)'), { mode: 0o600 });
  return {
    file,
    handOver: async () => {
      if (json) return;
      const both = passphrase !== undefined && !shown;
      const it = both ? 'The recovery bundle and its passphrase are' : 'The recovery bundle is';
      io.stdout.write(
        `\n${it} in ${file}.\nOn your own computer:\n  ${fetchOf(io, file, made.reachedAt)}\n` +
          `then here:\n  rm ${file}\n`,
      );
      if (!shown) return;
      io.stdout.write(
        `Keep its passphrase in another place. It is shown this once:\n\nPassphrase: ${passphrase}\n`,
      );
      if (io.stdout.gone !== true)
        await replaceFile(file, textOf(made, '(shown on the terminal)'), { mode: 0o600 });
    },
  };
}

function textOf({ cluster, rootFingerprint, recoveryBundle }: Made, passphrase: string): string {
  return [
    `Recovery bundle of cluster ${cluster}, root ${rootFingerprint}.`,
    'With it and its passphrase you can replace a lost authority. Keep both, in two different places and ' +
      'not on this machine.',
    '',
    `Passphrase: ${passphrase}`,
    '',
    recoveryBundle.trimEnd(),
    '',
  ].join('\n');
}

/** Where the bundle goes unless the operator names a file. */
export const usualPlace = ({ root, cluster }: Pick<Made, 'root' | 'cluster'>): string =>
  `${root}/root/bornemisza-recovery-${cluster}.txt`;

/** A name of its own beside the usual place, for where that can be taken by the bundle of another root. */
export const ownPlace = (made: Pick<Made, 'root' | 'cluster' | 'rootFingerprint'>): string =>
  usualPlace(made).replace(/\.txt$/, `-${made.rootFingerprint.slice(0, 8)}.txt`);

export async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

/** What fetches the file: as root, or as the user who became root by sudo, where root cannot log in. */
function fetchOf(io: Io, file: string, reachedAt: string): string {
  const { sudoUser } = io.host;
  const name = basename(file);
  if (sudoUser !== undefined) return `ssh ${sudoUser}@${reachedAt} sudo cat ${file} >${name}`;
  return `scp root@${reachedAt.includes(':') ? `[${reachedAt}]` : reachedAt}:${file} .`;
}
