import { createPublicKey, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { CONTEXT_0, CONTEXT_3, DNS_NAME, der, KEY_IDENTIFIER, oid, TAG, valuesIn } from './der.ts';

const SUBJECT_ALTERNATIVE_NAME = oid('2.5.29.17');
const EXTENSION_REQUEST = oid('1.2.840.113549.1.9.14');
const ECDSA_WITH_SHA256 = oid('1.2.840.10045.4.3.2');
const AUTHORITY_KEY_IDENTIFIER = oid('2.5.29.35');

/** Let's Encrypt accepts a hundred names. */
const MOST_NAMES = 100;
/** Leaf, intermediates, and the root that some CAs send along: browsers follow no longer chain. */
const MOST_IN_CHAIN = 8;
const LABEL = /^(?!-)[a-z0-9-]{1,63}(?<!-)$/;

/** The form of a DNS name in a certificate: lower case, ASCII (A-labels), at least two labels; the first may be `*`. */
export function isCertifiableName(name: string): boolean {
  const labels = name.split('.');
  const [first = '', ...rest] = labels;
  if (name.length > 253 || labels.length < (first === '*' ? 3 : 2)) return false;
  // A top-level domain is never a number: a name that ends in one is an IP address (RFC 3696 section 2).
  return (
    (first === '*' || LABEL.test(first)) &&
    rest.every((each) => LABEL.test(each)) &&
    !/^\d+$/.test(rest.at(-1) ?? '')
  );
}

/**
 * A signing request (RFC 2986) in DER for a P-256 key. The names are only in the extension; the subject is empty, since
 * a common name is optional (RFC 8555 section 7.4) and holds at most 64 characters.
 *
 * @throws RangeError for names that no certificate can have
 */
export function signingRequest(names: readonly string[], key: KeyObject): Buffer {
  const bad = names.find((name) => !isCertifiableName(name));
  if (bad !== undefined) throw new RangeError(`${JSON.stringify(bad)} cannot be a name of a certificate`);
  if (names.length === 0 || names.length > MOST_NAMES)
    throw new RangeError(`a certificate has 1 to ${MOST_NAMES} names`);
  const alternative = der(
    TAG.sequence,
    ...[...new Set(names)].map((name) => der(DNS_NAME, Buffer.from(name))),
  );
  const extension = der(TAG.sequence, SUBJECT_ALTERNATIVE_NAME, der(TAG.octetString, alternative));
  const attribute = der(TAG.sequence, EXTENSION_REQUEST, der(TAG.set, der(TAG.sequence, extension)));
  const info = der(
    TAG.sequence,
    der(TAG.integer, Buffer.of(0)),
    der(TAG.sequence),
    createPublicKey(key).export({ type: 'spki', format: 'der' }),
    der(CONTEXT_0, attribute),
  );
  const signature = sign('sha256', info, { key, dsaEncoding: 'der' });
  return der(
    TAG.sequence,
    info,
    der(TAG.sequence, ECDSA_WITH_SHA256),
    der(TAG.bitString, Buffer.of(0), signature),
  );
}

const PEM_BLOCK = /-----BEGIN CERTIFICATE-----\r?\n[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----/g;

/**
 * The certificates of a chain, leaf first. RFC 8555 section 9.1 allows nothing but certificates: a key or anything else
 * that a CA sends along is refused, since the text is written into the file that HAProxy reads.
 *
 * @throws RangeError for anything else
 */
export function certificatesOf(pem: string): X509Certificate[] {
  const blocks = pem.match(PEM_BLOCK) ?? [];
  if (pem.replaceAll(PEM_BLOCK, '').trim() !== '')
    throw new RangeError('it has more in it than certificates');
  if (blocks.length === 0 || blocks.length > MOST_IN_CHAIN)
    throw new RangeError(`it has ${blocks.length} certificates`);
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (error) {
      throw new RangeError('one of its certificates cannot be read', { cause: error });
    }
  });
}

/**
 * The name of a certificate in renewal information (RFC 9773 section 4.1): the identifier of the key that signed it,
 * and its serial number, both in base64url.
 *
 * @returns undefined for a certificate that names no such key
 */
export function renewalId({ raw }: Pick<X509Certificate, 'raw'>): string | undefined {
  const inner = valuesIn(valuesIn(raw)[0]?.content ?? Buffer.of())[0]?.content ?? Buffer.of();
  const fields = valuesIn(inner);
  // The content of the INTEGER, with the zero byte before a set high bit, as the RFC requires.
  const serial = fields.find(({ tag }) => tag === TAG.integer)?.content;
  const extensions = fields.find(({ tag }) => tag === CONTEXT_3)?.content ?? der(TAG.sequence);
  const wanted = valuesIn(AUTHORITY_KEY_IDENTIFIER)[0]?.content ?? Buffer.of();
  for (const { content } of valuesIn(valuesIn(extensions)[0]?.content ?? Buffer.of())) {
    const parts = valuesIn(content);
    if (parts[0]?.content.equals(wanted) !== true) continue;
    const names = valuesIn(valuesIn(parts.at(-1)?.content ?? Buffer.of())[0]?.content ?? Buffer.of());
    const keyId = names.find(({ tag }) => tag === KEY_IDENTIFIER)?.content;
    if (keyId !== undefined && serial !== undefined)
      return `${keyId.toString('base64url')}.${serial.toString('base64url')}`;
  }
  return undefined;
}
