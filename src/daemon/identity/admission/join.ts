import { createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import type { TcpSocketConnectOpts } from 'node:net';
import { JOIN_DOMAIN, joinStatement, type JoinRequest } from './admit.ts';
import { createTlsKey, fingerprintOf, keyPem, rootName } from '../keys/certificates.ts';
import { certificatesIn, type NodeCertificate, type Trust, trustOf, verifyChain } from '../keys/chain.ts';
import { IdentityError } from '../errors.ts';
import { writeKeys } from '../root/init-cluster.ts';
import { memberName, parseAddress, parseHost } from '../names.ts';
import { createNodeKey, type NodeKey, nodeKeyFromPem } from '../keys/node-key.ts';
import { Roster } from '../roster/roster.ts';
import { createSecrets, SecretsStore } from '../secrets.ts';
import { createSigningRequest } from '../keys/signing-request.ts';
import {
  beginState,
  clearState,
  FILES,
  finishState,
  readDecoded,
  type Seed,
  writeStateFile,
} from '../state.ts';
import { parseToken, proofOf, type Token } from './tokens.ts';
import type { PeerId, Role } from '../../membership/types.ts';
import {
  type Admitted,
  ANSWER_BYTES,
  decodeAnswer,
  decodeLength,
  encodeHello,
  encodeRequest,
  EXPORTER_BYTES,
  EXPORTER_LABEL,
} from './frames.ts';
import { BoundedReader } from './reader.ts';

export interface JoinOptions {
  /** The pasted token. */
  readonly token: string;
  readonly stateDir: string;
  readonly host: string;
  /** Private IPv4 address of this host; the connection to the issuer leaves from it. */
  readonly address: string;
  /** The role that the operator names; refused if the token is for another. */
  readonly role?: Role;
  /** Of this program. */
  readonly version: string;
  /** Wall time. */
  nowMs(): number;
  /** Limit of all attempts together. Default 30 s. */
  readonly timeoutMs?: number;
}

export interface Joined {
  readonly cluster: string;
  readonly role: Role;
  /** HOST/ROLE. */
  readonly name: string;
  readonly peerId: PeerId;
  /** This node is the first of its role; a first db node has made the role's secrets. */
  readonly firstOfRole: boolean;
  readonly seeds: readonly Seed[];
}

const JOIN_MS = 30_000;
/** One attempt: longer than the issuer allows for a conversation, so that its refusal arrives. */
const ATTEMPT_MS = 8000;
const PAUSE_MS = 300;
/** A closed port answers at once and rarely opens while one waits; a restart of the issuer takes about a second. */
const REFUSED_ATTEMPTS = 4;

/**
 * Joins a cluster while the daemon is stopped. An interrupted run continues with the same keys, so that a lost answer
 * is given again.
 *
 * @throws IdentityError `token-*`, `already-member`, `host-invalid`, `address-invalid`, `role-mismatch`,
 * `issuer-unreachable`, `issuer-other-cluster`, `issuer-other-root`, `issuer-other-node`, `address-not-here`, what the
 * issuer refuses (admit.ts), `state-*`, `disk-full`
 */
export async function joinCluster(options: JoinOptions): Promise<Joined> {
  const token = parseToken(options.token);
  if (options.role !== undefined && options.role !== token.role) throw otherRole(token.role, options.role);
  const host = parseHost(options.host);
  const address = parseAddress(options.address);
  const before = await beginState(options.stateDir, 'join');
  const keys = await keysFor(options.stateDir, before === 'join');
  const csr = createSigningRequest(keys.tlsKey, host, token.role);
  const names = { csr, host, role: token.role, address, version: options.version };
  const answer = await persist(options, token, (signal) =>
    converse(token, keys.nodeKey, names, options.nowMs(), signal),
  );
  return settle(options.stateDir, answer, { ...keys, host, address, role: token.role });
}

interface Keys {
  readonly nodeKey: NodeKey;
  readonly tlsKey: KeyObject;
}

/** The keys of an interrupted run if both are complete; otherwise new ones. */
async function keysFor(stateDir: string, resume: boolean): Promise<Keys> {
  if (resume) {
    try {
      const nodeKey = await readDecoded(join(stateDir, FILES.nodeKey), nodeKeyFromPem);
      return { nodeKey, tlsKey: await readDecoded(join(stateDir, FILES.tlsKey), createPrivateKey) };
    } catch (error) {
      if (error instanceof IdentityError && error.code === 'state-permissions') throw error;
    }
  }
  await clearState(stateDir);
  const keys = { nodeKey: createNodeKey(), tlsKey: await createTlsKey() };
  await writeKeys(stateDir, keys.nodeKey.pem, keyPem(keys.tlsKey));
  return keys;
}

type Attempt = (signal: AbortSignal) => Promise<Admitted>;

/** Tries until an answer arrives or the time is over. An answer of the issuer is final; a network error is not. */
async function persist(options: JoinOptions, token: Token, attempt: Attempt): Promise<Admitted> {
  const endMs = performance.now() + (options.timeoutMs ?? JOIN_MS);
  for (let refusals = 0; ; await sleep(PAUSE_MS)) {
    const leftMs = Math.max(1, Math.ceil(endMs - performance.now()));
    try {
      return await attempt(AbortSignal.timeout(Math.min(ATTEMPT_MS, leftMs)));
    } catch (error) {
      if (!(error instanceof NetworkTrouble)) throw error;
      refusals += error.code === 'ECONNREFUSED' ? 1 : 0;
      const local = error.code === 'EADDRNOTAVAIL';
      if (local) throw addressNotHere(options.address);
      const over = performance.now() + PAUSE_MS >= endMs || refusals >= REFUSED_ATTEMPTS;
      if (over || options.nowMs() > token.expiresAtMs) throw unreachable(token, error, options.nowMs());
    }
  }
}

/** The connection failed or ended, or nobody answered: another attempt can succeed. */
class NetworkTrouble extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

async function converse(
  token: Token,
  nodeKey: NodeKey,
  names: Omit<JoinRequest, 'publicKey' | 'signature'>,
  nowMs: number,
  signal: AbortSignal,
): Promise<Admitted> {
  const options: ConnectionOptions & TcpSocketConnectOpts = {
    host: token.issuer.address,
    port: token.issuer.port,
    localAddress: names.address,
    minVersion: 'TLSv1.3',
    // The root is known by its fingerprint only, so the chain is verified below, before anything is sent.
    rejectUnauthorized: false,
  };
  const socket = connect(options);
  const stop = () => socket.destroy(new NetworkTrouble('ETIMEDOUT', 'the issuer did not answer in time'));
  signal.addEventListener('abort', stop, { once: true });
  try {
    const reader = new BoundedReader(socket, ANSWER_BYTES + 4);
    await secured(socket);
    verifyIssuer(socket, token, nowMs);
    const exporter = socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
    const signature = nodeKey.sign(JOIN_DOMAIN, joinStatement(names, exporter));
    socket.write(encodeHello({ tokenId: token.id, proof: proofOf(token, exporter) }));
    socket.write(encodeRequest({ ...names, publicKey: nodeKey.publicKey, signature }));
    return await answerOf(reader);
  } finally {
    signal.removeEventListener('abort', stop);
    socket.destroy();
  }
}

function secured(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('secureConnect', () => resolve());
    socket.once('error', (error: Error & { code?: string }) => {
      reject(
        error instanceof NetworkTrouble ? error : new NetworkTrouble(error.code ?? 'error', error.message),
      );
    });
    socket.once('close', () => reject(new NetworkTrouble('ECONNRESET', 'the issuer closed the connection')));
  });
}

