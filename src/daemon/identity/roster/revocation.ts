import { createHash, type KeyObject, sign, verify } from 'node:crypto';
import { promisify } from 'node:util';
import * as z from 'zod';
import type { PeerId } from '../../membership/types.ts';
import { type AuthorityCertificate, parsed, type Trust, verifyAuthority } from '../keys/chain.ts';
import { IdentityError } from '../errors.ts';
import { inDomain, publicKeyOf } from '../keys/node-key.ts';

/** The statement of an authority that a PeerId is removed for good. Any node can check it with only the root. */
export interface Revocation {
  readonly peerId: PeerId;
  /** HOST/ROLE at that time, for people. */
  readonly name: string;
  /** Private address at that time: sessions from there are cut, and its data copies are found by it. */
  readonly address: string;
  /** Serials, in upper-case hex, of the certificates that may still be valid. */
  readonly serials: readonly string[];
  readonly reason: string;
  readonly revokedAtMs: number;
  /** The authority that signed. */
  readonly by: AuthorityCertificate;
  /** 16 hex characters over the signed bytes. */
  readonly id: string;
  /** Exactly the bytes that were signed. */
  readonly payload: Buffer;
  readonly signature: Buffer;
}

/** Serials of one node that can be valid at once: renewal is at half of the life, so two; more only by hand. */
const SERIALS = 8;
const PAYLOAD_BYTES = 2048;
const REVOCATION_BYTES = 16_384;
const DOMAIN = 'revocation';
const signAsync = promisify(sign);

const Payload = z.object({
  version: z.literal(1),
  cluster: z.string().max(32),
  peerId: z.string().max(64),
  name: z.string().regex(/^[a-z0-9-]{1,63}\/(app|db)$/),
  address: z.ipv4(),
  serials: z.array(z.string().regex(/^[0-9A-F]{2,40}$/)).max(SERIALS),
  reason: z.string().regex(/^[\x20-\x7e]{0,200}$/),
  revokedAtMs: z.int().min(0),
});
const Envelope = z.object({
  payload: z.base64().max(4096),
  signature: z.base64().max(1024),
  authority: z.base64().max(8192),
});

type RevocationFacts = Omit<z.infer<typeof Payload>, 'version'>;

/** @returns bytes for gossip and storage */
export async function signRevocation(
  facts: RevocationFacts,
  authority: AuthorityCertificate,
  key: KeyObject,
): Promise<Uint8Array> {
  const serials = facts.serials.slice(-SERIALS);
  // Text of an operator: only what fits on one printable line.
  const reason = facts.reason.replaceAll(/[^\x20-\x7e]/g, ' ').slice(0, 200);
  const payload = Buffer.from(JSON.stringify(Payload.parse({ ...facts, version: 1, serials, reason })));
  const signature = await signAsync('sha256', inDomain(DOMAIN, payload), key);
  return encodeRevocation({ payload, signature, by: authority });
}

export function encodeRevocation(revocation: Pick<Revocation, 'payload' | 'signature' | 'by'>): Uint8Array {
  const { payload, signature, by } = revocation;
  const encoded = { payload: payload.toString('base64'), signature: signature.toString('base64') };
  return Buffer.from(JSON.stringify({ ...encoded, authority: by.x509.raw.toString('base64') }));
}

/** Decodes and verifies. @throws IdentityError `revocation-malformed`, `revocation-forged`, `certificate-*` */
export function verifyRevocation(bytes: Uint8Array, trust: Trust): Revocation {
  if (bytes.length > REVOCATION_BYTES) throw malformed();
  let envelope: z.infer<typeof Envelope>;
  try {
    envelope = Envelope.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch {
    throw malformed();
  }
  const by = verifyAuthority(parsed(Buffer.from(envelope.authority, 'base64')), trust, 'any-time');
  const payload = Buffer.from(envelope.payload, 'base64');
  return verifySigned(payload, Buffer.from(envelope.signature, 'base64'), by, trust);
}

/** The same if the authority's certificate is already verified. */
export function verifySigned(
  payload: Buffer,
  signature: Buffer,
  by: AuthorityCertificate,
  trust: Trust,
): Revocation {
  if (payload.length > PAYLOAD_BYTES) throw malformed();
  if (!verify('sha256', inDomain(DOMAIN, payload), by.x509.publicKey, signature)) {
    throw new IdentityError({
      code: 'revocation-forged',
      message: 'A revocation was not signed by the authority that it names.',
      next: 'See the journal for the member that sent it; nothing was changed.',
    });
  }
  const facts = decodePayload(payload);
  if (facts.cluster !== trust.cluster) throw malformed();
  const id = revocationId(payload);
  const { peerId, name, address, serials, reason, revokedAtMs } = facts;
  return { peerId, name, address, serials, reason, revokedAtMs, by, id, payload, signature };
}

/** Only by the signed bytes: a known payload was verified, whatever signature it has now. */
export function revocationId(payload: Uint8Array): string {
  return createHash('sha256').update('revocation').update(payload).digest('hex').slice(0, 16);
}

function decodePayload(payload: Buffer): z.infer<typeof Payload> {
  try {
    const facts = Payload.parse(JSON.parse(payload.toString('utf8')));
    publicKeyOf(facts.peerId);
    return facts;
  } catch {
    throw malformed();
  }
}

function malformed(): IdentityError {
  return new IdentityError({
    code: 'revocation-malformed',
    message: 'This is not a revocation of this cluster.',
    next: 'See the journal for the member that sent it; nothing was changed.',
  });
}
