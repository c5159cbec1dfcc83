/* oxlint-disable no-underscore-dangle -- CouchDB's own field names */
import type { Refusal } from '../dist/distribution.ts';
import { validateMap } from '../cluster/shard_map.ts';
import { HttpError } from '../fabric/ask.ts';
import { changesOf, rowsOf, type Window } from '../fabric/worker.ts';
import type { Node } from '../node.ts';
import type { Copy } from '../store/copy.ts';
import type { Body } from '../store/revision.ts';
import { hashPassword } from './auth.ts';
import {
  type Ask,
  badRequest,
  bodyOf,
  conflict,
  json,
  jsonObject,
  missing,
  notAllowed,
  ok,
  queryJson,
  type Reply,
} from './message.ts';

/** `/_node/NAME/…`: here, or on the node of that name through the mesh. `path` still begins with the name. */
export async function nodeRoute(node: Node, ask: Ask): Promise<Reply> {
  const [name = '', ...path] = ask.path;
  const { distribution, members } = node;
  if (path.length === 0) {
    if (name !== '_local') throw missing();
    return ok({ name: distribution.self });
  }
  if (name === '_local' || name === distribution.self) return await localRoute(node, { ...ask, path });
  if (!members.isHeardOf(name)) throw missing(`no such node: ${name}`);
  await distribution.connect(name);
  return await distribution.call<Reply>(name, 'node.request', { ...ask, path });
}

export function serveNodeRequests(node: Node): void {
  node.distribution.handle('node.request', async (ask: Ask): Promise<Reply> => {
    try {
      return await localRoute(node, ask);
    } catch (error) {
      if (error instanceof HttpError) return ok({ error: error.error, reason: error.reason }, error.status);
      throw error;
    }
  });
}

async function localRoute(node: Node, ask: Ask): Promise<Reply> {
  const [first = '', ...path] = ask.path;
  const inner = { ...ask, path };
  switch (first) {
    case '_config':
      return await configRoute(node, inner);
    case '_system':
      return ok(system(node));
    case '_stats':
      return ok({});
    case '_versions':
      return ok(versions);
    case '_all_dbs':
      return ok(await node.files.list());
    case '_restart':
      if (ask.method !== 'POST') throw notAllowed('POST');
      setTimeout(() => process.emit('SIGHUP'), 20);
      return ok({ ok: true });
    default:
      return await copyRoute(node, first, inner);
  }
}

async function configRoute({ settings }: Node, ask: Ask): Promise<Reply> {
  const [section, key] = ask.path;
  if (section === undefined) return ok(settings.all());
  if (section === '_reload') {
    settings.reload();
    return ok({ ok: true });
  }
  if (key === undefined) return ok(settings.section(section));
  const old = settings.get(section, key);
  const persist = ask.headers['x-couch-persist'] !== 'false';
  if (ask.method === 'PUT') {
    if (settings.isBlacklisted(section)) {
      throw new HttpError(403, 'forbidden', 'Config section blacklisted for modification over HTTP API.');
    }
    const value = configValue(ask);
    const hashed = section === 'admins' && !value.startsWith('-') ? await hashPassword(value) : value;
    await settings.set(section, key, hashed, persist);
    return ok(old ?? '');
  }
  if (old === undefined) throw missing('unknown_config_value');
  if (ask.method === 'DELETE') await settings.set(section, key, undefined, persist);
  return ok(old);
}

function configValue(ask: Ask): string {
  let value: unknown;
  try {
    value = JSON.parse(ask.body);
  } catch {
    throw badRequest('invalid UTF-8 JSON');
  }
  if (typeof value !== 'string') throw badRequest('a JSON string expected');
  return value;
}

/** Node-local databases (`_nodes`, `_dbs`, `_users`) and single copies (`shards/RANGE/DB.SUFFIX`). */
async function copyRoute(node: Node, name: string, ask: Ask): Promise<Reply> {
  const copy = node.files.open(name);
  if (copy === undefined) throw missing('Database does not exist.');
  const reply = await copyReply(node, copy, ask);
  await node.files.flush(name);
  return reply;
}

async function copyReply(node: Node, copy: Copy, ask: Ask): Promise<Reply> {
  const [first, ...rest] = ask.path;
  switch (first) {
    case undefined:
      return ok(copyInfo(copy));
    case '_all_docs':
      return ok(allDocsReply(copy, ask));
    case '_changes':
      return ok(await changesReply(copy, ask));
    case '_local_docs':
      return ok(localDocsReply(copy, ask));
    case '_local':
      return localDocReply(copy, `_local/${rest.join('/')}`, ask);
    case '_security':
      if (ask.method === 'PUT') {
        copy.setSecurity(jsonObject(ask));
        return ok({ ok: true });
      }
      return ok(copy.security);
    case '_revs_limit':
      if (ask.method === 'PUT') {
        copy.setRevsLimit(Number(json(ask)));
        return ok({ ok: true });
      }
      return ok(copy.revsLimit);
    default:
      return docReply(node, copy, [first, ...rest].join('/'), ask);
  }
}

