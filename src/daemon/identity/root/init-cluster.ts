import { createPrivateKey, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { PeerId, Role } from '../../membership/types.ts';
import { Authority, createAuthority, installAuthority } from './authority.ts';
import { buildRoot, createTlsKey, keyPem } from '../keys/certificates.ts';
import { certificatesIn, type NodeCertificate, type Trust, trustOf, verifyAuthority } from '../keys/chain.ts';
import { IdentityError } from '../errors.ts';
import { memberName, parseAddress, parseCluster, parseHost } from '../names.ts';
import { createNodeKey } from '../keys/node-key.ts';
import { createPassphrase, openRoot, type Root, sealRoot } from './recovery.ts';
import { Roster } from '../roster/roster.ts';
import { createSecrets, SecretsStore } from '../secrets.ts';
import { createSigningRequest } from '../keys/signing-request.ts';
import { beginState, clearState, FILES, finishState, writeStateFile } from '../state.ts';

export interface InitRequest {
  readonly stateDir: string;
  readonly cluster: string;
  readonly host: string;
  readonly role: Role;
  /** Private IPv4 address of this host. */
  readonly address: string;
  /** Wall time. */
  readonly nowMs: number;
  /** For the recovery bundle; without it a strong one is created. */
  readonly passphrase?: string;
  /** Creates the cluster again with the root of a lost one, so that its tokens and nodes still trust it. */
  readonly recovery?: { readonly bundle: string; readonly passphrase: string };
}

export interface Founded {
  readonly cluster: string;
  readonly name: string;
  readonly peerId: PeerId;
  /** SHA-256 of the root certificate, lower-case hex. */
  readonly rootFingerprint: string;
  /** To be shown once and stored safely; the passphrase apart from the bundle. */
  readonly recoveryBundle: string;
  readonly passphrase: string;
}

/**
 * Creates a cluster of one: root, authority, first node. It discards an interrupted earlier run, and changes nothing of
 * a completed one.
 *
 * @throws IdentityError `already-initialised`, `host-invalid`, `cluster-invalid`, `address-invalid`,
 * `passphrase-short`, `recovery-*`, `state-*`, `disk-full`
 */
export async function initCluster(request: InitRequest): Promise<Founded> {
  const { stateDir, role, nowMs } = request;
  const cluster = parseCluster(request.cluster);
  const host = parseHost(request.host);
  const address = parseAddress(request.address);
  const passphrase = request.passphrase ?? request.recovery?.passphrase ?? createPassphrase();
  const before = await beginState(stateDir, 'init');
  if (before !== undefined) await clearState(stateDir);

  const nodeKey = createNodeKey();
  const [root, tlsKey] = await Promise.all([rootFor(request, cluster), createTlsKey()]);
  const trust = trustOf(cluster, root.certificatePem);
  const [recoveryBundle, files] = await Promise.all([
    sealRoot(root, passphrase),
    createAuthority(root, nodeKey.peerId, nowMs),
  ]);
  await installAuthority(stateDir, { ...files, bundle: recoveryBundle });
  const authority = authorityFrom(files, trust);
  const names = { host, role, address, peerId: nodeKey.peerId, admittedAtMs: Math.floor(nowMs) };
  const certificate = await authority.issue(
    { ...names, csrPem: createSigningRequest(tlsKey, host, role) },
    nowMs,
  );

  await writeKeys(stateDir, nodeKey.pem, keyPem(tlsKey));
  await writeMembership(stateDir, certificate, trust);
  if (role === 'db') await new SecretsStore(stateDir, role).put(await createSecrets());
  const ends = { founder: true, firstOfRole: true, seeds: [] };
  await finishState(stateDir, { version: 1, cluster, role, host, address, peerId: nodeKey.peerId, ...ends });
  const rootFingerprint = trust.roots[0]?.fingerprint ?? '';
  return {
    cluster,
    name: memberName(host, role),
    peerId: nodeKey.peerId,
    rootFingerprint,
    recoveryBundle,
    passphrase,
  };
}

async function rootFor(request: InitRequest, cluster: string): Promise<Root> {
  if (request.recovery === undefined) {
    const key = await createTlsKey();
    const mark = randomBytes(4).toString('hex');
    return { cluster, key, certificatePem: await buildRoot(cluster, mark, key, request.nowMs) };
  }
  const root = await openRoot(request.recovery.bundle, request.recovery.passphrase);
  if (root.cluster === cluster) return root;
  throw new IdentityError({
    code: 'recovery-other-cluster',
    message: `The recovery bundle is of the cluster ${root.cluster}, not of ${cluster}.`,
    next: `Give --cluster ${root.cluster}, or the bundle of ${cluster}.`,
  });
}

function authorityFrom(
  files: { readonly keyPem: string; readonly certificatePem: string },
  trust: Trust,
): Authority {
  const [x509] = certificatesIn(files.certificatePem);
  if (x509 === undefined) throw new TypeError('an authority has a certificate');
  return new Authority(verifyAuthority(x509, trust, 'any-time'), createPrivateKey(files.keyPem), trust);
}

export async function writeKeys(stateDir: string, nodeKeyPem: string, tlsKeyPem: string): Promise<void> {
  await writeStateFile(join(stateDir, FILES.nodeKey), nodeKeyPem);
  await writeStateFile(join(stateDir, FILES.tlsKey), tlsKeyPem);
}

/** Certificate, roots and a roster of one member. */
async function writeMembership(stateDir: string, certificate: NodeCertificate, trust: Trust): Promise<void> {
  await writeStateFile(join(stateDir, FILES.chain), certificate.chainPem);
  await writeStateFile(join(stateDir, FILES.roots), trust.roots.map((root) => root.pem).join(''));
  const roster = new Roster(trust, join(stateDir, FILES.roster));
  roster.add(certificate);
  await roster.save();
}
