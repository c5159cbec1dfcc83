import t from 'tap';
import { DECODED_BYTES_PER_MS } from '../../../src/daemon/driver/incoming.ts';
import { TokenBucket } from '../../../src/daemon/driver/token-bucket.ts';
import { MEMBER_PACE, type PaceLimits, workOfBytes } from '../../../src/daemon/transport/pace.ts';
import { MAX_MESSAGE_BYTES } from '../../../src/daemon/wire/limits.ts';
import { bytes, cluster, connect, type TestNode } from './nodes.ts';
import { until } from '../../support/until.ts';

/** So little that a test sees it work. */
const NARROW: PaceLimits = {
  steadyMsPerSecond: 100,
  steadyBurstMs: 100,
  shortMsPerSecond: 100,
  shortBurstMs: 20,
};

async function linked(
  t: Parameters<typeof cluster>[0],
  pace: PaceLimits,
): Promise<[TestNode, TestNode, TestNode]> {
  const [a, b, c] = (await cluster(t, 3, { pace })) as [TestNode, TestNode, TestNode];
  for (const node of [b, c]) await connect(node, a);
  await until(() => a.transport.peers().length === 2, { what: 'a has both links' });
  return [a, b, c];
}

t.test('work that was done is a debt, which time pays, and which has a bound', async (t) => {
  const bucket = new TokenBucket(100, 10, 0);
  t.equal(bucket.waitMs(0), 0);
  bucket.spend(150, 0);
  t.equal(bucket.waitMs(0), 5000);
  t.equal(bucket.waitMs(4000), 1000);
  t.equal(bucket.waitMs(5000), 0);
  bucket.spend(1e9, 5000);
  t.equal(bucket.waitMs(5000), 10_000, 'however much it was');
});

t.test(
  'a peer that caused more work than its share is not read for a while, and no other waits',
  async (t) => {
    const [a, b, c] = await linked(t, NARROW);
    a.transport.charge(b.peer, 60);
    const sinceMs = performance.now();
    b.transport.send(a.peer, bytes('from b'));
    c.transport.send(a.peer, bytes('from c'));
    await until(() => a.messages.some(({ text }) => text === 'from c'), { what: 'c is heard' });
    t.same(
      a.messages.map(({ text }) => text),
      ['from c'],
    );
    await until(() => a.messages.some(({ text }) => text === 'from b'), { what: 'b is heard in the end' });
    t.ok(performance.now() - sinceMs >= 200, 'later than its debt');
    t.ok(a.notes.some((note) => note.startsWith('peer-slowed')));
    t.equal(a.transport.counters.slowed, 1);
  },
);

t.test('bytes are work: a flood comes in at the pace of its share, in order and whole', async (t) => {
  const [a, b] = await linked(t, NARROW);
  const frames = 100;
  const sinceMs = performance.now();
  for (let n = 0; n < frames; n += 1)
    await until(() => b.transport.send(a.peer, bytes(`${n} `.padEnd(MAX_MESSAGE_BYTES, 'x'))), {
      what: 'there is room',
    });
  await until(() => a.messages.length === frames, { what: 'all are here' });
  const allowedMs =
    ((workOfBytes(frames * MAX_MESSAGE_BYTES) - NARROW.steadyBurstMs) / NARROW.steadyMsPerSecond) * 1000;
  const tookMs = performance.now() - sinceMs;
  t.ok(tookMs > allowedMs / 2, `${Math.round(tookMs)} ms, ${Math.round(allowedMs)} by the share`);
  t.same(
    a.messages.map(({ text }) => Number.parseInt(text, 10)),
    Array.from({ length: frames }, (_, n) => n),
  );
  t.ok(a.transport.peers().includes(b.peer), 'and the link stands');
});

t.test('a new connection does not bring a new share', async (t) => {
  const [a, b, c] = await linked(t, NARROW);
  a.transport.charge(b.peer, 60);
  b.transport.disconnect(a.peer, 'to have a fresh one');
  const sinceMs = performance.now();
  await until(() => connect(b, a).then(() => true), { what: 'it is back' });
  await until(() => a.transport.peers().includes(b.peer), { what: 'here, too' });
  t.ok(performance.now() - sinceMs >= 200, 'after its debt');
  t.ok(a.transport.peers().includes(c.peer));
});

t.test('the share leaves room for the first sync of 500 members, five times over', async (t) => {
  const roster = workOfBytes(500 * 2700);
  const records = workOfBytes(500 * 350) + (500 * 350) / DECODED_BYTES_PER_MS + 500 * 0.1;
  t.ok(MEMBER_PACE.steadyBurstMs > 5 * (roster + records), `${Math.round(roster + records)} ms`);
});
