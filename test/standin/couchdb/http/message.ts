import { HttpError } from '../fabric/ask.ts';
import type { Body, Json } from '../store/revision.ts';

export type UserCtx = { name: string | null; roles: string[]; by?: 'cookie' | 'default' };

/** A request with its path split before decoding, so that `shards%2F…` stays one segment. Can go over the mesh. */
export type Ask = {
  method: string;
  path: string[];
  query: Record<string, string>;
  /** Names in lower case. */
  headers: Record<string, string>;
  body: string;
  /** The client's address. */
  peer: string;
  user: UserCtx;
};
export type Reply = {
  status: number;
  body: unknown;
  headers?: Record<string, string>;
  stream?: ReadableStream<string>;
};

export function ok(body: unknown, status = 200, headers?: Record<string, string>): Reply {
  return headers === undefined ? { status, body } : { status, body, headers };
}

export function missing(reason = 'missing'): HttpError {
  return new HttpError(404, 'not_found', reason);
}

export function badRequest(reason: string): HttpError {
  return new HttpError(400, 'bad_request', reason);
}

export function conflict(): HttpError {
  return new HttpError(409, 'conflict', 'Document update conflict.');
}

export function notAllowed(methods: string): HttpError {
  return new HttpError(405, 'method_not_allowed', `Only ${methods} allowed`);
}

export function isAdmin(user: UserCtx): boolean {
  return user.roles.includes('_admin');
}

export function needAdmin(ask: Ask): void {
  if (!isAdmin(ask.user)) throw new HttpError(401, 'unauthorized', 'You are not a server admin.');
}

/** @throws HttpError 400 `invalid_json`; no body is no JSON either */
export function json(ask: Ask): Json {
  try {
    return JSON.parse(ask.body) as Json;
  } catch {
    throw badRequest('invalid_json');
  }
}

export function jsonObject(ask: Ask, reason = 'Request body must be a JSON object'): Body {
  const value = json(ask);
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw badRequest(reason);
  return value;
}

/** A query value that is JSON, as start keys and flags are. */
export function queryJson(ask: Ask, key: string): Json | undefined {
  const text = ask.query[key];
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as Json;
  } catch {
    throw new HttpError(400, 'query_parse_error', `Invalid value for ${key}: ${text}`);
  }
}

/** What of a document is its body: not `_id`, `_rev` and the like. @throws HttpError 400 doc_validation */
export function bodyOf(doc: Body): Body {
  const out: Body = {};
  for (const [key, value] of Object.entries(doc)) {
    if (!key.startsWith('_')) out[key] = value;
    else if (!knownFields.has(key))
      throw new HttpError(400, 'doc_validation', `Bad special document member: ${key}`);
  }
  return out;
}

const knownFields = new Set([
  '_id',
  '_rev',
  '_deleted',
  '_revisions',
  '_revs_info',
  '_conflicts',
  '_deleted_conflicts',
  '_local_seq',
  '_attachments',
]);
