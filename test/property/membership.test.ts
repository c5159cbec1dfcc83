import * as fc from 'fast-check';
import t from 'tap';
import { createMembership } from '../../src/daemon/membership/machine.ts';
import { limits } from '../../src/daemon/membership/limits.ts';
import { decide, type Known } from '../../src/daemon/membership/precedence.ts';
import { presets } from '../../src/daemon/membership/preset.ts';
import type { Event, MemberState, Message, NodeRecord, Timer } from '../../src/daemon/membership/types.ts';
import { accusation, admitted, recordOf, signed, signer } from '../unit/membership/stage.ts';

/** Everything that a boundary could let through, and much that it would not. */
const peers = ['a', 'b', 'c', 'd', 'e', 'stranger'];
const peer = fc.constantFrom(...peers);
const number = fc.oneof(
  fc.integer({ min: 0, max: 5 }),
  fc.constantFrom(-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 48, 2 ** 53, Number.MAX_VALUE),
);
const record: fc.Arbitrary<NodeRecord> = fc
  .record({
    peer,
    incarnation: number,
    sequence: number,
    startId: fc.constantFrom('start-a', 'start-b', 'x', 'y'),
    status: fc.constantFrom<NodeRecord['status']>('alive', 'leaving', 'left'),
    windowMs: fc.option(number, { nil: undefined }),
    load: number,
    port: number,
    tags: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }),
  })
  .map(({ peer: id, windowMs, ...rest }) =>
    recordOf(id, {
      ...rest,
      ...(windowMs === undefined ? {} : { goodbye: { kind: 'restart', windowMs } }),
    }),
  );
const signedRecords = fc.array(record.map(signed), { maxLength: 4 });
const accusations = fc.array(
  fc
    .tuple(peer, peer, number, fc.constantFrom<'silent' | 'closed'>('silent', 'closed'))
    .map((one) => accusation(...one)),
  { maxLength: 4 },
);
const state: fc.Arbitrary<MemberState> = fc.constantFrom('alive', 'suspect', 'dead', 'leaving', 'left');
const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ kind: fc.constant('batch' as const), records: signedRecords, accusations }),
  fc.record({ kind: fc.constant('ping' as const), nonce: number }),
  fc.record({ kind: fc.constant('ack' as const), nonce: number }),
  fc.record({ kind: fc.constant('unlink' as const) }),
  fc.record({ kind: fc.constant('pingRequest' as const), nonce: number, target: peer }),
  fc.record({ kind: fc.constant('pingReport' as const), nonce: number, target: peer, reached: fc.boolean() }),
  fc.record({
    kind: fc.constant('digest' as const),
    entries: fc.array(fc.record({ peerId: peer, incarnation: number, sequence: number, state }), {
      maxLength: 6,
    }),
    wantsReply: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('digest' as const),
    entries: fc.constant([]),
    wantsReply: fc.boolean(),
    hash: fc.string(),
  }),
  fc.record({
    kind: fc.constant('delta' as const),
    records: signedRecords,
    accusations,
    wants: fc.array(peer, { maxLength: 6 }),
    final: fc.boolean(),
  }),
);
const timer: fc.Arbitrary<Timer> = fc.oneof(
  fc.record({
    kind: fc.constantFrom(
      'probe' as const,
      'flush' as const,
      'sync' as const,
      'links' as const,
      'reap' as const,
    ),
    epoch: fc.integer({ min: 0, max: 40 }),
  }),
  fc.record({
    kind: fc.constantFrom('probeTimeout' as const, 'indirectTimeout' as const, 'relayTimeout' as const),
    epoch: fc.constant(0),
    nonce: fc.integer({ min: 0, max: 60 }),
  }),
  fc.record({
    kind: fc.constantFrom('suspicion' as const, 'restartWindow' as const),
    epoch: fc.constant(0),
    subject: peer,
    incarnation: number,
  }),
);
const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant('received' as const),
      from: peer,
      message,
      via: fc.constantFrom('gossip' as const, 'stream' as const),
    }),
  },
  { weight: 6, arbitrary: timer.map((one): Event => ({ kind: 'timer', timer: one })) },
  { weight: 2, arbitrary: peer.map((one): Event => ({ kind: 'connected', peer: one })) },
  peer.map((one): Event => ({ kind: 'disconnected', peer: one })),
  fc.tuple(peer, fc.boolean()).map(([one, refused]): Event => ({ kind: 'dialFailed', peer: one, refused })),
  peer.map((one): Event => ({ kind: 'revoked', peer: one })),
  peer.map((one): Event => ({ kind: 'admitted', member: admitted(one) })),
  number.map((lagMs): Event => ({ kind: 'lag', lagMs })),
  fc.constantFrom<Event>({ kind: 'goodbye', goodbye: 'restart' }, { kind: 'leave' }, { kind: 'departed' }),
  fc.tuple(number, fc.dictionary(fc.string(), fc.string())).map(
    ([load, tags]): Event => ({
      kind: 'local',
      facts: {
        health: 'down',
        maintenance: true,
        services: [],
        tags,
        load,
        settingsDigest: '0123456789abcdef',
      },
    }),
  ),
);
const history = fc.array(fc.tuple(event, fc.integer({ min: 0, max: 4000 })), { maxLength: 60 });

function machine(founder = true) {
  const made = createMembership({ self: recordOf('a'), signer, preset: presets.lan, seed: 7 });
  const roster = ['a', 'b', 'c', 'd', 'e'].map(admitted);
  made.step({ kind: 'start', roster, snapshot: undefined, founder }, 0);
  return made;
}

