import { HttpError } from '../fabric/ask.ts';
import { createDatabase } from '../fabric/databases.ts';
import type { Node } from '../node.ts';
import type { Body } from '../store/revision.ts';
import { hashPassword } from './auth.ts';
import { type Ask, badRequest, conflict, notAllowed, ok, type Reply } from './message.ts';

const finishTimeoutMs = 6000;

/** `/_cluster_setup`, whose 201 means little: see each action. */
export async function clusterSetupRoute(node: Node, ask: Ask): Promise<Reply> {
  if (ask.method === 'GET') return ok({ state: stateOf(node) });
  if (ask.method !== 'POST') throw notAllowed('GET,POST');
  if (ask.headers['content-type']?.includes('application/json') !== true) {
    throw new HttpError(415, 'bad_content_type', 'Content-Type must be application/json');
  }
  const body = parse(ask.body);
  switch (body.action) {
    case 'enable_cluster':
      return await enableCluster(node, body, ask);
    case 'enable_single_node':
      return await enableSingleNode(node, body);
    case 'add_node':
      return await addNode(node, body);
    case 'remove_node':
      return ok({ ok: true }, 201); // does nothing at all
    case 'finish_cluster':
      return await finishCluster(node);
    case 'receive_cookie':
      node.distribution.cookie = body.cookie as string;
      return ok({ ok: true }, 201);
    default:
      throw badRequest("Invalid Action'");
  }
}

function parse(text: string): Body {
  try {
    return JSON.parse(text) as Body;
  } catch {
    throw badRequest("Missing JSON body'");
  }
}

function isLoopback(address: string): boolean {
  return address === '127.0.0.1' || address === '::1';
}

function stateOf({ settings, catalogue }: Node): string {
  const enabled = !isLoopback(settings.get('chttpd', 'bind_address') ?? '127.0.0.1');
  if (settings.get('cluster', 'n') === '1') {
    if (catalogue.has('_users') && catalogue.has('_replicator') && enabled) return 'single_node_enabled';
    return 'single_node_disabled';
  }
  if (!enabled) return 'cluster_disabled';
  return catalogue.has('_users') && catalogue.has('_replicator') ? 'cluster_finished' : 'cluster_enabled';
}

async function enableCluster(node: Node, body: Body, ask: Ask): Promise<Reply> {
  if (body.remote_node !== undefined) {
    await enableRemote(body).catch(() => undefined); // refused by the peer: 201 all the same
    return ok({ ok: true }, 201);
  }
  const state = stateOf(node);
  if (state !== 'cluster_disabled') throw badRequest('Cluster is already enabled');
  const address =
    (body.bind_address as string | undefined) ?? node.settings.get('chttpd', 'bind_address') ?? '127.0.0.1';
  if (isLoopback(address)) {
    throw new HttpError(500, 'error', 'Cluster setup requires a remote bind_address (not 127.0.0.1 nor ::1)');
  }
  if (body.node_count === undefined)
    throw new HttpError(500, 'error', 'Cluster setup requires node_count to be configured');
  if (!/^[\d.:a-f]+$/.test(address)) throw new HttpError(500, 'error', 'ok');
  await node.settings.set('cluster', 'n', String(Math.min(3, Number(body.node_count))), true);
  await setAdmin(node, body);
  await node.settings.set('chttpd', 'bind_address', address, true);
  setTimeout(() => process.emit('SIGHUP'), 20);
  return ok({ ok: ask.method === 'POST' }, 201);
}

async function setAdmin(node: Node, body: Body): Promise<void> {
  if (typeof body.username !== 'string' || typeof body.password !== 'string') return;
  await node.settings.set('admins', body.username, await hashPassword(body.password), true);
}

async function enableSingleNode(node: Node, body: Body): Promise<Reply> {
  await node.settings.set('cluster', 'n', '1', true);
  await setAdmin(node, body);
  // With a member that is away the answer is the same, and the databases are not made.
  const isWhole = node.members.list().every((member) => node.distribution.isConnected(member));
  for (const db of isWhole ? ['_users', '_replicator'] : []) {
    await createDatabase(node.cluster, db, { props: false }).catch(() => undefined);
  }
  return ok({ ok: true }, 201);
}

