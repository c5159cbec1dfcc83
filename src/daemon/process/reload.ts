import { type Config, loadConfig, type Paths } from '../config/config.ts';
import type { Done, Warning } from '../control/api.ts';
import type { OperatorError } from '../errors.ts';
import type { Role } from '../membership/types.ts';
import type { Log } from './log.ts';
import { mustBeReloadable } from './start-checks.ts';
import type { ServiceManager } from './systemd.ts';

interface ReloadDependencies {
  readonly log: Log;
  readonly serviceManager: Pick<ServiceManager, 'reloading'>;
  /** Notifies systemd that the reload has ended, whatever its result. */
  readonly reloaded: () => Promise<void>;
  readonly node: { readonly config: Config; take(config: Config): Promise<void> };
}

/** Reads the configuration again while the daemon runs. An invalid one is refused, and the old one stays in use. */
export class Reload {
  readonly #options: { readonly role: Role; readonly paths: Paths };
  readonly #dependencies: ReloadDependencies;
  #refused: Warning | undefined;

  constructor(options: { readonly role: Role; readonly paths: Paths }, dependencies: ReloadDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  /** Why the configuration on the disk is not in use, until a reload succeeds. */
  get refused(): Warning | undefined {
    return this.#refused;
  }

  /** @throws OperatorError with the problem of the configuration */
  async run(): Promise<Done> {
    const { log, serviceManager, reloaded, node } = this.#dependencies;
    await serviceManager.reloading();
    try {
      const config = await loadConfig(this.#options.role, this.#options.paths);
      mustBeReloadable(node.config, config);
      await node.take(config);
      this.#refused = undefined;
      log.info('the configuration was read again');
      const passedOver = config.passedOver.map(({ message, next }) => `; ${message} -- ${next}`).join('');
      return { done: true, message: `the configuration was read again${passedOver}` };
    } catch (error) {
      const { message, next } = error as Partial<OperatorError>;
      this.#refused = {
        code: 'reload-refused',
        message: `the configuration on the disk is invalid, and the former one stays in use: ${message}`,
        next: next ?? 'bornemisza config check',
      };
      throw error;
    } finally {
      await reloaded();
    }
  }
}
