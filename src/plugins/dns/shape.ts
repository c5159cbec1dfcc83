import type { Finding } from '../contract.ts';
import type { RecordType } from './desired.ts';

/** The answer to `bornemisza dns show`: the records, and the zone as it was read for this answer. */
export interface DnsShown {
  readonly zone: string;
  /** Which node writes, for people. */
  readonly writer: string;
  readonly sets: readonly ShownSet[];
  readonly findings: readonly Finding[];
}

/** One row for each set that is wanted, or has our mark. */
export interface ShownSet {
  readonly name: string;
  /** `TXT`: what a CA must find while an order is open. */
  readonly type: RecordType | 'TXT';
  readonly wanted: readonly string[];
  readonly present: readonly string[];
  /**
   * `ours`: it has our mark. `yours`: it has none and is not changed. `another`: it has the mark of another cluster, or
   * several. `none`: it does not exist.
   */
  readonly whose: 'ours' | 'yours' | 'another' | 'none';
}
