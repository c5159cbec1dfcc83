import t from 'tap';
import { CouchDbPlugin } from '../../../src/plugins/couchdb/plugin.ts';
import { type Begun, type Progress, progressWords } from '../../../src/plugins/couchdb/progress.ts';
import type { CouchDbClient } from '../../../src/plugins/couchdb/client.ts';
import { CopyProver } from '../../../src/plugins/couchdb/copies.ts';
import { desired, map, member, node, observed, proof, type SceneFacts } from './scene.ts';

const GB = 1_000_000_000;

t.test('progress shows bytes, rate and remaining time, and nothing unknown', async (t) => {
  const far = (done: number, all: number, bytes?: readonly [number, number]): Progress => ({
    databases: { done, all },
    ...(bytes === undefined ? {} : { bytes: { done: bytes[0], all: bytes[1] } }),
  });
  const at = (progress: Progress): Begun => ({ progress, atMs: 1000 });
  const table: readonly (readonly [string, Progress, Begun | undefined, number, string])[] = [
    ['at the first look', far(0, 500), undefined, 1000, ''],
    ['too early for a rate', far(9, 500), at(far(0, 500)), 5000, ''],
    ['databases alone', far(100, 500), at(far(0, 500)), 51_000, ', 2.0 a second, some 4 min left'],
    ['many of them', far(400, 500), at(far(0, 500)), 21_000, ', 20 a second, some 5 s left'],
    ['none more', far(3, 500), at(far(3, 500)), 61_000, ', none more since it began'],
    ['fewer, as some were deleted', far(2, 500), at(far(3, 500)), 61_000, ', none more since it began'],
    ['all', far(500, 500), at(far(0, 500)), 11_000, ', 50 a second'],
    [
      'bytes before databases: the largest may be the last',
      far(499, 500, [2 * GB, 4 * GB]),
      at(far(0, 500, [0, 4 * GB])),
      101_000,
      ', 2.0 GB of 4.0 GB, 20.0 MB a second, some 100 s left',
    ],
    [
      'bytes that stand still, while small databases are done',
      far(10, 500, [GB, 4 * GB]),
      at(far(0, 500, [GB, 4 * GB])),
      11_000,
      ', 1.0 GB of 4.0 GB, 1.0 a second, some 9 min left',
    ],
    ['empty databases', far(0, 2, [0, 0]), undefined, 1000, ''],
    ['a few bytes', far(0, 2, [12, 999]), undefined, 1000, ', 12 B of 999 B'],
  ];
  for (const [what, now, begun, nowMs, words] of table) {
    t.equal(progressWords(now, begun, nowMs), words, what);
  }
});

t.test('status has it beside what is waited for, on the joiner and on who takes it in', async (t) => {
  const plugin = (): CouchDbPlugin =>
    new CouchDbPlugin({ credentials: () => ({ name: 'admin', password: 'x' }) });
  const members = [member(1), member(2)];
  const maps = [map('a', [1, 2]), map('b', [1]), map('c', [1])];
  const filling = { decom: true, bornemisza: 'filling' } as const;
  const scene = { members, maps, maintenance: [2], documents: { 2: filling } };
  const seen = (facts: SceneFacts, of = plugin()) => {
    const wanted = desired(facts.self, facts.members);
    const status = of.status(wanted, observed(facts, wanted));
    of.note(status);
    return status.seen;
  };
  t.match(seen({ ...scene, self: 2 }), /copies: 1 of 3 databases have copies here, for 0 s$/);
  t.match(seen({ ...scene, self: 1 }), /copies to be added on .*: 1 of 3 databases have theirs, for 0 s$/);
  const proving = (proved: number, done: number): SceneFacts => ({
    ...{ self: 2, members, maps, maintenance: [2] },
    proof: proof({ total: 3, proved, bytes: { done, all: 4000 }, lacking: [] }),
  });
  const joiner = plugin();
  t.match(
    seen(proving(1, 1000), joiner),
    /copies to be complete: 1 of 3 databases, 1\.0 kB of 4\.0 kB, for 0 s$/,
  );
  t.match(
    seen(proving(2, 3000), joiner),
    /2 of 3 databases, 3\.0 kB of 4\.0 kB, for 0 s$/,
    'the same wait, though the counts changed',
  );
});

t.test('bytes are those of the fullest source, and of a whole copy all of them', async (t) => {
  const [first, second] = ['00000000-7fffffff', '80000000-ffffffff'];
  const sizes: Record<string, number> = { [`1 ${first}`]: 1000, [`1 ${second}`]: 500, [`2 ${first}`]: 300 };
  const seq = new Map([[`1 ${second}`, 7]]);
  const client = {
    find: async (path: string) => {
      if (path.includes('_local')) return path.includes(second ?? '') ? { seq: 7 } : undefined;
      const [, node = '', range = ''] = /@10\.0\.0\.(\d)\/shards%2F([\w-]+)/.exec(path) ?? [];
      const key = `${node} ${range}`;
      return { uuid: key, update_seq: seq.get(key) ?? 9, sizes: { active: sizes[key] ?? 100 } };
    },
    get: async () => ({ results: [{ seq: 1 }] }),
  } as unknown as CouchDbClient;
  const prover = new CopyProver(client);
  t.equal(prover.bytes, undefined);
  const whole = map('a', [1, 2]);
  const signal = AbortSignal.timeout(60_000);
  const [from, to] = [node(1), node(2)];
  t.equal(await prover.compare(whole, first ?? '', from, to, signal), 'behind');
  t.same(prover.bytes, { done: 300, all: 1000 });
  t.equal(await prover.compare(whole, second ?? '', from, to, signal), 'equal');
  t.same(prover.bytes, { done: 800, all: 1500 }, 'compacted to 100 bytes, it is whole');
  prover.forget();
  t.equal(prover.bytes, undefined);
});
