import http from 'pouchdb-adapter-http';
import memory from 'pouchdb-adapter-memory';
import PouchDB, { type Database } from 'pouchdb-core';
import replication from 'pouchdb-replication';
import t from 'tap';
import { AppBed, type AppNode, type Browser, ORIGIN } from './app-bed.ts';

/** PouchDB, as a page would use it, against the person's database, while nodes of the app tier come and go. */
t.setTimeout(1_100_000);
const PASSWORD = 'four green turtles';
PouchDB.plugin(memory).plugin(http).plugin(replication);

const bed = await AppBed.start();
t.teardown(() => bed.close());
const nodes: readonly AppNode[] = [await bed.addNode(), await bed.addNode()];
const [one] = nodes;
if (one === undefined) throw new Error('two nodes');

/** What a page's requests got that were refused: method, path and status. */
const refusals: string[] = [];

/** The person's database through whichever node answers, as the edge would choose. */
function remoteOf(browser: Browser): Database {
  let at = 0;
  const fetchAt = async (url: string, options: RequestInit): Promise<Response> => {
    const { pathname, search } = new URL(url);
    const headers = new Headers(options.headers);
    headers.set('cookie', browser.cookie);
    headers.set('origin', ORIGIN);
    headers.set('sec-fetch-site', 'same-origin');
    for (let tries = 0; ; tries += 1) {
      const node = nodes[at % nodes.length] as AppNode;
      try {
        const answer = await fetch(`http://127.0.0.1:${node.port}${pathname}${search}`, {
          ...options,
          headers,
        });
        if (answer.status === 403) refusals.push(`${options.method ?? 'GET'} ${pathname}`);
        return answer;
      } catch (error) {
        at += 1;
        if (tries >= nodes.length || options.signal?.aborted === true) throw error;
      }
    }
  };
  return new PouchDB('http://127.0.0.1/api/data', { adapter: 'http', skip_setup: true, fetch: fetchAt });
}

async function signedUp(email: string): Promise<Browser> {
  const browser = bed.browser(one as AppNode);
  await bed.register(browser, email, PASSWORD);
  await bed.until(
    async () => (await browser.ask('GET', '/api/data')).status === 200,
    'the database of the person',
  );
  return browser;
}

const local = (name: string): Database => new PouchDB(name, { adapter: 'memory' });
const idsOf = async (database: Database): Promise<string[]> =>
  (await database.allDocs()).rows.map(({ id }) => id).toSorted();

t.test('it replicates both ways, and from where it stopped', async (t) => {
  const remote = remoteOf(await signedUp('anna@example.org'));
  const phone = local('phone');
  await phone.bulkDocs(Array.from({ length: 50 }, (_, n) => ({ _id: `phone-${n}`, n })));
  t.match(await phone.replicate.to(remote), { docs_written: 50, doc_write_failures: 0 });
  t.match(await phone.replicate.to(remote), { docs_written: 0, doc_write_failures: 0 });
  const laptop = local('laptop');
  t.match(await laptop.replicate.from(remote), { docs_written: 50 });
  await laptop.put({ ...(await laptop.get('phone-7')), n: 700 });
  t.match(await laptop.replicate.to(remote), { docs_written: 1 });
  t.match(await phone.replicate.from(remote), { docs_written: 1 });
  t.equal((await phone.get('phone-7')).n, 700);
  t.same(refusals, [], 'nothing that PouchDB asks is refused, its checkpoints included');
  await Promise.all([phone, laptop].map((each) => each.close()));
});

