/* oxlint-disable no-underscore-dangle -- CouchDB's own field names */
import { rangeOf, type Shard } from '../cluster/shard_map.ts';
import { ask as askCopy, byRange, HttpError, noShards } from '../fabric/ask.ts';
import {
  createDatabase,
  databaseInfo,
  deleteDatabase,
  openDatabase,
  setOnAll,
  shardsFor,
} from '../fabric/databases.ts';
import { copiesFor, editDocs, openDoc, openLeaves, putDocs, type Written } from '../fabric/docs.ts';
import { allDocs, Feed, find } from '../fabric/views.ts';
import type { Node } from '../node.ts';
import type { Edit, Found, Revisions, StoredDoc } from '../store/copy.ts';
import type { Body, Json } from '../store/revision.ts';
import { hashUserDoc } from './auth.ts';
import {
  type Ask,
  badRequest,
  bodyOf,
  conflict,
  isAdmin,
  json,
  jsonObject,
  missing,
  needAdmin,
  notAllowed,
  ok,
  queryJson,
  type Reply,
} from './message.ts';
import { rowsReply, windowOf } from './node_routes.ts';

const systemDbs = new Set(['_users', '_replicator', '_global_changes']);

/** `/DB` and below. */
export async function dbRoute(node: Node, db: string, ask: Ask): Promise<Reply> {
  if (ask.path.length === 0 && (ask.method === 'PUT' || ask.method === 'DELETE'))
    return await makeOrRemove(node, db, ask);
  const { security, revsLimit } = await openDatabase(node.cluster, db);
  authorize(db, security, ask);
  const [first, ...rest] = ask.path;
  const route = first !== undefined && Object.hasOwn(routes, first) ? routes[first] : undefined;
  if (route !== undefined) return await route(node, db, { ...ask, path: rest }, { security, revsLimit });
  if (first === undefined)
    return ask.method === 'POST' ? await postDoc(node, db, ask) : ok(await databaseInfo(node.cluster, db));
  return await docRoute(node, db, docIdOf(ask.path), ask);
}

function docIdOf(path: string[]): string {
  return path.join('/');
}

async function makeOrRemove(node: Node, db: string, ask: Ask): Promise<Reply> {
  needAdmin(ask);
  if (!/^[a-z][a-z0-9_$()+/-]*$/.test(db) && !systemDbs.has(db)) {
    const rule =
      'Only lowercase characters (a-z), digits (0-9), and any of the characters _, $, (, ), +, -, and / ' +
      'are allowed. Must begin with a letter.';
    throw new HttpError(400, 'illegal_database_name', `Name: '${db}'. ${rule}`);
  }
  if (ask.method === 'DELETE') return ok({ ok: true }, await deleteDatabase(node.cluster, db));
  const options = {
    ...(ask.query.q === undefined ? {} : { q: Number(ask.query.q) }),
    ...(ask.query.n === undefined ? {} : { n: Number(ask.query.n) }),
  };
  const status = await createDatabase(node.cluster, db, options);
  return ok({ ok: true }, status);
}

/** A database is for its members; without any named, for everybody; `_users` keeps its own counsel. */
function authorize(db: string, security: Body, { user }: Ask): void {
  if (isAdmin(user)) return;
  const members = (security.members ?? {}) as { names?: string[]; roles?: string[] };
  const admins = (security.admins ?? {}) as { names?: string[]; roles?: string[] };
  const open = (members.names ?? []).length === 0 && (members.roles ?? []).length === 0 && db !== '_users';
  const has = (part: { names?: string[]; roles?: string[] }) =>
    (user.name !== null && part.names?.includes(user.name)) ||
    user.roles.some((role) => part.roles?.includes(role));
  if (open || has(members) || has(admins)) return;
  if (user.name === null)
    throw new HttpError(401, 'unauthorized', 'You are not authorized to access this db.');
  throw new HttpError(403, 'forbidden', 'You are not allowed to access this db.');
}

type Opened = { security: Body; revsLimit: number };
type Route = (node: Node, db: string, ask: Ask, opened: Opened) => Reply | Promise<Reply>;

