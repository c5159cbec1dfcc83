import { randomBytes } from 'node:crypto';
import type { Context } from 'hono';
import { isSessionOf, type Account } from '../accounts/account.ts';
import {
  cookieIn,
  mustReissue,
  openSession,
  sealSession,
  type Session,
  setCookie,
} from '../accounts/cookie.ts';
import { Problem } from './problems.ts';
import type { Services } from './services.ts';
import type { Me } from './shapes.ts';

interface SignedIn {
  readonly account: Account;
  readonly session: Session;
}

/** The person of the request's cookie. Reissues the cookie once a day. @throws Problem `not-signed-in` */
export async function signedIn(services: Services, c: Context): Promise<SignedIn> {
  const { nowMs } = services;
  const found = await sessionOf(services, c);
  if (found === undefined) throw new Problem('not-signed-in');
  if (mustReissue(found.session, nowMs())) giveCookie(services, c, { ...found.session, issuedMs: nowMs() });
  return found;
}

/** The same for an answer that has begun: nothing is reissued. */
export async function sessionOf(
  { keys, accounts, nowMs }: Services,
  c: Context,
): Promise<SignedIn | undefined> {
  const text = cookieIn(c.req.header('cookie'));
  const session = text === undefined ? undefined : openSession(keys, text, nowMs());
  const account = session === undefined ? undefined : await accounts.cached(session.account);
  if (session === undefined || account === undefined || !isSessionOf(account, session)) return undefined;
  return { account, session };
}

/** A new session at each sign-in, so that none can be planted beforehand. */
export function startSession(services: Services, c: Context, account: Account): Session {
  const nowMs = services.nowMs();
  const session: Session = {
    account: account.name,
    id: randomBytes(16).toString('hex'),
    epoch: account.epoch,
    bornMs: nowMs,
    issuedMs: nowMs,
  };
  giveCookie(services, c, session);
  return session;
}

function giveCookie({ keys, nowMs }: Services, c: Context, session: Session): void {
  c.header('set-cookie', setCookie(sealSession(keys, session), session, nowMs()), { append: true });
}

/**
 * Marks a browser that has signed in to an account. It gives no access; it only keeps others from locking that browser
 * out.
 */
const DEVICE_COOKIE = '__Host-d';
const DEVICE_SECONDS = 365 * 24 * 3600;

export function rememberDevice({ keys }: Services, c: Context, identity: string): void {
  const value = `${keys.newestId}.${keys.mac('device', identity).toString('base64url')}`;
  const attributes = `Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=${DEVICE_SECONDS}`;
  c.header('set-cookie', `${DEVICE_COOKIE}=${value}; ${attributes}`, { append: true });
}

export function isKnownDevice({ keys }: Services, c: Context, identity: string): boolean {
  const [id = '', mac = ''] = (cookieIn(c.req.header('cookie'), DEVICE_COOKIE) ?? '').split('.');
  return keys.verifies('device', identity, Buffer.from(mac, 'base64url'), id);
}

/** The account as the person and the founder's services see it. */
export async function meOf(services: Services, account: Account): Promise<Me> {
  const used = await services.quota.used(account).catch(() => undefined);
  return {
    account: account.name,
    email: account.email,
    roles: ['account'],
    quota: { bytes: services.quota.bytes, usedBytes: used ?? null },
  };
}
