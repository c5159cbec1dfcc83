import { X509Certificate } from 'node:crypto';
import type { PeerId, Role } from '../../membership/types.ts';
import { authorityName, authorityUri, fingerprintOf, nodeUri, RSA_BITS } from './certificates.ts';
import { IdentityError } from '../errors.ts';
import { memberName, parseAddress, parseCluster, parseHost, parseRole, privateName } from '../names.ts';
import { publicKeyOf } from './node-key.ts';

/** The content of a verified node certificate. */
export interface NodeCertificate {
  readonly peerId: PeerId;
  /** HOST/ROLE. */
  readonly name: string;
  readonly host: string;
  readonly role: Role;
  /** Private IPv4 address. */
  readonly address: string;
  readonly cluster: string;
  /** Upper-case hex, as HAProxy's `ssl_c_serial,hex` prints it. */
  readonly serialHex: string;
  /** When the node was first admitted: survives renewal, gives the order of admission. */
  readonly admittedAtMs: number;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Node certificate, then its authority's, in PEM, as a TLS server presents them. */
  readonly chainPem: string;
  /** PeerId of the authority that signed it. */
  readonly issuer: PeerId;
}

export interface RootCertificate {
  readonly pem: string;
  readonly x509: X509Certificate;
  /** SHA-256 over the DER form, lower-case hex, as in a token. */
  readonly fingerprint: string;
}

/** The root CAs that a node trusts: one, or two while the root is being replaced. The newest is last. */
export interface Trust {
  readonly cluster: string;
  readonly roots: readonly RootCertificate[];
}

/** An authority's certificate, verified against the root. */
export interface AuthorityCertificate {
  readonly peerId: PeerId;
  readonly x509: X509Certificate;
  readonly pem: string;
  readonly notAfterMs: number;
}

/** The wall time for the check, or any: an expired node may still prove its identity, to renew. */
type ValidAt = number | 'any-time';

/** Three certificates of RSA-3072 have about 5 kB. */
const PEM_BYTES = 16_384;
const ROOTS = 4;
const BLOCK = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{1,8192}-----END CERTIFICATE-----/g;

/** @throws IdentityError `root-malformed` */
export function trustOf(cluster: string, rootsPem: string): Trust {
  const roots = certificatesIn(rootsPem).map((x509) => verifiedRoot(parseCluster(cluster), x509));
  if (roots.length >= 1 && roots.length <= ROOTS) return { cluster, roots };
  throw refused('root-malformed', `${roots.length} root certificates were found; 1 to ${ROOTS} are allowed.`);
}

function verifiedRoot(cluster: string, x509: X509Certificate): RootCertificate {
  const named = x509.subject.startsWith(`CN=${cluster} root `) && x509.subject.endsWith('\nOU=root');
  if (!named || !x509.ca || !strong(x509) || !issuedBy(x509, x509)) {
    throw refused('root-malformed', `The root certificate is not the root of the cluster ${cluster}.`);
  }
  return { pem: x509.toString(), x509, fingerprint: fingerprintOf(x509.raw) };
}

/**
 * The certificates of a PEM text that has nothing else but white space. @throws IdentityError `certificate-malformed`
 */
export function certificatesIn(pem: string): X509Certificate[] {
  if (pem.length > PEM_BYTES) throw refused('certificate-malformed', 'The certificate chain is too long.');
  const blocks = pem.match(BLOCK) ?? [];
  if (blocks.length === 0 || pem.replaceAll(BLOCK, '').trim() !== '') {
    throw refused('certificate-malformed', 'This is not a chain of certificates in PEM.');
  }
  return blocks.map((block) => parsed(block));
}

export function parsed(block: string | Uint8Array): X509Certificate {
  try {
    return new X509Certificate(block);
  } catch (cause) {
    throw refused('certificate-malformed', 'A certificate in the chain cannot be read.', cause);
  }
}

/**
 * Verifies root → authority → node and reads the node's certificate. Everything in it must be exactly what this
 * cluster's authorities write; anything else is refused.
 *
 * @throws IdentityError `certificate-malformed`, `certificate-foreign`, `certificate-not-node`, `certificate-expired`,
 * `certificate-not-yet-valid`
 */
export function verifyChain(chainPem: string, trust: Trust, at: ValidAt): NodeCertificate {
  const [leaf, intermediate, root, ...more] = certificatesIn(chainPem);
  if (leaf === undefined || intermediate === undefined || more.length > 0) {
    throw refused('certificate-malformed', "A chain is the node's certificate followed by its authority's.");
  }
  if (root !== undefined && !trust.roots.some((known) => known.x509.raw.equals(root.raw))) {
    throw refused(
      'certificate-foreign',
      `The chain ends in a root that is not of the cluster ${trust.cluster}.`,
    );
  }
  return verifyLeaf(leaf, verifyAuthority(intermediate, trust, at), trust.cluster, at);
}

