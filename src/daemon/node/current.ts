import type { Config } from '../config/config.ts';
import type { MemberRow } from '../control/api.ts';
import type { Look, Phase } from './look.ts';

/** The present state of a node, for its parts, and their calls to it. */
export interface CurrentNode {
  readonly config: Config;
  readonly phase: Phase;
  /** Of the last turn. */
  readonly last: Look;
  /** One row for each member, sorted by name. */
  rows(): MemberRow[];
  /**
   * The only way from an event to this node's record, its programs and the audit trail.
   *
   * @param subjects members (HOST/ROLE) that the reason concerns
   */
  turn(reason: string, subjects?: readonly string[]): void;
  /** Adds an entry to the audit trail. */
  operatorDid(what: string): void;
}
