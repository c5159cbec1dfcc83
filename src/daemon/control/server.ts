import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { getRequestListener } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { streamText } from 'hono/streaming';
import * as z from 'zod';
import { type AuditTrail, isAbout } from '../audit/trail.ts';
import { hasNextStep, OperatorError } from '../errors.ts';
import type { Role } from '../membership/types.ts';
import { type TrailQuestion, trailQuestion } from '../peers/trail.ts';
import {
  TOKEN_DEFAULT_MS,
  TOKEN_LEAST_MS,
  TOKEN_MOST_MS,
  TOKENS_MOST,
} from '../identity/admission/token-life.ts';
import type {
  AccountsAnswer,
  AuditEntry,
  ChangedAccount,
  ClusterAuditAnswer,
  Done,
  LeaveRequest,
  EndRequest,
  MaintenanceRequest,
  MembersAnswer,
  PingAnswer,
  PlanAnswer,
  Progress,
  RemoveRequest,
  RequestLogRequest,
  ShownAccount,
  StatusAnswer,
  StreamsEnded,
  TokenAnswer,
  TokenRequest,
  TokenRevocation,
  TokensAnswer,
  TokensRevoked,
  HaproxyTraffic,
  UpgradeAnswer,
} from './api.ts';
import { REQUEST_LOG_LEAST_MS, REQUEST_LOG_MOST_MS } from './api.ts';

/** The calls of the socket to a running daemon. Refusals are thrown as {@link OperatorError}. */
export interface ControlActions {
  status(): StatusAnswer;
  members(): MembersAnswer;
  plan(): Promise<PlanAnswer>;
  traffic(): Promise<HaproxyTraffic>;
  /** @throws OperatorError `in-traffic` */
  endStreams(request: EndRequest): Promise<StreamsEnded>;
  trails(question: TrailQuestion): Promise<ClusterAuditAnswer>;
  ping(node: string | undefined): Promise<PingAnswer>;
  maintenance(request: MaintenanceRequest): Promise<Done>;
  leave(request: LeaveRequest, progress: (step: Progress) => void): Promise<Done>;
  tokens(): Promise<TokensAnswer>;
  /** All requested tokens, or none. */
  createTokens(request: TokenRequest): Promise<readonly TokenAnswer[]>;
  revokeTokens(request: TokenRevocation): Promise<TokensRevoked>;
  remove(request: RemoveRequest): Promise<Done>;
  adoptAuthority(): Promise<Done>;
  changeRoot(): Promise<Done>;
  logRequests(request: RequestLogRequest): Promise<Done>;
  releaseGuards(): Promise<Done>;
  testNotification(progress: (step: Progress) => void): Promise<Done>;
  /** Further requests to a managed program; undefined: this node manages none of that name. */
  ask(program: AskedProgram, verb: string, request: object): Promise<object | undefined>;
  reload(): Promise<Done>;
  upgrade(): UpgradeAnswer;
  rollout(verb: RolloutVerb): Done;
  accounts(after: string | undefined): Promise<AccountsAnswer>;
  account(email: string): Promise<ShownAccount>;
  changeAccount(verb: AccountVerb, email: string): Promise<ChangedAccount>;
}

export interface ControlDependencies {
  /** Available from the first moment on. */
  readonly trail: Pick<AuditTrail, 'query' | 'follow'>;
  /** @throws OperatorError while the daemon starts */
  readonly actions: () => ControlActions;
}

type AskedProgram = 'certificates' | 'dns' | 'floating';
type RolloutVerb = 'start' | 'stop' | 'resume';
const ACCOUNT_VERBS = ['disable', 'enable', 'delete'] as const;
export type AccountVerb = (typeof ACCOUNT_VERBS)[number];

/** No request needs more; a larger one is refused before it is read. */
const MAX_BODY_BYTES = 16 * 1024;
/** HAProxy's own limits cut a longer connection before. */
const DRAIN_MOST_MS = 24 * 3_600_000;
/**
 * Entries that wait for one slow follower; beyond it the stream ends, and the follower can continue from its last id.
 */
const MAX_FOLLOWER_BACKLOG = 1000;
/** A stalled reader holds up to 2000 entries of about a kilobyte; the next connection is closed at once. */
const MAX_CONNECTIONS = 32;

