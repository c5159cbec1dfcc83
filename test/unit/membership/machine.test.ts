import t from 'tap';
import { newStartId } from '../../../src/daemon/random.ts';
import { presetFields, presets } from '../../../src/daemon/membership/preset.ts';
import type { LocalFacts, PeerId } from '../../../src/daemon/membership/types.ts';
import { accusation, recordOf, Stage, signed } from './stage.ts';

const { lan } = presets;
const facts = (over: Partial<LocalFacts> = {}): LocalFacts => ({
  health: 'up',
  maintenance: false,
  services: [],
  tags: {},
  load: 0,
  settingsDigest: '0123456789abcdef',
  ...over,
});

t.test('every preset carries every field, with unit and reason', async (t) => {
  for (const [field, row] of Object.entries(presetFields)) {
    t.ok(row.reason.length > 20, `${field} has a reason`);
    t.equal(row.unit === 'ms', field.endsWith('Ms'), `${field} is named after its unit`);
    for (const preset of Object.values(presets)) t.ok(preset[field as keyof typeof presetFields] > 0, field);
  }
  t.ok(lan.probeTimeoutMs + lan.indirectTimeoutMs > 1000, 'a pause of a second is not suspected');
});

t.test('two accusers make a verdict, after the time to refute', async (t) => {
  const stage = new Stage();
  stage.answering.delete('d');
  stage.accuse(accusation('b', 'd', 1));
  t.equal(stage.state('d'), 'suspect');
  stage.accuse(accusation('c', 'd', 1));
  stage.run(lan.suspicionMs - 50);
  t.equal(stage.state('d'), 'suspect');
  stage.run(50 + lan.lastCallMs + 5);
  t.equal(stage.state('d'), 'dead');
  t.same(stage.member('d')?.accusers, ['b', 'c']);
  t.ok(stage.has('disconnect', 'd'));
});

t.test(
  'before a verdict others are asked, and one who knows of a refutation saves the accused',
  async (t) => {
    const stage = new Stage();
    stage.answering.delete('d');
    stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
    stage.effects.length = 0;
    stage.run(lan.suspicionMs + 5);
    const shown = (to: string): number =>
      stage.sent(to).filter((message) => message.kind === 'batch' && message.accusations.length === 2).length;
    t.equal(shown('b'), 1);
    t.equal(shown('c'), 1);
    t.equal(shown('d'), 0, 'not the accused itself, that is cut off');
    stage.step({
      kind: 'received',
      from: 'b',
      message: { kind: 'batch', records: [signed(recordOf('d', { incarnation: 2 }))], accusations: [] },
      via: 'stream',
    });
    t.equal(stage.state('d'), 'alive');
    stage.run(lan.lastCallMs + 5);
    t.equal(stage.state('d'), 'alive');
  },
);

t.test('who shows accusations of a life that is over is shown the record that ended it, once', async (t) => {
  const stage = new Stage();
  stage.hear('d', recordOf('d', { incarnation: 2 }));
  stage.effects.length = 0;
  const accusations = [accusation('b', 'd', 1), accusation('c', 'd', 1)];
  const batch = { kind: 'batch', records: [], accusations } as const;
  stage.step({ kind: 'received', from: 'b', message: batch, via: 'stream' });
  const answers = stage.sent('b').filter((message) => message.kind === 'batch');
  t.same(
    answers.map((message) => message.records.map(({ record }) => record.incarnation)),
    [[2]],
  );
  stage.step({ kind: 'received', from: 'b', message: batch, via: 'gossip' });
  t.equal(
    stage.sent('b').filter((message) => message.kind === 'batch').length,
    1,
    'gossip is for all: no answer',
  );
});

t.test('two that were refused by the subject’s host make a quick verdict', async (t) => {
  const stage = new Stage();
  stage.answering.delete('d');
  stage.step({ kind: 'disconnected', peer: 'd' });
  stage.accuse(accusation('b', 'd', 1, 'closed'), accusation('c', 'd', 1, 'closed'));
  stage.run(lan.closedSuspicionMs + 5);
  t.equal(stage.state('d'), 'dead');
});

