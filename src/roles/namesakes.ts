import type { Role } from '../daemon/membership/types.ts';

/**
 * Two authorities that do not know each other's admissions yet can admit two machines under one name, or two hosts with
 * one address; so can a compromised authority. HAProxy refuses two servers of one name, and CouchDB's nodes are named
 * by address, so such a pair would block every change on every node. Pure.
 */

/** One admitted node, from its certificate. */
export interface RosterMember {
  readonly peerId: string;
  readonly name: string;
  readonly role: Role;
  readonly address: string;
  readonly admittedAtMs: number;
}

interface Namesake {
  readonly member: RosterMember;
  /** The member that has its name or address. */
  readonly of: RosterMember;
}

interface Admitted {
  /** In order of admission. No two of them have one name, and no two hosts one address. */
  readonly used: readonly RosterMember[];
  /** The others, which get no traffic until an operator has removed one of the pair. */
  readonly namesakes: readonly Namesake[];
  /** The node that was admitted before this one under its name or with its address. */
  readonly beforeSelf: RosterMember | undefined;
}

/** Every node uses the one that was admitted first. A node always uses itself too, so that it can say what is wrong. */
export function withoutNamesakes(roster: readonly RosterMember[], self: string): Admitted {
  const inOrder = [...roster].sort(byAdmission);
  const own = inOrder.find(({ peerId }) => peerId === self);
  const used: RosterMember[] = [];
  const namesakes: Namesake[] = [];
  for (const member of inOrder) {
    const before = [...used, ...(own === undefined ? [] : [own])];
    const of = member === own ? undefined : before.find((other) => clash(other, member));
    if (of === undefined) used.push(member);
    else namesakes.push({ member, of });
  }
  const beforeSelf =
    own && namesakes.find(({ member, of }) => of === own && byAdmission(member, own) < 0)?.member;
  return { used, namesakes, beforeSelf };
}

/** A host with both roles has one address for two members. */
function clash(one: RosterMember, other: RosterMember): boolean {
  return one.name === other.name || (one.address === other.address && hostOf(one) !== hostOf(other));
}

function hostOf({ name }: RosterMember): string {
  return name.split('/')[0] ?? name;
}

/** As the roster has it (identity/roster/roster.ts), so that all nodes use the same one. */
function byAdmission(one: RosterMember, other: RosterMember): number {
  return one.admittedAtMs - other.admittedAtMs || (one.peerId < other.peerId ? -1 : 1);
}
