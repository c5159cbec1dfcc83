/** Whether this node holds the floating IPs on its public device, for providers without BGP. Data only. */
export interface Layer2Desired {
  /** The public device; empty where no address is to be held. */
  readonly device: string;
  /** IPv4 addresses, held all together. None in any other mode: what is left of ours is given up. */
  readonly addresses: readonly string[];
  readonly hold: boolean;
  /** Other nodes that report them. When the last one releases them, the neighbours are notified again. */
  readonly rivals: readonly string[];
  /** Why it is held or not, for the audit trail. */
  readonly why: string;
}
