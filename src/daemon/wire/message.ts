import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import type { DigestEntry, Message, SignedAccusation, SignedRecord } from '../membership/types.ts';
import * as pb from './gen/membership_pb.js';
import { bytesFromHex, hexFromBytes } from './hex.ts';
import {
  MAX_ACCUSATIONS_PER_MESSAGE,
  MAX_DIGEST_ENTRIES,
  MAX_MESSAGE_BYTES,
  MAX_RECORDS_PER_MESSAGE,
  PROTOCOL_MAX,
  PROTOCOL_MIN,
  TABLE_HASH_BYTES,
} from './limits.ts';
import {
  count,
  signedAccusationFromWire,
  signedRecordFromWire,
  signedToWire,
  stateFromWire,
  stateToWire,
} from './record.ts';
import { attempt, type Decoded, type Refusal, refused } from './result.ts';
import { isPeerId } from './values.ts';

type Body = NonNullable<MessageInitShape<typeof pb.EnvelopeSchema>['body']>;

/** A message, and its refused parts: one bad record never hides the good ones beside it. */
interface Received {
  readonly message: Message;
  readonly refused: readonly Refusal[];
}

/**
 * Frames of at most MAX_MESSAGE_BYTES each. Only `batch` and `delta` can need more than one: their entries are
 * independent of each other. Of several deltas only the last is `final`.
 */
export function encodeMessage(message: Message): Uint8Array[] {
  if (message.kind === 'batch' || message.kind === 'delta') return encodeInParts(message);
  return [frame(bodyOf(message))];
}

function frame(body: Body): Uint8Array {
  return toBinary(pb.EnvelopeSchema, create(pb.EnvelopeSchema, { version: PROTOCOL_MIN, body }));
}

function bodyOf(message: Exclude<Message, { kind: 'batch' | 'delta' }>): Body {
  switch (message.kind) {
    case 'ping':
      return { case: 'ping', value: { nonce: BigInt(message.nonce) } };
    case 'ack':
      return { case: 'ack', value: { nonce: BigInt(message.nonce) } };
    case 'pingRequest':
      return { case: 'pingRequest', value: { nonce: BigInt(message.nonce), target: message.target } };
    case 'pingReport': {
      const { nonce, target, reached } = message;
      return { case: 'pingReport', value: { nonce: BigInt(nonce), target, reached } };
    }
    case 'unlink':
      return { case: 'unlink', value: {} };
    case 'digest':
      break;
  }
  const { entries, wantsReply, hash = '' } = message;
  return {
    case: 'digest',
    value: { entries: entries.map(entryToWire), wantsReply, hash: bytesFromHex(hash) },
  };
}

function entryToWire({ peerId, incarnation, sequence, state }: DigestEntry): pb.DigestEntry {
  return create(pb.DigestEntrySchema, {
    peerId,
    incarnation: BigInt(incarnation),
    sequence: BigInt(sequence),
    state: stateToWire(state),
  });
}

/** Tag and length before each entry (at most 8 bytes together), and the envelope's own few bytes. */
const ENTRY_OVERHEAD_BYTES = 8;
const FRAME_OVERHEAD_BYTES = 64;
/** A PeerId with its tag and length. */
const WANT_BYTES = 56;

interface Part {
  records: pb.Signed[];
  accusations: pb.Signed[];
  wants: string[];
}

function encodeInParts(message: Extract<Message, { kind: 'batch' | 'delta' }>): Uint8Array[] {
  const parts = split(message.records, message.accusations, message.kind === 'delta' ? message.wants : []);
  return parts.map((part, index) => {
    const { records, accusations, wants } = part;
    if (message.kind === 'batch') return frame({ case: 'batch', value: { records, accusations } });
    const final = message.final && index === parts.length - 1;
    return frame({ case: 'delta', value: { records, accusations, wants, final } });
  });
}

function split(
  records: readonly SignedRecord[],
  accusations: readonly SignedAccusation[],
  wants: readonly string[],
): Part[] {
  let part: Part = { records: [], accusations: [], wants: [] };
  const parts = [part];
  let bytes = FRAME_OVERHEAD_BYTES;
  const room = (entryBytes: number, full: (part: Part) => boolean): Part => {
    if (bytes + entryBytes > MAX_MESSAGE_BYTES || full(part)) {
      part = { records: [], accusations: [], wants: [] };
      parts.push(part);
      bytes = FRAME_OVERHEAD_BYTES;
    }
    bytes += entryBytes;
    return part;
  };
  for (const signed of records)
    room(sizeOf(signed), (p) => p.records.length >= MAX_RECORDS_PER_MESSAGE).records.push(
      signedToWire(signed),
    );
  for (const signed of accusations)
    room(sizeOf(signed), (p) => p.accusations.length >= MAX_ACCUSATIONS_PER_MESSAGE).accusations.push(
      signedToWire(signed),
    );
  for (const want of wants) room(WANT_BYTES, (p) => p.wants.length >= MAX_DIGEST_ENTRIES).wants.push(want);
  return parts;
}

