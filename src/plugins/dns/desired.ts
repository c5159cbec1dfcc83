export type RecordType = 'A' | 'AAAA' | 'SRV';

/** All values of one type at one name. */
export interface DnsSet {
  /** Fully qualified, lower case, without the last dot. */
  readonly name: string;
  readonly type: RecordType;
  /** As a zone file has them, e.g. `192.0.2.7` or `1 0 4101 internal.app1.shop.example`. */
  readonly values: readonly string[];
  readonly ttlS: number;
  /** `serves`: visitors come by it, so it never becomes empty. `finds`: members find each other by it. */
  readonly guard: 'serves' | 'finds';
}

export interface DnsDesired {
  /** E.g. `shop.example`. */
  readonly zone: string;
  /** Name of the cluster: our mark. */
  readonly owner: string;
  /** Whether this node writes; another one only looks now and then. */
  readonly writer: boolean;
  /** Who writes, for people. */
  readonly why: string;
  readonly sets: readonly DnsSet[];
  /** Addresses of members whose daemon is dead: they stand in a set that serves as long as their edge answers. */
  readonly doubtful: readonly string[];
  /** Why no value is taken out now; additions go on. */
  readonly hold?: string | undefined;
}
