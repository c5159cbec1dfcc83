import { type Config, floatingDevice } from '../config/config.ts';
import type { Driver } from '../driver/driver.ts';
import { Heartbeat, type Watched } from './heartbeat.ts';
import type { Log } from './log.ts';
import type { ServiceManager } from './systemd.ts';

/** If the driver's last turn is older, its loop is blocked; a healthy driver turns each second. */
const TURN_MS = 5000;

interface SignsOfLifeDependencies {
  readonly log: Log;
  readonly serviceManager: ServiceManager;
  readonly driver: Pick<Driver, 'nowMs' | 'lastTurnMs'>;
  /** File of the heartbeat. */
  readonly heartbeat: string;
  /** `text`: this node in one line. */
  readonly node: { readonly config: Config; text(): string };
}

/**
 * The signs of life for systemd, and on role app for the dead-man switch. Both are sent only while the driver's loop
 * turns: a process that is blocked is restarted, and its floating IPs are removed if HAProxy is dead as well.
 */
export class SignsOfLife {
  readonly #dependencies: SignsOfLifeDependencies;
  #heartbeat: Heartbeat | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  /** The last status that systemd got. */
  #text = '';

  constructor(dependencies: SignsOfLifeDependencies) {
    this.#dependencies = dependencies;
  }

  /** The node is ready. */
  async start(): Promise<void> {
    const { serviceManager, node } = this.#dependencies;
    this.#text = node.text();
    await serviceManager.ready(this.#text);
    const intervalMs = serviceManager.watchdogIntervalMs;
    if (intervalMs === undefined) return;
    this.#watchdog = setInterval(() => {
      if (this.#turns(intervalMs)) void serviceManager.watchdog();
    }, intervalMs);
  }

  close(): void {
    clearInterval(this.#watchdog);
  }

  /** systemd waits for this message after the notification of a reload. */
  async reloaded(): Promise<void> {
    await this.#dependencies.serviceManager.ready(this.#text);
  }

  /** Once a second. An unchanged status is not sent again. */
  async tellStatus(): Promise<void> {
    const text = this.#dependencies.node.text();
    if (text === this.#text) return;
    this.#text = text;
    await this.#dependencies.serviceManager.status(text);
  }

  /** Once a second. */
  beat(): void {
    if (this.#turns(TURN_MS)) void this.#beat(this.#watched());
  }

  /** The floating IPs are withdrawn: the dead-man switch has nothing left to remove. */
  async lastBeat(): Promise<void> {
    const watched = this.#watched();
    await this.#beat(watched && { ...watched, addresses: [] });
  }

  async #beat(watched: Watched | undefined): Promise<void> {
    const { heartbeat, log } = this.#dependencies;
    if (watched === undefined) return;
    this.#heartbeat ??= new Heartbeat(heartbeat, (error) =>
      log.warn(
        {
          code: 'heartbeat-failed',
          next: 'systemd-tmpfiles --create bornemisza.conf; it is tried again by itself',
        },
        `the dead-man switch gets no sign of life, as ${heartbeat} cannot be written: ${error.message}`,
      ),
    );
    await this.#heartbeat.beat(watched);
  }

  /** Nothing on role db, which has no floating IPs. */
  #watched(): Watched | undefined {
    const { config } = this.#dependencies.node;
    if (config.role !== 'app') return undefined;
    const { mode, addresses } = config.floating;
    return {
      device: floatingDevice(config),
      port: config.edge.http_port,
      // If the provider moves them, another node takes them from a silent one: nothing has to be removed here.
      addresses: mode === 'off' || mode === 'api' ? [] : addresses,
    };
  }

  /** Whether the driver's loop turned within this time. */
  #turns(withinMs: number): boolean {
    const { driver } = this.#dependencies;
    return driver.nowMs() - driver.lastTurnMs < withinMs;
  }
}
