import {
  type Core,
  connect,
  type Dial,
  type Entry,
  isLiving,
  isRestarting,
  type Link,
  note,
  pingIntervalMs,
  schedulePeriodic,
  selfEntry,
  send,
} from './core.ts';
import { probe } from './probe.ts';
import { heardFrom, probeDialFailed, probeNewLink } from './probing.ts';
import { proofAgainst } from './suspicion.ts';
import { beginSync, syncOnLink } from './sync.ts';
import type { PeerId } from './types.ts';

/**
 * The links of this node: to everybody up to twelve members, above that to six to ten at random, so that six watch each
 * member and the graph stays connected. Dead members and those that were never seen are dialled for ever, but seldom.
 */
export function planLinks(core: Core): void {
  const { preset } = core;
  const living: Entry[] = [];
  for (const entry of core.entries.values())
    if (entry.peerId !== core.selfId && isLiving(entry)) living.push(entry);
  if (selfEntry(core).state !== 'left') {
    const full = living.length + 1 <= preset.fullMeshMembers;
    dialLiving(core, living, full);
    if (!full) closeSurplus(core);
    dialLost(core);
  }
  schedulePeriodic(core, 'links', preset.linksIntervalMs * core.random.between(0.8, 1.2));
}

function dialLiving(core: Core, living: readonly Entry[], full: boolean): void {
  for (const entry of living)
    if (isRestarting(core, entry) && mayDial(core, entry.peerId)) dial(core, entry.peerId, true);
  const wanted = full ? living.length : core.preset.minLinks - linksThatCount(core) - dialsUnderWay(core);
  if (wanted <= 0) return;
  const missing = living.filter((entry) => !isRestarting(core, entry) && mayDial(core, entry.peerId));
  for (const entry of core.random.sample(missing, wanted)) {
    if (full && lets(core, entry.peerId)) continue;
    dial(core, entry.peerId, false);
    probe(core, entry.peerId, 'dial');
  }
}

function mayDial(core: Core, peer: PeerId): boolean {
  if (core.links.has(peer) || core.probes.has(peer)) return false;
  return (core.dials.get(peer)?.nextMs ?? 0) <= core.nowMs;
}

/** Two members without a link should not both dial: the one with the larger id waits for the other. */
function lets(core: Core, peer: PeerId): boolean {
  if (core.dials.has(peer) || core.selfId < peer || core.links.size === 0) return false;
  core.dials.set(peer, { failures: 0, nextMs: core.nowMs + core.preset.linksIntervalMs });
  return true;
}

function linksThatCount(core: Core): number {
  let count = 0;
  for (const link of core.links.values()) if (!link.unlinking) count += 1;
  return count;
}

function dialsUnderWay(core: Core): number {
  let count = 0;
  for (const one of core.probes.values()) if (!core.links.has(one.target)) count += 1;
  return count;
}

/** Records the attempt and the time of the next one; `impatient` for a member that announced its return. */
function dial(core: Core, peer: PeerId, impatient: boolean, maxMs = core.preset.redialMaxMs): void {
  const { redialMinMs } = core.preset;
  const before: Dial = core.dials.get(peer) ?? { failures: 0, nextMs: 0 };
  const exponent = impatient ? 0 : Math.min(before.failures, 20);
  const backoffMs = Math.min(maxMs, redialMinMs * 2 ** exponent);
  core.dials.set(peer, {
    failures: before.failures + 1,
    nextMs: core.nowMs + backoffMs * core.random.between(0.5, 1.5),
  });
  if (impatient) connect(core, peer);
}

/**
 * Dead members, and members that are admitted but were never seen (or were forgotten): any one of them can end a
 * partition. The fewer they are, the more often each is dialled.
 */
function dialLost(core: Core): void {
  const { redialSpacingMs, redialMaxMs, redialsPerRound } = core.preset;
  const lost: PeerId[] = [];
  for (const peer of core.roster.keys()) {
    const entry = core.entries.get(peer);
    const isLost = entry === undefined ? core.tombstones.get(peer)?.left !== true : entry.state === 'dead';
    if (isLost && peer !== core.selfId) lost.push(peer);
  }
  const maxMs = Math.min(redialMaxMs, lost.length * redialSpacingMs);
  const due = lost.filter((peer) => mayDial(core, peer));
  for (const peer of core.random.sample(due, redialsPerRound)) {
    dial(core, peer, false, maxMs);
    connect(core, peer);
  }
}

