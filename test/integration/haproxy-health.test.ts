import { Agent, request } from 'node:https';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import t from 'tap';
import { parseService } from '../../src/daemon/config/config.ts';
import { healthOf } from '../../src/daemon/config/service-health.ts';
import { probe } from '../../src/daemon/health/probe.ts';
import { serviceCheck } from '../../src/daemon/health/service-check.ts';
import {
  type AppHaproxy,
  CHECK_HOST,
  type EdgeService,
  WELL_STATUSES,
} from '../../src/plugins/haproxy/desired.ts';
import { Failures } from '../../src/plugins/haproxy/failures.ts';
import { HaproxyPlugin } from '../../src/plugins/haproxy/plugin.ts';
import { freePort } from '../support/free-port.ts';
import {
  addsServers,
  appDesired,
  Bed,
  BINARY,
  converge,
  dbDesired,
  get,
  type Instance,
  peer,
  type Reply,
} from './haproxy-bed.ts';
import { until } from '../support/until.ts';

/** What an edge does while services and hosts fail, on real HAProxies. */

const bed = await Bed.make();
t.teardown(() => bed.end());
const ca = bed.pki.ca;
const leaf = (name: string) => bed.pki.leaf(name, name.replace(/\d+$/, ''));
const tls = { ca, checkServerIdentity: () => undefined };

const two = [peer('app2', bed.address(2), 8443), peer('app3', bed.address(3), 8443)];

/** An app node that runs one service on its own door, and knows the doors of both. */
async function appNode(name: string, n: number, api: { readonly port: number }) {
  const doors = { verifySuffix: 'app.shop.internal', servers: two };
  const services = [{ name: 'api', prefix: '/', healthPath: '/healthz', localPort: api.port, peers: doors }];
  const [node, databasePort] = [await leaf(name), await freePort()];
  const desired = appDesired({ address: bed.address(n), node, ca, databasePort, services });
  return { instance: await bed.launch(name, desired), desired };
}

/** Requests with a body, by what it says: each is one that the program did. */
const posted: string[] = [];
const api = await bed.server((request, response) => {
  let body = '';
  request.on('data', (chunk: Buffer) => (body += chunk.toString()));
  request.on('end', () => {
    if (request.method === 'POST') posted.push(body.slice(0, 20).trim());
    response.end('api');
  });
});
/** Of app3 alone. */
const gone = await bed.server((_, response) => response.end('api'));
const [{ instance: app2, desired: app2Desired }, { instance: app3 }] = await Promise.all([
  appNode('app2', 2, api),
  appNode('app3', 3, gone),
]);
/** Requests that get no answer. */
let hanging = 0;
const couch = await bed.server((request, response) => {
  if (request.url === '/db/hang') hanging += 1;
  else response.end('couch');
});
const db1 = await bed.launch(
  'db1',
  dbDesired({ address: bed.address(4), node: await leaf('db1'), ca, couchdbPort: couch.port }),
);
const databasePort = await freePort();
const routed = (servers = two): EdgeService[] => [
  {
    name: 'api',
    prefix: '/',
    healthPath: '/healthz',
    localPort: undefined,
    peers: { verifySuffix: 'app.shop.internal', servers },
  },
];
const edgeLeaf = await leaf('app1');
const edgeDesired = appDesired({
  address: bed.address(1),
  node: edgeLeaf,
  ca,
  databasePort,
  services: routed(),
  databases: [peer('db1', bed.address(4), 6984)],
});
const dead = peer('db1', bed.address(4), 6984, 'out-when-down', 'its daemon is dead');
const edge = await bed.launch('app1', edgeDesired);
for (const each of [api, gone])
  each.on('upgrade', (_request, socket: Duplex) => {
    socket.write(
      [
        'HTTP/1.1 101 Switching Protocols',
        'Upgrade: websocket',
        'Connection: Upgrade',
        // RFC 6455, 1.3: the answer to this key.
        'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=',
        '\r\n',
      ].join('\r\n'),
    );
    socket.pipe(socket);
  });
