import { createHash, createPublicKey, generateKeyPair, type KeyObject, randomBytes, sign } from 'node:crypto';
import { promisify } from 'node:util';
import forge from 'node-forge';
import type { PeerId, Role } from '../../membership/types.ts';
import { privateName } from '../names.ts';

/**
 * Builds the three kinds of certificate: root → one intermediate per authority → node.
 *
 * node-forge writes the structure; node:crypto signs it, as forge's own RSA blocks the loop for 100 ms. All keys are
 * RSA: forge has no other kind that every supported HAProxy and Erlang accepts.
 */

export const RSA_BITS = 3072;
const DAY_MS = 86_400_000;
const NODE_LIFE_MS = 90 * DAY_MS;
/** A joiner's clock can be behind: two machines of one founder never differ by more than a day. */
const BACKDATE_MS = DAY_MS;
/** The root outlives the machines; an earlier end would only be a date on which everything stops. */
const ROOT_LIFE_MS = 20 * 365 * DAY_MS;
const INTERMEDIATE_LIFE_MS = 10 * 365 * DAY_MS;

const generateRsa = promisify(generateKeyPair);
const signAsync = promisify(sign);

/** An RSA-3072 key, created in the thread pool (0.2 to 0.6 s). */
export async function createTlsKey(): Promise<KeyObject> {
  const pair = await generateRsa('rsa', { modulusLength: RSA_BITS });
  return pair.privateKey;
}

export function keyPem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

export interface NodeNames {
  readonly cluster: string;
  readonly host: string;
  readonly role: Role;
  readonly address: string;
  readonly peerId: PeerId;
  readonly admittedAtMs: number;
}

/** Ties the certificate to the cluster and the PeerId. `admitted` survives renewal and gives the order of admission. */
export function nodeUri(names: Pick<NodeNames, 'cluster' | 'peerId' | 'admittedAtMs'>): string {
  return `bornemisza://${names.cluster}/${names.peerId}?admitted=${names.admittedAtMs}`;
}

export function authorityUri(cluster: string, peerId: PeerId): string {
  return `bornemisza://${cluster}/${peerId}?authority`;
}

export function rootName(cluster: string, mark: string): string {
  return `${cluster} root ${mark}`;
}

/** Different for each authority, so that software that builds paths by name cannot confuse them. */
export function authorityName(cluster: string, peerId: PeerId): string {
  return `${cluster} authority ${authorityWord(peerId)}`;
}

/** HAProxy recognises by it what an authority signed: 46 bits of its key; only the root writes such a name. */
export function authorityWord(peerId: PeerId): string {
  return peerId.slice(-8);
}

/** SHA-256 over the DER form, in lower-case hex. */
export function fingerprintOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex');
}

interface Issuer {
  readonly certificatePem: string;
  readonly key: KeyObject;
}

/** @returns the self-signed root in PEM. `mark` distinguishes the roots of one cluster. */
export function buildRoot(cluster: string, mark: string, key: KeyObject, nowMs: number): Promise<string> {
  const certificate = started(publicPem(key), nowMs - BACKDATE_MS, nowMs + ROOT_LIFE_MS);
  const subject = named(rootName(cluster, mark), 'root');
  certificate.setSubject(subject);
  certificate.setIssuer(subject);
  certificate.setExtensions(authorityExtensions(1));
  return signed(certificate, key);
}

/** @returns an authority's certificate in PEM, signed by the root, for the public key in `spkiPem`. */
export function buildIntermediate(
  root: Issuer,
  facts: { readonly cluster: string; readonly peerId: PeerId; readonly spkiPem: string },
  nowMs: number,
): Promise<string> {
  const issuer = forge.pki.certificateFromPem(root.certificatePem);
  const endMs = Math.min(nowMs + INTERMEDIATE_LIFE_MS, issuer.validity.notAfter.getTime());
  const certificate = started(facts.spkiPem, nowMs - BACKDATE_MS, endMs);
  certificate.setSubject(named(authorityName(facts.cluster, facts.peerId), 'authority'));
  certificate.setIssuer(issuer.subject.attributes);
  certificate.setExtensions([
    ...authorityExtensions(0),
    issuedBy(issuer),
    { name: 'subjectAltName', altNames: [{ type: 6, value: authorityUri(facts.cluster, facts.peerId) }] },
  ]);
  return signed(certificate, root.key);
}

