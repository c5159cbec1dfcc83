import type { SiteCertificate } from './desired.ts';

/**
 * Half of a short life is left when it is renewed, a third of a longer one (Let's Encrypt's advice for clients
 * without ARI).
 */
const SHORT_LIFE_MS = 10 * 24 * 3_600_000;

/** The window of the CA (RFC 9773 section 4.2). */
export interface RenewalWindow {
  readonly startMs: number;
  readonly endMs: number;
}

/** The CA says when it wants to be asked again for its window; within these bounds (RFC 9773 section 4.3.2). */
const LEAST_ASK_MS = 60_000;
const MOST_ASK_MS = 24 * 3_600_000;
const ASK_MS = 6 * 3_600_000;

/** Until the CA is asked again for its window. @param saidMs its Retry-After */
export function windowPauseMs(saidMs: number = ASK_MS): number {
  return Math.min(MOST_ASK_MS, Math.max(LEAST_ASK_MS, saidMs));
}

/** Whether the CA has moved its window, so that the chosen time is no longer in it. @param atMs the chosen time */
export function hasMoved(
  { endMs }: Pick<SiteCertificate, 'endMs'>,
  window: RenewalWindow | undefined,
  atMs: number,
): boolean {
  return window !== undefined && isUsable(window, endMs) && (atMs < window.startMs || atMs > window.endMs);
}

function isUsable(window: RenewalWindow, endMs: number): boolean {
  return window.startMs < window.endMs && window.endMs <= endMs;
}

/**
 * When a certificate is renewed: a random time in the CA's window, which spreads its load, or else by the remaining
 * lifetime. A past window means now. A window that ends after the certificate itself is ignored.
 *
 * @param draw from 0 to 1, drawn once for a window of a certificate
 */
export function renewAtMs(
  { fromMs, endMs }: Pick<SiteCertificate, 'fromMs' | 'endMs'>,
  window: RenewalWindow | undefined,
  draw: number,
): number {
  if (window !== undefined && isUsable(window, endMs))
    return Math.round(window.startMs + draw * (window.endMs - window.startMs));
  const lifeMs = endMs - fromMs;
  return Math.round(fromMs + lifeMs * (lifeMs <= SHORT_LIFE_MS ? 1 / 2 : 2 / 3));
}
