import { create, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import t from 'tap';
import type { Message, NodeRecord } from '../../../src/daemon/membership/types.ts';
import { verifyByPeerId } from '../../../src/daemon/identity/keys/node-key.ts';
import * as pb from '../../../src/daemon/wire/gen/membership_pb.js';
import {
  commonProtocol,
  decodeAnswer,
  decodeHello,
  encodeAnswer,
  encodeHello,
} from '../../../src/daemon/wire/handshake.ts';
import { MAX_MESSAGE_BYTES, MAX_RECORDS_PER_MESSAGE } from '../../../src/daemon/wire/limits.ts';
import { decodeMessage, encodeMessage } from '../../../src/daemon/wire/message.ts';
import {
  decodeRecord,
  encodeRecord,
  signer,
  verifyAccusation,
  verifyRecord,
} from '../../../src/daemon/wire/record.ts';
import { decodeSnapshot, encodeSnapshot } from '../../../src/daemon/wire/snapshot.ts';
import { ACCUSATION, FULL, KEYS, messages, PEERS, signed, SMALL } from './samples.ts';
import { signWith } from '../../../src/daemon/identity/keys/node-key.ts';

const verify = verifyByPeerId();

function roundTrip(message: Message): Message {
  const frames = encodeMessage(message);
  t.equal(frames.length, 1);
  const decoded = decodeMessage(frames[0] as Uint8Array);
  if (!decoded.ok) throw new Error(decoded.reason);
  t.same(decoded.value.refused, []);
  return decoded.value.message;
}

t.test('every kind of message comes back as it was', async (t) => {
  for (const message of messages()) t.strictSame(roundTrip(message), message, message.kind);
});

t.test('a record holds its owner’s signature, and no other record does', async (t) => {
  const one = signed(FULL);
  t.ok(verifyRecord(one, verify));
  t.notOk(verifyRecord({ ...one, payload: encodeRecord({ ...FULL, sequence: 5 }) }, verify));
  t.notOk(verifyRecord({ ...one, record: { ...FULL, peerId: PEERS[0] } }, verify), 'another claims it');
  t.notOk(verifyRecord({ ...one, signature: new Uint8Array(64) }, verify));
  t.notOk(verifyRecord({ ...one, signature: new Uint8Array(3) }, verify));
});

t.test('a signature over a record is none over an accusation of the same bytes', async (t) => {
  const accusation = signer(signWith(KEYS[2])).accusation(ACCUSATION);
  t.ok(verifyAccusation(accusation, verify));
  const asRecord = {
    record: { ...SMALL, peerId: PEERS[2] },
    payload: accusation.payload,
    signature: accusation.signature,
  };
  t.notOk(verifyRecord(asRecord, verify));
});

t.test('fields of a later version travel on under the old signature', async (t) => {
  const later = Buffer.concat([encodeRecord(SMALL), unknownField(777, 'a later version says so')]);
  const read = decodeRecord(later);
  t.ok(read.ok && read.value.name === SMALL.name, 'this version reads what it knows');
  const [frame] = encodeMessage({
    kind: 'batch',
    records: [{ record: SMALL, payload: later, signature: new Uint8Array(64) }],
    accusations: [],
  });
  const decoded = decodeMessage(frame as Uint8Array);
  if (!decoded.ok || decoded.value.message.kind !== 'batch') throw new Error('not a batch');
  t.same(Buffer.from(decoded.value.message.records[0]?.payload ?? []), later, 'byte for byte');
});

t.test('kinds and versions of later programs are distinguished from garbage', async (t) => {
  const unknownKind = Buffer.concat([Uint8Array.of(0x08, 0x01), unknownField(99, 'new')]);
  t.match(decodeMessage(unknownKind), { ok: false, code: 'unknown-kind' });
  const laterVersion = toBinary(
    pb.EnvelopeSchema,
    create(pb.EnvelopeSchema, { version: 2, body: { case: 'ping', value: {} } }),
  );
  t.match(decodeMessage(laterVersion), { ok: false, code: 'version' });
  t.match(decodeMessage(new Uint8Array(0)), { ok: false, code: 'malformed' });
  t.match(decodeMessage(Buffer.alloc(100, 0xff)), { ok: false, code: 'malformed' });
  t.match(decodeMessage(new Uint8Array(MAX_MESSAGE_BYTES + 1)), { ok: false, code: 'size' });
});

t.test('nesting deeper than the schema ends in a refusal, not in a stack overflow', async (t) => {
  const groups = Buffer.alloc(MAX_MESSAGE_BYTES, 0x7b); // start of group 15, again and again
  t.match(decodeMessage(groups), { ok: false, code: 'malformed' });
});

t.test('what is not in its bounds is refused', async (t) => {
  const bad: [string, Partial<NodeRecord>][] = [
    ['name with a newline', { name: 'a\n/app' }],
    ['name with a quote', { name: 'a"/app' }],
    ['name without a role', { name: 'a' }],
    ['name of another role', { name: 'a/db' }],
    ['name too long', { name: `${'a.'.repeat(120)}a/app` }],
    ['PeerId that is none', { peerId: 'QmSomethingElse' }],
    ['address that is a name', { address: 'example.org' }],
    ['address beyond a byte', { address: '10.0.0.256' }],
    ['address with leading zero', { address: '10.0.0.01' }],
    ['port 0', { port: 0 }],
    ['port 65536', { port: 65_536 }],
    ['empty version', { version: '' }],
    ['version with a space', { version: '1 2' }],
    ['protocol range upside down', { protocolMin: 3, protocolMax: 2 }],
    ['short start id', { startId: '00' }],
    ['long start id', { startId: '00'.repeat(17) }],
    ['33 services', { services: Array.from({ length: 33 }, (_, n) => ({ name: `s${n}`, health: 'up' })) }],
    [
      'a service twice',
      {
        services: [
          { name: 's', health: 'up' },
          { name: 's', health: 'down' },
        ],
      },
    ],
    ['a service with a space', { services: [{ name: 's s', health: 'up' }] }],
    ['17 tags', { tags: Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`t${n}`, ''])) }],
    ['a tag of 65 bytes', { tags: { t: `${'x'.repeat(63)}é` } }],
    ['a tag with an escape', { tags: { t: '\u001b[2J' } }],
    ['a tag that writes from right to left', { tags: { t: '\u202egnp' } }],
    ['a tag named __proto__', { tags: JSON.parse('{"__proto__":"x"}') as Record<string, string> }],
    ['load beyond reason', { load: 200_000_000 }],
    ['goodbye of a day', { goodbye: { kind: 'stop', windowMs: 86_400_000 } }],
    ['settings digest of 9 bytes', { settingsDigest: '00'.repeat(9) }],
  ];
  for (const [what, change] of bad)
    t.match(decodeRecord(encodeRecord({ ...SMALL, ...change })), { ok: false, code: 'value' }, what);
  t.match(decodeRecord(new Uint8Array(9000)), { ok: false, code: 'size' });
  t.ok(decodeRecord(encodeRecord(SMALL)).ok);
});