const site = `https://${bed.address(1)}/`;
const ask = (): Promise<Reply> => get(site, tls);
const askDatabases = (): Promise<Reply> => get(`http://127.0.0.1:${databasePort}/x`);

function webSocket(): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const headers = {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    };
    request(site, { ...tls, agent: false, headers })
      .on('upgrade', (_response, socket) => resolve(socket))
      .on('response', ({ statusCode }) => reject(new Error(`answered with ${statusCode}`)))
      .on('error', reject)
      .end();
  });
}

function echo(socket: Duplex, said: string): Promise<string> {
  return new Promise((resolve, reject) => {
    socket.once('data', (chunk: Buffer) => resolve(chunk.toString()));
    socket.once('close', () => reject(new Error('the socket was closed')));
    socket.write(said);
  });
}

const all = (backend: string, status: string): Promise<boolean> =>
  until(async () => Object.values(await edge.servers(backend)).every((each) => each === status), {
    what: `all of ${backend} are ${status}`,
    deadlineMs: 30_000,
  });
const allWell = async (): Promise<void> => {
  for (const backend of ['svc_api', 'svc_api.panic', 'db_nodes', 'db_nodes.panic']) await all(backend, 'UP');
};

t.test('requests of new clients use connections to the doors that are open', async (t) => {
  await allWell();
  const counted = async (column: string): Promise<number> => {
    const [header = '', ...rows] = (await edge.ask('show stat svc_api 4 -1')).split('\n');
    const at = header.replace(/^# /, '').split(',').indexOf(column);
    return rows.reduce((sum, row) => sum + Number(row.split(',')[at] ?? 0), 0);
  };
  const [connected, reused] = [await counted('connect'), await counted('reuse')];
  for (let asked = 0; asked < 30; asked += 1) t.equal((await ask()).status, 200);
  // HAProxy closes some of them when few are in use.
  const made = (await counted('connect')) - connected;
  t.ok(made <= 10, `${made} new connections for 30 clients`);
  t.equal((await counted('reuse')) - reused, 30 - made);
});

t.test('a service that closes idle connections loses no request', async (t) => {
  const known = new Set<Duplex>();
  // Closes a connection under its second request, as if it had been idle for too long.
  const closing = await bed.server(({ socket }, response) => {
    if (known.has(socket)) socket.destroy();
    else response.end('once');
    known.add(socket);
  });
  await appNode('app4', 5, closing);
  const client = { key: edgeLeaf.key, cert: edgeLeaf.certificate };
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ...tls, ...client });
  t.teardown(() => agent.destroy());
  const door = `https://${bed.address(5)}:8443/`;
  await until(async () => (await get(door, { agent })).status === 200, { what: 'its door serves' });
  for (let order = 0; order < 20; order += 1) {
    const answer = get(door, { agent, method: 'POST', body: `order ${order}` });
    t.equal(await answer.then(({ status }) => status, String), 200, `order ${order}`);
  }
});

t.test('when most checks get no answer in time, the servers that accept connections serve', async (t) => {
  await allWell();
  const backends: [string, readonly Instance[], () => Promise<Reply>][] = [
    ['svc_api', [app2, app3], ask],
    ['db_nodes', [db1], askDatabases],
  ];
  for (const [backend, peers, request] of backends) {
    const replies: Promise<Reply[]>[] = [];
    const silent = all(backend, 'DOWN').then(() => {
      replies.push(Promise.all(Array.from({ length: 10 }, request)));
      return until(
        async () => {
          const [line = ''] = (await edge.ask(`show stat ${backend}.panic 2 -1`)).split('\n').slice(1);
          return line.split(',')[4] === '10' || Number(line.split(',')[7]) === 0;
        },
        { what: 'the requests wait for them, or were refused' },
      );
    });
    await Promise.all(peers.map((each) => each.standStill(silent)));
    const statuses = (await replies[0])?.map(({ status }) => status);
    t.same(
      statuses,
      Array.from({ length: 10 }, () => 200),
      backend,
    );
  }
});

