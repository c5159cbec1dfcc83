import type { PlannedChange } from '../contract.ts';
import type { CertificatesDesired, ExposedCertificate, SiteBundle } from './desired.ts';
import { type Held, heldOrder, type OrderReason } from './limits.ts';
import { hasMoved, renewAtMs, type RenewalWindow } from './renewal.ts';

/** The observed state of the CA and of this host. */
export interface CertificatesObserved {
  /** Of the bundle's next order; undefined: not asked, or there is none. */
  readonly order: 'pending' | 'ready' | 'processing' | 'valid' | 'invalid' | undefined;
  /** Whether the edges serve the present certificate, so that no visitor needs a former one. */
  readonly replaced?: boolean;
  /** When the CA wants the present certificate renewed; undefined: not asked, or it does not say. */
  readonly window?: RenewalWindow | undefined;
}

export interface CertificateChange extends PlannedChange {
  readonly kind:
    | 'exclude'
    | 'account'
    | 'rekey'
    | 'order'
    | 'publish'
    | 'answer'
    | 'finalize'
    | 'download'
    | 'abandon'
    | 'revoke'
    | 'window';
  /** Of `window`. */
  readonly window?: RenewalWindow;
  readonly step: 'repeats';
}

/** A CA forgets an order after some days (Let's Encrypt: 7); one that did not end in one day never will. */
const ORDER_LIFE_MS = 24 * 3_600_000;

/**
 * The next step. At most one at the CA: its answer is in the bundle, and all app nodes have it, before the next step,
 * so that a node that takes over continues with the same keys and the same order. HAProxy, which has its own plugin,
 * serves the issued certificate.
 */
export function planCertificates(
  desired: CertificatesDesired,
  observed: CertificatesObserved,
): CertificateChange[] {
  const step = desired.orders
    ? (withoutRemoved(desired) ??
      urgent(desired) ??
      atCa(desired, observed) ??
      revocation(desired, observed) ??
      moved(desired, observed))
    : undefined;
  return step === undefined ? [] : [step];
}

/** A removed app node has the present keys: new ones are made at once, and it gets none of them. */
function withoutRemoved(desired: CertificatesDesired): CertificateChange | undefined {
  const { bundle, removed } = desired;
  if (removed.some((peer) => !bundle.without.includes(peer)))
    return change('exclude', 'make new keys: a removed app node has the present ones');
  return bundle.account?.nextKey !== undefined && hasAccount(desired)
    ? change('rekey', 'change the key of the account at the CA: others have the present one, or may have it')
    : undefined;
}

/** A replaced certificate whose key others have, or the present one if an operator does not wait for the next. */
export function toRevoke({ exposed = [], current }: SiteBundle): ExposedCertificate | undefined {
  return exposed.find(({ fingerprint, now }) => now === true || fingerprint !== current?.fingerprint);
}

function urgent(desired: CertificatesDesired): CertificateChange | undefined {
  const former = toRevoke(desired.bundle);
  return former?.now === true && hasAccount(desired)
    ? change(
        'revoke',
        `revoke the certificate ${former.fingerprint.slice(0, 16)} now: an operator asked for it`,
      )
    : undefined;
}

function revocation(
  { bundle }: CertificatesDesired,
  { replaced }: CertificatesObserved,
): CertificateChange | undefined {
  const former = toRevoke(bundle);
  return former !== undefined && replaced === true && bundle.next === undefined
    ? change(
        'revoke',
        `revoke the former certificate ${former.fingerprint.slice(0, 16)}: ` +
          (former.reason === undefined ? 'a removed app node has its key' : 'an operator asked for it'),
      )
    : undefined;
}

/** E.g. when it must revoke many certificates. */
function moved(
  { bundle }: CertificatesDesired,
  { window }: CertificatesObserved,
): CertificateChange | undefined {
  const { current, next } = bundle;
  if (current === undefined || next !== undefined || window === undefined) return undefined;
  return hasMoved(current, window, renewalMs(bundle, current))
    ? { ...change('window', 'choose another time for the renewal: the CA has changed its window'), window }
    : undefined;
}

