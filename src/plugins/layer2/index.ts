import { runCommand } from '../../host/command.ts';
import { type Plugin, PluginError, type PluginReport } from '../contract.ts';
import { addressesNow, ip, ipFailed, removeAddress } from '../../host/ip.ts';
import type { Layer2Desired } from './desired.ts';
import { labelOf, type Layer2Change, type Layer2Observed, parseAddresses, planLayer2 } from './plan.ts';

export interface Layer2Options {
  /** How often addresses are looked at. Default 500. */
  readonly watchIntervalMs?: number;
}

export interface Layer2Checkpoint {
  /** Addresses that this run takes. */
  readonly taken: readonly { readonly device: string; readonly address: string }[];
}

/** Two questions, each with a second for the answer: one lost frame must not make a second holder. */
const PROBE = ['-D', '-f', '-c', '2', '-w', '2'];
/** Twice, a second apart, for neighbours that miss a frame. */
const TELL = ['-c', '2', '-w', '1'];
const ARPING_TIMEOUT_MS = 5000;
const LOOK_TIMEOUT_MS = 5000;
/** While another machine has the address: how often it is asked whether it still does. */
const ASK_AGAIN_MS = 2000;

/** The one writer of the floating IPs on the public device, where no BGP draws them. */
export class Layer2Plugin implements Plugin<Layer2Desired, Layer2Observed, Layer2Change, Layer2Checkpoint> {
  readonly name = 'layer2';
  readonly evidence = 'ip monitor address';
  readonly #options: Layer2Options;
  #told: string | undefined;
  #refusedAtMs: number | undefined;
  #endWatch: (() => void) | undefined;

  constructor(options: Layer2Options = {}) {
    this.#options = options;
  }

  /** Whether an address of ours is on a device of this host. */
  async leftBehind(): Promise<boolean> {
    const { addresses } = await this.observe(AbortSignal.timeout(LOOK_TIMEOUT_MS));
    return addresses.some(({ ours }) => ours);
  }

  async observe(signal: AbortSignal): Promise<Layer2Observed> {
    const { stdout, complaint } = await ip(['-j', 'addr', 'show'], signal);
    if (complaint !== undefined) throw ipFailed('list the addresses', complaint);
    return { addresses: parseAddresses(stdout), told: this.#told };
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

  /** Nothing is taken while anybody else on the wire answers for any of the addresses. */
  async validate(changes: readonly Layer2Change[], signal: AbortSignal): Promise<void> {
    const takes = changes.filter((change) => change.kind === 'take');
    this.#refusedAtMs = undefined;
    await Promise.all(takes.map(({ device, address }) => this.#probe(device, address, signal)));
  }

  async checkpoint(changes: readonly Layer2Change[]): Promise<Layer2Checkpoint> {
    return { taken: changes.filter((change) => change.kind === 'take') };
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

  /** Rather no holder than two: what was taken is given back. */
  async undo({ taken }: Layer2Checkpoint, signal: AbortSignal): Promise<void> {
    for (const { device, address } of taken) await removeAddress(device, `${address}/32`, signal);
    this.#told = undefined;
  }

  async close(): Promise<void> {
    this.#endWatch?.();
  }

  /** Looks twice a second at the addresses of this host; and asks again, each two seconds, for what another one had. */
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

  async #probe(device: string, address: string, signal: AbortSignal): Promise<void> {
    const { code, stdout } = await arping([...PROBE, '-I', device, address], signal);
    if (code === 0) return;
    const other = /\[([0-9A-F:]{17})\]/i.exec(stdout)?.[1];
    if (other === undefined) throw arpingFailed(`ask on ${device} who has ${address}`, stdout);
    this.#refusedAtMs = performance.now();
    throw new PluginError({
      code: 'layer2-address-taken',
      message: `${address} is not taken on ${device}: ${other} answers for it there`,
      next:
        'find that machine (`bornemisza members`; `ip neigh`): as long as it serves nothing has to be ' +
        `done; else take ${address} off it. It is asked again each two seconds`,
      outcome: 'retry',
      stateChanged: false,
    });
  }
}

async function take(device: string, address: string, signal: AbortSignal): Promise<void> {
  const args = ['addr', 'replace', `${address}/32`, 'dev', device, 'label', labelOf(device)];
  const { complaint } = await ip(args, signal);
  if (complaint !== undefined) throw ipFailed(`put ${address} on ${device}`, complaint);
}

/** An address stays where it is although the neighbours could not be told: they ask for it themselves in time. */
async function tell(device: string, addresses: readonly string[], signal: AbortSignal): Promise<void> {
  // Requests and answers: some neighbours heed only one of the two (RFC 5227, 3).
  const each = addresses.flatMap((address) =>
    ['-U', '-A'].map((form) => arping([form, ...TELL, '-I', device, '-s', address, address], signal)),
  );
  try {
    await Promise.all(each);
  } catch (error) {
    if (!(error instanceof PluginError)) throw error;
    const { code, message, next, outcome, stateChanged } = error;
    throw new PluginError({ code, message, next, outcome, stateChanged, keepsChanges: true, cause: error });
  }
}

/** @returns code 0: nobody answered (when probing), or it was sent; 1: somebody did, or the device is down */
async function arping(
  args: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly code: number; readonly stdout: string }> {
  const { code, stdout, stderr } = await runCommand('arping', args, {
    timeoutMs: ARPING_TIMEOUT_MS,
    signal,
    missingNext: 'install it: `dnf install iputils` (Debian: iputils-arping)',
  });
  if (code !== 0 && code !== 1) throw arpingFailed(`run arping ${args.join(' ')}`, stderr);
  return { code, stdout };
}

function arpingFailed(what: string, said: string): PluginError {
  const permitted = !/not permitted/.test(said);
  return new PluginError({
    code: permitted ? 'layer2-arp-failed' : 'layer2-arp-not-permitted',
    message: `cannot ${what}: ${said.trim().split('\n')[0]?.slice(0, 200)}`,
    next: permitted
      ? 'is the device up? see `ip link` and `bornemisza doctor`'
      : 'the daemon needs CAP_NET_RAW in this mode: ' +
        '/etc/systemd/system/bornemisza@app.service.d/layer2.conf, see docs/install.md',
    outcome: 'retry',
    stateChanged: false,
  });
}
