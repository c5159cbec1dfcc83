import type { KeyRing } from './keys.ts';
import { ACCOUNT_NAME } from './names.ts';

/** The content of the session cookie. Times in ms since the epoch. */
export interface Session {
  readonly account: string;
  /** 128 random bits, lower-case hex. A sign-out ends the session of this id. */
  readonly id: string;
  /** The account's epoch at sign-in: a higher one in the account ends the session. */
  readonly epoch: number;
  readonly bornMs: number;
  readonly issuedMs: number;
}

/** `__Host-`: only over TLS, only for this host, only with path `/` (RFC 6265bis section 4.1.3.2). */
const COOKIE_NAME = '__Host-s';
const IDLE_MS = 7 * 24 * 3600_000;
const MOST_MS = 30 * 24 * 3600_000;
const REISSUE_MS = 24 * 3600_000;
/** A node whose clock is behind the issuer's still accepts its cookies. */
const CLOCK_SKEW_MS = 3600_000;

export function sealSession(keys: KeyRing, session: Session): string {
  const { account, id, epoch, bornMs, issuedMs } = session;
  const payload = [keys.newestId, account, id, epoch, bornMs, issuedMs].join('.');
  return `${payload}.${keys.mac('session', payload).toString('base64url')}`;
}

/** @returns undefined if it is forged, of another cluster, idle for 7 days or older than 30 */
export function openSession(keys: KeyRing, text: string, nowMs: number): Session | undefined {
  const at = text.lastIndexOf('.');
  if (at < 0 || text.length > 512) return undefined;
  const payload = text.slice(0, at);
  const [keyId = '', account = '', id = '', epoch, born, issued] = payload.split('.');
  if (!keys.verifies('session', payload, Buffer.from(text.slice(at + 1), 'base64url'), keyId))
    return undefined;
  const session = { account, id, epoch: Number(epoch), bornMs: Number(born), issuedMs: Number(issued) };
  if (!ACCOUNT_NAME.test(account) || nowMs < session.issuedMs - CLOCK_SKEW_MS) return undefined;
  return nowMs - session.issuedMs > IDLE_MS || nowMs - session.bornMs > MOST_MS ? undefined : session;
}

/** Once a day, so that a person who returns each week stays signed in. */
export function mustReissue(session: Session, nowMs: number): boolean {
  return nowMs - session.issuedMs > REISSUE_MS;
}

export function sessionEndMs(session: Session): number {
  return Math.min(session.issuedMs + IDLE_MS, session.bornMs + MOST_MS);
}

export function setCookie(value: string, session: Session, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((sessionEndMs(session) - nowMs) / 1000));
  return `${COOKIE_NAME}=${value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=${seconds}`;
}

export const CLEAR_COOKIE = `${COOKIE_NAME}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0`;

/** The first cookie of this name; a browser sends one. */
export function cookieIn(header: string | undefined, name: string = COOKIE_NAME): string | undefined {
  for (const pair of (header ?? '').split(';')) {
    const at = pair.indexOf('=');
    if (pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim();
  }
  return undefined;
}
