import { createPrivateKey, type KeyObject } from 'node:crypto';
import { Authority, createAuthority } from '../../../src/daemon/identity/root/authority.ts';
import { buildRoot, createTlsKey } from '../../../src/daemon/identity/keys/certificates.ts';
import {
  certificatesIn,
  type NodeCertificate,
  type Trust,
  trustOf,
  verifyAuthority,
} from '../../../src/daemon/identity/keys/chain.ts';
import { IdentityError } from '../../../src/daemon/identity/errors.ts';
import { createNodeKey, type NodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import type { Root } from '../../../src/daemon/identity/root/recovery.ts';
import { createSigningRequest } from '../../../src/daemon/identity/keys/signing-request.ts';
import type { PeerId, Role } from '../../../src/daemon/membership/types.ts';

/** 2027-01-15 08:00 UTC. */
export const NOW_MS = 1_800_000_000_000;
export const DAY_MS = 86_400_000;

/** A cluster's authority in memory, and nodes that it signs for. They share one TLS key, as making one takes long. */
export interface TestCluster {
  readonly root: Root;
  readonly trust: Trust;
  readonly authority: Authority;
  readonly authorityKey: KeyObject;
  readonly tlsKey: KeyObject;
  node(
    host: string,
    role?: Role,
    options?: { address?: string; admittedAtMs?: number; nowMs?: number; nodeKey?: NodeKey },
  ): Promise<NodeCertificate>;
}

export async function testCluster(
  name = 'prod',
  authorityPeer: PeerId = createNodeKey().peerId,
): Promise<TestCluster> {
  const [key, tlsKey] = await Promise.all([createTlsKey(), createTlsKey()]);
  const root: Root = { cluster: name, key, certificatePem: await buildRoot(name, 'abcd', key, NOW_MS) };
  const trust = trustOf(name, root.certificatePem);
  const { authority, authorityKey } = await furtherAuthority(root, trust, authorityPeer);
  let count = 0;
  return {
    root,
    trust,
    authority,
    authorityKey,
    tlsKey,
    node: (host, role = 'db', options = {}) => {
      count += 1;
      const {
        address = `10.0.${count >> 8}.${count & 255}`,
        nowMs = NOW_MS,
        nodeKey = createNodeKey(),
      } = options;
      const admittedAtMs = options.admittedAtMs ?? NOW_MS + count;
      const csrPem = createSigningRequest(tlsKey, host, role);
      return authority.issue({ host, role, address, peerId: nodeKey.peerId, admittedAtMs, csrPem }, nowMs);
    },
  };
}

export async function furtherAuthority(root: Root, trust: Trust, peerId: PeerId) {
  const files = await createAuthority(root, peerId, NOW_MS);
  const [x509] = certificatesIn(files.certificatePem);
  if (x509 === undefined) throw new Error('no certificate');
  const authorityKey = createPrivateKey(files.keyPem);
  return {
    authority: new Authority(verifyAuthority(x509, trust, NOW_MS), authorityKey, trust),
    authorityKey,
  };
}

/** The code of the coded error that `work` ends in; anything else that is thrown is not for us to swallow. */
export async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof IdentityError && error.next !== '' && error.message !== '') return error.code;
    throw error;
  }
  return 'nothing thrown';
}
