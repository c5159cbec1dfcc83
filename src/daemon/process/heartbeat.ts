import { access, mkdir } from 'node:fs/promises';
import { uptime } from 'node:os';
import { dirname } from 'node:path';
import { replaceWhole } from '../../host/whole-file.ts';

/** What the dead-man switch (systemd/deadman) must watch. */
export interface Watched {
  /** The device with the floating addresses. */
  readonly device: string;
  /** The port where our HAProxy answers without TLS. */
  readonly port: number;
  /** None: there is nothing to remove, and no sign of life is needed. */
  readonly addresses: readonly string[];
}

/**
 * The daemon's sign of life: one line, UPTIME DEVICE PORT ADDRESS…, replaced as a whole. UPTIME is seconds since the
 * boot, as the wall clock can jump. Only the dead-man switch reads it, and it reads nothing else.
 */
export class Heartbeat {
  readonly #path: string;
  readonly #onFailure: (error: Error) => void;
  #next: Watched | undefined;
  #writing: Promise<void> | undefined;
  /** The switch has nothing to watch, and a former beat was replaced. */
  #idle = false;
  /** Undefined: no beat yet. */
  #failed: boolean | undefined;

  /** @param onFailure called only for the first failure in a row */
  constructor(path: string, onFailure: (error: Error) => void) {
    this.#path = path;
    this.#onFailure = onFailure;
  }

  /** One beat at a time; of calls meanwhile, the last one counts. Resolves when it is written. Never throws. */
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
    // tmpfiles creates the directory, as the daemon may not.
    if (this.#failed !== false) await mkdir(dirname(this.#path), { recursive: true }).catch(() => undefined);
    const line = `${[Math.floor(uptime()), device, port, ...addresses].join(' ')}\n`;
    // The switch runs as another user, so the file is readable for all. /run has no disk to wait for.
    await replaceWhole(this.#path, line, { mode: 0o644, oneWriter: true, durable: false });
  }
}

function isMissing(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
  );
}
