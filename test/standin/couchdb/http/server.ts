import { randomBytes } from 'node:crypto';
import type { Server } from 'node:http';
import { serve } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import { NodeDown, Refusal } from '../dist/distribution.ts';
import { HttpError } from '../fabric/ask.ts';
import { databaseInfo } from '../fabric/databases.ts';
import type { Node } from '../node.ts';
import { clusterSetupRoute } from './cluster_setup.ts';
import { dbRoute } from './db_routes.ts';
import {
  type Ask,
  badRequest,
  jsonObject,
  missing,
  needAdmin,
  notAllowed,
  ok,
  type Reply,
} from './message.ts';
import { nodeRoute, serveNodeRequests } from './node_routes.ts';

export type HttpFront = { close(): Promise<void> };

/** Puts HTTP on a node, at `[chttpd] port` and `bind_address`. @throws Error when it can't listen there */
export async function listen(node: Node): Promise<HttpFront> {
  serveNodeRequests(node);
  node.distribution.handle('sync.push', ({ name, to }: { name: string; to: string[] }) => {
    for (const peer of to) node.sync.push(name, peer);
  });
  const app = new Hono();
  app.all('*', async (c) => await answer(node, c));
  const { settings } = node;
  const server = await new Promise<Server>((resolve, reject) => {
    const it = serve(
      {
        fetch: app.fetch,
        port: settings.number('chttpd', 'port', 5984),
        hostname: settings.get('chttpd', 'bind_address') ?? '127.0.0.1',
      },
      () => resolve(it),
    ) as Server;
    it.once('error', reject);
  });
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(node: Node, c: Context): Promise<Response> {
  try {
    const reply = await route(node, await readAsk(node, c));
    return response(c, reply);
  } catch (error) {
    return response(c, failure(node, error));
  }
}

async function readAsk(node: Node, c: Context): Promise<Ask> {
  const url = new URL(c.req.url);
  const headers = c.req.header();
  const incoming = (c.env as { incoming?: { socket?: { remoteAddress?: string } } }).incoming;
  const path = url.pathname.split('/').slice(1).map(decode);
  if (path.at(-1) === '') path.pop();
  const query = Object.fromEntries(url.searchParams);
  const body = c.req.method === 'GET' || c.req.method === 'HEAD' ? '' : await c.req.text();
  const peer = clientOf(incoming?.socket?.remoteAddress ?? '', headers['x-forwarded-for']);
  const draft = { method: c.req.method, path, query, headers, body, peer, user: { name: null, roles: [] } };
  requireValidUser(node, draft);
  const user = await node.auth.identify(headers, peer);
  return { ...draft, user };
}

/** As mochiweb has it: from a peer with a private or loopback address the last one in X-Forwarded-For counts. */
function clientOf(remote: string, forwarded: string | undefined): string {
  const near =
    /^(?:127\.0\.0\.1$|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.)/;
  if (forwarded === undefined || !near.test(remote)) return remote;
  return forwarded.split(',').at(-1)?.trim() ?? remote;
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** `require_valid_user` shuts everything to those without a name, `_session` excepted. */
function requireValidUser({ settings }: Node, ask: Ask): void {
  const first = ask.path[0];
  const except = settings.flag('chttpd', 'require_valid_user_except_for_up', false);
  if (!settings.flag('chttpd', 'require_valid_user', false) && !except) return;
  if (first === '_session' || (except && first === '_up')) return;
  if (ask.headers.authorization !== undefined || ask.headers.cookie?.includes('AuthSession=') === true)
    return;
  throw new HttpError(401, 'unauthorized', 'Authentication required.');
}

type Route = (node: Node, ask: Ask) => Reply | Promise<Reply>;

const routes: Record<string, Route> = {
  _up: (node) => up(node),
  _session: session,
  _membership: (node, ask) => {
    needAdmin(ask);
    const all = [node.distribution.self, ...node.distribution.nodes()].toSorted();
    return ok({ all_nodes: all, cluster_nodes: node.members.list() });
  },
  _node: async (node, ask) => {
    needAdmin(ask);
    return await nodeRoute(node, ask);
  },
  _all_dbs: (node, ask) => {
    needAdmin(ask);
    if (inMaintenance(node)) throw new HttpError(412, 'nodedown', node.distribution.self);
    return ok(page(node.catalogue.databases(), ask));
  },
  _dbs_info: dbsInfo,
  _active_tasks: (_node, ask) => {
    needAdmin(ask);
    return ok([]);
  },
  _cluster_setup: async (node, ask) => {
    needAdmin(ask);
    return await clusterSetupRoute(node, ask);
  },
  _reshard: (_node, ask) => {
    needAdmin(ask);
    if (ask.path[0] === 'jobs') return ok({ total_rows: 0, offset: 0, jobs: [] });
    return ok({
      state: 'running',
      state_reason: null,
      completed: 0,
      failed: 0,
      running: 0,
      stopped: 0,
      total: 0,
    });
  },
  _scheduler: (_node, ask) => {
    needAdmin(ask);
    const key = ask.path[0] === 'jobs' ? 'jobs' : 'docs';
    return ok({ total_rows: 0, offset: 0, [key]: [] });
  },
  _db_updates: (node, ask) => {
    needAdmin(ask);
    const results = page(node.catalogue.databases(), ask).map((name, i) => ({
      db_name: name,
      type: 'created',
      seq: `${i + 1}-`,
    }));
    return ok({ results, last_seq: `${results.length}-` });
  },
  _uuids: (_node, ask) =>
    ok({
      uuids: Array.from({ length: Number(ask.query.count ?? 1) }, () => randomBytes(16).toString('hex')),
    }),
};

async function route(node: Node, ask: Ask): Promise<Reply> {
  const [first, ...rest] = ask.path;
  if (first === undefined) return ok(welcome(node));
  const found = Object.hasOwn(routes, first) ? routes[first] : undefined;
  if (found !== undefined) return await found(node, { ...ask, path: rest });
  return await dbRoute(node, first, { ...ask, path: rest });
}

function page(names: string[], ask: Ask): string[] {
  const from = Number(ask.query.skip ?? 0);
  return names.slice(from, ask.query.limit === undefined ? undefined : from + Number(ask.query.limit));
}

function inMaintenance(node: Node): boolean {
  return node.settings.get('couchdb', 'maintenance_mode') === 'true';
}

function up(node: Node): Reply {
  const mode = node.settings.get('couchdb', 'maintenance_mode');
  if (mode === 'true') return ok({ status: 'maintenance_mode' }, 404);
  if (mode === 'nolb') return ok({ status: 'nolb' }, 404);
  const seeds = node.seeds.status();
  return node.seeds.isReady ? ok({ status: 'ok', seeds }) : ok({ status: 'seeding', seeds }, 404);
}

function welcome(node: Node) {
  return {
    couchdb: 'Welcome',
    version: '3.5.0',
    git_sha: '11f0d36',
    uuid: node.settings.get('couchdb', 'uuid'),
    features: ['quickjs', 'access-ready', 'partitioned', 'pluggable-storage-engines', 'reshard', 'scheduler'],
    vendor: { name: 'The Apache Software Foundation' },
  };
}

async function session(node: Node, ask: Ask): Promise<Reply> {
  const handlers = { authentication_handlers: ['cookie', 'default'] };
  if (ask.method === 'GET') {
    const { name, roles, by } = ask.user;
    return ok({
      ok: true,
      userCtx: { name, roles },
      info: by === undefined ? handlers : { ...handlers, authenticated: by },
    });
  }
  if (ask.method === 'DELETE') return ok({ ok: true }, 200, { 'Set-Cookie': node.auth.cookieHeader('') });
  if (ask.method !== 'POST') throw notAllowed('GET,HEAD,POST,DELETE');
  const isForm = ask.headers['content-type']?.includes('x-www-form-urlencoded') === true;
  const fields = isForm ? Object.fromEntries(new URLSearchParams(ask.body)) : jsonObject(ask);
  const name = fields.name ?? fields.username;
  if (typeof name !== 'string' || typeof fields.password !== 'string')
    throw badRequest('request body must contain a username');
  const credentials = await node.auth.login(name, fields.password, ask.peer);
  const cookie = await node.auth.cookieFor(credentials);
  return ok({ ok: true, name: credentials.name, roles: credentials.roles }, 200, { 'Set-Cookie': cookie });
}

async function dbsInfo(node: Node, ask: Ask): Promise<Reply> {
  needAdmin(ask);
  const keys =
    ask.method === 'POST'
      ? ((jsonObject(ask).keys ?? []) as string[])
      : page(node.catalogue.databases(), ask);
  const rows = await Promise.all(
    keys.map(async (key) => {
      try {
        return { key, info: await databaseInfo(node.cluster, key) };
      } catch {
        return { key, error: 'not_found' };
      }
    }),
  );
  return ok(rows);
}

/** Kinds of trouble that CouchDB logs under a number. */
const numbered = new Set(['internal_server_error', 'unknown_error', 'invalid_ejson']);

function failure(node: Node, error: unknown): Reply {
  if (error instanceof HttpError) {
    const ref = numbered.has(error.error) ? { ref: refOf(error.reason) } : {};
    return ok({ error: error.error, reason: error.reason, ...ref }, error.status);
  }
  if (error instanceof NodeDown) return ok({ error: 'nodedown', reason: error.message }, 412);
  if (error instanceof Refusal && error.code === 'database_does_not_exist')
    return failure(node, missing('Database does not exist.'));
  node.log(`request failed: ${error instanceof Error ? error.stack : String(error)}`);
  return ok(
    {
      error: 'unknown_error',
      reason: error instanceof Error ? error.message : 'unknown',
      ref: refOf(String(error)),
    },
    500,
  );
}

/** The same trouble has the same number (couch_util:ref). */
function refOf(reason: string): number {
  let sum = 7;
  for (const char of reason) sum = (sum * 31 + (char.codePointAt(0) ?? 0)) % 4_294_967_291;
  return sum;
}

function response(c: Context, reply: Reply): Response {
  const accepts = c.req.header('accept') ?? '';
  const json = accepts.includes('application/json') || accepts === '';
  const headers = new Headers({
    'Content-Type': json ? 'application/json' : 'text/plain; charset=utf-8',
    'Cache-Control': 'must-revalidate',
    Server: 'CouchDB/3.5.0 (Erlang OTP/25)',
    'X-Couch-Request-ID': randomBytes(5).toString('hex'),
    'X-CouchDB-Body-Time': '0',
    ...reply.headers,
  });
  if (reply.stream !== undefined)
    return new Response(reply.stream.pipeThrough(new TextEncoderStream()), { status: 200, headers });
  return new Response(`${JSON.stringify(reply.body)}\n`, { status: reply.status, headers });
}
