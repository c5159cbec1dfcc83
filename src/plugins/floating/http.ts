import { readFile } from 'node:fs/promises';
import { type HttpAnswer, httpCall } from '../../host/http-call.ts';
import { notAnswering, ProviderFault } from './provider.ts';

export interface ApiOptions {
  /** Holds an API token and nothing else. Read for each call. */
  readonly tokenFile: string;
  /** Without its last slash. For tests: each provider has its own. */
  readonly baseUrl?: string | undefined;
  /** Of the provider's metadata service. For tests. */
  readonly metadataUrl?: string | undefined;
  /** Monotonic, ms. */
  readonly nowMs: () => number;
}

/** What differs between providers. */
export interface Dialect {
  /** In messages, e.g. `DigitalOcean`. */
  readonly label: string;
  readonly baseUrl: string;
  /** The rights that the token needs, as the provider names them. */
  readonly scope: string;
  /** The meaning of an answer other than 2xx if the status alone is not enough. `said`: the provider's text. */
  meaning(status: number, said: string): 'busy' | 'elsewhere' | undefined;
}

/** Fifty addresses of Hetzner are some 80 kB. */
const LIMITS = { timeoutMs: 5000, mostBytes: 1024 * 1024 };
const METADATA_TIMEOUT_MS = 2000;
/** Far below each provider's own limit, which all programs of one account share. */
const WINDOW_MS = 60_000;
const MOST_CALLS = 60;
const LEAST_PENALTY_MS = 1000;
const MOST_PENALTY_MS = 3_600_000;
const DEFAULT_PENALTY_MS = 60_000;
/** The limit of a provider's text in messages. */
const MOST_SAID = 120;

