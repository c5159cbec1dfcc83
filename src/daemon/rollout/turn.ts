import { readFile, rm, writeFile } from 'node:fs/promises';

/** Where a turn is asked for and answered; all in /run, which does not outlive the machine. */
interface TurnPaths {
  /** Ours: bornemisza-upgrade.path waits for it. */
  readonly request: string;
  /** Root's: bornemisza-upgrade.service says there how far it is. */
  readonly result: string;
}

/**
 * `none`: nobody asked since the machine started, or what was asked for is lost. `asked`: root has not begun.
 * `working`: dnf runs. `success`, `failed`: it ended.
 */
export type TurnState = 'none' | 'asked' | 'working' | 'success' | 'failed';

/**
 * The one thing that the daemon can ask of root: an upgrade of its own package, from the repositories that dnf knows.
 */
export class UpgradeTurn {
  readonly #paths: TurnPaths;

  constructor(paths: TurnPaths) {
    this.#paths = paths;
  }

  /** @throws NodeJS.ErrnoException when the runtime directory cannot be written */
  async ask(): Promise<void> {
    await writeFile(this.#paths.request, '');
  }

  async withdraw(): Promise<void> {
    await rm(this.#paths.request, { force: true });
  }

  /** Root writes its word before it takes the request away, so there is no moment without either. */
  async state(): Promise<TurnState> {
    if ((await textOf(this.#paths.request)) !== undefined) return 'asked';
    const said = (await textOf(this.#paths.result))?.trim();
    if (said === undefined) return 'none';
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
