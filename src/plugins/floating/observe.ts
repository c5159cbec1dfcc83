import { networkInterfaces } from 'node:os';
import { ip, ipFailed } from '../../host/ip.ts';
import type { Finding } from '../contract.ts';
import type { ApiDesired } from './desired.ts';
import { type HeldAddress, heldIn, isLabel } from './plan.ts';
import { type Assignment, type FloatingProvider, notAnswering, ProviderFault } from './provider.ts';

/**
 * Addresses on devices of this host with our label. If no address should be there, a process is started only if one is.
 *
 * @throws PluginError
 */
export async function addressesHeld(wanted: boolean, signal: AbortSignal): Promise<HeldAddress[]> {
  // An address with a label is listed under it.
  if (!wanted && !Object.keys(networkInterfaces()).some(isLabel)) return [];
  const { stdout, complaint } = await ip(['-j', 'addr', 'show'], signal);
  if (complaint !== undefined) throw ipFailed('list the addresses', complaint);
  return heldIn(stdout);
}

const FIRST_AGAIN_MS = 1000;
const MOST_AGAIN_MS = 15_000;

/** The provider's answers, requested only as often as needed. */
export class Looks {
  readonly #provider: FloatingProvider;
  readonly #nowMs: () => number;
  self: string | undefined;
  assigned: ReadonlyMap<string, Assignment> = new Map();
  fault: Finding | undefined;
  #atMs = Number.NEGATIVE_INFINITY;
  #failingSinceMs: number | undefined;
  #failures = 0;
  #notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(provider: FloatingProvider, nowMs: () => number) {
    this.#provider = provider;
    this.#nowMs = nowMs;
  }

  get failingForMs(): number {
    return this.#failingSinceMs === undefined ? 0 : Math.max(1, this.#nowMs() - this.#failingSinceMs);
  }

  /** Whether the last observation is older than this, and another one may be made. */
  due(paceMs: number): boolean {
    const now = this.#nowMs();
    return now >= this.#notBeforeMs && (this.#failures > 0 || now - this.#atMs >= paceMs);
  }

  /** The next observation is made at once, as the known state may be outdated. */
  forget(): void {
    this.#atMs = Number.NEGATIVE_INFINITY;
  }

  /** @returns whether it worked; throws only for a stop */
  async look(addresses: readonly string[], signal: AbortSignal): Promise<boolean> {
    if (this.#nowMs() < this.#notBeforeMs) return false;
    try {
      this.self ??= await this.#provider.self(signal);
      this.assigned = await this.#provider.look(addresses, this.self, signal);
      this.#worked();
      return true;
    } catch (error) {
      signal.throwIfAborted();
      this.#failed(error);
      return false;
    }
  }

  #failed(error: unknown): void {
    const fault = faultOf(error, this.#provider.label);
    const now = this.#nowMs();
    const againMs = Math.min(FIRST_AGAIN_MS * 2 ** this.#failures, MOST_AGAIN_MS);
    this.#failures += 1;
    this.#failingSinceMs ??= now;
    this.#notBeforeMs = Math.max(now + againMs, fault.notBeforeMs ?? 0);
    const { code, message, next } = fault;
    this.fault = { code, message, next };
  }

  #worked(): void {
    this.#atMs = this.#nowMs();
    this.#failures = 0;
    this.#failingSinceMs = undefined;
    this.fault = undefined;
  }
}

/** @param label of the provider */
export function faultOf(error: unknown, label: string): ProviderFault {
  if (error instanceof ProviderFault) return error;
  return notAnswering(label, error instanceof Error ? error.message : String(error));
}

/** How often an address is checked, and how many failures in a row count as silence. */
const PACES = {
  doubt: { everyMs: 500, silences: 3 },
  watch: { everyMs: 5000, silences: 4 },
} as const;

interface Asked {
  silences: number;
  answers: boolean;
  lastMs: number;
  asking: boolean;
}

/** Checks whether the floating IPs serve visitors. */
export class AddressWatch {
  readonly #ask: (address: string) => Promise<boolean>;
  #mode: ApiDesired['ask'];
  #asked = new Map<string, Asked>();

  /** @param ask whether the edge at an address answers and finds a database, within half a second; never throws */
  constructor(ask: (address: string) => Promise<boolean>) {
    this.#ask = ask;
  }

  get said(): ReadonlyMap<string, 'answers' | 'silent'> {
    const least = this.#mode === undefined ? Number.POSITIVE_INFINITY : PACES[this.#mode].silences;
    const said = new Map<string, 'answers' | 'silent'>();
    for (const [address, { silences, answers }] of this.#asked)
      if (answers || silences >= least) said.set(address, answers ? 'answers' : 'silent');
    return said;
  }

  /** Call it twice a second. Results of checks for another reason are forgotten. */
  look(
    mode: ApiDesired['ask'],
    addresses: readonly string[],
    nowMs: number,
    changed: (what: string) => void,
  ): void {
    if (mode !== this.#mode) this.#asked.clear();
    this.#mode = mode;
    if (mode === undefined) return;
    const { everyMs } = PACES[mode];
    for (const address of this.#asked.keys()) if (!addresses.includes(address)) this.#asked.delete(address);
    for (const address of addresses) {
      const asked = this.#asked.get(address) ?? newlyAsked();
      this.#asked.set(address, asked);
      // The interval fires some milliseconds early or late.
      if (asked.asking || nowMs - asked.lastMs < everyMs - 50) continue;
      asked.asking = true;
      asked.lastMs = nowMs;
      void this.#ask(address).then((answers) => {
        asked.asking = false;
        const before = this.said.get(address);
        asked.silences = answers ? 0 : asked.silences + 1;
        asked.answers = answers;
        if (this.#asked.get(address) !== asked) return;
        const now = this.said.get(address);
        if (now !== before && now !== undefined)
          changed(`${address} ${now === 'silent' ? 'no longer answers' : 'answers'}`);
      });
    }
  }
}

function newlyAsked(): Asked {
  return { silences: 0, answers: false, lastMs: Number.NEGATIVE_INFINITY, asking: false };
}
