import { X509Certificate } from 'node:crypto';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { runCommand } from '../../src/host/command.ts';
import type { PluginError } from '../../src/plugins/contract.ts';
import { HaproxyPlugin } from '../../src/plugins/haproxy/plugin.ts';
import { ask, parseSiteFile } from '../../src/plugins/haproxy/runtime.ts';
import {
  type AppHaproxy,
  EDGE_HEALTH_PATH,
  EDGE_SERVES_PATH,
  type EdgeService,
} from '../../src/plugins/haproxy/desired.ts';
import type { HaproxyTraffic } from '../../src/plugins/haproxy/shape.ts';
import {
  addsServers,
  appDesired,
  Bed,
  BINARY,
  converge,
  dbDesired,
  get,
  type Instance,
  type Leaf,
  looking,
  peer,
  type Reply,
  SIGNER,
} from './haproxy-bed.ts';
import { freePort } from '../support/free-port.ts';
import { until } from '../support/until.ts';

const bed = await Bed.make();
t.teardown(() => bed.end());
const ca = bed.pki.ca;
const [app1, app2, app3, db1, db2] = await Promise.all([
  bed.pki.leaf('app1', 'app'),
  bed.pki.leaf('app2', 'app'),
  bed.pki.leaf('app3', 'app'),
  bed.pki.leaf('db1', 'db'),
  bed.pki.leaf('db2', 'db'),
]);

const summaries = (changes: readonly { summary: string }[]): string[] =>
  changes.map((change) => change.summary);
const kinds = (changes: readonly { kind: string }[]): string[] => changes.map((change) => change.kind);

async function failure(run: Promise<unknown>): Promise<PluginError> {
  try {
    await run;
  } catch (error) {
    return error as PluginError;
  }
  throw new Error('was expected to fail');
}

const launch = bed.launch.bind(bed);

/** Whether the socket of this process takes a certificate of that length for the site. Changes nothing. */
async function takesSite(instance: Instance, pem: string): Promise<boolean> {
  const file = parseSiteFile(await instance.ask('show ssl cert')) ?? '';
  const payload = pem.replaceAll(/\n+/g, '\n').trim();
  const said = await ask(join(instance.runDirectory, 'stats.sock'), `set ssl cert ${file}`, {
    unit: 'this one',
    payload,
  });
  await instance.ask(`abort ssl cert ${file}`);
  return said.includes('Transaction created');
}

/**
 * HAProxy's warnings and alerts, without results of health checks, which it writes as warnings too, and without 3.4's
 * advice against root: the unit has a user of its own.
 */
const complaints = (log: string): readonly string[] =>
  log
    .split('\n')
    .filter(
      (line) =>
        /WARNING|ALERT/.test(line) &&
        !/ Health check for server \S+ succeeded/.test(line) &&
        !/ HAProxy was started as (?:the )?root\b/.test(line),
    );

/** A db node: a stand-in for CouchDB's HTTP, and its door. */
async function database(
  name: string,
  node: Leaf,
  n: number,
  peers: Parameters<typeof dbDesired>[0]['peers'] = [],
) {
  const state = { up: true, hits: 0, feeds: 0 };
  const http = await bed.server((request, response) => {
    if (request.url === '/_up') return void response.writeHead(state.up ? 200 : 404).end('{}');
    if (request.url === '/drop') {
      state.hits += 1;
      return void request.resume().on('end', () => request.socket.destroy());
    }
    if (request.url?.startsWith('/db/_changes') === true) {
      state.feeds += 1;
      const beat = setInterval(() => response.write('{"seq":1}\n'), 50);
      response.on('close', () => clearInterval(beat));
      return;
    }
    state.hits += 1;
    response.end(name);
  });
  const desired = dbDesired({ address: bed.address(n), node, ca, couchdbPort: http.port, peers });
  const instance = await launch(name, desired);
  return { state, http, desired, instance, address: bed.address(n), silence: beat(instance.plugin) };
}

/** A daemon's sign of life, as the reconciler gives it. Returns what ends it. */
function beat(plugin: Pick<HaproxyPlugin, 'heartbeat'>): () => void {
  const once = (): void => {
    // A HAProxy that was stopped misses it.
    plugin.heartbeat(AbortSignal.timeout(1000)).catch(() => undefined);
  };
  once();
  const timer = setInterval(once, 1000).unref();
  return () => clearInterval(timer);
}

/** Requests one after another on a few connections until told to stop; counts what failed. */
function load(url: string, connections = 8) {
  const agent = new (url.startsWith('https:') ? Agent : (HttpAgent as unknown as typeof Agent))({
    keepAlive: true,
    maxSockets: connections,
    ca,
  });
  const counts = { sent: 0, failed: 0, last: '', slowestMs: 0 };
  const ended = new AbortController();
  const work = Array.from({ length: connections }, async () => {
    while (!ended.signal.aborted) {
      counts.sent += 1;
      const start = performance.now();
      const reply = await get(url, { agent, ca, checkServerIdentity: () => undefined }).catch(
        (error: unknown) => String(error),
      );
      counts.slowestMs = Math.max(counts.slowestMs, performance.now() - start);
      if (typeof reply === 'string' || reply.status !== 200) {
        counts.failed += 1;
        counts.last = typeof reply === 'string' ? reply : `${reply.status} ${reply.body}`;
      }
      // 8 connections at some 100 requests a second each are enough; the machine has other tests to run.
      await new Promise((resolve) => setTimeout(resolve, 8));
    }
  });
  return {
    counts,
    async stop() {
      ended.abort();
      await Promise.all(work);
      agent.destroy();
      return counts;
    },
  };
}
const { Agent: HttpAgent } = await import('node:http');

interface Asked {
  readonly reused: boolean;
  /** Undefined: the door hung up without an answer. */
  readonly status: number | undefined;
  /** What a later connection resumes. */
  readonly session: Buffer | undefined;
}

/** One request on one TLS connection of its own. */
function askOnce(how: {
  readonly host: string;
  readonly port: number;
  readonly version: 'TLSv1.2' | 'TLSv1.3';
  readonly leaf: Leaf;
  readonly session: Buffer | undefined;
}): Promise<Asked> {
  const { host, port, version, leaf } = how;
  const { promise, resolve } = Promise.withResolvers<Asked>();
  const socket = connectTls({
    host,
    port,
    ca,
    cert: leaf.certificate,
    key: leaf.key,
    minVersion: version,
    maxVersion: version,
    checkServerIdentity: () => undefined,
    ...(how.session === undefined ? {} : { session: how.session }),
  });
  let text = '';
  let session: Buffer | undefined;
  let reused = false;
  socket.on('session', (its) => {
    session = its;
  });
  socket.once('secureConnect', () => {
    reused = socket.isSessionReused();
    socket.write('GET /db HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n');
  });
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
  });
  socket.on('error', () => undefined);
  socket.setTimeout(20_000, () => socket.destroy());
  socket.once('close', () => {
    const status = /^HTTP\/1\.1 (\d+)/.exec(text)?.[1];
    resolve({ reused, status: status === undefined ? undefined : Number(status), session });
  });
  return promise;
}

const one = await database('db1', db1, 1);
const two = await database('db2', db2, 2, [peer('db1', one.address, 6985)]);
one.desired = { ...one.desired, peers: { ...one.desired.peers, servers: [peer('db2', two.address, 6985)] } };
await converge(one.instance.plugin, one.desired);

t.test('the first start: the file is there for the unit, and nothing is reloaded after it', async (t) => {
  const desired = appDesired({ address: bed.address(31), node: app1, ca, databasePort: await freePort() });
  const instance = await bed.instance('first', 'app');
  const error = await failure(converge(instance.plugin, desired));
  t.match(error, { code: 'haproxy-not-running', outcome: 'retry' });
  await instance.start();
  t.same(await converge(instance.plugin, desired), [], 'what HAProxy started with is what is wanted');
  await instance.stop();
});

