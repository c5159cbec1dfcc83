import { access, mkdir } from 'node:fs/promises';
import { uptime } from 'node:os';
import { dirname } from 'node:path';
import { replaceWhole } from '../../host/whole-file.ts';

/** What the dead-man switch (systemd/deadman) is to watch. */
export interface Watched {
  /** Carries the floating addresses. */
  readonly device: string;
  /** Where our HAProxy answers without TLS. */
  readonly port: number;
  /** None: there is nothing to take off, and no sign of life is needed. */
  readonly addresses: readonly string[];
}

/**
 * The daemon's sign of life: one line, UPTIME DEVICE PORT ADDRESS…, replaced whole. It holds seconds since the boot,
 * since the wall clock may jump. Nobody but the dead-man switch reads it, and it reads nothing else.
 */
export class Heartbeat {
  readonly #path: string;
  readonly #onFailure: (error: Error) => void;
  #next: Watched | undefined;
  #writing: Promise<void> | undefined;
  /** The switch has nothing to watch, and a former beat that named something was replaced. */
  #idle = false;
  /** Undefined: no beat yet. */
  #failed: boolean | undefined;

  /** @param onFailure called for the first failure of a row only */
  constructor(path: string, onFailure: (error: Error) => void) {
    this.#path = path;
    this.#onFailure = onFailure;
  }

  /**
   * One beat at a time; of those that come meanwhile the last one counts. Resolves when it is written. Never throws.
   */
  async beat(watched: Watched): Promise<void> {
    this.#next = watched;
    this.#writing ??= this.#writeAll();
    await this.#writing;
  }

  async #writeAll(): Promise<void> {
    for (let next = this.#next; next !== undefined; next = this.#next) {
      this.#next = undefined;
      await this.#write(next).then(
        () => (this.#failed = false),
        (error: unknown) => {
          if (this.#failed !== true)
            this.#onFailure(error instanceof Error ? error : new Error(String(error)));
          this.#failed = true;
        },
      );
    }
    this.#writing = undefined;
  }

  async #write(watched: Watched): Promise<void> {
    const idle = watched.addresses.length === 0;
    const told = idle && (this.#idle || (await isMissing(this.#path)));
    if (!told) await this.#replace(watched);
    this.#idle = idle;
  }

  async #replace({ device, port, addresses }: Watched): Promise<void> {
    // tmpfiles makes it where the daemon may not.
    if (this.#failed !== false) await mkdir(dirname(this.#path), { recursive: true }).catch(() => undefined);
    const line = `${[Math.floor(uptime()), device, port, ...addresses].join(' ')}\n`;
    // The switch is another user. And in /run there is no disk to wait for.
    await replaceWhole(this.#path, line, { mode: 0o644, oneWriter: true, durable: false });
  }
}

function isMissing(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
  );
}
