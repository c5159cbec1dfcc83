import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, run } from './run.ts';

export interface Key {
  /** The program. */
  readonly gpg: string;
  /** Name or fingerprint of the secret key. */
  readonly name: string;
  /** With the keyring that holds it. */
  readonly env: NodeJS.ProcessEnv;
}

/**
 * @param key name of a key in gpg's keyring, or a file that holds a secret key
 * @throws Error when the file holds none
 */
export async function withKey<T>(key: string, work: (key: Key) => Promise<T>): Promise<T> {
  const gpg = (await run('sh', ['-c', 'command -v gpg'])).trim();
  const isFile = await stat(key).then(
    (facts) => facts.isFile(),
    () => false,
  );
  if (!isFile) return await work({ gpg, name: key, env: process.env });
  // A socket path in it must be short: not below the tree.
  const home = await mkdtemp(join(tmpdir(), 'bm-gpg-'));
  const env = { ...process.env, GNUPGHOME: home };
  try {
    await run(gpg, ['--batch', '--quiet', '--import', key], root, env);
    const listed = await run(gpg, ['--batch', '--with-colons', '--list-secret-keys'], root, env);
    const fingerprint = /^fpr:+([0-9A-F]+):/m.exec(listed)?.[1];
    if (fingerprint === undefined) throw new Error(`${key} holds no secret key`);
    return await work({ gpg, name: fingerprint, env });
  } finally {
    await run('gpgconf', ['--kill', 'all'], root, env).catch(() => '');
    await rm(home, { recursive: true, force: true });
  }
}