t.test(
  'the edge routes by prefix through the doors of the app nodes and gives the service the client’s address',
  async (t) => {
    const seen: { url: string | undefined; forwarded: unknown; proto: unknown }[] = [];
    const api = await bed.server((request, response) => {
      if (request.url !== '/healthz') {
        seen.push({
          url: request.url,
          forwarded: request.headers['x-forwarded-for'],
          proto: request.headers['x-forwarded-proto'],
        });
      }
      response.end(`api ${request.url}`);
    });
    const site = await bed.server((request, response) => response.end(`site ${request.url}`));
    const doors = { verifySuffix: 'app.shop.internal', servers: [peer('app1', bed.address(11), 8443)] };
    const services: EdgeService[] = [
      { name: 'site', prefix: '/', healthPath: '/', localPort: site.port, peers: doors },
      { name: 'api', prefix: '/api', healthPath: '/healthz', localPort: api.port, peers: doors },
    ];
    await launch(
      'edge',
      appDesired({ address: bed.address(11), node: app1, ca, databasePort: await freePort(), services }),
    );
    const edge = `https://${bed.address(11)}`;
    const options = { ca, checkServerIdentity: () => undefined };
    await until(async () => (await get(`${edge}/api`, options)).status === 200, {
      what: 'the service answers',
    });

    t.equal(
      (
        await get(`${edge}/api/x`, {
          ...options,
          headers: { 'x-forwarded-for': '6.6.6.6', forwarded: 'for=6.6.6.6' },
        })
      ).body,
      'api /api/x',
    );
    t.match(seen.at(-1), { url: '/api/x', forwarded: /^127\.0\.0\.1$|^127\./, proto: 'https' });
    t.notMatch(seen.at(-1)?.forwarded, /6\.6\.6\.6/, 'what the client claims is dropped');
    t.equal((await get(`${edge}/apiary`, options)).body, 'site /apiary', 'a prefix ends at a slash');
    t.equal((await get(`${edge}/.well-known/bornemisza/health`, options)).status, 200);
    t.equal(
      (await get(`http://${bed.address(11)}/.well-known/bornemisza/health`)).status,
      200,
      'without TLS as well',
    );
    t.equal((await get(`${edge}/.well-known/bornemisza/service/api`, options)).status, 404, 'peers only');
    const redirect = await get(`http://${bed.address(11)}/api?x=1`, { headers: { host: 'shop.example' } });
    t.match(redirect, { status: 308, headers: { location: 'https://shop.example/api?x=1' } });

    const door = (path: string, leaf: Leaf) =>
      get(`https://${bed.address(11)}:8443${path}`, { ...options, cert: leaf.certificate, key: leaf.key });
    t.equal((await door('/.well-known/bornemisza/service/api', app2)).status, 200);
    t.equal((await door('/.well-known/bornemisza/service/none', app2)).status, 503);
    t.equal((await door('/api/y', db1)).status, 403, 'a database node has no business at this door');
    await t.rejects(get(`https://${bed.address(11)}:8443/api`, options), 'nor has one without a certificate');
    await new Promise((resolve) => api.close(resolve).closeAllConnections());
    await until(async () => (await door('/.well-known/bornemisza/service/api', app2)).status === 503, {
      what: 'peers are told that the service is down',
    });
  },
);

t.test(
  'the database doors: role app at one, role db at the other, and /_up is always the local one',
  async (t) => {
    const options = { ca, checkServerIdentity: () => undefined };
    const knock = (on: number, leaf: Leaf, path = '/db') =>
      get(`https://${one.address}:${on}${path}`, { ...options, cert: leaf.certificate, key: leaf.key });
    await until(async () => (await knock(6984, app1)).body === 'db1', { what: 'the local CouchDB is up' });
    t.equal((await knock(6984, db2)).status, 403, 'a db certificate at the app door');
    t.equal((await knock(6985, app1)).status, 403, 'an app certificate at the db-only door');
    t.equal((await knock(6985, db2)).body, 'db1');
    one.state.up = false;
    t.teardown(() => {
      one.state.up = true;
    });
    await until(async () => (await knock(6984, app1)).body === 'db2', {
      what: 'requests fall over to the peer',
    });
    await until(async () => (await knock(6984, app1, '/_up')).status === 503, {
      what: 'the asker learns about this node',
    });
    await until(async () => (await knock(6985, db2)).status === 503, {
      what: 'the peer door never goes on to another node',
    });
    t.equal((await knock(6984, app1)).body, 'db2');
  },
);

t.test(
  'creating and deleting databases is refused while not all db nodes agree, and nothing else is',
  async (t) => {
    const options = { ca, checkServerIdentity: () => undefined };
    const doors: [number, Leaf][] = [
      [6984, app1],
      [6985, db2],
    ];
    const knock = (on: number, leaf: Leaf, method = 'GET', path = '/x', headers = {}) =>
      get(`https://${one.address}:${on}`, {
        ...options,
        cert: leaf.certificate,
        key: leaf.key,
        method,
        path,
        headers,
      });
    const edits: [string, string, Record<string, string>?][] = [
      ['PUT', '/shop'],
      ['PUT', '/shop/'],
      ['PUT', '//shop'],
      ['PUT', '/shop?q=8&n=3'],
      ['PUT', '/team%2Fshop'],
      ['PUT', '/_users'],
      ['PUT', '/%5fusers'],
      ['PUT', '/_sessions'],
      ['DELETE', '/shop'],
      ['DELETE', 'http://elsewhere.example/shop', { host: 'elsewhere.example' }],
      ['POST', '/shop', { 'x-http-method-override': 'DELETE' }],
    ];
    const others: [string, string, Record<string, string>?][] = [
      ['GET', '/shop'],
      ['HEAD', '/shop'],
      ['POST', '/shop'],
      ['PUT', '/shop/doc'],
      ['PUT', '/shop/_security'],
      ['PUT', '/_users/org.couchdb.user:alice'],
      ['DELETE', '/shop/doc?rev=1-a'],
      ['DELETE', '/_session'],
      ['POST', '/_session'],
      ['POST', '/shop/_bulk_docs', { 'x-http-method-override': 'PUT' }],
    ];
    await until(
      async () => (await knock(6984, app1)).body === 'db1' && (await knock(6985, db2)).status === 200,
      { what: 'its CouchDB is seen up at both doors' },
    );
    const { pid } = one.instance;
    const before = await one.instance.ask('show info');
    const allowed = one.desired;
    const refused = { ...allowed, databases: { given: false, why: 'not connected: db2/db' } };
    t.teardown(() => converge(one.instance.plugin, allowed));
    t.match(summaries(await converge(one.instance.plugin, refused)), [
      /haproxy.cfg: rewritten/,
      /permissions\/databases: ready → maint \(.*not connected: db2\/db\)/,
    ]);
    const hits = one.state.hits;
    for (const [on, leaf] of doors) {
      for (const [method, path, headers] of edits) {
        const reply = await knock(on, leaf, method, path, headers);
        t.equal(reply.status, 503, `${on}: ${method} ${path}`);
        t.match(reply.headers, { 'content-type': 'application/json', 'retry-after': '5' });
        t.match(JSON.parse(reply.body), { error: 'service unavailable', reason: /connected and agree/ });
      }
      t.equal(one.state.hits, hits, 'none of them reached CouchDB');
    }
    for (const [on, leaf] of doors)
      for (const [method, path, headers] of others)
        t.equal((await knock(on, leaf, method, path, headers)).status, 200, `${on}: ${method} ${path}`);

    await one.instance.ask('set server permissions/databases state ready');
    t.equal((await converge(one.instance.plugin, refused)).length, 1, 'switched by hand, put back');
    t.same(
      await converge(one.instance.plugin, { ...refused, databases: undefined }),
      [],
      'not known: as it is',
    );
    await converge(one.instance.plugin, allowed);
    for (const [on, leaf] of doors)
      for (const [method, path, headers] of edits)
        t.equal((await knock(on, leaf, method, path, headers)).status, 200, `${on}: ${method} ${path}`);
    t.equal(one.instance.pid, pid);
    const pidOf = (info: string) => /^Pid: (\d+)$/m.exec(info)?.[1];
    t.equal(pidOf(await one.instance.ask('show info')), pidOf(before), 'all without a reload');
  },
);

