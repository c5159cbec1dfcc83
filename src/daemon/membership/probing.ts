import {
  type Core,
  type Entry,
  isLiving,
  nextNonce,
  note,
  pingIntervalMs,
  type Probe,
  type RelayDuty,
  schedule,
  schedulePeriodic,
  send,
} from './core.ts';
import { limits } from './limits.ts';
import { askRelays, probe } from './probe.ts';
import { accuse, someoneElseAnswers, takeBackAccusation } from './suspicion.ts';
import type { PeerId } from './types.ts';

function probeOf(core: Core, nonce: number): Probe | undefined {
  for (const one of core.probes.values()) if (one.nonce === nonce) return one;
  return undefined;
}

export function directTimedOut(core: Core, nonce: number): void {
  const current = probeOf(core, nonce);
  if (current === undefined || current.phase !== 'direct' || core.nowMs + 1 < current.deadlineMs) return;
  goIndirect(core, current, core.preset.indirectTimeoutMs * core.health.stretch);
}

function goIndirect(core: Core, current: Probe, waitMs: number): void {
  current.phase = 'indirect';
  current.deadlineMs = core.nowMs + waitMs;
  askRelays(core, current);
  schedule(core, { kind: 'indirectTimeout', epoch: 0, nonce: current.nonce }, waitMs);
}

export function indirectTimedOut(core: Core, nonce: number): void {
  const current = probeOf(core, nonce);
  if (current === undefined || current.phase !== 'indirect' || core.nowMs + 1 < current.deadlineMs) return;
  core.probes.delete(current.target);
  reportToAskers(core, current.target, false);
  // Silent relays are evidence about this node, not about the target (Lifeguard's missing nacks).
  const silent = [...current.relays].filter(([, reported]) => !reported).map(([relay]) => relay);
  core.health.missed(silent, core.nowMs);
  const link = core.links.get(current.target);
  if (link !== undefined) link.pingDueMs = core.nowMs + pingIntervalMs(core);
  const entry = core.entries.get(current.target);
  if (entry === undefined) return;
  // Before the first sync the knowledge of others is old: no reason to accuse, unless there is nobody to ask.
  if (!core.synced && someoneElseAnswers(core, current.target)) return;
  accuse(core, entry, current.refused ? 'closed' : 'silent');
}

/**
 * A dial ended without a connection. If the host itself refused: wait a random time, then accuse unless others reach
 * it.
 */
export function probeDialFailed(core: Core, target: PeerId, refused: boolean): void {
  const current = core.probes.get(target);
  if (current === undefined || core.links.has(target)) return;
  reportToAskers(core, target, false);
  if (current.refused) return;
  current.refused = refused;
  const { closedSpreadMs, indirectTimeoutMs } = core.preset;
  const waitMs = refused ? core.random.between(0.25, 1.5) * closedSpreadMs : indirectTimeoutMs;
  if (refused || current.phase === 'direct') goIndirect(core, current, waitMs * core.health.stretch);
}

/** Anything on the peer's own stream shows that it is alive and answers our probe. */
export function heardFrom(core: Core, peer: PeerId): void {
  const link = core.links.get(peer);
  if (link === undefined) return;
  link.heardMs = core.nowMs;
  link.pingDueMs = core.nowMs + pingIntervalMs(core) * core.random.between(0.9, 1.1);
  const entry = core.entries.get(peer);
  if (entry === undefined) return;
  entry.vouchedMs = core.nowMs;
  const current = core.probes.get(peer);
  if (current !== undefined) {
    core.probes.delete(peer);
    scoreAnswer(core, current);
  }
  reportToAskers(core, peer, true);
  takeBackAccusation(core, entry, 'answers us');
}

/** An answer after the deadline shows that the deadlines are too short for this node's present state. */
function scoreAnswer(core: Core, current: Probe): void {
  if (current.cause === 'dial' || current.cause === 'closed') return;
  if (current.phase === 'direct') core.health.answered(core.nowMs);
  else core.health.missed([current.target], core.nowMs);
}

export function hearReport(core: Core, from: PeerId, nonce: number, target: PeerId, reached: boolean): void {
  const current = core.probes.get(target);
  if (current === undefined || current.nonce !== nonce || !current.relays.has(from)) return;
  if (!reached) {
    current.relays.set(from, true);
    return;
  }
  core.probes.delete(target);
  reportToAskers(core, target, true);
  const entry = core.entries.get(target);
  if (entry !== undefined) vouch(core, entry, current, from);
}

