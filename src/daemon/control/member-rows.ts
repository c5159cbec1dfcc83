import type { NodeCertificate } from '../identity/keys/chain.ts';
import type { Member, MembershipView, NodeRecord } from '../membership/types.ts';
import type { MemberRow } from './api.ts';

/** A member as this node uses it. */
interface UsedMember extends Pick<MemberRow, 'rotation' | 'reason' | 'self'> {
  readonly record: NodeRecord;
}

interface ReportInput {
  readonly view: MembershipView;
  readonly effective: { readonly members: readonly UsedMember[]; readonly namesakes: readonly UsedMember[] };
  readonly certificates: readonly NodeCertificate[];
  readonly authorities: readonly string[];
  readonly nowMs: number;
}

/** One row for each admitted member, and for members that the view still knows. Sorted by name. */
export function memberRows({ view, effective, certificates, authorities, nowMs }: ReportInput): MemberRow[] {
  return [...effective.members, ...effective.namesakes]
    .map((member) =>
      row(
        member,
        view.members.find((each) => each.record.peerId === member.record.peerId),
      ),
    )
    .sort((a, b) => a.name.localeCompare(b.name));

  function row(member: UsedMember, known: Member | undefined): MemberRow {
    const { record, rotation, reason, self } = member;
    const certificate = certificates.find((each) => each.peerId === record.peerId);
    return {
      name: record.name,
      role: record.role,
      peerId: record.peerId,
      address: record.address,
      state: known?.state ?? 'absent',
      health: record.health,
      maintenance: record.maintenance,
      restarting: known?.restarting ?? false,
      rotation,
      reason,
      version: record.version,
      incarnation: record.incarnation,
      services: record.services,
      tags: record.tags,
      load: record.load,
      stateForMs: known === undefined ? 0 : Math.max(0, nowMs - known.sinceMs),
      heardAgoMs: known === undefined || self ? 0 : Math.max(0, nowMs - known.heardMs),
      certificateNotAfter: certificate === undefined ? '' : new Date(certificate.notAfterMs).toISOString(),
      settingsDigest: record.settingsDigest,
      authority: authorities.includes(record.peerId),
      self,
    };
  }
}
