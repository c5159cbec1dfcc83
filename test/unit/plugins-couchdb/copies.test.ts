import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { CouchDbClient } from '../../../src/plugins/couchdb/client.ts';
import { agreedProperties, setProperties } from '../../../src/plugins/couchdb/copies.ts';
import { holdersOf, rangesOf } from '../../../src/plugins/couchdb/shards.ts';
import { map, node } from './scene.ts';

/** A join of hundreds of databases takes what is asked for each of them: how much that is, and how much at once. */
const RANGES = Array.from({ length: 8 }, (_, at) => {
  const hex = (value: number): string => value.toString(16).padStart(8, '0');
  return `${hex(at * 0x20000000)}-${hex((at + 1) * 0x20000000 - 1)}`;
});
const NODES = [node(1), node(2), node(3)];
const MAP = map('app', [1, 2, 3], {
  by_node: Object.fromEntries(NODES.map((each) => [each, RANGES])),
  by_range: Object.fromEntries(RANGES.map((range) => [range, NODES])),
});

/**
 * A CouchDB that counts the questions about copies. It answers none before `together` of them wait, however busy the
 * machine is, and then all that do.
 */
async function counting(t: Test, { revsLimit = 1000, together = 1 } = {}) {
  const asked: string[] = [];
  const waiting: (() => void)[] = [];
  let most = 0;
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${decodeURIComponent(request.url ?? '')}`);
    waiting.push(() => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(request.url?.endsWith('_revs_limit') ? `${revsLimit}` : '{"members":{"roles":["app"]}}');
    });
    most = Math.max(most, waiting.length);
    // One that is more than it should be has come by then.
    if (waiting.length === together)
      setTimeout(() => {
        for (const answer of waiting.splice(0)) answer();
      }, 20);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const client = new CouchDbClient({
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    credentials: () => ({ name: 'admin', password: 'x' }),
  });
  return { client, asked, most: () => most };
}
const signal = AbortSignal.timeout(60_000);

t.test('each property of each copy is read once, of four copies at a time', async (t) => {
  const { client, asked, most } = await counting(t, { together: 2 * 4 });
  t.equal(rangesOf(MAP).length * holdersOf(MAP, RANGES[0] ?? '').length, 24);
  t.match(await agreedProperties(client, NODES.slice(0, 2), MAP, signal), { revsLimit: 1000 });
  t.equal(asked.length, 2 * 16, 'two questions for each copy of the two sources');
  t.equal(new Set(asked).size, asked.length, 'none twice');
  t.equal(most(), 2 * 4);
});

t.test('a copy that is made is asked twice, and written where it differs', async (t) => {
  const wanted = { security: { members: { roles: ['app'] } }, revsLimit: 1000 };
  for (const [has, writes] of [
    [1000, []],
    [7, ['_revs_limit']],
  ] as const) {
    const { client, asked } = await counting(t, { revsLimit: has });
    await setProperties(client, node(3), MAP, RANGES[0] ?? '', wanted, signal);
    t.equal(asked.filter((each) => each.startsWith('GET ')).length, 2);
    t.same(
      asked.filter((each) => each.startsWith('PUT ')).map((each) => each.split('/').at(-1)),
      writes,
      `it has ${has}`,
    );
  }
});
