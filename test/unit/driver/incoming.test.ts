import t from 'tap';
import { Incoming } from '../../../src/daemon/driver/incoming.ts';
import type { Admitted, Message, NodeRecord, SignedRecord } from '../../../src/daemon/membership/types.ts';
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

function incoming(known: readonly Admitted[] = roster): { gate: Incoming; checks: () => number } {
  let count = 0;
  const verify = verifyByPeerId();
  const gate = new Incoming(
    (peer) => known.find(({ peerId }) => peerId === peer),
    (author, bytes, signature) => {
      count += 1;
      return verify(author, bytes, signature);
    },
  );
  return { gate, checks: () => count };
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

t.test('who is not in the roster is not heard, which is nobody’s fault', async (t) => {
  const { gate, checks } = incoming([roster[0] as Admitted]);
  t.match(gate.vet(batch(signed(FULL))), { message: undefined, fault: undefined, unknown: true });
  t.equal(checks(), 0, 'and costs no signature check');
});

t.test('an accusation counts only with its accuser’s signature, and only among members', async (t) => {
  const members = [...roster, { peerId: PEERS[2], name: 'c/app', role: 'app' as const, address: '10.0.0.3' }];
  const accusation = signer(signWith(KEYS[2])).accusation(ACCUSATION);
  const bytes = frame({ kind: 'batch', records: [], accusations: [accusation] });
  t.match(incoming(members).gate.vet(bytes), {
    message: { accusations: [{ accusation: ACCUSATION }] },
    fault: undefined,
  });
  t.match(incoming().gate.vet(bytes), { message: undefined, unknown: true });
  const untrue = signer(signWith(KEYS[0])).accusation(ACCUSATION);
  const forgedBytes = frame({ kind: 'batch', records: [], accusations: [untrue] });
  t.match(incoming(members).gate.vet(forgedBytes).fault, /has not signed/);
});

t.test('an emptied delta is still heard, for its end matters', async (t) => {
  const { gate } = incoming([]);
  const bytes = frame({ kind: 'delta', records: [signed(SMALL)], accusations: [], wants: [], final: true });
  t.match(gate.vet(bytes), { message: { kind: 'delta', records: [], final: true }, unknown: true });
});

t.test('what a later version says is neither heard nor held against anybody', async (t) => {
  const { gate } = incoming();
  t.match(gate.vet(Uint8Array.of(0x08, 0x01, 0xfa, 0x07, 0x00)), {
    message: undefined,
    fault: undefined,
    later: true,
  });
  t.match(gate.vet(Uint8Array.of(0xff)), { fault: String, later: false });
});