const routes: Record<string, Route> = {
  _all_docs: allDocsReply,
  _design_docs: (node, db, ask) =>
    allDocsReply(node, db, { ...ask, query: { ...ask.query, startkey: '"_design/"', endkey: '"_design0"' } }),
  _changes: changesReply,
  _bulk_docs: bulkDocs,
  _bulk_get: bulkGet,
  _revs_diff: revsDiff,
  _missing_revs: async (node, db, ask) => {
    const reply = await revsDiff(node, db, ask);
    const diff = reply.body as Record<string, { missing: string[] }>;
    return ok({
      missed_revs: Object.fromEntries(Object.entries(diff).map(([id, { missing: revs }]) => [id, revs])),
    });
  },
  _find: findReply,
  _index: () =>
    ok({
      total_rows: 1,
      indexes: [{ ddoc: null, name: '_all_docs', type: 'special', def: { fields: [{ _id: 'asc' }] } }],
    }),
  _security: securityReply,
  _revs_limit: revsLimitReply,
  _shards: shardsReply,
  _sync_shards: syncShards,
  _local: localReply,
  _local_docs: localDocsReply,
  _ensure_full_commit: () => ok({ ok: true, instance_start_time: '0' }, 201),
  _compact: () => ok({ ok: true }, 202),
  _view_cleanup: () => ok({ ok: true }, 202),
};

async function allDocsReply(node: Node, db: string, ask: Ask): Promise<Reply> {
  const window = windowOf(ask);
  const { total, offset, rows } = await allDocs(node.cluster, db, window);
  return ok({ total_rows: total, offset, rows: rowsReply(rows, window.keys) });
}

async function changesReply(node: Node, db: string, ask: Ask): Promise<Reply> {
  const limit = Number(ask.query.limit ?? Number.MAX_SAFE_INTEGER);
  const feed = new Feed(node.cluster, db, {
    since: ask.headers['last-event-id'] ?? ask.query.since ?? '0',
    limit,
    docs: ask.query.include_docs === 'true',
    allLeaves: ask.query.style === 'all_docs',
    conflicts: ask.query.conflicts === 'true',
  });
  await feed.open();
  if (ask.query.feed === 'continuous')
    return { status: 200, body: undefined, stream: continuous(feed, limit, ask) };
  const waitMs = ask.query.feed === 'longpoll' ? Number(ask.query.timeout ?? 60_000) : 0;
  const rows = await feed.next(limit, waitMs);
  if (ask.query.descending === 'true') rows.reverse();
  const docIds = ask.query.filter === '_doc_ids' ? (jsonObject(ask).doc_ids as string[]) : undefined;
  const results = docIds === undefined ? rows : rows.filter(({ id }) => docIds.includes(id));
  return ok({ results, last_seq: feed.seq, pending: feed.pending });
}

/** Lines for as long as the client listens, blank ones as a heartbeat. */
function continuous(feed: Feed, limit: number, ask: Ask): ReadableStream<string> {
  const heartbeatMs = Number(ask.query.heartbeat === 'true' ? 60_000 : (ask.query.heartbeat ?? 0));
  const timeoutMs = Number(ask.query.timeout ?? 60_000);
  let sent = 0;
  let ended = false;
  return new ReadableStream<string>({
    async pull(controller) {
      const rows = await feed.next(limit - sent, heartbeatMs || timeoutMs).catch(() => undefined);
      if (ended) return;
      for (const row of rows ?? []) controller.enqueue(`${JSON.stringify(row)}\n`);
      sent += rows?.length ?? 0;
      if (rows === undefined || sent >= limit || (rows.length === 0 && heartbeatMs === 0)) {
        controller.enqueue(`${JSON.stringify({ last_seq: feed.seq, pending: feed.pending })}\n`);
        controller.close();
      } else if (rows.length === 0) controller.enqueue('\n');
    },
    cancel() {
      ended = true;
    },
  });
}

async function findReply(node: Node, db: string, ask: Ask): Promise<Reply> {
  const query = jsonObject(ask);
  const limit = Number(query.limit ?? 25);
  const fields = query.fields as string[] | undefined;
  const docs = await find(node.cluster, db, (query.selector ?? {}) as Body, limit + Number(query.skip ?? 0));
  const page = docs.slice(Number(query.skip ?? 0));
  const last = page.at(-1)?._id as string | undefined;
  return ok({
    docs:
      fields === undefined
        ? page
        : page.map((doc) => Object.fromEntries(fields.map((field) => [field, doc[field]]))),
    bookmark: last === undefined ? 'nil' : Buffer.from(last).toString('base64url'),
    warning: 'No matching index found, create an index to optimize query time.',
  });
}