t.test('a db node whose daemon is silent creates and deletes no database', async (t) => {
  const silent = await database('silent', await bed.pki.leaf('db4', 'db'), 4);
  const { instance, desired } = silent;
  t.teardown(() => instance.stop());
  const knock = (method: string, path: string): Promise<Reply> =>
    get(`https://${silent.address}:6984${path}`, {
      ca,
      checkServerIdentity: () => undefined,
      cert: app1.certificate,
      key: app1.key,
      method,
    });
  const given = async (): Promise<boolean> => (await knock('PUT', '/shop')).status === 200;
  await until(given, { what: 'CouchDB is up, and the daemon speaks' });
  silent.silence();
  await until(
    async () => {
      await instance.ask('clear table permissions');
      return !(await given());
    },
    { what: 'what was under way has ended' },
  );
  const refused = await knock('PUT', '/shop');
  t.match(refused, { status: 503, headers: { 'retry-after': '5' } });
  t.match(JSON.parse(refused.body), { reason: /has not reported for 30 s.*systemctl start bornemisza@db/ });
  t.equal((await knock('DELETE', '/shop')).status, 503);

  const moved = { ...desired, couchdbPort: (await bed.server((_, response) => response.end('db4'))).port };
  t.match(kinds(await converge(instance.plugin, moved)), ['file', 'reload']);
  t.ok(await given(), 'a daemon that reloads it lives');

  // As the file has it, but for how long it waits.
  await instance.stop();
  const config = await readFile(instance.config, 'utf8');
  t.match(config, ' expire 30s\n');
  await writeFile(instance.config, config.replace(' expire 30s\n', ' expire 3s\n'));
  await instance.start();
  const end = beat(instance.plugin);
  await until(given, { what: 'the daemon speaks' });
  const spokeMs = performance.now();
  await until(async () => (await given()) && performance.now() - spokeMs > 4000, {
    what: 'it speaks again and again',
  });
  end();
  // Asking does not prolong it.
  await until(async () => !(await given()), { what: 'it is forgotten' });
  t.equal((await knock('PUT', '/shop/doc')).status, 200, 'documents go on');
});

t.test('members come, drain, move and go under load, and no request fails', async (t) => {
  const adds = await addsServers(one.instance);
  const port = await freePort();
  const base = appDesired({
    address: bed.address(21),
    node: app1,
    ca,
    databasePort: port,
    databases: [peer('db1', one.address, 6984)],
  });
  const instance = await launch('changes', base);
  await until(async () => (await get(`http://127.0.0.1:${port}/x`)).status === 200, {
    what: 'the databases answer',
  });
  const want = (...databases: ReturnType<typeof peer>[]): AppHaproxy => ({
    ...base,
    databases: { ...base.databases, servers: databases },
  });
  const [first, second] = [peer('db1', one.address, 6984), peer('db2', two.address, 6984)];
  const running = load(`http://127.0.0.1:${port}/x`);
  const times: number[] = [];
  const seen = new Set<string>();
  for (let round = 0; round < 4; round += 1) {
    const steps = [
      want(first, second),
      want({ ...first, duty: 'drain' }, second),
      want(first, { ...second, duty: 'maint' }),
      want(first, second),
      want(first),
    ];
    for (const desired of steps) {
      const start = performance.now();
      for (const change of await converge(instance.plugin, desired)) seen.add(change.kind);
      times.push(performance.now() - start);
      const both = desired.databases.servers.filter((server) => server.duty === 'ready');
      await until(
        async () => {
          const state = await instance.servers('db_nodes');
          return both.every(({ name }) => state[name] === 'UP');
        },
        { what: 'the servers are up' },
      );
      await until(
        async () => {
          if (desired.databases.servers.length > 1) return true;
          if (adds) await instance.ask('del server db_nodes/db2');
          return (await instance.servers('db_nodes'))['db2'] === (adds ? undefined : 'MAINT');
        },
        { what: 'db2 is gone' },
      );
    }
  }
  const counts = await running.stop();
  t.equal(counts.failed, 0, counts.last);
  t.ok(counts.sent > 200, `${counts.sent} requests`);
  t.equal(seen.has('reload'), !adds, 'not one reload where servers can be added');
  t.equal(seen.has('server-add'), adds);
  t.ok(seen.has('server-remove') && seen.has('server-state'));
  t.comment(
    `20 changes, ${counts.sent} requests, median ${times.toSorted((a, b) => a - b)[10]?.toFixed(1)} ms a ` +
      `converge, slowest request ${counts.slowestMs.toFixed(0)} ms`,
  );
});

t.test('a change of structure reloads once; a feed and the load outlive it', async (t) => {
  const port = await freePort();
  const databases = [peer('db1', one.address, 6984), peer('db2', two.address, 6984)];
  const base = appDesired({ address: bed.address(22), node: app1, ca, databasePort: port, databases });
  const instance = await launch('reload', base);
  await until(async () => (await get(`http://127.0.0.1:${port}/x`)).status === 200, {
    what: 'the databases answer',
  });
  const feed = await openFeed(`http://127.0.0.1:${port}/db/_changes?feed=continuous`);
  const running = load(`http://127.0.0.1:${port}/x`);
  const times: number[] = [];
  for (const seconds of [1, 2, 3]) {
    const start = performance.now();
    const changes = await converge(instance.plugin, {
      ...base,
      edge: { ...base.edge, hstsMaxAgeSeconds: seconds },
    });
    times.push(performance.now() - start);
    t.same(kinds(changes), ['file', 'reload']);
  }
  const beats = feed.lines();
  await until(() => feed.lines() > beats + 3, { what: 'the feed goes on' });
  const counts = await running.stop();
  t.equal(counts.failed, 0, counts.last);
  t.notOk(feed.ended(), 'the feed was not cut');
  feed.close();
  t.comment(`3 reloads, ${counts.sent} requests, ${times.map((ms) => ms.toFixed(0)).join(', ')} ms each`);
});

t.test('a server that was down stays out over a reload', async (t) => {
  const port = await freePort();
  const dead = await freePort();
  const databases = [peer('db1', one.address, 6984), peer('gone', bed.address(9), dead)];
  const base = appDesired({ address: bed.address(23), node: app1, ca, databasePort: port, databases });
  const instance = await launch('state', base);
  await until(async () => (await instance.servers('db_nodes'))['gone'] === 'DOWN', {
    what: 'it is seen down',
  });
  const changes = await converge(instance.plugin, { ...base, edge: { ...base.edge, hstsMaxAgeSeconds: 1 } });
  t.ok(kinds(changes).includes('reload'));
  t.equal((await instance.servers('db_nodes'))['gone'], 'DOWN', 'the new worker knows what the old one knew');
});

