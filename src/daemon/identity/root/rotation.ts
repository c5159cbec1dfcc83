import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AUTHORITY_FILES } from './authority.ts';
import { buildIntermediate, buildRoot, createTlsKey, publicPem } from '../keys/certificates.ts';
import { certificatesIn, newestRoot, type RootCertificate } from '../keys/chain.ts';
import { IdentityError } from '../errors.ts';
import type { Identity } from '../identity.ts';
import { certificateOf, openOneOf, type Recovery } from './open-root.ts';
import { createPassphrase, type Root, sealRoot } from './recovery.ts';
import type { RosterChange } from '../roster/roster.ts';
import { encodeRoster } from '../roster/roster-encoding.ts';
import { FILES, readStateFile, writeStateFile } from '../state.ts';
import { rootWord, type SignedSuccession, signEnding, signSuccession } from './succession.ts';

/**
 * Replaces the root of a cluster, in two steps of the operator:
 *
 * 1. {@link replaceRoot} creates another root. The old one signs the succession, and each authority gets a certificate
 *    under the new one for its present key. Both roots are valid; members switch when all of them know the new one.
 * 2. {@link endRoot} ends the old one, with the new bundle: so no cluster can be left with a root whose key nobody has.
 *
 * Both run in the command's process, the only one that opens a root. Their signatures are public and travel with the
 * roster.
 */

type Holder = Pick<Identity, 'cluster' | 'stateDir' | 'trust' | 'roster' | 'authority' | 'name'>;

export interface RootReplaced {
  /** SHA-256 of the new root's certificate, lower-case hex. */
  readonly rootFingerprint: string;
  /** Hand it to the operator before any notification: without it the new root cannot be used. */
  readonly recoveryBundle: string;
  readonly passphrase: string;
  /** For {@link leaveRootChange}. */
  readonly change: string;
}

/**
 * @param again with the bundle of the old root: replaces the new root of an open change whose bundle was lost
 * @throws IdentityError `not-authority`, `recovery-*`, `root-change-under-way`
 */
export async function replaceRoot(
  identity: Holder,
  recovery: Recovery,
  nowMs: number,
  again = false,
): Promise<RootReplaced> {
  mustSign(identity);
  const { cluster, roster } = identity;
  const underWay = roster.rootChange;
  if (underWay !== undefined && !again) throw alreadyUnderWay(underWay.to);
  const old = await openOneOf(identity, underWay?.from ?? newestRoot(identity.trust), recovery);
  const key = await createTlsKey();
  const certificatePem = await buildRoot(cluster, randomBytes(4).toString('hex'), key, nowMs);
  const root: Root = { cluster, key, certificatePem };
  const passphrase = createPassphrase();
  const facts = { sequence: (underWay?.sequence ?? 0) + 1, madeAtMs: Math.floor(nowMs) };
  return {
    rootFingerprint: certificateOf(root).fingerprint,
    recoveryBundle: await sealRoot(root, passphrase),
    passphrase,
    change: await changeOf(identity, root, await signSuccession(old, root, facts), nowMs),
  };
}

/**
 * @returns for {@link leaveRootChange}
 * @throws IdentityError `not-authority`, `recovery-*`, `root-change-none`
 */
export async function endRoot(identity: Holder, recovery: Recovery, nowMs: number): Promise<string> {
  mustSign(identity);
  const underWay = identity.roster.rootChange;
  if (underWay === undefined) {
    throw new IdentityError({
      code: 'root-change-none',
      message: `The cluster ${identity.cluster} has only one root (${rootWord(newestRoot(identity.trust))}).`,
      next: 'Nothing to end. To replace the root, run the command without --end.',
    });
  }
  const root = await openOneOf(identity, underWay.to, recovery);
  return changeOf(identity, root, await signEnding(underWay.signed, root), nowMs);
}

/** With a certificate under the root for each authority without one, such as one that was added meanwhile. */
async function changeOf(
  { cluster, roster }: Holder,
  root: Root,
  succession: SignedSuccession,
  nowMs: number,
): Promise<string> {
  const certificate = certificateOf(root);
  const made = new Map<string, Uint8Array>();
  for (const { peerId, x509 } of roster.authorityCertificates()) {
    const spkiPem = publicPem(x509.publicKey);
    if (made.has(spkiPem) || roster.authorityUnder(certificate, x509) !== undefined) continue;
    const pem = await buildIntermediate(root, { cluster, peerId, spkiPem }, nowMs);
    made.set(spkiPem, certificatesIn(pem)[0]?.raw ?? new Uint8Array());
  }
  const nothing = { certificates: [], revocations: [] };
  const items = { cluster, successions: [succession], authorities: [...made.values()], ...nothing };
  return Buffer.from(encodeRoster(items)).toString('utf8');
}

function mustSign({ authority, cluster, name }: Holder): void {
  if (authority !== undefined) return;
  throw new IdentityError({
    code: 'not-authority',
    message: `${name} may not sign for the cluster ${cluster}.`,
    next: 'Run the command on a node that "bornemisza authority list" names.',
  });
}

/** Leaves the signatures for the daemon, with the bundle of the root that is then valid, as beside any authority. */
export async function leaveRootChange(stateDir: string, change: string, bundle?: string): Promise<void> {
  if (bundle !== undefined)
    await writeStateFile(join(stateDir, FILES.authority, AUTHORITY_FILES.bundle), bundle);
  await writeStateFile(pathIn(stateDir), change);
}

/** Whether the command wrote a change that the daemon has not applied yet. */
export async function isRootChangeLeft(stateDir: string): Promise<boolean> {
  return (await changeIn(stateDir)) !== undefined;
}

/**
 * Applies what {@link leaveRootChange} left. It is verified like anything from a stranger.
 *
 * @returns undefined if there is nothing
 * @throws IdentityError `roster-malformed`, `root-change-refused`, `state-*`, `disk-full`
 */
export async function takeRootChange({ stateDir, roster }: Holder): Promise<RosterChange | undefined> {
  const text = await changeIn(stateDir);
  if (text === undefined) return undefined;
  const change = await roster.merge(Buffer.from(text));
  const [refused] = change.refused;
  await roster.save();
  await rm(pathIn(stateDir), { force: true });
  if (refused === undefined) return change;
  throw new IdentityError({
    code: 'root-change-refused',
    message: `The change of the root was refused: ${refused.detail}`,
    next: 'See "bornemisza status": another operator may have changed the root meanwhile.',
  });
}

async function changeIn(stateDir: string): Promise<string | undefined> {
  try {
    return await readStateFile(pathIn(stateDir));
  } catch (error) {
    if (error instanceof IdentityError && error.code === 'state-file-missing') return undefined;
    throw error;
  }
}

function pathIn(stateDir: string): string {
  return join(stateDir, FILES.authority, AUTHORITY_FILES.rootChange);
}

function alreadyUnderWay(to: RootCertificate): IdentityError {
  return new IdentityError({
    code: 'root-change-under-way',
    message: `The root is already being replaced; the new one is ${rootWord(to)}.`,
    next:
      'Continue with "bornemisza authority rotate-root --end" and the new bundle. If that bundle is lost: ' +
      '--again, with the old bundle.',
  });
}
