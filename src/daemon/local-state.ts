import { readFile, rename } from 'node:fs/promises';
import * as z from 'zod';
import { replaceWhole } from '../host/whole-file.ts';
import { fileError } from './identity/state.ts';

/** What one instance remembers across restarts and reboots. */
export interface LocalState {
  readonly maintenance: boolean;
  /** After a completed leave: this identity is no longer valid, and a start with it is refused. */
  readonly left: boolean;
  /** Of an app node: it has found a database before. Until then a missing database is no failure. */
  readonly databaseFound: boolean;
  /** Until when the edge logs every request, in ms since the epoch; 0: never asked for. */
  readonly requestLogUntilMs: number;
  /** Opaque to this file: the guards' own memory. */
  readonly guards: unknown;
  /** Opaque to this file: this node's last report about a rollout. */
  readonly rollout: unknown;
  /** Opaque as well: the sent notifications. */
  readonly notification: unknown;
}

const schema = z.object({
  maintenance: z.boolean().default(false),
  left: z.boolean().default(false),
  databaseFound: z.boolean().default(false),
  requestLogUntilMs: z.number().default(0),
  guards: z.unknown().optional(),
  rollout: z.unknown().optional(),
  notification: z.unknown().optional(),
});
export const EMPTY_LOCAL_STATE: LocalState = {
  maintenance: false,
  left: false,
  databaseFound: false,
  requestLogUntilMs: 0,
  guards: undefined,
  rollout: undefined,
  notification: undefined,
};

/** One small JSON file, replaced atomically: a crash leaves the old or the new one, never half of one. */
export class LocalStateFile {
  readonly #path: string;
  readonly #onFailed: (error: unknown) => void;
  #failed = false;
  #state: LocalState = EMPTY_LOCAL_STATE;
  #writing: Promise<void> = Promise.resolve();
  #written = '';

  /** @param failed called for the first failure of {@link keep} after a success */
  constructor(path: string, failed: (error: unknown) => void = () => undefined) {
    this.#path = path;
    this.#onFailed = failed;
  }

  get state(): LocalState {
    return this.#state;
  }

  /**
   * Reads the file. A missing file is a first start. A damaged one is kept as `.damaged`, and only its content is lost.
   *
   * @returns what an operator should know, or undefined
   * @throws IdentityError `state-permissions` or `state-io` when it cannot be read
   */
  async load(): Promise<string | undefined> {
    const text = await readFile(this.#path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw fileError(this.#path, error);
    });
    if (text === undefined) return undefined;
    try {
      this.#state = { ...EMPTY_LOCAL_STATE, ...schema.parse(JSON.parse(text)) };
      this.#written = `${JSON.stringify(this.#state)}\n`;
      return undefined;
    } catch {
      await rename(this.#path, `${this.#path}.damaged`);
      return `${this.#path} was damaged and is kept as ${this.#path}.damaged; maintenance and guards are reset`;
    }
  }

  /**
   * Keeps the change in memory at once and on disk in order; equal content is not written again.
   *
   * @throws IdentityError `disk-full` and others of its kind; the old file is whole then, and the next update tries
   *   again
   */
  update(change: Partial<LocalState>): Promise<void> {
    this.#state = { ...this.#state, ...change };
    const text = `${JSON.stringify(this.#state)}\n`;
    const write = async (): Promise<void> => {
      if (text === this.#written) return;
      await replaceWhole(this.#path, text, { mode: 0o600, oneWriter: true });
      this.#written = text;
    };
    const result = this.#writing.then(write).catch((error: unknown) => {
      throw fileError(this.#path, error);
    });
    this.#writing = result.catch(() => undefined);
    return result;
  }

  /** Like {@link update}, for values that are passed again in each turn: never throws, and reports a full disk once. */
  async keep(change: Partial<LocalState>): Promise<void> {
    try {
      await this.update(change);
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) this.#onFailed(error);
      this.#failed = true;
    }
  }
}

/**
 * Makes a change that an operator asked for, or none: one that would not survive a reboot is undone and refused.
 *
 * @throws IdentityError as {@link LocalStateFile.update}
 */
export async function changeOrUndo(
  local: Pick<LocalStateFile, 'state' | 'update'>,
  change: Partial<LocalState>,
): Promise<void> {
  const was = local.state;
  try {
    await local.update(change);
  } catch (error) {
    const keys = Object.keys(change) as (keyof LocalState)[];
    await local.update(Object.fromEntries(keys.map((key) => [key, was[key]]))).catch(() => undefined);
    throw error;
  }
}
