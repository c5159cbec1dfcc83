import type { PeerId } from '../../membership/types.ts';
import type { Authority } from '../root/authority.ts';
import type { NodeCertificate } from '../keys/chain.ts';
import type { Roster, RosterChange } from './roster.ts';

/**
 * Removes a member for good: signs, and adds to this node's roster. If the member is an authority, everything that it
 * signed becomes void, so this authority signs again what stays valid: the certificates of the others, with their names
 * and keys, and the revocations. A member that only the removed one knew is out.
 *
 * @returns the revocation, as it travels, and what changed; the caller saves and notifies the others
 */
export async function putOut(
  authority: Authority,
  roster: Roster,
  member: NodeCertificate,
  reason: string,
  nowMs: number,
): Promise<{ readonly bytes: Uint8Array; readonly change: RosterChange }> {
  const serials = roster.serialsOf(member.peerId);
  const bytes = await authority.revoke({ ...member, serials }, reason, Math.floor(nowMs));
  const again = await signedAgain(authority, roster, member.peerId, nowMs);
  return { bytes, change: roster.take([bytes, ...again.revocations], again.certificates) };
}

async function signedAgain(authority: Authority, roster: Roster, removed: PeerId, nowMs: number) {
  const certificates: NodeCertificate[] = [];
  for (const member of roster.members()) {
    if (member.peerId !== removed && member.issuer === removed)
      certificates.push(await authority.signAnew(member, nowMs));
  }
  const revocations: Uint8Array[] = [];
  for (const { by, peerId, name, address, serials, reason } of roster.revocations()) {
    if (by.peerId !== removed) continue;
    const words = reason.endsWith(ANEW) ? reason : `${reason}${ANEW}`;
    revocations.push(await authority.revoke({ peerId, name, address, serials }, words, Math.floor(nowMs)));
  }
  return { certificates, revocations };
}

/** The reason of a revocation after a leave: the operator trusted the node until then. */
export const LEFT = 'left by its own word';
const ANEW = ' (signed anew)';
