import { type Core, type Entry, isLiving, schedulePeriodic, selfEntry, send } from './core.ts';
import { limits, takeToken } from './limits.ts';
import { refute } from './own.ts';
import { probe } from './probe.ts';
import { hearRecord } from './records.ts';
import { hearAccusation, proofAgainst } from './suspicion.ts';
import type { DigestEntry, Message, PeerId, SignedAccusation, SignedRecord } from './types.ts';
import { becomeSynced } from './view.ts';

/**
 * Anti-entropy: on joining and every 30 s with one member. First a hash of the table (equal: done), then the version of
 * each entry, then only the records and accusations that differ, both ways.
 */
export function beginSync(core: Core, peer: PeerId): void {
  core.syncPartner = peer;
  core.syncStartedMs = core.nowMs;
  if (!core.links.has(peer)) return;
  // A small table is its own hash.
  const small = core.entries.size <= 4;
  send(core, peer, {
    kind: 'digest',
    entries: small ? digestOf(core) : [],
    wantsReply: true,
    ...(small ? {} : { hash: tableHash(core) }),
  });
}

/** The periodic sync; before the first one it runs often and takes any partner. */
export function syncRound(core: Core): void {
  const { preset, random } = core;
  if (core.synced) {
    core.syncRound += 1;
    const partner = choosePartner(core);
    if (partner !== undefined && core.links.has(partner)) beginSync(core, partner);
    else if (partner !== undefined) visit(core, partner);
    return schedulePeriodic(core, 'sync', preset.syncIntervalMs * random.between(0.8, 1.2));
  }
  const links = [...core.links.keys()];
  const fresh = links.filter((peer) => peer !== core.syncPartner);
  const partner = random.pick(fresh.length > 0 ? fresh : links);
  if (partner !== undefined) beginSync(core, partner);
  schedulePeriodic(core, 'sync', preset.syncRetryMs * random.between(0.8, 1.2));
}

/** Every third partner has no link with this node: so separate groups meet, and no death goes unnoticed. */
function choosePartner(core: Core): PeerId | undefined {
  const living = [...core.entries.values()].filter(
    (entry) => entry.peerId !== core.selfId && isLiving(entry),
  );
  const linked = living.filter((entry) => core.links.has(entry.peerId));
  const apart = living.filter((entry) => !core.links.has(entry.peerId));
  const from = core.syncRound % 3 === 0 && apart.length > 0 ? apart : linked;
  return core.random.pick(from)?.peerId;
}

function visit(core: Core, peer: PeerId): void {
  core.syncPartner = peer;
  core.syncStartedMs = core.nowMs;
  probe(core, peer, 'dial');
}

/** A link came up: continues a sync that waits for it. */
export function syncOnLink(core: Core, peer: PeerId): void {
  const overdue = core.nowMs - core.syncStartedMs >= core.preset.syncRetryMs;
  if (core.syncPartner === peer && core.synced) return beginSync(core, peer);
  if (!core.synced && (core.syncPartner === undefined || overdue)) beginSync(core, peer);
}

function digestOf(core: Core): DigestEntry[] {
  const entries: DigestEntry[] = [];
  for (const entry of core.entries.values()) {
    const { peerId, incarnation, sequence } = entry.signed.record;
    entries.push({ peerId, incarnation, sequence, state: entry.state });
  }
  return entries;
}

/** FNV-1a over each line, the lines added up, so that their order does not matter. Not a defence, only a shortcut. */
function tableHash(core: Core): string {
  let one = 0;
  let other = 0;
  for (const entry of core.entries.values()) {
    const { peerId, incarnation, sequence } = entry.signed.record;
    const gone = isLiving(entry) ? '' : entry.state;
    const line = `${peerId} ${incarnation} ${sequence} ${gone}`;
    one = (one + fnv(line, 0x811c9dc5)) >>> 0;
    other = (other + fnv(line, 0x5bd1e995)) >>> 0;
  }
  return one.toString(16).padStart(8, '0') + other.toString(16).padStart(8, '0');
}

function fnv(text: string, basis: number): number {
  let hash = basis;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}

export function hearDigest(core: Core, from: PeerId, message: Extract<Message, { kind: 'digest' }>): void {
  const { entries, hash, wantsReply } = message;
  if (hash !== undefined && hash === tableHash(core)) return sendDelta(core, from, [], [], []);
  if (!mayAnswer(core, from)) return;
  if (hash !== undefined) send(core, from, { kind: 'digest', entries: digestOf(core), wantsReply: true });
  else compare(core, from, entries.slice(0, limits.members), wantsReply);
}

