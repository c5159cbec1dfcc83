/** The part of DER (X.690) that a signing request and a certificate's extension need. */

export const TAG = {
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  sequence: 0x30,
  set: 0x31,
} as const;

/** A name in an alternative name, and a key identifier in an authority key identifier (RFC 5280 section 4.2.1). */
export const DNS_NAME = 0x82;
export const KEY_IDENTIFIER = 0x80;
/** Attributes of a signing request (RFC 2986), extensions of a certificate (RFC 5280 section 4.1). */
export const CONTEXT_0 = 0xa0;
export const CONTEXT_3 = 0xa3;

export function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const short = content.length < 0x80;
  const digits = content.length.toString(16);
  const length = Buffer.from(digits.padStart(digits.length + (digits.length % 2), '0'), 'hex');
  const head = short ? [tag, content.length] : [tag, 0x80 | length.length, ...length];
  return Buffer.concat([Buffer.from(head), content]);
}

/** @param dotted e.g. `2.5.29.17` */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const sevens = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) sevens.unshift(0x80 | (left & 0x7f));
    return sevens;
  });
  return der(TAG.oid, Buffer.from(bytes));
}

interface DerValue {
  readonly tag: number;
  readonly content: Buffer;
}

/** The values in sequence. @throws RangeError if a length leads past the end */
export function valuesIn(bytes: Buffer): DerValue[] {
  const values: DerValue[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes.readUInt8(at);
    const first = bytes.readUInt8(at + 1);
    const digits = first < 0x80 ? 0 : first & 0x7f;
    // No certificate needs more than four digits; zero digits are BER's indefinite length.
    if (first === 0x80 || digits > 4) throw new RangeError('not DER: a length of another form');
    const from = at + 2 + digits;
    const length = digits === 0 ? first : bytes.readUIntBE(at + 2, digits);
    if (from + length > bytes.length) throw new RangeError('not DER: a value leads past the end');
    values.push({ tag, content: bytes.subarray(from, from + length) });
    at = from + length;
  }
  return values;
}