t.test('one of two without an answer is half, and no panic: the other one serves', async (t) => {
  await allWell();
  const served = async () => {
    const replies = await Promise.all(Array.from({ length: 10 }, ask));
    return replies.every(({ status }) => status === 200);
  };
  let well = false;
  const half = until(async () => (await edge.servers('svc_api'))['app3'] === 'DOWN', {
    what: 'it is out',
    deadlineMs: 30_000,
  });
  await app3.standStill(half.then(async () => void (well = await served())));
  t.ok(well, 'and nobody waits for the one that is silent');
});

t.test('members whose daemons are dead are no panic: their servers get their requests', async (t) => {
  const unwatched = (...names: string[]): AppHaproxy => ({
    ...edgeDesired,
    services: routed(
      two.map((each) => (names.includes(each.name) ? { ...each, duty: 'out-when-down' as const } : each)),
    ),
    databases: {
      ...edgeDesired.databases,
      servers: names.includes('db1') ? [dead] : [peer('db1', bed.address(4), 6984)],
    },
  });
  const chosen = async (backend: string): Promise<number> => {
    const rows = (await edge.ask(`show stat ${backend} 2 -1`)).split('\n').slice(1);
    return rows.reduce((sum, row) => sum + Number(row.split(',')[7] ?? 0), 0);
  };
  for (const names of [['app2'], ['app2', 'app3'], ['app2', 'app3', 'db1'], ['db1']]) {
    await converge(edge.plugin, edgeDesired);
    await allWell();
    await converge(edge.plugin, unwatched(...names));
    const before = await Promise.all(['svc_api.panic', 'db_nodes.panic'].map(chosen));
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, at) => (at % 2 ? ask() : askDatabases())),
    );
    t.same(
      replies.filter(({ status }) => status !== 200),
      [],
      `no request to ${names.join()} is refused`,
    );
    const after = await Promise.all(['svc_api.panic', 'db_nodes.panic'].map(chosen));
    t.same(after, before, `${names.join()}: none by the way of a panic`);
  }
  await converge(edge.plugin, edgeDesired);
});

const MORE_FLOODS = 4;

/**
 * The clients and the service are one busy process here: the edge’s checks end by timeout, and so do those of the
 * doors.
 */
t.test('300 new TLS clients at once get no 503', async (t) => {
  const agent = new Agent({ keepAlive: false, maxCachedSessions: 0 });
  const flood = async (): Promise<Map<number | string, number>> => {
    await allWell();
    const statuses = new Map<number | string, number>();
    const one = async (): Promise<void> => {
      const status = await get(site, { ...tls, agent, timeout: 60_000 }).then(
        (reply) => reply.status,
        (error: unknown) => String(error),
      );
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    };
    const startMs = performance.now();
    for (let round = 0; round < 2; round += 1) await Promise.all(Array.from({ length: 300 }, one));
    t.comment(
      `600 clients in ${Math.round(performance.now() - startMs)} ms: ${JSON.stringify([...statuses])}`,
    );
    return statuses;
  };
  // Where other work has the cores, the second checks starve as well: the flood alone is what is judged.
  let statuses = await flood();
  for (let more = 0; more < MORE_FLOODS && (statuses.get(200) ?? 0) < 600; more += 1)
    statuses = await flood();
  t.equal(statuses.get(503) ?? 0, 0, JSON.stringify([...statuses]));
  t.ok((statuses.get(200) ?? 0) >= 590, JSON.stringify([...statuses]));
});

