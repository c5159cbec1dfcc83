import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Account } from '../accounts/account.ts';
import { type DataVerdict, judgeBody, judgeData } from '../accounts/data-rules.ts';
import { databaseOf } from '../accounts/names.ts';
import { MAX_BODY_BYTES } from './guard.ts';
import { Problem } from './problems.ts';
import type { Services } from './services.ts';
import { sessionOf, signedIn } from './sessions.ts';

/** A page has one feed and PouchDB one more; a person has a few devices. */
const FEEDS_PER_ACCOUNT = 6;
const FEEDS_PER_NODE = 1000;
/** How often an open feed checks its session. Accounts are read each 5 s, so a feed ends within 10 s of its session. */
const FEED_LOOK_MS = 5000;
/** The headers of CouchDB that PouchDB or a cache needs. */
const PASSED_HEADERS = ['content-type', 'etag', 'cache-control', 'transfer-encoding'];
/** The unit's memory has room for a thousand open answers of this length. */
const MAX_WHOLE_BYTES = 64 * 1024;
const EXPORT_PATH = '/_all_docs?include_docs=true&attachments=true';

type Allowed = Extract<DataVerdict, { allowed: true }>;

/** The person's own database behind an allow list; PouchDB replicates with it. */
export function addDataRoutes(app: OpenAPIHono, services: Services): void {
  const feeds = new Map<string, number>();
  app.all('/api/data', (c) => data(services, feeds, c));
  app.all('/api/data/*', (c) => data(services, feeds, c));
  app.get('/api/me/export', async (c) => {
    const { account } = await signedIn(services, c);
    const answer = await passOn(services, account, c, { method: 'GET', path: EXPORT_PATH });
    answer.headers.set('content-disposition', 'attachment; filename="export.json"');
    return answer;
  });
}

async function data(services: Services, feeds: Map<string, number>, c: Context): Promise<Response> {
  const { account: stored } = await signedIn(services, c);
  const url = new URL(c.req.url);
  // The path as received: hono decodes its own, and `..%2F` must stay encoded.
  const path = rawPathOf(c.req.url).slice('/api/data'.length);
  const verdict = judgeData({ method: c.req.method, path, query: url.searchParams });
  if (!verdict.allowed) throw new Problem('not-allowed', { detail: verdict.why });
  const account = await services.accounts.withKnownKey(stored);
  if (account === undefined) throw new Problem('not-signed-in');
  const body = ['POST', 'PUT'].includes(c.req.method) ? await bodyOf(c, verdict) : undefined;
  if (verdict.writes && c.req.method !== 'DELETE') await mustHaveRoom(services, account);
  if (!verdict.feed)
    return passOn(services, account, c, { method: c.req.method, path: pathOf(verdict), body });
  return openFeed(services, feeds, account, c, { method: c.req.method, path: pathOf(verdict), body });
}

const pathOf = ({ path, query }: Allowed): string => (query === '' ? path : `${path}?${query}`);

function rawPathOf(url: string): string {
  const from = url.indexOf('/', url.indexOf('//') + 2);
  const path = url.slice(from);
  const end = path.indexOf('?');
  return end < 0 ? path : path.slice(0, end);
}

async function bodyOf(c: Context, { path }: Allowed): Promise<string> {
  if (Number(c.req.header('content-length') ?? 0) > MAX_BODY_BYTES) throw new Problem('too-large');
  const text = await c.req.text();
  if (Buffer.byteLength(text) > MAX_BODY_BYTES) throw new Problem('too-large');
  const parsed = parse(text);
  const isDocument = !path.startsWith('/_') || path === '/_bulk_docs';
  const wrong = c.req.method === 'PUT' || isDocument ? judgeBody(path, parsed) : undefined;
  if (wrong !== undefined) throw new Problem('not-allowed', { detail: wrong });
  return text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem('invalid-request', { detail: 'The body is not valid JSON.' });
  }
}

/** @throws Problem `quota-exceeded`, `being-made` */
async function mustHaveRoom({ quota }: Services, account: Account): Promise<void> {
  const used = await quota.used(account);
  if (used === undefined) throw new Problem('being-made', { retryAfterS: 1 });
  if (used > quota.bytes) throw new Problem('quota-exceeded');
}

interface Passed {
  readonly method: string;
  readonly path: string;
  readonly body?: string | undefined;
}

