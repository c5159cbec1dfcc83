import * as z from 'zod';
import { IdentityError } from '../errors.ts';
import type { SignedSuccession } from '../root/succession.ts';

/** The parts of a roster on the wire and on disk: DER and signed bytes, not verified yet. */
export interface RosterItems {
  readonly cluster: string;
  readonly authorities: readonly Uint8Array[];
  readonly certificates: readonly { readonly leaf: Uint8Array; readonly issuer: Uint8Array }[];
  readonly revocations: readonly {
    readonly payload: Buffer;
    readonly signature: Buffer;
    readonly issuer: Uint8Array;
  }[];
  readonly successions: readonly SignedSuccession[];
}

/** 500 certificates of 1.6 kB, 2000 revocations of 1.2 kB and 40 successions of 6 kB, in base64, with room to spare. */
export const ROSTER_BYTES = 4 * 1024 * 1024;

const der = z.base64().max(4096);
const issuer = z.int().min(0).max(63);
const signature = z.base64().max(1024);

/** Issuers are few and repeat, so they are listed once and referenced by index. */
const Encoded = z.object({
  version: z.literal(1),
  cluster: z.string().regex(/^[a-z0-9-]{1,32}$/),
  issuers: z.array(der).max(64),
  authorities: z.array(issuer).max(64),
  certificates: z.array(z.tuple([der, issuer])).max(1000),
  revocations: z.array(z.tuple([der, signature, issuer])).max(4000),
  /** Missing in rosters of 0.1.0 and before the first change of the root. */
  successions: z
    .array(z.tuple([z.base64().max(8192), signature, signature, signature]))
    .max(64)
    .default([]),
});

export function encodeRoster(items: RosterItems): Uint8Array {
  const places = new Map<string, number>();
  const place = (raw: Uint8Array) => {
    const text = base64(raw);
    const known = places.get(text) ?? places.size;
    places.set(text, known);
    return known;
  };
  const encoded = {
    version: 1,
    cluster: items.cluster,
    authorities: items.authorities.map(place),
    certificates: items.certificates.map((item) => [base64(item.leaf), place(item.issuer)]),
    revocations: items.revocations.map((item) => [
      base64(item.payload),
      base64(item.signature),
      place(item.issuer),
    ]),
    ...(items.successions.length > 0 && {
      successions: items.successions.map(({ payload, byOld, byNew, ending }) =>
        [payload, byOld, byNew, ending].map(base64),
      ),
    }),
  };
  return Buffer.from(JSON.stringify({ ...encoded, issuers: [...places.keys()] }));
}

/** Bounded before parsed; no item is verified here. @throws IdentityError `roster-malformed` */
export function decodeRoster(bytes: Uint8Array): RosterItems {
  if (bytes.length > ROSTER_BYTES) throw malformed(`it has ${bytes.length} bytes, more than ${ROSTER_BYTES}`);
  let encoded: z.infer<typeof Encoded>;
  try {
    encoded = Encoded.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch {
    throw malformed('it cannot be read');
  }
  const issuers = encoded.issuers.map(fromBase64);
  // An index outside the list gives an empty certificate, which is refused like any other bad one.
  const issuerAt = (place: number) => issuers[place] ?? Buffer.alloc(0);
  return {
    cluster: encoded.cluster,
    authorities: encoded.authorities.map(issuerAt),
    certificates: encoded.certificates.map(([leaf, place]) => ({
      leaf: fromBase64(leaf),
      issuer: issuerAt(place),
    })),
    revocations: encoded.revocations.map(([payload, signature, place]) => ({
      payload: fromBase64(payload),
      signature: fromBase64(signature),
      issuer: issuerAt(place),
    })),
    successions: encoded.successions.map(([payload, byOld, byNew, ending]) => ({
      payload: fromBase64(payload),
      byOld: fromBase64(byOld),
      byNew: fromBase64(byNew),
      ending: fromBase64(ending),
    })),
  };
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}

function fromBase64(text: string): Buffer {
  return Buffer.from(text, 'base64');
}

function malformed(why: string): IdentityError {
  return new IdentityError({
    code: 'roster-malformed',
    message: `This is not a roster: ${why}.`,
    next: 'See the journal for the member that sent it; nothing was changed.',
  });
}
