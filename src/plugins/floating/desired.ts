/** The provider in whose API floating IPs are assigned; `command`: a program of the operator's does it. */
export type ApiProvider = 'digitalocean' | 'hetzner' | 'upcloud' | 'command';

/** In a member's record, after its server: its requests to the provider work. */
export const READY = 'ready';

/** Another app node, as far as it may have the floating IPs. */
export interface Owner {
  /** HOST/ROLE. */
  readonly name: string;
  /** Its server at the provider; undefined: not published yet. */
  readonly id: string | undefined;
  /**
   * Whether a floating IP may be taken from it. `given`: its record says so. `unheard`: its daemon is dead and gave no
   * word, so that the address itself is asked first. `rival`: it has a part of the addresses, and this node the others.
   */
  readonly from: 'given' | 'unheard' | 'rival' | 'never';
}

/** Whether this node has the provider assign the floating IPs to it. Data only. */
export interface ApiDesired {
  /** IPv4 addresses. None in any other mode: what is left of ours on a device is taken off. */
  readonly addresses: readonly string[];
  /** The device that carries what is assigned here; empty where the provider's own address carries it. */
  readonly device: string;
  /** Whether this node is to have them: only then it calls. */
  readonly take: boolean;
  /** Why not even an operator can have them assigned to this node now. */
  readonly barred: string | undefined;
  /** Whether the addresses are asked if they answer: their holder is in doubt, or this node is the next in line. */
  readonly ask: 'doubt' | 'watch' | undefined;
  /** The other app nodes. */
  readonly others: readonly Owner[];
  /** Names of nodes that say that the addresses are silent, though they are assigned. */
  readonly silentTo: readonly string[];
  /** Why it is taken or not, for people. */
  readonly why: string;
}