t.test('a service that is gone at one node: another one does what it did not get, once', async (t) => {
  await allWell();
  const before = await app3.servers('local_api');
  t.equal(before['_local'], 'UP');
  await new Promise((resolve) => gone.close(resolve).closeAllConnections());
  const statuses: string[] = [];
  const sent: string[] = [];
  const slowest = { GET: 0, POST: 0 };
  let count = 0;
  // Some at once: each finds another moment of what HAProxy knows.
  const send = async (): Promise<void> => {
    count += 1;
    const method = count % 3 === 0 ? 'GET' : 'POST';
    // Larger than a buffer: nothing of it was read when the connection is refused.
    const body = `order ${count}`.padEnd(count % 2 === 0 ? 20 : 60_000);
    if (method === 'POST') sent.push(`order ${count}`);
    const startMs = performance.now();
    const { status } = await get(site, { ...tls, method, ...(method === 'POST' && { body }) });
    slowest[method] = Math.max(slowest[method], performance.now() - startMs);
    if (status !== 200) statuses.push(`${method} ${status}`);
  };
  const client = async (): Promise<void> => {
    for (let turn = 0; turn < 18; turn += 1) await send();
  };
  await Promise.all(Array.from({ length: 10 }, client));
  t.same(statuses, [], 'nothing was delivered to what is gone, so nothing is lost');
  const done = posted.filter((each) => sent.includes(each));
  t.same(done.toSorted(), sent.toSorted(), 'each order is done once');
  await until(async () => (await app3.servers('local_api'))['_local'] !== 'UP', { what: 'its door knows' });
  await until(async () => (await edge.servers('svc_api'))['app3'] === 'DOWN', { what: 'the edge knows' });
  t.comment(`slowest, ms: ${JSON.stringify(slowest)}`);
});

t.test('gone at both: one answer, no loop between the doors', async (t) => {
  // The other one still listens at app2: its door is made to believe that it does not.
  const [service] = app2Desired.services;
  const nowhere = { ...app2Desired, services: service ? [{ ...service, localPort: await freePort() }] : [] };
  await converge(app2.plugin, nowhere);
  const edgeTls = { ...tls, key: edgeLeaf.key, cert: edgeLeaf.certificate };
  const door = (name: string, n: number) =>
    get(`https://${bed.address(n)}:8443/`, { ...edgeTls, method: 'POST', body: name });
  // Checks of the service end in the frontend, so these are requests.
  const served = async (of: Instance): Promise<number> =>
    [...(await of.ask('show stat -1 2 -1')).matchAll(/^local_[^,]*,BACKEND,(?:[^,]*,){5}(\d+),/gm)].reduce(
      (sum, [, count]) => sum + Number(count),
      0,
    );
  const before = (await served(app2)) + (await served(app3));
  t.equal((await door('at app3', 3)).status, 503);
  t.equal((await door('at app2', 2)).status, 503);
  const asked = (await served(app2)) + (await served(app3)) - before;
  t.ok(asked >= 2 && asked <= 4, `one question here and one there for each: ${asked}`);
  await converge(app2.plugin, app2Desired);
  await new Promise<void>((resolve) => gone.listen(gone.port, '127.0.0.1', resolve));
  await allWell();
});

t.test(
  'HAProxy says at once that its check misses a local service, before anybody asks for it',
  async (t) => {
    await allWell();
    const missed: string[] = [];
    const failures = new Failures(
      join(app3.runDirectory, 'stats.sock'),
      {
        failedElsewhere: (each) => missed.push(each),
      },
      { unanswered: () => undefined },
    ).listen();
    t.teardown(() => failures.close());
    await new Promise((resolve) => gone.close(resolve).closeAllConnections());
    const startMs = performance.now();
    await until(() => missed.length > 0, { what: 'HAProxy’s check says so' });
    t.comment(`after ${Math.round(performance.now() - startMs)} ms`);
    t.equal(missed[0], 'api');
    await new Promise<void>((resolve) => gone.listen(gone.port, '127.0.0.1', resolve));
    await allWell();
  },
);

t.test('what its daemon saw fail is out at its door at once, and its own check brings it back', async (t) => {
  await allWell();
  const desired = (answersWrongly: boolean) => {
    const [service] = app2Desired.services;
    return { ...app2Desired, services: service === undefined ? [] : [{ ...service, answersWrongly }] };
  };
  const out = await converge(app2.plugin, desired(true));
  t.same(
    out.map(({ summary }) => summary).filter((each) => !each.startsWith('haproxy.cfg')),
    [
      'local_api/_local: down (the check of this node failed)',
      'local_api.panic/_local: ready → maint (it answers the check wrongly)',
      'local_api.own/_local: ready → maint (it answers the check wrongly)',
    ],
  );
  t.equal((await app2.servers('local_api.panic'))['_local'], 'MAINT');
  // Its answer is right here, so its own check finds it well whatever the daemon says.
  await until(async () => (await app2.servers('local_api'))['_local'] === 'UP', {
    what: 'its check brings it back',
  });
  await converge(app2.plugin, desired(false));
  await until(async () => (await app2.servers('local_api.panic'))['_local'] === 'UP', {
    what: 'so does that of the slow',
  });
});

