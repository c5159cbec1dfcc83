/** The part of CouchDB's interface that a user may use on their own database: this list and nothing else. */
interface DataRequest {
  readonly method: string;
  /** Path below `/api/data`, still percent-encoded, without the query. `''` is the database itself. */
  readonly path: string;
  readonly query: URLSearchParams;
}

export type DataVerdict =
  | {
      readonly allowed: true;
      readonly path: string;
      readonly query: string;
      readonly feed: boolean;
      readonly writes: boolean;
    }
  | { readonly allowed: false; readonly why: string };

/** Endpoint → methods. Left out on purpose: views, Mango, attachments' own paths, `_security`, `_purge`, `_compact`. */
const ENDPOINTS: Readonly<Record<string, readonly string[]>> = {
  _bulk_docs: ['POST'],
  _bulk_get: ['POST'],
  _revs_diff: ['POST'],
  _all_docs: ['GET', 'POST'],
  _changes: ['GET', 'POST'],
};
const DOCUMENT = ['GET', 'HEAD', 'PUT', 'DELETE'];
/** The parameters that are passed on. Others cost a node more than a request should, or reach other nodes. */
const QUERY = new Set(
  `rev revs open_revs atts_since attachments conflicts deleted_conflicts latest local_seq meta revs_info new_edits batch
  include_docs limit skip startkey endkey start_key end_key startkey_docid endkey_docid key keys descending
  inclusive_end update_seq since feed heartbeat timeout style seq_interval doc_ids filter`
    .split(/\s+/)
    .filter(Boolean),
);
const HEARTBEAT_MS = 25_000;
const MAX_ID_BYTES = 512;

export function judgeData({ method, path, query }: DataRequest): DataVerdict {
  if (path === '' || path === '/') {
    return method === 'GET' || method === 'HEAD'
      ? allowed('', query)
      : refused('this method on the database');
  }
  const segments = path.slice(1).split('/').map(decoded);
  if (segments.includes(undefined)) return refused('a path that is not valid');
  const [first, second, ...rest] = segments as string[];
  if (first === '_local') {
    // A checkpoint of PouchDB is a digest of letters, digits, `.` and `_`: one in 64 begins with `_`.
    if (second === undefined || rest.length > 0 || !isName(second)) return refused('this path');
    return ['GET', 'HEAD', 'PUT'].includes(method)
      ? allowed(`/_local/${encode(second)}`, query)
      : refused(method);
  }
  if (second !== undefined || first === undefined) return refused('a path below a document');
  if (!first.startsWith('_')) return document(method, first, query);
  const methods = Object.hasOwn(ENDPOINTS, first) ? ENDPOINTS[first] : undefined;
  if (methods?.includes(method) !== true) return refused(`${method} ${first}`);
  return first === '_changes'
    ? feed(query)
    : allowed(`/${first}`, query, method === 'POST' && first === '_bulk_docs');
}

function document(method: string, id: string, query: URLSearchParams): DataVerdict {
  if (!isId(id)) return refused('this document id');
  return DOCUMENT.includes(method)
    ? allowed(`/${encode(id)}`, query, method === 'PUT' || method === 'DELETE')
    : refused(`${method} of a document`);
}

function feed(query: URLSearchParams): DataVerdict {
  // A filter function is code in a design document, and there is none; `_doc_ids` and `_selector` are built in.
  const filter = query.get('filter');
  if (filter !== null && filter !== '_doc_ids' && filter !== '_selector') return refused('this filter');
  const kind = query.get('feed') ?? 'normal';
  if (!['normal', 'longpoll', 'continuous', 'eventsource'].includes(kind)) return refused('this feed');
  const verdict = allowed('/_changes', query);
  if (!verdict.allowed || kind === 'normal') return verdict;
  // HAProxy ends a connection that is silent for two minutes.
  const passed = new URLSearchParams(verdict.query);
  passed.set('heartbeat', String(HEARTBEAT_MS));
  passed.delete('timeout');
  return { ...verdict, query: passed.toString(), feed: true };
}

/** Whether a body for `_bulk_docs` or one document holds only what a user may write. */
export function judgeBody(path: string, body: unknown): string | undefined {
  if (path === '/_bulk_docs') {
    const docs = (body as { docs?: unknown } | null)?.docs;
    if (!Array.isArray(docs)) return 'docs is missing';
    return docs.map(badId).find((each) => each !== undefined);
  }
  return path.startsWith('/_local/') ? badLocal(decoded(path.slice(1)), body) : badId(body);
}

/** PouchDB also writes the id of its checkpoint into the document. */
function badLocal(id: string | undefined, doc: unknown): string | undefined {
  const { _id: named } = (doc ?? {}) as { _id?: unknown };
  if (named === undefined) return badId(doc);
  return named === id ? undefined : 'the document names another id than the path';
}

function badId(doc: unknown): string | undefined {
  if (typeof doc !== 'object' || doc === null || Array.isArray(doc)) return 'a document is an object';
  const id = (doc as Readonly<Record<string, unknown>>)['_id'];
  if (id === undefined) return undefined;
  return typeof id === 'string' && isId(id) ? undefined : 'a document id begins with _ or is too long';
}

function isId(id: string): boolean {
  return !id.startsWith('_') && isName(id);
}

function isName(name: string): boolean {
  if (name === '' || /\p{Cc}/u.test(name) || Buffer.byteLength(name) > MAX_ID_BYTES) return false;
  // A proxy on the way could resolve `..`, even encoded.
  return !name.split('/').some((part) => part === '.' || part === '..');
}

function allowed(path: string, query: URLSearchParams, writes = false): DataVerdict {
  const passed = new URLSearchParams([...query].filter(([name]) => QUERY.has(name)));
  return { allowed: true, path, query: passed.toString(), feed: false, writes };
}

function refused(what: string): DataVerdict {
  return { allowed: false, why: `${what} is not allowed here` };
}

function decoded(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

const encode = (id: string): string => encodeURIComponent(id);
