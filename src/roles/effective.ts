import type { Member, MemberState, NodeRecord } from '../daemon/membership/types.ts';

/**
 * The rotation of a member: whether it gets traffic from the programs of this node.
 *
 * `in`: gets traffic. `unwatched`: its daemon is dead or silent, but its service may work, so HAProxy's own check
 * decides. `drain`: gets no new requests. `out`: gets no traffic.
 */
export type Rotation = 'in' | 'unwatched' | 'drain' | 'out';

export interface EffectiveMember {
  /** Its newest record; for a member that was admitted but never sent one, a placeholder without services. */
  readonly record: NodeRecord;
  readonly state: MemberState;
  readonly rotation: Rotation;
  /** Why, in a few words, for the audit trail. */
  readonly reason: string;
  /** The guard that keeps it at this rotation; undefined: none. */
  readonly guard?: 'first-sync' | 'landslide' | 'namesake' | undefined;
  /** Milliseconds since its newest record was accepted; 0 for self, infinite if there was none. */
  readonly freshMs: number;
  /** Order of admission within its role, 0 first. Never changes while others come and go. */
  readonly rank: number;
  readonly self: boolean;
  /** Its host answers nothing: no new requests, whatever its rotation; see silence.ts. */
  readonly silent?: boolean;
}

/** What a guard holds now, and what an operator can do about it. */
export interface Hold {
  readonly code: 'landslide' | 'not-synced';
  /** HOST/ROLE of each member whose rotation it keeps. */
  readonly subjects: readonly string[];
  readonly message: string;
  readonly next: string;
}

/** The result of the guards over the membership view: the only input of the roles about others. */
export interface EffectiveView {
  readonly self: string;
  /** Everybody admitted and not revoked, self included, in order of admission. No name and no host's address twice. */
  readonly members: readonly EffectiveMember[];
  /** Admitted under the name, or with the address, of another member: not used at all (namesakes.ts). */
  readonly namesakes: readonly EffectiveMember[];
  readonly synced: boolean;
  /** What guards hold now. */
  readonly held: readonly Hold[];
  /** Certificates that every door refuses. */
  readonly revoked: readonly { readonly serialHex: string; readonly address?: string }[];
  /** The last part of the name of each removed authority. */
  readonly revokedAuthorities: readonly string[];
  /** SHA-256, in hex, of members' certificates that stay valid although one of those authorities signed them. */
  readonly knownCertificates: readonly string[];
}

/** The rotation of a member without guards. */
export function plainRotation(member: Pick<Member, 'record' | 'state' | 'restarting'>): {
  readonly rotation: Rotation;
  readonly reason: string;
} {
  const { record, state, restarting } = member;
  switch (state) {
    case 'left':
      return { rotation: 'out', reason: 'left the cluster' };
    case 'leaving':
      return { rotation: 'drain', reason: 'is leaving' };
    case 'dead':
      // A dead daemon is not a dead service.
      return { rotation: 'unwatched', reason: 'its daemon is dead; its own check decides' };
    case 'alive':
    case 'suspect':
      break;
  }
  if (record.maintenance) return { rotation: 'out', reason: 'is in maintenance' };
  if (record.goodbye?.kind === 'stop' || record.goodbye?.kind === 'shutdown') {
    return { rotation: 'drain', reason: `announced a ${record.goodbye.kind}` };
  }
  if (record.health === 'down') return { rotation: 'out', reason: downReason(record) };
  if (restarting) return { rotation: 'in', reason: 'its daemon restarts' };
  return { rotation: 'in', reason: state === 'suspect' ? 'alive, though suspected' : 'alive and up' };
}

function downReason(record: NodeRecord): string {
  const failing = record.services
    .filter((service) => service.health === 'down')
    .map((service) => service.name);
  return failing.length === 0 ? 'reports down' : `reports down: ${failing.join(', ')}`;
}
