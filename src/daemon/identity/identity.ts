import { createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import type { PeerId, Role } from '../membership/types.ts';
import {
  AUTHORITY_FILES,
  type Authority,
  createAuthority,
  installAuthority,
  loadAuthority,
} from './root/authority.ts';
import {
  certificatesIn,
  type NodeCertificate,
  renewalDue,
  type RootCertificate,
  type Trust,
  trustOf,
  verifyChain,
} from './keys/chain.ts';
import { IdentityError, shown } from './errors.ts';
import { memberName } from './names.ts';
import { type NodeKey, nodeKeyFromPem } from './keys/node-key.ts';
import { openNewestRoot } from './root/open-root.ts';
import { putOut } from './roster/removal.ts';
import { Roster, type RosterChange } from './roster/roster.ts';
import { SecretsStore } from './secrets.ts';
import { createSigningRequest } from './keys/signing-request.ts';
import {
  type ClusterFile,
  FILES,
  readClusterFile,
  readDecoded,
  readStateFile,
  type Seed,
  writeStateFile,
} from './state.ts';
import { TokenStore } from './admission/token-store.ts';

/** A note about the state on the disk; the daemon starts nevertheless. */
interface IdentityWarning {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

/** The identity of this node, and whom it trusts. */
export interface Identity {
  readonly stateDir: string;
  readonly cluster: string;
  readonly role: Role;
  readonly host: string;
  /** HOST/ROLE. */
  readonly name: string;
  readonly peerId: PeerId;
  /** Private IPv4 address in the certificate. */
  readonly address: string;
  readonly nodeKey: NodeKey;
  /** The newest certificate; `acceptRenewal` replaces it. */
  readonly certificate: NodeCertificate;
  /** PEM files. In HAProxy: `crt` is chain and key, `ca-file` the roots. */
  readonly tlsKeyPath: string;
  readonly chainPath: string;
  readonly rootsPath: string;
  readonly chainPem: string;
  readonly rootsPem: string;
  tlsKeyPem(): Promise<string>;
  readonly trust: Trust;
  readonly roster: Roster;
  /** Present on an authority. */
  readonly authority: Authority | undefined;
  /** Present with `authority`; {@link adoptAuthority} sets both. */
  readonly tokens: TokenStore | undefined;
  /** Created by `init`, not by `join`. */
  readonly founder: boolean;
  readonly firstOfRole: boolean;
  /** The members when this node joined. */
  readonly seeds: readonly Seed[];
  readonly secrets: SecretsStore;
  readonly warnings: readonly IdentityWarning[];
}

interface MutableIdentity extends Identity {
  certificate: NodeCertificate;
  chainPem: string;
  authority: Authority | undefined;
  tokens: TokenStore | undefined;
}

/**
 * Reads the state directory, checks that its files agree, and repairs what can be repaired (the roster, from its
 * previous generation).
 *
 * @throws IdentityError `not-initialised`, `state-unfinished`, `state-damaged`, `state-file-damaged`,
 * `state-file-missing`, `state-permissions`
 * @param wallMs for a process that stays: its clock, as {@link Roster} takes it
 */
export async function loadIdentity(
  stateDir: string,
  nowMs: number,
  wallMs?: () => number,
): Promise<Identity> {
  const file = await readClusterFile(stateDir);
  const path = (name: keyof typeof FILES) => join(stateDir, FILES[name]);
  const nodeKey = await readDecoded(path('nodeKey'), (pem) => ownKey(pem, file));
  const trust = await readDecoded(path('roots'), (pem) => trustOf(file.cluster, pem));
  // This comes first: it shows which roots follow from the one that this node had when it last ran.
  const roster = new Roster(trust, path('roster'), wallMs);
  const damages = await loadRoster(roster, path('roster'));
  const certificate = await readDecoded(path('chain'), (pem) =>
    ownCertificate(roster.standing(pem), trust, file),
  );
  await readDecoded(path('tlsKey'), (pem) => checkTlsKey(pem, certificate));
  const warnings = [...damages, ...addOwn(roster, certificate), ...datesOf(certificate, nowMs)];
  const authority = await loadAuthority(stateDir, trust, roster, file.peerId).catch((error: unknown) => {
    if (!(error instanceof IdentityError) || error.code !== 'authority-damaged') throw error;
    // The node serves without it; it only cannot sign.
    warnings.push({ code: error.code, message: error.message, next: error.next });
    return undefined;
  });
  if (authority !== undefined) roster.addAuthority(authority.certificate.pem);
  const secrets = new SecretsStore(stateDir, file.role);
  await secrets.load();
  const identity: MutableIdentity = {
    stateDir,
    cluster: file.cluster,
    role: file.role,
    host: file.host,
    peerId: file.peerId,
    address: file.address,
    founder: file.founder,
    firstOfRole: file.firstOfRole,
    seeds: file.seeds,
    nodeKey,
    certificate,
    trust,
    roster,
    authority,
    secrets,
    warnings,
    name: memberName(file.host, file.role),
    tlsKeyPath: path('tlsKey'),
    chainPath: path('chain'),
    rootsPath: path('roots'),
    chainPem: certificate.chainPem,
    get rootsPem() {
      return trust.roots.map((root) => root.pem).join('');
    },
    tlsKeyPem: () => readStateFile(path('tlsKey')),
    tokens: authority === undefined ? undefined : tokensOf(stateDir, authority, trust),
  };
  await adoptCertificate(identity);
  return identity;
}

function tokensOf(stateDir: string, authority: Authority, trust: Trust): TokenStore {
  const issuer = {
    peerId: authority.peerId,
    cluster: trust.cluster,
    get rootFingerprint() {
      return presentedRoot(trust).fingerprint;
    },
  };
  return new TokenStore(join(stateDir, FILES.authority, AUTHORITY_FILES.tokens), issuer);
}

/** The root that joiners see: while two roots are valid the old one, so that older tokens stay valid until it ends. */
export function presentedRoot({ roots: [oldest] }: Trust): RootCertificate {
  if (oldest === undefined) throw new TypeError('a trust has a root');
  return oldest;
}

function ownKey(pem: string, file: ClusterFile): NodeKey {
  const key = nodeKeyFromPem(pem);
  if (key.peerId !== file.peerId) throw new Error('the key is of another node');
  return key;
}

function ownCertificate(pem: string, trust: Trust, file: ClusterFile): NodeCertificate {
  const certificate = verifyChain(pem, trust, 'any-time');
  if (certificate.peerId !== file.peerId) throw new Error('the certificate is of another node');
  return certificate;
}

function checkTlsKey(pem: string, { chainPem }: NodeCertificate): void {
  const [leaf] = certificatesIn(chainPem);
  if (leaf?.checkPrivateKey(createPrivateKey(pem)) !== true)
    throw new Error('the key is of another certificate');
}

async function loadRoster(roster: Roster, path: string): Promise<IdentityWarning[]> {
  const { usedPrevious, refused } = await roster.load();
  const warnings: IdentityWarning[] = [];
  if (usedPrevious) {
    warnings.push({
      code: 'roster-previous',
      message: `${path} was damaged or missing; the generation before it is used.`,
      next: 'Wait: the other members send what is missing. Check the disk if this repeats.',
    });
    await roster.save();
  }
  if (refused.length > 0) {
    warnings.push({
      code: 'roster-items-refused',
      message: `${refused.length} entries of ${path} do not verify and were left out: ${refused[0]?.detail ?? ''}`,
      next: 'Wait: the other members send what is missing. Find out who changed the file.',
    });
  }
  return warnings;
}

/** The next steps for a removed node. */
export function waysOut(role: NodeCertificate['role']): string {
  return (
    'to join again: sudo bornemisza join --reset - with a new token; to remove all from this machine: sudo ' +
    `bornemisza leave --wipe --role ${role}`
  );
}

function addOwn(roster: Roster, own: NodeCertificate): IdentityWarning[] {
  const isVoid = roster.isRevoked(own.issuer);
  if (!roster.isRevoked(own.peerId) && (!isVoid || roster.admits(own.peerId))) {
    if (!isVoid) roster.add(own);
    return [];
  }
  return [
    {
      code: 'self-revoked',
      message: `This node (${own.name}) was removed from the cluster ${own.cluster}.`,
      next: waysOut(own.role),
    },
  ];
}

function datesOf(own: NodeCertificate, nowMs: number): IdentityWarning[] {
  const ends = new Date(own.notAfterMs).toISOString();
  if (nowMs > own.notAfterMs) {
    const next = 'Wait: the daemon renews it at an authority; check the clock if the date is wrong.';
    return [{ code: 'certificate-expired', message: `The certificate of this node ended at ${ends}.`, next }];
  }
  if (nowMs < own.notBeforeMs) {
    const next =
      'Set the clock of this machine (timedatectl, chronyc makestep); the daemon asks for another one.';
    const message =
      'The certificate of this node is not valid yet: the clock of this machine is behind, or that of the ' +
      'authority was ahead.';
    return [{ code: 'certificate-not-yet-valid', message, next }];
  }
  return [];
}

/** HOST/ROLE, HOST if it has one role, or a PeerId. @throws IdentityError `member-unknown`, `member-ambiguous` */
export function findMember(roster: Roster, text: string): NodeCertificate {
  const members = roster.members();
  const exact = members.findLast((member) => member.peerId === text || member.name === text);
  if (exact !== undefined) return exact;
  const onHost = members.filter((member) => member.host === text);
  const [only] = onHost;
  if (only !== undefined && onHost.length === 1) return only;
  const ambiguous = onHost.length > 1;
  throw new IdentityError({
    code: ambiguous ? 'member-ambiguous' : 'member-unknown',
    message: ambiguous ? `${shown(text)} has more than one role.` : `There is no member ${shown(text)}.`,
    next: ambiguous
      ? `Name one of ${onHost.map((member) => member.name).join(', ')}.`
      : 'See "bornemisza members" for the names.',
  });
}

/**
 * Removes a member for good: signs, adds, saves. The caller does gossip, disconnection and HAProxy's list.
 *
 * @throws IdentityError `not-authority`, `member-unknown`, `member-ambiguous`, `disk-full`
 */
export async function removeMember(
  identity: Identity,
  member: string,
  reason: string,
  nowMs: number,
): Promise<{ readonly bytes: Uint8Array; readonly change: RosterChange; readonly peerId: PeerId }> {
  const authority = authorityOf(identity);
  const found = findMember(identity.roster, member);
  const { bytes, change } = await putOut(authority, identity.roster, found, reason, nowMs);
  await identity.roster.save();
  return { bytes, change, peerId: found.peerId };
}

function authorityOf(identity: Identity): Authority {
  if (identity.authority !== undefined) return identity.authority;
  const authorities = identity.roster
    .authorities()
    .map((peerId) => identity.roster.get(peerId)?.name ?? peerId);
  throw new IdentityError({
    code: 'not-authority',
    message: `This node may not sign for the cluster ${identity.cluster}.`,
    next: `Run the command on an authority: ${authorities.join(', ') || 'none is known here'}.`,
  });
}

/**
 * Makes this node an authority: a further one, or the first again after all were lost. It writes only files that the
 * daemon does not write: so the daemon may run and never holds the root. The daemon applies them by {@link
 * adoptAuthority}, or at its next start.
 *
 * @param bundle the recovery bundle that `init` wrote
 * @throws IdentityError `recovery-*`, `recovery-other-cluster`, `recovery-outdated`, `already-authority`,
 * `self-revoked`
 */
export async function becomeAuthority(
  identity: Identity,
  recovery: { readonly bundle: string; readonly passphrase: string },
  nowMs: number,
): Promise<void> {
  if (identity.authority !== undefined) {
    throw new IdentityError({
      code: 'already-authority',
      message: 'This node is already an authority.',
      next: 'Nothing to do.',
    });
  }
  const removed = identity.warnings.find(({ code }) => code === 'self-revoked');
  if (removed !== undefined) throw new IdentityError(removed);
  const root = await openNewestRoot(identity, recovery);
  const files = await createAuthority(root, identity.peerId, nowMs);
  await installAuthority(identity.stateDir, { ...files, bundle: recovery.bundle });
}

/**
 * Applies in a running daemon what {@link becomeAuthority} wrote. The caller notifies the others.
 *
 * @returns undefined if this node was already an authority
 * @throws IdentityError `authority-missing`, `state-file-damaged` and the like
 */
export async function adoptAuthority(identity: Identity): Promise<RosterChange | undefined> {
  if (identity.authority !== undefined) return undefined;
  const { stateDir, trust, roster } = identity;
  const authority = await loadAuthority(stateDir, trust, roster, identity.peerId);
  if (authority === undefined) {
    throw new IdentityError({
      code: 'authority-missing',
      message: 'This node holds no key of an authority.',
      next: 'Run "sudo bornemisza authority add" here, with the recovery bundle.',
    });
  }
  const own = identity as MutableIdentity;
  own.tokens = tokensOf(stateDir, authority, trust);
  own.authority = authority;
  const change = roster.addAuthority(authority.certificate.pem);
  await roster.save();
  return change;
}

/**
 * Switches the certificates that this node presents and signs with to a root: its own certificate stays, and the
 * authority's certificate beside it changes.
 *
 * @returns whether this node presents another chain than before
 */
export async function hangOnRoot(identity: Identity, root: RootCertificate): Promise<boolean> {
  const { authority, roster } = identity;
  const signsUnder = authority && roster.authorityUnder(root, authority.certificate.x509);
  if (authority !== undefined && signsUnder !== undefined) {
    await writeStateFile(
      join(identity.stateDir, FILES.authority, AUTHORITY_FILES.certificate),
      signsUnder.pem,
    );
    authority.hangOn(signsUnder);
  }
  const chain = roster.hungOn(identity.chainPem, root);
  if (chain === undefined || chain === identity.chainPem) return false;
  await useCertificate(identity, verifyChain(chain, identity.trust, 'any-time'));
  return true;
}

/** A request to an authority for the same names and the same TLS key. */
export async function renewalRequest(identity: Identity): Promise<Uint8Array> {
  const key = createPrivateKey(await identity.tlsKeyPem());
  return Buffer.from(createSigningRequest(key, identity.host, identity.role));
}

/**
 * The authority's side. An expired member may renew, a removed one may not.
 *
 * @param fromPeerId as proved by the connection (Noise)
 * @returns the new chain; the roster here has it already
 * @throws IdentityError `not-authority`, `peer-unknown`, `peer-revoked`, `renewal-early`, `request-*`
 */
export async function answerRenewal(
  identity: Identity,
  fromPeerId: PeerId,
  request: Uint8Array,
  nowMs: number,
): Promise<Uint8Array> {
  const authority = authorityOf(identity);
  const { roster } = identity;
  const current = roster.get(fromPeerId);
  if (current === undefined) throw notRenewable(fromPeerId, roster.isRevoked(fromPeerId));
  // This also limits the serials that a revocation has to name.
  if (!renewalDue(current, nowMs)) throw tooEarly(current);
  const csrPem = Buffer.from(request.subarray(0, 16_384)).toString('latin1');
  const renewed = await authority.renew(current, csrPem, nowMs);
  roster.add(renewed);
  await roster.save();
  return Buffer.from(renewed.chainPem);
}

/** The node's side: checks, writes, and then uses the new chain. @throws IdentityError `certificate-*` */
export async function acceptRenewal(
  identity: Identity,
  answer: Uint8Array,
  nowMs: number,
): Promise<NodeCertificate> {
  const pem = Buffer.from(answer.subarray(0, 32_768)).toString('latin1');
  const renewed = verifyChain(pem, identity.trust, nowMs);
  checkTlsKey(await identity.tlsKeyPem(), renewed);
  if (renewed.peerId !== identity.peerId || renewed.name !== identity.name) {
    throw new IdentityError({
      code: 'certificate-other-peer',
      message: `The renewed certificate is of ${renewed.name}, not of ${identity.name}.`,
      next: 'See the journal of the authority; nothing was changed.',
    });
  }
  identity.roster.add(renewed);
  await useCertificate(identity, renewed);
  return renewed;
}

/**
 * Uses the certificate that the roster has for this node, if it differs: a removed authority had signed the one in use.
 *
 * @returns whether it differs
 */
export async function adoptCertificate(identity: Identity): Promise<boolean> {
  const held = identity.roster.get(identity.peerId);
  if (held === undefined || held.serialHex === identity.certificate.serialHex) return false;
  const key = createPrivateKey(await identity.tlsKeyPem());
  // The state is a mix of two backups: the certificate in use fits its key, and stays.
  if (certificatesIn(held.chainPem)[0]?.checkPrivateKey(key) !== true) return false;
  await useCertificate(identity, held);
  return true;
}

async function useCertificate(identity: Identity, certificate: NodeCertificate): Promise<void> {
  await writeStateFile(join(identity.stateDir, FILES.chain), certificate.chainPem);
  await identity.roster.save();
  const own = identity as MutableIdentity;
  own.certificate = certificate;
  own.chainPem = certificate.chainPem;
}

function notRenewable(peerId: PeerId, revoked: boolean): IdentityError {
  return new IdentityError({
    code: revoked ? 'peer-revoked' : 'peer-unknown',
    message: revoked ? `${peerId} was removed from the cluster.` : `${peerId} was never admitted.`,
    next: 'Join that machine again: "bornemisza join --reset -" with a new token.',
  });
}

function tooEarly(current: NodeCertificate): IdentityError {
  return new IdentityError({
    code: 'renewal-early',
    message: `The certificate of ${current.name} has more than half of its lifetime left.`,
    next: 'Wait: it renews by itself after half of its lifetime.',
  });
}