t.test('a WebSocket outlives a reload, and status shows the process that it is in', async (t) => {
  await allWell();
  const seen = async () =>
    edge.plugin.status(edgeDesired, await edge.plugin.observe(AbortSignal.timeout(5000))).seen;
  t.notMatch(await seen(), /old process/);
  const socket = await webSocket();
  t.teardown(() => socket.destroy());
  t.equal(await echo(socket, 'one'), 'one');
  await converge(edge.plugin, { ...edgeDesired, edge: { ...edgeDesired.edge, hstsMaxAgeSeconds: 1 } });
  t.equal(await echo(socket, 'two'), 'two', 'what is open goes on');
  t.match(
    await seen(),
    /; 1 old process \(1 connection\) ends within 15 minutes, one connection after another$/,
  );
  await converge(edge.plugin, edgeDesired);
  t.equal(await echo(socket, 'three'), 'three');
  socket.destroy();
  await until(async () => !/old process/.test((await seen()) ?? ''), {
    what: 'nothing is left behind',
  });
});

t.test('the streams of an old process end one after another, and not before their time', async (t) => {
  await allWell();
  const { directory, runDirectory } = edge;
  const spread = { fromMs: 3000, toMs: 9000, stepMs: 300 };
  const plugin = new HaproxyPlugin({ instance: 'app', directory, runDirectory, binary: BINARY, spread });
  t.teardown(() => plugin.close());
  const sockets = await Promise.all(Array.from({ length: 20 }, () => webSocket()));
  t.teardown(() => sockets.forEach((each) => each.destroy()));
  await converge(plugin, { ...edgeDesired, edge: { ...edgeDesired.edge, hstsMaxAgeSeconds: 2 } });
  const replacedMs = performance.now();
  let step = 0;
  const ended: { readonly step: number; readonly afterMs: number }[] = [];
  for (const socket of sockets)
    socket
      .on('error', () => undefined)
      .once('close', () => {
        ended.push({ step, afterMs: performance.now() - replacedMs });
      });
  await until(
    async () => {
      step += 1;
      await plugin.heartbeat(AbortSignal.timeout(5000));
      return ended.length === sockets.length;
    },
    { everyMs: 50, deadlineMs: 30_000, what: 'all have ended' },
  );
  t.comment(ended.map(({ afterMs }) => Math.round(afterMs)).join(' '));
  // The reload itself counts, and `show proc` says whole seconds.
  t.ok((ended[0]?.afterMs ?? 0) > spread.fromMs - 2000, 'they have their time');
  const most = Math.max(...ended.map((one) => ended.filter((each) => each.step === one.step).length));
  t.ok(most <= 10, `${most} of 20 at once`);
  await converge(edge.plugin, edgeDesired);
});

t.test('a node that gets nothing new ends what lasts, and no request that is about to end', async (t) => {
  await allWell();
  const startMs = performance.now();
  const sockets = await Promise.all(Array.from({ length: 6 }, () => webSocket()));
  const openedMs = performance.now();
  t.teardown(() => sockets.forEach((each) => each.destroy()));
  let closed = 0;
  for (const socket of sockets) socket.on('error', () => undefined).once('close', () => (closed += 1));
  const end = async (share: number): Promise<unknown> =>
    edge.plugin.ask('end', { share }, AbortSignal.timeout(10_000));
  const first = await end(1);
  if (performance.now() - startMs < 10_000) t.same(first, { ended: 0 }, 'they have only begun');
  // HAProxy counts whole seconds: between the first and the last of them, a half would be of some.
  await pause(Math.max(0, openedMs + 11_500 - performance.now()));
  await until(async () => closed > 0 || ((await end(0.5)) as { ended: number }).ended > 0, {
    what: 'they last',
    everyMs: 300,
  });
  await until(() => closed === 3, { what: 'half of them' });
  await end(1);
  await until(() => closed === 6, { what: 'the rest' });
});

