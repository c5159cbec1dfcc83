import type { PlannedChange } from '../contract.ts';
import type { CertificatesDesired, SiteBundle } from './desired.ts';
import { type Held, heldOrder, type OrderReason } from './limits.ts';
import { renewAtMs } from './renewal.ts';

/** What a look at the CA and at this host saw. */
export interface CertificatesObserved {
  /** SHA-256 of the leaf that this node's edge serves, in hex; undefined: none. */
  readonly served: string | undefined;
  /** Of the bundle's next order; undefined: not asked, or there is none. */
  readonly order: 'pending' | 'ready' | 'processing' | 'valid' | 'invalid' | undefined;
}

export interface CertificateChange extends PlannedChange {
  readonly kind: 'install' | 'account' | 'order' | 'answer' | 'finalize' | 'download' | 'abandon';
  readonly step: 'repeats';
}

/** A CA forgets an order after some days (Let's Encrypt: 7); one that came to no end in one day will not. */
const ORDER_LIFE_MS = 24 * 3_600_000;

/**
 * The next step. At most one at the CA: what it answers is in the bundle, and with all app nodes, before the next
 * one is taken, so that whoever takes over goes on with the same keys and the same order.
 */
export function planCertificates(
  desired: CertificatesDesired,
  observed: CertificatesObserved,
): CertificateChange[] {
  const { current } = desired.bundle;
  const installed = current === undefined || observed.served === current.fingerprint;
  const step = desired.orders ? atCa(desired, observed) : undefined;
  return [
    ...(installed ? [] : [change('install', `serve the certificate of ${current.names.join(', ')}`)]),
    ...(step === undefined ? [] : [step]),
  ];
}

function atCa(desired: CertificatesDesired, observed: CertificatesObserved): CertificateChange | undefined {
  const { bundle, names, profile, nowMs } = desired;
  const said = names.join(', ');
  const { next } = bundle;
  if (next === undefined) {
    const reason = orderReason(desired);
    if (reason === undefined || heldNow(desired) !== undefined) return undefined;
    if (bundle.account?.url === undefined) return change('account', 'make an account at the CA');
    return change('order', `order a certificate for ${said}: ${WORDS[reason]}`);
  }
  if (!same(next.names, names) || next.profile !== profile)
    return change('abandon', `give up the order for ${next.names.join(', ')}: others are wanted now`);
  if (nowMs - next.sinceMs > ORDER_LIFE_MS)
    return change('abandon', `give up the order for ${said}: it came to no end`);
  if (bundle.account?.url === undefined) return change('account', 'make an account at the CA');
  if (next.url === undefined)
    return change('order', `order a certificate for ${said}: nobody has its address`);
  switch (observed.order) {
    case 'pending':
      return change('answer', `let the CA check ${said}`);
    case 'ready':
      return change('finalize', `have the certificate for ${said} signed`);
    case 'valid':
      return change('download', `fetch the certificate for ${said}`);
    case 'invalid':
      return change('abandon', `give up the order for ${said}: the CA refused it`);
    // Not asked yet, or the CA is at work: the next look tells.
    case 'processing':
    case undefined:
      return undefined;
  }
}

/** What holds an order that there is a reason for, for `status`. */
export function heldNow(desired: CertificatesDesired): Held | undefined {
  const { bundle, names, nowMs } = desired;
  const reason = orderReason(desired);
  return reason === undefined || bundle.next !== undefined
    ? undefined
    : heldOrder(bundle, names, reason, nowMs);
}

/** Why a certificate is ordered; undefined: the one that is there is right. */
export function orderReason(desired: Omit<CertificatesDesired, 'orders' | 'why'>): OrderReason | undefined {
  const { bundle, names, profile, removed, nowMs } = desired;
  const { current } = bundle;
  if (names.length === 0) return undefined;
  if (current === undefined) return 'none';
  if (current.revoked) return 'revoked';
  if (removed.some((peer) => !bundle.without.includes(peer))) return 'removal';
  if (!same(current.names, names)) return 'names';
  if (current.profile !== profile) return 'profile';
  return nowMs >= renewalMs(bundle, current) ? 'renewal' : undefined;
}

/**
 * A moment that was drawn for another certificate is forgotten with it: kept, it would order without end (cert-
 * manager #8993).
 */
function renewalMs({ renewal }: SiteBundle, current: NonNullable<SiteBundle['current']>): number {
  return renewal?.fingerprint === current.fingerprint ? renewal.atMs : renewAtMs(current, undefined, 0);
}

const WORDS: Readonly<Record<OrderReason, string>> = {
  none: 'there is none yet',
  names: 'the names changed',
  profile: 'the profile changed',
  revoked: 'the present one is revoked',
  removal: 'an app node was removed that has the present key',
  renewal: 'the time for the next has come',
};

function same(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((each, at) => each === other[at]);
}

function change(kind: CertificateChange['kind'], summary: string): CertificateChange {
  return { kind, summary, step: 'repeats' };
}