t.test('numbers beyond 2^53 are refused, not rounded', async (t) => {
  const wire = create(pb.PingSchema, { nonce: 2n ** 53n });
  const bytes = toBinary(
    pb.EnvelopeSchema,
    create(pb.EnvelopeSchema, { version: 1, body: { case: 'ping', value: wire } }),
  );
  t.match(decodeMessage(bytes), { ok: false, code: 'value' });
});

t.test('one bad record does not hide the good ones beside it', async (t) => {
  const bad = { ...signed(SMALL), payload: encodeRecord({ ...SMALL, port: 0 }) };
  const [frame] = encodeMessage({ kind: 'batch', records: [bad, signed(FULL)], accusations: [] });
  const decoded = decodeMessage(frame as Uint8Array);
  t.match(decoded, {
    ok: true,
    value: { message: { records: [{ record: { name: FULL.name } }] }, refused: [{ code: 'value' }] },
  });
});

t.test('a large delta is cut into frames, of which the last is final', async (t) => {
  const records = Array.from({ length: 600 }, () => signed(FULL));
  const wants = Array.from({ length: 300 }, () => PEERS[0]);
  const frames = encodeMessage({ kind: 'delta', records, accusations: [], wants, final: true });
  t.ok(frames.length > 2);
  let count = 0;
  let wanted = 0;
  const finals = frames.map((frame) => {
    t.ok(frame.byteLength <= MAX_MESSAGE_BYTES);
    const decoded = decodeMessage(frame);
    if (!decoded.ok || decoded.value.message.kind !== 'delta') throw new Error('not a delta');
    t.ok(decoded.value.message.records.length <= MAX_RECORDS_PER_MESSAGE);
    count += decoded.value.message.records.length;
    wanted += decoded.value.message.wants.length;
    return decoded.value.message.final;
  });
  t.equal(count, 600);
  t.equal(wanted, 300);
  t.same(finals.filter(Boolean), [true]);
  t.ok(finals.at(-1));
});

