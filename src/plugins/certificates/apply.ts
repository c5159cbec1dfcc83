import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import type { AcmeAuthorization, AcmeOrder } from '../../acme/answers.ts';
import { type AcmeClient, REVOKED_FOR } from '../../acme/client.ts';
import { AcmeError, notAuthorized } from '../../acme/error.ts';
import { certificatesOf, signingRequest } from '../../acme/certificate.ts';
import { dnsAuthorization } from '../../acme/jws.ts';
import { readIfPresent } from '../../host/files.ts';
import type { TxtRecord } from '../../host/txt-records.ts';
import type { Finding } from '../contract.ts';
import type {
  CertificatesDesired,
  ExposedCertificate,
  OrderOutcome,
  SiteAccount,
  SiteBundle,
  SiteOrder,
} from './desired.ts';
import { fittingLeaf, isMisfit } from './fit.ts';
import { setOf } from './limits.ts';
import { outcomes } from './merge.ts';
import { type CertificateChange, isOf, toRevoke } from './plan.ts';
import { renewAtMs, type RenewalWindow } from './renewal.ts';

/** The CA as a step finds it. */
export interface Ca {
  readonly wanted: Pick<CertificatesDesired, 'names' | 'profile' | 'removed' | 'challenge'> & {
    readonly directory: string;
    readonly contact: readonly string[];
    readonly termsAgreed: boolean;
    readonly externalAccount: { readonly kid: string; readonly keyFile: string } | undefined;
  };
  /** Needs the account's key, or its next key. */
  readonly client: (key?: string) => AcmeClient;
}

interface StepsOptions {
  readonly site: { get(): SiteBundle; change(next: (now: SiteBundle) => SiteBundle): Promise<unknown> };
  readonly wallMs: () => number;
  /** 0 to 1. */
  readonly random: () => number;
}

/** One step of an order at the CA. Its result is in the bundle before the step ends. */
export class Steps {
  readonly #options: StepsOptions;

  constructor(options: StepsOptions) {
    this.#options = options;
  }

  /** @returns what an operator must know about an order that failed */
  async make(
    { kind, window }: CertificateChange,
    ca: Ca,
    order: AcmeOrder | undefined,
    signal: AbortSignal,
  ): Promise<Finding | undefined> {
    switch (kind) {
      case 'exclude':
        await this.#exclude(ca);
        return undefined;
      case 'rekey':
        await this.#rekey(ca, signal);
        return undefined;
      case 'revoke':
        await this.#revoke(ca, signal);
        return undefined;
      case 'account':
        await this.#account(ca, signal);
        return undefined;
      case 'order':
        await this.#order(ca, signal);
        return undefined;
      case 'publish':
        if (order !== undefined) await this.#publish(ca, order, signal);
        return undefined;
      case 'answer':
        for (const url of order?.authorizations ?? [])
          await answer(ca.client(), url, ca.wanted.challenge, signal);
        return undefined;
      case 'finalize':
        if (order !== undefined) await this.#finalize(ca, order, signal);
        return undefined;
      case 'download':
        return order === undefined ? undefined : this.#download(ca, order, signal);
      case 'abandon':
        return this.#abandon(ca, order, signal);
      case 'window':
        await this.#change((now) => renewedIn(now, window, this.#options.random()));
        return undefined;
    }
  }

