import type { MembershipView, Role } from '../daemon/membership/types.ts';
import type { EffectiveMember, EffectiveView } from './effective.ts';

/**
 * Hosts that answer nothing, not even with a refusal. Membership needs one to two seconds to agree that such a member
 * is dead; until then this keeps new requests away from it. It is about health, not configuration, and has guards of
 * its own.
 */

/** A host of other members. */
export interface WatchedHost {
  readonly address: string;
  /** HOST/ROLE of its members. */
  readonly names: readonly string[];
  /**
   * Where a connection is tried: the doors first, then the daemons too. Each has a queue of its own in that host's
   * kernel, so one that overflows hides no host.
   */
  readonly doors: readonly number[];
  readonly daemons: readonly number[];
}

/** Addresses of hosts: those that were asked last, and those of them that gave no answer. */
export interface Silent {
  readonly asked: readonly string[];
  readonly silent: readonly string[];
}

interface SilenceInput {
  /** As the guards made it. */
  readonly effective: EffectiveView;
  readonly view: MembershipView;
  readonly found: Silent;
  readonly doors: Readonly<Record<Role, number>>;
  readonly nowMs: number;
}

/** HAProxy's second check of a member that is dead has long decided by then, see plugins/haproxy/backends.ts. */
const DEAD_WATCHED_MS = 10_000;

const SILENT = 'its host does not answer';

/**
 * The view with the members marked whose hosts are silent, and the hosts to watch. None is marked before the first
 * sync; if most of the hosts that were asked are silent, since that is this host's own link; or if most of a role is,
 * as those that are left could not carry it.
 */
export function withSilence(input: SilenceInput): {
  readonly view: EffectiveView;
  readonly watched: readonly WatchedHost[];
} {
  const { effective, found, doors } = input;
  const members = watchedMembers(input);
  const silent = members.filter(({ record }) => found.silent.includes(record.address));
  const own = effective.members.filter(({ self }) => self);
  const of = (some: readonly EffectiveMember[], role: Role) =>
    some.filter(({ record }) => record.role === role).length;
  const lost = (['app', 'db'] as const).filter((role) =>
    isMost(of(silent, role), of([...members, ...own], role)),
  );
  const counts = effective.synced && !isMost(found.silent.length, found.asked.length);
  const marked = new Set(counts ? silent.filter(({ record }) => !lost.includes(record.role)) : []);
  return {
    view: {
      ...effective,
      members: effective.members.map((member) => (marked.has(member) ? withoutRequests(member) : member)),
    },
    watched: hostsOf(members, doors),
  };
}

/** Those of other hosts that get traffic, or did until they died. */
function watchedMembers({ effective, view, nowMs }: SilenceInput): EffectiveMember[] {
  const own = effective.members.find(({ self }) => self)?.record.address;
  const since = new Map(view.members.map(({ record, sinceMs }) => [record.peerId, sinceMs]));
  return effective.members.filter(({ self, state, record }) => {
    if (self || record.address === own || record.port === 0) return false;
    if (state === 'alive' || state === 'suspect') return true;
    return state === 'dead' && nowMs - (since.get(record.peerId) ?? 0) < DEAD_WATCHED_MS;
  });
}

function hostsOf(members: readonly EffectiveMember[], doors: SilenceInput['doors']): WatchedHost[] {
  return [...Map.groupBy(members, ({ record }) => record.address)].map(([address, here]) => ({
    address,
    names: here.map(({ record }) => record.name),
    doors: here.map(({ record }) => doors[record.role]),
    daemons: here.map(({ record }) => record.port),
  }));
}

const isMost = (part: number, of: number): boolean => part * 2 > of;

function withoutRequests(member: EffectiveMember): EffectiveMember {
  const gets = member.rotation === 'in' || member.rotation === 'unwatched';
  return { ...member, silent: true, ...(gets && { reason: SILENT }) };
}
