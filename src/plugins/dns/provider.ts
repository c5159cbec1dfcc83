import type { DnsChange, ZoneRecord } from './plan.ts';

/** Where the zone lies. Each call is bounded in time, and throws {@link PluginError}. */
export interface DnsProvider {
  /** Every record of the zone that can be read, the founder's as well. */
  list(signal: AbortSignal): Promise<ZoneRecord[]>;
  /** Makes one change whole or not at all. Throws `dns-changed` where the set is not as it was planned for. */
  change(change: DnsChange, owner: string, signal: AbortSignal): Promise<void>;
  /** Adds a value beside others to a name's TXT, or takes that value away: for ACME's dns-01. */
  challenge(action: 'add' | 'remove', name: string, value: string, signal: AbortSignal): Promise<void>;
}