  /** From now on removed nodes get none of this, even from a node that does not know of the removal yet. */
  async #exclude({ wanted }: Ca): Promise<void> {
    await this.#change((now) => ({
      ...now,
      account: now.account && withNextKey(now.account),
      next: undefined,
      exposed: exposedOf(now),
      without: [...new Set([...now.without, ...wanted.removed])].slice(-1000),
    }));
  }

  /** If the answer to an earlier call was lost, the CA already knows the next key and refuses the present one. */
  async #rekey(ca: Ca, signal: AbortSignal): Promise<void> {
    const { account } = this.#options.site.get();
    const { nextKey } = account ?? {};
    if (account === undefined || nextKey === undefined) return;
    await ca
      .client()
      .changeKey(createPrivateKey(nextKey), signal)
      .catch(async (error: unknown) => {
        const refused = error instanceof AcmeError && error.problem !== undefined;
        if (!refused || !(await ca.client(nextKey).isKnown(signal))) throw error;
      });
    await this.#change((now) =>
      now.account?.nextKey === nextKey
        ? { ...now, account: { ...now.account, key: nextKey, nextKey: undefined } }
        : now,
    );
  }

  /** An order of a former CA, or an expired one, is forgotten. */
  async #revoke({ client, wanted }: Ca, signal: AbortSignal): Promise<void> {
    const former = toRevoke(this.#options.site.get());
    if (former === undefined) return;
    if (isOf(former, wanted.directory) && former.endMs > this.#options.wallMs())
      await client().revoke(
        new X509Certificate(former.leaf),
        former.reason ?? REVOKED_FOR.keyCompromise,
        signal,
      );
    await this.#change((now) => ({
      ...now,
      ...(now.current?.fingerprint === former.fingerprint && { current: { ...now.current, revoked: true } }),
      exposed: now.exposed?.filter(({ fingerprint }) => fingerprint !== former.fingerprint),
    }));
  }

  /** Its key and that of the first order: all app nodes have both before the CA sees one. */
  async #account(ca: Ca, signal: AbortSignal): Promise<void> {
    const { directory, contact, termsAgreed } = ca.wanted;
    const { account } = this.#options.site.get();
    if (account === undefined || !isOf(account, directory)) {
      const next = this.#firstOf(ca);
      await this.#change((now) => ({ ...now, account: { directory, key: newKey() }, next }));
      return;
    }
    const externalAccount = ca.wanted.externalAccount && (await withKey(ca.wanted.externalAccount));
    const url = await ca
      .client()
      .account({ contact: contact.map((each) => `mailto:${each}`), termsAgreed, externalAccount }, signal);
    await this.#change((now) =>
      now.account?.key === account.key ? { ...now, account: { ...now.account, url } } : now,
    );
  }

  /** An order that the CA does not know yet. */
  #firstOf({ wanted: { names, profile } }: Ca): SiteOrder {
    return { names, profile, key: newKey(), sinceMs: this.#options.wallMs() };
  }

  /** The certificate's key first, as above. */
  async #order(ca: Ca, signal: AbortSignal): Promise<void> {
    const { names } = ca.wanted;
    const { next, current } = this.#options.site.get();
    if (next === undefined) {
      await this.#change((now) => ({ ...now, next: this.#firstOf(ca) }));
      return;
    }
    const replaces =
      current !== undefined && !current.revoked && setOf(current.names) === setOf(names)
        ? leafOf(current.chain)
        : undefined;
    const asked = { names: next.names, profile: next.profile };
    const { url } = await ca
      .client()
      .newOrder({ ...asked, replaces }, signal)
      .catch((error: unknown) => {
        if (!(error instanceof AcmeError) || error.code !== 'certificate-replaced') throw error;
        return ca.client().newOrder(asked, signal);
      });
    await this.#change((now) => (isSame(now.next, next) ? { ...now, next: { ...next, url } } : now));
  }

  /** The node that writes the DNS records finds them in its bundle. */
  async #publish({ client }: Ca, order: AcmeOrder, signal: AbortSignal): Promise<void> {
    const { next, account } = this.#options.site.get();
    if (next === undefined || account === undefined) return;
    const key = createPrivateKey(account.key);
    const answers: TxtRecord[] = [];
    for (const url of order.authorizations) {
      const authorization = await client().authorization(url, signal);
      if (authorization.status !== 'pending') continue;
      if (!next.names.some((name) => name.replace(/^\*\./, '') === authorization.name))
        throw notAuthorized(
          authorization.name,
          { type: '', detail: 'this name was not ordered', names: [] },
          'dns-01',
        );
      const { token } = challengeOf(authorization, 'dns-01');
      answers.push({ name: `_acme-challenge.${authorization.name}`, value: dnsAuthorization(token, key) });
    }
    await this.#change((now) => (isSame(now.next, next) ? { ...now, next: { ...next, answers } } : now));
  }

  /** It counts from now on, whatever the result, as the CA was asked to sign. */
  async #finalize({ client }: Ca, order: AcmeOrder, signal: AbortSignal): Promise<void> {
    const { next } = this.#options.site.get();
    if (next === undefined) return;
    await this.#change((now) => counted(now, 'finalized', next.names, this.#options.wallMs()));
    await client().finalize(order, signingRequest(next.names, createPrivateKey(next.key)), signal);
  }

  async #download(
    { client, wanted }: Ca,
    order: AcmeOrder,
    signal: AbortSignal,
  ): Promise<Finding | undefined> {
    const { wallMs, random } = this.#options;
    const { next } = this.#options.site.get();
    if (next === undefined || order.certificate === undefined) return undefined;
    const chain = await client().certificate(order.certificate, signal);
    const leaf = fittingLeaf({ chain, key: next.key, names: next.names, nowMs: wallMs() });
    if (isMisfit(leaf)) {
      await this.#change((now) => withOutcome(now, 'failed', wallMs()));
      return leaf;
    }
    const current = {
      names: [...next.names],
      profile: next.profile,
      key: next.key,
      chain,
      fingerprint: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
      directory: wanted.directory,
      fromMs: Math.max(leaf.validFromDate.getTime(), (this.#options.site.get().current?.fromMs ?? -1) + 1),
      endMs: leaf.validToDate.getTime(),
      revoked: false,
    };
    // If the renewal information is missing now, the signed certificate must not be lost.
    const window = await client()
      .renewalInfo(leaf, signal)
      .catch(() => undefined);
    await this.#change((now) =>
      renewedIn({ ...withOutcome(now, 'issued', wallMs()), current, asked: undefined }, window, random()),
    );
    return undefined;
  }

  async #abandon(
    { client, wanted }: Ca,
    order: AcmeOrder | undefined,
    signal: AbortSignal,
  ): Promise<Finding | undefined> {
    const { next, account } = this.#options.site.get();
    if (next === undefined) return undefined;
    if (order?.status !== 'invalid' || account?.url === undefined) {
      await this.#change((now) => ({ ...now, next: undefined }));
      return undefined;
    }
    const why = await whyRefused(client(), order, wanted.challenge, signal);
    const outcome = why.code === 'certificate-refused' ? 'refused' : 'failed';
    await this.#change((now) => withOutcome(now, outcome, this.#options.wallMs()));
    return { code: why.code, message: why.message, next: why.next };
  }

  #change(next: (now: SiteBundle) => SiteBundle): Promise<unknown> {
    return this.#options.site.change((now) => {
      const then = next(now);
      return then === now ? now : { ...then, generation: now.generation + 1 };
    });
  }
}

