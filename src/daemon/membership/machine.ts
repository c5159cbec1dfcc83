import {
  createCore,
  type Core,
  isLiving,
  type MembershipOptions,
  newEntry,
  note,
  schedulePeriodic,
  selfEntry,
  send,
} from './core.ts';
import { countGossip, flush } from './dissemination.ts';
import { limits } from './limits.ts';
import { dialFailed, hearUnlink, linkClosed, linkOpened, planLinks } from './links.ts';
import { leave, publishFacts, sayGoodbye, takeFacts } from './own.ts';
import {
  directTimedOut,
  forgiveLateness,
  hearReport,
  heardFrom,
  indirectTimedOut,
  probeLinks,
  relay,
  relayTimedOut,
} from './probing.ts';
import { probe } from './probe.ts';
import { bury, reap } from './reap.ts';
import { hearRecord, isInRange } from './records.ts';
import { considerVerdict, hearAccusation, showRefutation } from './suspicion.ts';
import { hearDelta, hearDigest, syncRound } from './sync.ts';
import type { Admitted, Event, Membership, Message, PeerId, Snapshot, Timer } from './types.ts';
import { buildView, changed, freezeRecord, touch } from './view.ts';

/**
 * The membership protocol of one node: events in, effects out, without a clock, randomness, I/O or waiting.
 *
 * The caller sends `start` first and then everything that happens, each with a monotonic time in ms, and carries out
 * the effects in order. It may drop none of them except `note`. Messages, records and accusations must have been
 * decoded and their signatures verified before. `step` never throws; it answers an unusable event with a `note`.
 */
export function createMembership(options: MembershipOptions): Membership {
  const core = createCore(options);
  freezeRecord(options.self);
  core.entries.set(core.selfId, newEntry(core.signer.record(options.self), options.self.status, 0));
  return {
    step(event, nowMs) {
      core.effects = [];
      core.nowMs = Math.max(core.nowMs, Number.isFinite(nowMs) ? nowMs : 0);
      try {
        advance(core, event);
      } catch (error) {
        // The last line of defence: a peer's message must not end the daemon. Tests check that it is never reached.
        core.effects.push({ kind: 'note', code: 'internal-error', peer: undefined, detail: String(error) });
      }
      return core.effects;
    },
    get view() {
      return buildView(core);
    },
    snapshot: () => takeSnapshot(core),
  };
}

function advance(core: Core, event: Event): void {
  if (core.halted) return;
  if (event.kind === 'start') {
    if (!core.started) start(core, event);
    return;
  }
  if (!core.started) return note(core, 'not-started', undefined, `${event.kind} before start`);
  const latenessMs = core.clockwork.latenessAt(core.nowMs);
  if (latenessMs > 0) forgiveLateness(core, latenessMs);
  happen(core, event);
}

function happen(core: Core, event: Exclude<Event, { kind: 'start' }>): void {
  switch (event.kind) {
    case 'admitted':
      return admit(core, event.member);
    case 'revoked':
      return revoke(core, event.peer);
    case 'connected':
      return linkOpened(core, event.peer);
    case 'disconnected':
      return linkClosed(core, event.peer);
    case 'dialFailed':
      return dialFailed(core, event.peer, event.refused);
    case 'received':
      return receive(core, event.from, event.message, event.via ?? 'gossip');
    case 'timer':
      return fire(core, event.timer);
    case 'local':
      return takeFacts(core, event.facts);
    case 'lag':
      return forgiveLateness(core, event.lagMs);
    case 'goodbye':
      return sayGoodbye(core, event.goodbye);
    case 'leave':
      return leave(core, 'leaving');
    case 'departed':
      return leave(core, 'left');
  }
}

function start(core: Core, event: Extract<Event, { kind: 'start' }>): void {
  core.started = true;
  for (const member of event.roster) admit(core, member);
  const mine = selfEntry(core);
  const { self } = core.options;
  // A restored snapshot, even an old one, must never let this node use a version below one that it has used.
  const incarnation = Math.max(self.incarnation, (event.snapshot?.incarnation ?? -1) + 1);
  mine.signed = core.signer.record(incarnation === self.incarnation ? self : { ...self, incarnation });
  freezeRecord(mine.signed.record);
  mine.sinceMs = core.nowMs;
  core.factsSignedMs = core.nowMs;
  core.ownBucket.filledMs = core.nowMs;
  changed(core, mine, undefined, 'started');
  for (const member of event.snapshot?.members ?? []) restore(core, member);
  core.synced = event.founder || !hasOthers(core);
  planLinks(core);
  probeLinks(core);
  schedulePeriodic(core, 'sync', core.preset.syncRetryMs * core.random.between(0.5, 1));
  schedulePeriodic(core, 'reap', core.preset.reapIntervalMs);
}

