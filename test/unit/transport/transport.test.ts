import { generateKeyPairSync } from 'node:crypto';
import { connect as openSocket, createServer, type Socket } from 'node:net';
import t from 'tap';
import { DEFAULT_TIMING } from '../../../src/daemon/transport/transport.ts';
import { bytes, cluster, connect, loopback, makeNode, PORT, type TestNode } from './nodes.ts';
import { until } from '../../support/until.ts';

t.test('a link carries messages both ways, and both sides are notified once', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  await connect(a, b);
  await until(() => b.events.length > 0, { what: 'b sees a' });
  t.same(a.events, [`+${b.peer}`]);
  t.same(b.events, [`+${a.peer}`]);
  t.ok(a.transport.send(b.peer, bytes('hello')));
  t.ok(b.transport.send(a.peer, bytes('hi')));
  await until(() => a.messages.length === 1 && b.messages.length === 1, { what: 'both arrive' });
  t.same(b.messages, [{ from: a.peer, text: 'hello' }]);
  t.same(a.messages, [{ from: b.peer, text: 'hi' }]);
  await connect(b, a);
  t.same(b.transport.peers(), [a.peer], 'connecting again changes nothing');
});

t.test('two dials at once end in one link and one event on each side', async (t) => {
  for (let round = 0; round < 5; round += 1) {
    const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
    await Promise.all([connect(a, b), connect(b, a)]);
    t.same(a.transport.peers(), [b.peer]);
    t.same(b.transport.peers(), [a.peer]);
    a.transport.send(b.peer, bytes('1'));
    b.transport.send(a.peer, bytes('2'));
    await until(() => a.messages.length === 1 && b.messages.length === 1, { what: 'messages pass' });
    t.same(a.events, [`+${b.peer}`]);
    t.same(b.events, [`+${a.peer}`]);
    await a.transport.close();
    await b.transport.close();
  }
});

t.test('gossip reaches every node once, whether linked to the publisher or not', async (t) => {
  const [a, b, c] = (await cluster(t, 3)) as [TestNode, TestNode, TestNode];
  await connect(a, b);
  await connect(b, c);
  await until(
    () => {
      a.transport.publish(bytes('try'));
      return c.gossip.length > 0;
    },
    { what: 'gossip streams are up' },
  );
  const before = c.gossip.length;
  a.transport.publish(bytes('same words'));
  a.transport.publish(bytes('same words'));
  await until(() => c.gossip.filter((text) => text === 'same words').length === 2, { what: 'c hears both' });
  t.ok(c.gossip.length >= before + 2);
  t.equal(b.gossip.filter((text) => text === 'same words').length, 2);
  t.equal(a.gossip.length, 0, 'nobody hears itself');
});

t.test('a rejected message is not handed on', async (t) => {
  const [a, b, c] = (await cluster(t, 3)) as [TestNode, TestNode, TestNode];
  await connect(a, b);
  await connect(b, c);
  await until(
    () => {
      a.transport.publish(bytes('good'));
      return c.gossip.includes('good');
    },
    { what: 'gossip passes' },
  );
  b.verdict = 'reject';
  a.transport.publish(bytes('bad'));
  await until(() => b.gossip.includes('bad'), { what: 'b has it' });
  b.verdict = 'accept';
  a.transport.publish(bytes('after'));
  await until(() => c.gossip.includes('after'), { what: 'c hears the next' });
  t.notOk(c.gossip.includes('bad'));
});

t.test('the end of a link is reported at once, and the link can be made again', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  await connect(a, b);
  await until(() => b.events.length === 1, { what: 'b sees a' });
  a.transport.send(b.peer, bytes('last words'));
  a.transport.disconnect(b.peer, 'because');
  t.same(a.events.at(-1), `-${b.peer} because`);
  t.notOk(a.transport.send(b.peer, bytes('late')));
  await until(() => b.events.length === 2, { what: 'b notices' });
  t.same(b.messages, [{ from: a.peer, text: 'last words' }], 'what was sent before arrives');
  await connect(b, a);
  await until(() => a.events.length === 3, { what: 'a sees b again' });
  t.same(a.transport.peers(), [b.peer]);
});

t.test('a process that restarts replaces its old link', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  await connect(a, b);
  await until(() => b.events.length === 1, { what: 'b sees a' });
  const again = makeNode({ key: a.key });
  again.members.add(b.peer);
  t.teardown(() => again.transport.close());
  await again.transport.start();
  await connect(again, b);
  await until(() => b.events.length === 3, { what: 'b has renewed' });
  t.same(b.events, [`+${a.peer}`, `-${a.peer} renewed`, `+${a.peer}`]);
  t.same(b.transport.peers(), [a.peer]);
});

