import {
  type Core,
  type Entry,
  isLiving,
  isRestarting,
  note,
  pingIntervalMs,
  schedule,
  selfEntry,
  send,
  withoutRule,
} from './core.ts';
import { accuserHasCredit, discredit, isDoubted } from './credit.ts';
import { accusationWasGossiped, tellAccusation } from './dissemination.ts';
import { limits } from './limits.ts';
import { refute } from './own.ts';
import { decide } from './precedence.ts';
import { probe } from './probe.ts';
import { absolve, isCount, knownOf, type Way } from './records.ts';
import type { Evidence, PeerId, SignedAccusation } from './types.ts';
import { changed, touch } from './view.ts';

/**
 * From accusations to a verdict. Nobody announces a death: each member waits until two different members have accused
 * the same incarnation and the accused had its time to refute, and never declares a member dead that it hears itself.
 * One accuser is enough only for that accuser, and only if no second member can be asked.
 */

/** This node's own accusation: it could not reach the subject, and neither could the members that it asked. */
export function accuse(core: Core, entry: Entry, evidence: Evidence): void {
  if (!isLiving(entry) || isRestarting(core, entry) || entry.accusations.has(core.selfId)) return;
  const { incarnation } = entry.signed.record;
  const accusation = { subject: entry.peerId, incarnation, accuser: core.selfId, evidence };
  const signed = core.signer.accusation(accusation);
  // With two accusers that everybody believes, a third one would cost every node a message and decide nothing.
  const believed = [...entry.accusations.keys()].filter((accuser) => !isDoubted(core, accuser));
  const needed = believed.length < 2;
  if (!record(core, entry, signed)) return;
  if (needed) tellAccusation(core, signed, 0);
}

/** The accusation of another member; the boundary has verified its signature. `from` sent it to us. */
export function hearAccusation(core: Core, signed: SignedAccusation, way: Way, from: PeerId): void {
  const { accusation } = signed;
  const { subject, accuser, incarnation } = accusation;
  if (way === 'gossip') accusationWasGossiped(core, subject, accuser);
  if (accuser === core.selfId || accuser === subject || !isCount(incarnation, limits.incarnation)) return;
  if (!core.roster.has(accuser))
    return note(core, 'accuser-not-admitted', accuser, `accuses ${subject} and is not on the roster`);
  if (subject === core.selfId) return hearOwnAccusation(core, incarnation, accuser, from);
  const entry = core.entries.get(subject);
  if (entry === undefined || entry.accusations.has(accuser)) return;
  if (entry.signed.record.incarnation !== incarnation) return;
  if (entry.accusations.size >= limits.accusersPerMember || !accuserHasCredit(core, accuser)) return;
  if (!record(core, entry, signed)) return;
  if (way !== 'gossip')
    tellAccusation(core, signed, core.random.between(core.preset.flushMs, 5 * core.preset.flushMs));
  followUp(core, entry, signed);
}

/**
 * Accusations that others hold against this node must be refuted. One that only the accuser sends counts by its
 * allowance.
 */
function hearOwnAccusation(core: Core, incarnation: number, accuser: PeerId, from: PeerId): void {
  const mine = selfEntry(core).signed.record;
  if (incarnation !== mine.incarnation || (from === accuser && !accuserHasCredit(core, accuser))) return;
  discredit(core, [accuser]);
  refute(core, incarnation, `refuted ${accuser}`);
}

/** Stores an accusation if it counts by precedence. */
function record(core: Core, entry: Entry, signed: SignedAccusation): boolean {
  const { accusation } = signed;
  const outcome = decide(knownOf(core, entry), { kind: 'accusation', incarnation: accusation.incarnation });
  if (!outcome.accepted) return false;
  const was = entry.state;
  if (entry.accusations.size === 0) entry.suspectedMs = core.nowMs;
  entry.accusations.set(accusation.accuser, signed);
  entry.state = outcome.state;
  if (was === outcome.state) {
    touch(core, entry);
  } else {
    entry.sinceMs = core.nowMs;
    changed(core, entry, was, `accused by ${accusation.accuser}`);
  }
  scheduleVerdict(core, entry);
  return true;
}

