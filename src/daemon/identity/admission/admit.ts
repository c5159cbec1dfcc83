import { createHash } from 'node:crypto';
import type { PeerId } from '../../membership/types.ts';
import type { Authority } from '../root/authority.ts';
import type { NodeCertificate } from '../keys/chain.ts';
import { IdentityError } from '../errors.ts';
import { inNetwork, memberName, parseAddress, parseHost, parseRole } from '../names.ts';
import { peerIdOf, verify } from '../keys/node-key.ts';
import { putOut } from '../roster/removal.ts';
import { MEMBERS, type Roster, type RosterChange } from '../roster/roster.ts';
import { type Claim, isRevocation, type ProvedToken, type TokenStore } from './token-store.ts';

/** The request of a joiner. Only what it proves is believed. */
export interface JoinRequest {
  /** PKCS#10 in PEM: proves the TLS key. */
  readonly csr: string;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Signature by the node key over {@link joinStatement}. */
  readonly signature: Uint8Array;
  readonly host: string;
  readonly role: string;
  readonly address: string;
  readonly version: string;
}

export const JOIN_DOMAIN = 'admission';

/** The node key signs this channel and the whole request, so that no part can be used elsewhere. */
export function joinStatement(
  request: Omit<JoinRequest, 'publicKey' | 'signature'>,
  exporter: Uint8Array,
): Uint8Array {
  const { csr, host, role, address, version } = request;
  const digest = createHash('sha256')
    .update(JSON.stringify([csr, host, role, address, version]))
    .digest();
  return Buffer.concat([exporter, digest]);
}

/** The connection of the request. */
interface Arrival {
  readonly token: ProvedToken;
  /** Keying material of the TLS channel. */
  readonly exporter: Uint8Array;
  readonly remoteAddress: string;
  readonly nowMs: number;
}

export type Standing = 'alive' | 'gone' | 'unheard';

/** The facts of the decision. */
export interface Desk {
  readonly authority: Authority;
  readonly roster: Roster;
  readonly tokens: TokenStore;
  /** Such as `10.0.0.0/16`. */
  readonly privateNetwork: string;
  /**
   * What this node knows of a member. `unheard`: it was admitted but has sent nothing yet (before its daemon's first
   * start), or was silent for so long that it was forgotten.
   */
  standing(peerId: PeerId): Standing;
}

export interface Admission {
  readonly certificate: NodeCertificate;
  readonly firstOfRole: boolean;
  readonly change: RosterChange;
}

/**
 * Admits a node or refuses it with the reason. Call it for one joiner after another. The claim on the token is the
 * point of no return: nothing is changed before it; after it the same joiner gets the same answer while the token is
 * valid.
 *
 * @throws IdentityError `token-expired`, `token-used`, `token-revoked`, `role-mismatch`, `join-forged`,
 * `address-outside-network`, `address-not-yours`, `address-taken`, `name-taken`, `peer-revoked`, `peer-known`,
 * `roster-full`, `request-*`, `disk-full` …
 */
export async function admit(desk: Desk, request: JoinRequest, arrival: Arrival): Promise<Admission> {
  const { token, nowMs } = arrival;
  const peerId = provedPeer(request, arrival.exporter);
  if (token.expired) throw refused('token-expired', 'The token has expired.', FRESH);
  const digest = createHash('sha256').update(request.csr).digest('hex');
  const before = await desk.tokens.claimOf(token.id);
  if (before !== undefined && isRevocation(before)) throw revoked();
  if (before !== undefined) return repeated(desk, before, peerId, digest);

  const names = checkedNames(desk, request, arrival);
  const holder = checkedAgainstRoster(desk, { ...names, peerId });
  const admittedAtMs = desk.roster.get(peerId)?.admittedAtMs ?? Math.floor(nowMs);
  const certificate = await desk.authority.issue(
    { ...names, peerId, admittedAtMs, csrPem: request.csr },
    nowMs,
  );
  const firstOfRole = isFirst(desk.roster, certificate);
  const claim: Claim = {
    usedAtMs: Math.floor(nowMs),
    peerId,
    request: digest,
    chainPem: certificate.chainPem,
    firstOfRole,
  };
  if (!(await desk.tokens.claim(token.id, claim))) throw await taken(desk, token.id);
  const replaced =
    holder === undefined ? undefined : await putOut(desk.authority, desk.roster, holder, REPLACED, nowMs);
  const change = joined(replaced?.change, desk.roster.add(certificate));
  await desk.roster.save();
  return { certificate, firstOfRole, change };
}

function provedPeer(request: JoinRequest, exporter: Uint8Array): PeerId {
  const peerId = peerIdOf(request.publicKey);
  if (verify(peerId, JOIN_DOMAIN, joinStatement(request, exporter), request.signature)) return peerId;
  throw refused(
    'join-forged',
    'The joiner does not hold the node key that it shows.',
    'Run "bornemisza join" again.',
  );
}