t.test('a PeerId outside the roster is asked for its chain, and the gate decides', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  b.members.delete(a.peer);
  await t.rejects(connect(a, b), { code: 'not-admitted', message: /not admitted/ });
  t.same(b.events, []);
  t.equal(b.transport.counters.strangersRefused, 1);
  t.same(a.notes, [], 'and given no revocation');
  b.revoked.set(a.peer, Buffer.from('signed'));
  await t.rejects(connect(a, b), { code: 'not-admitted', message: /removed from the cluster/ });
  t.same(a.notes, ['refused with signed']);
  b.admit = async (peer, chain) => {
    if (chain === 'chain') b.members.add(peer);
    return chain === 'chain';
  };
  await connect(a, b);
  await until(() => b.events.length === 1, { what: 'b has let a in' });
  t.same(b.events, [`+${a.peer}`]);
});

t.test('a revoked member is disconnected and stays out', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  await connect(a, b);
  await until(() => b.events.length === 1, { what: 'b sees a' });
  b.members.delete(a.peer);
  b.transport.disconnect(a.peer, 'revoked');
  await until(() => a.events.length === 2, { what: 'a notices' });
  await t.rejects(connect(a, b), { code: 'not-admitted' });
  t.same(b.transport.peers(), []);
});

t.test('nodes of another cluster are refused with that error', async (t) => {
  const [a] = (await cluster(t, 1)) as [TestNode];
  const [b] = (await cluster(t, 1, { cluster: 'other' })) as [TestNode];
  a.members.add(b.peer);
  b.members.add(a.peer);
  await t.rejects(connect(a, b), { code: 'not-admitted', message: /another cluster/ });
});

t.test('a dial says whether the host itself refused', async (t) => {
  const [a] = (await cluster(t, 1)) as [TestNode];
  const absent = makeNode();
  a.members.add(absent.peer);
  await t.rejects(connect(a, absent), { code: 'connection-refused' });

  const silent = makeNode();
  const sockets: Socket[] = [];
  const server = createServer((socket) => sockets.push(socket));
  await new Promise<void>((resolve) => server.listen(PORT, silent.address, resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const [hasty] = (await cluster(t, 1, { timing: { dialTimeoutMs: 700 } })) as [TestNode];
  hasty.members.add(silent.peer);
  await t.rejects(connect(hasty, silent), { code: 'timeout' });

  const stranger = makeNode();
  await t.rejects(connect(a, stranger), { code: 'not-admitted' }, 'who is not a member is not dialled');
});

t.test('an impostor at the right address is not the peer', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  const expected = makeNode();
  a.members.add(expected.peer);
  await t.rejects(a.transport.connect(expected.peer, b.address, PORT));
  t.same(a.transport.peers(), []);
  t.same(b.events, []);
});

t.test(
  'who is found at an address alone is linked with if it is a member, and with nobody else',
  async (t) => {
    const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
    t.equal(await a.transport.find(b.address, PORT), b.peer);
    t.same(a.transport.peers(), [b.peer]);
    await until(() => b.transport.peers().includes(a.peer), { what: 'b has the link as well' });
    t.equal(await a.transport.find(b.address, PORT), b.peer, 'once more changes nothing');
    t.equal(a.transport.peers().length, 1);
    const [stranger] = (await cluster(t, 1)) as [TestNode];
    await t.rejects(a.transport.find(stranger.address, PORT), /denyOutbound|no other member/);
    await t.rejects(a.transport.find(a.address, PORT), /./, 'itself');
    await t.rejects(a.transport.find(b.address, 9), { code: 'connection-refused' });
    t.same(a.transport.peers(), [b.peer]);
    t.same(stranger.events, []);
  },
);

t.test('a question gets its answer, within its bounds', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  b.transport.handle('/bornemisza/echo/1', (from, question) => {
    t.equal(from, a.peer);
    return question;
  });
  b.transport.handle('/bornemisza/big/1', () => new Uint8Array(300_000));
  b.transport.handle('/bornemisza/slow/1', () => new Promise(() => {}));
  b.transport.handle('/bornemisza/broken/1', () => {
    throw new Error('broken');
  });
  const limits = { timeoutMs: 60_000, maxBytes: 1000 };
  await t.rejects(a.transport.request(b.peer, '/bornemisza/echo/1', bytes('x'), limits), {
    code: 'not-connected',
  });
  await connect(a, b);
  const answer = await a.transport.request(b.peer, '/bornemisza/echo/1', bytes('x'), limits);
  t.same(new TextDecoder().decode(answer), 'x');
  await t.rejects(a.transport.request(b.peer, '/bornemisza/big/1', bytes('x'), limits));
  const big = await a.transport.request(b.peer, '/bornemisza/big/1', bytes('x'), {
    ...limits,
    maxBytes: 400_000,
  });
  t.equal(big.byteLength, 300_000);
  await t.rejects(
    a.transport.request(b.peer, '/bornemisza/slow/1', bytes('x'), { ...limits, timeoutMs: 100 }),
    {
      code: 'timeout',
    },
  );
  await t.rejects(a.transport.request(b.peer, '/bornemisza/broken/1', bytes('x'), limits));
  await t.rejects(a.transport.request(b.peer, '/bornemisza/none/1', bytes('x'), limits));
  t.same(a.transport.peers(), [b.peer], 'the link outlives all of it');
});