async function securityReply(node: Node, db: string, ask: Ask, { security }: Opened): Promise<Reply> {
  if (ask.method !== 'PUT') return ok(security);
  needAdmin(ask);
  const isEditable = node.settings.flag('couchdb', 'users_db_security_editable', false);
  if (db === '_users' && !isEditable)
    throw new HttpError(403, 'forbidden', "You can't edit the security object of the user database.");
  await setOnAll(node.cluster, db, 'set_security', { security: jsonObject(ask) }, (peer, op, args) =>
    node.buffer(peer, op, args),
  );
  return ok({ ok: true });
}

async function revsLimitReply(node: Node, db: string, ask: Ask, { revsLimit }: Opened): Promise<Reply> {
  if (ask.method !== 'PUT') return ok(revsLimit);
  needAdmin(ask);
  await setOnAll(node.cluster, db, 'set_revs_limit', { limit: Number(json(ask)) }, (peer, op, args) =>
    node.buffer(peer, op, args),
  );
  return ok({ ok: true });
}

/** Holders come in the opposite of the map's order. */
function shardsReply(node: Node, db: string, ask: Ask): Reply {
  const id = docIdOf(ask.path);
  if (id !== '') {
    const { range, nodes } = rangeOf(node.catalogue.map(db), id);
    return ok({ range, nodes: nodes.toReversed() });
  }
  const shards = byRange(shardsFor(node.cluster, db));
  return ok({
    shards: Object.fromEntries(
      shards.map((copies) => [rangeName(copies), copies.map((s) => s.node).toReversed()]),
    ),
  });
}

function rangeName(copies: Shard[]): string {
  return copies[0]?.range ?? '';
}

async function syncShards(node: Node, db: string, ask: Ask): Promise<Reply> {
  if (ask.method !== 'POST') throw notAllowed('POST');
  needAdmin(ask);
  for (const copies of byRange(shardsFor(node.cluster, db))) {
    for (const { name, node: from } of copies) {
      const to = copies.map((copy) => copy.node).filter((peer) => peer !== from);
      void node.distribution.call(from, 'sync.push', { name, to }).catch(() => undefined);
    }
  }
  return ok({ ok: true }, 202);
}

