import type { SiteCertificate } from './desired.ts';

/**
 * Half of a short life is left when it is renewed, a third of a longer one (Let's Encrypt's advice for clients
 * without ARI).
 */
const SHORT_LIFE_MS = 10 * 24 * 3_600_000;

/** The window of the CA (RFC 9773 section 4.2). */
interface RenewalWindow {
  readonly startMs: number;
  readonly endMs: number;
}

/**
 * When a certificate is renewed: a random time in the CA's window, which spreads its load, or else by the remaining
 * lifetime. A past window means now. A window that ends after the certificate itself is ignored.
 *
 * @param draw from 0 to 1, drawn once for a certificate
 */
export function renewAtMs(
  { fromMs, endMs }: Pick<SiteCertificate, 'fromMs' | 'endMs'>,
  window: RenewalWindow | undefined,
  draw: number,
): number {
  if (window !== undefined && window.startMs < window.endMs && window.endMs <= endMs)
    return Math.round(window.startMs + draw * (window.endMs - window.startMs));
  const lifeMs = endMs - fromMs;
  return Math.round(fromMs + lifeMs * (lifeMs <= SHORT_LIFE_MS ? 1 / 2 : 2 / 3));
}
