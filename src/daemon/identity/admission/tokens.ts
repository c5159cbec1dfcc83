import { createHash, createHmac, randomBytes } from 'node:crypto';
import type { PeerId, Role } from '../../membership/types.ts';
import { IdentityError } from '../errors.ts';
import { parseAddress, parseCluster, parsePort } from '../names.ts';
import { peerIdOf, publicKeyOf } from '../keys/node-key.ts';

/**
 * A token is one string to paste: `bm1.BODY.CHECK`. It names the cluster, the issuer and the cluster's root, and holds
 * a secret that works once. The check distinguishes an incomplete paste from a token that the issuer does not know.
 *
 * The issuer keeps only a hash. Proof is as in SCRAM (RFC 5802 section 3), bound to the TLS channel, so that neither
 * the issuer's file nor a listener in the middle is enough to join.
 */
export interface Token {
  readonly cluster: string;
  readonly issuer: { readonly address: string; readonly port: number; readonly peerId: PeerId };
  /** SHA-256 of the root certificate, lower-case hex. */
  readonly rootFingerprint: string;
  readonly role: Role;
  readonly expiresAtMs: number;
  /** 16 hex characters made from the secret: names the token without revealing it. */
  readonly id: string;
  /** 24 random bytes. */
  readonly secret: Buffer;
}

const PREFIX = 'bm1';
const SECRET_BYTES = 24;
/** Twice the longest token. */
const TOKEN_CHARACTERS = 512;
const ROLES: readonly Role[] = ['app', 'db'];

export function createToken(facts: Omit<Token, 'id' | 'secret'>): Token {
  const secret = randomBytes(SECRET_BYTES);
  return { ...facts, secret, id: idOf(secret) };
}

function idOf(secret: Buffer): string {
  return createHmac('sha256', secret).update('bornemisza token id').digest('hex').slice(0, 16);
}

/** The secret of the token's holder. */
function clientKeyOf(secret: Buffer): Buffer {
  return createHmac('sha256', secret).update('bornemisza token key').digest();
}

/** The issuer's part: it does not admit anybody. 64 hex characters. */
export function storedKeyOf(token: Pick<Token, 'secret'>): string {
  return createHash('sha256').update(clientKeyOf(token.secret)).digest('hex');
}

/** 32 bytes that prove the token on one TLS channel. @param exporter keying material of that channel */
export function proofOf(token: Pick<Token, 'secret'>, exporter: Uint8Array): Buffer {
  const signature = createHmac('sha256', Buffer.from(storedKeyOf(token), 'hex'))
    .update(exporter)
    .digest();
  return exclusiveOr(clientKeyOf(token.secret), signature);
}

/** The stored key that fits a proof: compare it in constant time with the one on file. */
export function storedKeyBehind(proof: Uint8Array, storedKey: Uint8Array, exporter: Uint8Array): Buffer {
  const signature = createHmac('sha256', storedKey).update(exporter).digest();
  return createHash('sha256').update(exclusiveOr(proof, signature)).digest();
}

function exclusiveOr(left: Uint8Array, right: Uint8Array): Buffer {
  return Buffer.from(left.map((byte, index) => byte ^ (right[index] ?? 0)));
}

export function formatToken(token: Token): string {
  const cluster = Buffer.from(token.cluster);
  const head = Buffer.alloc(14);
  head.writeUInt8(ROLES.indexOf(token.role), 0);
  head.writeUIntBE(token.expiresAtMs, 1, 6);
  for (const [index, part] of token.issuer.address.split('.').entries())
    head.writeUInt8(Number(part), 7 + index);
  head.writeUInt16BE(token.issuer.port, 11);
  head.writeUInt8(cluster.length, 13);
  const body = Buffer.concat([
    head,
    cluster,
    publicKeyOf(token.issuer.peerId),
    Buffer.from(token.rootFingerprint, 'hex'),
    token.secret,
  ]);
  return `${PREFIX}.${body.toString('base64url')}.${checkOf(body)}`;
}

function checkOf(body: Buffer): string {
  return createHash('sha256')
    .update('bornemisza token')
    .update(body)
    .digest()
    .subarray(0, 6)
    .toString('base64url');
}

/**
 * Parses a pasted token: white space, also line breaks of a terminal, is ignored.
 *
 * @throws IdentityError `token-not-a-token`, `token-version`, `token-truncated`
 */
export function parseToken(text: string): Token {
  const pasted = text.slice(0, 4 * TOKEN_CHARACTERS).replaceAll(/\s+/g, '');
  const [prefix = '', bodyText = '', check = '', ...more] = pasted.split('.');
  if (!/^bm\d+$/.test(prefix) || more.length > 0 || pasted.length > TOKEN_CHARACTERS) throw notAToken();
  if (prefix !== PREFIX) throw otherVersion(prefix);
  const body = Buffer.from(bodyText, 'base64url');
  if (check !== checkOf(body) || body.toString('base64url') !== bodyText) throw truncated();
  try {
    return decodeBody(body);
  } catch {
    throw notAToken();
  }
}

function decodeBody(body: Buffer): Token {
  const clusterBytes = body.readUInt8(13);
  const rest = body.subarray(14 + clusterBytes);
  const role = ROLES[body.readUInt8(0)];
  if (rest.length !== 64 + SECRET_BYTES || role === undefined) throw new RangeError('length or role');
  const secret = Buffer.from(rest.subarray(64));
  return {
    cluster: parseCluster(body.subarray(14, 14 + clusterBytes).toString('latin1')),
    issuer: {
      address: parseAddress(body.subarray(7, 11).join('.')),
      port: parsePort(body.readUInt16BE(11)),
      peerId: peerIdOf(rest.subarray(0, 32)),
    },
    rootFingerprint: rest.subarray(32, 64).toString('hex'),
    role,
    expiresAtMs: body.readUIntBE(1, 6),
    id: idOf(secret),
    secret,
  };
}

const AGAIN = 'Copy the whole line that "bornemisza token create" printed, from bm1. to its end.';

function notAToken(): IdentityError {
  return new IdentityError({ code: 'token-not-a-token', message: 'This is not a join token.', next: AGAIN });
}

function truncated(): IdentityError {
  const message = 'The token is cut or mistyped: its checksum is wrong.';
  return new IdentityError({ code: 'token-truncated', message, next: AGAIN });
}

function otherVersion(prefix: string): IdentityError {
  return new IdentityError({
    code: 'token-version',
    message: `The token is of another version (${prefix.slice(0, 8)}); this program knows ${PREFIX}.`,
    next: 'Install the version of bornemisza here that the issuer runs.',
  });
}