/** The answer was lost, or its receiver died: the same joiner gets the same answer again, everybody else nothing. */
async function repeated(desk: Desk, claim: Claim, peerId: PeerId, request: string): Promise<Admission> {
  if (claim.peerId !== peerId || claim.request !== request) throw used();
  const change = desk.roster.present(claim.chainPem, peerId);
  await desk.roster.save();
  const certificate = desk.roster.get(peerId);
  if (certificate === undefined) throw used();
  return { certificate, firstOfRole: claim.firstOfRole, change };
}

function checkedNames(desk: Desk, request: JoinRequest, { token, remoteAddress }: Arrival) {
  const host = parseHost(request.host);
  const role = parseRole(request.role);
  const address = parseAddress(request.address);
  if (role !== token.role) {
    const message = `The token is for role ${token.role}, not for role ${role}.`;
    throw refused('role-mismatch', message, `Create a token with --role ${role}.`);
  }
  if (!inNetwork(address, desk.privateNetwork)) {
    const message = `${address} is not in the private network ${desk.privateNetwork}.`;
    throw refused(
      'address-outside-network',
      message,
      'Give the address of the private device with --private-address.',
    );
  }
  if (address !== remoteAddress) {
    const message = `The joiner says ${address} but comes from ${remoteAddress}.`;
    throw refused(
      'address-not-yours',
      message,
      'Give the address of the private device with --private-address.',
    );
  }
  return { host, role, address };
}

/** @returns the dead holder of the name, if there is one: it is removed when this one is admitted */
function checkedAgainstRoster(
  desk: Desk,
  names: Pick<NodeCertificate, 'peerId' | 'host' | 'role' | 'address'>,
): NodeCertificate | undefined {
  const { roster } = desk;
  const name = memberName(names.host, names.role);
  const known = roster.get(names.peerId);
  if (roster.isRevoked(names.peerId)) {
    throw refused('peer-revoked', 'A node with this key was removed from the cluster.', RESET);
  }
  if (known !== undefined && known.name !== name) {
    throw refused('peer-known', `A node with this key is already a member, as ${known.name}.`, RESET);
  }
  const neighbour = roster
    .members()
    .find(
      (member) =>
        member.address === names.address &&
        member.host !== names.host &&
        desk.standing(member.peerId) !== 'gone',
    );
  if (neighbour !== undefined) throw addressTaken(neighbour, desk.standing(neighbour.peerId));
  const holder = roster
    .members()
    .findLast((member) => member.name === name && member.peerId !== names.peerId);
  // A member that was never reachable can be this machine, set up again.
  if (holder !== undefined && desk.standing(holder.peerId) === 'alive') {
    const next = `Pass another --host, or stop that node and run "bornemisza remove ${name}".`;
    throw refused('name-taken', `${name} is a member and alive.`, next);
  }
  if (holder === undefined && known === undefined && roster.members().length >= MEMBERS) {
    const next = 'Remove members that are gone for good: "bornemisza remove NODE".';
    throw refused('roster-full', `The cluster has ${MEMBERS} members, which is the limit.`, next);
  }
  return holder;
}

/** Two machines with one address cut each other off, so a member that may still start keeps its address. */
function addressTaken({ address, name }: NodeCertificate, standing: Standing): IdentityError {
  const own = 'Give each machine an address of its own';
  return standing === 'alive'
    ? refused('address-taken', `${address} is the address of ${name}, which is alive.`, `${own}.`)
    : refused(
        'address-taken',
        `${address} is the address of ${name}, which was admitted but has not reported yet.`,
        `${own}; if ${name} is gone for good, first: bornemisza remove ${name} --dead.`,
      );
}

/** No other admitted member has the role: this one creates the role's secrets. */
function isFirst(roster: Roster, { role, peerId }: NodeCertificate): boolean {
  return !roster.members().some((member) => member.role === role && member.peerId !== peerId);
}

function joined(first: RosterChange | undefined, second: RosterChange): RosterChange {
  if (first === undefined) return second;
  return {
    admitted: [...first.admitted, ...second.admitted],
    renewed: [...first.renewed, ...second.renewed],
    revoked: [...first.revoked, ...second.revoked],
    refused: [...first.refused, ...second.refused],
    changed: first.changed || second.changed,
    roots: first.roots || second.roots,
  };
}

const REPLACED = 'another machine was admitted under the name';
const FRESH = 'Create a new one with "bornemisza token create" and join with that.';
const RESET = 'Run "bornemisza join --reset -", which makes a new key, with a new token.';

/** The token was used or revoked meanwhile. */
async function taken({ tokens }: Desk, id: string): Promise<IdentityError> {
  const by = await tokens.claimOf(id);
  return by !== undefined && isRevocation(by) ? revoked() : used();
}

function used(): IdentityError {
  return refused('token-used', 'The token was used by another node.', FRESH);
}

function revoked(): IdentityError {
  return refused('token-revoked', 'The token was revoked at its issuer.', FRESH);
}

function refused(code: string, message: string, next: string): IdentityError {
  return new IdentityError({ code, message, next });
}
