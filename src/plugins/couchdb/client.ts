import { createHash } from 'node:crypto';
import nano from 'nano';

export interface Credentials {
  readonly name: string;
  readonly password: string;
}

/** An answer of CouchDB other than 2xx, or no answer (`status` 0). Holds no credentials. */
export class CouchDbAnswer extends Error {
  readonly status: number;
  readonly reason: string;
  /** Neither yes nor no: the write may have happened or happen later. */
  readonly unsure: boolean;

  constructor(status: number, what: string, reason: string, unsure: boolean) {
    super(`${what}: ${status === 0 ? '' : `${status} `}${reason}`);
    this.name = 'CouchDbAnswer';
    this.status = status;
    this.reason = reason;
    this.unsure = unsure;
  }
}

/**
 * No request was sent, since this password was refused before: five wrong ones lock the account, also for the right
 * password, for up to five minutes ([chttpd_auth_lockout]).
 */
export class PasswordRefused extends Error {
  constructor(message = 'CouchDB refused the administrator’s password') {
    super(message);
    this.name = 'PasswordRefused';
  }
}

/** The password may be right: another client sent five wrong ones. The lock ends by itself. */
export class AccountLocked extends PasswordRefused {
  constructor() {
    super('CouchDB locked the administrator’s account after wrong passwords from another client');
    this.name = 'AccountLocked';
  }
}

/** A lock lasts up to five minutes, and requests during it do not prolong it. */
const LOCK_ASKED_AGAIN_MS = 15_000;

interface ClientOptions {
  /** E.g. `http://127.0.0.1:15984`, without credentials. */
  readonly baseUrl: string;
  credentials(): Credentials;
  /** For reads. Default 6000. */
  readonly readTimeoutMs?: number;
  /** For writes: longer than twice the detection of a lost node, which is 18 s. Default 40000. */
  readonly writeTimeoutMs?: number;
  /** How long a locked account is left alone. Default 15000. */
  readonly lockAskedAgainMs?: number;
}

interface Ask {
  readonly method?: 'GET' | 'PUT' | 'POST' | 'DELETE';
  readonly path: string;
  readonly qs?: Readonly<Record<string, string | number | boolean>>;
  readonly body?: unknown;
  /** `X-Couch-Persist: false`: the value of a setting lives until the next start only. */
  readonly transient?: boolean;
  readonly anonymous?: boolean;
}

/** CouchDB's HTTP on this host, through nano. Every request is bounded in time. */
export class CouchDbClient {
  readonly #options: ClientOptions;
  readonly #scopes = new Map<string, nano.ServerScope>();
  #refused: string | undefined;
  /** Until when a locked account is not asked for. */
  #locked = { key: '', untilMs: 0 };

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  /** Allows the refused password again: the server was restarted with other settings. */
  forgetRefusal(): void {
    this.#refused = undefined;
    this.#locked = { key: '', untilMs: 0 };
  }