/**
 * Above the maximum a link is closed in any case; above the calm number only if the other end agrees, and seldom. The
 * other end closes, so that nothing it sent is lost; an end that does not know `unlink` is cut.
 */
function closeSurplus(core: Core): void {
  const { maxLinks, calmLinks, linksIntervalMs } = core.preset;
  const count = linksThatCount(core);
  for (const link of core.links.values()) {
    if (link.askedMs === 0 || core.nowMs - link.askedMs < 2 * linksIntervalMs) continue;
    link.askedMs = 0;
    if (count > maxLinks) cutLink(core, link);
  }
  let asked = 0;
  for (const link of core.links.values()) if (link.askedMs > 0) asked += 1;
  const over = count - maxLinks - asked;
  const wanted =
    over > 0 ? Math.min(over, 2) : Number(asked === 0 && count > calmLinks && core.random.fraction() < 0.1);
  if (wanted === 0) return;
  const closable = [...core.links.values()].filter(
    (link) => !link.unlinking && link.askedMs === 0 && !core.probes.has(link.peer),
  );
  for (const link of core.random.sample(closable, wanted)) {
    link.askedMs = core.nowMs;
    send(core, link.peer, { kind: 'unlink' });
  }
}

function cutLink(core: Core, link: Link): void {
  link.unlinking = true;
  core.effects.push({ kind: 'disconnect', peer: link.peer, reason: 'too many links' });
}

/**
 * The other end has more links than it needs. If this node has too, it closes; the other end insists only above its
 * maximum.
 */
export function hearUnlink(core: Core, from: PeerId): void {
  const link = core.links.get(from);
  if (link === undefined) return;
  link.mayClose = true;
  if (link.unlinking || linksThatCount(core) <= core.preset.minLinks) return;
  link.unlinking = true;
  core.effects.push({ kind: 'disconnect', peer: from, reason: 'the peer has too many links' });
}

export function linkOpened(core: Core, peer: PeerId): void {
  if (!core.roster.has(peer)) {
    note(core, 'stranger-connected', peer, 'connected without being admitted');
    core.effects.push({ kind: 'disconnect', peer, reason: 'not admitted' });
    return;
  }
  core.dials.delete(peer);
  core.links.set(peer, {
    peer,
    sinceMs: core.nowMs,
    heardMs: core.nowMs,
    pingDueMs: core.nowMs + pingIntervalMs(core) * core.random.between(0.5, 1),
    unlinking: false,
    mayClose: false,
    askedMs: 0,
  });
  send(core, peer, { kind: 'batch', records: [selfEntry(core).signed], accusations: [] });
  meetAgain(core, peer);
  probeNewLink(core, peer);
  // The handshake needed the peer's running process, so it counts as an answer.
  heardFrom(core, peer);
  syncOnLink(core, peer);
}

/** A peer that this node holds dead must learn it, so that it can refute; and it may know what this node does not. */
function meetAgain(core: Core, peer: PeerId): void {
  const entry = core.entries.get(peer);
  if (entry === undefined || entry.state === 'alive' || entry.state === 'left') return;
  const accusations = proofAgainst(core, entry);
  if (accusations.length > 0) send(core, peer, { kind: 'batch', records: [], accusations });
  if (entry.state === 'dead') beginSync(core, peer);
}

export function linkClosed(core: Core, peer: PeerId): void {
  const link = core.links.get(peer);
  if (link === undefined) return;
  core.links.delete(peer);
  const entry = core.entries.get(peer);
  if (
    link.unlinking ||
    link.mayClose ||
    link.askedMs > 0 ||
    entry === undefined ||
    !isLiving(entry) ||
    selfEntry(core).state === 'left'
  )
    return;
  if (isRestarting(core, entry)) dial(core, peer, true);
  else probe(core, peer, 'closed');
}

export function dialFailed(core: Core, peer: PeerId, refused: boolean): void {
  if (!core.roster.has(peer)) return;
  probeDialFailed(core, peer, refused);
}
