import { createPrivateKey, type KeyObject, sign, verify } from 'node:crypto';
import { join } from 'node:path';
import type { PeerId } from '../../membership/types.ts';
import {
  buildIntermediate,
  buildNodeCertificate,
  createTlsKey,
  keyPem,
  type NodeNames,
  publicPem,
} from '../keys/certificates.ts';
import {
  type AuthorityCertificate,
  certificatesIn,
  type NodeCertificate,
  type Trust,
  verifyChain,
} from '../keys/chain.ts';
import { IdentityError, shown } from '../errors.ts';
import type { Root } from './recovery.ts';
import { signRevocation } from '../roster/revocation.ts';
import type { Roster } from '../roster/roster.ts';
import { verifySigningRequest } from '../keys/signing-request.ts';
import { createDirectory, FILES, readDecoded, readStateFile, writeStateFile } from '../state.ts';

export const AUTHORITY_FILES = {
  key: 'intermediate.key',
  certificate: 'intermediate.pem',
  bundle: 'recovery.bundle',
  tokens: 'tokens',
  /** A change of the root that the command signed and the daemon has not applied yet. */
  rootChange: 'root-change.json',
} as const;

/** A node that may sign certificates for joiners, renewals and revocations. It has an intermediate, never the root. */
export class Authority {
  #certificate: AuthorityCertificate;
  readonly #key: KeyObject;
  readonly #trust: Trust;

  constructor(certificate: AuthorityCertificate, key: KeyObject, trust: Trust) {
    this.#certificate = certificate;
    this.#key = key;
    this.#trust = trust;
  }

  get certificate(): AuthorityCertificate {
    return this.#certificate;
  }

  /** The same key under another root. */
  hangOn(certificate: AuthorityCertificate): void {
    this.#certificate = certificate;
  }

  get peerId(): PeerId {
    return this.certificate.peerId;
  }

  /**
   * Signs a node's first certificate. The caller has proved the PeerId and decided to admit the node; here the request
   * must match that decision.
   *
   * @throws IdentityError `request-malformed`, `request-key-weak`, `request-other-name`
   */
  async issue(
    facts: Omit<NodeNames, 'cluster'> & { readonly csrPem: string },
    nowMs: number,
  ): Promise<NodeCertificate> {
    const { csrPem, ...names } = facts;
    const request = verifySigningRequest(csrPem);
    if (request.commonName !== names.host || request.unit !== names.role) {
      throw new IdentityError({
        code: 'request-other-name',
        message:
          `The signing request is for ${shown(`${request.commonName}/${request.unit}`)}, not for ` +
          `${names.host}/${names.role}.`,
        next: 'Join with the role of the token and the name of this host.',
      });
    }
    return this.#sign({ ...names, spkiPem: request.spkiPem }, nowMs);
  }

