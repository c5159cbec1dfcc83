import type { KeyObject, X509Certificate } from 'node:crypto';
import {
  type AcmeAuthorization,
  type AcmeDirectory,
  type AcmeOrder,
  Answer,
  type RenewalInfo,
} from './answers.ts';
import { certificatesOf, isCertifiableName, renewalId } from './certificate.ts';
import { AcmeError, oneLine, problemOf, refusal, strange, unreachable } from './error.ts';
import { type Exchange, exchange, type Got, isAllowed } from './https.ts';
import { type ExternalAccount, externalBinding, isBase64url, jwkOf, signed } from './jws.ts';

export interface AcmeClientOptions {
  readonly directoryUrl: string;
  /** Private key of P-256. The caller stores it before the CA sees it. */
  readonly accountKey: KeyObject;
  /** The account's URL at the CA, once it is known. */
  readonly accountUrl?: string | undefined;
  /** Product and version (RFC 8555 section 6.1). */
  readonly userAgent: string;
  /** PEM of CAs to trust in addition to the public ones. */
  readonly ca?: string | undefined;
  /** Limit of one call. */
  readonly timeoutMs?: number;
}

interface AccountRequest {
  /** E.g. `mailto:ops@shop.example`. */
  readonly contact: readonly string[];
  readonly termsAgreed: boolean;
  readonly externalAccount?: ExternalAccount | undefined;
}

interface OrderRequest {
  readonly names: readonly string[];
  /** One that the directory offers. */
  readonly profile?: string | undefined;
  /** The certificate that it replaces; the CA then counts the order against no limit (RFC 9773 section 5). */
  readonly replaces?: X509Certificate | undefined;
}

/** Why a certificate is revoked (RFC 5280 section 5.3.1). */
export const REVOKED_FOR = { unspecified: 0, keyCompromise: 1, superseded: 4, cessation: 5 } as const;

/** How CAs refuse a request that another key than the account's has signed (RFC 8555 section 6.7). */
const OTHER_KEY = new Set(['malformed', 'unauthorized', 'accountDoesNotExist']);

const TIMEOUT_MS = 15_000;
/**
 * RFC 8555 section 6.5: a CA may refuse a nonce at any time, and the client tries the next one. A CA that refuses six
 * has another fault.
 */
const MOST_NONCE_RETRIES = 5;

/**
 * An ACME client (RFC 8555) for one account. Each method is one step and never waits for the CA's decision. The order
 * at the CA holds the state, so any process with the account key and the order's URL can continue, after a restart or
 * on another node.
 *
 * Every method throws {@link AcmeError}; an aborted signal throws its own reason.
 */
export class AcmeClient {
  readonly #options: AcmeClientOptions;
  readonly #ca: string;
  #directory: AcmeDirectory | undefined;
  #accountUrl: string | undefined;
  #nonce: string | undefined;

  constructor(options: AcmeClientOptions) {
    this.#options = options;
    this.#accountUrl = options.accountUrl;
    this.#ca = URL.canParse(options.directoryUrl) ? new URL(options.directoryUrl).host : options.directoryUrl;
  }

  /** Requested once in the life of a client (RFC 8555 section 7.1.1). */
  async directory(signal: AbortSignal): Promise<AcmeDirectory> {
    if (this.#directory !== undefined) return this.#directory;
    const { directoryUrl } = this.#options;
    if (!isAllowed(directoryUrl, directoryUrl))
      throw unreachable(directoryUrl, 'it is no https address, so it is not called');
    const got = await this.#send({ method: 'GET', url: directoryUrl, accept: 'application/json' }, signal);
    this.#refuse(got);
    this.#directory = this.#read(got, (answer) => answer.directory());
    return this.#directory;
  }

  /**
   * Creates the account, or finds the one that already has this key (RFC 8555 section 7.3.1).
   *
   * @returns its URL at the CA
   */
  async account(
    { contact, termsAgreed, externalAccount }: AccountRequest,
    signal: AbortSignal,
  ): Promise<string> {
    const { newAccount, externalAccountRequired, termsOfService } = await this.directory(signal);
    const missing = externalAccountRequired && externalAccount === undefined;
    if (missing || (termsOfService !== undefined && !termsAgreed))
      throw missing ? needsExternalAccount(this.#ca) : needsTerms(this.#ca, termsOfService ?? '');
    const { accountKey } = this.#options;
    const got = await this.#post(
      newAccount,
      {
        ...(contact.length > 0 && { contact }),
        ...(termsAgreed && { termsOfServiceAgreed: true }),
        ...(externalAccount !== undefined && {
          externalAccountBinding: externalBinding(externalAccount, accountKey, newAccount),
        }),
      },
      signal,
      { jwk: jwkOf(accountKey) },
    );
    this.#accountUrl = this.#locationOf(got);
    return this.#accountUrl;
  }

  /** RFC 8555 section 7.4. The CA may return an existing order. */
  async newOrder({ names, profile, replaces }: OrderRequest, signal: AbortSignal): Promise<AcmeOrder> {
    const { newOrder, renewalInfo, profiles } = await this.directory(signal);
    const bad = names.find((name) => !isCertifiableName(name));
    if (bad !== undefined || names.length === 0) throw this.#badNames(bad);
    if (profile !== undefined && !profiles.has(profile)) throw this.#noProfile(profile, [...profiles.keys()]);
    const replaced = replaces === undefined || renewalInfo === undefined ? undefined : renewalId(replaces);
    const got = await this.#post(
      newOrder,
      {
        identifiers: names.map((value) => ({ type: 'dns', value })),
        ...(profile !== undefined && { profile }),
        ...(replaced !== undefined && { replaces: replaced }),
      },
      signal,
    );
    const url = this.#locationOf(got);
    return this.#read(got, (answer) => answer.order(url, got.retryAfterMs));
  }

