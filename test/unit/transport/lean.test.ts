import { createServer, type Socket, connect as connectTo } from 'node:net';
import t, { type Test } from 'tap';
import { bytes, cluster, loopback, PORT, type TestNode } from './nodes.ts';
import { until } from '../../support/until.ts';

interface Tap {
  readonly address: string;
  /** Sizes of what came from the dialling side, and from the other, as the sockets gave it. */
  readonly there: number[];
  readonly back: number[];
}

/** A relay in front of `to` that sees every write as it is. */
async function relay(t: Test, to: TestNode): Promise<Tap> {
  const tapped: Tap = { address: loopback(), there: [], back: [] };
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    const other = connectTo({ host: to.address, port: PORT, noDelay: true });
    for (const each of [socket, other]) sockets.add(each.on('error', () => undefined).setNoDelay());
    socket.on('data', (data) => {
      tapped.there.push(data.length);
      other.write(data);
    });
    other.on('data', (data) => {
      tapped.back.push(data.length);
      socket.write(data);
    });
  });
  await new Promise<void>((resolve) => server.listen(PORT, tapped.address, resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return tapped;
}

/** Nothing has come through for a while, in which this process had its turns: a busy machine is no silence. */
async function quiet(tapped: Tap): Promise<void> {
  let seen = -1;
  for (let turns = 0; turns < 30; turns += 1) {
    if (seen !== tapped.there.length + tapped.back.length) turns = 0;
    seen = tapped.there.length + tapped.back.length;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

t.test('a small message is one write and nothing comes back for it', async (t) => {
  const [a, b] = (await cluster(t, 2, { timing: { gossipCheckMs: 60_000 } })) as [TestNode, TestNode];
  const tapped = await relay(t, b);
  await a.transport.connect(b.peer, tapped.address, PORT);
  await until(() => b.events.length > 0 && a.events.length > 0, { what: 'gossip of both' });
  await quiet(tapped);
  const messages = 40;
  const text = 'twenty bytes of text';
  const [there, back] = [tapped.there.length, tapped.back.length];
  for (let each = 1; each <= messages; each += 1) {
    a.transport.send(b.peer, bytes(text));
    await until(() => b.messages.length === each, { what: 'its arrival' });
  }
  await quiet(tapped);
  const sent = tapped.there.slice(there);
  // The frame's length 4, yamux 12, Noise 2 and 16.
  const whole = sent.filter((size) => size === text.length + 34);
  t.ok(whole.length >= messages, `${whole.length} whole messages in one write each`);
  // Gossip's own heartbeat may say something meanwhile.
  t.ok(sent.length <= messages + 4, `${sent.length} writes there`);
  t.ok(tapped.back.length - back <= 4, `${tapped.back.length - back} writes back`);
});

t.test('many times the window goes through, both ways', async (t) => {
  const [a, b] = (await cluster(t, 2)) as [TestNode, TestNode];
  const length = 3 * 1024 * 1024;
  b.transport.handle('/test/large/1', (_from, question) => question);
  await a.transport.connect(b.peer, b.address, PORT);
  const question = new Uint8Array(length).map((_, at) => at % 251);
  const answer = await a.transport.request(b.peer, '/test/large/1', question, {
    timeoutMs: 60_000,
    maxBytes: length,
  });
  t.ok(Buffer.compare(Buffer.from(answer), Buffer.from(question)) === 0);
  const frame = bytes('x'.repeat(40_000));
  for (let each = 1; each <= 50; each += 1) {
    a.transport.send(b.peer, frame);
    await until(() => b.messages.length === each, { what: 'its arrival' });
  }
  t.equal(b.messages.at(-1)?.text.length, 40_000);
});
