import t from 'tap';
import { Incoming } from '../../../src/daemon/driver/incoming.ts';
import type {
  Admitted,
  Message,
  NodeRecord,
  PeerId,
  SignedRecord,
} from '../../../src/daemon/membership/types.ts';
import { signWith, verifyByPeerId } from '../../../src/daemon/identity/keys/node-key.ts';
import { encodeMessage } from '../../../src/daemon/wire/message.ts';
import { signer } from '../../../src/daemon/wire/record.ts';
import { ACCUSATION, FULL, KEYS, PEERS, signed, SMALL } from '../wire/samples.ts';

const roster: Admitted[] = [SMALL, FULL].map(({ peerId, name, role, address }) => ({
  peerId,
  name,
  role,
  address,
}));

interface Gate {
  gate: Incoming;
  checks: () => number;
  /** What the machine holds. */
  held: Map<PeerId, NodeRecord>;
  pass: (ms: number) => void;
}

function incoming(known: readonly Admitted[] = roster, holds: readonly NodeRecord[] = []): Gate {
  let count = 0;
  let nowMs = 0;
  const verify = verifyByPeerId();
  const held = new Map(holds.map((record) => [record.peerId, record]));
  const gate = new Incoming({
    find: (peer) => known.find(({ peerId }) => peerId === peer),
    held: (peer) => held.get(peer),
    verify: (author, bytes, signature) => {
      count += 1;
      return verify(author, bytes, signature);
    },
    nowMs: () => nowMs,
  });
  return { gate, checks: () => count, held, pass: (ms) => void (nowMs += ms) };
}

function frame(message: Message): Uint8Array {
  return encodeMessage(message)[0] as Uint8Array;
}

function batch(...records: SignedRecord[]): Uint8Array {
  return frame({ kind: 'batch', records, accusations: [] });
}

/** A record of `record`'s owner, signed by another. */
function forged(record: NodeRecord, by: 0 | 1 | 2): SignedRecord {
  return signer(signWith(KEYS[by])).record(record);
}

t.test('a member’s own record passes, and is checked once for the same bytes', async (t) => {
  const { gate, checks } = incoming();
  for (let n = 0; n < 3; n += 1)
    t.match(gate.vet(batch(signed(SMALL))), { message: { kind: 'batch' }, fault: undefined });
  t.equal(checks(), 1);
  gate.vet(batch(signed({ ...SMALL, sequence: 1 })));
  t.equal(checks(), 2);
});

t.test('a record signed by another is dropped and held against the one who sent it', async (t) => {
  const { gate } = incoming();
  const vetted = gate.vet(batch(forged(FULL, 0), signed(SMALL)));
  t.match(vetted.fault, /has not signed/);
  t.match(vetted.message, { records: [{ record: { name: SMALL.name } }] });
  gate.vet(batch(signed(FULL)));
  t.match(
    gate.vet(batch({ ...signed(FULL), signature: new Uint8Array(64) })).fault,
    /has not signed/,
    'also when the payload is known',
  );
});

t.test('a record that differs from its owner’s certificate is dropped', async (t) => {
  const { gate } = incoming();
  for (const change of [
    { address: '10.0.0.77' },
    { name: 'other/app' },
    { name: 'a/db', role: 'db' as const },
  ])
    t.match(gate.vet(batch(signed({ ...SMALL, ...change }))).fault, /differs from its certificate/);
});

t.test('a record of an unknown member is dropped, and no peer is blamed', async (t) => {
  const { gate, checks } = incoming([roster[0] as Admitted]);
  t.match(gate.vet(batch(signed(FULL))), { message: undefined, fault: undefined, unknown: true });
  t.equal(checks(), 0, 'and costs no signature check');
});

t.test('an accusation counts only with its accuser’s signature, and only among members', async (t) => {
  const members = [...roster, { peerId: PEERS[2], name: 'c/app', role: 'app' as const, address: '10.0.0.3' }];
  const accusation = signer(signWith(KEYS[2])).accusation(ACCUSATION);
  const bytes = frame({ kind: 'batch', records: [], accusations: [accusation] });
  const subject = { ...(ACCUSATION.subject === SMALL.peerId ? SMALL : FULL), peerId: ACCUSATION.subject };
  const now = [{ ...subject, incarnation: ACCUSATION.incarnation }];
  t.match(incoming(members, now).gate.vet(bytes), {
    message: { accusations: [{ accusation: ACCUSATION }] },
    fault: undefined,
  });
  t.match(incoming().gate.vet(bytes), { message: undefined, unknown: true });
  const untrue = signer(signWith(KEYS[0])).accusation(ACCUSATION);
  const forgedBytes = frame({ kind: 'batch', records: [], accusations: [untrue] });
  t.match(incoming(members, now).gate.vet(forgedBytes).fault, /has not signed/);
});

t.test('what was verified is never verified again, in whatever order it is repeated', async (t) => {
  const { gate, checks } = incoming();
  const records = [0, 1, 2, 3].map((sequence) => signed({ ...SMALL, sequence }));
  for (const one of records) gate.vet(batch(one));
  t.equal(checks(), 4);
  for (let n = 0; n < 3; n += 1) for (const one of records) t.notOk(gate.vet(batch(one)).news);
  t.equal(checks(), 4, 'twelve repetitions, no signature');
});