/** Notifies the accused by the shortest way, and probes it. */
function followUp(core: Core, entry: Entry, signed: SignedAccusation): void {
  if (!core.links.has(entry.peerId)) return;
  send(core, entry.peerId, { kind: 'batch', records: [], accusations: [signed] });
  probe(core, entry.peerId, 'accused');
}

function scheduleVerdict(core: Core, entry: Entry): void {
  const dueMs = Math.max(verdictDueMs(core, entry), core.nowMs);
  const { incarnation } = entry.signed.record;
  schedule(core, { kind: 'suspicion', epoch: 0, subject: entry.peerId, incarnation }, dueMs - core.nowMs);
}

function verdictDueMs(core: Core, entry: Entry): number {
  const { preset, health } = core;
  const dueMs = entry.suspectedMs + suspicionMs(core, entry) * health.stretch;
  const window = isRestarting(core, entry) ? entry.windowEndsMs + preset.flushMs : 0;
  return Math.max(dueMs, health.holdUntilMs, window);
}

/** After Lifeguard’s dynamic suspicion: the more and the clearer the evidence, the shorter the time to refute. */
function suspicionMs(core: Core, entry: Entry): number {
  const { preset } = core;
  const needed = withoutRule(core, 'second-observer') ? 1 : 2;
  if (entry.accusations.size < needed) return preset.fullSuspicionMs;
  const refused = [...entry.accusations.values()].filter((one) => one.accusation.evidence === 'closed');
  return refused.length >= 2 ? preset.closedSuspicionMs : preset.suspicionMs;
}

/** The timer: has the time passed, and is there still an accusation? */
export function considerVerdict(core: Core, subject: PeerId, incarnation: number): void {
  const entry = core.entries.get(subject);
  if (entry === undefined || entry.accusations.size === 0 || !isLiving(entry)) return;
  if (entry.signed.record.incarnation !== incarnation) return;
  if (core.nowMs + 1 < verdictDueMs(core, entry)) return scheduleVerdict(core, entry);
  if (hearsItself(core, entry)) return contradict(core, entry);
  const accusers = entry.accusations.size;
  if (accusers >= 2 || withoutRule(core, 'second-observer')) {
    if (lastCall(core, entry)) return postpone(core, entry, core.preset.lastCallMs * core.health.stretch);
    return condemn(core, entry, `${accusers} accusers`);
  }
  if (entry.accusations.has(core.selfId) && !someoneElseAnswers(core, subject))
    return condemn(core, entry, 'silent, and no other member answers');
  // A second witness is available: this node, or the ones that it asks.
  if (!entry.accusations.has(core.selfId)) probe(core, subject, 'accused');
  postpone(core, entry, core.preset.fullSuspicionMs * core.health.stretch);
}

/**
 * A refutation can be delayed by lost segments on the way to this node alone while all others know it: this node shows
 * some of them the accusation, and one that knows of a refutation answers (see `showRefutation`). If the subject's own
 * kernel refused, there can be none.
 */
function lastCall(core: Core, entry: Entry): boolean {
  if (withoutRule(core, 'last-call')) return false;
  const { incarnation } = entry.signed.record;
  if (entry.lastCalled === incarnation || suspicionMs(core, entry) === core.preset.closedSuspicionMs)
    return false;
  entry.lastCalled = incarnation;
  const others = [...core.links.keys()].filter((peer) => peer !== entry.peerId);
  const asked = core.random.sample(others, core.preset.indirectProbes);
  const accusations = [...entry.accusations.values()];
  for (const peer of asked) send(core, peer, { kind: 'batch', records: [], accusations });
  return asked.length > 0;
}