t.test('one accuser kills nobody who answers, however often it accuses', async (t) => {
  const stage = new Stage();
  for (let round = 0; round < 50; round += 1) {
    stage.accuse(accusation('b', 'd', 1));
    stage.run(1000);
    t.not(stage.state('d'), 'dead');
  }
});

t.test('a node that still reaches the accused does not condemn it, and asks it to refute', async (t) => {
  const stage = new Stage();
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.run(10_000);
  t.equal(stage.state('d'), 'suspect');
  t.ok(stage.sent('d').some((message) => message.kind === 'batch' && message.accusations.length > 0));
  stage.hear('d', recordOf('d', { incarnation: 2 }));
  t.equal(stage.state('d'), 'alive');
  t.same(stage.member('d')?.accusers, []);
});

t.test('accusations count only if admitted, about another, and about the present incarnation', async (t) => {
  const stage = new Stage();
  stage.hear('d', recordOf('d', { incarnation: 5 }));
  stage.accuse(
    accusation('b', 'd', 4),
    accusation('b', 'd', 6),
    accusation('d', 'd', 5),
    accusation('x', 'd', 5),
  );
  stage.accuse(accusation('b', 'd', Number.NaN), accusation('b', 'd', -1), accusation('b', 'nobody', 5));
  t.equal(stage.state('d'), 'alive');
  t.ok(stage.notes().includes('accuser-not-admitted'));
});

t.test('a node that accuses all is ignored', async (t) => {
  const peers = Array.from({ length: 60 }, (_, index) => `p${index}`);
  const stage = new Stage({ peers });
  for (const peer of peers) stage.accuse(accusation('p0', peer, 1));
  const suspects = peers.filter((peer) => stage.state(peer) === 'suspect').length;
  t.ok(suspects > 0 && suspects <= 34, `${suspects} suspects`);
});

t.test('who is refuted again and again is believed seldom, and refuted seldom', async (t) => {
  const stage = new Stage();
  let suspected = 0;
  for (let round = 0; round < 240; round += 1) {
    const incarnation = stage.member('d')?.record.incarnation ?? 0;
    stage.accuse(accusation('b', 'd', incarnation), accusation('b', 'a', stage.self.incarnation));
    if (stage.state('d') === 'suspect') suspected += 1;
    stage.hear('d', recordOf('d', { incarnation: incarnation + 1 }));
    t.equal(stage.state('d'), 'alive');
    stage.run(500);
  }
  // 32 in advance and 2 a second; each costs 16.
  t.ok(
    suspected > 0 && suspected + stage.self.incarnation <= 2 + (32 + 240) / 16,
    `${suspected} in two minutes`,
  );
  stage.accuse(accusation('c', 'a', stage.self.incarnation));
  const before = stage.self.incarnation;
  stage.step({
    kind: 'received',
    from: 'c',
    message: { kind: 'batch', records: [], accusations: [accusation('b', 'a', before)] },
    via: 'stream',
  });
  t.equal(stage.self.incarnation, before + 1, 'what somebody else holds against us is refuted at once');
});