  async get<T>(path: string, signal: AbortSignal, qs: Ask['qs'] = {}): Promise<T> {
    return (await this.#ask({ path, qs }, signal)) as T;
  }

  /** Undefined if the answer is 404. */
  async find<T>(path: string, signal: AbortSignal, qs: Ask['qs'] = {}): Promise<T | undefined> {
    try {
      return await this.get<T>(path, signal, qs);
    } catch (error) {
      if (error instanceof CouchDbAnswer && error.status === 404) return undefined;
      throw error;
    }
  }

  async put<T>(path: string, body: unknown, signal: AbortSignal, transient = false): Promise<T> {
    return (await this.#ask({ method: 'PUT', path, body, transient }, signal)) as T;
  }

  async post<T>(path: string, signal: AbortSignal): Promise<T> {
    return (await this.#ask({ method: 'POST', path }, signal)) as T;
  }

  async delete<T>(path: string, rev: string, signal: AbortSignal): Promise<T> {
    return (await this.#ask({ method: 'DELETE', path, qs: { rev } }, signal)) as T;
  }

  /**
   * `/_up` needs no password, so it may always be asked. `down`: nobody listens; `silent`: somebody does, and did not
   * answer.
   */
  async up(signal: AbortSignal): Promise<'ok' | 'maintenance' | 'seeding' | 'silent' | 'down'> {
    try {
      await this.#ask({ path: '_up', anonymous: true }, signal);
      return 'ok';
    } catch (error) {
      if (!(error instanceof CouchDbAnswer)) throw error;
      // nano forwards only the text.
      if (error.status === 0) return error.reason.includes('ECONNREFUSED') ? 'down' : 'silent';
      if (error.status === 404) return error.reason.includes('seeding') ? 'seeding' : 'maintenance';
      return 'ok';
    }
  }

  async #ask(ask: Ask, signal: AbortSignal): Promise<unknown> {
    const credentials = ask.anonymous === true ? undefined : this.#options.credentials();
    const key = credentials === undefined ? '' : digest(credentials);
    if (credentials !== undefined) this.#mustNotBeRefused(key);
    const { readTimeoutMs = 6000, writeTimeoutMs = 40_000 } = this.#options;
    const bounded = AbortSignal.any([
      signal,
      AbortSignal.timeout(ask.method === undefined ? readTimeoutMs : writeTimeoutMs),
    ]);
    const request = {
      method: ask.method ?? 'GET',
      path: ask.path,
      qs: ask.qs ?? {},
      body: ask.body,
      signal: bounded,
    };
    try {
      return await this.#scope(key, credentials, ask.transient === true).request(request);
    } catch (error) {
      signal.throwIfAborted();
      throw this.#answer(error, request, key, bounded.aborted);
    }
  }

  #mustNotBeRefused(key: string): void {
    if (key === this.#refused) throw new PasswordRefused();
    if (key === this.#locked.key && performance.now() < this.#locked.untilMs) throw new AccountLocked();
  }

  #answer(error: unknown, request: { method: string; path: string }, key: string, timedOut: boolean): Error {
    const what = `${request.method} /${request.path}`;
    const status = statusOf(error);
    if (status === 403 && textOf(error).includes('locked')) {
      const forMs = this.#options.lockAskedAgainMs ?? LOCK_ASKED_AGAIN_MS;
      this.#locked = { key, untilMs: performance.now() + forMs };
      return new AccountLocked();
    }
    if (status === 401) {
      this.#refused = key;
      return new PasswordRefused();
    }
    const reason = timedOut ? 'no answer in time' : textOf(error);
    return new CouchDbAnswer(status, what, reason, status === 0 || status >= 500);
  }

  /** One nano scope per password and kind: nano takes headers per scope only. */
  #scope(key: string, credentials: Credentials | undefined, transient: boolean): nano.ServerScope {
    const name = `${key}/${transient}`;
    const known = this.#scopes.get(name);
    if (known !== undefined) return known;
    // Bounded: passwords change seldom, and only the newest ones are used.
    if (this.#scopes.size > 8) this.#scopes.clear();
    const headers: Record<string, string> = {};
    if (credentials !== undefined) {
      headers['Authorization'] =
        `Basic ${Buffer.from(`${credentials.name}:${credentials.password}`).toString('base64')}`;
    }
    if (transient) headers['X-Couch-Persist'] = 'false';
    // nano's typings lack `headers`; they keep the password out of the URL, where errors and logs would show it.
    const options: nano.Configuration & { headers: Record<string, string> } = {
      url: this.#options.baseUrl,
      headers,
    };
    const scope = nano(options);
    this.#scopes.set(name, scope);
    return scope;
  }
}

function statusOf(error: unknown): number {
  const status =
    typeof error === 'object' && error !== null && 'statusCode' in error ? error.statusCode : undefined;
  return typeof status === 'number' ? status : 0;
}

/** The answer's `error`, `reason` and `status`; never nano's copy of the request, which has headers. */
function textOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return 'no answer';
  const parts = (['error', 'reason', 'status'] as const)
    .map((key) => (error as Record<string, unknown>)[key])
    .filter((part): part is string => typeof part === 'string');
  if (parts.length > 0) return parts.join(': ').slice(0, 300);
  return (error instanceof Error ? error.message : 'no answer').slice(0, 300);
}

function digest(credentials: Credentials): string {
  return createHash('sha256')
    .update(JSON.stringify([credentials.name, credentials.password]))
    .digest('hex');
}