/** The present certificate is renewed at a time in this window of the CA. */
function renewedIn(bundle: SiteBundle, window: RenewalWindow | undefined, draw: number): SiteBundle {
  const { current } = bundle;
  if (current === undefined) return bundle;
  const renewal = { fingerprint: current.fingerprint, atMs: renewAtMs(current, window, draw) };
  return { ...bundle, renewal };
}

/** The open order has ended. */
export function withOutcome(bundle: SiteBundle, outcome: OrderOutcome['outcome'], atMs: number): SiteBundle {
  const { next } = bundle;
  return next === undefined ? bundle : { ...counted(bundle, outcome, next.names, atMs), next: undefined };
}

function counted(
  bundle: SiteBundle,
  outcome: OrderOutcome['outcome'],
  names: readonly string[],
  atMs: number,
): SiteBundle {
  return { ...bundle, recent: outcomes([...bundle.recent, { atMs, names: setOf(names), outcome }]) };
}

/** CAs give keys of 32 to 64 bytes. */
const MOST_KEY_BYTES = 1024;

/** The key is read when the account is made, and kept nowhere. */
async function withKey({ kid, keyFile }: { readonly kid: string; readonly keyFile: string }) {
  const text = await readIfPresent(keyFile, MOST_KEY_BYTES).catch(() => undefined);
  // Some CAs give base64url, some base64, with or without padding: to Node.js they are the same.
  const hmacKey = text?.trim() ?? '';
  if (/^[\w+/-]{22,}={0,2}$/.test(hmacKey)) return { kid, hmacKey };
  const what = text === undefined ? 'cannot be read' : 'does not hold one key in base64url';
  throw new AcmeError({
    code: 'certificate-account',
    message: `no account can be created at the CA: certificates.eab_hmac_key_file: ${keyFile} ${what}`,
    next: `paste the HMAC key of the CA into: sudo install -m 640 -g bornemisza /dev/stdin ${keyFile}`,
    outcome: 'retry',
  });
}