t.test('a third accuser speaks where one of the two before it was refuted again and again', async (t) => {
  for (const refutations of [0, 1, 2, 4]) {
    const stage = new Stage({ peers: ['b', 'c', 'd', 'e'] });
    for (let round = 1; round <= refutations; round += 1) {
      stage.accuse(accusation('b', 'e', round));
      stage.hear('e', recordOf('e', { incarnation: round + 1 }));
    }
    // Time enough for one more accusation of b's to count, not for its standing of before.
    stage.run(500);
    stage.answering.delete('d');
    stage.effects.length = 0;
    while (!stage.sent('d').some(({ kind }) => kind === 'ping')) stage.run(10);
    stage.run(presets.lan.probeTimeoutMs + presets.lan.indirectTimeoutMs - 100);
    stage.accuse(accusation('b', 'd', 1));
    stage.accuse(accusation('c', 'd', 1));
    t.equal(stage.member('d')?.accusers.length, 2, `${refutations} refutations: both count here`);
    stage.effects.length = 0;
    stage.run(300);
    const own = stage
      .published()
      .flatMap(({ accusations }) => accusations)
      .filter(({ accusation: { accuser, subject } }) => accuser === 'a' && subject === 'd');
    t.equal(own.length, refutations >= 2 ? 1 : 0, `${refutations} refutations`);
  }
});

t.test('one member that gossips all the time leaves room for the life and death of others', async (t) => {
  const peers = Array.from({ length: 12 }, (_, index) => `p${index}`);
  const refutes = (author: (at: number) => PeerId): boolean => {
    const stage = new Stage({ peers });
    stage.run(2000);
    for (let at = 0; at < 12; at += 1) stage.hear('p1', recordOf(author(at), { sequence: at + 1 }));
    stage.effects.length = 0;
    stage.step({
      kind: 'received',
      from: 'p2',
      message: { kind: 'batch', records: [], accusations: [accusation('p3', 'a', stage.self.incarnation)] },
      via: 'stream',
    });
    stage.run(100);
    return stage.published().some(({ records }) => records.some(({ record }) => record.peerId === 'a'));
  };
  t.equal(
    refutes(() => 'p0'),
    true,
    'twelve messages of one',
  );
  t.equal(
    refutes((at) => `p${at}`),
    false,
    'one message of each of twelve',
  );
});

t.test('an accused member refutes at once with a higher incarnation, to all and to its links', async (t) => {
  const stage = new Stage();
  stage.accuse(accusation('b', 'a', 1));
  t.equal(stage.self.incarnation, 2);
  t.equal(stage.sent('b').length, 1);
  stage.run(1);
  t.equal(stage.published()[0]?.records[0]?.record.incarnation, 2);
  stage.accuse(accusation('c', 'a', 1));
  t.equal(stage.self.incarnation, 2, 'an old accusation is answered already');
});

t.test(
  'being held dead in another’s digest is answered too, but nobody can push the incarnation up',
  async (t) => {
    const stage = new Stage();
    const digest = (incarnation: number) =>
      stage.step({
        kind: 'received',
        from: 'b',
        message: {
          kind: 'digest',
          entries: [{ peerId: 'a', incarnation, sequence: 0, state: 'dead' }],
          wantsReply: true,
        },
      });
    digest(1);
    t.equal(stage.self.incarnation, 2);
    digest(2 ** 40);
    t.equal(stage.self.incarnation, 2);
  },
);

t.test('the dead come back with a higher incarnation only', async (t) => {
  const stage = new Stage();
  stage.answering.delete('d');
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.run(600);
  stage.hear('d', recordOf('d', { sequence: 7 }));
  t.equal(stage.state('d'), 'dead');
  stage.hear('d', recordOf('d', { incarnation: 2 }));
  t.equal(stage.state('d'), 'alive');
});

t.test(
  'a silent link is pinged, asked about through others, and accused when nobody reaches the peer',
  async (t) => {
    const stage = new Stage();
    stage.answering.delete('d');
    stage.run(1200);
    t.ok(stage.sent('d').some((message) => message.kind === 'ping'));
    stage.run(lan.probeTimeoutMs);
    t.ok(['b', 'c'].every((peer) => stage.sent(peer).some((message) => message.kind === 'pingRequest')));
    t.equal(stage.state('d'), 'alive');
    stage.run(lan.indirectTimeoutMs + 10);
    t.equal(stage.state('d'), 'suspect');
    t.equal(stage.published().at(-1)?.accusations[0]?.accusation.accuser, 'a');
    stage.run(30_000);
    t.not(stage.state('d'), 'dead', 'we alone accuse, and two others could be asked');
  },
);

