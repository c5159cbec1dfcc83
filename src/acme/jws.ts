import { createHash, createHmac, type KeyObject, sign } from 'node:crypto';

/**
 * Signed requests (RFC 8555 section 6.2): JWS (RFC 7515) with ES256 (RFC 7518 section 3.4), each with its nonce
 * and its URL.
 */

/** The members of a P-256 key (RFC 7518 section 6.2), in the order of a thumbprint. */
interface Jwk {
  readonly crv: string;
  readonly kty: string;
  readonly x: string;
  readonly y: string;
}

export interface ExternalAccount {
  /** The key identifier that the CA assigned. */
  readonly kid: string;
  /** The MAC key that belongs to it, in base64url. */
  readonly hmacKey: string;
}

/** @throws TypeError for a key that is not of P-256 */
export function jwkOf(key: KeyObject): Jwk {
  const { kty, crv, x, y } = key.export({ format: 'jwk' });
  if (kty !== 'EC' || crv !== 'P-256' || x === undefined || y === undefined)
    throw new TypeError('an account key is a key of P-256');
  return { crv, kty, x, y };
}

/** RFC 7638. Public: each answer to a challenge contains it. */
export function thumbprint(key: KeyObject): string {
  return createHash('sha256')
    .update(JSON.stringify(jwkOf(key)))
    .digest('base64url');
}

/** The content of `/.well-known/acme-challenge/TOKEN` (RFC 8555 sections 8.1 and 8.3). */
export function keyAuthorization(token: string, accountKey: KeyObject): string {
  return `${token}.${thumbprint(accountKey)}`;
}

/** The content of a TXT record at `_acme-challenge.NAME` (RFC 8555 section 8.4). */
export function dnsAuthorization(token: string, accountKey: KeyObject): string {
  return createHash('sha256').update(keyAuthorization(token, accountKey)).digest('base64url');
}

/** The form of a nonce or a token (RFC 8555 sections 6.5.1 and 8.3): base64url. */
export function isBase64url(text: string): boolean {
  return /^[A-Za-z0-9_-]{1,512}$/.test(text);
}

const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/**
 * @param head `kid` or `jwk`, and further protected fields
 * @param payload undefined: POST-as-GET (RFC 8555 section 6.3)
 */
export function signed(key: KeyObject, head: object, payload: object | undefined): object {
  const protectedPart = encoded({ alg: 'ES256', ...head });
  const body = payload === undefined ? '' : encoded(payload);
  // RFC 7518 section 3.4: both numbers one after the other, not the DER of OpenSSL.
  const signature = sign('sha256', Buffer.from(`${protectedPart}.${body}`), {
    key,
    dsaEncoding: 'ieee-p1363',
  });
  return { protected: protectedPart, payload: body, signature: signature.toString('base64url') };
}

/** Proves with the CA's key that the account belongs to a customer of the CA (RFC 8555 section 7.3.4). */
export function externalBinding(
  { kid, hmacKey }: ExternalAccount,
  accountKey: KeyObject,
  url: string,
): object {
  const protectedPart = encoded({ alg: 'HS256', kid, url });
  const payload = encoded(jwkOf(accountKey));
  const signature = createHmac('sha256', Buffer.from(hmacKey, 'base64url'))
    .update(`${protectedPart}.${payload}`)
    .digest('base64url');
  return { protected: protectedPart, payload, signature };
}