t.test('two devices stay in step while nodes end, die and come back', async (t) => {
  const browser = await signedUp('bert@example.org');
  const devices = [local('first'), local('second')] as const;
  const syncs = devices.map((device) => {
    const sync = device.sync(remoteOf(browser), {
      live: true,
      retry: true,
      heartbeat: false,
      back_off_function: () => 200,
    });
    sync.on('denied', (error) => t.fail(`denied: ${JSON.stringify(error)}`));
    return sync;
  });
  const written: string[] = [];
  const write = async (round: string): Promise<void> => {
    for (const [at, device] of devices.entries()) {
      const docs = Array.from({ length: 20 }, (_, n) => ({ _id: `${round}-${at}-${n}` }));
      await device.bulkDocs(docs);
      written.push(...docs.map(({ _id: id }) => id));
    }
  };
  const inStep = async (): Promise<boolean> => {
    const found = await Promise.all(devices.map(idsOf));
    return found.every((ids) => ids.length === written.length);
  };
  await write('before');
  await bed.until(inStep, 'both have all');
  for (const [round, node] of nodes.entries()) {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const ending = node.end(signal);
      await write(`${signal}-${round}`);
      await ending;
      await bed.until(inStep, `both have all without one node after ${signal}`);
      await node.start();
    }
  }
  await Promise.all(nodes.map((node) => node.end('SIGKILL')));
  await write('offline');
  t.notOk(await inStep(), 'nobody carries it over');
  await Promise.all(nodes.map((node) => node.start()));
  await bed.until(inStep, 'both have what was written while all nodes were off');
  t.same(await idsOf(devices[0]), written.toSorted());
  t.same(await idsOf(devices[1]), written.toSorted());
  for (const sync of syncs) sync.cancel();
  await Promise.all(devices.map((each) => each.close()));
});

t.test('what two devices changed apart is a conflict that both see, and no loss', async (t) => {
  const remote = remoteOf(await signedUp('carl@example.org'));
  const [one_, two_] = [local('apart-1'), local('apart-2')];
  await one_.put({ _id: 'note', n: 0 });
  await one_.replicate.to(remote);
  await two_.replicate.from(remote);
  for (const [n, device] of [one_, two_].entries())
    await device.put({ ...(await device.get('note')), n: n + 1 });
  for (const device of [one_, two_, one_]) {
    await device.replicate.to(remote);
    await device.replicate.from(remote);
  }
  const [first, second] = [await one_.get('note'), await two_.get('note')];
  t.same(first, second, 'both show the same');
  t.ok(first.n === 1 || first.n === 2);
  await Promise.all([one_, two_].map((each) => each.close()));
});

/** What is refused on purpose, each with what a thief or a mistake would do with it. */
const REFUSED: readonly (readonly [method: string, path: string, body?: unknown])[] = [
  ['PUT', '', undefined],
  ['DELETE', '', undefined],
  ['POST', '', { _id: 'x' }],
  ['PUT', '/_design/x', { views: {} }],
  ['GET', '/_design/x'],
  ['PUT', '/_security', { members: { names: [] } }],
  ['GET', '/_security'],
  ['PUT', '/_revs_limit', 1],
  ['POST', '/_purge', {}],
  ['POST', '/_compact', {}],
  ['POST', '/_find', { selector: {} }],
  ['POST', '/_index', {}],
  ['GET', '/_shards'],
  ['POST', '/_replicate', {}],
  ['POST', '/_missing_revs', {}],
  ['GET', '/_local_docs'],
  ['GET', '/doc/attachment'],
  ['PUT', '/doc/attachment', {}],
  ['COPY', '/doc'],
  ['GET', '/_changes?filter=_view&view=x/y'],
  ['PUT', '/_local/x', { _id: 'doc' }],
  ['POST', '/_bulk_docs', { docs: [{ _id: '_local/x' }] }],
];

t.test('the rest of CouchDB is refused, whoever is signed in', async (t) => {
  const browser = await signedUp('dora@example.org');
  for (const [method, path, body] of REFUSED) {
    const { status } = await browser.ask(method, `/api/data${path}`, body, {
      'content-type': 'application/json',
    });
    t.ok([400, 403, 404].includes(status), `${method} ${path}: ${status}`);
  }
  t.match((await browser.ask('GET', '/api/data')).body, { doc_count: 0 });
});
