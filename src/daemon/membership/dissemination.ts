import { type Core, type Outgoing, schedulePeriodic, send } from './core.ts';
import { limits } from './limits.ts';
import type { Message, PeerId, SignedAccusation, SignedRecord } from './types.ts';

/**
 * News goes out once, by gossip, together with everything else that waits. Gossip is expensive (8 ms of CPU on every
 * node for each message), so the cluster as a whole has a budget, which each node estimates from what it receives. What
 * exceeds the budget goes on existing streams to a few links, and with the next message within the budget, whoever
 * sends it.
 */

/** `delayMs` above the flush time lets another member be first: what arrives by gossip meanwhile is not repeated. */
export function tellRecord(core: Core, peer: PeerId, delayMs: number): void {
  const readyMs = core.nowMs + delayMs;
  const waiting = core.outgoingRecords.get(peer);
  core.outgoingRecords.set(peer, {
    readyMs: waiting === undefined ? readyMs : Math.min(waiting.readyMs, readyMs),
    streamed: false,
    urgent: delayMs === 0,
  });
  flushBy(core, readyMs);
}

export function tellAccusation(core: Core, signed: SignedAccusation, delayMs: number): void {
  if (core.outgoingAccusations.size >= limits.members) return;
  const readyMs = core.nowMs + delayMs;
  core.outgoingAccusations.set(signed, { readyMs, streamed: false, urgent: delayMs === 0 });
  flushBy(core, readyMs);
}

/** Another member has gossiped this: everybody has it, or soon will. */
export function wasGossiped(core: Core, peer: PeerId): void {
  core.outgoingRecords.delete(peer);
}

export function accusationWasGossiped(core: Core, subject: PeerId, accuser: PeerId): void {
  for (const signed of core.outgoingAccusations.keys()) {
    const { accusation } = signed;
    if (accusation.subject === subject && accusation.accuser === accuser)
      core.outgoingAccusations.delete(signed);
  }
}

/** Drops queued messages about a member that is forgotten, or whose accusations are void. */
export function withdraw(core: Core, subject: PeerId): void {
  for (const signed of core.outgoingAccusations.keys())
    if (signed.accusation.subject === subject) core.outgoingAccusations.delete(signed);
}

function flushBy(core: Core, readyMs: number): void {
  if (core.dueMs.flush > core.nowMs && core.dueMs.flush <= readyMs) return;
  schedulePeriodic(core, 'flush', readyMs - core.nowMs);
}

/** A message of gossip was received or sent: part of the estimate of the cluster's rate. */
export function countGossip(core: Core, message: Extract<Message, { kind: 'batch' }>): void {
  core.gossipHeard.push({ atMs: core.nowMs, author: soleAuthor(message) });
  if (core.gossipHeard.length > limits.gossipTimes) core.gossipHeard.shift();
}

/** The member that signed everything in it; undefined if several did. */
function soleAuthor({ records, accusations }: Extract<Message, { kind: 'batch' }>): PeerId | undefined {
  const authors = new Set(records.map(({ record }) => record.peerId));
  for (const { accusation } of accusations) authors.add(accusation.accuser);
  const [author] = authors;
  return authors.size === 1 ? author : undefined;
}

/**
 * One member's own statements count for less than half of the budget: otherwise a compromised member could use up the
 * budget of all others, and accusations and refutations would go the slower way.
 */
function gossipLastSecond(core: Core): number {
  const share = Math.floor(core.preset.gossipPerSecond / 2);
  const counted = new Map<PeerId, number>();
  let count = 0;
  for (let at = core.gossipHeard.length - 1; at >= 0; at -= 1) {
    const heard = core.gossipHeard[at];
    if (heard === undefined || core.nowMs - heard.atMs >= 1000) break;
    const own = heard.author === undefined ? 0 : (counted.get(heard.author) ?? 0);
    if (own >= share) continue;
    if (heard.author !== undefined) counted.set(heard.author, own + 1);
    count += 1;
  }
  return count;
}

/**
 * Accusations and refutations may use half as much again. The nearer the cluster is to its budget, the smaller the
 * chance to send, since all that wait see the same free room and would use it at the same time.
 */
