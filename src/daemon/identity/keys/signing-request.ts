import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import forge from 'node-forge';
import type { Role } from '../../membership/types.ts';
import { derOf, publicPem, RSA_BITS } from './certificates.ts';
import { IdentityError, shown } from '../errors.ts';

/** A verified signing request: its sender has the private key and asks for this name. */
interface SigningRequest {
  readonly commonName: string;
  readonly unit: string;
  /** The public key as SubjectPublicKeyInfo in PEM. */
  readonly spkiPem: string;
  /** The request in DER: what a signature by the node key covers. */
  readonly der: Buffer;
}

/** A request for RSA-3072 has 1.6 kB. */
const REQUEST_BYTES = 8192;

/** Parts of forge's request that its types leave out. */
interface Unsigned extends forge.pki.CertificateSigningRequest {
  certificationRequestInfo: forge.asn1.Asn1;
}

const pki = forge.pki as typeof forge.pki & {
  getCertificationRequestInfo(request: forge.pki.CertificateSigningRequest): forge.asn1.Asn1;
};

/** @returns PKCS#10 in PEM for `key`, with CN and OU and nothing else. */
export function createSigningRequest(key: KeyObject, host: string, unit: Role | 'authority'): string {
  const request = pki.createCertificationRequest() as Unsigned;
  request.publicKey = pki.publicKeyFromPem(publicPem(key));
  request.setSubject([
    { name: 'commonName', value: host },
    { shortName: 'OU', value: unit },
  ]);
  const algorithm = pki.oids['sha256WithRSAEncryption'] ?? '';
  request.signatureOid = algorithm;
  request.siginfo.algorithmOid = algorithm;
  request.certificationRequestInfo = pki.getCertificationRequestInfo(request);
  request.signature = sign('sha256', derOf(request.certificationRequestInfo), key).toString('latin1');
  return pki.certificationRequestToPem(request).replaceAll('\r', '');
}

/**
 * Reads a request and checks its signature by node:crypto. @throws IdentityError `request-malformed`,
 * `request-key-weak`
 */
export function verifySigningRequest(pem: string): SigningRequest {
  if (pem.length > REQUEST_BYTES) throw malformed('it is too long');
  let request: Unsigned;
  let spkiPem: string;
  try {
    request = pki.certificationRequestFromPem(pem) as Unsigned;
    spkiPem = pki.publicKeyToPem(request.publicKey as forge.pki.rsa.PublicKey);
  } catch (cause) {
    throw malformed('it cannot be read', cause);
  }
  const key = strongKey(spkiPem);
  const body = derOf(request.certificationRequestInfo);
  if (!verify('sha256', body, key, Buffer.from(request.signature, 'latin1'))) {
    throw malformed('its signature does not fit its key');
  }
  const [commonName, unit] = subjectOf(request);
  return {
    commonName,
    unit,
    spkiPem: publicPem(key),
    der: Buffer.from(derOf(pki.certificationRequestToAsn1(request))),
  };
}

function subjectOf(request: Unsigned): [string, string] {
  const [name, unit, ...more] = request.subject.attributes;
  const fits = name?.name === 'commonName' && unit?.name === 'organizationalUnitName' && more.length === 0;
  if (!fits || typeof name.value !== 'string' || typeof unit.value !== 'string') {
    throw malformed('its subject is not a common name and a unit');
  }
  return [name.value, unit.value];
}

function strongKey(spkiPem: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey(spkiPem);
  } catch (cause) {
    throw malformed('its key cannot be read', cause);
  }
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  // A huge modulus or exponent makes every later check slow; a small one makes the key weak.
  if (modulusLength >= RSA_BITS && modulusLength <= 4096 && publicExponent === 65_537n) return key;
  throw new IdentityError({
    code: 'request-key-weak',
    message: `The signing request is for an RSA key of ${modulusLength} bits; ${RSA_BITS} to 4096 are accepted.`,
    next: 'Let "bornemisza join" make the key itself.',
  });
}

function malformed(why: string, cause?: unknown): IdentityError {
  return new IdentityError({
    code: 'request-malformed',
    message: `The signing request is refused: ${shown(why).slice(1, -1)}.`,
    next: 'Let "bornemisza join" make the request, with the same version of bornemisza on both machines.',
    ...(cause === undefined ? {} : { cause }),
  });
}