function atCa(desired: CertificatesDesired, observed: CertificatesObserved): CertificateChange | undefined {
  const { bundle, names, profile, nowMs } = desired;
  const said = names.join(', ');
  const { next } = bundle;
  if (next === undefined) {
    const reason = orderReason(desired);
    if (reason === undefined || heldNow(desired) !== undefined) return undefined;
    if (!hasAccount(desired)) return change('account', 'make an account at the CA');
    return change('order', `order a certificate for ${said}: ${WORDS[reason]}`);
  }
  if (!same(next.names, names) || next.profile !== profile)
    return change('abandon', `cancel the order for ${next.names.join(', ')}: the names changed`);
  if (nowMs - next.sinceMs > ORDER_LIFE_MS)
    return change('abandon', `cancel the order for ${said}: it did not finish in time`);
  if (!hasAccount(desired)) return change('account', 'make an account at the CA');
  if (next.url === undefined)
    return change('order', `order a certificate for ${said}: the URL of the order is unknown`);
  switch (observed.order) {
    case 'pending':
      if (desired.challenge === 'dns-01' && next.answers === undefined)
        return change('publish', `have the TXT records for ${said} written`);
      return change('answer', `let the CA check ${said}`);
    case 'ready':
      return change('finalize', `have the certificate for ${said} signed`);
    case 'valid':
      return change('download', `fetch the certificate for ${said}`);
    case 'invalid':
      return change('abandon', `cancel the order for ${said}: the CA refused it`);
    // Not asked yet, or the CA is still working: the next run decides.
    case 'processing':
    case undefined:
      return undefined;
  }
}

/** An account of another CA than the configured one does not count. */
function hasAccount({ bundle, directory }: Pick<CertificatesDesired, 'bundle' | 'directory'>): boolean {
  const { account } = bundle;
  return account?.url !== undefined && isOf(account, directory);
}

/** Whether it belongs to the configured CA. */
export function isOf(
  of: { readonly directory?: string | undefined },
  directory: string | undefined,
): boolean {
  return directory === undefined || of.directory === undefined || of.directory === directory;
}

/** The limit that delays a needed order, for `status`. */
export function heldNow(desired: CertificatesDesired): Held | undefined {
  const { bundle, names, nowMs } = desired;
  const reason = orderReason(desired);
  return reason === undefined || bundle.next !== undefined
    ? undefined
    : heldOrder({ ...bundle, asked: askedNow(bundle) }, names, reason, nowMs);
}

/** The operator's request, unless it was done since. */
function askedNow({ asked, current }: SiteBundle): SiteBundle['asked'] {
  return asked?.fingerprint === current?.fingerprint ? asked : undefined;
}

/** Whether there is an open order, or a reason for one. */
export function wantsOrder(desired: CertificatesDesired): boolean {
  return desired.bundle.next !== undefined || orderReason(desired) !== undefined;
}

/** Why a certificate is ordered; undefined: the present one is right. */
export function orderReason(desired: Omit<CertificatesDesired, 'orders' | 'why'>): OrderReason | undefined {
  const { bundle, names, profile, directory, removed, nowMs } = desired;
  const { current } = bundle;
  if (names.length === 0) return undefined;
  if (current === undefined) return 'none';
  if (current.revoked) return 'revoked';
  if (removed.some((peer) => !bundle.without.includes(peer))) return 'removal';
  const exposed = bundle.exposed?.find(({ fingerprint }) => fingerprint === current.fingerprint);
  if (exposed !== undefined) return exposed.reason === undefined ? 'removal' : 'revocation';
  if (!same(current.names, names)) return 'names';
  if (current.profile !== profile) return 'profile';
  if (!isOf(current, directory)) return 'directory';
  if (askedNow(bundle) !== undefined) return 'asked';
  return nowMs >= renewalMs(bundle, current) ? 'renewal' : undefined;
}

/**
 * A renewal time of another certificate is forgotten with it: kept, it would cause endless orders (cert-manager #8993).
 */
export function renewalMs({ renewal }: SiteBundle, current: NonNullable<SiteBundle['current']>): number {
  return renewal?.fingerprint === current.fingerprint ? renewal.atMs : renewAtMs(current, undefined, 0);
}

/** The reason, for people. */
export const WORDS: Readonly<Record<OrderReason, string>> = {
  none: 'there is none yet',
  names: 'the names changed',
  profile: 'the profile changed',
  directory: 'another CA is configured',
  revoked: 'the present one is revoked',
  removal: 'a removed app node has the present key',
  revocation: 'an operator revokes the present one',
  asked: 'an operator asked for it',
  renewal: 'the time for the next has come',
};

function same(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((each, at) => each === other[at]);
}

function change(kind: CertificateChange['kind'], summary: string): CertificateChange {
  return { kind, summary, step: 'repeats' };
}
