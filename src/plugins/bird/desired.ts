/** Tag of a node: a neighbour gets all floating IPs from it. */
export const EXPORTED = 'exported';

/** What BIRD should announce from this node. Data only. */
export interface BirdDesired {
  /** The device of the floating IPs; the plugin creates it (`dummy`, or `ifb` if the kernel has no dummy). */
  readonly device: string;
  /** IPv4 and IPv6 addresses in canonical form. All others on the device are removed. */
  readonly addresses: readonly string[];
  /** `ranked`: a node that was admitted later has a longer path, so that the first one gets all traffic. */
  readonly mode: 'equal' | 'ranked';
  /** Order of admission, 0 first. It does not depend on who is alive: a death must not change any path. */
  readonly rank: number;
  /** The longest hold time of a session that is no alarm, seconds; undefined: any. bird.conf sets it. */
  readonly holdTimeS?: number;
  readonly announce: boolean;
  /** Why it is announced or not, for the audit trail. */
  readonly why: string;
  /** Why an announcement that is not made yet waits; what is announced stays. Undefined: nothing waits. */
  readonly wait?: string | undefined;
}

/** We announce nothing here: our fragment, the device that it names and their addresses are removed. */
export interface BirdRetired {
  readonly retired: true;
  /** For the audit trail. */
  readonly why: string;
}
