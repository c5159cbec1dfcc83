import { isBase64url } from './jws.ts';
import { type AcmeProblem, problemOf } from './error.ts';

/** The answers of a CA, as this client accepts them. It refuses any other form. */

export interface AcmeDirectory {
  readonly newNonce: string;
  readonly newAccount: string;
  readonly newOrder: string;
  readonly revokeCert: string;
  readonly keyChange: string | undefined;
  /** Only if the CA has renewal information (RFC 9773 section 3). */
  readonly renewalInfo: string | undefined;
  readonly termsOfService: string | undefined;
  readonly externalAccountRequired: boolean;
  /** The host names by which a CAA record names this CA. */
  readonly caaIdentities: readonly string[];
  /** Kinds of certificates, each with the CA's description. */
  readonly profiles: ReadonlyMap<string, string>;
}

type OrderStatus = 'pending' | 'ready' | 'processing' | 'valid' | 'invalid';

export interface AcmeOrder {
  readonly url: string;
  readonly status: OrderStatus;
  readonly names: readonly string[];
  readonly authorizations: readonly string[];
  readonly finalize: string;
  /** Of a valid order. */
  readonly certificate: string | undefined;
  /** Why it is invalid. */
  readonly problem: AcmeProblem | undefined;
  /** When the CA wants the next request. */
  readonly retryAfterMs: number | undefined;
}

type AuthorizationStatus = 'pending' | 'valid' | 'invalid' | 'deactivated' | 'expired' | 'revoked';

interface AcmeChallenge {
  readonly type: string;
  readonly url: string;
  readonly token: string;
  readonly status: 'pending' | 'processing' | 'valid' | 'invalid';
  readonly problem: AcmeProblem | undefined;
}

export interface AcmeAuthorization {
  readonly url: string;
  readonly status: AuthorizationStatus;
  /** Without the `*.` of a wildcard. */
  readonly name: string;
  readonly wildcard: boolean;
  /** Only the kinds that have a token; others are left out. */
  readonly challenges: readonly AcmeChallenge[];
  readonly retryAfterMs: number | undefined;
}

/** The CA's time for the renewal (RFC 9773 section 4.2). Its wall clock, in ms since the epoch. */
export interface RenewalInfo {
  readonly startMs: number;
  readonly endMs: number;
  /** A page for people that gives the reason. */
  readonly explanationUrl: string | undefined;
  readonly retryAfterMs: number | undefined;
}

/** The lists of an order have one entry for each name; a list of challenges has one for each kind. */
const MOST_ENTRIES = 100;
const MOST_URL = 2048;

type Fields = Readonly<Record<string, unknown>>;

/** Reads the fields of one answer. @throws RangeError that names the first field that has another form */
export class Answer {
  readonly #fields: Fields;
  readonly #allowed: (url: string) => boolean;

  /** @param allowed whether this client calls a URL */
  constructor(value: unknown, allowed: (url: string) => boolean) {
    if (!isObject(value)) throw new RangeError('not an object');
    this.#fields = value;
    this.#allowed = allowed;
  }

