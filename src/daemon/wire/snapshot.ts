import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Snapshot } from '../membership/types.ts';
import * as pb from './gen/membership_pb.js';
import { MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_MEMBERS, PROTOCOL_MAX, PROTOCOL_MIN } from './limits.ts';
import { count, signedRecordFromWire, signedToWire, stateFromWire, stateToWire } from './record.ts';
import { attempt, type Decoded, refused } from './result.ts';

/** The stored form of the table. The records keep their owners' signatures, which are verified again when read. */
export function encodeSnapshot(snapshot: Snapshot): Uint8Array {
  const members = snapshot.members
    .slice(0, MAX_SNAPSHOT_MEMBERS)
    .map(({ signed, state }) =>
      create(pb.SnapshotMemberSchema, { signed: signedToWire(signed), state: stateToWire(state) }),
    );
  return toBinary(
    pb.SnapshotSchema,
    create(pb.SnapshotSchema, {
      version: PROTOCOL_MIN,
      savedAtMs: snapshot.savedAtMs,
      incarnation: BigInt(snapshot.incarnation),
      members,
    }),
  );
}

/** Reads a snapshot; members that cannot be read are left out, as an incomplete table is better than none. */
export function decodeSnapshot(bytes: Uint8Array): Decoded<Snapshot> {
  if (bytes.byteLength > MAX_SNAPSHOT_BYTES)
    return refused('size', `a snapshot of ${bytes.byteLength} bytes`);
  return attempt(() => {
    const wire = fromBinary(pb.SnapshotSchema, bytes, { readUnknownFields: false });
    if (wire.version < 1) return refused('malformed', 'a snapshot without a version');
    if (wire.version > PROTOCOL_MAX) return refused('version', `a snapshot of version ${wire.version}`);
    if (wire.members.length > MAX_SNAPSHOT_MEMBERS) return refused('limit', `${wire.members.length} members`);
    if (!Number.isFinite(wire.savedAtMs)) return refused('value', 'savedAtMs is not a time');
    const members = wire.members.flatMap((member) => {
      const read = attempt(() => memberFromWire(member));
      return read.ok ? [read.value] : [];
    });
    return {
      ok: true,
      value: { savedAtMs: wire.savedAtMs, incarnation: count(wire.incarnation, 'incarnation'), members },
    };
  });
}

function memberFromWire({ signed, state }: pb.SnapshotMember): Decoded<Snapshot['members'][number]> {
  const record = signedRecordFromWire(signed);
  return record.ok ? { ok: true, value: { signed: record.value, state: stateFromWire(state) } } : record;
}