t.test('no history of events throws, meets an internal error or makes endless effects', async (t) => {
  fc.assert(
    fc.property(history, fc.boolean(), (events, founder) => {
      const made = machine(founder);
      let nowMs = 0;
      for (const [one, passedMs] of events) {
        nowMs += passedMs;
        const effects = made.step(one, nowMs);
        if (effects.length > 200) throw new Error(`${effects.length} effects for ${one.kind}`);
        for (const effect of effects) {
          if (effect.kind === 'note' && effect.code === 'internal-error') throw new Error(effect.detail);
          if (effect.kind === 'schedule' && !(effect.afterMs >= 0 && effect.afterMs < 1e9))
            throw new Error(`a timer after ${effect.afterMs} ms`);
        }
      }
      return made.view.members.length <= 6;
    }),
    { numRuns: 400 },
  );
  t.pass();
});

t.test(
  'no message changes the record of another member: the owner signed every record in the view',
  async (t) => {
    fc.assert(
      fc.property(history, (events) => {
        const made = machine();
        const said = new Set<NodeRecord>();
        const collect = (records: readonly { readonly record: NodeRecord }[]): void => {
          for (const one of records) said.add(one.record);
        };
        let nowMs = 0;
        for (const [one, passedMs] of events) {
          nowMs += passedMs;
          if (one.kind === 'received' && (one.message.kind === 'batch' || one.message.kind === 'delta'))
            collect(one.message.records);
          made.step(one, nowMs);
        }
        return made.view.members.every((member) => member.self || said.has(member.record));
      }),
      { numRuns: 300 },
    );
    t.pass();
  },
);

t.test('incarnations never fall, and nobody dead or gone comes back without a higher one', async (t) => {
  fc.assert(
    fc.property(history, (events) => {
      const made = machine();
      const last = new Map<string, { incarnation: number; gone: boolean }>();
      let nowMs = 0;
      for (const [one, passedMs] of events) {
        nowMs += passedMs;
        made.step(one, nowMs);
        if (one.kind === 'revoked') last.delete(one.peer);
        for (const { record, state } of made.view.members) {
          const before = last.get(record.peerId);
          const gone = state === 'dead' || state === 'left';
          if (before !== undefined && record.incarnation < before.incarnation) return false;
          if (before?.gone === true && !gone && record.incarnation === before.incarnation) return false;
          last.set(record.peerId, { incarnation: record.incarnation, gone });
        }
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.pass();
});

t.test(
  'a single accuser makes no member dead that others reach, whatever it sends and whenever',
  async (t) => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.constantFrom('c', 'd', 'e'),
            fc.integer({ min: 0, max: 3 }),
            fc.integer({ min: 0, max: 9000 }),
          ),
          { maxLength: 40 },
        ),
        (lies) => {
          const made = machine();
          for (const one of ['b', 'c', 'd', 'e']) {
            made.step({ kind: 'connected', peer: one }, 0);
            made.step(
              {
                kind: 'received',
                from: one,
                message: { kind: 'batch', records: [signed(recordOf(one))], accusations: [] },
              },
              0,
            );
          }
          let nowMs = 0;
          for (const [subject, incarnation, passedMs] of lies) {
            nowMs += passedMs;
            const lie = accusation('b', subject, incarnation, 'closed');
            made.step(
              { kind: 'received', from: 'b', message: { kind: 'batch', records: [], accusations: [lie] } },
              nowMs,
            );
            for (const one of ['c', 'd', 'e'])
              made.step({ kind: 'received', from: one, message: { kind: 'ping', nonce: 1 } }, nowMs);
            made.step({ kind: 'timer', timer: { kind: 'suspicion', epoch: 0, subject, incarnation } }, nowMs);
          }
          return made.view.members.every((member) => member.state !== 'dead');
        },
      ),
    );
    t.pass();
  },
);

t.test(
  'memory is bounded: a flood from a thousand strange names leaves the roster’s members and nothing else',
  async (t) => {
    const made = machine();
    for (let index = 0; index < 5000; index += 1) {
      const from = peers[1 + (index % 4)] ?? 'b';
      const stranger = `s${index}`;
      const flood: Message = {
        kind: 'batch',
        records: [signed(recordOf(stranger, { incarnation: index }))],
        accusations: [accusation(stranger, from, 1), accusation(from, stranger, 1)],
      };
      made.step({ kind: 'received', from, message: flood }, index);
      made.step(
        { kind: 'received', from, message: { kind: 'pingRequest', nonce: index, target: 'e' } },
        index,
      );
    }
    t.equal(made.view.members.length, 1);
    for (let index = 0; index < limits.roster + 500; index += 1)
      made.step({ kind: 'admitted', member: admitted(`s${index}`) }, 6000);
    for (let index = 0; index < limits.roster + 500; index += 1)
      made.step(
        {
          kind: 'received',
          from: 'b',
          message: { kind: 'batch', records: [signed(recordOf(`s${index}`))], accusations: [] },
        },
        6000,
      );
    t.equal(made.view.members.length, limits.members);
    t.ok(made.snapshot().members.length <= limits.members);
  },
);

t.test(
  'precedence never leads back: only a higher incarnation leaves an end, whatever two claims hold',
  async (t) => {
    const known: fc.Arbitrary<Known> = fc.record({
      state,
      incarnation: fc.integer({ min: 0, max: 3 }),
      sequence: fc.integer({ min: 0, max: 3 }),
      startId: fc.constantFrom('x', 'y'),
      restarting: fc.boolean(),
    });
    fc.assert(
      fc.property(known, record, (before, claimed) => {
        const claim = { kind: 'record', ...claimed, goodbye: claimed.goodbye !== undefined } as const;
        const outcome = decide(before, claim);
        const wasGone = before.state === 'dead' || before.state === 'left';
        const isGone = outcome.state === 'dead' || outcome.state === 'left';
        return !wasGone || isGone || claimed.incarnation > before.incarnation;
      }),
    );
    t.pass();
  },
);
