/** What BIRD should draw to this node. Data only. */
export interface BirdDesired {
  /** Carries the floating IPs; made by the plugin (`dummy`, or `ifb` where the kernel has no dummy). */
  readonly device: string;
  /** IPv4 addresses. Whatever else stands on the device is taken off. */
  readonly addresses: readonly string[];
  /** `ranked`: the longer the path, the later this node was admitted, so that the first one draws all. */
  readonly mode: 'equal' | 'ranked';
  /** Order of admission, 0 first. Never who is alive: a death must not change any path. */
  readonly rank: number;
  readonly announce: boolean;
  /** Why it is announced or not, for the audit trail. */
  readonly why: string;
}

/** BIRD draws nothing here by us: our fragment, the device that it names and their addresses go. */
export interface BirdRetired {
  readonly retired: true;
  /** For the audit trail. */
  readonly why: string;
}
