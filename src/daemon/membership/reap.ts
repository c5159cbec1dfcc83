import { type Core, type Entry, schedulePeriodic } from './core.ts';
import { withdraw } from './dissemination.ts';
import { limits } from './limits.ts';
import type { PeerId } from './types.ts';
import { touch } from './view.ts';

/** Forgets dead members after three days, those that left after one, tombstones after a week. */
export function reap(core: Core): void {
  const { preset } = core;
  for (const entry of core.entries.values()) {
    if (entry.peerId === core.selfId) continue;
    const sinceMs = core.nowMs - entry.sinceMs;
    const over =
      (entry.state === 'dead' && sinceMs >= preset.reapDeadMs) ||
      (entry.state === 'left' && sinceMs >= preset.reapLeftMs);
    if (over) bury(core, entry);
  }
  for (const [peer, tombstone] of core.tombstones)
    if (tombstone.untilMs <= core.nowMs) core.tombstones.delete(peer);
  forgetStrangers(core);
  schedulePeriodic(core, 'reap', preset.reapIntervalMs);
}

/** Removes a member; its incarnation stays known, so that an old record of it does not bring it back. */
export function bury(core: Core, entry: Entry): void {
  const { incarnation, name } = entry.signed.record;
  const oldest = core.tombstones.keys().next();
  if (core.tombstones.size >= limits.tombstones && !oldest.done) core.tombstones.delete(oldest.value);
  core.tombstones.set(entry.peerId, {
    incarnation,
    left: entry.state === 'left',
    untilMs: core.nowMs + core.preset.tombstoneMs,
  });
  forget(core, entry.peerId);
  core.effects.push({ kind: 'reaped', peer: entry.peerId, name });
}

function forget(core: Core, peer: PeerId): void {
  core.entries.delete(peer);
  core.probes.delete(peer);
  core.outgoingRecords.delete(peer);
  withdraw(core, peer);
  touch(core, undefined);
}

/** Allowances are kept only for peers on the roster. */
function forgetStrangers(core: Core): void {
  for (const map of [core.accuserBuckets, core.syncBuckets, core.dials])
    for (const peer of map.keys()) if (!core.roster.has(peer)) map.delete(peer);
}
