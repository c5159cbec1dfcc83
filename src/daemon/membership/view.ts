import { type Core, type Entry, isRestarting, selfEntry } from './core.ts';
import type { Member, MembershipView, MemberState } from './types.ts';

/** The present member, frozen; built once per change. */
function memberOf(core: Core, entry: Entry): Member {
  entry.member ??= Object.freeze({
    record: entry.signed.record,
    state: entry.state,
    sinceMs: entry.sinceMs,
    heardMs: entry.heardMs,
    restarting: isRestarting(core, entry),
    self: entry.peerId === core.selfId,
    accusers: Object.freeze([...entry.accusations.keys()]),
  });
  return entry.member;
}

/** A visible change: a new view, and an effect with the change and its reason. */
export function changed(core: Core, entry: Entry, was: MemberState | undefined, why: string): void {
  touch(core, entry);
  core.effects.push({ kind: 'changed', member: memberOf(core, entry), was, why });
}

/** A change without an event (one more accuser): only the view is new. */
export function touch(core: Core, entry: Entry | undefined): void {
  if (entry !== undefined) entry.member = undefined;
  core.viewVersion += 1;
  core.viewBuilt = undefined;
}

/** Built on request: a burst of changes between two requests costs one view. */
export function buildView(core: Core): MembershipView {
  if (core.viewBuilt !== undefined) return core.viewBuilt;
  const self = core.entries.get(core.selfId);
  if (self !== undefined) {
    self.heardMs = core.nowMs;
    self.member = undefined;
  }
  const members = [...core.entries.values()].map((entry) => memberOf(core, entry));
  members.sort((one, other) => order(one.record, other.record));
  core.viewBuilt = Object.freeze({
    version: core.viewVersion,
    self: core.selfId,
    synced: core.synced,
    members: Object.freeze(members),
  });
  return core.viewBuilt;
}

function order(one: Member['record'], other: Member['record']): number {
  if (one.name !== other.name) return one.name < other.name ? -1 : 1;
  return one.peerId < other.peerId ? -1 : 1;
}

/** Freezes what a record carries: views are handed to the whole daemon. */
export function freezeRecord(record: Member['record']): void {
  if (Object.isFrozen(record)) return;
  for (const service of record.services) Object.freeze(service);
  Object.freeze(record.services);
  Object.freeze(record.tags);
  if (record.goodbye !== undefined) Object.freeze(record.goodbye);
  Object.freeze(record);
}

export function becomeSynced(core: Core, peer: string): void {
  if (core.synced) return;
  core.synced = true;
  touch(core, selfEntry(core));
  core.effects.push({ kind: 'synced', with: peer });
}