/** The state of the snapshot, except a suspicion: present members must renew it. */
function restore(core: Core, member: Snapshot['members'][number]): void {
  const { signed, state } = member;
  const { peerId } = signed.record;
  if (peerId === core.selfId || !core.roster.has(peerId) || core.entries.size >= limits.members) return;
  if (!isInRange(signed.record)) return;
  freezeRecord(signed.record);
  const entry = newEntry(signed, state === 'suspect' ? 'alive' : state, core.nowMs);
  core.entries.set(peerId, entry);
  changed(core, entry, undefined, 'from the snapshot');
}

function hasOthers(core: Core): boolean {
  for (const peer of core.roster.keys())
    if (peer !== core.selfId && core.entries.get(peer)?.state !== 'left') return true;
  return false;
}

function admit(core: Core, member: Admitted): void {
  if (core.roster.size >= limits.roster && !core.roster.has(member.peerId))
    return note(core, 'roster-full', member.peerId, `more than ${limits.roster} admitted`);
  core.roster.set(member.peerId, member);
  core.tombstones.delete(member.peerId);
  core.dials.delete(member.peerId);
}

/** Removes a member at once from the roster, the view and the wire. It can return only by a new admission. */
function revoke(core: Core, peer: PeerId): void {
  if (peer === core.selfId) return note(core, 'self-revoked', peer, 'this node was removed from the cluster');
  core.roster.delete(peer);
  const link = core.links.get(peer);
  if (link !== undefined) {
    link.unlinking = true;
    core.effects.push({ kind: 'disconnect', peer, reason: 'revoked' });
  }
  const entry = core.entries.get(peer);
  if (entry !== undefined) bury(core, entry);
  for (const other of core.entries.values()) if (other.accusations.delete(peer)) touch(core, other);
}

function receive(core: Core, from: PeerId, message: Message, via: 'gossip' | 'stream'): void {
  if (!core.roster.has(from) || from === core.selfId)
    return note(core, 'stranger-heard', from, `${message.kind} from somebody who is not admitted`);
  // Gossip can be old and come from others; everything else is sent by the peer's own process now.
  if (message.kind !== 'batch') heardFrom(core, from);
  switch (message.kind) {
    case 'batch':
      if (via === 'gossip') countGossip(core, message);
      for (const signed of message.records.slice(0, limits.members)) hearRecord(core, signed, via);
      for (const signed of message.accusations.slice(0, limits.members))
        hearAccusation(core, signed, via, from);
      if (via === 'stream') showRefutation(core, from, message.accusations.slice(0, limits.members));
      return;
    case 'ping':
      return send(core, from, { kind: 'ack', nonce: message.nonce });
    case 'ack':
      return;
    case 'pingRequest':
      return relay(core, from, message.nonce, message.target);
    case 'pingReport':
      return hearReport(core, from, message.nonce, message.target, message.reached);
    case 'unlink':
      return hearUnlink(core, from);
    case 'digest':
      return hearDigest(core, from, message);
    case 'delta':
      return hearDelta(core, from, message);
  }
}

function fire(core: Core, timer: Timer): void {
  switch (timer.kind) {
    case 'probeTimeout':
      return directTimedOut(core, timer.nonce);
    case 'indirectTimeout':
      return indirectTimedOut(core, timer.nonce);
    case 'relayTimeout':
      return relayTimedOut(core, timer.nonce);
    case 'suspicion':
      return considerVerdict(core, timer.subject, timer.incarnation);
    case 'restartWindow':
      return windowEnded(core, timer.subject, timer.incarnation);
    case 'probe':
    case 'flush':
    case 'sync':
    case 'links':
    case 'reap':
      return firePeriodic(core, timer.kind, timer.epoch);
  }
}

function firePeriodic(core: Core, kind: keyof Core['epochs'], epoch: number): void {
  if (core.epochs[kind] !== epoch) return;
  switch (kind) {
    case 'probe':
      return probeLinks(core);
    case 'flush':
      core.dueMs.flush = 0;
      publishFacts(core);
      return flush(core);
    case 'sync':
      publishFacts(core);
      return syncRound(core);
    case 'links':
      return planLinks(core);
    case 'reap':
      return reap(core);
  }
}

/** The window of a goodbye is over: the member is back, or the usual evidence counts again. */
function windowEnded(core: Core, subject: PeerId, incarnation: number): void {
  const entry = core.entries.get(subject);
  if (entry === undefined || entry.signed.record.incarnation !== incarnation) return;
  if (entry.windowEndsMs === 0 || core.nowMs + 1 < entry.windowEndsMs) return;
  entry.windowEndsMs = 0;
  changed(core, entry, entry.state, 'its restart took too long');
  if (isLiving(entry)) probe(core, subject, core.links.has(subject) ? 'window' : 'closed');
}

function takeSnapshot(core: Core): Snapshot {
  const members = [...core.entries.values()].map(({ signed, state }) => ({ signed, state }));
  return {
    savedAtMs: core.nowMs,
    incarnation: selfEntry(core).signed.record.incarnation,
    members,
  };
}