function hasRoom(core: Core): boolean {
  const urgent =
    core.outgoingRecords.get(core.selfId)?.urgent === true ||
    [...core.outgoingAccusations.values()].some((outgoing) => outgoing.urgent);
  const budget = core.preset.gossipPerSecond * (urgent ? 1.5 : 1);
  const used = gossipLastSecond(core) / budget;
  return used < 0.4 || core.random.fraction() < (1 - used) * 0.8;
}

export function flush(core: Core): void {
  core.dueMs.flush = 0;
  if (core.links.size === 0) {
    // No links. A peer that connects later gets our record, and the rest by a sync.
    core.outgoingRecords.clear();
    core.outgoingAccusations.clear();
    return;
  }
  const next = earliest(core);
  if (next === undefined) return;
  if (next > core.nowMs) return flushBy(core, next);
  if (hasRoom(core)) publish(core);
  else streamToSome(core);
  const again = earliest(core);
  if (again !== undefined) flushBy(core, Math.max(again, core.nowMs + core.preset.flushMs));
}

function earliest(core: Core): number | undefined {
  let first: number | undefined;
  const look = (outgoing: Outgoing): void => {
    if (first === undefined || outgoing.readyMs < first) first = outgoing.readyMs;
  };
  for (const outgoing of core.outgoingRecords.values()) look(outgoing);
  for (const outgoing of core.outgoingAccusations.values()) look(outgoing);
  return first;
}

/** One message with everything that waits, as what is not due yet costs nothing extra. */
function publish(core: Core): void {
  const message = batchOf(core, () => true);
  for (const signed of message.records) core.outgoingRecords.delete(signed.record.peerId);
  for (const signed of message.accusations) core.outgoingAccusations.delete(signed);
  if (message.records.length + message.accusations.length === 0) return;
  countGossip(core, message);
  core.effects.push({ kind: 'publish', message });
}

function streamToSome(core: Core): void {
  const message = batchOf(core, (outgoing) => !outgoing.streamed && outgoing.readyMs <= core.nowMs);
  const postpone = (outgoing: Outgoing | undefined, streamed: boolean): void => {
    if (outgoing === undefined) return;
    outgoing.streamed ||= streamed;
    outgoing.readyMs = core.nowMs + core.random.between(1, 4) * core.preset.stormFlushMs;
  };
  for (const [, outgoing] of core.outgoingRecords)
    if (outgoing.readyMs <= core.nowMs) postpone(outgoing, false);
  for (const [, outgoing] of core.outgoingAccusations)
    if (outgoing.readyMs <= core.nowMs) postpone(outgoing, false);
  for (const signed of message.records) postpone(core.outgoingRecords.get(signed.record.peerId), true);
  for (const signed of message.accusations) postpone(core.outgoingAccusations.get(signed), true);
  if (message.records.length + message.accusations.length === 0) return;
  for (const link of core.random.sample([...core.links.keys()], core.preset.fanout))
    send(core, link, message);
}

function batchOf(core: Core, wanted: (outgoing: Outgoing) => boolean): Extract<Message, { kind: 'batch' }> {
  const records: SignedRecord[] = [];
  for (const [peer, outgoing] of core.outgoingRecords) {
    if (records.length >= limits.recordsPerMessage) break;
    const entry = core.entries.get(peer);
    if (entry === undefined) core.outgoingRecords.delete(peer);
    else if (wanted(outgoing)) records.push(entry.signed);
  }
  const accusations: SignedAccusation[] = [];
  for (const [signed, outgoing] of core.outgoingAccusations) {
    if (accusations.length >= limits.accusationsPerMessage) break;
    if (wanted(outgoing)) accusations.push(signed);
  }
  return { kind: 'batch', records, accusations };
}

/** To every link at once, for what cannot wait for gossip's hops: leaving, and saying goodbye. */
export function tellLinks(core: Core, signed: SignedRecord): void {
  for (const link of core.links.keys())
    send(core, link, { kind: 'batch', records: [signed], accusations: [] });
}