async function passOn(services: Services, account: Account, c: Context, passed: Passed): Promise<Response> {
  const { couch, accounts } = services;
  const gone = new AbortController();
  c.req.raw.signal.addEventListener('abort', () => gone.abort(), { once: true });
  const path = `/${databaseOf(account.name)}${passed.path}`;
  const more = {
    headers: conditionsOf(c),
    signal: gone.signal,
    ...(passed.body !== undefined && { body: passed.body }),
  };
  const answer = await accounts.asOwner(
    account,
    (as) => couch.open({ method: passed.method, path, as, ...more }),
    isRefused,
  );
  const status = answer.statusCode ?? 502;
  if (isBeingMade(status, c, passed)) {
    answer.resume();
    throw new Problem('being-made', { retryAfterS: 1 });
  }
  if (status === 401 || status >= 500) {
    answer.resume();
    services.log('a database refused a request', { status, account: account.name });
    throw new Problem('databases-unreachable');
  }
  const headers = new Headers({ 'cache-control': 'no-store' });
  for (const name of PASSED_HEADERS) {
    const value = answer.headers[name];
    if (typeof value === 'string' && name !== 'transfer-encoding' && name !== 'cache-control')
      headers.set(name, value);
  }
  // People write the content of CouchDB: a browser must not run it as a page.
  headers.set('x-content-type-options', 'nosniff');
  const hasBody = c.req.method !== 'HEAD' && status !== 304 && status !== 204;
  if (!hasBody) answer.resume();
  return new Response(hasBody ? await bodyFrom(answer) : null, { status, headers });
}

function isRefused(answer: IncomingMessage): boolean {
  if (answer.statusCode !== 401) return false;
  answer.resume();
  return true;
}

/** A document is passed on in one piece: as a stream it takes a fifth more CPU time. */
async function bodyFrom(answer: IncomingMessage): Promise<ConstructorParameters<typeof Response>[0]> {
  if (Number(answer.headers['content-length']) <= MAX_WHOLE_BYTES)
    return buffer(answer).catch(() => {
      throw new Problem('databases-unreachable');
    });
  return Readable.toWeb(answer) as ReadableStream;
}

/** couch_peruser makes the database within a second; until then CouchDB does not know it. */
function isBeingMade(status: number, c: Context, { path }: Passed): boolean {
  const isDatabase = path === '' || path.startsWith('/_all_docs') || path.startsWith('/_changes');
  return status === 403 || (status === 404 && (isDatabase || c.req.method !== 'GET'));
}

function conditionsOf(c: Context): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const name of ['if-match', 'if-none-match', 'accept']) {
    const value = c.req.header(name);
    if (value !== undefined) passed[name] = value;
  }
  return passed;
}

async function openFeed(
  services: Services,
  feeds: Map<string, number>,
  account: Account,
  c: Context,
  passed: Passed,
): Promise<Response> {
  const open = feeds.get(account.name) ?? 0;
  const all = [...feeds.values()].reduce((sum, each) => sum + each, 0);
  if (open >= FEEDS_PER_ACCOUNT || all >= FEEDS_PER_NODE)
    throw new Problem('too-many-requests', { retryAfterS: 30 });
  feeds.set(account.name, open + 1);
  let end: () => void = () => undefined;
  // A database that does not answer ends no session: the feed then ends with its own connection.
  const look = async (): Promise<void> => {
    const isOver = await sessionOf(services, c).then(
      (found) => found === undefined,
      () => false,
    );
    if (!isOver) return;
    end();
    done();
  };
  const looking = setInterval(() => void look(), FEED_LOOK_MS);
  let counted = true;
  const done = (): void => {
    if (!counted) return;
    counted = false;
    clearInterval(looking);
    const left = (feeds.get(account.name) ?? 1) - 1;
    if (left === 0) feeds.delete(account.name);
    else feeds.set(account.name, left);
  };
  c.req.raw.signal.addEventListener('abort', done, { once: true });
  try {
    const answer = await passOn(services, account, c, passed);
    if (answer.body === null) done();
    const through = answer.body?.pipeThrough(
      new TransformStream({
        start(controller) {
          // Ends the answer as CouchDB would: the browser asks again and learns that it is signed out.
          end = () => controller.terminate();
        },
        flush: done,
      }),
    );
    return new Response(through ?? null, { status: answer.status, headers: answer.headers });
  } catch (error) {
    done();
    throw error;
  }
}