t.test('where no other member answers, one accuser and the full suspicion time are enough', async (t) => {
  const stage = new Stage({ peers: ['b'] });
  stage.answering.clear();
  stage.run(1200 + lan.probeTimeoutMs + lan.indirectTimeoutMs);
  t.equal(stage.state('b'), 'suspect');
  stage.run(lan.fullSuspicionMs * 0.8);
  t.equal(stage.state('b'), 'suspect');
  stage.run(lan.fullSuspicionMs * 2);
  t.equal(stage.state('b'), 'dead');
});

t.test(
  'a closed connection is redialled and asked about at once; a refused dial is accused soon',
  async (t) => {
    const stage = new Stage();
    stage.answering.delete('d');
    stage.step({ kind: 'disconnected', peer: 'd' });
    t.ok(stage.has('connect', 'd'));
    t.ok(stage.sent('b').some((message) => message.kind === 'pingRequest'));
    stage.step({ kind: 'dialFailed', peer: 'd', refused: true });
    stage.run(2 * lan.closedSpreadMs);
    t.equal(stage.state('d'), 'suspect');
    t.equal(stage.published().at(-1)?.accusations[0]?.accusation.evidence, 'closed');
  },
);

t.test('a closed connection to a member that others reach is nothing but a closed connection', async (t) => {
  const stage = new Stage();
  stage.step({ kind: 'disconnected', peer: 'd' });
  stage.step({ kind: 'dialFailed', peer: 'd', refused: true });
  stage.run(5000);
  t.equal(stage.state('d'), 'alive');
});

t.test('the end of a link that somebody asked to close is no evidence', async (t) => {
  const stage = new Stage();
  stage.step({ kind: 'received', from: 'd', message: { kind: 'unlink' } });
  const effects = stage.step({ kind: 'disconnected', peer: 'd' });
  t.notOk(effects.some((effect) => effect.kind === 'connect'));
});

t.test('a restart delays the verdict by its window and no longer', async (t) => {
  const stage = new Stage();
  stage.hear('d', recordOf('d', { sequence: 1, goodbye: { kind: 'restart', windowMs: 10_000 } }));
  t.ok(stage.member('d')?.restarting);
  stage.answering.delete('d');
  stage.step({ kind: 'disconnected', peer: 'd' });
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.run(9900);
  t.equal(stage.state('d'), 'alive');
  stage.run(700);
  t.equal(stage.state('d'), 'dead');
});

t.test('a window is at most thirty seconds, whatever the record says', async (t) => {
  const stage = new Stage();
  stage.hear('d', recordOf('d', { sequence: 1, goodbye: { kind: 'shutdown', windowMs: 3_600_000 } }));
  stage.answering.delete('d');
  stage.step({ kind: 'disconnected', peer: 'd' });
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.run(29_000);
  t.equal(stage.state('d'), 'alive');
  stage.run(2000);
  t.equal(stage.state('d'), 'dead');
});

t.test('a second window within five minutes is not granted', async (t) => {
  const stage = new Stage();
  stage.hear('d', recordOf('d', { sequence: 1, goodbye: { kind: 'restart', windowMs: 10_000 } }));
  stage.hear('d', recordOf('d', { incarnation: 2 }));
  t.notOk(stage.member('d')?.restarting);
  stage.hear(
    'd',
    recordOf('d', { incarnation: 2, sequence: 1, goodbye: { kind: 'restart', windowMs: 10_000 } }),
  );
  t.notOk(stage.member('d')?.restarting);
  t.ok(stage.notes().includes('goodbye-too-often'));
  stage.run(lan.goodbyeEveryMs);
  stage.hear(
    'd',
    recordOf('d', { incarnation: 3, sequence: 1, goodbye: { kind: 'restart', windowMs: 10_000 } }),
  );
  t.ok(stage.member('d')?.restarting);
});