async function answerOf(reader: BoundedReader): Promise<Admitted> {
  let answer: ReturnType<typeof decodeAnswer>;
  try {
    const length = decodeLength(await reader.read(4), ANSWER_BYTES);
    answer = decodeAnswer(await reader.read(length));
  } catch (error) {
    if (error instanceof IdentityError && error.code !== 'admission-closed') throw error;
    throw new NetworkTrouble('ECONNRESET', 'the issuer closed the connection before it answered');
  }
  if (answer.admitted) return answer;
  const { code, message, next, retry } = answer;
  throw new IdentityError({ code, message, next, retry });
}

/** The other side must be the node and have the root that the token names. */
function verifyIssuer(socket: TLSSocket, token: Token, nowMs: number): void {
  const chain = peerChain(socket);
  const root = chain.find((x509) => fingerprintOf(x509.raw) === token.rootFingerprint);
  const [leaf, intermediate] = chain;
  const named = chain.some(({ subject }) => subject.startsWith(`CN=${rootName(token.cluster, '')}`));
  if (root === undefined && named) throw otherRoot(token);
  if (root === undefined || leaf === undefined || intermediate === undefined) throw otherCluster(token);
  const trust = trustOf(token.cluster, root.toString());
  const issuer = verifyChain(leaf.toString() + intermediate.toString(), trust, nowMs);
  if (issuer.peerId !== token.issuer.peerId) throw otherNode(token, issuer);
}

