/** The provider whose API assigns floating IPs; `command`: the operator's program does it. */
export type ApiProvider = 'digitalocean' | 'hetzner' | 'upcloud' | 'command';

/** In a member's record, after its server: its requests to the provider work. */
export const READY = 'ready';

/** Another app node as a possible holder of the floating IPs. */
export interface Owner {
  /** HOST/ROLE. */
  readonly name: string;
  /** Its server at the provider; undefined: not published yet. */
  readonly id: string | undefined;
  /**
   * Whether a floating IP may be taken from it. `given`: its record allows it. `unheard`: its daemon is dead without a
   * record that allows it, so the address itself is checked first. `rival`: it has some of the addresses, and this node
   * the others.
   */
  readonly from: 'given' | 'unheard' | 'rival' | 'never';
}

/** Whether this node has the provider assign the floating IPs to it. Data only. */
export interface ApiDesired {
  /** IPv4 addresses. None in any other mode: our remaining addresses are removed from devices. */
  readonly addresses: readonly string[];
  /** The device for addresses that are assigned here; empty if the provider's own address carries them. */
  readonly device: string;
  /** Whether this node should have them: only then it calls the provider. */
  readonly take: boolean;
  /** Why even an operator cannot have them assigned to this node now. */
  readonly barred: string | undefined;
  /** Whether to check if the addresses answer: their holder is in doubt, or this node is next in line. */
  readonly ask: 'doubt' | 'watch' | undefined;
  /** The other app nodes. */
  readonly others: readonly Owner[];
  /** Names of nodes that report that the addresses do not answer although they are assigned. */
  readonly silentTo: readonly string[];
  /** The reason, for people. */
  readonly why: string;
}