/** Calls of one provider's API, bounded in time, size and number. No redirect is followed, and no token is shown. */
export class Api {
  readonly #dialect: Dialect;
  readonly #options: ApiOptions;
  #calledMs: number[] = [];
  #notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(dialect: Dialect, options: ApiOptions) {
    this.#dialect = dialect;
    this.#options = options;
  }

  /** @returns the answer's JSON; undefined: 404 @throws ProviderFault */
  async call(
    method: 'GET' | 'POST' | 'PATCH',
    path: string,
    body: object | undefined,
    signal: AbortSignal,
  ): Promise<unknown> {
    const token = await this.#token();
    this.#count();
    const url = `${this.#options.baseUrl ?? this.#dialect.baseUrl}${path}`;
    const headers = { authorization: `Bearer ${token}` };
    const got = await httpCall({ method, url, headers, body, ...LIMITS }, signal).catch((error: unknown) => {
      throw notAnswering(this.#dialect.label, error instanceof Error ? error.message : String(error));
    });
    const json = parsed(got.text);
    if (got.status >= 200 && got.status < 300) {
      if (json !== undefined) return json;
      throw notAnswering(
        this.#dialect.label,
        `it answered ${got.status} with something that is not its JSON`,
      );
    }
    if (got.status === 404) return undefined;
    throw this.#refusal(got, wordsOf(json).replaceAll(token, '(token)'));
  }

  async #token(): Promise<string> {
    const { tokenFile } = this.#options;
    const text = await readFile(tokenFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw this.#badToken(`${tokenFile} cannot be read: ${error.code}`);
    });
    // The characters that a header allows.
    if (!/^[\x21-\x7e]{20,200}$/.test(text.trim()))
      throw this.#badToken(`${tokenFile} does not hold one token`);
    return text.trim();
  }

  #count(): void {
    const now = this.#options.nowMs();
    this.#calledMs = this.#calledMs.filter((each) => each > now - WINDOW_MS);
    const [first] = this.#calledMs;
    if (first !== undefined && this.#calledMs.length >= MOST_CALLS)
      this.#notBeforeMs = Math.max(this.#notBeforeMs, first + WINDOW_MS);
    if (now < this.#notBeforeMs) throw this.#limited(now);
    this.#calledMs.push(now);
  }

  #refusal({ status, headers }: HttpAnswer, said: string): ProviderFault {
    const { label, scope } = this.#dialect;
    const why = said === '' ? `status ${status}` : `${said} (${status})`;
    if (status === 401) return this.#badToken(why);
    if (status === 403)
      return new ProviderFault({
        code: 'floating-scope',
        message: `the token lacks ${scope}: ${label} answers ${why}; the floating IP stays where it is`,
        next: `create a token with ${scope} and put it into ${this.#options.tokenFile}; it is read for each call`,
      });
    if (status === 429) return this.#limitedBy(headers);
    const meaning = status === 409 || status === 423 ? 'busy' : this.#dialect.meaning(status, said);
    if (meaning === 'busy') return busy(label, why);
    if (meaning === 'elsewhere') return elsewhere(`${label} answers ${why}`);
    // 5xx and redirects: neither yes nor no.
    if (status < 400 || status >= 500) return notAnswering(label, `it answered ${why}`);
    return new ProviderFault({
      code: 'floating-refused',
      message: `${label} refuses to assign the floating IP to this server: ${why}`,
      next: `check the address and this server on the page of ${label}; it is tried again`,
    });
  }

  #badToken(why: string): ProviderFault {
    return new ProviderFault({
      code: 'floating-token',
      message: `${this.#dialect.label} does not accept this token: ${why}; the floating IP stays where it is`,
      next:
        `create a token with ${this.#dialect.scope} and put it into ${this.#options.tokenFile} ` +
        '(root:bornemisza 0640); it is read for each call',
    });
  }

  /** `retry-after` in seconds, or the clock time at which the limit ends. */
  #limitedBy(headers: HttpAnswer['headers']): ProviderFault {
    const now = this.#options.nowMs();
    const afterMs = Number(headers['retry-after'] ?? Number.NaN) * 1000;
    const wanted = Number.isFinite(afterMs) ? afterMs : DEFAULT_PENALTY_MS;
    this.#notBeforeMs = now + Math.min(MOST_PENALTY_MS, Math.max(LEAST_PENALTY_MS, wanted));
    return this.#limited(now);
  }

  #limited(now: number): ProviderFault {
    const { label } = this.#dialect;
    const seconds = Math.ceil((this.#notBeforeMs - now) / 1000);
    return new ProviderFault(
      {
        code: 'floating-limited',
        message: `${label} accepts no calls for ${seconds} s; the floating IP stays where it is`,
        next: 'wait: it is tried again then; check whether another program uses the API with the same account',
      },
      { notBeforeMs: this.#notBeforeMs },
    );
  }
}

function busy(label: string, why: string): ProviderFault {
  return new ProviderFault({
    code: 'floating-busy',
    message: `${label} has not finished an action on the floating IP or this server: ${why}`,
    next: 'wait: it is tried again; if it lasts, find the pending action on the provider’s page',
  });
}

function elsewhere(why: string): ProviderFault {
  return new ProviderFault({
    code: 'floating-region',
    message: `the floating IP and this server are in different regions: ${why}`,
    next: 'order the address in the region of the app nodes, or app nodes in the region of the address',
  });
}

/** The provider does not know the address, or it belongs to another account. */
export function unknownAddress(label: string, address: string): ProviderFault {
  return new ProviderFault({
    code: 'floating-address',
    message: `${label} knows no floating IP ${address} with this token`,
    next: 'compare floating.addresses with the page of the token’s account',
  });
}

/**
 * One line of the provider's metadata service about this server: only a server of the provider reaches it.
 *
 * @returns undefined: no answer, or none of this form
 */
export async function metadata(url: string, form: RegExp, signal: AbortSignal): Promise<string | undefined> {
  const call = {
    method: 'GET',
    url,
    headers: {},
    body: undefined,
    ...LIMITS,
    timeoutMs: METADATA_TIMEOUT_MS,
  };
  const got = await httpCall(call, signal).catch(() => undefined);
  const text = got?.status === 200 ? got.text.trim() : '';
  return form.test(text) ? text : undefined;
}

/** This server's name at the provider cannot be read. */
export function noIdentity(label: string, where: string): ProviderFault {
  return new ProviderFault({
    code: 'floating-identity',
    message: `this server's ID at ${label} cannot be read from ${where}`,
    next:
      `if this is a server of ${label} without its metadata service, set floating.server_id; ` +
      'else correct floating.provider',
  });
}

function parsed(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The text of a refusal, in the form of any provider, without terminal control characters. */
function wordsOf(json: unknown): string {
  const { message, error } = (json ?? {}) as { message?: unknown; error?: unknown };
  const inner = (error ?? {}) as { message?: unknown; error_message?: unknown };
  const said = [message, inner.message, inner.error_message].find((each) => typeof each === 'string') ?? '';
  return said.replaceAll(/[^\x20-\x7e]/g, ' ').slice(0, MOST_SAID);
}

/** A field of an unchecked object. */
export function field(of: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (at, key) =>
      typeof at === 'object' && at !== null ? (at as Readonly<Record<string, unknown>>)[key] : undefined,
    of,
  );
}