/** At most four certificates, from the other side's own upwards. */
function peerChain(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next = socket.getPeerX509Certificate();
  while (next !== undefined && chain.length < 4) {
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}

/** Verifies the whole answer and writes it; the state is complete with the last file. */
async function settle(
  stateDir: string,
  answer: Admitted,
  own: Keys & { readonly host: string; readonly address: string; readonly role: Role },
): Promise<Joined> {
  const { host, address, role } = own;
  const trust = trustOf(answer.cluster, answer.roots);
  const certificate = verifiedOwn(answer, trust, own);
  const roster = new Roster(trust, join(stateDir, FILES.roster));
  await roster.merge(answer.roster);
  roster.add(certificate);
  await writeStateFile(join(stateDir, FILES.chain), certificate.chainPem);
  await writeStateFile(join(stateDir, FILES.roots), trust.roots.map((root) => root.pem).join(''));
  await roster.save();
  const { firstOfRole, seeds, cluster } = answer;
  if (firstOfRole && role === 'db') await new SecretsStore(stateDir, role).put(await createSecrets());
  const { peerId } = certificate;
  const file = {
    version: 1,
    cluster,
    role,
    host,
    address,
    peerId,
    founder: false,
    firstOfRole,
    seeds,
  } as const;
  await finishState(stateDir, { ...file, seeds: [...seeds] });
  return { cluster, role, name: memberName(host, role), peerId, firstOfRole, seeds };
}

function verifiedOwn(
  answer: Admitted,
  trust: Trust,
  own: Keys & { readonly host: string; readonly role: Role },
): NodeCertificate {
  // The issuer set the dates just now by its own clock, and verified it; ours may differ by more than a day.
  const certificate = verifyChain(answer.chain, trust, 'any-time');
  const [leaf] = certificatesIn(certificate.chainPem);
  const fits =
    certificate.peerId === own.nodeKey.peerId && certificate.name === memberName(own.host, own.role);
  if (fits && leaf?.checkPrivateKey(own.tlsKey) === true) return certificate;
  throw new IdentityError({
    code: 'certificate-other-peer',
    message: `The issuer answered with a certificate of ${certificate.name} that is not for the keys of this node.`,
    next: 'See the journal of the issuer, then join again with a new token.',
  });
}

function unreachable(token: Token, cause: NetworkTrouble, nowMs: number): IdentityError {
  const where = `${token.issuer.address}:${token.issuer.port}`;
  if (nowMs > token.expiresAtMs) {
    const ended = new Date(token.expiresAtMs).toISOString();
    return new IdentityError({
      code: 'token-expired',
      message: `The token expired at ${ended}, and ${where} no longer listens.`,
      next: 'Create a new one with "bornemisza token create" and join with that.',
      cause,
    });
  }
  return new IdentityError({
    code: 'issuer-unreachable',
    message: `The issuer ${where} does not answer: ${cause.message}.`,
    next: 'Check that its daemon runs, the private network is up, and the token was not used; then join again.',
    retry: true,
    cause,
  });
}

function otherCluster(token: Token): IdentityError {
  const where = `${token.issuer.address}:${token.issuer.port}`;
  return new IdentityError({
    code: 'issuer-other-cluster',
    message: `The node at ${where} is not a member of the cluster ${token.cluster} of the token.`,
    next: 'Create a token on an authority of the cluster that this machine should join.',
  });
}

function otherRoot(token: Token): IdentityError {
  const where = `${token.issuer.address}:${token.issuer.port}`;
  return new IdentityError({
    code: 'issuer-other-root',
    message:
      `The node at ${where} has another root CA of the cluster ${token.cluster} than the token names: the ` +
      'root CA was replaced since, or this is another cluster of the same name.',
    next: 'Create a new token on an authority of the cluster that this machine should join.',
  });
}

function otherNode(token: Token, issuer: NodeCertificate): IdentityError {
  return new IdentityError({
    code: 'issuer-other-node',
    message: `${issuer.name} answers at ${token.issuer.address}, but another node made the token.`,
    next: 'Create a token on the node that has this address now.',
  });
}

function otherRole(tokens: Role, given: Role): IdentityError {
  return new IdentityError({
    code: 'role-mismatch',
    message: `The token is for role ${tokens}, not for role ${given}.`,
    next: `Create a token with --role ${given}, or join with --role ${tokens}.`,
  });
}

function addressNotHere(address: string): IdentityError {
  return new IdentityError({
    code: 'address-not-here',
    message: `${address} is not an address of this host.`,
    next: 'Give the address of the private device, as "ip -4 addr" prints it, with --private-address.',
  });
}