const role = z.enum(['app', 'db']);
const requests = {
  maintenance: z.strictObject({ on: z.boolean(), force: z.boolean().default(false) }),
  requestLog: z.strictObject({
    on: z.boolean(),
    forMs: z.int().min(REQUEST_LOG_LEAST_MS).max(REQUEST_LOG_MOST_MS).optional(),
  }),
  end: z.strictObject({ share: z.number().gt(0).max(1) }),
  leave: z.strictObject({
    force: z.boolean().default(false),
    drainMs: z.int().min(0).max(DRAIN_MOST_MS).optional(),
  }),
  token: z.strictObject({
    role,
    ttlMs: z.int().min(TOKEN_LEAST_MS).max(TOKEN_MOST_MS).default(TOKEN_DEFAULT_MS),
    count: z.int().min(1).max(TOKENS_MOST).optional(),
  }),
  revocation: z
    .strictObject({
      id: z
        .string()
        .regex(/^[0-9a-f]{16}$/, 'an id has 16 hex characters')
        .optional(),
      all: z.literal(true).optional(),
    })
    .refine(({ id, all }) => (id === undefined) !== (all === undefined), 'either id or all'),
  remove: z.strictObject({
    node: z.string().min(1).max(200),
    dead: z.boolean().default(false),
    force: z.boolean().default(false),
  }),
  ping: z.strictObject({ node: z.string().min(1).max(200).optional() }),
  accounts: z.strictObject({ after: z.string().max(200).optional() }),
  account: z.strictObject({ email: z.string().min(1).max(1024) }),
  renew: z.strictObject({ force: z.boolean().default(false) }),
  revoke: z.strictObject({
    reason: z.enum(['keyCompromise', 'superseded', 'unspecified']).default('keyCompromise'),
    now: z.boolean().default(false),
  }),
  dns: z.strictObject({
    name: z
      .string()
      .max(253)
      .regex(/^[a-z0-9_*][a-z0-9_.-]*[a-z0-9]$/, 'must be the full name of a record, in lower case'),
    type: z.enum(['A', 'AAAA', 'SRV']),
  }),
  nothing: z.strictObject({}),
};
const query = {
  audit: z.object({
    node: z.string().max(200).optional(),
    since: z.coerce.number().int().min(0).optional(),
    limit: z.coerce.number().int().min(1).max(2000).default(200),
    follow: z.enum(['0', '1']).default('0'),
  }),
};

/** HTTP on a unix socket. The file's group and mode decide who may connect. */
export class ControlServer {
  readonly #path: string;
  /** Of the daemon behind the socket. */
  readonly #unit: string;
  readonly #server: Server;
  #listening = false;

