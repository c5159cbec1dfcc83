import { READY } from '../plugins/floating/desired.ts';
import type { Announcement, AppSituation } from './situation.ts';
import type { EffectiveMember, EffectiveView } from './effective.ts';

/**
 * Which node holds the floating IPs on its public device, without BGP. Each node decides for itself, from its own view;
 * nodes with the same view decide the same, and at most one of them holds.
 */

/**
 * Tag of a node: it has the floating IPs on its device, or their state in BIRD, which is `exported` or the code of the
 * problem.
 */
export const HOLDS_TAG = 'floating';
export const HOLDS = 'held';
/**
 * Mode `api`, in the record of an app node: its server at the provider, whether its queries to the provider work, and
 * the code of a problem, separated by blanks.
 */
export const SERVER_TAG = 'server';

/** A restarted daemon finds its peers within two seconds; one that finds none in this time is cut off. */
const KEEP_UNSYNCED_MS = 10_000;

interface HolderInput {
  readonly view: EffectiveView;
  readonly local: AppSituation;
}

export interface Holding extends Announcement {
  /** Names of others that say they hold. */
  readonly rivals: readonly string[];
  readonly why: string;
  /** Why an announcement that is not made yet waits, see returns.ts; undefined: it is made at once. */
  readonly wait?: string | undefined;
}

/**
 * @param own whether this node would announce with BGP: its own health, or the last candidate
 * @param canTake whether a member has the means to take them; a present holder keeps them without
 */
export function holdingOf(
  { view, local }: HolderInput,
  own: Announcement,
  canTake: (member: EffectiveMember) => boolean = () => true,
): Holding {
  const others = view.members.filter((member) => !member.self);
  const rivals = others
    .filter((member) => member.state === 'alive' && claims(member))
    .map(({ record }) => record.name);
  const decided = (announce: boolean, why: string): Holding => ({ announce, rivals, why });
  if (own.announce && !view.synced && local.holds && local.upMs < KEEP_UNSYNCED_MS)
    return decided(true, 'held before the start');
  const barred = barredFrom({ view, local }, own);
  if (barred !== undefined) return decided(false, barred);
  const self = view.members.find((member) => member.self);
  const able = self === undefined || canTake(self) || local.holds;
  const first = others
    .filter((member) => isCandidate(member) && (canTake(member) || claims(member)))
    .map(standingOf)
    .concat(able ? standingOfSelf(view, local) : [])
    .sort(byStanding)[0];
  if (first === undefined && !able)
    return decided(false, 'the provider answers neither this node nor another one');
  if (first === undefined || first.self) return decided(true, local.holds ? 'it has them' : 'first in line');
  return decided(false, `${first.name} ${first.holds ? 'has them' : 'is before this node'}`);
}

/** Why this node cannot have them, whatever the others do; undefined: no reason. */
export function barredFrom({ view, local }: HolderInput, own: Announcement): string | undefined {
  if (!own.announce) return own.why;
  if (!view.synced) return 'no other node was reached since the start';
  // A suspicion does not move the addresses: a holder that is cut off releases them before another node takes them.
  const heard = view.members.filter(
    ({ self, state }) => self || state === 'alive' || (local.holds && state === 'suspect'),
  );
  const counted = view.members.filter(({ self, state }) => self || state !== 'left');
  if (2 * heard.length > counted.length) return undefined;
  return `reaches ${heard.length} of ${counted.length} nodes, itself included: no majority`;
}

/** Mode `api`: it has a token, and its last query to the provider worked. */
export function isReady({ record }: EffectiveMember): boolean {
  return (record.tags[SERVER_TAG] ?? '').split(' ')[1] === READY;
}

interface Standing {
  readonly name: string;
  readonly self: boolean;
  readonly up: boolean;
  readonly holds: boolean;
  readonly rank: number;
}

/** Healthy nodes first, then the present holder (nothing moves without need), then the order of admission. */
function byStanding(one: Standing, other: Standing): number {
  return (
    Number(other.up) - Number(one.up) || Number(other.holds) - Number(one.holds) || one.rank - other.rank
  );
}

function isCandidate(member: EffectiveMember): boolean {
  const { record, state } = member;
  if (record.role !== 'app' || record.maintenance) return false;
  if (record.goodbye !== undefined && record.goodbye.kind !== 'restart') return false;
  if (record.services.some(({ name, health }) => name === 'haproxy' && health === 'down')) return false;
  return state === 'alive' || (state === 'suspect' && claims(member));
}

export function claims({ record }: EffectiveMember): boolean {
  return record.tags[HOLDS_TAG] === HOLDS;
}

function standingOf(member: EffectiveMember): Standing {
  const { record, rank } = member;
  return { name: record.name, self: false, up: record.health === 'up', holds: claims(member), rank };
}

function standingOfSelf(view: EffectiveView, { health, holds }: AppSituation): Standing {
  const self = view.members.find((member) => member.self);
  return { name: self?.record.name ?? '', self: true, up: health === 'up', holds, rank: self?.rank ?? 0 };
}