t.test('a node’s goodbye has its kind; only a restart asks for time', async (t) => {
  for (const [goodbye, windowMs] of [
    ['restart', lan.goodbyeWindowMs],
    ['stop', 0],
    ['shutdown', 0],
  ] as const) {
    const stage = new Stage();
    stage.step({ kind: 'goodbye', goodbye });
    t.same(stage.self.goodbye, { kind: goodbye, windowMs });
    t.ok(stage.sent('c').length > 0, 'told to every link');
  }
});

t.test('leaving is sent at once, then left, and a member that left refutes nothing', async (t) => {
  const stage = new Stage();
  stage.step({ kind: 'leave' });
  t.equal(stage.state('a'), 'leaving');
  stage.step({ kind: 'departed' });
  t.equal(stage.state('a'), 'left');
  const { incarnation } = stage.self;
  stage.accuse(accusation('b', 'a', incarnation));
  t.equal(stage.self.incarnation, incarnation);
  t.equal(stage.sent('d').length, 2);
});

t.test('a peer that leaves is left, not dead, and its closed link means nothing', async (t) => {
  const stage = new Stage();
  stage.hear('d', recordOf('d', { sequence: 1, status: 'leaving' }));
  stage.hear('d', recordOf('d', { sequence: 2, status: 'left' }));
  stage.answering.delete('d');
  stage.step({ kind: 'disconnected', peer: 'd' });
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.run(20_000);
  t.equal(stage.state('d'), 'left');
  t.notOk(stage.has('connect', 'd'));
});

t.test('own changes go out in a burst of two, then once a second with the newest', async (t) => {
  const stage = new Stage();
  for (let change = 1; change <= 40; change += 1) {
    stage.step({ kind: 'local', facts: facts({ tags: { change: String(change) } }) });
    stage.run(50);
  }
  const told = stage.published().flatMap((message) => message.records).length;
  t.ok(told >= 2 && told <= 5, `${told} in two seconds`);
  stage.run(2000);
  t.equal(stage.self.tags['change'], '40');
  t.equal(stage.published().at(-1)?.records[0]?.record.tags['change'], '40');
});

t.test('what decides about traffic is not delayed by tags that changed before', async (t) => {
  const stage = new Stage();
  const waits: number[] = [];
  // An order of maintenance, and soon after it a tag that says what came of it; again and again.
  for (let change = 1; change <= 20; change += 1) {
    const maintenance = change % 2 === 1;
    stage.step({ kind: 'local', facts: facts({ maintenance, tags: { change: String(change - 1) } }) });
    const atMs = stage.nowMs;
    const told = (): boolean =>
      stage
        .published()
        .at(-1)
        ?.records.some(({ record }) => record.maintenance === maintenance) ?? false;
    while (!told()) stage.run(1);
    waits.push(stage.nowMs - atMs);
    stage.run(100);
    stage.step({ kind: 'local', facts: facts({ maintenance, tags: { change: String(change) } }) });
    stage.run(1100);
  }
  t.ok(Math.max(...waits) < lan.flushMs, `waited ${waits.join(', ')} ms`);
});

t.test('a storm of what decides about traffic is folded as well', async (t) => {
  const stage = new Stage();
  for (let change = 1; change <= 40; change += 1) {
    stage.step({ kind: 'local', facts: facts({ maintenance: change % 2 === 0 }) });
    stage.run(50);
  }
  const told = stage.published().flatMap((message) => message.records).length;
  t.ok(told >= 2 && told <= 6, `${told} in two seconds`);
  stage.run(2000);
  t.equal(stage.self.maintenance, true);
});

t.test('load alone is worth no message', async (t) => {
  const stage = new Stage();
  for (let load = 1; load < 100; load += 1) {
    stage.step({ kind: 'local', facts: facts({ load }) });
    stage.run(1000);
  }
  t.equal(stage.published().length, 0);
  t.equal(stage.self.sequence, 0);
  stage.run(lan.loadIntervalMs);
  t.equal(stage.self.load, 99, 'it rides with a sync');
});