/** As in services.d. */
const definitions = (port: number) => ({
  whole: [
    `name = "whole"\nport = ${port}\npath_prefix = "/whole"\nhealth_path = "/up"\nhealth_host = "shop.example"`,
    `health_headers = { X-Probe = "a b=c", Authorization = "Bearer x/y+z==" }`,
    `health_body = '{"status":"ok"'\nhealth_interval_ms = 200\nhealth_fall = 1\nhealth_rise = 1`,
  ],
  head: [
    `name = "head"\nport = ${port}\npath_prefix = "/head"\nhealth_method = "HEAD"\nhealth_interval_ms = 200`,
  ],
  tcp: [`name = "tcp"\nport = ${port}\npath_prefix = "/tcp"\ncheck = "tcp"\nhealth_interval_ms = 200`],
});

t.test('HAProxy and the daemon send a service the same request and judge the answer alike', async (t) => {
  let state = { status: 200, body: '{"status":"ok","since":1}' };
  const seen = new Map<string, Set<string>>();
  const server = await bed.server(({ method = '', url = '', headers }, response) => {
    const { host, 'x-probe': probed, authorization, 'user-agent': agent } = headers;
    const from = agent === 'bornemisza-health' ? 'the daemon' : 'HAProxy';
    const request = JSON.stringify({ method, url, host, probed, authorization });
    seen.set(from, (seen.get(from) ?? new Set()).add(request));
    response.writeHead(state.status).end(method === 'HEAD' ? undefined : state.body);
  });
  const services = Object.values(definitions(server.port)).map((lines) =>
    parseService(lines.join('\n'), 'x.toml'),
  );
  const peers = { verifySuffix: 'app.shop.internal', servers: [] };
  const desired = appDesired({
    ...{ address: bed.address(5), node: await leaf('app5'), ca, databasePort: await freePort() },
    services: services.map((each) => ({
      ...{ name: each.name, prefix: each.path_prefix, healthPath: each.health_path, peers },
      ...{ healthHost: each.health_host, health: healthOf(each), localPort: each.port },
    })),
  });
  const { servers } = await bed.launch('app5', desired).then((app5) => ({
    servers: (name: string) => app5.servers(`local_${name}`),
  }));
  const asHaproxy = { kind: 'http', host: CHECK_HOST, statuses: WELL_STATUSES } as const;
  const bothSay = async (healthy: Readonly<Record<string, boolean>>, what: string): Promise<void> => {
    for (const service of services) {
      const wanted = healthy[service.name] === true;
      await until(async () => (await servers(service.name))['_local'] === (wanted ? 'UP' : 'DOWN'), {
        what: `${what}: HAProxy of ${service.name}`,
      });
      const { passed } = await probe(serviceCheck(service, asHaproxy).target, 60_000);
      t.equal(passed, wanted, `${what}: the daemon of ${service.name}`);
    }
  };
  await bothSay({ whole: true, head: true, tcp: true }, 'well');
  state = { status: 200, body: '{"status":"broken"}' };
  await bothSay({ whole: false, head: true, tcp: true }, 'another text');
  state = { status: 500, body: '{"status":"ok"' };
  await bothSay({ whole: false, head: false, tcp: true }, 'another status');
  state = { status: 200, body: '{"status":"ok"' };
  await bothSay({ whole: true, head: true, tcp: true }, 'well again');
  await new Promise((resolve) => server.close(resolve).closeAllConnections());
  await bothSay({}, 'nobody listens');
  t.equal(seen.get('the daemon')?.size, 2);
  t.strictSame([...(seen.get('HAProxy') ?? [])].sort(), [...(seen.get('the daemon') ?? [])].sort());
});

