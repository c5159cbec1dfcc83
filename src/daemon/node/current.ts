import type { Config } from '../config/config.ts';
import type { MemberRow } from '../control/api.ts';
import type { Look, Phase } from './look.ts';

/** How a node is in this moment, for its parts, and what they tell it. */
export interface CurrentNode {
  readonly config: Config;
  readonly phase: Phase;
  /** The last turn's. */
  readonly last: Look;
  /** One row for each member, sorted by name. */
  rows(): MemberRow[];
  /**
   * The only way from an event to what this node says, to its programs and to the audit trail.
   *
   * @param subjects members (HOST/ROLE) that the reason is about
   */
  turn(reason: string, subjects?: readonly string[]): void;
  /** An entry of the audit trail. */
  operatorDid(what: string): void;
}
