import type { DnsChange, ZoneRecord } from './plan.ts';
import type { MarkChange } from './shown.ts';

/** The host of the zone. Each call is bounded in time, and throws {@link PluginError}. */
export interface DnsProvider {
  /** Every readable record of the zone, also the founder's. */
  list(signal: AbortSignal): Promise<ZoneRecord[]>;
  /**
   * Makes each change whole or not at all, and reports those that are made. A set that differs from the planned state
   * is not changed: a later read shows it.
   */
  changeAll(
    changes: readonly DnsChange[],
    owner: string,
    signal: AbortSignal,
    made: (change: DnsChange) => void,
  ): Promise<void>;
  /** Sets or removes the mark of one set. Throws `dns-changed` if the set differs from what was read. */
  mark(change: MarkChange, signal: AbortSignal): Promise<void>;
}
