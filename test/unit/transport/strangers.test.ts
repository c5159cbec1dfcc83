import { generateKeyPairSync } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { connect, type Socket } from 'node:net';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p, type Libp2p } from 'libp2p';
import t, { type Test } from 'tap';
import { FramedStream, framed } from '../../../src/daemon/transport/framed-stream.ts';
import { libp2pKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { DEFAULT_STRANGER_LIMITS, Strangers } from '../../../src/daemon/transport/strangers.ts';
import { ADMIT_PROTOCOL, DEFAULT_TIMING } from '../../../src/daemon/transport/transport.ts';
import { encodeHello, type Hello } from '../../../src/daemon/wire/handshake.ts';
import { cluster, loopback, PORT, type TestNode } from './nodes.ts';
import { until } from '../../support/until.ts';

t.test('an address has a burst, then a rate, and only so many at once', async (t) => {
  let nowMs = 0;
  const limits = { ...DEFAULT_STRANGER_LIMITS, pendingPerAddress: 2, burst: 3, perSecond: 1, pending: 3 };
  const strangers = new Strangers(limits, () => nowMs);
  const first = strangers.arrive('10.0.0.9');
  t.ok(first && strangers.arrive('10.0.0.9'));
  t.notOk(strangers.arrive('10.0.0.9'), 'two at once are enough');
  first?.();
  first?.();
  t.ok(strangers.arrive('10.0.0.9'), 'one has ended, and counts once');
  t.notOk(strangers.arrive('10.0.0.9'));
  t.ok(strangers.arrive('10.0.0.8'), 'another address has its own');
  t.notOk(strangers.arrive('10.0.0.7'), 'but there is a bound for all');
  nowMs = 60_000;
  t.notOk(strangers.arrive('10.0.0.9'), 'time alone ends nothing that is pending');
});

t.test('addresses are forgotten, oldest first, so that they can’t fill the memory', async (t) => {
  const strangers = new Strangers({ ...DEFAULT_STRANGER_LIMITS, burst: 1, perSecond: 0 }, () => 0);
  strangers.arrive('first')?.();
  t.notOk(strangers.arrive('first'));
  for (let n = 0; n < 2000; n += 1) strangers.arrive(`10.${n >> 8}.${n & 255}.1`)?.();
  t.ok(strangers.arrive('first'), 'it has been forgotten meanwhile');
});

t.test('a member’s address may dial as often as a member has a reason to, and no more', async (t) => {
  let nowMs = 0;
  const { memberBurst, memberPerSecond } = DEFAULT_STRANGER_LIMITS;
  const strangers = new Strangers(DEFAULT_STRANGER_LIMITS, () => nowMs);
  let taken = 0;
  for (; nowMs < 10_000; nowMs += 2) if (strangers.memberArrives('10.0.0.1')) taken += 1;
  t.ok(
    taken >= memberBurst && taken <= memberBurst + 10 * memberPerSecond,
    `${taken} of 5000 in ten seconds`,
  );
  t.ok(strangers.memberArrives('10.0.0.2'), 'another member is not touched by it');
});

/** A libp2p node that is nobody's member and does as it likes. */
async function stranger(
  t: Test,
  victim: TestNode,
): Promise<{ node: Libp2p; dial: () => ReturnType<Libp2p['dial']> }> {
  const node = await createLibp2p({
    privateKey: libp2pKey(generateKeyPairSync('ed25519').privateKey),
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
  });
  t.teardown(() => node.stop());
  const target = multiaddr(`/ip4/${victim.address}/tcp/${PORT}/p2p/${victim.peer}`);
  return { node, dial: () => node.dial(target) };
}

t.test('a silent stranger is disconnected within about a second', async (t) => {
  const { strangerTimeoutMs } = DEFAULT_TIMING;
  t.equal(strangerTimeoutMs, 1000);
  const [a] = (await cluster(t, 1, { timing: { strangerTimeoutMs } })) as [TestNode];
  const { dial } = await stranger(t, a);
  const startMs = performance.now();
  // Where this process stands still for a second it is hung up on before it knows that it is through.
  const connection = await dial().catch(() => undefined);
  await until(() => connection?.status !== 'open', { what: 'hung up on' });
  // A timer may be a millisecond early.
  t.ok(performance.now() - startMs > strangerTimeoutMs - 2, 'it had its time');
});

t.test(
  'who floods a member with sockets is turned away before there is a socket; members come in',
  async (t) => {
    const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
    a.memberAddresses.add(b.address);
    const { burst } = DEFAULT_STRANGER_LIMITS;
    const from = loopback();
    let made = 0;
    const count = (message: unknown): void => {
      if ((message as { socket: Socket }).socket.remoteAddress === from) made += 1;
    };
    subscribe('net.server.socket', count);
    t.teardown(() => unsubscribe('net.server.socket', count));
    const sinceMs = performance.now();
    const one = (): Promise<void> =>
      new Promise((resolve) => {
        const socket = connect({ host: a.address, port: PORT, localAddress: from });
        socket.on('error', () => undefined).on('connect', () => socket.destroy());
        socket.on('close', () => resolve());
      });
    for (let n = 0; n < 20; n += 1) await Promise.all(Array.from({ length: 20 }, one));
    await until(() => a.transport.counters.connectionsRefused + made >= 400, { what: 'a has seen all 400' });
    const granted = burst + (DEFAULT_STRANGER_LIMITS.perSecond * (performance.now() - sinceMs)) / 1000;
    t.ok(made <= granted + 1, `${made} sockets for 400 connections`);
    await b.transport.connect(a.peer, a.address, PORT);
    t.same(b.transport.peers(), [a.peer]);
  },
);

t.test('a stranger gets one stream', async (t) => {
  const [a] = (await cluster(t, 1)) as [TestNode];
  const { dial } = await stranger(t, a);
  const connection = await dial();
  await connection.newStream(ADMIT_PROTOCOL);
  t.equal(connection.status, 'open');
  await connection.newStream(ADMIT_PROTOCOL).catch(() => undefined);
  await until(() => connection.status !== 'open', { what: 'the second is one too many' });
});

t.test('gossip and requests before admission end the connection', async (t) => {
  const [a] = (await cluster(t, 1)) as [TestNode];
  a.transport.handle('/bornemisza/echo/1', (_from, question) => question);
  for (const protocol of ['/meshsub/1.2.0', '/bornemisza/echo/1']) {
    const { dial } = await stranger(t, a);
    const connection = await dial();
    await connection.newStream(protocol).catch(() => undefined);
    await until(() => connection.status !== 'open', { what: `${protocol} hung up` });
  }
  t.same(a.events, []);
});

t.test('hellos that are oversized, malformed or replayed by another let nobody in', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  a.admit = async () => {
    throw new Error('the gate itself failed');
  };
  const hello: Hello = {
    protocolMin: 1,
    protocolMax: 1,
    cluster: 'test',
    instance: '00'.repeat(16),
    dial: 1,
    seenInstance: '',
    seen: 0,
    chain: new TextEncoder().encode('chain'),
  };
  const oversized = new Uint8Array(8);
  new DataView(oversized.buffer).setUint32(0, 1_000_000);
  for (const bytes of [oversized, framed(new Uint8Array(100).fill(0xff)), framed(encodeHello(hello))]) {
    const { dial } = await stranger(t, a);
    const connection = await dial();
    const stream = await connection.newStream(ADMIT_PROTOCOL);
    stream.send(bytes);
    await until(() => connection.status !== 'open', { what: 'hung up' });
  }
  t.same(a.transport.peers(), []);
  await b.transport.connect(a.peer, a.address, PORT);
  t.same(b.transport.peers(), [a.peer], 'members come and go all the while');
});

t.test('a peer of an incompatible version gets the list of supported versions', async (t) => {
  const [a] = (await cluster(t, 1)) as [TestNode];
  const { node, dial } = await stranger(t, a);
  a.members.add(node.peerId.toString());
  const connection = await dial();
  const frames = new FramedStream(await connection.newStream(ADMIT_PROTOCOL), 5000);
  const later = {
    protocolMin: 7,
    protocolMax: 9,
    cluster: 'test',
    instance: '00'.repeat(16),
    dial: 1,
    seenInstance: '',
    seen: 0,
  };
  frames.send(encodeHello({ ...later, chain: new Uint8Array(0) }));
  const answer = await frames.read(AbortSignal.timeout(60_000));
  t.match(Buffer.from(answer).toString('latin1'), /1 to 1 here, 7 to 9 there/);
});