async function localReply(node: Node, db: string, ask: Ask): Promise<Reply> {
  const id = `_local/${docIdOf(ask.path)}`;
  const shards = copiesFor(node.cluster, db, id);
  const set = async (body: Body | null) => {
    const done = await Promise.all(
      shards.map((s) =>
        askCopy(node.cluster, s, 'put_local', { id, body }).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (!done.includes(true)) throw noShards();
  };
  if (ask.method === 'PUT') {
    await set(bodyOf(jsonObject(ask)));
    return ok({ ok: true, id, rev: '0-1' }, 201);
  }
  const found = await Promise.all(
    shards.map((s) => askCopy<Body | null>(node.cluster, s, 'local', { id }).catch(() => undefined)),
  );
  if (found.every((body) => body === undefined)) throw noShards();
  const body = found.find((it) => it !== undefined && it !== null);
  if (body === undefined || body === null) throw missing();
  if (ask.method === 'DELETE') {
    await set(null);
    return ok({ ok: true, id, rev: '0-0' });
  }
  return ok({ _id: id, _rev: '0-1', ...body });
}

function localDocsReply(): Reply {
  return ok({ total_rows: null, offset: null, rows: [] });
}

async function postDoc(node: Node, db: string, ask: Ask): Promise<Reply> {
  const doc = jsonObject(ask, 'Document must be a JSON object');
  const id = (doc._id as string | undefined) ?? crypto.randomUUID().replaceAll('-', '');
  return await writeDoc(node, db, id, doc, undefined, ask);
}

/** `/DB/ID`. */
async function docRoute(node: Node, db: string, id: string, ask: Ask): Promise<Reply> {
  if (ask.method === 'GET' || ask.method === 'HEAD') return await readDoc(node, db, id, ask);
  const rev = ask.query.rev ?? ask.headers['if-match']?.replaceAll('"', '');
  if (ask.method === 'PUT')
    return await writeDoc(node, db, id, jsonObject(ask, 'Document must be a JSON object'), rev, ask);
  if (ask.method !== 'DELETE') throw notAllowed('DELETE,GET,HEAD,POST,PUT,COPY');
  const lookup = await openDoc(node.cluster, db, id, {});
  if ('missing' in lookup) throw missing(lookup.missing);
  return await writeDoc(node, db, id, { _deleted: true }, rev, ask);
}

async function readDoc(node: Node, db: string, id: string, ask: Ask): Promise<Reply> {
  if (db === '_users') maySeeUser((await openDatabase(node.cluster, db)).security, id, ask);
  if (ask.query.open_revs !== undefined) return ok(await openRevs(node, db, id, ask));
  const lookup = await openDoc(node.cluster, db, id, {
    ...(ask.query.rev === undefined ? {} : { rev: ask.query.rev }),
    ...(ask.query.r === undefined ? {} : { r: Number(ask.query.r) }),
  });
  if ('missing' in lookup) throw missing(lookup.missing);
  return ok(shownDoc(id, lookup.found, ask), 200, { ETag: `"${lookup.found.rev}"` });
}

function shownDoc(id: string, found: Found, ask: Ask): Body {
  const { rev, revs, deleted, body, conflicts, deletedConflicts } = found;
  const wants = (key: string) => ask.query[key] === 'true' || ask.query.meta === 'true';
  return {
    _id: id,
    _rev: rev,
    ...(deleted ? { _deleted: true } : {}),
    ...body,
    ...(ask.query.revs === 'true' ? { _revisions: { start: revs.start, ids: revs.ids } } : {}),
    ...(wants('conflicts') && conflicts.length > 0 ? { _conflicts: conflicts } : {}),
    ...(wants('deleted_conflicts') && deletedConflicts.length > 0
      ? { _deleted_conflicts: deletedConflicts }
      : {}),
  };
}

async function openRevs(node: Node, db: string, id: string, ask: Ask): Promise<unknown[]> {
  const leaves = await openLeaves(node.cluster, db, id);
  const wanted = ask.query.open_revs === 'all' ? undefined : (queryJson(ask, 'open_revs') as string[]);
  const shown = leaves.map((leaf) => ({ rev: revOf(leaf.revs), ok: storedDocShown(leaf) }));
  if (wanted === undefined) return shown.map(({ ok: doc }) => ({ ok: doc }));
  return wanted.map((rev) => {
    const found = shown.find((leaf) => leaf.rev === rev);
    return found === undefined ? { missing: rev } : { ok: found.ok };
  });
}

function revOf(revs: Revisions): string {
  return `${revs.start}-${revs.ids[0]}`;
}

function storedDocShown(doc: StoredDoc): Body {
  const revisions = { start: doc.revs.start, ids: doc.revs.ids };
  return {
    _id: doc.id,
    _rev: revOf(doc.revs),
    ...(doc.deleted ? { _deleted: true } : {}),
    ...doc.body,
    _revisions: revisions,
  };
}

async function writeDoc(
  node: Node,
  db: string,
  id: string,
  doc: Body,
  rev: string | undefined,
  ask: Ask,
): Promise<Reply> {
  if (id.startsWith('_') && !id.startsWith('_design/'))
    throw badRequest('Only reserved document ids may start with underscore.');
  if (db === '_users') mayEditUser((await openDatabase(node.cluster, db)).security, { ...doc, _id: id }, ask);
  const edit = await editOf(db, { ...doc, _id: id, ...(rev === undefined ? {} : { _rev: rev }) });
  if (ask.query.new_edits === 'false') {
    const whole = await putDocs(node.cluster, db, [storedOf({ ...doc, _id: id })]);
    return ok({ ok: true, id, rev: doc._rev }, whole ? 201 : 202);
  }
  const [written] = await editDocs(node.cluster, db, [edit], quorumOf(ask));
  if (written === undefined || 'error' in written) throw conflict();
  const status = written.status === 'accepted' && !edit.deleted ? 202 : ask.method === 'DELETE' ? 200 : 201;
  return ok({ ok: true, id, rev: written.rev }, status, { ETag: `"${written.rev}"` });
}

function quorumOf(ask: Ask): number | undefined {
  return ask.query.w === undefined ? undefined : Number(ask.query.w);
}

/**
 * Who may write a user document: administrators of the server, those of the database by its `_security` (not to
 * delete), and the user itself (share/server/validate function of `_users/_design/_auth`, couch_users_db.erl).
 */
function mayEditUser(security: Body, doc: Body, ask: Ask): void {
  const { user } = ask;
  if (isAdmin(user) || isOwnUser(doc._id, ask)) return;
  maySeeUser(security, doc._id, ask);
  if (doc._deleted === true) throw new HttpError(403, 'forbidden', 'Only admins may delete other user docs.');
  const roles = (doc.roles ?? []) as string[];
  if (roles.some((role) => role.startsWith('_')))
    throw new HttpError(403, 'forbidden', 'No system roles (starting with underscore) in users db.');
}

function isOwnUser(id: unknown, { user }: Ask): boolean {
  return user.name !== null && id === `org.couchdb.user:${user.name}`;
}

/** Of other users nobody but an administrator, of the server or of the database, learns that they are there. */
function maySeeUser(security: Body, id: unknown, ask: Ask): void {
  if (isAdmin(ask.user) || isOwnUser(id, ask)) return;
  const { roles } = (security.admins ?? {}) as { roles?: string[] };
  if (!ask.user.roles.some((role) => roles?.includes(role))) throw missing();
}

async function editOf(db: string, doc: Body): Promise<Edit> {
  const isUser = db === '_users' && typeof doc._id === 'string' && doc._id.startsWith('org.couchdb.user:');
  const body = bodyOf(isUser ? await hashUserDoc(doc) : doc);
  const rev = doc._rev as string | undefined;
  return {
    id: doc._id as string,
    deleted: doc._deleted === true,
    body,
    ...(rev === undefined ? {} : { rev }),
  };
}

/** A document as a replicator sends it, with its `_revisions` where it has them. */
function storedOf(doc: Body): StoredDoc {
  const rev = doc._rev as string;
  const at = rev.indexOf('-');
  const given = doc._revisions as { start: number; ids: string[] } | undefined;
  const revs = given ?? { start: Number(rev.slice(0, at)), ids: [rev.slice(at + 1)] };
  return { id: doc._id as string, revs, deleted: doc._deleted === true, body: bodyOf(doc) };
}

async function bulkDocs(node: Node, db: string, ask: Ask): Promise<Reply> {
  if (ask.method !== 'POST') throw notAllowed('POST');
  const { docs, new_edits: newEdits } = jsonObject(ask) as { docs?: Body[]; new_edits?: Json };
  if (!Array.isArray(docs)) throw badRequest('POST body must include `docs` parameter.');
  if (newEdits === false) {
    const whole = await putDocs(node.cluster, db, docs.map(storedOf));
    return ok([], whole ? 201 : 202);
  }
  const edits = await Promise.all(
    docs.map((doc) => editOf(db, { _id: crypto.randomUUID().replaceAll('-', ''), ...doc })),
  );
  const results = await editDocs(node.cluster, db, edits, quorumOf(ask));
  const accepted = results.some((result) => 'status' in result && result.status === 'accepted');
  return ok(results.map(bulkResult), accepted ? 202 : 201);
}

function bulkResult(result: Written) {
  if ('error' in result) return { id: result.id, error: 'conflict', reason: 'Document update conflict.' };
  return {
    ok: true,
    id: result.id,
    rev: result.rev,
    ...(result.status === 'accepted' ? { accepted: true } : {}),
  };
}

async function bulkGet(node: Node, db: string, ask: Ask): Promise<Reply> {
  const { docs } = jsonObject(ask) as { docs: { id: string; rev?: string }[] };
  const results = await Promise.all(
    docs.map(async ({ id, rev }) => {
      const leaves = await openLeaves(node.cluster, db, id);
      const wanted = leaves.filter((leaf) => rev === undefined || revOf(leaf.revs) === rev);
      const error = { error: { id, rev: rev ?? 'undefined', error: 'not_found', reason: 'missing' } };
      return {
        id,
        docs: wanted.length === 0 ? [error] : wanted.map((leaf) => ({ ok: storedDocShown(leaf) })),
      };
    }),
  );
  return ok({ results });
}

async function revsDiff(node: Node, db: string, ask: Ask): Promise<Reply> {
  const wanted = jsonObject(ask) as Record<string, string[]>;
  const out: Record<string, { missing: string[] }> = {};
  for (const [id, revs] of Object.entries(wanted)) {
    const answers = await Promise.all(
      copiesFor(node.cluster, db, id).map((shard) =>
        askCopy<Record<string, string[]>>(node.cluster, shard, 'missing', { wanted: { [id]: revs } }).catch(
          () => undefined,
        ),
      ),
    );
    const live = answers.filter((answer) => answer !== undefined);
    if (live.length === 0) throw noShards();
    const lacking = revs.filter((rev) => live.every((answer) => answer[id]?.includes(rev)));
    if (lacking.length > 0) out[id] = { missing: lacking };
  }
  return ok(out);
}
