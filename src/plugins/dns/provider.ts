import type { DnsChange, ZoneRecord } from './plan.ts';
import type { MarkChange } from './shown.ts';

/** Where the zone lies. Each call is bounded in time, and throws {@link PluginError}. */
export interface DnsProvider {
  /** Every record of the zone that can be read, the founder's as well. */
  list(signal: AbortSignal): Promise<ZoneRecord[]>;
  /**
   * Makes each change whole or not at all, and reports those that are made. Where a set is not as it was planned for,
   * it is left alone: a later read shows it.
   */
  changeAll(
    changes: readonly DnsChange[],
    owner: string,
    signal: AbortSignal,
    made: (change: DnsChange) => void,
  ): Promise<void>;
  /** Sets or takes off the mark of one set. Throws `dns-changed` where the set is not as it was read. */
  mark(change: MarkChange, signal: AbortSignal): Promise<void>;
}