async function enableRemote(body: Body): Promise<void> {
  const url = `http://${body.remote_node as string}:${(body.port as number | undefined) ?? 5984}/_cluster_setup`;
  await fetch(url, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      ...basic(body.remote_current_user, body.remote_current_password),
    },
    body: JSON.stringify({ ...body, remote_node: undefined }),
  });
}

function basic(user: unknown, password: unknown): Record<string, string> {
  return { Authorization: `Basic ${Buffer.from(`${String(user)}:${String(password)}`).toString('base64')}` };
}

/** Sends the cookie over plain HTTP, asks for the peer's name and enters it; wrong credentials are no error. */
async function addNode(node: Node, body: Body): Promise<Reply> {
  const state = stateOf(node);
  if (state !== 'cluster_enabled' && state !== 'cluster_finished')
    throw badRequest('Cluster is not enabled.');
  if (body.host === undefined) throw new HttpError(500, 'unknown_error', 'badarg');
  const base = `http://${body.host as string}:${(body.port as number | undefined) ?? 5984}`;
  const headers = { 'Content-Type': 'application/json', ...basic(body.username, body.password) };
  const cookie = JSON.stringify({ action: 'receive_cookie', cookie: node.distribution.cookie });
  let name: string | undefined;
  try {
    await fetch(`${base}/_cluster_setup`, { method: 'POST', headers, body: cookie });
    const reply = await fetch(`${base}/_node/_local`, { headers });
    name = ((await reply.json()) as { name?: string }).name;
  } catch (error) {
    throw connectionError(error);
  }
  if (name === undefined) return ok({ ok: true }, 201);
  const { copy } = await node.files.create('_nodes');
  if ('error' in copy.edit({ id: name, deleted: false, body: {} })) throw conflict();
  await node.files.flush('_nodes');
  return ok({ ok: true }, 201);
}

function connectionError(error: unknown): HttpError {
  const code = ((error as Error).cause as { code?: string } | undefined)?.code;
  if (code === 'ECONNREFUSED') return badRequest('Add node failed. Invalid Host and/or Port.');
  return new HttpError(500, 'invalid_ejson', '{conn_failed,{error,ehostunreach}}');
}

/** Creates the system databases and copies admins, uuid and secret of this node to all members. */
async function finishCluster(node: Node): Promise<Reply> {
  if (node.catalogue.has('_users') && node.catalogue.has('_replicator'))
    throw badRequest('Cluster is already finished');
  const deadline = performance.now() + finishTimeoutMs;
  while (!node.members.list().every((member) => node.distribution.isConnected(member))) {
    if (performance.now() > deadline) {
      throw new HttpError(500, 'setup_error', 'Cluster setup timed out waiting for nodes to connect');
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  for (const db of ['_users', '_replicator']) await createDatabase(node.cluster, db, { props: false });
  for (const member of node.members.live()) await spreadSettings(node, member);
  return ok({ ok: true }, 201);
}

async function spreadSettings(node: Node, member: string): Promise<void> {
  const { settings, distribution } = node;
  const admins = Object.entries(settings.section('admins')).map(([name, hash]) => ['admins', name, hash]);
  const rest = [
    ['couchdb', 'uuid', settings.get('couchdb', 'uuid')],
    ['chttpd_auth', 'secret', settings.get('chttpd_auth', 'secret')],
  ];
  for (const [section, key, value] of [...admins, ...rest]) {
    if (value === undefined) continue;
    const path = ['_config', section as string, key as string];
    const user = { name: null, roles: ['_admin'] };
    const ask: Ask = {
      method: 'PUT',
      path,
      query: {},
      headers: {},
      body: JSON.stringify(value),
      peer: '',
      user,
    };
    await distribution.call(member, 'node.request', ask);
  }
}
