import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { httpCall } from '../../host/http-call.ts';
import { PluginError } from '../contract.ts';

export interface CloudflareOptions {
  readonly zone: string;
  readonly zoneId: string;
  /** File with an API token with Zone / DNS / Edit for the zone, and nothing else. Read for each call. */
  readonly tokenFile: string;
  readonly baseUrl?: string;
  /** Monotonic, ms. For tests. */
  readonly nowMs?: () => number;
}

/** One record of the API, only the fields that are read here. */
export interface Row {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly content?: string;
  readonly ttl?: number;
  readonly proxied?: boolean;
  readonly comment?: string | null;
  readonly data?: {
    readonly priority?: number;
    readonly weight?: number;
    readonly port?: number;
    readonly target?: string;
  };
}

interface Answer {
  readonly success: boolean;
  readonly errors?: readonly { readonly code?: number; readonly message?: string }[];
  readonly result?: unknown;
  readonly result_info?: { readonly total_pages?: number };
}

const BASE_URL = 'https://api.cloudflare.com/client/v4';
/** A page of a hundred records is some 60 kB. */
const LIMITS = { timeoutMs: 15_000, mostBytes: 2 * 1024 * 1024 };
/** Cloudflare takes 1200 calls in 5 minutes of one *user*, all tokens together; above, nothing for five minutes. */
const WINDOW_MS = 300_000;
const MOST_CALLS = 60;
const LEAST_GAP_MS = 1000;
const LEAST_PENALTY_MS = 300_000;
/** 2,000 records; a free zone may end at 200. */
const MOST_PAGES = 20;

/** The meaning of answers, by the API's own code. The record already exists or is gone: a later read shows which. */
export const RACED: ReadonlySet<number> = new Set([81057, 81058, 81044]);
const TOKEN_CODES: ReadonlySet<number> = new Set([6003, 6103, 6111, 9106, 9109, 10000, 10001]);
const VALUE_CODES: ReadonlySet<number> = new Set([1004, 9005]);
const CNAME_CODES: ReadonlySet<number> = new Set([1003, 81053]);

/** A refusal with Cloudflare's own code, e.g. 81057; 0 where it named none. */
export class CloudflareError extends PluginError {
  readonly apiCode: number;

  constructor(facts: ConstructorParameters<typeof PluginError>[0], apiCode = 0) {
    super(facts);
    this.apiCode = apiCode;
  }
}

