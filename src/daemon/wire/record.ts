import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type {
  Accusation,
  Evidence,
  Goodbye,
  Health,
  MemberState,
  NodeRecord,
  PeerId,
  Role,
  SignedAccusation,
  SignedRecord,
  Signer,
} from '../membership/types.ts';
import * as pb from './gen/membership_pb.js';
import { bytesFromHex, hexFromBytes } from './hex.ts';
import {
  MAX_ACCUSATION_BYTES,
  MAX_RECORD_BYTES,
  SETTINGS_DIGEST_BYTES,
  SIGNATURE_BYTES,
  START_ID_BYTES,
} from './limits.ts';
import { attempt, BadValue, type Decoded, refused } from './result.ts';
import { isCount, isPeerId, recordProblem } from './values.ts';

/** Ed25519 check of `bytes` by the key in `author`'s PeerId. Passed in, as this room does no cryptography. */
export type Verify = (author: PeerId, bytes: Uint8Array, signature: Uint8Array) => boolean;

/**
 * The signature covers the domain and the payload, so that a signature over one kind of statement is never valid for
 * another.
 */
export const RECORD_DOMAIN = 'bornemisza record 1\0';
const ACCUSATION_DOMAIN = 'bornemisza accusation 1\0';

const ROLES = { app: pb.Role.APP, db: pb.Role.DB } as const satisfies Record<Role, pb.Role>;
const HEALTHS = { up: pb.Health.UP, down: pb.Health.DOWN } as const satisfies Record<Health, pb.Health>;
const STATUSES = {
  alive: pb.Status.ALIVE,
  leaving: pb.Status.LEAVING,
  left: pb.Status.LEFT,
} as const satisfies Record<NodeRecord['status'], pb.Status>;
const GOODBYES = {
  restart: pb.GoodbyeKind.RESTART,
  stop: pb.GoodbyeKind.STOP,
  shutdown: pb.GoodbyeKind.SHUTDOWN,
} as const satisfies Record<Goodbye, pb.GoodbyeKind>;
const STATES = {
  alive: pb.State.ALIVE,
  suspect: pb.State.SUSPECT,
  dead: pb.State.DEAD,
  leaving: pb.State.LEAVING,
  left: pb.State.LEFT,
} as const satisfies Record<MemberState, pb.State>;

/** Evidence of a later version is at least `silent`, so it is read as none. */
const EVIDENCES = {
  silent: pb.Evidence.SILENT,
  closed: pb.Evidence.CLOSED,
} as const satisfies Record<Evidence, pb.Evidence>;
const EVIDENCE_WORDS = Object.keys(EVIDENCES) as Evidence[];

function wordOf<W extends string>(words: Readonly<Record<W, number>>, value: number, field: string): W {
  for (const word of Object.keys(words) as W[]) if (words[word] === value) return word;
  throw new BadValue(`${field} ${value} is not known`);
}

export function stateToWire(state: MemberState): pb.State {
  return STATES[state];
}

export function stateFromWire(state: number): MemberState {
  return wordOf(STATES, state, 'state');
}

/** uint64 as a number; anything beyond 2^53 is refused, not rounded. */
export function count(value: bigint, field: string): number {
  const number = Number(value);
  if (!isCount(number)) throw new BadValue(`${field} is not a safe integer`);
  return number;
}

/** The bytes that the owner signs and everybody forwards. Deterministic for one version of the program. */
export function encodeRecord(record: NodeRecord): Uint8Array {
  const message = create(pb.RecordSchema, {
    peerId: record.peerId,
    name: record.name,
    role: ROLES[record.role],
    address: record.address,
    port: record.port,
    incarnation: BigInt(record.incarnation),
    sequence: BigInt(record.sequence),
    startId: bytesFromHex(record.startId),
    version: record.version,
    protocolMin: record.protocolMin,
    protocolMax: record.protocolMax,
    status: STATUSES[record.status],
    health: HEALTHS[record.health],
    maintenance: record.maintenance,
    services: record.services.map(({ name, health }) => ({ name, health: HEALTHS[health] })),
    tags: Object.entries(record.tags).map(([key, value]) => ({ key, value })),
    load: record.load,
    settingsDigest: bytesFromHex(record.settingsDigest),
  });
  if (record.goodbye !== undefined) {
    message.goodbye = create(pb.GoodbyeSchema, {
      kind: GOODBYES[record.goodbye.kind],
      windowMs: record.goodbye.windowMs,
    });
  }
  return toBinary(pb.RecordSchema, message);
}

/** Reads a record's bytes. Fields of later versions are ignored here; they stay in the payload. */
export function decodeRecord(payload: Uint8Array): Decoded<NodeRecord> {
  if (payload.byteLength > MAX_RECORD_BYTES)
    return refused('size', `a record of ${payload.byteLength} bytes`);
  return attempt(() => {
    const record = recordFromWire(fromBinary(pb.RecordSchema, payload, { readUnknownFields: false }));
    const problem = recordProblem(record);
    return problem === undefined ? { ok: true, value: record } : refused('value', problem);
  });
}