t.test('a lag of its own holds a node’s verdicts and gives every probe its time again', async (t) => {
  const stage = new Stage();
  stage.answering.delete('d');
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.step({ kind: 'lag', lagMs: 1000 });
  stage.run(lan.suspicionMs + 20);
  t.equal(stage.state('d'), 'suspect');
  stage.run(2000);
  t.equal(stage.state('d'), 'dead');
});

/** How long `a` needs to accuse the silent `d` while `e` answers pings so late, and no indirect ones. */
function accusedAfterMs(lateMs: number, calmMs: number): number {
  const stage = new Stage({ peers: ['b', 'c', 'd', 'e'] });
  stage.answering.delete('e');
  const due: { readonly atMs: number; readonly nonce: number }[] = [];
  let seen = 0;
  const turn = (): void => {
    stage.run(10);
    const sent = stage.sent('e');
    for (const message of sent.slice(seen))
      if (message.kind === 'ping') due.push({ atMs: stage.nowMs + lateMs, nonce: message.nonce });
    seen = sent.length;
    while (due[0] !== undefined && due[0].atMs <= stage.nowMs)
      stage.step({ kind: 'received', from: 'e', message: { kind: 'ack', nonce: due.shift()?.nonce ?? 0 } });
  };
  while (stage.nowMs < calmMs) turn();
  stage.answering.delete('d');
  const sinceMs = stage.nowMs;
  while (stage.state('d') === 'alive' && stage.nowMs - sinceMs < 60_000) turn();
  return stage.nowMs - sinceMs;
}

t.test('a member that answers late does not have us give others more time', async (t) => {
  const calms = Array.from({ length: 20 }, (_, n) => 30_000 + 170 * n);
  const most = (lateMs: number): number => Math.max(...calms.map((calmMs) => accusedAfterMs(lateMs, calmMs)));
  const late = most(lan.probeTimeoutMs + 150);
  t.ok(late < most(20) + 100, `${late} ms, ${most(20)} ms when all answer at once`);
});

t.test('a process that was stopped notices that by its own timers', async (t) => {
  const stage = new Stage();
  stage.answering.delete('d');
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.nowMs += 3000;
  stage.run(1);
  t.equal(stage.state('d'), 'suspect', 'the verdict was overdue, and waits for what the sockets hold');
  stage.hear('d', recordOf('d', { incarnation: 2 }));
  stage.run(5000);
  t.not(stage.state('d'), 'dead');
});

t.test('two members of one name are both known, whichever reports first', async (t) => {
  const host = { name: 'host-y/app', role: 'app' } as const;
  for (const order of ['yz', 'zy']) {
    const stage = new Stage();
    stage.step({ kind: 'admitted', member: { peerId: 'y', ...host, address: '10.0.0.8' } });
    stage.step({ kind: 'admitted', member: { peerId: 'z', ...host, address: '10.0.0.9' } });
    for (const peer of order) stage.hear('b', recordOf(peer, { name: host.name }));
    t.strictSame([stage.state('y'), stage.state('z')], ['alive', 'alive'], order);
    stage.accuse(accusation('b', 'y', 1), accusation('c', 'y', 1));
    stage.run(600);
    t.strictSame(
      [stage.state('y'), stage.state('z')],
      ['dead', 'alive'],
      'the end of one is not that of the other',
    );
  }
});

t.test('records of strangers, under other names or out of range are refused', async (t) => {
  const stage = new Stage();
  stage.hear('b', recordOf('x'), recordOf('d', { incarnation: 2, name: 'host-b/app' }));
  stage.hear('b', recordOf('d', { incarnation: 2 ** 52 }), recordOf('d', { incarnation: 2, port: 0 }));
  t.equal(stage.state('x'), 'unknown');
  t.equal(stage.member('d')?.record.incarnation, 1);
  t.strictSame([...new Set(stage.notes())], ['not-admitted', 'name-differs', 'record-out-of-range']);
});