/** Calls of the API, one at a time, far below its limits. A plain client: two calls do not need a library of 120 MB. */
export class CloudflareApi {
  readonly #options: CloudflareOptions;
  #calledMs: number[] = [];
  #notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(options: CloudflareOptions) {
    this.#options = options;
  }

  async list(signal: AbortSignal): Promise<Row[]> {
    const rows: Row[] = [];
    for (let page = 1; page <= MOST_PAGES; page += 1) {
      const { result, result_info: info } = await this.#call(
        'GET',
        `?per_page=100&page=${page}`,
        undefined,
        signal,
      );
      if (!Array.isArray(result) || !result.every(isRow))
        throw this.#failed('its list of records has another form');
      rows.push(...result);
      if (page >= (info?.total_pages ?? 1)) return rows;
    }
    throw this.#failed(`the zone has more than ${MOST_PAGES * 100} records`);
  }

  /** All of it or nothing. */
  async batch(
    body: {
      readonly posts?: readonly object[];
      readonly patches?: readonly { readonly id: string; readonly comment: string }[];
      readonly deletes?: readonly { readonly id: string }[];
    },
    signal: AbortSignal,
  ): Promise<void> {
    await this.#call('POST', '/batch', body, signal);
  }

  async #call(method: string, rest: string, body: object | undefined, signal: AbortSignal): Promise<Answer> {
    const { zoneId, baseUrl = BASE_URL } = this.#options;
    const token = await this.#token();
    await this.#turn(signal);
    const url = `${baseUrl}/zones/${zoneId}/dns_records${rest}`;
    const call = { method, url, headers: { authorization: `Bearer ${token}` }, body, ...LIMITS };
    const { status, text, headers } = await httpCall(call, signal).catch((error: unknown) => {
      throw this.#failed(error instanceof Error ? error.message : String(error));
    });
    if (status === 429) throw this.#limited(Number(headers['retry-after']) * 1000);
    const answer = parsed(text);
    if (answer === undefined) throw this.#failed(`it answered ${status} with something that is not its JSON`);
    if (answer.success) return answer;
    throw this.#refusal(
      status,
      answer.errors?.[0]?.code ?? 0,
      answer.errors?.[0]?.message ?? `status ${status}`,
    );
  }

  async #token(): Promise<string> {
    const { tokenFile } = this.#options;
    const text = await readFile(tokenFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw this.#badToken(`${tokenFile} cannot be read: ${error.code}`);
    });
    // The characters that a header allows; a token has 40.
    if (!/^[\x21-\x7e]{20,200}$/.test(text.trim()))
      throw this.#badToken(`${tokenFile} does not hold one token`);
    return text.trim();
  }

  /** Waits a second between two calls; refuses where the five minutes are used up. */
  async #turn(signal: AbortSignal): Promise<void> {
    const now = this.#now();
    if (now < this.#notBeforeMs) throw this.#limited(0);
    this.#calledMs = this.#calledMs.filter((each) => each > now - WINDOW_MS);
    const [first] = this.#calledMs;
    if (first !== undefined && this.#calledMs.length >= MOST_CALLS)
      throw this.#limited(first + WINDOW_MS - now);
    const waitMs = (this.#calledMs.at(-1) ?? Number.NEGATIVE_INFINITY) + LEAST_GAP_MS - now;
    this.#calledMs.push(now + Math.max(0, waitMs));
    if (waitMs > 0) await pause(waitMs, undefined, { signal });
  }

  #now(): number {
    return (this.#options.nowMs ?? (() => performance.now()))();
  }

  /** @param afterMs the provider's requested wait; at least its five minutes */
  #limited(afterMs: number): CloudflareError {
    const now = this.#now();
    if (now >= this.#notBeforeMs)
      this.#notBeforeMs = now + Math.max(LEAST_PENALTY_MS, Number.isFinite(afterMs) ? afterMs : 0);
    const minutes = Math.ceil((this.#notBeforeMs - now) / 60_000);
    return new CloudflareError({
      code: 'dns-limited',
      message: `the provider accepts no calls for ${minutes} min; the records of ${this.#options.zone} are not updated`,
      next: 'wait: it is tried again then; check whether another program uses the API as the same user',
      outcome: 'retry',
      keepsChanges: true,
    });
  }

  #failed(why: string): CloudflareError {
    return new CloudflareError({
      code: 'dns-unreachable',
      message:
        `the provider does not answer about ${this.#options.zone}: ${why.slice(0, 200)}; the records are ` +
        'not updated',
      next: 'check www.cloudflarestatus.com, and whether this host reaches api.cloudflare.com; it is tried again',
      outcome: 'retry',
      keepsChanges: true,
    });
  }

  #badToken(why: string): CloudflareError {
    return new CloudflareError({
      code: 'dns-token',
      message: `the token may not edit ${this.#options.zone}: ${why}`,
      next:
        `create a token with Zone / DNS / Edit for this zone, put it into ${this.#options.tokenFile} ` +
        '(root:bornemisza 0640); it is read for each call',
      outcome: 'retry',
      keepsChanges: true,
    });
  }

  #refusal(status: number, apiCode: number, said: string): CloudflareError {
    const { zone, zoneId } = this.#options;
    const why = `${said.slice(0, 120)} (${apiCode})`;
    const shared = { keepsChanges: true } as const;
    if (TOKEN_CODES.has(apiCode) || status === 401 || status === 403) return this.#badToken(why);
    if (apiCode === 7003)
      return new CloudflareError({
        code: 'dns-zone',
        message: `the provider knows no zone ${zoneId} with this token`,
        next: `copy the zone ID from the overview page of ${zone} into dns.zone_id`,
        outcome: 'retry',
        ...shared,
      });
    if (RACED.has(apiCode))
      return new CloudflareError(
        {
          code: 'dns-changed',
          message: `a record of ${zone} changed while it was written: ${why}`,
          next: 'wait: the zone is read again',
          outcome: 'retry',
          ...shared,
        },
        apiCode,
      );
    if (CNAME_CODES.has(apiCode))
      return new CloudflareError({
        code: 'dns-foreign',
        message: `a record of ${zone} conflicts with another one: ${why}`,
        next: 'remove the name from dns.names, or delete its CNAME at the provider',
        outcome: 'retry',
        ...shared,
      });
    if (VALUE_CODES.has(apiCode))
      return new CloudflareError({
        code: 'dns-value-refused',
        message: `the provider refuses a value for ${zone}: ${why}; nothing is changed`,
        next: 'correct network.public_addresses or [dns], then systemctl restart bornemisza@app',
        outcome: 'terminal',
        ...shared,
      });
    return this.#failed(why);
  }
}

function parsed(text: string): Answer | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && 'success' in value ? (value as Answer) : undefined;
  } catch {
    return undefined;
  }
}

function isRow(value: unknown): value is Row {
  const { id, name, type } = (value ?? {}) as Partial<Record<keyof Row, unknown>>;
  return typeof id === 'string' && typeof name === 'string' && typeof type === 'string';
}