function sizeOf({ payload, signature }: SignedRecord | SignedAccusation): number {
  return payload.byteLength + signature.byteLength + ENTRY_OVERHEAD_BYTES;
}

/** Reads one frame. Never throws; every count is checked before anything is built from it. */
export function decodeMessage(bytes: Uint8Array): Decoded<Received> {
  if (bytes.byteLength > MAX_MESSAGE_BYTES) return refused('size', `a message of ${bytes.byteLength} bytes`);
  return attempt(() => {
    const { version, body } = fromBinary(pb.EnvelopeSchema, bytes, { readUnknownFields: false });
    if (version < 1) return refused('malformed', 'an envelope without a version');
    if (version > PROTOCOL_MAX) return refused('version', `a message of protocol version ${version}`);
    return bodyFromWire(body);
  });
}

function taken(message: Message, notTaken: readonly Refusal[] = []): Decoded<Received> {
  return { ok: true, value: { message, refused: notTaken } };
}

function bodyFromWire(body: pb.Envelope['body']): Decoded<Received> {
  switch (body.case) {
    case 'ping':
      return taken({ kind: 'ping', nonce: count(body.value.nonce, 'nonce') });
    case 'ack':
      return taken({ kind: 'ack', nonce: count(body.value.nonce, 'nonce') });
    case 'pingRequest': {
      const { nonce, target } = body.value;
      if (!isPeerId(target)) return refused('value', 'a ping request for no PeerId');
      return taken({ kind: 'pingRequest', nonce: count(nonce, 'nonce'), target });
    }
    case 'pingReport': {
      const { nonce, target, reached } = body.value;
      if (!isPeerId(target)) return refused('value', 'a ping report on no PeerId');
      return taken({ kind: 'pingReport', nonce: count(nonce, 'nonce'), target, reached });
    }
    case 'digest':
      return digestFromWire(body.value);
    case 'batch': {
      const both = signedFromWire(body.value);
      if (!both.ok) return both;
      const { records, accusations, refused } = both.value;
      return taken({ kind: 'batch', records, accusations }, refused);
    }
    case 'delta':
      return deltaFromWire(body.value);
    case 'unlink':
      return taken({ kind: 'unlink' });
    case undefined:
      break;
  }
  return refused('unknown-kind', 'a message of a kind that this version does not know');
}

function digestFromWire(wire: pb.Digest): Decoded<Received> {
  if (wire.entries.length > MAX_DIGEST_ENTRIES)
    return refused('limit', `a digest of ${wire.entries.length} entries`);
  const entries: DigestEntry[] = [];
  for (const { peerId, incarnation, sequence, state } of wire.entries) {
    if (!isPeerId(peerId)) return refused('value', 'a digest names no PeerId');
    entries.push({
      peerId,
      incarnation: count(incarnation, 'incarnation'),
      sequence: count(sequence, 'sequence'),
      state: stateFromWire(state),
    });
  }
  const { wantsReply } = wire;
  const hash = hexFromBytes(wire.hash, TABLE_HASH_BYTES);
  if (hash === '') return taken({ kind: 'digest', entries, wantsReply });
  if (wire.hash.byteLength !== TABLE_HASH_BYTES || entries.length > 0)
    return refused('value', 'a digest with a hash that is none');
  return taken({ kind: 'digest', entries, wantsReply, hash });
}

function deltaFromWire(wire: pb.Delta): Decoded<Received> {
  if (wire.wants.length > MAX_DIGEST_ENTRIES)
    return refused('limit', `a delta that wants ${wire.wants.length} records`);
  if (!wire.wants.every(isPeerId)) return refused('value', 'a delta wants no PeerId');
  const both = signedFromWire(wire);
  if (!both.ok) return both;
  const { records, accusations, refused: notTaken } = both.value;
  return taken({ kind: 'delta', records, accusations, wants: wire.wants, final: wire.final }, notTaken);
}

interface SignedBoth {
  readonly records: SignedRecord[];
  readonly accusations: SignedAccusation[];
  readonly refused: Refusal[];
}

function signedFromWire(wire: { records: pb.Signed[]; accusations: pb.Signed[] }): Decoded<SignedBoth> {
  if (wire.records.length > MAX_RECORDS_PER_MESSAGE)
    return refused('limit', `${wire.records.length} records`);
  if (wire.accusations.length > MAX_ACCUSATIONS_PER_MESSAGE)
    return refused('limit', `${wire.accusations.length} accusations`);
  const both: SignedBoth = { records: [], accusations: [], refused: [] };
  for (const signed of wire.records) sort(signedRecordFromWire(signed), both.records, both.refused);
  for (const signed of wire.accusations)
    sort(signedAccusationFromWire(signed), both.accusations, both.refused);
  return { ok: true, value: both };
}

function sort<T>(decoded: Decoded<T>, good: T[], bad: Refusal[]): void {
  if (decoded.ok) good.push(decoded.value);
  else bad.push({ code: decoded.code, reason: decoded.reason });
}
