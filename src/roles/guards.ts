import type { MembershipView, NodeRecord, Role } from '../daemon/membership/types.ts';
import {
  type EffectiveMember,
  type EffectiveView,
  type Hold,
  plainRotation,
  type Rotation,
} from './effective.ts';
import { type RosterMember, withoutNamesakes } from './namesakes.ts';

/**
 * Guards hold configuration, never health: HAProxy's own checks continue for each server whatever a guard holds. They
 * turn the view of the membership protocol into the members that the programs of this node are configured for.
 */

/** State that survives a restart of the daemon. Times are wall-clock ms: the monotonic clock restarts as well. */
export interface GuardState {
  /** Names that were alive while the set of living members did not change for {@link GuardOptions.stableAfterMs}. */
  readonly stable: readonly string[];
  /** The set seen last, and since when it has not changed. */
  readonly living: readonly string[];
  readonly livingSinceMs: number;
  /** Roles whose landslide is held now, since when, and which members are gone. */
  readonly landslides: readonly {
    readonly role: Role;
    readonly sinceMs: number;
    readonly gone: readonly string[];
  }[];
  /** The last rotation of each member by name: the last good configuration. */
  readonly rotations: Readonly<Record<string, Rotation>>;
}

/** Times in ms. */
interface GuardOptions {
  /** A landslide is measured against a view that was stable for this long. */
  readonly stableAfterMs: number;
  /** A landslide that nobody released is accepted after this time. */
  readonly landslideHoldMs: number;
}

export const DEFAULT_GUARD_OPTIONS: GuardOptions = { stableAfterMs: 60_000, landslideHoldMs: 600_000 };

export const EMPTY_GUARD_STATE: GuardState = {
  stable: [],
  living: [],
  livingSinceMs: 0,
  landslides: [],
  rotations: {},
};

export interface GuardInput {
  readonly view: MembershipView;
  /** Admitted and not revoked, self included. */
  readonly roster: readonly RosterMember[];
  readonly revoked: EffectiveView['revoked'];
  readonly revokedAuthorities: EffectiveView['revokedAuthorities'];
  readonly knownCertificates: EffectiveView['knownCertificates'];
  /** Machine time, for the freshness of records. */
  readonly nowMs: number;
  readonly wallMs: number;
}

/** The view that the roles work from, and the state to keep. Pure. */
export function guarded(
  input: GuardInput,
  state: GuardState,
  options: GuardOptions = DEFAULT_GUARD_OPTIONS,
): { effective: EffectiveView; state: GuardState } {
  const admitted = withoutNamesakes(input.roster, input.view.self);
  const counted = { ...input, view: viewOf(admitted.used, input.view) };
  const living = namesAlive(counted.view);
  const changed = living.join() !== state.living.join();
  const livingSinceMs = changed ? input.wallMs : state.livingSinceMs;
  // Before the first sync this node does not know who is alive: silence is no evidence.
  const { synced } = input.view;
  const found = synced ? landslidesNow(counted, state) : state.landslides;
  const landslides = found.filter((each) => input.wallMs - each.sinceMs < options.landslideHoldMs);
  const believed = synced && landslides.length === 0;
  // A landslide that outlasted its hold is accepted at once; else the next turn would find it again.
  const stood = input.wallMs - livingSinceMs >= options.stableAfterMs || found.length > landslides.length;
  const grown = [...new Set([...state.stable, ...living])].sort();
  // Additions count at once, so that a young cluster is guarded too; a gone member counts until the set is stable.
  const stable =
    believed && stood ? living : synced ? grown.filter((name) => mayStay(name, counted)) : state.stable;
  const { members, namesakes } = effectiveMembers(admitted, input, state, landslides);
  const rotations = Object.fromEntries(members.map((member) => [member.record.name, member.rotation]));
  return {
    effective: {
      self: input.view.self,
      members,
      namesakes,
      synced,
      held: holdsOf(input, landslides, members),
      revoked: input.revoked,
      revokedAuthorities: input.revokedAuthorities,
      knownCertificates: input.knownCertificates,
    },
    state: { stable, living, livingSinceMs, landslides, rotations },
  };
}

/** The operator confirms that the gone members are gone. The present set becomes the stable one. */
export function released(state: GuardState): GuardState {
  return { ...state, landslides: [], stable: state.living };
}

/** Who is used under a name is counted: another that is alive under it does not make up for its absence. */
function viewOf(used: readonly RosterMember[], view: MembershipView): MembershipView {
  const peers = new Set(used.map(({ peerId }) => peerId));
  return { ...view, members: view.members.filter(({ record }) => peers.has(record.peerId)) };
}

function namesAlive(view: MembershipView): string[] {
  const names = view.members
    .filter((member) => member.state === 'alive' || member.state === 'suspect' || member.restarting)
    .map((member) => member.record.name);
  return [...new Set(names)].sort();
}

/** A member that left or was removed is no part of a landslide. */
function mayStay(name: string, { view, roster }: GuardInput): boolean {
  const member = view.members.find((each) => each.record.name === name);
  return member?.state !== 'left' && member?.state !== 'leaving' && roster.some((each) => each.name === name);
}