function recordFromWire(wire: pb.Record): NodeRecord {
  return Object.freeze({
    peerId: wire.peerId,
    name: wire.name,
    role: wordOf(ROLES, wire.role, 'role'),
    address: wire.address,
    port: wire.port,
    incarnation: count(wire.incarnation, 'incarnation'),
    sequence: count(wire.sequence, 'sequence'),
    startId: hexFromBytes(wire.startId, START_ID_BYTES),
    version: wire.version,
    protocolMin: wire.protocolMin,
    protocolMax: wire.protocolMax,
    status: wordOf(STATUSES, wire.status, 'status'),
    ...(wire.goodbye === undefined ? {} : { goodbye: goodbyeFromWire(wire.goodbye) }),
    health: wordOf(HEALTHS, wire.health, 'health'),
    maintenance: wire.maintenance,
    services: wire.services.map(({ name, health }) => ({ name, health: wordOf(HEALTHS, health, 'health') })),
    tags: tagsFromWire(wire.tags),
    load: wire.load,
    settingsDigest: hexFromBytes(wire.settingsDigest, SETTINGS_DIGEST_BYTES),
  });
}

function goodbyeFromWire(wire: pb.Goodbye): NonNullable<NodeRecord['goodbye']> {
  return { kind: wordOf(GOODBYES, wire.kind, 'goodbye'), windowMs: wire.windowMs };
}

/** Object.fromEntries defines own properties, so that even a key like `__proto__` is an ordinary key. */
function tagsFromWire(wire: readonly pb.Tag[]): Record<string, string> {
  const pairs = wire.map(({ key, value }) => [key, value] as const);
  const tags = Object.fromEntries(pairs);
  if (Object.keys(tags).length !== pairs.length) throw new BadValue('two tags share a key');
  return tags;
}

function encodeAccusation(accusation: Accusation): Uint8Array {
  const { subject, accuser } = accusation;
  const message = create(pb.AccusationSchema, {
    subject,
    accuser,
    incarnation: BigInt(accusation.incarnation),
  });
  if (accusation.evidence !== undefined) message.evidence = EVIDENCES[accusation.evidence];
  return toBinary(pb.AccusationSchema, message);
}

function decodeAccusation(payload: Uint8Array): Decoded<Accusation> {
  if (payload.byteLength > MAX_ACCUSATION_BYTES)
    return refused('size', `an accusation of ${payload.byteLength} bytes`);
  return attempt(() => {
    const wire = fromBinary(pb.AccusationSchema, payload, { readUnknownFields: false });
    const { subject, accuser } = wire;
    if (!isPeerId(subject) || !isPeerId(accuser))
      return refused('value', 'an accusation names no Ed25519 PeerId');
    const incarnation = count(wire.incarnation, 'incarnation');
    const evidence = EVIDENCE_WORDS.find((word) => EVIDENCES[word] === wire.evidence);
    return {
      ok: true,
      value: { subject, accuser, incarnation, ...(evidence === undefined ? {} : { evidence }) },
    };
  });
}

export function signedToWire({ payload, signature }: SignedRecord | SignedAccusation): pb.Signed {
  return create(pb.SignedSchema, { payload, signature });
}

/**
 * The payload is copied out of the frame, so that keeping a record does not keep 64 KB alive. (Not by `slice`: a
 * Buffer's slice is a view.)
 */
export function signedRecordFromWire(wire: pb.Signed | undefined): Decoded<SignedRecord> {
  if (wire?.signature.byteLength !== SIGNATURE_BYTES)
    return refused('malformed', 'a record without a signature');
  const record = decodeRecord(wire.payload);
  if (!record.ok) return record;
  return {
    ok: true,
    value: {
      record: record.value,
      payload: new Uint8Array(wire.payload),
      signature: new Uint8Array(wire.signature),
    },
  };
}

export function signedAccusationFromWire(wire: pb.Signed): Decoded<SignedAccusation> {
  if (wire.signature.byteLength !== SIGNATURE_BYTES)
    return refused('malformed', 'an accusation without a signature');
  const accusation = decodeAccusation(wire.payload);
  if (!accusation.ok) return accusation;
  return {
    ok: true,
    value: {
      accusation: accusation.value,
      payload: new Uint8Array(wire.payload),
      signature: new Uint8Array(wire.signature),
    },
  };
}

/** Builds the machine's signer on a plain Ed25519 signature by the node key. */
export function signer(sign: (bytes: Uint8Array) => Uint8Array): Signer {
  return {
    record(record) {
      const payload = encodeRecord(record);
      return { record, payload, signature: sign(inDomain(RECORD_DOMAIN, payload)) };
    },
    accusation(accusation) {
      const payload = encodeAccusation(accusation);
      return { accusation, payload, signature: sign(inDomain(ACCUSATION_DOMAIN, payload)) };
    },
  };
}

/** Whether the member in the record has signed exactly these bytes. */
export function verifyRecord({ record, payload, signature }: SignedRecord, verify: Verify): boolean {
  return verify(record.peerId, inDomain(RECORD_DOMAIN, payload), signature);
}

export function verifyAccusation(
  { accusation, payload, signature }: SignedAccusation,
  verify: Verify,
): boolean {
  return verify(accusation.accuser, inDomain(ACCUSATION_DOMAIN, payload), signature);
}

function inDomain(domain: string, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(domain.length + payload.byteLength);
  for (let index = 0; index < domain.length; index += 1) bytes[index] = domain.charCodeAt(index);
  bytes.set(payload, domain.length);
  return bytes;
}
