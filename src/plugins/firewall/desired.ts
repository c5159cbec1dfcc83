/** Who may reach this host's member ports, by private address. No ports and no rules: those are root's. */
export interface FirewallDesired {
  /** App nodes, sorted. */
  readonly apps: readonly string[];
  readonly dbs: readonly string[];
  /** Before the first sync no address is removed: listed addresses stay. */
  readonly keep: boolean;
  /** The reason, for the audit trail. */
  readonly why: string;
}