  async order(url: string, signal: AbortSignal): Promise<AcmeOrder> {
    const got = await this.#post(url, undefined, signal);
    return this.#read(got, (answer) => answer.order(url, got.retryAfterMs));
  }

  async authorization(url: string, signal: AbortSignal): Promise<AcmeAuthorization> {
    const got = await this.#post(url, undefined, signal);
    return this.#read(got, (answer) => answer.authorization(url, got.retryAfterMs));
  }

  /** Reports that a challenge is ready: the CA may check now (RFC 8555 section 7.5.1). */
  async answer(challengeUrl: string, signal: AbortSignal): Promise<void> {
    await this.#post(challengeUrl, {}, signal);
  }

  /** RFC 8555 section 7.4. @param request in DER */
  async finalize({ url, finalize }: AcmeOrder, request: Buffer, signal: AbortSignal): Promise<AcmeOrder> {
    const got = await this.#post(finalize, { csr: request.toString('base64url') }, signal);
    return this.#read(got, (answer) => answer.order(url, got.retryAfterMs));
  }

  /**
   * Fetches the chain of a valid order (RFC 8555 section 7.4.2): certificates and nothing else. The caller checks
   * whether they fit key and names.
   *
   * @returns PEM, leaf first
   */
  async certificate(url: string, signal: AbortSignal): Promise<string> {
    const got = await this.#post(url, undefined, signal, {}, 'application/pem-certificate-chain');
    try {
      // Written by Node.js: none of the CA's own text is left.
      return certificatesOf(got.body.toString('latin1')).join('');
    } catch (error) {
      throw strange(this.#ca, `the certificate: ${wordsOf(error)}`, error);
    }
  }

  /** Signed by the account (RFC 8555 section 7.6). A certificate that is already revoked is no error. */
  async revoke(certificate: X509Certificate, reason: number, signal: AbortSignal): Promise<void> {
    const { revokeCert } = await this.directory(signal);
    const payload = { certificate: certificate.raw.toString('base64url'), reason };
    try {
      await this.#post(revokeCert, payload, signal);
    } catch (error) {
      if (!(error instanceof AcmeError) || error.problem?.type !== 'alreadyRevoked') throw error;
    }
  }

  /**
   * @returns undefined if the CA has no renewal information, or the certificate does not name the key that signed it
   */
  async renewalInfo(certificate: X509Certificate, signal: AbortSignal): Promise<RenewalInfo | undefined> {
    const { renewalInfo } = await this.directory(signal);
    const id = renewalId(certificate);
    if (renewalInfo === undefined || id === undefined) return undefined;
    const url = `${renewalInfo.replace(/\/$/, '')}/${id}`;
    const got = await this.#send({ method: 'GET', url, accept: 'application/json' }, signal);
    this.#refuse(got);
    return this.#read(got, (answer) => answer.renewalInfo(got.retryAfterMs));
  }

  /**
   * From then on the CA refuses the old key (RFC 8555 section 7.3.5). This client keeps the old key: create a new
   * client.
   */
  async changeKey(newKey: KeyObject, signal: AbortSignal): Promise<void> {
    const { keyChange } = await this.directory(signal);
    if (keyChange === undefined) throw strange(this.#ca, 'its directory has no keyChange');
    const payload = { account: this.#account(), oldKey: jwkOf(this.#options.accountKey) };
    await this.#post(keyChange, signed(newKey, { jwk: jwkOf(newKey), url: keyChange }, payload), signal);
  }

  /** Whether this client's key is the account's: only that key may read the account (RFC 8555 section 6.3). */
  async isKnown(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#post(this.#account(), undefined, signal);
      return true;
    } catch (error) {
      if (error instanceof AcmeError && OTHER_KEY.has(error.problem?.type ?? '')) return false;
      throw error;
    }
  }

  /** A signed request. After a refused nonce it tries again with the nonce of the refusal (RFC 8555 section 6.5). */
  async #post(
    url: string,
    payload: object | undefined,
    signal: AbortSignal,
    by: { readonly jwk?: object } = {},
    accept = 'application/json',
  ): Promise<Got> {
    if (!isAllowed(url, this.#options.directoryUrl)) throw strange(this.#ca, 'it names no https address');
    const who = by.jwk === undefined ? { kid: this.#account() } : by;
    for (let retries = 0; ; retries += 1) {
      const nonce = this.#nonce ?? (await this.#freshNonce(signal));
      // A nonce is used once, whatever the result.
      this.#nonce = undefined;
      const head = { ...who, nonce, url };
      const body = JSON.stringify(signed(this.#options.accountKey, head, payload));
      const got = await this.#send({ method: 'POST', url, body, accept }, signal);
      try {
        this.#refuse(got);
        return got;
      } catch (error) {
        const again = error instanceof AcmeError && error.problem?.type === 'badNonce';
        if (!again || retries >= MOST_NONCE_RETRIES) throw error;
      }
    }
  }

  async #freshNonce(signal: AbortSignal): Promise<string> {
    const { newNonce } = await this.directory(signal);
    const got = await this.#send({ method: 'HEAD', url: newNonce }, signal);
    this.#refuse(got);
    if (this.#nonce === undefined) throw strange(this.#ca, 'newNonce came without a nonce');
    return this.#nonce;
  }

  async #send(what: Exchange, signal: AbortSignal): Promise<Got> {
    const { userAgent, ca, timeoutMs = TIMEOUT_MS } = this.#options;
    const got = await exchange(what, { userAgent, ca, timeoutMs }, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      throw unreachable(what.url, wordsOf(error), error);
    });
    if (got.nonce !== undefined && isBase64url(got.nonce)) this.#nonce = got.nonce;
    return got;
  }

  #refuse({ status, type, body, retryAfterMs }: Got): void {
    if (status >= 200 && status < 300) return;
    if (status >= 300 && status < 400)
      throw strange(this.#ca, `it redirects (status ${status}), and redirects are not followed`);
    const problem = type === 'application/problem+json' ? problemOf(parsed(body)) : undefined;
    throw refusal({ status, problem, retryAfterMs, ca: this.#ca });
  }

  #read<T>({ body }: Got, read: (answer: Answer) => T): T {
    const { directoryUrl } = this.#options;
    try {
      return read(new Answer(parsed(body), (url) => isAllowed(url, directoryUrl)));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw strange(this.#ca, error.message, error);
    }
  }

  #locationOf({ location }: Got): string {
    if (location !== undefined && isAllowed(location, this.#options.directoryUrl)) return location;
    throw strange(this.#ca, 'it does not name the new object');
  }

  #account(): string {
    if (this.#accountUrl !== undefined) return this.#accountUrl;
    throw new TypeError('the account is not known: call account() first');
  }

  #badNames(bad: string | undefined): AcmeError {
    return new AcmeError({
      code: 'certificate-names',
      message:
        bad === undefined
          ? 'there is no name to order for'
          : `no certificate can have the name ${JSON.stringify(bad)}`,
      next: 'write DNS names into certificates.names, e.g. "shop.example"; a name in another script in its form xn--…',
      outcome: 'terminal',
    });
  }

  #noProfile(profile: string, known: readonly string[]): AcmeError {
    const offers = known.length === 0 ? 'it offers none' : `it offers ${oneLine(known.join(', '))}`;
    return new AcmeError({
      code: 'certificate-names',
      message: `the CA at ${this.#ca} has no profile ${JSON.stringify(profile)}: ${offers}`,
      next: 'remove certificates.profile, or name one of those',
      outcome: 'terminal',
    });
  }
}

function needsExternalAccount(ca: string): AcmeError {
  return new AcmeError({
    code: 'certificate-account',
    message: `the CA at ${ca} creates accounts only for its customers`,
    next:
      'get a key for external account binding from it, and set certificates.eab_kid and eab_hmac_key_file; ' +
      'or use another CA: certificates.directory',
    outcome: 'terminal',
  });
}

function needsTerms(ca: string, terms: string): AcmeError {
  return new AcmeError({
    code: 'certificate-account',
    message: `the CA at ${ca} creates accounts only after consent to its terms: ${oneLine(terms)}`,
    next: 'read them; if you agree, write terms = "agreed" into [certificates]',
    outcome: 'terminal',
  });
}

function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** If a name has several addresses, Node.js tries each and returns one error without a message for all. */
function wordsOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return wordsOf(error.errors[0]);
  return error instanceof Error ? error.message : String(error);
}
