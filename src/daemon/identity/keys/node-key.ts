import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign as signBytes,
  verify as verifyBytes,
} from 'node:crypto';
import { privateKeyFromRaw, publicKeyFromRaw } from '@libp2p/crypto/keys';
import type { Ed25519PrivateKey } from '@libp2p/interface';
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id';
import type { PeerId } from '../../membership/types.ts';
import type { Verify } from '../../wire/record.ts';
import { IdentityError, shown } from '../errors.ts';

/** The key that proves a PeerId. One per role instance; it never leaves the machine. */
export interface NodeKey {
  readonly peerId: PeerId;
  /** The 32 bytes of the public key. */
  readonly publicKey: Uint8Array;
  readonly key: KeyObject;
  /** PKCS#8 in PEM, for the state directory only. */
  readonly pem: string;
  /** The same key in libp2p's form. */
  readonly libp2p: Ed25519PrivateKey;
  /** Ed25519 over the domain and the payload: 64 bytes, the same for the same input. */
  sign(domain: string, payload: Uint8Array): Uint8Array;
}

/** DER up to the key itself: RFC 8410 section 4. */
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
/** An Ed25519 PeerId has 52 characters; longer text is not decoded. */
const PEER_ID_CHARACTERS = 64;
/** The entries of a digest, and some former members. A KeyObject is about 1 KB. */
const MAX_CACHED_KEYS = 1024;
const DOMAIN = /^[a-z][a-z0-9-]{0,31}$/;

export function createNodeKey(): NodeKey {
  return fromKeyObject(generateKeyPairSync('ed25519').privateKey);
}

/** @throws IdentityError `node-key-malformed` */
export function nodeKeyFromPem(pem: string): NodeKey {
  try {
    const key = createPrivateKey(pem);
    if (key.asymmetricKeyType === 'ed25519') return fromKeyObject(key);
  } catch {
    // The parser's message could quote the file, which is secret.
  }
  throw new IdentityError({
    code: 'node-key-malformed',
    message: 'The node key is not an Ed25519 private key in PEM.',
    next: 'Restore the file from a backup, or set the state aside with "bornemisza join --reset -" and join again.',
  });
}

function fromKeyObject(key: KeyObject): NodeKey {
  const publicKey = rawPublic(key);
  return {
    peerId: peerIdOf(publicKey),
    publicKey,
    key,
    pem: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    libp2p: libp2pKey(key),
    sign: (domain, payload) => signBytes(null, inDomain(domain, payload), key),
  };
}

function rawPublic(key: KeyObject): Buffer {
  const { x } = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' });
  if (x === undefined || key.asymmetricKeyType !== 'ed25519') throw new TypeError('a node key is Ed25519');
  return Buffer.from(x, 'base64url');
}

/** The PeerId of an Ed25519 key, private or public. */
export function peerIdOfKey(key: KeyObject): PeerId {
  return peerIdOf(rawPublic(key));
}

/** The same key as libp2p wants it. */
export function libp2pKey(key: KeyObject): Ed25519PrivateKey {
  const { d } = key.export({ format: 'jwk' });
  if (d === undefined) throw new TypeError('the node key has no private half');
  const raw = Buffer.concat([Buffer.from(d, 'base64url'), rawPublic(key)]);
  return privateKeyFromRaw(raw) as Ed25519PrivateKey;
}

/** The PeerId, in text, of a raw Ed25519 public key. @throws IdentityError `peer-id-malformed` */
export function peerIdOf(publicKey: Uint8Array): PeerId {
  if (publicKey.length === 32) {
    const key = publicKeyFromRaw(publicKey);
    if (key.type === 'Ed25519') return peerIdFromPublicKey(key).toString();
  }
  throw malformed('a key of another length');
}

/** The raw public key (32 bytes) in a PeerId's text. @throws IdentityError `peer-id-malformed` */
export function publicKeyOf(peerId: PeerId): Uint8Array {
  if (peerId.length > PEER_ID_CHARACTERS) throw malformed(shown(peerId));
  try {
    const parsed = peerIdFromString(peerId);
    // Only one spelling: a second one would be a second member with the same key.
    if (parsed.type === 'Ed25519' && parsed.toString() === peerId) return parsed.publicKey.raw;
  } catch {
    // Handled below.
  }
  throw malformed(shown(peerId));
}

function malformed(what: string): IdentityError {
  return new IdentityError({
    code: 'peer-id-malformed',
    message: `Not the PeerId of an Ed25519 key: ${what}.`,
    next: 'Copy the PeerId whole, as "bornemisza members --json" prints it.',
  });
}

function keyObjectOf(peerId: PeerId): KeyObject {
  const spki = Buffer.concat([SPKI_PREFIX, publicKeyOf(peerId)]);
  return createPublicKey({ key: spki, format: 'der', type: 'spki' });
}

/** Whether `peerId` signed this payload for this purpose. Malformed input counts as not signed. Never throws. */
export function verify(peerId: PeerId, domain: string, payload: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== 64) return false;
  try {
    return verifyBytes(null, inDomain(domain, payload), keyObjectOf(peerId), signature);
  } catch {
    return false;
  }
}

/**
 * For callers that separate purposes themselves. Deterministic (RFC 8032): a pure function of key and bytes. 0.05 ms.
 */
export function signWith(key: KeyObject): (bytes: Uint8Array) => Uint8Array {
  return (bytes) => new Uint8Array(signBytes(null, bytes, key));
}

/** Checks such signatures by the key in the PeerId, which is cached. Never throws; 0.1 ms. */
export function verifyByPeerId(): Verify {
  const keys = new Map<PeerId, KeyObject>();
  return (author, bytes, signature) => {
    try {
      let key = keys.get(author);
      if (key === undefined) {
        key = keyObjectOf(author);
        if (keys.size >= MAX_CACHED_KEYS) keys.clear();
        keys.set(author, key);
      }
      return verifyBytes(null, bytes, key, signature);
    } catch {
      return false;
    }
  };
}

/** A signature for one purpose must not be valid for another. */
export function inDomain(domain: string, payload: Uint8Array): Buffer {
  if (!DOMAIN.test(domain)) throw new TypeError(`not a signing domain: ${domain}`);
  return Buffer.concat([Buffer.from(`bornemisza/${domain}\n`), payload]);
}