t.test('an empty batch and an empty delta are one frame each', async (t) => {
  t.equal(encodeMessage({ kind: 'batch', records: [], accusations: [] }).length, 1);
  t.strictSame(roundTrip({ kind: 'delta', records: [], accusations: [], wants: [], final: true }), {
    kind: 'delta',
    records: [],
    accusations: [],
    wants: [],
    final: true,
  });
});

t.test('too many entries are refused before they are read', async (t) => {
  const entries = Array.from({ length: 769 }, () => create(pb.DigestEntrySchema, {}));
  const digest = toBinary(
    pb.EnvelopeSchema,
    create(pb.EnvelopeSchema, { version: 1, body: { case: 'digest', value: { entries } } }),
  );
  t.match(decodeMessage(digest), { ok: false, code: 'limit' });
  const records = Array.from({ length: 257 }, () => create(pb.SignedSchema, {}));
  const batch = toBinary(
    pb.EnvelopeSchema,
    create(pb.EnvelopeSchema, { version: 1, body: { case: 'batch', value: { records } } }),
  );
  t.match(decodeMessage(batch), { ok: false, code: 'limit' });
});

t.test('a snapshot comes back, without what can’t be read of it', async (t) => {
  const snapshot = {
    savedAtMs: 1_700_000_000_000.5,
    incarnation: 42,
    members: [
      { signed: signed(SMALL), state: 'alive' as const },
      { signed: signed(FULL), state: 'dead' as const },
    ],
  };
  t.strictSame(decodeSnapshot(encodeSnapshot(snapshot)), { ok: true, value: snapshot });
  const broken = { ...signed(SMALL), signature: new Uint8Array(0) };
  const read = decodeSnapshot(
    encodeSnapshot({ ...snapshot, members: [{ signed: broken, state: 'alive' }, ...snapshot.members] }),
  );
  t.ok(read.ok && read.value.members.length === 2);
  t.match(decodeSnapshot(new Uint8Array(0)), { ok: false });
});

t.test('a hello and its answer come back, bounded', async (t) => {
  const hello = {
    protocolMin: 1,
    protocolMax: 4,
    cluster: 'shop',
    instance: 'ab'.repeat(16),
    dial: 3,
    seenInstance: '',
    seen: 0,
    chain: Uint8Array.of(1, 2, 3),
  };
  t.strictSame(decodeHello(encodeHello(hello)), { ok: true, value: hello });
  t.match(decodeHello(encodeHello({ ...hello, chain: new Uint8Array(4097) })), { ok: false, code: 'size' });
  t.match(decodeHello(encodeHello({ ...hello, instance: 'ab' })), { ok: false, code: 'value' });
  t.match(decodeHello(encodeHello({ ...hello, protocolMin: 5 })), { ok: false, code: 'value' });
  const answer = {
    verdict: 'refused' as const,
    protocol: 0,
    instance: 'cd'.repeat(16),
    reason: 'a\u001b[2Jb',
  };
  t.match(decodeAnswer(encodeAnswer(answer)), { ok: true, value: { verdict: 'refused', reason: 'a?[2Jb' } });
  const revocation = Buffer.alloc(3000, 7);
  t.match(decodeAnswer(encodeAnswer({ ...answer, revocation })), {
    value: { revocation: new Uint8Array(revocation) },
  });
  const tooLong = decodeAnswer(encodeAnswer({ ...answer, revocation: Buffer.alloc(5000) }));
  t.match(tooLong, { ok: true, value: { verdict: 'refused', revocation: undefined } }, 'the refusal arrives');
  t.equal(commonProtocol({ protocolMin: 1, protocolMax: 9 }), 1);
  t.equal(commonProtocol({ protocolMin: 2, protocolMax: 9 }), undefined);
});

function unknownField(number: number, value: string): Uint8Array {
  return new BinaryWriter().tag(number, WireType.LengthDelimited).string(value).finish();
}