function landslidesNow(input: GuardInput, state: GuardState): GuardState['landslides'] {
  const alive = new Set(namesAlive(input.view));
  return (['app', 'db'] as const).flatMap((role) => {
    const before = state.stable.filter((name) => name.endsWith(`/${role}`) && mayStay(name, input));
    const gone = before.filter((name) => !alive.has(name));
    if (gone.length < 2 || gone.length * 2 <= before.length) return [];
    const sinceMs = state.landslides.find((each) => each.role === role)?.sinceMs ?? input.wallMs;
    return [{ role, sinceMs, gone }];
  });
}

function effectiveMembers(
  { used, namesakes, beforeSelf }: ReturnType<typeof withoutNamesakes>,
  input: GuardInput,
  state: GuardState,
  landslides: GuardState['landslides'],
): Pick<EffectiveView, 'members' | 'namesakes'> {
  const ranks: Record<Role, number> = { app: 0, db: 0 };
  const facts = (admitted: RosterMember) => {
    const member = input.view.members.find((each) => each.record.peerId === admitted.peerId);
    const self = admitted.peerId === input.view.self;
    return {
      record: member?.record ?? silentRecord(admitted),
      state: member?.state ?? ('dead' as const),
      freshMs: self ? 0 : member === undefined ? Number.POSITIVE_INFINITY : input.nowMs - member.heardMs,
      rank: ranks[admitted.role],
      self,
      ...(member === undefined
        ? { rotation: 'out' as const, reason: 'admitted, but its daemon has not reported yet' }
        : plainRotation(member)),
    };
  };
  const members = used.map((admitted): EffectiveMember => {
    const plain = facts(admitted);
    ranks[admitted.role] += 1;
    if (plain.self) return beforeSelf === undefined ? plain : { ...plain, ...nameShared(beforeSelf) };
    return { ...plain, ...heldRotation(admitted, plain.rotation, input, state, landslides) };
  });
  return {
    members,
    namesakes: namesakes.map(({ member, of }) => ({ ...facts(member), ...nameShared(of) })),
  };
}

function nameShared({
  peerId,
  name,
  address,
}: RosterMember): Pick<EffectiveMember, 'rotation' | 'reason' | 'guard'> {
  return {
    rotation: 'out',
    guard: 'namesake',
    reason: `gets no traffic: its name or address is that of ${name} at ${address}, ${peerId}`,
  };
}

/** The rotation that a guard keeps for a member, if it is more than the present one. Additions are never held. */
function heldRotation(
  admitted: RosterMember,
  now: Rotation,
  { view }: GuardInput,
  state: GuardState,
  landslides: GuardState['landslides'],
): Pick<EffectiveMember, 'rotation' | 'reason' | 'guard'> | undefined {
  const before = state.rotations[admitted.name];
  if (now === 'in') return undefined;
  const member = view.members.find((each) => each.record.peerId === admitted.peerId);
  const announced = member !== undefined && (member.state === 'leaving' || member.state === 'left');
  if (!view.synced && !announced) {
    // Without a last good configuration (a node that just joined) all are listed, and HAProxy's own check decides.
    if (before === undefined) return { rotation: 'in', reason: 'not synced yet: its own check decides' };
    if (before !== 'out')
      return {
        rotation: before,
        reason: 'kept from before the restart until the first sync',
        guard: 'first-sync',
      };
  }
  const landslide = landslides.find((each) => each.gone.includes(admitted.name));
  if (landslide !== undefined && before !== undefined && before !== 'out') {
    return {
      rotation: before === 'drain' ? 'drain' : 'in',
      reason: 'held: more than half of its role vanished at once',
      guard: 'landslide',
    };
  }
  return undefined;
}

function holdsOf(
  { view }: GuardInput,
  landslides: GuardState['landslides'],
  members: readonly EffectiveMember[],
): Hold[] {
  const holds = landslides.map(({ role, gone }): Hold => {
    return {
      code: 'landslide',
      subjects: gone,
      message:
        `${gone.join(', ')} vanished without a leave, more than half of role ${role}: nobody is removed ` +
        'until they return or 10 minutes pass',
      next: 'if they are gone for good: bornemisza guards release',
    };
  });
  const kept = members.filter((member) => member.guard === 'first-sync').map((member) => member.record.name);
  if (view.synced || kept.length === 0) return holds;
  return [
    ...holds,
    {
      code: 'not-synced',
      subjects: kept,
      message: `this node has not synced since its start: ${kept.join(', ')} stay unchanged`,
      next: 'wait for the first sync; if none comes: bornemisza doctor',
    },
  ];
}

/** The placeholder for a member that was admitted but never sent a record: it promises nothing. */
function silentRecord(admitted: RosterMember): NodeRecord {
  return {
    peerId: admitted.peerId,
    name: admitted.name,
    role: admitted.role,
    address: admitted.address,
    port: 0,
    incarnation: 0,
    sequence: 0,
    startId: '',
    version: '',
    protocolMin: 0,
    protocolMax: 0,
    status: 'alive',
    health: 'down',
    maintenance: false,
    services: [],
    tags: {},
    load: 0,
    settingsDigest: '',
  };
}