t.test('what waits for a host that is dead by two accounts is ended', async (t) => {
  await allWell();
  const desired = { ...edgeDesired, databases: { ...edgeDesired.databases, servers: [dead] } };
  let ended: number | undefined;
  const startMs = performance.now();
  const waiting = get(`http://127.0.0.1:${databasePort}/db/hang`, { method: 'PUT', timeout: 110_000 })
    .catch(() => undefined)
    .then(() => void (ended = performance.now() - startMs));
  await until(() => hanging > 0, { what: 'it waits there' });
  await converge(edge.plugin, desired);
  const out = all('db_nodes.unwatched', 'DOWN').then(async () => {
    t.equal(ended, undefined, 'it waits as long as one account is missing');
    await converge(edge.plugin, desired);
    await until(() => ended !== undefined, { what: 'it is ended' });
  });
  await db1.standStill(out);
  await waiting;
  await converge(edge.plugin, edgeDesired);
});

t.test(
  'a peer that joins or comes back gets its full share in steps, and nothing else changes',
  async (t) => {
    await allWell();
    const ramp = async (): Promise<string> => {
      const [header = '', ...lines] = (await edge.ask('show stat svc_api 4 -1')).split('\n');
      const line = lines.find((each) => each.includes(',app3,'))?.split(',') ?? [];
      const column = (name: string): string => line[header.replace(/^# /, '').split(',').indexOf(name)] ?? '';
      return `${column('status')} ${column('throttle')}`;
    };
    const planned = async (desired: AppHaproxy): Promise<string[]> =>
      edge.plugin
        .plan(desired, await edge.plugin.observe(AbortSignal.timeout(5000)))
        .map(({ summary }) => summary);
    const full = (): Promise<boolean> =>
      until(async () => (await ramp()) === 'UP ', { what: 'its full share' });
    const without = { ...edgeDesired, services: routed(two.slice(0, 1)) };
    const adds = await addsServers(edge);
    const { seen = '' } = edge.plugin.status(
      edgeDesired,
      await edge.plugin.observe(AbortSignal.timeout(5000)),
    );
    t.equal(/each new member is a reload/.test(seen), !adds, seen);
    await converge(edge.plugin, without);
    await until(
      async () => {
        await converge(edge.plugin, without);
        return (await edge.servers('svc_api'))['app3'] === (adds ? undefined : 'MAINT');
      },
      { what: 'app3 is gone' },
    );
    const joined = await converge(edge.plugin, edgeDesired);
    const said = joined.map(({ summary }) => summary).join();
    t.match(said, adds ? /svc_api\/app3: added as ready/ : /svc_api\/app3: maint → ready/);
    t.notOk(joined.some(({ kind }) => kind === 'reload'));
    t.match(await ramp(), /^UP( 1\/2)? \d\d?$/, 'it joined');
    t.strictSame(await planned(edgeDesired), [], 'a ramp is no changed weight');
    t.equal((await ask()).status, 200);
    // A reload meanwhile.
    const other = { ...edgeDesired, edge: { ...edgeDesired.edge, hstsMaxAgeSeconds: 2 } };
    await converge(edge.plugin, other);
    t.match(await ramp(), /^UP/, 'a reload keeps it up');
    t.strictSame(await planned(other), []);
    await full();
    const [first, second] = two as [(typeof two)[0], (typeof two)[0]];
    await converge(edge.plugin, { ...other, services: routed([first, { ...second, duty: 'drain' }]) });
    await converge(edge.plugin, { ...other, services: routed([first, { ...second, duty: 'maint' }]) });
    await converge(edge.plugin, other);
    t.match(await ramp(), /^UP( 1\/2)? \d\d?$/, 'it came back');
    t.strictSame(await planned(other), []);
    await full();
    await converge(edge.plugin, edgeDesired);
  },
);

t.test('servers that refuse are no reason for a panic', async (t) => {
  await allWell();
  await Promise.all([app2.stop('SIGKILL'), db1.stop('SIGKILL')]);
  const failed = [];
  for (let count = 0; count < 40; count += 1) {
    const { status } = await ask();
    if (status !== 200) failed.push(status);
  }
  t.same(failed, [], 'who refuses is passed over at once');
  await all('db_nodes.panic', 'DOWN');
  t.equal((await askDatabases()).status, 503);
});