  directory(): AcmeDirectory {
    const meta = this.#inside('meta');
    const profiles = meta.#inside('profiles');
    return {
      newNonce: this.url('newNonce'),
      newAccount: this.url('newAccount'),
      newOrder: this.url('newOrder'),
      revokeCert: this.url('revokeCert'),
      keyChange: this.#optional('keyChange'),
      renewalInfo: this.#optional('renewalInfo'),
      termsOfService: meta.#text('termsOfService'),
      externalAccountRequired: meta.#fields.externalAccountRequired === true,
      caaIdentities: meta.#words('caaIdentities'),
      profiles: new Map(
        Object.entries(profiles.#fields)
          .slice(0, MOST_ENTRIES)
          .flatMap(([name, words]) => (typeof words === 'string' ? [[name, words]] : [])),
      ),
    };
  }

  order(url: string, retryAfterMs: number | undefined): AcmeOrder {
    const status = this.#one('status', ['pending', 'ready', 'processing', 'valid', 'invalid']);
    return {
      url,
      status,
      names: this.#list('identifiers').map((each) => this.#name(each)),
      authorizations: this.#list('authorizations').map((each) => this.#checkedUrl('authorizations', each)),
      finalize: this.url('finalize'),
      certificate: status === 'valid' ? this.url('certificate') : undefined,
      problem: problemOf(this.#fields.error),
      retryAfterMs,
    };
  }

  authorization(url: string, retryAfterMs: number | undefined): AcmeAuthorization {
    return {
      url,
      status: this.#one('status', ['pending', 'valid', 'invalid', 'deactivated', 'expired', 'revoked']),
      name: this.#name(this.#fields.identifier),
      wildcard: this.#fields.wildcard === true,
      challenges: this.#list('challenges').flatMap((each) =>
        isObject(each) ? this.#of(each).#challenge() : [],
      ),
      retryAfterMs,
    };
  }

  renewalInfo(retryAfterMs: number | undefined): RenewalInfo {
    const { start, end } = this.#inside('suggestedWindow').#fields;
    const [startMs, endMs] = [dateOf(start), dateOf(end)];
    // RFC 9773 section 4.2: a window that ends before it begins is invalid.
    if (!(startMs < endMs)) throw new RangeError('field suggestedWindow');
    const explanation = this.#text('explanationURL');
    const shown = explanation !== undefined && /^https:\/\/[\x21-\x7e]+$/.test(explanation);
    return { startMs, endMs, explanationUrl: shown ? explanation : undefined, retryAfterMs };
  }

  url(field: string): string {
    return this.#checkedUrl(field, this.#fields[field]);
  }

  /** A challenge without a token, or of an unknown form, is not answered (RFC 8555 section 7.1.4). */
  #challenge(): AcmeChallenge[] {
    const { type, token, url } = this.#fields;
    const status = (['pending', 'processing', 'valid', 'invalid'] as const).find(
      (each) => each === this.#fields.status,
    );
    if (typeof type !== 'string' || typeof token !== 'string' || !isBase64url(token)) return [];
    if (status === undefined || !this.#isUrl(url)) return [];
    return [{ type, token, url, status, problem: problemOf(this.#fields.error) }];
  }

  #of(value: unknown): Answer {
    return new Answer(value, this.#allowed);
  }

  /** An optional field of another form counts as missing. */
  #inside(field: string): Answer {
    const value = this.#fields[field];
    return this.#of(isObject(value) ? value : {});
  }

  #optional(field: string): string | undefined {
    const value = this.#fields[field];
    return this.#isUrl(value) ? value : undefined;
  }

  #words(field: string): string[] {
    const value = this.#fields[field];
    return Array.isArray(value)
      ? value.slice(0, MOST_ENTRIES).filter((each) => typeof each === 'string')
      : [];
  }

  #text(field: string): string | undefined {
    const value = this.#fields[field];
    return typeof value === 'string' && value.length <= MOST_URL ? value : undefined;
  }

  #list(field: string): readonly unknown[] {
    const value = this.#fields[field] ?? [];
    if (!Array.isArray(value) || value.length > MOST_ENTRIES) throw new RangeError(`field ${field}`);
    return value;
  }

  #one<T extends string>(field: string, known: readonly T[]): T {
    const found = known.find((each) => each === this.#fields[field]);
    if (found === undefined) throw new RangeError(`field ${field}`);
    return found;
  }

  #name(identifier: unknown): string {
    const { type, value } = (identifier ?? {}) as Fields;
    if (type !== 'dns' || typeof value !== 'string') throw new RangeError('field identifier');
    return value.toLowerCase();
  }

  #checkedUrl(field: string, value: unknown): string {
    if (!this.#isUrl(value)) throw new RangeError(`field ${field} is not an https address`);
    return value;
  }

  #isUrl(value: unknown): value is string {
    return typeof value === 'string' && value.length <= MOST_URL && this.#allowed(value);
  }
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** RFC 3339, the form of every time in ACME (RFC 8555 section 7.1.3). */
function dateOf(value: unknown): number {
  return typeof value === 'string' && /^\d{4}-\d\d-\d\dT/.test(value) ? Date.parse(value) : Number.NaN;
}