t.test(
  'an edge without a reachable database reports that it serves nobody; without db nodes it serves',
  async (t) => {
    const port = await freePort();
    const gone = peer('gone', bed.address(9), await freePort());
    const base = appDesired({
      address: bed.address(40),
      node: app1,
      ca,
      databasePort: port,
      databases: [gone],
    });
    const instance = await launch('serves', base);
    const status = async (path: string): Promise<number> =>
      (await get(`https://${bed.address(40)}${path}`, { ca, checkServerIdentity: () => undefined })).status;
    await until(async () => (await status(EDGE_SERVES_PATH)) === 503, { what: 'it finds none' });
    t.equal(await status(EDGE_HEALTH_PATH), 200, 'HAProxy lives');
    const servers = [gone, peer('db1', one.address, 6984)];
    await converge(instance.plugin, { ...base, databases: { ...base.databases, servers } });
    await until(async () => (await status(EDGE_SERVES_PATH)) === 200, { what: 'it finds one' });
    await converge(instance.plugin, { ...base, databases: { ...base.databases, servers: [] } });
    t.equal(await status(EDGE_SERVES_PATH), 200, 'there is none to find');
  },
);

t.test(
  'dead by membership alone: it serves on, goes when its own check fails too, and comes back',
  async (t) => {
    const port = await freePort();
    const three = await database('db3', await bed.pki.leaf('db3', 'db'), 3);
    const desired = (duty: 'ready' | 'out-when-down') =>
      appDesired({
        address: bed.address(24),
        node: app1,
        ca,
        databasePort: port,
        databases: [peer('db1', one.address, 6984), peer('db3', three.address, 6984, duty, 'dead')],
      });
    const instance = await launch('dead', desired('ready'));
    await until(
      async () => Object.values(await instance.servers('db_nodes')).every((status) => status === 'UP'),
      { what: 'both serve' },
    );

    const marked = await converge(instance.plugin, desired('out-when-down'));
    t.same(summaries(marked), [
      'haproxy.cfg: rewritten',
      'db_nodes.unwatched/db3: maint → ready (dead)',
      'db_nodes.panic/db3: ready → maint (dead)',
    ]);
    await until(async () => (await instance.servers('db_nodes.unwatched'))['db3'] === 'UP', {
      what: 'the second check passes',
    });
    t.equal((await instance.servers('db_nodes'))['db3'], 'UP', 'a dead daemon is not a dead service');
    t.same(await converge(instance.plugin, desired('out-when-down')), []);

    let told = '';
    const end = instance.plugin.watch((what) => {
      told = what;
    });
    t.teardown(end);
    await until(async () => (await instance.servers('db_nodes.unwatched'))['db3'] === 'UP', {
      what: 'the watch has begun',
    });
    const twin = async () => (await instance.servers('db_nodes.unwatched'))['db3'] ?? '';
    const failing = () =>
      until(async () => (await twin()) === 'UP 1/3', { what: 'two checks in a row fail' });
    await three.instance.standStill(failing());
    let verdict = '';
    await until(async () => /^(UP|DOWN)$/.test((verdict = await twin())), {
      what: 'one verdict or the other',
    });
    t.equal(verdict, 'UP', 'a peer that stands still for a second is not taken out');
    t.equal(told, '');

    await three.instance.stop('SIGINT');
    const sinceMs = performance.now();
    await until(() => told !== '', { what: 'the verdict of the second check is told' });
    const noticedMs = performance.now() - sinceMs;
    t.match(told, /db_nodes\.unwatched\/db3/);
    t.match(summaries(await converge(instance.plugin, desired('out-when-down'))), [
      /db_nodes\/db3: ready → maint \(dead, and its check fails\)/,
    ]);
    t.equal((await instance.servers('db_nodes'))['db3'], 'MAINT');

    await three.instance.start();
    await until(async () => (await instance.servers('db_nodes.unwatched'))['db3'] === 'UP', {
      what: 'the second check passes again',
    });
    t.match(summaries(await converge(instance.plugin, desired('out-when-down'))), [
      /db_nodes\/db3: maint → ready \(dead, but its check passes\)/,
    ]);
    t.match(summaries(await converge(instance.plugin, desired('ready'))), [
      /^haproxy.cfg/,
      /panic\/db3: maint → ready/,
      /unwatched\/db3: ready → maint/,
    ]);
    t.comment(`noticed ${noticedMs.toFixed(0)} ms after HAProxy's end`);
  },
);

t.test('a change by hand is noticed and undone without a reload', async (t) => {
  const port = await freePort();
  const databases = [peer('db1', one.address, 6984), peer('db2', two.address, 6984)];
  const desired = appDesired({ address: bed.address(25), node: app1, ca, databasePort: port, databases });
  const instance = await launch('hand', desired);
  const told: string[] = [];
  t.teardown(instance.plugin.watch((what) => told.push(what)));
  await converge(instance.plugin, desired);
  await looking(instance.config, told);
  const adds = await addsServers(instance);
  const hands: [string, () => Promise<unknown>][] = [
    ['a server in maintenance', () => instance.ask('set server db_nodes/db1 state maint')],
    ['a server that drains', () => instance.ask('set server db_nodes/db1 state drain')],
    [
      'a deleted server',
      async () => {
        await instance.ask('set server db_nodes/db2 state maint');
        if (!adds) return;
        await until(async () => (await instance.ask('del server db_nodes/db2')).includes('deleted'), {
          what: 'it is deleted',
        });
      },
    ],
    ['another address', () => instance.ask(`set server db_nodes/db1 addr ${bed.address(99)} port 1`)],
    ['checks switched off', () => instance.ask('disable health db_nodes/db1')],
    ['another weight', () => instance.ask('set server db_nodes/db1 weight 0')],
    ['a closed frontend', () => instance.ask('disable frontend databases')],
    [
      'an edited file',
      async () => writeFile(instance.config, `${await readFile(instance.config, 'utf8')}\n# mine\n`),
    ],
  ];
  const times: string[] = [];
  for (const [what, hand] of hands) {
    const before = told.length;
    await hand();
    const sinceMs = performance.now();
    await until(() => told.length > before, { what: `${what} is noticed` });
    const ms = performance.now() - sinceMs;
    const noticed = told.length;
    const changes = await converge(instance.plugin, desired);
    times.push(`${what} ${ms.toFixed(0)} ms`);
    t.ok(changes.length > 0, `${what}: ${summaries(changes).join('; ')}`);
    t.notOk(kinds(changes).includes('reload'), `${what}: no reload`);
    await until(async () => (await get(`http://127.0.0.1:${port}/x`)).status === 200, {
      what: 'the databases answer',
    });
    t.same(await converge(instance.plugin, desired), []);
    // The repair is a change as well; what is told next shall be the next hand.
    await until(() => told.length > noticed, { what: 'the repair is noticed' });
  }
  t.comment(times.join(', '));
});