t.test('frames beyond the queue are dropped and counted, not kept', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  await connect(a, b);
  const frame = new Uint8Array(60_000);
  let taken = 0;
  // All in one turn: nothing can leave meanwhile.
  while (taken < 1000 && a.transport.send(b.peer, frame)) taken += 1;
  t.ok(taken > 5 && taken < 100, `${taken} frames of 60 kB fit`);
  t.equal(a.transport.counters.framesDropped, 1);
  await until(() => b.messages.length === taken, { what: 'those taken arrive' });
  t.ok(a.transport.send(b.peer, bytes('and on')));
  t.notOk(a.transport.send(b.peer, new Uint8Array(70_000)), 'no frame is larger than a message');
});

t.test('an address that is taken or not here is named by the error', async (t) => {
  const [a] = (await cluster(t, 1)) as [TestNode];
  const second = makeNode({ address: a.address });
  await t.rejects(second.transport.start(), { code: 'address-in-use' });
  await second.transport.close();
  const elsewhere = makeNode({ address: '203.0.113.7' });
  await t.rejects(elsewhere.transport.start(), { code: 'address-not-here' });
  await elsewhere.transport.close();
  const long = makeNode({ chain: 'x'.repeat(5000) });
  await t.rejects(long.transport.start(), { code: 'too-large' });
  await makeNode().transport.close();
  t.pass('what never started closes, too');
});

t.test('two hundred silent sockets keep no member out', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  const sockets: Socket[] = [];
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
  });
  const from = loopback();
  for (let n = 0; n < 200; n += 1) {
    const socket = openSocket({ host: a.address, port: PORT, localAddress: n % 2 === 0 ? from : loopback() });
    socket.on('error', () => undefined);
    sockets.push(socket);
  }
  await until(() => sockets.every((socket) => !socket.connecting), { what: 'the sockets are there' });
  a.memberAddresses.add('127.0.0.1');
  await connect(b, a);
  t.ok(
    sockets.some((socket) => !(socket.closed || socket.destroyed)),
    'linked while silent sockets stand',
  );
  t.ok(
    a.transport.counters.connectionsRefused >= 100,
    `${a.transport.counters.connectionsRefused} were refused at once`,
  );
  await until(() => a.transport.peers().includes(b.peer), { what: 'a has the link as well' });
});

t.test('silence, slow bytes and garbage are cut in time and cost no member its link', async (t) => {
  const { upgradeTimeoutMs } = DEFAULT_TIMING;
  const [a, b] = (await cluster(t, 2, { timing: { upgradeTimeoutMs } })) as [TestNode, TestNode];
  // A member that is too slow for it tries again.
  await until(() => connect(b, a).then(() => true), { what: 'linked' });
  const [dripping, garbage, ...silent] = Array.from({ length: 6 }, () =>
    openSocket({ host: a.address, port: PORT }),
  ) as [Socket, Socket, ...Socket[]];
  for (const socket of [dripping, garbage, ...silent]) socket.on('error', () => undefined).resume();
  garbage.write(Buffer.alloc(100_000, 0xa5));
  const drip = setInterval(() => dripping.write('\x13'), 50);
  t.teardown(() => clearInterval(drip));
  await until(() => a.transport.peers().includes(b.peer), { what: 'a has the link as well' });
  await until(() => [dripping, garbage, ...silent].every(({ closed }) => closed), { what: 'all are cut' });
  t.same(a.transport.peers(), [b.peer]);
  a.transport.send(b.peer, bytes('still here'));
  await until(() => b.messages.length === 1, { what: 'the link works' });
});

t.test('a gossip message carries 8 bytes of nonce, and its content is ours alone', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  await connect(a, b);
  const key = generateKeyPairSync('ed25519').privateKey;
  t.ok(key);
  await until(
    () => {
      a.transport.publish(bytes(''));
      a.transport.publish(bytes('word'));
      return b.gossip.includes('word');
    },
    { what: 'b hears a' },
  );
  t.notOk(b.gossip.includes(''), 'an empty message is refused before it is delivered');
});