t.test(
  'an earlier life is outbid once; a living clone that started later is answered, an earlier one ends us',
  async (t) => {
    const older = (incarnation: number) => recordOf('a', { incarnation, startId: 'other' });
    const stage = new Stage();
    stage.hear('b', older(7));
    t.equal(stage.self.incarnation, 8);
    t.notOk(stage.has('clone'), 'an echo is no clone');
    for (const incarnation of [9, 11]) stage.hear('b', older(incarnation));
    t.match(
      stage.effects.find((effect) => effect.kind === 'clone'),
      { otherStartId: 'other', mustStop: false },
    );
    const late = new Stage({ founder: false, linked: false });
    late.step({ kind: 'connected', peer: 'b' });
    for (const incarnation of [7, 9, 11]) late.hear('b', older(incarnation));
    t.match(
      late.effects.find((effect) => effect.kind === 'clone'),
      { otherStartId: 'other', mustStop: true },
    );
    t.same(late.step({ kind: 'leave' }), [], 'who must stop says nothing more');
  },
);

t.test(
  'of two nodes with one key that learn of each other late, the one that started later ends',
  async (t) => {
    const dayMs = 86_400_000;
    for (let pair = 1; pair <= 20; pair += 1) {
      const [early, late] = [newStartId(pair * dayMs), newStartId(pair * dayMs + 1)];
      for (const [own, other, mustStop] of [
        [early, late, false],
        [late, early, true],
      ] as const) {
        const stage = new Stage({ self: { startId: own } });
        for (const incarnation of [7, 9, 11, 13])
          stage.hear('b', recordOf('a', { incarnation, startId: other }));
        const told = stage.effects.filter((effect) => effect.kind === 'clone');
        t.equal(
          told.some((each) => each.mustStop),
          mustStop,
        );
      }
    }
  },
);

t.test('a restored snapshot is outbid by one, and its failed members are dialled', async (t) => {
  const first = new Stage();
  first.answering.delete('d');
  first.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  first.run(600);
  const snapshot = { ...first.machine.snapshot(), incarnation: 70 };
  const second = new Stage({ snapshot, founder: false, linked: false });
  t.equal(second.self.incarnation, 71);
  t.equal(second.state('d'), 'dead');
  second.run(120_000);
  for (const peer of ['b', 'c', 'd']) t.ok(second.has('connect', peer), peer);
});

t.test('redials never end, and become less and less frequent', async (t) => {
  const stage = new Stage({ linked: false });
  const dials = () =>
    stage.effects.filter((effect) => effect.kind === 'connect' && effect.peer === 'b').length;
  stage.run(60_000);
  const first = dials();
  stage.run(3_600_000);
  const later = dials() - first;
  t.ok(first >= 5, `${first} in the first minute`);
  // Three are lost, and one of them is dialled each five seconds.
  t.ok(later > 180 && later < 300, `${later} in the next hour`);
});

t.test('synced: a founder and a lone node at once, others after their first sync', async (t) => {
  t.ok(new Stage().machine.view.synced);
  t.ok(new Stage({ peers: [], founder: false }).machine.view.synced);
  const stage = new Stage({ founder: false });
  t.notOk(stage.machine.view.synced);
  stage.step({
    kind: 'received',
    from: 'b',
    message: {
      kind: 'delta',
      records: [signed(recordOf('c', { sequence: 4 }))],
      accusations: [],
      wants: [],
      final: true,
    },
  });
  t.ok(stage.machine.view.synced);
  t.ok(stage.has('synced'));
});

