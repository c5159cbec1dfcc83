import { isDeepStrictEqual } from 'node:util';
import * as fc from 'fast-check';
import t from 'tap';
import type { Message, NodeRecord } from '../../src/daemon/membership/types.ts';
import { decodeAnswer, decodeHello } from '../../src/daemon/wire/handshake.ts';
import { MAX_MESSAGE_BYTES } from '../../src/daemon/wire/limits.ts';
import { decodeMessage, encodeMessage } from '../../src/daemon/wire/message.ts';
import { decodeRecord, encodeRecord } from '../../src/daemon/wire/record.ts';
import { decodeSnapshot, encodeSnapshot } from '../../src/daemon/wire/snapshot.ts';
import { FrameReader, framed } from '../../src/daemon/transport/framed-stream.ts';
import { messages, PEERS, signed } from '../unit/wire/samples.ts';

const RUNS = { numRuns: 500 };

const count = fc.oneof(fc.nat(), fc.maxSafeNat());
const peer = fc.constantFrom(...PEERS);
const health = fc.constantFrom('up' as const, 'down' as const);
const hex = (bytes: number): fc.Arbitrary<string> =>
  fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((each) => Buffer.from(each).toString('hex'));
const word = fc.stringMatching(/^[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?$/);
const host = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/);
/** Printable, and at most 64 bytes of UTF-8. */
const tagValue = fc
  .string({ unit: 'grapheme', maxLength: 12 })
  .filter((text) => !/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(text) && Buffer.byteLength(text) <= 64);

const record: fc.Arbitrary<NodeRecord> = fc
  .record({
    peerId: peer,
    host,
    role: fc.constantFrom('app' as const, 'db' as const),
    address: fc.ipV4(),
    port: fc.integer({ min: 1, max: 65_535 }),
    incarnation: count,
    sequence: count,
    startId: hex(16),
    protocol: fc.tuple(fc.nat(100), fc.nat(100)),
    status: fc.constantFrom('alive' as const, 'leaving' as const, 'left' as const),
    goodbye: fc.option(
      fc.record({
        kind: fc.constantFrom('restart' as const, 'stop' as const, 'shutdown' as const),
        windowMs: fc.nat(60_000),
      }),
      { nil: undefined },
    ),
    health,
    maintenance: fc.boolean(),
    services: fc.uniqueArray(fc.record({ name: word, health }), {
      maxLength: 32,
      selector: ({ name }) => name,
    }),
    tags: fc.dictionary(word, tagValue, { maxKeys: 16, noNullPrototype: true }),
    load: fc.nat(100_000),
    settingsDigest: fc.oneof(fc.constant(''), hex(8)),
  })
  .map(({ host: name, protocol: [low, span], goodbye, ...rest }) => ({
    ...rest,
    name: `${name}/${rest.role}`,
    version: '1.2.3',
    protocolMin: low,
    protocolMax: low + span,
    ...(goodbye === undefined ? {} : { goodbye }),
  }));

t.test('any valid record comes back as it was, and encodes to the same bytes again', async (t) => {
  fc.assert(
    fc.property(record, (each) => {
      const bytes = encodeRecord(each);
      const decoded = decodeRecord(bytes);
      if (!decoded.ok) throw new Error(decoded.reason);
      const same = isDeepStrictEqual(structuredClone(decoded.value), structuredClone(each));
      return same && Buffer.from(encodeRecord(decoded.value)).equals(bytes);
    }),
    { numRuns: 200 },
  );
  t.pass('held');
});

t.test('any batch of records survives being split into frames', async (t) => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 40 }), fc.integer({ min: 1, max: 12 }), (records, times) => {
      const all = Array.from({ length: times }, () => records.map(signed)).flat();
      const frames = encodeMessage({ kind: 'batch', records: all, accusations: [] });
      const back = frames.flatMap((frame) => {
        const decoded = decodeMessage(frame);
        if (!decoded.ok || decoded.value.message.kind !== 'batch') throw new Error('not a batch');
        return [...decoded.value.message.records];
      });
      return (
        frames.every((frame) => frame.byteLength <= MAX_MESSAGE_BYTES) &&
        back.length === all.length &&
        back.every((each, index) =>
          Buffer.from(each.payload).equals(all[index]?.payload ?? new Uint8Array(0)),
        )
      );
    }),
    { numRuns: 30 },
  );
  t.pass('held');
});

const decoders = { decodeMessage, decodeRecord, decodeSnapshot, decodeHello, decodeAnswer };

t.test('arbitrary bytes never throw past a decoder', async (t) => {
  for (const decode of Object.values(decoders))
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => typeof decode(bytes).ok === 'boolean'),
      RUNS,
    );
  t.pass('held');
});

const sources = [
  ...messages().map((message) => encodeMessage(message)[0] as Uint8Array),
  encodeSnapshot({ savedAtMs: 1, incarnation: 1, members: [] }),
];

/** Bytes of real messages with some changed, cut out or put in twice. */
const mutated = fc
  .tuple(
    fc.constantFrom(...sources),
    fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }),
    fc.nat(),
    fc.constantFrom('keep', 'cut', 'double'),
  )
  .map(([source, changes, at, shape]) => {
    const bytes = Uint8Array.from(source);
    for (const [where, value] of changes) bytes[where % bytes.byteLength] = value;
    const cut = at % bytes.byteLength;
    if (shape === 'cut') return bytes.subarray(0, cut);
    return shape === 'double' ? Buffer.concat([bytes.subarray(0, cut), bytes]) : bytes;
  });

t.test('mutated messages are read within all bounds or refused', async (t) => {
  fc.assert(
    fc.property(mutated, (bytes) => {
      for (const decode of Object.values(decoders)) decode(bytes);
      const decoded = decodeMessage(bytes);
      return !decoded.ok || isInBounds(decoded.value.message);
    }),
    { numRuns: 3000 },
  );
  t.pass('held');
});

function isInBounds(message: Message): boolean {
  if (message.kind === 'ping' || message.kind === 'ack') return Number.isSafeInteger(message.nonce);
  if (message.kind !== 'batch' && message.kind !== 'delta') return true;
  return message.records.every(
    ({ record: each, signature }) =>
      signature.byteLength === 64 &&
      each.services.length <= 32 &&
      Object.keys(each.tags).length <= 16 &&
      /^[a-z0-9.-]+\/(app|db)$/.test(each.name),
  );
}

t.test('frames come out as they went in, however the stream is cut', async (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 97 })),
      (frames, cuts) => {
        const reader = new FrameReader();
        const out: Uint8Array[] = [];
        let rest: Uint8Array = Buffer.concat(frames.map(framed));
        while (rest.byteLength > 0) {
          const size = cuts.next().value as number;
          reader.push(rest.subarray(0, size));
          rest = rest.subarray(size);
          for (let frame = reader.next(300); frame !== undefined; frame = reader.next(300)) out.push(frame);
        }
        return (
          out.length === frames.length &&
          out.every((each, index) => Buffer.from(each).equals(frames[index] ?? new Uint8Array(0)))
        );
      },
    ),
    RUNS,
  );
  t.pass('held');
});
