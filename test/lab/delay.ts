import { fileURLToPath } from 'node:url';
import type { ChildProcess } from 'node:child_process';
import type { Network } from './fabric.ts';
import { inNamespace, ip, spawnInside, type LabPlace } from './namespace.ts';
import { poll, run } from './process.ts';

/**
 * A wire with a latency. Between a host's port and its network's bridge stand two tap devices and a program that hands
 * frames from one to the other later (delay-relay.ts): kernels of small machines come without tc's netem.
 *
 *     host ── port ── [inner bridge] ── tap ⇄ relay ⇄ tap ── [network's bridge]
 */
export class DelayLine {
  readonly innerBridge: string;
  readonly #place: LabPlace;
  readonly #namespace: string;
  readonly #network: Network;
  readonly #inner: string;
  readonly #outer: string;
  readonly #delayMs: number;
  readonly #jitterMs: number;
  #relay: ChildProcess | undefined;

  /** @param wire.delayMs one way; a round trip takes twice that. @param wire.jitterMs at most so much more */
  constructor(
    place: LabPlace,
    namespace: string,
    wire: {
      readonly network: Network;
      readonly port: string;
      readonly delayMs: number;
      readonly jitterMs: number;
    },
  ) {
    this.#place = place;
    this.#namespace = namespace;
    this.#network = wire.network;
    this.innerBridge = `b-${wire.port}`;
    this.#inner = `i-${wire.port}`;
    this.#outer = DelayLine.outerPort(wire.port);
    this.#delayMs = wire.delayMs;
    this.#jitterMs = wire.jitterMs;
  }

  static outerPort(port: string): string {
    return `o-${port}`;
  }

  async open(): Promise<void> {
    await ip(this.#namespace, [
      `link add ${this.innerBridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      `link set ${this.innerBridge} up`,
    ]);
    const relay = fileURLToPath(new URL('delay-relay.ts', import.meta.url));
    const late = [String(this.#delayMs), String(this.#jitterMs)];
    const argv = [process.execPath, relay, this.#inner, this.#outer, ...late];
    this.#relay = spawnInside(this.#place.cgroup, inNamespace(this.#namespace, argv), [
      'pipe',
      'ignore',
      'inherit',
    ]);
    await poll(`the delay line's devices ${this.#inner} and ${this.#outer}`, async () => {
      const seen = await run(['ip', '-n', this.#namespace, 'link', 'show', this.#inner]);
      const other = await run(['ip', '-n', this.#namespace, 'link', 'show', this.#outer]);
      return seen.code === 0 && other.code === 0 ? true : undefined;
    });
    await ip(this.#namespace, [
      `link set ${this.#inner} master ${this.innerBridge} up`,
      `link set ${this.#outer} master ${this.#network} up`,
    ]);
  }

  /** The taps go with the relay's children, which end when its standard input does. */
  async close(): Promise<void> {
    const relay = this.#relay;
    if (relay !== undefined) {
      relay.stdin?.end();
      await poll('the delay line to end', () => relay.exitCode ?? relay.signalCode ?? undefined);
    }
    await ip(this.#namespace, [`link delete ${this.innerBridge}`]);
  }
}