  async #sign(facts: Omit<NodeNames, 'cluster'> & { readonly spkiPem: string }, nowMs: number) {
    const issuer = { certificatePem: this.certificate.pem, key: this.#key };
    const pem = await buildNodeCertificate(issuer, { ...facts, cluster: this.#trust.cluster }, nowMs);
    // Reads the result as every other node will.
    return verifyChain(pem + this.certificate.pem, this.#trust, nowMs);
  }

  /** A certificate for the same member and TLS key, to replace one of a removed authority. */
  signAnew(current: NodeCertificate, nowMs: number): Promise<NodeCertificate> {
    const [leaf] = certificatesIn(current.chainPem);
    if (leaf === undefined) throw new TypeError('a verified chain has a leaf');
    const { host, role, address, peerId, admittedAtMs } = current;
    return this.#sign(
      { host, role, address, peerId, admittedAtMs, spkiPem: publicPem(leaf.publicKey) },
      nowMs,
    );
  }

  /**
   * A new certificate for the same member, expired or not. The caller has proved the PeerId, e.g. by its connection.
   */
  renew(current: NodeCertificate, csrPem: string, nowMs: number): Promise<NodeCertificate> {
    const { host, role, address, peerId, admittedAtMs } = current;
    return this.issue({ host, role, address, peerId, admittedAtMs, csrPem }, nowMs);
  }

  /** @returns the signed revocation, for `Roster.addRevocation` here and everywhere */
  revoke(
    member: {
      readonly peerId: PeerId;
      readonly name: string;
      readonly address: string;
      readonly serials: readonly string[];
    },
    reason: string,
    nowMs: number,
  ): Promise<Uint8Array> {
    const { peerId, name, address } = member;
    const facts = {
      cluster: this.#trust.cluster,
      peerId,
      name,
      address,
      serials: [...member.serials],
      reason,
      revokedAtMs: nowMs,
    };
    return signRevocation(facts, this.certificate, this.#key);
  }
}

/** A new intermediate, signed by the opened root: for the first authority, a further one, or one after a loss. */
export async function createAuthority(
  root: Root,
  peerId: PeerId,
  nowMs: number,
): Promise<{ readonly keyPem: string; readonly certificatePem: string }> {
  const key = await createTlsKey();
  const facts = { cluster: root.cluster, peerId, spkiPem: publicPem(key) };
  return { keyPem: keyPem(key), certificatePem: await buildIntermediate(root, facts, nowMs) };
}

/** Writes the files of an authority. The certificate comes last: without it the node is none. */
export async function installAuthority(
  stateDir: string,
  files: { readonly keyPem: string; readonly certificatePem: string; readonly bundle?: string },
): Promise<void> {
  const directory = join(stateDir, FILES.authority);
  await createDirectory(directory);
  await createDirectory(join(directory, AUTHORITY_FILES.tokens));
  if (files.bundle !== undefined) await writeStateFile(join(directory, AUTHORITY_FILES.bundle), files.bundle);
  await writeStateFile(join(directory, AUTHORITY_FILES.key), files.keyPem);
  await writeStateFile(join(directory, AUTHORITY_FILES.certificate), files.certificatePem);
}

/**
 * @returns undefined if this node is none. @throws IdentityError `authority-damaged`, `state-file-damaged` and the like
 */
export async function loadAuthority(
  stateDir: string,
  trust: Trust,
  roster: Roster,
  peerId: PeerId,
): Promise<Authority | undefined> {
  const directory = join(stateDir, FILES.authority);
  let certificate: AuthorityCertificate;
  try {
    certificate = await readDecoded(join(directory, AUTHORITY_FILES.certificate), (pem) =>
      authorityIn(pem, roster, peerId),
    );
  } catch (error) {
    if (!(error instanceof IdentityError) || error.code !== 'state-file-missing') throw error;
    if (await isThere(join(directory, AUTHORITY_FILES.key))) throw withoutCertificate(directory);
    return undefined;
  }
  const key = await readDecoded(join(directory, AUTHORITY_FILES.key), (pem) => {
    const read = createPrivateKey(pem);
    if (!certificate.x509.checkPrivateKey(read)) throw new Error('the key is not that of the certificate');
    mustSign(read, certificate.x509.publicKey);
    return read;
  });
  return new Authority(certificate, key, trust);
}

/**
 * A comparison with the certificate checks only the public half of a key: a test signature shows a damaged private
 * half.
 */
function mustSign(key: KeyObject, publicKey: KeyObject): void {
  const probe = Buffer.from('authority');
  if (!verify('sha256', probe, publicKey, sign('sha256', probe, key)))
    throw new Error('the key signs wrongly');
}

async function isThere(path: string): Promise<boolean> {
  return readStateFile(path).then(
    () => true,
    (error: unknown) => !(error instanceof IdentityError && error.code === 'state-file-missing'),
  );
}

function withoutCertificate(directory: string): IdentityError {
  return new IdentityError({
    code: 'authority-damaged',
    message:
      `${join(directory, AUTHORITY_FILES.certificate)} is missing although its key exists: this node ` +
      'cannot sign.',
    next: 'Restore it from a backup, or run "sudo bornemisza authority add" here, with the recovery bundle.',
  });
}

function authorityIn(pem: string, roster: Roster, peerId: PeerId): AuthorityCertificate {
  const [x509, ...more] = certificatesIn(pem);
  if (x509 === undefined || more.length > 0) throw new Error('one certificate belongs here');
  const certificate = roster.authorityOf(x509.raw);
  if (certificate.peerId !== peerId) throw new Error('the certificate is of another node');
  return certificate;
}
