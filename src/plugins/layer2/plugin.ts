import { addressesNow, removeAddress } from '../../host/ip.ts';
import type { Plugin, PluginReport, Rollback } from '../contract.ts';
import { probe, take, tell } from './apply.ts';
import type { Layer2Desired } from './desired.ts';
import { addressesHeld } from './observe.ts';
import { type Layer2Change, type Layer2Observed, planLayer2 } from './plan.ts';

interface Layer2Options {
  /** How often addresses are checked. Default 500. */
  readonly watchIntervalMs?: number;
}

interface Layer2Checkpoint {
  /** Addresses that this run takes. */
  readonly taken: readonly { readonly device: string; readonly address: string }[];
}

const LOOK_TIMEOUT_MS = 5000;
/** While another machine has the address: how often it is asked whether it still does. */
const ASK_AGAIN_MS = 2000;

/** The one writer of the floating IPs on the public device, without BGP. */
export class Layer2Plugin implements Plugin<Layer2Desired, Layer2Observed, Layer2Change, Layer2Checkpoint> {
  readonly name = 'layer2';
  readonly evidence = 'ip monitor address';
  readonly #options: Layer2Options;
  #told: string | undefined;
  #refusedAtMs: number | undefined;
  #endWatch: (() => void) | undefined;

  /** No holder is better than two: addresses of a failed run are released. */
  readonly rollback: Rollback<Layer2Change, Layer2Checkpoint> = {
    checkpoint: async (changes) => ({ taken: changes.filter((change) => change.kind === 'take') }),
    undo: async ({ taken }, signal) => {
      for (const { device, address } of taken) await removeAddress(device, `${address}/32`, signal);
      this.#told = undefined;
    },
  };

  constructor(options: Layer2Options = {}) {
    this.#options = options;
  }

  /** Whether an address of ours is on a device of this host. */
  async leftBehind(): Promise<boolean> {
    const { addresses } = await this.observe(AbortSignal.timeout(LOOK_TIMEOUT_MS));
    return addresses.some(({ ours }) => ours);
  }

  async observe(signal: AbortSignal): Promise<Layer2Observed> {
    return { addresses: await addressesHeld(signal), told: this.#told };
  }

  plan(desired: Layer2Desired, observed: Layer2Observed): Layer2Change[] {
    return planLayer2(desired, observed);
  }

  status({ addresses }: Layer2Desired, observed: Layer2Observed): PluginReport {
    if (addresses.length === 0) return { alarms: [] };
    const here = observed.addresses
      .map(({ address, device }) => ({ address: address.split('/')[0] ?? '', device }))
      .filter(({ address }) => addresses.includes(address));
    const words = here.map(({ address, device }) => `${address} is on ${device}`);
    return { seen: words.length === 0 ? 'on no device of this node' : words.join(', '), alarms: [] };
  }

  /** Takes no address while another machine on the link answers for any of them. */
  async validate(changes: readonly Layer2Change[], signal: AbortSignal): Promise<void> {
    const takes = changes.filter((change) => change.kind === 'take');
    this.#refusedAtMs = undefined;
    const refused = (): void => {
      this.#refusedAtMs = performance.now();
    };
    await Promise.all(takes.map(({ device, address }) => probe(device, address, refused, signal)));
  }

  async apply(
    changes: readonly Layer2Change[],
    signal: AbortSignal,
    made: (change: Layer2Change) => void,
  ): Promise<void> {
    for (const change of changes) {
      switch (change.kind) {
        case 'give-up':
          this.#told = undefined;
          await removeAddress(change.device, change.address, signal);
          break;
        case 'take':
          await take(change.device, change.address, signal);
          break;
        case 'tell':
          await tell(change.device, change.addresses, signal);
          this.#told = change.word;
      }
      made(change);
    }
  }

  async close(): Promise<void> {
    this.#endWatch?.();
  }

  /** Checks the addresses of this host twice a second; probes an address of another machine every two seconds. */
  watch(changed: (what: string) => void): () => void {
    this.#endWatch?.();
    let last = addressesNow();
    const timer = setInterval(() => {
      const now = addressesNow();
      if (now !== last) changed('an address of this host changed');
      last = now;
      if (this.#refusedAtMs !== undefined && performance.now() - this.#refusedAtMs >= ASK_AGAIN_MS) {
        // Once for each refusal: who still wants it is refused again.
        this.#refusedAtMs = undefined;
        changed('the floating IP may be free');
      }
    }, this.#options.watchIntervalMs ?? 500);
    this.#endWatch = () => clearInterval(timer);
    return this.#endWatch;
  }
}
