import { PluginError } from '../contract.ts';
import type { DnsDesired } from './desired.ts';
import type { DnsChange, ZoneRecord } from './plan.ts';
import type { DnsProvider } from './provider.ts';
import { isRefusal, type MarkChange, markChange } from './shown.ts';

/** The zone as it was last read, and its changes. After each change the next reading asks the provider again. */
export class Zone {
  readonly #provider: DnsProvider;
  readonly #nowMs: () => number;
  #read: { readonly records: readonly ZoneRecord[]; readonly atMs: number } | undefined;

  constructor(provider: DnsProvider, nowMs: () => number) {
    this.#provider = provider;
    this.#nowMs = nowMs;
  }

  /** Asks the provider if the last reading is older than this. */
  async records(maxAgeMs: number, signal: AbortSignal): Promise<readonly ZoneRecord[]> {
    const { records, atMs } = this.#read ?? { records: undefined, atMs: Number.NEGATIVE_INFINITY };
    return records === undefined || this.#nowMs() - atMs > maxAgeMs ? this.read(signal) : records;
  }

  async read(signal: AbortSignal): Promise<readonly ZoneRecord[]> {
    const records = await this.#provider.list(signal);
    this.#read = { records, atMs: this.#nowMs() };
    return records;
  }

  /** Both providers validate a change themselves: by its prerequisite, or by the id of the record. */
  async change(
    changes: readonly DnsChange[],
    owner: string,
    signal: AbortSignal,
    made: (change: DnsChange) => void,
  ): Promise<void> {
    this.#read = undefined;
    await this.#provider.changeAll(changes, owner, signal, made);
  }

  /**
   * Marks a set as the cluster's, or removes the mark; any node with the provider's key may do so.
   *
   * @returns what was done, for people
   * @throws PluginError `dns-set-unknown`, `dns-not-wanted`, `dns-changed`, or of the provider
   */
  async mark(
    verb: 'adopt' | 'release',
    set: Pick<MarkChange, 'name' | 'type'>,
    desired: DnsDesired,
    signal: AbortSignal,
  ): Promise<string> {
    const judged = markChange(verb, set, desired, await this.read(signal));
    const what = `${set.name} ${set.type}`;
    if (judged === undefined) return `${what} is already ${verb === 'adopt' ? 'the cluster’s' : 'yours'}`;
    if (isRefusal(judged)) throw new PluginError({ ...judged, outcome: 'terminal' });
    await this.#provider.mark(judged, signal);
    this.#read = undefined;
    return verb === 'adopt'
      ? `${what} is the cluster’s now; its values follow the members within a minute`
      : `${what} is yours now, and stays as it is`;
  }
}