/** To a member with an accusation against an incarnation that is over here: the record that ended it. */
export function showRefutation(core: Core, to: PeerId, accusations: readonly SignedAccusation[]): void {
  const shown = new Set<PeerId>();
  for (const { accusation } of accusations) {
    const entry = core.entries.get(accusation.subject);
    if (entry === undefined || !isLiving(entry) || shown.has(entry.peerId)) continue;
    if (entry.signed.record.incarnation <= accusation.incarnation) continue;
    shown.add(entry.peerId);
    send(core, to, { kind: 'batch', records: [entry.signed], accusations: [] });
  }
}

/** Heard on this node's own link since the accusation, and lately. */
function hearsItself(core: Core, entry: Entry): boolean {
  const link = core.links.get(entry.peerId);
  if (link === undefined || link.heardMs < entry.suspectedMs) return false;
  return core.nowMs - link.heardMs < evidenceMs(core);
}

function evidenceMs(core: Core): number {
  const { probeTimeoutMs, indirectTimeoutMs } = core.preset;
  return 1.1 * pingIntervalMs(core) + (probeTimeoutMs + indirectTimeoutMs) * core.health.stretch;
}

function contradict(core: Core, entry: Entry): void {
  if (entry.accusations.size === 1) return acquit(core, entry, 'answers us');
  // Two members accuse it: it has to refute. It may not have received that, so it is notified again.
  const accusations = [...entry.accusations.values()];
  send(core, entry.peerId, { kind: 'batch', records: [], accusations });
  postpone(core, entry, evidenceMs(core));
}

/** The accusation stays open. */
function postpone(core: Core, entry: Entry, afterMs: number): void {
  const { incarnation } = entry.signed.record;
  schedule(core, { kind: 'suspicion', epoch: 0, subject: entry.peerId, incarnation }, afterMs);
}

function acquit(core: Core, entry: Entry, why: string): void {
  const was = entry.state;
  absolve(core, entry);
  if (was !== 'suspect') return touch(core, entry);
  entry.state = 'alive';
  entry.sinceMs = core.nowMs;
  changed(core, entry, was, why);
}

/**
 * It answered this node, or others on its behalf: our own accusation was wrong. It is already sent, so the member will
 * refute anyway.
 */
export function takeBackAccusation(core: Core, entry: Entry, why: string): void {
  if (entry.accusations.size === 0 || !entry.accusations.has(core.selfId) || !isLiving(entry)) return;
  if (entry.accusations.size === 1) return acquit(core, entry, why);
  entry.accusations.delete(core.selfId);
  touch(core, entry);
}

/** A linked member, other than the subject, that was heard lately: a possible second witness. */
export function someoneElseAnswers(core: Core, subject: PeerId): boolean {
  const newestMs = core.nowMs - evidenceMs(core);
  for (const link of core.links.values()) {
    const entry = core.entries.get(link.peer);
    if (link.peer !== subject && link.heardMs >= newestMs && entry !== undefined && isLiving(entry))
      return true;
  }
  return false;
}

function condemn(core: Core, entry: Entry, why: string): void {
  const { incarnation } = entry.signed.record;
  const outcome = decide(knownOf(core, entry), { kind: 'verdict', incarnation });
  if (!outcome.accepted) return scheduleVerdict(core, entry);
  const was = entry.state;
  entry.state = outcome.state;
  entry.sinceMs = core.nowMs;
  entry.windowEndsMs = 0;
  core.probes.delete(entry.peerId);
  changed(core, entry, was, why);
  if (core.links.has(entry.peerId))
    core.effects.push({ kind: 'disconnect', peer: entry.peerId, reason: 'declared dead' });
}

/** The proof for holding a member dead or suspect; for a verdict from a snapshot this node accuses again. */
export function proofAgainst(core: Core, entry: Entry): readonly SignedAccusation[] {
  if (entry.accusations.size > 0) return [...entry.accusations.values()];
  if (entry.state !== 'dead') return [];
  const { incarnation } = entry.signed.record;
  const accusation = {
    subject: entry.peerId,
    incarnation,
    accuser: core.selfId,
    evidence: 'silent',
  } as const;
  const signed = core.signer.accusation(accusation);
  entry.accusations.set(core.selfId, signed);
  return [signed];
}