  constructor(options: { path: string; role: Role }, dependencies: ControlDependencies) {
    this.#path = options.path;
    this.#unit = `bornemisza@${options.role}`;
    const listener = getRequestListener(routes(dependencies, this.#unit).fetch);
    this.#server = createServer((request, response) => void listener(request, response));
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  /** @throws OperatorError `already-running` when another daemon answers on the socket, `control-socket` otherwise */
  async listen(): Promise<void> {
    await this.#possible(() => mkdir(dirname(this.#path), { recursive: true }));
    if (await answers(this.#path)) {
      throw new OperatorError(
        'already-running',
        `another daemon answers on ${this.#path}`,
        `stop it first: systemctl stop ${this.#unit}`,
      );
    }
    // A killed process left a socket on which nobody answers.
    await this.#possible(async () => {
      await rm(this.#path, { force: true });
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject);
        this.#server.listen(this.#path, resolve);
      });
      this.#listening = true;
      await chmod(this.#path, 0o660);
    });
  }

  /** Also works after a refused start: the socket then belongs to another daemon. */
  async close(): Promise<void> {
    if (!this.#listening) return;
    this.#listening = false;
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await rm(this.#path, { force: true });
  }

  async #possible(act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw new OperatorError(
        'control-socket',
        `cannot listen on ${this.#path}: ${code ?? message}`,
        // sun_path in unix(7) has room for 107 characters, and listen() says EINVAL beyond.
        code === 'EINVAL'
          ? 'choose a shorter directory: the path of a socket has 107 characters at most'
          : `check the owner and mode of ${dirname(this.#path)}`,
        { cause: error },
      );
    }
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Orders without a body, each with its action. */
const PLAIN_ORDERS = [
  ['/v1/authority/adopt', 'adoptAuthority'],
  ['/v1/authority/root', 'changeRoot'],
  ['/v1/guards/release', 'releaseGuards'],
  ['/v1/reload', 'reload'],
] as const;

function routes({ trail, actions }: ControlDependencies, unit: string): Hono {
  const app = new Hono();
  app.use(
    bodyLimit({
      maxSize: MAX_BODY_BYTES,
      onError: () => refuse(unit, 'body-too-large', `a request body is ${MAX_BODY_BYTES} bytes at most`),
    }),
  );
  app.get('/v1/status', (c) => c.json(actions().status()));
  app.get('/v1/members', (c) => c.json(actions().members()));
  app.get('/v1/plan', async (c) => c.json(await actions().plan()));
  app.get('/v1/audit', (c) => {
    const { node, limit, since } = checked(query.audit, c.req.query());
    return c.json({ entries: trail.query({ ...subject(node), ...sinceId(since), limit }) });
  });
  app.get('/v1/events', (c) => events(c, trail));
  app.post('/v1/maintenance', async (c) => {
    const request = await body(c, requests.maintenance);
    return c.json(await actions().maintenance(request));
  });
  app.post('/v1/leave', async (c) => {
    const request = await body(c, requests.leave);
    return progressive(c, unit, (progress) => actions().leave(request, progress));
  });
  app.post('/v1/tokens', async (c) => {
    const request = await body(c, requests.token);
    const made = await actions().createTokens(request);
    return c.json(request.count === undefined ? made[0] : { tokens: made });
  });
  app.get('/v1/tokens', async (c) => c.json(await actions().tokens()));
  app.post('/v1/tokens/revoke', async (c) => {
    const request = await body(c, requests.revocation);
    return c.json(await actions().revokeTokens(request));
  });
  app.post('/v1/remove', async (c) => {
    const request = await body(c, requests.remove);
    return c.json(await actions().remove(request));
  });
  programRoutes(app, actions);
  for (const [path, order] of PLAIN_ORDERS) {
    app.post(path, async (c) => {
      await body(c, requests.nothing);
      return c.json(await actions()[order]());
    });
  }
  app.post('/v1/notify/test', async (c) => {
    await body(c, requests.nothing);
    return progressive(c, unit, (progress) => actions().testNotification(progress));
  });
  app.get('/v1/upgrade', (c) => c.json(actions().upgrade()));
  for (const verb of ['start', 'stop', 'resume'] as const) {
    app.post(`/v1/upgrade/${verb}`, async (c) => {
      await body(c, requests.nothing);
      return c.json(actions().rollout(verb));
    });
  }
  addOfOthers(app, actions);
  addAccounts(app, actions);
  app.notFound((c) =>
    c.json(
      refusal(
        new OperatorError('no-such-path', `nothing at ${c.req.method} ${c.req.path}`, 'see bornemisza(8)'),
        unit,
      ),
      404,
    ),
  );
  app.onError((error, c) => c.json(refusal(error, unit), statusOf(error)));
  return app;
}

/** Requests to other nodes. */
function addOfOthers(app: Hono, actions: ControlDependencies['actions']): void {
  app.get('/v1/cluster/audit', async (c) =>
    c.json(await actions().trails(checked(trailQuestion, c.req.query()))),
  );
  app.post('/v1/ping', async (c) => {
    const { node } = await body(c, requests.ping);
    return c.json(await actions().ping(node));
  });
}

function addAccounts(app: Hono, actions: ControlDependencies['actions']): void {
  app.post('/v1/accounts/list', async (c) => {
    const { after } = await body(c, requests.accounts);
    return c.json(await actions().accounts(after));
  });
  app.post('/v1/accounts/show', async (c) => {
    const { email } = await body(c, requests.account);
    return c.json(await actions().account(email));
  });
  for (const verb of ACCOUNT_VERBS) {
    app.post(`/v1/accounts/${verb}`, async (c) => {
      const { email } = await body(c, requests.account);
      return c.json(await actions().changeAccount(verb, email));
    });
  }
}

/** Programs with verbs of their own, by the first word of the path: what each verb takes. */
const PROGRAM_VERBS = {
  certificates: ['certificate', { renew: requests.renew, revoke: requests.revoke }],
  dns: ['dns', { adopt: requests.dns, release: requests.dns }],
  floating: ['floating', { take: requests.nothing }],
} as const;

function programRoutes(app: Hono, actions: ControlDependencies['actions']): void {
  app.post('/v1/log/requests', async (c) =>
    c.json(await actions().logRequests(await body(c, requests.requestLog))),
  );
  app.get('/v1/traffic', async (c) => c.json(await actions().traffic()));
  app.post('/v1/traffic/end', async (c) => c.json(await actions().endStreams(await body(c, requests.end))));
  for (const program of ['certificates', 'dns', 'floating'] as const) {
    const [word, verbs] = PROGRAM_VERBS[program];
    const answer = async (c: Context, verb: string, request: object): Promise<Response> => {
      const given = await actions().ask(program, verb, request);
      if (given === undefined) throw notKept(program);
      return c.json(given);
    };
    app.get(`/v1/${word}`, (c) => answer(c, 'show', {}));
    for (const [verb, schema] of Object.entries(verbs))
      app.post(`/v1/${word}/${verb}`, async (c) => answer(c, verb, await body(c, schema)));
  }
}

function notKept(program: AskedProgram): OperatorError {
  if (program === 'floating')
    return new OperatorError(
      'floating-off',
      'this node has no floating IP assigned by an API: floating.mode is not "api"',
      'ask an app node that has it; docs/floating.md says how to set it up',
    );
  return program === 'dns'
    ? new OperatorError(
        'dns-off',
        'this node manages no DNS records: it has no [dns]',
        'run it on an app node that has it; to set it up see docs/dns.md',
      )
    : new OperatorError(
        'certificates-off',
        'this node orders no certificate of the site: [certificates] names none',
        'run it on an app node that has it; to set it up see docs/certificates.md',
      );
}

/** Every entry once: first the requested past ones, then new ones while the stream is open. */
function events(c: Context, trail: ControlDependencies['trail']): Response {
  const { node, limit, since, follow } = checked(query.audit, c.req.query());
  return streamText(c, async (stream) => {
    const waiting: AuditEntry[] = [...trail.query({ ...subject(node), ...sinceId(since), limit })];
    const ended = new AbortController();
    let wake: () => void = () => undefined;
    const stop = (): void => {
      ended.abort();
      wake();
    };
    if (follow === '0') stop();
    stream.onAbort(stop);
    const unfollow = trail.follow((entry) => {
      // A stalled reader blocks the loop below: from here on nothing more may queue for it.
      if (ended.signal.aborted || (node !== undefined && !isAbout(entry, node))) return;
      waiting.push(entry);
      if (waiting.length > MAX_FOLLOWER_BACKLOG) stop();
      wake();
    });
    try {
      for (;;) {
        for (const entry of waiting.splice(0)) await stream.write(`${JSON.stringify(entry)}\n`);
        if (ended.signal.aborted) return;
        if (waiting.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      unfollow();
    }
  });
}

/** Long work: one line of JSON for each step, the last one with `done` or `error`. */
function progressive(
  c: Context,
  unit: string,
  work: (progress: (step: Progress) => void) => Promise<Done>,
): Response {
  return streamText(c, async (stream) => {
    let writing: Promise<unknown> = Promise.resolve();
    const tell = (step: Progress): void => {
      writing = writing.then(() => stream.write(`${JSON.stringify(step)}\n`));
    };
    try {
      tell(await work(tell));
    } catch (error) {
      tell({ message: error instanceof Error ? error.message : String(error), ...refusal(error, unit) });
    }
    await writing;
  });
}

async function body<S extends z.ZodType>(c: Context, schema: S): Promise<z.output<S>> {
  const text = await c.req.text();
  try {
    return checked(schema, text === '' ? {} : JSON.parse(text));
  } catch (error) {
    throw error instanceof SyntaxError ? badRequest('the body is not JSON') : error;
  }
}

function checked<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw badRequest(
    result.error.issues.map(({ path, message }) => [...path.map(String), message].join(': ')).join('; '),
  );
}

function badRequest(reason: string): OperatorError {
  return new OperatorError(
    'bad-request',
    `the request is not valid: ${reason}`,
    'src/daemon/control/api.ts has the fields of each call',
  );
}

function refuse(unit: string, code: string, message: string): Response {
  return Response.json(refusal(new OperatorError(code, message, 'send less'), unit), { status: 413 });
}

function refusal(error: unknown, unit: string): { error: { code: string; message: string; next: string } } {
  if (hasNextStep(error)) return { error: { code: error.code, message: error.message, next: error.next } };
  const message = error instanceof Error ? error.message : String(error);
  return { error: { code: 'internal', message, next: `see the journal: journalctl -u ${unit}` } };
}

function statusOf(error: unknown): 400 | 404 | 409 | 500 {
  if (!hasNextStep(error)) return 500;
  if (error.code === 'bad-request') return 400;
  return error.code.endsWith('-unknown') ? 404 : 409;
}

const subject = (node: string | undefined): { subject?: string } =>
  node === undefined ? {} : { subject: node };
const sinceId = (since: number | undefined): { sinceId?: number } =>
  since === undefined ? {} : { sinceId: since };
