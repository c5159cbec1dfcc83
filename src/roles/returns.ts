import { EXPORTED } from '../plugins/bird/desired.ts';
import type { FloatingMode } from './app.ts';
import type { EffectiveMember, EffectiveView } from './effective.ts';
import { type Holding, HOLDS_TAG } from './holder.ts';

/**
 * Mode `bgp`: edges that come back begin to announce one after another. Each one that begins moves a share of all
 * connections at the provider's router and so ends them; two at once end twice as many, and if what they came back with
 * is bad, nothing has shown it. Each node decides from its own view. Nothing waits while no other edge announces.
 */

/** Between the returns of two edges. */
const SPACING_MS = 5_000;
/** What the other edges find at the same moment arrives within this time. */
const HEARD_MS = 1_000;
/** An edge that is ready and yet does not begin is waited for no longer, from the last return on. */
const LONGEST_WAIT_MS = 15_000;

/** The state that one look passes to the next. */
export interface Returns {
  /** Names of the edges that announced at the last look; undefined: no other node was reached yet. */
  readonly announced: readonly string[] | undefined;
  /** The newest return of another edge, in machine time. */
  readonly last: { readonly name: string; readonly atMs: number } | undefined;
  /** Since when an edge is ready without announcing, by name, in machine time. */
  readonly readySinceMs: ReadonlyMap<string, number>;
}

export const NO_RETURNS: Returns = { announced: undefined, last: undefined, readySinceMs: new Map() };

/** The decision about the floating IPs, with the reason for a wait. */
export function inTurn(
  mode: FloatingMode,
  { view, decided, nowMs }: { view: EffectiveView; decided: Holding | undefined; nowMs: number },
  before: Returns,
): { readonly floating: Holding | undefined; readonly returns: Returns } {
  if (mode !== 'bgp' || decided === undefined) return { floating: decided, returns: NO_RETURNS };
  const returns = nextReturns(view, decided.announce, nowMs, before);
  return { floating: { ...decided, wait: waitOf(view, nowMs, returns) }, returns };
}

/** @param may whether this node may announce */
export function nextReturns(view: EffectiveView, may: boolean, nowMs: number, before: Returns): Returns {
  const edges = view.members.filter(({ record }) => record.role === 'app');
  const announced = edges.filter((edge) => !edge.self && announces(edge)).map(({ record }) => record.name);
  // What announced already when this daemon reached the others has not returned.
  const began = announced.find((name) => before.announced?.includes(name) === false);
  const ready = edges
    .filter((edge) => !announces(edge) && (edge.self ? may : isReady(edge)))
    .map(({ record }) => record.name);
  return {
    announced: view.synced ? announced : undefined,
    last: began === undefined ? before.last : { name: began, atMs: nowMs },
    readySinceMs: new Map(ready.map((name) => [name, before.readySinceMs.get(name) ?? nowMs])),
  };
}

/** Why this node does not begin to announce yet; undefined: it may begin. */
export function waitOf(view: EffectiveView, nowMs: number, returns: Returns): string | undefined {
  const { announced = [], last, readySinceMs } = returns;
  const self = view.members.find((member) => member.self);
  if (self === undefined || announced.length === 0) return undefined;
  const sinceMs = readySinceMs.get(self.record.name);
  if (sinceMs === undefined) return undefined;
  const lastMs = last?.atMs ?? Number.NEGATIVE_INFINITY;
  if (last !== undefined && nowMs - lastMs < SPACING_MS)
    return `${last.name} began less than ${SPACING_MS / 1000} s ago`;
  const first = view.members.find(({ record: { name }, rank }) => {
    const readyMs = readySinceMs.get(name);
    return rank < self.rank && readyMs !== undefined && nowMs - Math.max(readyMs, lastMs) < LONGEST_WAIT_MS;
  });
  if (first !== undefined) return `${first.record.name} begins first`;
  return nowMs - sinceMs < HEARD_MS ? 'another edge may begin at this moment' : undefined;
}

function announces({ record, state }: EffectiveMember): boolean {
  return (state === 'alive' || state === 'suspect') && record.tags[HOLDS_TAG] === EXPORTED;
}

/** It reports no problem of its announcement, and nothing keeps it from announcing. */
function isReady({ record, state }: EffectiveMember): boolean {
  const { health, maintenance, goodbye, tags } = record;
  return state === 'alive' && health === 'up' && !maintenance && !goodbye && (tags[HOLDS_TAG] ?? '') === '';
}