t.test('a sync sends only what differs', async (t) => {
  const stage = new Stage();
  const entries = ['a', 'b', 'c', 'd'].map((peerId) => ({
    peerId,
    incarnation: 1,
    sequence: 0,
    state: 'alive' as const,
  }));
  const ask = (list: typeof entries) => {
    stage.effects.length = 0;
    stage.step({ kind: 'received', from: 'b', message: { kind: 'digest', entries: list, wantsReply: true } });
    return stage.sent('b')[0];
  };
  t.match(ask(entries), { kind: 'delta', records: [], wants: [], final: true });
  t.match(ask(entries.slice(0, 3)), {
    kind: 'delta',
    records: [{ record: { peerId: 'd' } }],
    wants: [],
    final: true,
  });
  const newer = entries.map((entry) => (entry.peerId === 'c' ? { ...entry, sequence: 9 } : entry));
  t.match(ask(newer), { kind: 'delta', records: [], wants: ['c'], final: false });
});

t.test(
  'revoked members leave the view, are disconnected, and stay out until they are admitted again',
  async (t) => {
    const stage = new Stage();
    stage.step({ kind: 'revoked', peer: 'd' });
    t.equal(stage.state('d'), 'unknown');
    t.ok(stage.has('disconnect', 'd'));
    stage.hear('b', recordOf('d', { incarnation: 99 }));
    t.equal(stage.state('d'), 'unknown');
    stage.step({
      kind: 'admitted',
      member: { peerId: 'd', name: 'host-d/app', role: 'app', address: '10.0.0.100' },
    });
    stage.hear('b', recordOf('d', { incarnation: 99 }));
    t.equal(stage.state('d'), 'alive');
  },
);

t.test('the dead are forgotten after three days, and an old record does not bring them back', async (t) => {
  const stage = new Stage({ peers: ['b', 'c', 'd'] });
  stage.answering.delete('d');
  stage.accuse(accusation('b', 'd', 1), accusation('c', 'd', 1));
  stage.run(600);
  stage.answering.clear();
  stage.nowMs += lan.reapDeadMs;
  stage.run(lan.reapIntervalMs);
  t.equal(stage.state('d'), 'unknown');
  t.ok(stage.has('reaped', 'd'));
  stage.hear('b', recordOf('d', { sequence: 3 }));
  t.equal(stage.state('d'), 'unknown');
  stage.hear('b', recordOf('d', { incarnation: 2 }));
  t.equal(stage.state('d'), 'alive');
});

t.test('timers of another epoch, probe or incarnation fall through', async (t) => {
  const stage = new Stage();
  const before = stage.machine.view.version;
  for (const kind of ['probe', 'flush', 'sync', 'links', 'reap'] as const)
    t.same(stage.step({ kind: 'timer', timer: { kind, epoch: 9999 } }), []);
  for (const kind of ['probeTimeout', 'indirectTimeout', 'relayTimeout'] as const)
    t.same(stage.step({ kind: 'timer', timer: { kind, epoch: 0, nonce: 9999 } }), []);
  for (const kind of ['suspicion', 'restartWindow'] as const)
    t.same(stage.step({ kind: 'timer', timer: { kind, epoch: 0, subject: 'd', incarnation: 5 } }), []);
  t.equal(stage.machine.view.version, before);
});

t.test('views are frozen, and a new one appears for every change', async (t) => {
  const stage = new Stage();
  const before = stage.machine.view;
  t.equal(stage.machine.view, before, 'the same object while nothing changes');
  stage.hear('d', recordOf('d', { sequence: 1, tags: { rack: '2' } }));
  const after = stage.machine.view;
  t.ok(after.version > before.version);
  t.equal(before.members.find((one) => one.record.peerId === 'd')?.record.tags['rack'], undefined);
  t.throws(() => {
    (after.members as unknown[]).push(0);
  });
  t.throws(() => {
    Object.assign(after.members[0]?.record ?? {}, { port: 1 });
  });
});

t.test('events before start are noted, a second start changes nothing', async (t) => {
  const stage = new Stage();
  t.same(stage.step({ kind: 'start', roster: [], snapshot: undefined, founder: true }), []);
});