/** @returns a node's certificate in PEM, signed by an intermediate, valid for 90 days at most. */
export function buildNodeCertificate(
  intermediate: Issuer,
  facts: NodeNames & { readonly spkiPem: string },
  nowMs: number,
): Promise<string> {
  const issuer = forge.pki.certificateFromPem(intermediate.certificatePem);
  const endMs = Math.min(nowMs + NODE_LIFE_MS, issuer.validity.notAfter.getTime());
  const certificate = started(facts.spkiPem, nowMs - BACKDATE_MS, endMs);
  certificate.setSubject(named(facts.host, facts.role));
  certificate.setIssuer(issuer.subject.attributes);
  certificate.setExtensions([
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
    { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
    { name: 'subjectKeyIdentifier' },
    issuedBy(issuer),
    {
      name: 'subjectAltName',
      altNames: [
        { type: 6, value: nodeUri(facts) },
        { type: 2, value: privateName(facts.host, facts.role, facts.cluster) },
        // Erlang looks for an address among the DNS names; everybody else among the addresses.
        { type: 2, value: facts.address },
        { type: 7, ip: facts.address },
      ],
    },
  ]);
  return signed(certificate, intermediate.key);
}

function started(spkiPem: string, fromMs: number, toMs: number): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.publicKeyFromPem(spkiPem);
  certificate.serialNumber = newSerial();
  certificate.validity.notBefore = new Date(fromMs);
  certificate.validity.notAfter = new Date(toMs);
  return certificate;
}

/** 16 bytes whose first is in 0x40..0x7f: no sign byte and no leading zero, so every program prints the same hex. */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = 0x40 | (bytes.readUInt8(0) & 0x3f);
  return bytes.toString('hex');
}

function named(commonName: string, unit: string): forge.pki.CertificateField[] {
  return [
    { name: 'commonName', value: commonName },
    { shortName: 'OU', value: unit },
  ];
}

function authorityExtensions(pathLenConstraint: number): object[] {
  return [
    { name: 'basicConstraints', cA: true, critical: true, pathLenConstraint },
    { name: 'keyUsage', keyCertSign: true, cRLSign: true, digitalSignature: true, critical: true },
    { name: 'subjectKeyIdentifier' },
  ];
}

function issuedBy(issuer: forge.pki.Certificate): object {
  return { name: 'authorityKeyIdentifier', keyIdentifier: issuer.generateSubjectKeyIdentifier().getBytes() };
}

/** Parts of forge that its types leave out. */
const pki = forge.pki as typeof forge.pki & {
  getTBSCertificate(certificate: forge.pki.Certificate): forge.asn1.Asn1;
};

async function signed(certificate: forge.pki.Certificate, key: KeyObject): Promise<string> {
  const algorithm = pki.oids['sha256WithRSAEncryption'] ?? '';
  certificate.signatureOid = algorithm;
  certificate.siginfo.algorithmOid = algorithm;
  certificate.tbsCertificate = pki.getTBSCertificate(certificate);
  const signature = await signAsync('sha256', derOf(certificate.tbsCertificate), key);
  certificate.signature = signature.toString('latin1');
  return pki.certificateToPem(certificate).replaceAll('\r', '');
}

export function derOf(structure: forge.asn1.Asn1): Buffer {
  return Buffer.from(forge.asn1.toDer(structure).getBytes(), 'latin1');
}

/** The public half of a private or public key as SubjectPublicKeyInfo in PEM. */
export function publicPem(key: KeyObject): string {
  const source = key.type === 'private' ? createPublicKey(key) : key;
  return source.export({ type: 'spki', format: 'pem' }).toString();
}
