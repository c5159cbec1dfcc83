import t from 'tap';
import { SeedSearch, type SeedSearchOptions } from '../../../src/daemon/driver/seed-search.ts';
import { until } from '../../support/until.ts';

const OPTIONS: SeedSearchOptions = {
  seeds: [],
  srv: [],
  joined: [],
  own: { address: '10.0.0.11', port: 4101 },
  privateNetwork: '10.0.0.0/24',
};

/** A search whose dials are written down; `answers` says who listens where. */
function search(options: Partial<SeedSearchOptions>, answers: Readonly<Record<string, string>> = {}) {
  const world = { nowMs: 0, linked: false, dialled: [] as string[], found: [] as string[], failed: 0 };
  const made = new SeedSearch(
    { ...OPTIONS, ...options },
    {
      alone: () => !world.linked,
      find: async (address, port) => {
        const where = `${address}:${port}`;
        world.dialled.push(where);
        const peer = answers[where];
        if (peer === undefined) throw new Error('nobody');
        world.linked = true;
        return peer;
      },
      found: (peer, where) => world.found.push(`${peer} ${where}`),
      note: () => (world.failed += 1),
      nowMs: () => world.nowMs,
    },
  );
  const at = (nowMs: number): void => {
    world.nowMs = nowMs;
    made.look();
  };
  return { world, at };
}

const SEEDS = { seeds: ['10.0.0.12', '10.0.0.13:5000'] };

t.test('nothing is dialled while somebody is linked, nor in the first seconds without', async (t) => {
  const { world, at } = search(SEEDS);
  world.linked = true;
  for (const nowMs of [0, 10_000, 20_000]) at(nowMs);
  world.linked = false;
  for (const nowMs of [21_000, 25_000]) at(nowMs);
  t.strictSame(world.dialled, []);
  world.linked = true;
  at(25_500);
  world.linked = false;
  at(26_100);
  t.strictSame(world.dialled, [], 'a link in between begins the patience again');
});

t.test('a seed without a port is tried at both default ports; one’s own address is left out', async (t) => {
  const { world, at } = search({
    seeds: ['10.0.0.12', '10.0.0.11:4101'],
    joined: [{ peerId: 'x', address: '10.0.0.14', port: 4103 }],
  });
  at(0);
  at(5000);
  await until(() => world.failed === 3, { what: 'three dials' });
  t.strictSame(world.dialled, ['10.0.0.12:4101', '10.0.0.12:4103', '10.0.0.14:4103']);
});

t.test('a round that finds nobody is followed by another, and not at once', async (t) => {
  const { world, at } = search({ seeds: ['10.0.0.13:5000'] });
  at(0);
  at(5000);
  await until(() => world.failed === 1, { what: 'a dial' });
  for (const nowMs of [5100, 10_000, 19_900]) at(nowMs);
  t.equal(world.dialled.length, 1);
  at(20_000);
  await until(() => world.failed === 2, { what: 'a second dial' });
});

t.test('a found member is reported, and no further seed is tried', async (t) => {
  const many = Array.from({ length: 32 }, (_, index) => `10.0.0.${100 + index}:5000`);
  const { world, at } = search({ seeds: many }, { '10.0.0.101:5000': 'db1' });
  at(0);
  at(5000);
  await until(() => world.found.length === 1, { what: 'somebody found' });
  t.strictSame(world.found, ['db1 10.0.0.101:5000']);
  t.ok(world.dialled.length <= 8, 'one handful at a time');
});