function copyInfo(copy: Copy): Body {
  const info = copy.info();
  return {
    db_name: info.db_name,
    engine: 'couch_bt_engine',
    doc_count: info.doc_count,
    doc_del_count: info.doc_del_count,
    update_seq: info.update_seq,
    purge_seq: 0,
    compact_running: false,
    sizes: { active: info.external, external: info.external, file: info.external * 2 + 4096 },
    instance_start_time: info.instance_start_time,
    disk_format_version: 8,
    committed_update_seq: info.update_seq,
    compacted_seq: 0,
    props: {},
    uuid: info.uuid,
  };
}

export function windowOf(ask: Ask): Window & { skip: number } {
  const key = queryJson(ask, 'key');
  const start = key ?? queryJson(ask, 'startkey') ?? queryJson(ask, 'start_key');
  const end = key ?? queryJson(ask, 'endkey') ?? queryJson(ask, 'end_key');
  const posted = ask.method === 'POST' && ask.body !== '' ? jsonObject(ask) : {};
  const keys = posted.keys ?? queryJson(ask, 'keys');
  const limit = ask.query.limit ?? (posted.limit as number | undefined);
  return {
    ...(start === undefined ? {} : { start: start as string }),
    ...(end === undefined ? {} : { end: end as string }),
    ...(limit === undefined ? {} : { limit: Number(limit) }),
    ...(Array.isArray(keys) ? { keys: keys as string[] } : {}),
    inclusiveEnd: ask.query.inclusive_end !== 'false',
    descending: ask.query.descending === 'true',
    docs: ask.query.include_docs === 'true' || posted.include_docs === true,
    conflicts: ask.query.conflicts === 'true',
    skip: Number(ask.query.skip ?? 0),
  };
}

export function rowsReply(
  rows: { id: string; rev: string; deleted?: true; doc?: Body }[],
  keys: string[] | undefined,
): unknown[] {
  const shown = new Map(rows.map(({ id, rev, deleted, doc }) => [id, rowReply(id, rev, deleted, doc)]));
  if (keys === undefined) return [...shown.values()];
  return keys.map((key) => shown.get(key) ?? { key, error: 'not_found' });
}

function rowReply(id: string, rev: string, deleted: true | undefined, doc: Body | undefined) {
  if (deleted) return { id, key: id, value: { rev, deleted: true }, doc: null };
  return { id, key: id, value: { rev }, ...(doc === undefined ? {} : { doc }) };
}

function allDocsReply(copy: Copy, ask: Ask) {
  const window = windowOf(ask);
  const { total, rows } = rowsOf(copy, window);
  return { total_rows: total, offset: window.skip, rows: rowsReply(rows.slice(window.skip), window.keys) };
}

/** `last_seq` is the last change's, not the copy's: a `_security` that was set raises only the latter. */
async function changesReply(copy: Copy, ask: Ask) {
  const limit = Number(ask.query.limit ?? Number.MAX_SAFE_INTEGER);
  const waitMs = ask.query.feed === 'longpoll' ? { waitMs: Number(ask.query.timeout ?? 60_000) } : {};
  const since = ask.query.since === 'now' ? copy.seq : Number(ask.query.since ?? 0);
  const descending = ask.query.descending === 'true';
  const { changes } = await changesOf(copy, {
    since,
    limit: descending ? Number.MAX_SAFE_INTEGER : limit,
    docs: ask.query.include_docs === 'true',
    allLeaves: ask.query.style === 'all_docs',
    conflicts: ask.query.conflicts === 'true',
    ...waitMs,
  });
  const results = descending ? changes.toReversed().slice(0, limit) : changes;
  return { results, last_seq: results.at(-1)?.seq ?? since };
}

function localDocsReply(copy: Copy, ask: Ask) {
  const withDocs = ask.query.include_docs === 'true';
  const rows = copy.localIds().map((id) => {
    const doc = withDocs ? { doc: { _id: id, _rev: '0-1', ...copy.local(id) } } : {};
    return { id, key: id, value: { rev: '0-1' }, ...doc };
  });
  return { total_rows: null, offset: null, rows };
}

