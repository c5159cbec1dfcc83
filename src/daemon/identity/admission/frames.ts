import * as z from 'zod';
import { IdentityError } from '../errors.ts';
import type { JoinRequest } from './admit.ts';
import { ROSTER_BYTES } from '../roster/roster-encoding.ts';
import { Seeds, type Seed } from '../state.ts';

/**
 * The messages of the admission channel, inside TLS 1.3:
 *
 *     joiner → issuer   1 byte version, 8 bytes token id, 32 bytes proof; 4 bytes length, JSON request
 *     issuer → joiner   4 bytes length, JSON answer
 *
 * The first 41 bytes have no structure that could be malformed; nothing after them is read before they are proved.
 * Unknown fields of a request or an answer are ignored, so that the next minor version can add some.
 */
export const EXPORTER_LABEL = 'EXPORTER-bornemisza-admission';
export const EXPORTER_BYTES = 32;
export const HELLO_BYTES = 41;
/** A request has about 3 kB; one connection may never send more than this. */
export const INBOUND_BYTES = 64 * 1024;
export const REQUEST_BYTES = INBOUND_BYTES - HELLO_BYTES - 4;
/** The largest roster in base64, and the rest. */
export const ANSWER_BYTES = Math.ceil((ROSTER_BYTES * 4) / 3) + 64 * 1024;
const VERSION = 1;

interface Hello {
  readonly tokenId: string;
  readonly proof: Buffer;
}

export function encodeHello({ tokenId, proof }: Hello): Buffer {
  return Buffer.concat([Buffer.from([VERSION]), Buffer.from(tokenId, 'hex'), proof]);
}

/** @throws IdentityError `admission-version` */
export function decodeHello(bytes: Buffer): Hello {
  if (bytes.length === HELLO_BYTES && bytes[0] === VERSION) {
    return { tokenId: bytes.subarray(1, 9).toString('hex'), proof: bytes.subarray(9) };
  }
  throw new IdentityError({
    code: 'admission-version',
    message: 'The joiner speaks another version of the admission protocol, or none.',
    next: 'Run the same minor version of bornemisza on both machines.',
  });
}

const Request = z.object({
  csr: z.string().max(8192),
  publicKey: z.base64().length(44),
  signature: z.base64().length(88),
  host: z.string().max(255),
  role: z.string().max(16),
  address: z.string().max(64),
  version: z.string().max(64),
});

export function encodeRequest(request: JoinRequest): Buffer {
  const publicKey = Buffer.from(request.publicKey).toString('base64');
  const signature = Buffer.from(request.signature).toString('base64');
  return framed({ ...request, publicKey, signature });
}

/** @param bytes the JSON without its length. @throws IdentityError `admission-malformed` */
export function decodeRequest(bytes: Buffer): JoinRequest {
  const request = decoded(bytes, REQUEST_BYTES, Request);
  const publicKey = Buffer.from(request.publicKey, 'base64');
  return { ...request, publicKey, signature: Buffer.from(request.signature, 'base64') };
}

/** The answer to an admitted node. */
export interface Admitted {
  readonly admitted: true;
  readonly cluster: string;
  readonly chain: string;
  readonly roots: string;
  readonly roster: Uint8Array;
  readonly firstOfRole: boolean;
  readonly seeds: readonly Seed[];
}

interface Refused {
  readonly admitted: false;
  readonly code: string;
  readonly message: string;
  readonly next: string;
  readonly retry: boolean;
}

const Answer = z.discriminatedUnion('admitted', [
  z.object({
    admitted: z.literal(true),
    cluster: z.string().max(32),
    chain: z.string().max(16_384),
    roots: z.string().max(16_384),
    roster: z.base64(),
    firstOfRole: z.boolean(),
    seeds: Seeds,
  }),
  z.object({
    admitted: z.literal(false),
    code: z.string().regex(/^[a-z0-9-]{1,64}$/),
    message: z.string().max(500),
    next: z.string().max(500),
    retry: z.boolean(),
  }),
]);

export function encodeAnswer(answer: Admitted | Refused): Buffer {
  if (!answer.admitted) return framed({ ...answer, message: answer.message.slice(0, 500) });
  return framed({ ...answer, roster: Buffer.from(answer.roster).toString('base64') });
}

/** @param bytes the JSON without its length. @throws IdentityError `admission-malformed` */
export function decodeAnswer(bytes: Buffer): Admitted | Refused {
  const answer = decoded(bytes, ANSWER_BYTES, Answer);
  return answer.admitted ? { ...answer, roster: Buffer.from(answer.roster, 'base64') } : answer;
}

/** The length of the frame to come. @throws IdentityError `admission-malformed` when it is over the limit */
export function decodeLength(bytes: Buffer, limit: number): number {
  const length = bytes.length === 4 ? bytes.readUInt32BE(0) : 0;
  if (length > 0 && length <= limit) return length;
  throw malformed(`a frame of ${length} bytes, where ${limit} are the most`);
}

function framed(value: unknown): Buffer {
  const body = Buffer.from(JSON.stringify(value));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length, 0);
  return Buffer.concat([length, body]);
}

function decoded<T>(bytes: Buffer, limit: number, shape: z.ZodType<T>): T {
  if (bytes.length > limit) throw malformed(`${bytes.length} bytes, where ${limit} are the most`);
  try {
    return shape.parse(JSON.parse(bytes.toString('utf8')));
  } catch {
    throw malformed('what was sent cannot be read');
  }
}

function malformed(why: string): IdentityError {
  return new IdentityError({
    code: 'admission-malformed',
    message: `The other side does not keep to the admission protocol: ${why}.`,
    next: 'Run the same minor version of bornemisza on both machines.',
  });
}