/** @throws IdentityError as {@link verifyChain} */
export function verifyAuthority(x509: X509Certificate, trust: Trust, at: ValidAt): AuthorityCertificate {
  if (!trust.roots.some((root) => issuedBy(x509, root.x509))) {
    throw refused(
      'certificate-foreign',
      `The chain was not signed by the root of the cluster ${trust.cluster}.`,
    );
  }
  const peerId = /^URI:bornemisza:\/\/[a-z0-9-]+\/([A-Za-z0-9]+)\?authority$/.exec(
    x509.subjectAltName ?? '',
  )?.[1];
  const canonical =
    peerId !== undefined &&
    x509.subjectAltName === `URI:${authorityUri(trust.cluster, peerId)}` &&
    x509.subject === `CN=${authorityName(trust.cluster, peerId)}\nOU=authority`;
  if (!canonical || !x509.ca || !strong(x509)) {
    throw refused(
      'certificate-foreign',
      'The second certificate of the chain is not an authority of this cluster.',
    );
  }
  publicKeyOf(peerId);
  checkValidity(x509, at, 'authority');
  return { peerId, x509, pem: x509.toString(), notAfterMs: x509.validToDate.getTime() };
}

/** The newest of the trusted roots. */
export function newestRoot({ roots }: Trust): RootCertificate {
  const root = roots.at(-1);
  if (root === undefined) throw new TypeError('a trust has a root');
  return root;
}

/** @throws IdentityError as {@link verifyChain} */
export function verifyLeaf(
  x509: X509Certificate,
  issuer: AuthorityCertificate,
  cluster: string,
  at: ValidAt,
): NodeCertificate {
  if (!issuedBy(x509, issuer.x509)) {
    throw refused('certificate-foreign', "The node's certificate was not signed by the authority beside it.");
  }
  const names = namesIn(x509, cluster);
  if (names === undefined || x509.ca || !strong(x509)) {
    throw refused('certificate-not-node', `The certificate is not one of a node of the cluster ${cluster}.`);
  }
  checkValidity(x509, at, names.name);
  return {
    ...names,
    cluster,
    serialHex: x509.serialNumber.toUpperCase(),
    notBeforeMs: x509.validFromDate.getTime(),
    notAfterMs: x509.validToDate.getTime(),
    chainPem: x509.toString() + issuer.pem,
    issuer: issuer.peerId,
  };
}

const SUBJECT = /^CN=([a-z0-9-]{1,63})\nOU=(app|db)$/;
const ALT_NAMES = new RegExp(
  [
    /^URI:bornemisza:\/\/[a-z0-9-]+\/([A-Za-z0-9]{1,64})\?admitted=(\d{1,15})/,
    /DNS:[a-z0-9.-]+/,
    /DNS:([\d.]+)/,
    /IP Address:[\d.]+$/,
  ]
    .map(({ source }) => source)
    .join(', '),
);

/** Reads the names, writes them again, and compares: so only one form is valid. */
function namesIn(x509: X509Certificate, cluster: string) {
  const subject = SUBJECT.exec(x509.subject);
  const alt = ALT_NAMES.exec(x509.subjectAltName ?? '');
  if (subject === null || alt === null) return undefined;
  try {
    const host = parseHost(subject[1] ?? '');
    const role = parseRole(subject[2] ?? '');
    const peerId = alt[1] ?? '';
    const admittedAtMs = Number(alt[2]);
    const address = parseAddress(alt[3] ?? '');
    publicKeyOf(peerId);
    const uri = nodeUri({ cluster, peerId, admittedAtMs });
    const written = `URI:${uri}, DNS:${privateName(host, role, cluster)}, DNS:${address}, IP Address:${address}`;
    if (written !== x509.subjectAltName) return undefined;
    return { peerId, name: memberName(host, role), host, role, address, admittedAtMs };
  } catch {
    return undefined;
  }
}

function strong(x509: X509Certificate): boolean {
  try {
    const bits = x509.publicKey.asymmetricKeyDetails?.modulusLength ?? 0;
    return x509.publicKey.asymmetricKeyType === 'rsa' && bits >= RSA_BITS && bits <= 4096;
  } catch {
    // The certificate was parsed, but its key is first read here: OpenSSL may not know its kind.
    return false;
  }
}

export function issuedBy(x509: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return x509.checkIssued(issuer) && x509.verify(issuer.publicKey);
  } catch {
    return false;
  }
}

function checkValidity(x509: X509Certificate, at: ValidAt, whose: string): void {
  if (at === 'any-time') return;
  if (at > x509.validToDate.getTime()) {
    throw new IdentityError({
      code: 'certificate-expired',
      message: `The certificate of ${whose} ended at ${x509.validToDate.toISOString()}.`,
      next: 'Start its daemon: an expired node renews by itself; check the clock if the date is wrong.',
      retry: true,
    });
  }
  if (at < x509.validFromDate.getTime()) {
    throw new IdentityError({
      code: 'certificate-not-yet-valid',
      message:
        `The certificate of ${whose} starts at ${x509.validFromDate.toISOString()}, which is in this ` +
        `machine's future.`,
      next: 'Set the clock of this machine (timedatectl, chronyc makestep), then try again.',
      retry: true,
    });
  }
}

/** Time to renew: half of its life is over, or it is not valid yet because a clock that was ahead signed it. */
export function renewalDue(certificate: NodeCertificate, nowMs: number): boolean {
  const { notBeforeMs, notAfterMs } = certificate;
  return nowMs < notBeforeMs || nowMs >= (notBeforeMs + notAfterMs) / 2;
}

function refused(code: string, message: string, cause?: unknown): IdentityError {
  const next = 'Join this node again with a new token if it belongs to this cluster.';
  return new IdentityError({ code, message, next, ...(cause === undefined ? {} : { cause }) });
}