t.test('what is older than what the machine holds is left out, unverified', async (t) => {
  const { gate, checks } = incoming(roster, [{ ...SMALL, incarnation: 100, sequence: 5 }]);
  const old = [
    { ...SMALL, incarnation: 99, sequence: 900 },
    { ...SMALL, incarnation: 100, sequence: 4 },
  ];
  for (const record of old)
    t.match(gate.vet(batch(signed(record))), { message: undefined, fault: undefined, news: false });
  t.equal(checks(), 0);
  t.match(gate.vet(batch(signed({ ...SMALL, incarnation: 100, sequence: 6 }))), { news: true });
  const clone = { ...SMALL, incarnation: 100, sequence: 1, startId: 'ab'.repeat(16) };
  t.match(gate.vet(batch(signed(clone))), { news: true }, 'another holder of the key is heard');
});

t.test(
  'of 256 accusations in one message those are verified that can change something, and all are charged',
  async (t) => {
    const members = [
      ...roster,
      { peerId: PEERS[2], name: 'c/app', role: 'app' as const, address: '10.0.0.3' },
    ];
    const { gate, checks } = incoming(members, [SMALL, FULL]);
    const accuser = signer(signWith(KEYS[2]));
    const accusations = Array.from({ length: 256 }, (_, n) =>
      accuser.accusation({
        accuser: PEERS[2],
        subject: (n % 2 === 0 ? SMALL : FULL).peerId,
        incarnation: (n % 2 === 0 ? SMALL : FULL).incarnation + (n >> 1),
      }),
    );
    const vetted = gate.vet(frame({ kind: 'batch', records: [], accusations }));
    t.equal(checks(), 2, 'one for each subject as it lives now');
    t.equal(vetted.message?.kind === 'batch' && vetted.message.accusations.length, 2);
    t.ok(vetted.workMs > 7, `${vetted.workMs} ms are charged: their decoding takes 7 ms of CPU time`);
  },
);

t.test('an accusation together with its record is accepted', async (t) => {
  const members = [...roster, { peerId: PEERS[2], name: 'c/app', role: 'app' as const, address: '10.0.0.3' }];
  const { gate } = incoming(members, [SMALL]);
  const next = { ...SMALL, incarnation: SMALL.incarnation + 1 };
  const { incarnation, peerId: subject } = next;
  const accusation = signer(signWith(KEYS[2])).accusation({ accuser: PEERS[2], subject, incarnation });
  const bytes = frame({
    kind: 'delta',
    records: [signed(next)],
    accusations: [accusation],
    wants: [],
    final: true,
  });
  t.match(gate.vet(bytes).message, { accusations: [{ accusation: { incarnation } }] });
});

t.test('of 180 own records in one message one is verified, and the sender is to blame', async (t) => {
  const { gate, checks } = incoming();
  const vetted = gate.vet(
    batch(...Array.from({ length: 180 }, (_, sequence) => signed({ ...SMALL, sequence }))),
  );
  t.equal(checks(), 1);
  t.match(vetted.fault, /two records of one member/);
});

t.test('an author has a share, which only its own genuine messages use up', async (t) => {
  const { gate, checks, pass } = incoming(roster, [{ ...SMALL, incarnation: 50 }]);
  // A forger, and one who repeats old words.
  for (let sequence = 0; sequence < 200; sequence += 1) {
    gate.vet(batch(forged({ ...SMALL, incarnation: 60, sequence }, 1)));
    gate.vet(batch(signed({ ...SMALL, incarnation: 49, sequence })));
  }
  t.match(gate.vet(batch(signed({ ...SMALL, incarnation: 51 }))), { news: true, overdone: undefined });
  const before = checks();
  let heard = 0;
  for (let sequence = 1; sequence <= 500; sequence += 1) {
    const vetted = gate.vet(batch(signed({ ...SMALL, incarnation: 51, sequence })));
    if (vetted.news) heard += 1;
    else t.equal(vetted.overdone, SMALL.peerId);
  }
  t.ok(heard < 100 && checks() - before === heard, `${heard} of 500 were verified`);
  t.match(gate.vet(batch(signed(FULL))), { news: true }, 'others are heard');
  pass(1000);
  t.match(gate.vet(batch(signed({ ...SMALL, incarnation: 51, sequence: 501 }))), { news: true });
});

t.test('the digests of what was verified are bounded', async (t) => {
  const { gate, checks, pass } = incoming();
  for (let sequence = 0; sequence < 2100; sequence += 1) {
    pass(1000);
    gate.vet(batch(signed({ ...SMALL, sequence })));
  }
  t.equal(checks(), 2100);
  gate.vet(batch(signed({ ...SMALL, sequence: 2099 })));
  t.equal(checks(), 2100, 'the newest are known');
  gate.vet(batch(signed({ ...SMALL, sequence: 0 })));
  t.equal(checks(), 2101, 'the oldest is not');
});

t.test('an empty delta is still processed, since its end matters', async (t) => {
  const { gate } = incoming([]);
  const bytes = frame({ kind: 'delta', records: [signed(SMALL)], accusations: [], wants: [], final: true });
  t.match(gate.vet(bytes), { message: { kind: 'delta', records: [], final: true }, unknown: true });
});

t.test('a message of a later version is ignored, and no peer is blamed', async (t) => {
  const { gate } = incoming();
  t.match(gate.vet(Uint8Array.of(0x08, 0x01, 0xfa, 0x07, 0x00)), {
    message: undefined,
    fault: undefined,
    later: true,
  });
  t.match(gate.vet(Uint8Array.of(0xff)), { fault: String, later: false });
});
