import { createPrivateKey } from 'node:crypto';
import { thumbprint } from '../../acme/jws.ts';
import type { SiteAccount, SiteBundle } from './desired.ts';

/** A quarter of its life is left: renewal is due after two thirds, or half, so it has failed for long. */
const ENDING_PART = 4;

/**
 * What HAProxy serves, and when it ends if that is near: undefined without a certificate.
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

/** A name of the site that a visitor can type: the first without `*`, else one that the wildcard covers. */
export function visitedName(names: readonly string[]): string {
  return names.find((name) => !name.startsWith('*.')) ?? names[0]?.replace('*', 'www') ?? '';
}

/** Cached by account: each turn needs it, and parsing a key takes longer than most of the turn. */
const thumbprints = new WeakMap<SiteAccount, string>();

/** Thumbprint of the account at the CA, by which every edge answers its checks. */
export function thumbprintOf({ account }: SiteBundle): string | undefined {
  if (account === undefined) return undefined;
  const known = thumbprints.get(account) ?? thumbprint(createPrivateKey(account.key));
  thumbprints.set(account, known);
  return known;
}