/** Others reach it, this node does not. The fault is here or on our link, which is dialled again if it lasts. */
function vouch(core: Core, entry: Entry, current: Probe, by: PeerId): void {
  entry.vouchedMs = core.nowMs;
  if (current.pinged) core.health.missed([current.target], core.nowMs);
  takeBackAccusation(core, entry, `answers ${by}`);
  const link = core.links.get(current.target);
  if (link === undefined) return;
  link.pingDueMs = core.nowMs + pingIntervalMs(core);
  if (core.nowMs - link.heardMs < core.preset.linkSilentMs || link.unlinking) return;
  link.unlinking = true;
  note(core, 'link-silent', link.peer, `${by} reaches it, our link has been silent for long`);
  core.effects.push({
    kind: 'disconnect',
    peer: link.peer,
    reason: 'link silent while others reach the peer',
  });
}

/**
 * Another member asks this node to try a peer: a probe of our own, with its own consequences, and an answer in time.
 */
export function relay(core: Core, asker: PeerId, askerNonce: number, target: PeerId): void {
  const report = (reached: boolean): void =>
    send(core, asker, { kind: 'pingReport', nonce: askerNonce, target, reached });
  if (target === core.selfId) return report(true);
  const entry = core.entries.get(target);
  if (entry === undefined || !isLiving(entry)) return report(false);
  const ofAsker = [...core.duties.values()].filter((duty) => duty.asker === asker).length;
  if (core.duties.size >= limits.relayDuties || ofAsker >= limits.relayDutiesPerPeer)
    return note(core, 'too-many-relays', asker, 'asks for more indirect probes than one member needs');
  const duty: RelayDuty = { nonce: nextNonce(core), asker, askerNonce, target };
  core.duties.set(duty.nonce, duty);
  const waitMs = core.preset.probeTimeoutMs * core.health.stretch;
  schedule(core, { kind: 'relayTimeout', epoch: 0, nonce: duty.nonce }, waitMs);
  const refusedAlready = core.probes.get(target)?.refused === true;
  probe(core, target, 'asked');
  if (refusedAlready) reportToAskers(core, target, false);
}

export function relayTimedOut(core: Core, nonce: number): void {
  const duty = core.duties.get(nonce);
  if (duty !== undefined) answerDuty(core, duty, false);
}

function reportToAskers(core: Core, target: PeerId, reached: boolean): void {
  if (core.duties.size === 0) return;
  for (const duty of core.duties.values()) if (duty.target === target) answerDuty(core, duty, reached);
}

function answerDuty(core: Core, duty: RelayDuty, reached: boolean): void {
  core.duties.delete(duty.nonce);
  send(core, duty.asker, { kind: 'pingReport', nonce: duty.askerNonce, target: duty.target, reached });
}

/**
 * Share of the interval by which a ping may be early, to go out with others: wake-ups are the cost of an idle process.
 */
const EARLY_SHARE = 0.2;

/** The periodic check of all links; it returns when the next one is due. */
export function probeLinks(core: Core): void {
  const { probeIntervalMs } = core.preset;
  const dueMs = core.nowMs + EARLY_SHARE * pingIntervalMs(core);
  let nextMs = core.nowMs + probeIntervalMs;
  for (const link of core.links.values()) {
    // Neither due nor next: the most common case.
    if (link.pingDueMs > dueMs && link.pingDueMs >= nextMs) continue;
    const entry = core.entries.get(link.peer);
    if (entry === undefined || !isLiving(entry) || core.probes.has(link.peer)) continue;
    if (link.pingDueMs <= dueMs) {
      probe(core, link.peer, 'period');
      link.pingDueMs = core.nowMs + pingIntervalMs(core);
    } else {
      nextMs = Math.min(nextMs, link.pingDueMs);
    }
  }
  schedulePeriodic(core, 'probe', nextMs - core.nowMs);
}

/** A new link is sent the ping that waited for it. */
export function probeNewLink(core: Core, peer: PeerId): void {
  const current = core.probes.get(peer);
  if (current === undefined || current.pinged) return;
  current.pinged = true;
  send(core, peer, { kind: 'ping', nonce: current.nonce });
}

/** This node was late: nobody had a fair chance to answer, so every probe gets its full time again. */
export function forgiveLateness(core: Core, lagMs: number): void {
  if (!core.health.late(lagMs, core.nowMs)) return;
  for (const current of core.probes.values()) {
    const direct = current.phase === 'direct';
    const waitMs =
      (direct ? core.preset.probeTimeoutMs : core.preset.indirectTimeoutMs) * core.health.stretch;
    current.deadlineMs = core.nowMs + waitMs;
    const kind = direct ? 'probeTimeout' : 'indirectTimeout';
    schedule(core, { kind, epoch: 0, nonce: current.nonce }, waitMs);
  }
}
