import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { readIfPresent, replaceFile } from '../../host/files.ts';
import type { Secrets } from './secrets.ts';
import type { Log } from '../process/log.ts';
import { storageNext } from './storage.ts';

/** The app tier reads it by the directory's group; it cannot write there. */
const MODE = 0o640;

/**
 * Gives the app tier of this node its part of the secrets: the keys, and the account at CouchDB. In a directory that
 * the daemon owns and the app tier's user only reads, so that neither follows a link of the other.
 */
export class SecretsHandOver {
  readonly #directory: string;
  readonly #log: Log;
  #written = '';
  #said = '';

  constructor(directory: string, log: Log) {
    this.#directory = directory;
    this.#log = log;
  }

  /** Equal bytes are not written again; without that directory there is no reader. Never throws. */
  async write(secrets: Secrets | undefined): Promise<void> {
    if (secrets?.kind !== 'app' || secrets.appKeys.length === 0) return;
    const { app, appKeys } = secrets;
    const text = `${JSON.stringify({ keys: appKeys, database: app })}\n`;
    if (text === this.#written || !(await this.#isThere())) return;
    const file = join(this.#directory, 'secrets.json');
    try {
      if ((await readIfPresent(file)) !== text) await replaceFile(file, text, { mode: MODE });
      this.#written = text;
      this.#said = '';
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why === this.#said) return;
      this.#said = why;
      const next = `${storageNext(error)}; it is tried again by itself`;
      this.#log.warn({ err: error, next }, 'cannot write the secrets of the app tier');
    }
  }

  async #isThere(): Promise<boolean> {
    return access(this.#directory).then(
      () => true,
      () => false,
    );
  }
}
