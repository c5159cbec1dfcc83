import { createPrivateKey } from 'node:crypto';
import { thumbprint } from '../../acme/jws.ts';
import type { SiteAccount, SiteBundle } from './desired.ts';

/** A quarter of its life is left: two thirds, or half, is when it is renewed, so that has failed for long. */
const ENDING_PART = 4;

/**
 * What HAProxy shows, and when it ends if that is near: undefined where there is no certificate.
 *
 * @returns `edge` has certificate, chain and key as HAProxy reads them
 */
export function shownOf({ current }: SiteBundle, wallMs: number) {
  if (current === undefined) return undefined;
  const ends = (current.endMs - wallMs) * ENDING_PART < current.endMs - current.fromMs;
  return {
    edge: `${current.chain.trimEnd()}\n${current.key}`,
    siteEndMs: ends ? current.endMs : undefined,
  };
}

/** By account: each look at this node asks for it, and to parse a key takes longer than most of the look. */
const thumbprints = new WeakMap<SiteAccount, string>();

/** Of the account at the CA, by which every edge answers its checks. */
export function thumbprintOf({ account }: SiteBundle): string | undefined {
  if (account === undefined) return undefined;
  const known = thumbprints.get(account) ?? thumbprint(createPrivateKey(account.key));
  thumbprints.set(account, known);
  return known;
}
