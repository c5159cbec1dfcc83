import type { TxtRecord } from '../../host/txt-records.ts';

export type RecordType = 'A' | 'AAAA' | 'SRV';

/** All values of one type at one name. */
export interface DnsSet {
  /** Fully qualified, lower case, without the last dot. */
  readonly name: string;
  readonly type: RecordType;
  /** In the form of a zone file, e.g. `192.0.2.7` or `1 0 4101 internal.app1.shop.example`. */
  readonly values: readonly string[];
  readonly ttlS: number;
  /** `serves`: visitors use it, so it never becomes empty. `finds`: members find each other by it. */
  readonly guard: 'serves' | 'finds';
}

export interface DnsDesired {
  /** E.g. `shop.example`. */
  readonly zone: string;
  /** Name of the cluster: our mark. */
  readonly owner: string;
  /** Whether this node writes; other nodes only read the zone now and then. */
  readonly writer: boolean;
  /** Which node writes, for people. */
  readonly why: string;
  readonly sets: readonly DnsSet[];
  /** For the CA that checks the open order, at `_acme-challenge.NAME`. Other values there are not changed. */
  readonly challenges: readonly TxtRecord[];
  /** Addresses of members whose daemon is dead: they stay in a set that serves while their edge answers. */
  readonly doubtful: readonly string[];
  /** Why no value is removed now; additions continue. */
  readonly hold?: string | undefined;
}
