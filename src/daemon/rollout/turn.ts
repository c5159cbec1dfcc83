import { readFile, rm, writeFile } from 'node:fs/promises';

/** The files of a request and its answer, in /run, which a reboot empties. */
interface TurnPaths {
  /** Ours: bornemisza-upgrade.path watches it. */
  readonly request: string;
  /** Root's: bornemisza-upgrade.service writes its progress there. */
  readonly result: string;
}

/**
 * `none`: no request since the boot, or it is lost. `asked`: root has not begun. `working`: dnf runs. `success`,
 * `failed`: it ended.
 */
export type TurnState = 'none' | 'asked' | 'working' | 'success' | 'failed';

/**
 * The only request of the daemon to this unit of root: an upgrade of its own package, from the repositories that dnf
 * knows.
 */
export class UpgradeTurn {
  readonly #paths: TurnPaths;

  constructor(paths: TurnPaths) {
    this.#paths = paths;
  }

  /** @throws NodeJS.ErrnoException if the runtime directory cannot be written */
  async ask(): Promise<void> {
    await writeFile(this.#paths.request, '');
  }

  async withdraw(): Promise<void> {
    await rm(this.#paths.request, { force: true });
  }

  /** Root writes its answer before it removes the request, so there is no moment without either. */
  async state(): Promise<TurnState> {
    if ((await textOf(this.#paths.request)) !== undefined) return 'asked';
    const text = await textOf(this.#paths.result);
    if (text === undefined) return 'none';
    // The unit's shell empties the file, then writes its word: a line that has no end yet is no answer.
    if (!text.endsWith('\n')) return 'working';
    const said = text.trim();
    if (said === 'working' || said === 'success') return said;
    return 'failed';
  }
}

async function textOf(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}
