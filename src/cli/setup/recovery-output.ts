import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { replaceFile } from '../../host/files.ts';
import type { Io } from '../io.ts';

export interface HandedOver {
  readonly cluster: string;
  /** SHA-256 of the root certificate, lower-case hex. */
  readonly rootFingerprint: string;
  readonly recoveryBundle: string;
  readonly passphrase: string;
  /** Where to write it; without one it is printed to a person, or written to /root. */
  readonly file: string | undefined;
  /** As --root gives it. */
  readonly root: string;
  readonly json: boolean;
}

/**
 * The recovery bundle and its passphrase: printed for a person, written to a file where nobody reads along (cloud-init
 * keeps what a command prints in a log).
 *
 * @returns the file, or undefined when it was printed
 */
export async function handOver(io: Io, made: HandedOver): Promise<string | undefined> {
  const text = [
    `Recovery bundle of cluster ${made.cluster}, root ${made.rootFingerprint}.`,
    'With it and its passphrase a lost authority can be replaced. Keep both, apart from each other and ' +
      'off this machine.',
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
      `\nThe recovery bundle and its passphrase are in ${file}: take both off this machine, apart from each other.\n`,
    );
  return file;
}

/** The file that the bundle goes to; undefined where it is printed. */
export function recoveryPlace(
  io: Io,
  { file, root, cluster, json }: Pick<HandedOver, 'file' | 'root' | 'cluster' | 'json'>,
): string | undefined {
  if (file === undefined && io.terminal && !json) return undefined;
  return file ?? `${root}/root/bornemisza-recovery-${cluster}.txt`;
}