t.test('HAProxy that dies is noticed; when it is back nothing is left to do', async (t) => {
  const desired = appDesired({ address: bed.address(26), node: app1, ca, databasePort: await freePort() });
  const instance = await launch('dies', desired);
  const told: string[] = [];
  t.teardown(instance.plugin.watch((what) => told.push(what)));
  await instance.stop('SIGINT');
  await until(() => told.includes('HAProxy does not answer'), {
    what: 'its end is noticed',
    deadlineMs: 20_000,
  });
  t.match(await failure(converge(instance.plugin, desired)), {
    code: 'haproxy-not-running',
    outcome: 'retry',
    next: /systemctl start bornemisza-haproxy@app\.service` .*`journalctl -u bornemisza-haproxy@app\.service`/,
  });
  await instance.start();
  await until(() => told.includes('HAProxy was restarted'), {
    what: 'its return is noticed',
    deadlineMs: 20_000,
  });
  t.same(await converge(instance.plugin, desired), []);
});

t.test('another configuration in our process is replaced by ours', async (t) => {
  const desired = appDesired({ address: bed.address(27), node: app1, ca, databasePort: await freePort() });
  const instance = await launch('foreign', desired);
  const text = await readFile(instance.config, 'utf8');
  await writeFile(instance.config, text.replace(/description .*/, 'description mine'));
  let askedMs = Number.NEGATIVE_INFINITY;
  await until(
    async () => {
      // Asked again: a master that is in the middle of its last reload loses the signal.
      if (performance.now() - askedMs > 2000) {
        askedMs = performance.now();
        await runCommand('kill', ['-USR2', String(instance.pid)], { timeoutMs: 5000 });
      }
      return (await instance.ask('show info').catch(() => '')).includes('description: mine');
    },
    { what: 'it runs' },
  );
  t.match(kinds(await converge(instance.plugin, desired)), ['file', 'reload']);
});

t.test('a configuration that HAProxy refuses changes nothing', async (t) => {
  const desired = appDesired({ address: bed.address(28), node: app1, ca, databasePort: await freePort() });
  const instance = await launch('refused', desired);
  const text = await readFile(instance.config, 'utf8');
  const broken = {
    ...desired,
    certificates: {
      ...desired.certificates,
      node: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
    },
  };
  const error = await failure(converge(instance.plugin, broken));
  t.match(error, {
    code: 'haproxy-config-refused',
    outcome: 'retry',
    message: /node-/,
  });
  const hostile = {
    ...desired,
    databases: { ...desired.databases, servers: [peer('db1 check\n  server x', one.address, 6984)] },
  };
  t.match(await failure(converge(instance.plugin, hostile)), {
    code: 'haproxy-value-refused',
  });
  t.equal(await readFile(instance.config, 'utf8'), text);
  t.equal((await get(`http://${bed.address(28)}/.well-known/bornemisza/health`)).status, 200);
  t.same(await converge(instance.plugin, desired), [], 'the last good one is still what runs');
});

t.test('a bad certificate for the site stops no revocation and no other change', async (t) => {
  const [first, second, third, weak] = [
    await bed.pki.leaf('www', 'site'),
    await bed.pki.leaf('www2', 'site'),
    await bed.pki.leaf('www3', 'site'),
    await bed.pki.leaf('weak', 'site', undefined, 1024),
  ];
  const address = bed.address(31);
  const empty = appDesired({ address, node: app1, ca, databasePort: await freePort() });
  // The first database of a cluster is another structure; one more is not.
  const there = peer('db2', one.address, 6984, 'maint', 'maintenance');
  const base = { ...empty, databases: { ...empty.databases, servers: [there] } };
  const showing = (edge: string, more: Partial<AppHaproxy> = {}): AppHaproxy => ({
    ...base,
    ...more,
    certificates: { ...base.certificates, edge },
  });
  const instance = await launch('site', showing(first.pem));
  const adds = await addsServers(instance);
  const shown = async (): Promise<string> => {
    const socket = connectTls({ host: address, port: 443, rejectUnauthorized: false });
    await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    const { serialNumber = '' } = socket.getPeerX509Certificate() ?? {};
    socket.destroy();
    return serialNumber.toLowerCase();
  };
  const door = (as: typeof app2) =>
    get(`https://${address}:8443/x`, {
      ca,
      checkServerIdentity: () => undefined,
      cert: as.certificate,
      key: as.key,
    });
  t.equal(await shown(), first.serialHex);
  t.equal((await door(app2)).status, 404);

  const text = `Certificate:\n    Data:\n        Version: 3 (0x2)\n${second.certificate}# key\n${second.key}`;
  const pidOf = async () => (await instance.plugin.observe(AbortSignal.timeout(5000))).running?.pid;
  const pid = await pidOf();
  const open = connectTls({ host: address, port: 443, rejectUnauthorized: false });
  await new Promise((resolve, reject) => open.once('secureConnect', resolve).once('error', reject));
  t.strictSame(summaries(await converge(instance.plugin, showing(text))).slice(-1), [
    'new certificate of the site',
  ]);
  t.equal(await shown(), second.serialHex, 'text around the blocks does no harm');
  t.equal(await pidOf(), pid, 'without a reload');
  t.equal(open.destroyed, false, 'an idle connection stays open');
  open.destroy();
  t.match(await readFile(instance.config, 'utf8'), /edge-[0-9a-f]{16}\.pem/);
  t.same(await converge(instance.plugin, showing(text)), [], 'and nothing is left to do');

  // Its socket takes no more than 16 kB, from 3.4 on 128 kB: then it is a reload after all.
  const long = third.certificate + third.key + ca.repeat(Math.ceil(16_384 / ca.length) + 1);
  const fits = await takesSite(instance, long);
  await converge(instance.plugin, showing(long));
  t.equal(await shown(), third.serialHex, 'a chain that is too long for the socket is shown as well');
  t.equal((await pidOf()) === pid, fits, 'by a reload where the socket refuses it');
  await converge(instance.plugin, showing(text));

  const bad: [string, string][] = [
    ['garbage', '\u0000'],
    ['no key', first.certificate],
    ['another key', first.certificate + second.key],
    ['cut', first.pem.slice(0, 900)],
    ['zeros', `-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n${first.key}`],
  ];
  for (const [what, file] of bad) {
    const revoked = [{ serialHex: app2.serialHex, address: undefined }];
    const servers = [there, peer('db1', one.address, 6984, 'maint', 'maintenance')];
    const databases = { ...base.databases, servers };
    const changes = await converge(instance.plugin, showing(file, { revoked, databases }));
    // 2.4 keeps the server, at rest: it is new the first time only.
    const told = adds ? /refused from now on.*db_nodes\/db1: added as maint/ : /revoked.list: rewritten/;
    t.match(summaries(changes).join(), told, what);
    await t.rejects(door(app2), `${what}: the removed one gets no answer`);
    t.equal(await shown(), second.serialHex, `${what}: the former one is shown`);
    await converge(instance.plugin, showing(text));
    t.equal((await door(app2)).status, 404);
  }

  // Only HAProxy's own libraries say so: the key is too short for them.
  const revoked = [{ serialHex: app2.serialHex, address: undefined }];
  const refused = showing(weak.pem, { revoked });
  t.match(await failure(converge(instance.plugin, refused)), {
    code: 'site-certificate-refused',
    message: /unable to load SSL certificate|key too small/,
  });
  await converge(instance.plugin, refused);
  await t.rejects(door(app2), 'the next look goes on without it');
  t.equal(await shown(), second.serialHex);
  const seen = instance.plugin.status(refused, await instance.plugin.observe(AbortSignal.timeout(5000)));
  t.match(seen, { seen: /^HAProxy answers; \d+ of \d+/, alarms: [{ code: 'site-certificate-refused' }] });
});

t.test('the edge is bound for IPv4 and IPv6, and for IPv4 alone where the host has no other', async (t) => {
  const [httpsPort, httpPort] = [await freePort(), await freePort()];
  const base = appDesired({ address: bed.address(32), node: app1, ca, databasePort: await freePort() });
  const desired = { ...base, edge: { ...base.edge, addresses: ['*'], httpsPort, httpPort } };
  const instance = await launch('both', desired);
  const health = '/.well-known/bornemisza/health';
  const { ipv6 } = await instance.plugin.observe(AbortSignal.timeout(5000));
  for (const host of ['127.0.0.1', ...(ipv6 ? ['[::1]'] : [])]) {
    t.equal((await get(`http://${host}:${httpPort}${health}`)).status, 200, host);
    const options = { ca, checkServerIdentity: () => undefined };
    t.equal((await get(`https://${host}:${httpsPort}${health}`, options)).status, 200, `${host} with TLS`);
  }
  t.match(await readFile(instance.config, 'utf8'), ipv6 ? / :::\d+ v6only/ : /bind \*:\d+\n/);
  // A kernel without IPv6.
  const observed = { ...(await instance.plugin.observe(AbortSignal.timeout(5000))), ipv6: false };
  const file = instance.plugin.plan(desired, observed).find(({ kind }) => kind === 'file');
  t.equal(file?.kind === 'file' && file.content.includes(':::'), false);
});

t.test('a reload that fails although the check passed is rolled back', async (t) => {
  const desired = appDesired({ address: bed.address(29), node: app1, ca, databasePort: await freePort() });
  const instance = await launch('rollback', desired);
  const text = await readFile(instance.config, 'utf8');
  const taken = createTcpServer();
  await new Promise<void>((resolve) => taken.listen(8499, bed.address(29), resolve));
  t.teardown(() => taken.close());
  const error = await failure(converge(instance.plugin, { ...desired, statsPort: 8499 }));
  t.match(error, { code: 'haproxy-reload-failed', outcome: 'retry' });
  t.equal(await readFile(instance.config, 'utf8'), text, 'the file is the last good one');
  t.equal(
    (await get(`http://${bed.address(29)}/.well-known/bornemisza/health`)).status,
    200,
    'the old worker serves on',
  );
  t.same(await converge(instance.plugin, desired), []);
  await new Promise((resolve) => taken.close(resolve));
  t.ok(
    kinds(await converge(instance.plugin, { ...desired, statsPort: 8499 })).includes('reload'),
    'it works once the port is free',
  );
});

t.test('a full disk: nothing is lost, and it works once there is room', async (t) => {
  const desired = appDesired({
    address: bed.address(30),
    node: app1,
    ca,
    databasePort: await freePort(),
    databases: [peer('db1', one.address, 6984)],
  });
  const instance = await bed.instance('full', 'app');
  await runCommand('mount', ['-t', 'tmpfs', '-o', 'size=64k,mode=0750', 'tmpfs', instance.directory], {
    timeoutMs: 5000,
  });
  // Before the bed's own end, which comes in reverse order.
  bed.onEnd(() => runCommand('umount', ['-l', instance.directory], { timeoutMs: 5000 }));
  await failure(converge(instance.plugin, desired));
  await instance.start();
  t.same(await converge(instance.plugin, desired), []);
  const text = await readFile(instance.config, 'utf8');
  await writeFile(join(instance.directory, 'filler'), Buffer.alloc(64 * 1024)).catch(() => {});
  const changed = { ...desired, edge: { ...desired.edge, hstsMaxAgeSeconds: 9 } };
  const error = await failure(converge(instance.plugin, changed));
  t.match(error, { code: 'disk-full', outcome: 'retry', next: /df -h/ });
  t.equal(await readFile(instance.config, 'utf8'), text, 'the last good file is whole');
  t.equal((await get(`http://${bed.address(30)}/.well-known/bornemisza/health`)).status, 200);
  await writeFile(join(instance.directory, 'filler'), '');
  t.ok(kinds(await converge(instance.plugin, changed)).includes('reload'));
});

t.test(
  'a revoked certificate is refused at once, and what it has open is cut, in workers of older reloads too',
  async (t) => {
    const options = { ca, checkServerIdentity: () => undefined, cert: app3.certificate, key: app3.key };
    const url = `https://${one.address}:6984/db/_changes`;
    await until(async () => (await get(`https://${one.address}:6984/db`, options)).status === 200, {
      what: 'the door is open',
    });
    const feed = await openFeed(url, { ...options, localAddress: bed.address(43) });
    // After this the feed lives in an old worker.
    await converge(one.instance.plugin, { ...one.desired, statsPort: 8406 });
    const second = await openFeed(url, { ...options, localAddress: bed.address(43) });
    const other = await openFeed(url, {
      ...options,
      cert: app2.certificate,
      key: app2.key,
      localAddress: bed.address(42),
    });
    const start = performance.now();
    const revoked = [{ serialHex: app3.serialHex, address: bed.address(43) }];
    const changes = await converge(one.instance.plugin, { ...one.desired, statsPort: 8406, revoked });
    t.notOk(kinds(changes).includes('reload'));
    await until(() => feed.ended() && second.ended(), { what: 'both feeds are cut' });
    t.comment(`cut after ${(performance.now() - start).toFixed(0)} ms`);
    await t.rejects(get(`https://${one.address}:6984/db`, options), 'the revoked one gets no answer');
    t.notOk(other.ended(), 'others are not touched');
    other.close();
    t.equal(
      (await readFile(join(one.instance.directory, 'revoked.list'), 'utf8')).trim(),
      app3.serialHex.toUpperCase(),
    );
    t.ok(kinds(await converge(one.instance.plugin, one.desired)).includes('reload'), 'and back');
    t.equal((await get(`https://${one.address}:6984/db`, options)).status, 200);
  },
);

t.test('a session that began before the revocation and is resumed after it opens no door', async (t) => {
  await converge(one.instance.plugin, one.desired);
  for (const [port, leaf] of [
    [6984, app3],
    [6985, db2],
  ] as const)
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const what = `${port}, ${version}`;
      const ask = (session?: Buffer): Promise<Asked> =>
        askOnce({ host: one.address, port, version, leaf, session });
      const first = await ask();
      t.equal(first.status, 200, `${what}: open before`);
      const again = await ask(first.session);
      t.match(again, { reused: true, status: 200 }, `${what}: a session is resumed`);
      const revoked = [{ serialHex: leaf.serialHex, address: undefined }];
      await converge(one.instance.plugin, { ...one.desired, revoked });
      t.match(await ask(first.session), { reused: true, status: undefined }, `${what}: resumed, refused`);
      t.match(await ask(), { reused: false, status: undefined }, `${what}: fresh, refused`);
      await converge(one.instance.plugin, one.desired);
      t.equal((await ask(first.session)).status, 200, `${what}: and back`);
    }
});

t.test('what a removed authority signs is refused at once, and what was good before it is not', async (t) => {
  const url = `https://${one.address}:6984/db`;
  const as = ({ certificate, key }: typeof app2) => ({
    ca,
    checkServerIdentity: () => undefined,
    cert: certificate,
    key,
  });
  await converge(one.instance.plugin, one.desired);
  t.equal((await get(url, as(app3))).status, 200);
  const good = new X509Certificate(app2.certificate).fingerprint256.replaceAll(':', '');
  const changes = await converge(one.instance.plugin, {
    ...one.desired,
    revokedAuthorities: [SIGNER],
    knownCertificates: [good],
  });
  t.notOk(kinds(changes).includes('reload'), 'without a reload');
  await t.rejects(get(url, as(app3)), 'a certificate that nobody knows');
  t.equal((await get(url, as(app2))).status, 200, 'one that was good before');
  // The holder of the key can write the serial of a good one, and not its bytes.
  const twin = await bed.pki.leaf('app2', 'app', app2.serialHex);
  await t.rejects(get(url, as(twin)), 'another one with the same names and serial');
  await converge(one.instance.plugin, one.desired);
  t.equal((await get(url, as(app3))).status, 200);
});

t.test('a peer with the certificate of another name is not trusted', async (t) => {
  const port = await freePort();
  const databases = [peer('db9', one.address, 6984)];
  const instance = await launch(
    'impostor',
    appDesired({ address: bed.address(32), node: app1, ca, databasePort: port, databases }),
  );
  await until(async () => (await instance.servers('db_nodes'))['db9'] === 'DOWN', {
    what: 'its check fails',
  });
  t.equal((await get(`http://127.0.0.1:${port}/x`)).status, 503);
});

t.test('a request is sent again only when it was not delivered or can be repeated', async (t) => {
  const port = await freePort();
  await launch(
    'retry',
    appDesired({
      address: bed.address(33),
      node: app1,
      ca,
      databasePort: port,
      databases: [peer('db2', two.address, 6984)],
    }),
  );
  await until(async () => (await get(`http://127.0.0.1:${port}/x`)).status === 200, {
    what: 'the database answers',
  });
  const send = async (method: string): Promise<number> => {
    const before = two.state.hits;
    await get(`http://127.0.0.1:${port}/drop`, { method, ...(method === 'PUT' ? { body: '{}' } : {}) }).catch(
      (): Reply | undefined => undefined,
    );
    return two.state.hits - before;
  };
  t.equal(await send('PUT'), 1, 'a write that may have arrived is not repeated');
  t.ok((await send('GET')) > 1, 'a read is');
});

t.test('its traffic is reported: kept connections, open requests, and those of old processes', async (t) => {
  const held: (() => void)[] = [];
  const { port: local } = await bed.server((request, response) => {
    if (request.url === '/held') held.push(() => response.end('at last'));
    else response.end('ok');
  });
  const address = bed.address(47);
  const service: EdgeService = {
    name: 'shop',
    prefix: '/',
    healthPath: '/',
    localPort: local,
    peers: { verifySuffix: 'app.shop.internal', servers: [peer('app1', address, 8443)] },
  };
  const desired = appDesired({
    address,
    node: app1,
    ca,
    databasePort: await freePort(),
    services: [service],
  });
  const { plugin } = await launch('traffic', desired);
  const { signal } = new AbortController();
  const traffic = () => plugin.ask('show', {}, signal) as Promise<HaproxyTraffic>;
  const edge = async () => (await traffic()).frontends.find(({ name }) => name === 'edge');
  const url = (path: string): string => `https://${address}${path}`;
  await until(async () => (await get(url('/'), { rejectUnauthorized: false })).status === 200);

  const kept = new Agent({ keepAlive: true, rejectUnauthorized: false });
  t.teardown(() => kept.destroy());
  t.equal((await get(url('/'), { agent: kept })).status, 200);
  await until(async () => (await edge())?.connections === 1, { what: 'the kept connection' });
  t.equal((await edge())?.requests, 0, 'which nobody waits for');

  const answer = get(url('/held'), { rejectUnauthorized: false, timeout: 60_000 });
  await until(() => held.length > 0);
  t.match(await edge(), { connections: 2, requests: 1 });
  t.match((await traffic()).summary, /^\d+ connections, 2 open requests \(edge 1, door 1\)$/);
  t.match((await traffic()).servers, [
    { server: 'svc_shop/app1', sessions: 1 },
    { server: 'local_shop/_local' },
  ]);

  await converge(plugin, { ...desired, edge: { ...desired.edge, hstsMaxAgeSeconds: 1 } });
  t.match(await traffic(), { old: { processes: 1, requests: 2 }, requests: 2 }, 'a reload hides none');
  held[0]?.();
  t.equal((await answer).body, 'at last');
  await until(async () => (await traffic()).requests === 0, { what: 'nothing is under way' });
});

t.test('edges count together what a client network sends, over mutual TLS of their own role', async (t) => {
  const api = await bed.server((_request, response) => response.end('served'));
  const addresses = [bed.address(35), bed.address(36)] as const;
  const edges = [
    { name: 'app1', address: addresses[0] },
    { name: 'app2', address: addresses[1] },
  ] as const;
  const desiredAt = async (at: 0 | 1, node: Leaf): Promise<AppHaproxy> => ({
    ...appDesired({ address: addresses[at], node, ca, databasePort: await freePort() }),
    services: [
      {
        name: 'api',
        prefix: '/api',
        healthPath: '/',
        localPort: api.port,
        limit: { paths: ['/api/session'], perMinute: 10 },
        peers: { verifySuffix: 'app.shop.internal', servers: [peer(edges[at].name, addresses[at], 8443)] },
      },
    ],
    sharing: {
      host: edges[at].name,
      port: 8444,
      verifySuffix: 'app.shop.internal',
      edges: edges.filter((_, other) => other !== at),
    },
  });
  const first = await desiredAt(0, app1);
  const [one, two] = [await launch('share1', first), await launch('share2', await desiredAt(1, app2))];
  t.same(await converge(one.plugin, first), [], 'nothing is left to do');
  t.same(complaints(one.log + two.log), [], 'HAProxy has nothing to say against it');
  // As it is: the path of a URL is put in order before it is sent.
  const send = async (at: 0 | 1, path = '/api/session', options: object = {}): Promise<Reply> =>
    get(`https://${addresses[at]}`, {
      path,
      method: 'POST',
      ca,
      checkServerIdentity: () => undefined,
      ...options,
    });
  const statuses = async (at: 0 | 1, count: number, path?: string, options?: object): Promise<number[]> => {
    const seen: number[] = [];
    for (let n = 0; n < count; n += 1) seen.push((await send(at, path, options)).status);
    return seen;
  };
  await until(async () => (await send(0, '/api')).status === 200 && (await send(1, '/api')).status === 200, {
    what: 'both edges serve',
  });

  t.same([...new Set(await statuses(0, 8))], [200]);
  await until(async () => /gpc0_rate\(60000\)=8/.test(await two.ask('show table limit_api')), {
    what: `the other edge has heard of it: ${await two.ask('show peers')}`,
  });
  t.same(await statuses(1, 5), [200, 200, 429, 429, 429], 'the other edge counts on');
  const refused = await send(1, '/api/%73ession/x');
  t.match(
    refused,
    { status: 429, headers: { 'content-type': 'application/problem+json' } },
    'as it is decoded',
  );
  t.match(JSON.parse(refused.body), { type: '/problems/too-many-requests', status: 429 });
  t.equal(refused.headers['retry-after'], '60');
  t.same(
    await statuses(1, 12, '/api/session', { method: 'GET' }),
    Array(12).fill(200),
    'what changes nothing',
  );
  t.same(await statuses(1, 12, '/api/sessions'), Array(12).fill(200), 'another path');
  t.equal((await send(1, '/api/session', { localAddress: bed.address(97) })).status, 200, 'another network');
  for (const path of ['/api/x/../session', '/api/%2e/session', '/api/x\\..\\session'])
    t.equal((await send(1, path)).status, 400, `${path} could be read as a path that is counted`);

  const opens = async (leaf: Leaf): Promise<boolean> => {
    const socket = connectTls({
      host: addresses[0],
      port: 8444,
      ca,
      cert: leaf.certificate,
      key: leaf.key,
      checkServerIdentity: () => undefined,
    });
    socket.on('error', () => undefined);
    socket.once('secureConnect', () => socket.write('HAProxyS 2.1\napp1\napp2 1 1\n'));
    const said = new Promise<boolean>((resolve) => {
      socket.once('data', (bytes) => resolve(bytes.toString().startsWith('200')));
      socket.once('close', () => resolve(false));
    });
    return said.finally(() => socket.destroy());
  };
  t.match(await one.plugin.ask('show', {}, AbortSignal.timeout(10_000)), { requests: 0 }, 'nothing to drain');
  t.equal(await opens(db1), false, 'a db node does not');
  t.equal(await opens(app3), true, 'an app node speaks with it');
  const revoked = { ...first, revoked: [{ serialHex: app3.serialHex, address: undefined }] };
  await converge(one.plugin, revoked);
  t.equal(await opens(app3), false, 'nor one that was removed');

  // A process of less than 5 s waits itself for what others have counted, and hands nothing over.
  await until(async () => !/resync_timeout=\d/.test(await one.ask('show peers')), {
    what: `its first seconds are over: ${await one.ask('show peers')}`,
  });
  const alone = { ...revoked, sharing: { ...first.sharing!, edges: [] } };
  t.match(summaries(await converge(one.plugin, alone)), ['haproxy.cfg: rewritten', /^reload/]);
  // On a busy machine the first requests are more than a minute ago, and count less.
  const own = /key=::ffff:127\.0\.0\.1 .*gpc0_rate\(60000\)=[1-9]/;
  await until(async () => own.test(await one.ask('show table limit_api')), {
    what: `the process of before hands over what was counted: ${await one.ask('show table limit_api')}`,
  });
  t.ok((await statuses(0, 10)).includes(429), 'a reload keeps what was counted');
});

t.test('a server is out before the file is proved, and back when it is refused', async (t) => {
  const databases = (duty: 'ready' | 'maint') => [
    peer('db1', one.address, 6984),
    peer('db2', two.address, 6984, duty),
  ];
  const with2 = (duty: 'ready' | 'maint') =>
    appDesired({ address: bed.address(48), node: app1, ca, databasePort: port, databases: databases(duty) });
  const port = await freePort();
  const instance = await launch('first', with2('ready'));
  // Proves only when it is let, and refuses when it is told to. What this HAProxy knows, it says itself.
  const [slow, asked, go, refuse] = ['slow', 'asked', 'go', 'refuse'].map((name) =>
    join(bed.root, `first-${name}`),
  );
  await writeFile(
    slow ?? '',
    `#!/bin/sh\ncase $* in *probe*) exec ${BINARY} "$@";; esac\n: >${asked}\n` +
      `while [ ! -e ${go} ]; do sleep 0.05; done\n[ ! -e ${refuse} ]\n`,
    { mode: 0o755 },
  );
  const { directory, runDirectory } = instance;
  const plugin = new HaproxyPlugin({ instance: 'app', directory, runDirectory, binary: slow ?? '' });
  t.teardown(() => plugin.close());
  const isDisabled = async (): Promise<boolean> => {
    const [, backend = ''] = (await readFile(instance.config, 'utf8')).split(/^backend db_nodes$/m);
    return /^ +server db2 .* disabled$/m.test(backend.split(/^backend /m)[0] ?? '');
  };
  const state = async (): Promise<string | undefined> => (await instance.servers('db_nodes'))['db2'];
  const isAsked = () => readFile(asked ?? '').then(() => true);
  const letGo = async (): Promise<void> => writeFile(go ?? '', '');
  const again = async (): Promise<void> => {
    await rm(asked ?? '', { force: true });
    await rm(go ?? '', { force: true });
  };

  const out = converge(plugin, with2('maint'));
  await until(isAsked, { what: 'haproxy -c runs' });
  t.equal(await state(), 'MAINT', 'nobody waits for the proof');
  t.notOk(await isDisabled());
  await letGo();
  t.same([...new Set(kinds(await out))], ['file', 'server-state']);
  t.ok(await isDisabled(), 'the file follows');

  await again();
  await writeFile(refuse ?? '', '');
  const refused = failure(converge(plugin, with2('ready')));
  await until(isAsked, { what: 'haproxy -c runs' });
  t.not(await state(), 'MAINT');
  await letGo();
  t.equal((await refused).code, 'haproxy-config-refused');
  t.equal(await state(), 'MAINT', 'both are as before');
  t.ok(await isDisabled());

  await again();
  const second = failure(converge(plugin, with2('ready')));
  await until(isAsked, { what: 'haproxy -c runs' });
  t.equal(await state(), 'MAINT', 'what was refused is proved first the next time');
  await rm(refuse ?? '');
  await letGo();
  await t.rejects(second, /was expected to fail/);
  t.not(await state(), 'MAINT');
  t.notOk(await isDisabled());
});

t.test('while it is wanted every request is a line of JSON in the log, without a reload', async (t) => {
  const address = bed.address(58);
  const app = await bed.server((request, response) =>
    response.writeHead(request.url?.includes('/bad') === true ? 500 : 200).end('x'.repeat(10)),
  );
  const peers = { verifySuffix: 'app.shop.internal', servers: [peer('app1', address, 8443)] };
  const service = { name: 'shop', prefix: '/', healthPath: '/', localPort: app.port, peers };
  const databasePort = await freePort();
  const desired = appDesired({ address, node: app1, ca, databasePort, services: [service] });
  const edge = await launch('log', desired);
  const ask = (path: string, headers = {}) =>
    get(`https://${address}`, { path, headers, rejectUnauthorized: false });
  await until(async () => (await ask('/')).status === 200, { what: 'the service answers' });
  const lines = (): Record<string, unknown>[] =>
    edge.log.split('\n').flatMap((line) => {
      const [, level, json] = /^<(\d)>(\{.*\})$/.exec(line) ?? [];
      return json === undefined ? [] : [{ level, ...(JSON.parse(json) as object) }];
    });
  t.same(lines(), [], 'a request that succeeds is not logged');
  await ask('/bad?token=secret');
  await until(() => lines().length > 0, { what: 'the failed request is logged' });
  t.match(lines(), [{ level: '3', status: 500, host: address, path: '/bad', method: 'GET' }]);

  const { pid } = (await edge.plugin.observe(AbortSignal.timeout(5000))).running ?? {};
  const wanted = { ...desired, requestsLogged: true };
  t.same(kinds(await converge(edge.plugin, wanted)), ['file', 'server-state']);
  t.same(await converge(edge.plugin, wanted), [], 'nothing is left to do');
  await ask('/a"b\\c%22?token=secret', { 'user-agent': 'say "x" \\' });
  await ask(EDGE_HEALTH_PATH);
  await ask('/bad');
  await until(() => {
    if (lines().length !== 3) throw new Error(JSON.stringify(lines()));
    return true;
  });
  t.match(lines().slice(1), [
    { n: '1', level: '5', status: 200, path: '/a"b\\c%22', agent: 'say "x" \\', backend: 'svc_shop' },
    { n: '2', level: '5', status: 500, path: '/bad', server: 'app1', client: /^127\./ },
  ]);
  t.notMatch(edge.log, /secret/);
  await Promise.all(Array.from({ length: 150 }, () => ask(`/${'ü'.repeat(900)}`)));
  await ask('/last');
  await until(async () => (await ask('/after'), lines().some(({ path }) => path === '/after')));
  const counts = lines().flatMap(({ n }) => (n === '-' ? [] : [Number(n)]));
  t.ok(counts.length < (counts.at(-1) ?? 0) || counts.length < 150, 'at most 100 lines in a second');

  t.same(kinds(await converge(edge.plugin, desired)), ['file', 'server-state']);
  const before = lines().length;
  await ask('/silent');
  t.equal(lines().length, before);
  t.equal((await edge.plugin.observe(AbortSignal.timeout(5000))).running?.pid, pid, 'there was no reload');
  t.same(
    complaints(edge.log).filter((line) => !/request_log\/requests is (UP|going DOWN)/.test(line)),
    [],
  );
});

t.test('the edge speaks HTTP/2 to browsers', async (t) => {
  const desired = appDesired({ address: bed.address(34), node: app1, ca, databasePort: await freePort() });
  await launch('h2', desired);
  const socket = connectTls({
    host: bed.address(34),
    port: 443,
    ca,
    ALPNProtocols: ['h2', 'http/1.1'],
    checkServerIdentity: () => undefined,
  });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  t.equal(socket.alpnProtocol, 'h2');
  socket.destroy();
});

t.test('a file whose group HAProxy cannot read would pass the check: all files are 0640', async (t) => {
  const { instance } = two;
  await chmod(instance.config, 0o600);
  await writeFile(instance.config, '# mine\n');
  t.same(summaries(await converge(instance.plugin, two.desired)), ['haproxy.cfg: rewritten']);
  const { stdout } = await runCommand('stat', ['-c', '%a', instance.config], { timeoutMs: 1000 });
  t.equal(stdout.trim(), '640');
});

interface Feed {
  lines(): number;
  ended(): boolean;
  close(): void;
}

function openFeed(url: string, options: object = {}): Promise<Feed> {
  return new Promise((resolve, reject) => {
    let [lines, ended] = [0, false];
    const make = url.startsWith('https:') ? httpsRequest : httpRequest;
    const request: ClientRequest = make(url, { agent: false, ...options }, (response: IncomingMessage) => {
      response.on('data', () => {
        lines += 1;
        resolve({ lines: () => lines, ended: () => ended, close: () => request.destroy() });
      });
      response.on('close', () => {
        ended = true;
      });
      response.on('error', () => {});
    });
    request.on('error', reject);
    request.end();
  });
}