function mayAnswer(core: Core, from: PeerId): boolean {
  const bucket = core.syncBuckets.get(from) ?? { tokens: limits.syncAnswersBurst, filledMs: core.nowMs };
  core.syncBuckets.set(from, bucket);
  return takeToken(bucket, limits.syncAnswersBurst, limits.syncAnswersPerSecond, core.nowMs);
}

interface Difference {
  readonly records: SignedRecord[];
  readonly accusations: SignedAccusation[];
  readonly wants: PeerId[];
}

function compare(core: Core, from: PeerId, entries: readonly DigestEntry[], wantsReply: boolean): void {
  const theirs = new Map(entries.map((entry) => [entry.peerId, entry]));
  hearOfSelf(core, theirs.get(core.selfId));
  const difference: Difference = { records: [], accusations: [], wants: [] };
  for (const entry of core.entries.values()) compareOne(core, entry, theirs.get(entry.peerId), difference);
  for (const peer of theirs.keys())
    if (!core.entries.has(peer) && core.roster.has(peer) && !isBuried(core, theirs.get(peer)))
      difference.wants.push(peer);
  const { records, accusations, wants } = difference;
  if (wantsReply) sendDelta(core, from, records, accusations, wants);
  else sendDelta(core, from, [], [], wants);
  if (wants.length === 0 && from === core.syncPartner) endSync(core, from);
}

/** Unsigned, but about this node: if any member holds it dead, it starts a new incarnation. */
function hearOfSelf(core: Core, said: DigestEntry | undefined): void {
  const mine = selfEntry(core).signed.record;
  if (said === undefined || said.incarnation !== mine.incarnation) return;
  if (said.state === 'dead' || said.state === 'suspect')
    refute(core, mine.incarnation, 'held dead elsewhere');
}

function isBuried(core: Core, said: DigestEntry | undefined): boolean {
  const tombstone = said === undefined ? undefined : core.tombstones.get(said.peerId);
  return tombstone !== undefined && said !== undefined && said.incarnation <= tombstone.incarnation;
}

function compareOne(core: Core, entry: Entry, said: DigestEntry | undefined, into: Difference): void {
  const { incarnation, sequence } = entry.signed.record;
  const ahead = said === undefined ? 1 : incarnation - said.incarnation || sequence - said.sequence || 0;
  if (ahead < 0) {
    into.wants.push(entry.peerId);
    return;
  }
  if (ahead > 0) into.records.push(entry.signed);
  if (said !== undefined && said.incarnation !== incarnation) return;
  if (entry.state === 'suspect' || (entry.state === 'dead' && said?.state !== 'dead'))
    into.accusations.push(...proofAgainst(core, entry));
  else if (ahead === 0 && said?.state === 'dead' && isLiving(entry)) into.wants.push(entry.peerId);
}

/** In pieces that fit a message; the last one has the requests. */
function sendDelta(
  core: Core,
  to: PeerId,
  records: readonly SignedRecord[],
  accusations: readonly SignedAccusation[],
  wants: readonly PeerId[],
): void {
  const { recordsPerMessage, accusationsPerMessage } = limits;
  const pieces = Math.max(
    1,
    Math.ceil(records.length / recordsPerMessage),
    Math.ceil(accusations.length / accusationsPerMessage),
  );
  for (let piece = 0; piece < pieces; piece += 1) {
    const last = piece === pieces - 1;
    send(core, to, {
      kind: 'delta',
      records: records.slice(piece * recordsPerMessage, (piece + 1) * recordsPerMessage),
      accusations: accusations.slice(piece * accusationsPerMessage, (piece + 1) * accusationsPerMessage),
      wants: last ? wants : [],
      final: last && wants.length === 0,
    });
  }
}

export function hearDelta(core: Core, from: PeerId, message: Extract<Message, { kind: 'delta' }>): void {
  for (const signed of message.records.slice(0, limits.members)) hearRecord(core, signed, 'delta');
  for (const signed of message.accusations.slice(0, limits.members))
    hearAccusation(core, signed, 'delta', from);
  const wants = message.wants.slice(0, limits.members);
  if (wants.length > 0 && mayAnswer(core, from)) answerWants(core, from, wants);
  if (from === core.syncPartner && (message.final || wants.length > 0)) endSync(core, from);
}

function answerWants(core: Core, from: PeerId, wants: readonly PeerId[]): void {
  const entries = [...new Set(wants)].flatMap((peer) => core.entries.get(peer) ?? []);
  const accusations = entries.flatMap((entry) => proofAgainst(core, entry));
  sendDelta(
    core,
    from,
    entries.map((entry) => entry.signed),
    accusations,
    [],
  );
}

function endSync(core: Core, from: PeerId): void {
  core.syncPartner = undefined;
  becomeSynced(core, from);
}