function localDocReply(copy: Copy, id: string, ask: Ask): Reply {
  if (ask.method === 'PUT') {
    copy.putLocal(id, bodyOf(jsonObject(ask)));
    return ok({ ok: true, id, rev: '0-1' }, 201);
  }
  const body = copy.local(id);
  if (body === undefined) throw missing();
  if (ask.method === 'DELETE') {
    copy.putLocal(id, null);
    return ok({ ok: true, id, rev: '0-0' });
  }
  return ok({ _id: id, _rev: '0-1', ...body });
}

function docReply(node: Node, copy: Copy, id: string, ask: Ask): Reply {
  if (ask.method === 'GET' || ask.method === 'HEAD') return ok(shownDoc(copy, id, ask));
  if (ask.method === 'PUT') {
    const doc = jsonObject(ask);
    const body = bodyOf(doc);
    if (copy.name === '_dbs' && doc._deleted !== true && !id.startsWith('_design/')) checkMap(body);
    const rev = (doc._rev as string | undefined) ?? ask.query.rev;
    return written(node, copy, id, { body, deleted: doc._deleted === true, rev }, 201);
  }
  if (ask.method !== 'DELETE') throw notAllowed('DELETE,GET,HEAD,PUT');
  const lookup = copy.get(id);
  if ('missing' in lookup) throw missing(lookup.missing);
  return written(node, copy, id, { body: {}, deleted: true, rev: ask.query.rev }, 200);
}

function checkMap(body: Body): void {
  try {
    validateMap(body);
  } catch (error) {
    throw new HttpError(403, 'forbidden', (error as Refusal).message);
  }
}

function written(
  node: Node,
  copy: Copy,
  id: string,
  edit: { body: Body; deleted: boolean; rev: string | undefined },
  status: number,
): Reply {
  const { body, deleted, rev } = edit;
  const result = copy.edit(rev === undefined ? { id, body, deleted } : { id, body, deleted, rev });
  if ('error' in result) throw conflict();
  node.log(`${copy.name} ${id} ${result.rev}`);
  return ok({ ok: true, id, rev: result.rev }, status, { ETag: `"${result.rev}"` });
}

function shownDoc(copy: Copy, id: string, ask: Ask): Body {
  const lookup = copy.get(id, ask.query.rev);
  if ('missing' in lookup) throw missing(lookup.missing);
  const { rev, body, deleted, conflicts, deletedConflicts, revs } = lookup.found;
  return {
    _id: id,
    _rev: rev,
    ...(deleted ? { _deleted: true } : {}),
    ...body,
    ...(ask.query.revs === 'true' ? { _revisions: { start: revs.start, ids: revs.ids } } : {}),
    ...(ask.query.conflicts === 'true' && conflicts.length > 0 ? { _conflicts: conflicts } : {}),
    ...(ask.query.deleted_conflicts === 'true' && deletedConflicts.length > 0
      ? { _deleted_conflicts: deletedConflicts }
      : {}),
  };
}

function system(node: Node): Body {
  const { rss, heapUsed, external } = process.memoryUsage();
  const zero = { recv_oct: 0, recv_cnt: 0, send_oct: 0, send_cnt: 0, send_pend: 0 };
  const peers = node.distribution.nodes();
  return {
    uptime: Math.floor((Date.now() - node.startedAt) / 1000),
    memory: {
      other: rss - heapUsed,
      atom: 0,
      atom_used: 0,
      processes: heapUsed,
      processes_used: heapUsed,
      binary: external,
      code: 0,
      ets: 0,
    },
    run_queue: 0,
    run_queue_dirty_cpu: 0,
    ets_table_count: 0,
    context_switches: 0,
    reductions: 0,
    garbage_collection_count: 0,
    words_reclaimed: 0,
    io_input: 0,
    io_output: 0,
    os_proc_count: 0,
    stale_proc_count: 0,
    process_count: 0,
    process_limit: 262144,
    message_queues: {},
    internal_replication_jobs: node.sync.backlog(),
    distribution: Object.fromEntries(peers.map((peer) => [peer, zero])),
    distribution_events: node.events,
  };
}

const versions = {
  javascript_engine: { name: 'quickjs' },
  erlang: {
    version: '25.2.3',
    supported_hashes: [
      'blake2s',
      'blake2b',
      'sha3_512',
      'sha3_384',
      'sha3_256',
      'sha3_224',
      'sha512',
      'sha384',
      'sha256',
      'sha224',
      'sha',
      'ripemd160',
      'md5',
      'md4',
    ],
  },
  collation_driver: {
    name: 'libicu',
    library_version: '72.1',
    collator_version: '153.120',
    collation_algorithm_version: '15',
  },
};