type ChallengeType = CertificatesDesired['challenge'];

/** Tells the CA for one name that it may check; a name that it has already checked needs nothing. */
async function answer(
  client: AcmeClient,
  url: string,
  by: ChallengeType,
  signal: AbortSignal,
): Promise<void> {
  const authorization = await client.authorization(url, signal);
  if (authorization.status !== 'pending') return;
  const challenge = challengeOf(authorization, by);
  if (challenge.status === 'pending') await client.answer(challenge.url, signal);
}

function challengeOf({ name, challenges }: AcmeAuthorization, by: ChallengeType) {
  const challenge = challenges.find(({ type }) => type === by);
  if (challenge !== undefined) return challenge;
  throw notAuthorized(name, { type: '', detail: `it offers no challenge ${by}`, names: [name] }, by);
}

async function whyRefused(
  client: AcmeClient,
  order: AcmeOrder,
  by: ChallengeType,
  signal: AbortSignal,
): Promise<AcmeError> {
  for (const url of order.authorizations) {
    const { status, name, challenges } = await client.authorization(url, signal);
    if (status === 'invalid')
      return notAuthorized(name, challenges.find(({ problem }) => problem !== undefined)?.problem, by);
  }
  return notAuthorized(order.names.join(', '), order.problem, by);
}

/** The names of reasons, as an operator gives them. */
export type RevocationReason = 'keyCompromise' | 'superseded' | 'unspecified';

/**
 * The node that orders then makes all keys again, as after a removal. A key of the account that the CA may already know
 * stays the next one.
 */
export function withRevocation(bundle: SiteBundle, reason: RevocationReason, now: boolean): SiteBundle {
  const { account } = bundle;
  return {
    ...bundle,
    generation: bundle.generation + 1,
    account: account?.nextKey === undefined ? account && withNextKey(account) : account,
    next: undefined,
    exposed: exposedOf(bundle).map((each) =>
      each.fingerprint === bundle.current?.fingerprint ? { ...each, reason: REVOKED_FOR[reason], now } : each,
    ),
  };
}

/** A key that the CA does not know yet is made again. */
function withNextKey(account: SiteAccount): SiteAccount {
  return account.url === undefined
    ? { ...account, key: newKey(), nextKey: undefined }
    : { ...account, nextKey: newKey() };
}

/** More than one waits only if the CA signs nothing for days. */
const MOST_EXPOSED = 4;

function exposedOf({ exposed = [], current }: SiteBundle): ExposedCertificate[] {
  const former = exposed.filter(({ fingerprint }) => fingerprint !== current?.fingerprint);
  if (current === undefined) return former;
  const { fingerprint, chain, directory, endMs } = current;
  const leaf = leafOf(chain)?.toString() ?? '';
  return [...former, { fingerprint, leaf, directory, endMs }].slice(-MOST_EXPOSED);
}

function isSame(one: SiteOrder | undefined, other: SiteOrder): boolean {
  return one?.key === other.key;
}

function leafOf(chain: string): X509Certificate | undefined {
  return certificatesOf(chain)[0];
}

/** P-256, as PEM. */
function newKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
}
