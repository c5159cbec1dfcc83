import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { replaceFile } from '../../host/files.ts';
import type { Io } from '../io.ts';

interface HandedOver {
  readonly cluster: string;
  /** SHA-256 of the root certificate, lower-case hex. */
  readonly rootFingerprint: string;
  readonly recoveryBundle: string;
  readonly passphrase: string;
  /** Where to write it; without a path it is printed on a terminal, or written to /root. */
  readonly file: string | undefined;
  /** The value of --root. */
  readonly root: string;
  readonly json: boolean;
}

/**
 * Gives out the recovery bundle and its passphrase: printed on a terminal, else written to a file (cloud-init keeps the
 * output of a command in a log).
 *
 * @returns the file, or undefined when it was printed
 */
export async function handOver(io: Io, made: HandedOver): Promise<string | undefined> {
  const text = [
    `Recovery bundle of cluster ${made.cluster}, root ${made.rootFingerprint}.`,
    'With it and its passphrase you can replace a lost authority. Keep both, in two different places and ' +
      'not on this machine.',
    '',
    `Passphrase: ${made.passphrase}`,
    '',
    made.recoveryBundle.trimEnd(),
    '',
  ].join('\n');
  const file = recoveryPlace(io, made);
  if (file === undefined) {
    io.stdout.write(`\n${text}`);
    return undefined;
  }
  await mkdir(dirname(file), { recursive: true });
  await replaceFile(file, text, { mode: 0o600 });
  if (!made.json)
    io.stdout.write(
      `\nThe recovery bundle and its passphrase are in ${file}: move them to two places outside this machine.\n`,
    );
  return file;
}

/** The file of the bundle; undefined if it is printed. */
export function recoveryPlace(
  io: Io,
  { file, root, cluster, json }: Pick<HandedOver, 'file' | 'root' | 'cluster' | 'json'>,
): string | undefined {
  if (file === undefined && io.terminal && !json) return undefined;
  return file ?? `${root}/root/bornemisza-recovery-${cluster}.txt`;
}
