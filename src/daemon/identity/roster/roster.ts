import { createHash, type X509Certificate } from 'node:crypto';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { PeerId } from '../../membership/types.ts';
import {
  type AuthorityCertificate,
  certificatesIn,
  issuedBy,
  newestRoot,
  type NodeCertificate,
  parsed,
  type RootCertificate,
  type Trust,
  verifyAuthority,
  verifyChain,
  verifyLeaf,
} from '../keys/chain.ts';
import { fingerprintOf } from '../keys/certificates.ts';
import { IdentityError } from '../errors.ts';
import { type Revocation, revocationId, verifyRevocation, verifySigned } from './revocation.ts';
import { decodeRoster, encodeRoster, type RosterItems } from './roster-encoding.ts';
import { damaged, FILES, readStateFile, writeStateFile } from '../state.ts';
import {
  RootLine,
  type SignedSuccession,
  type Succession,
  successionId,
  verifySuccession,
} from '../root/succession.ts';

/**
 * All admitted members, and all removed ones. Its signature proves each item, so the source does not matter: file, peer
 * and the answer to a joiner go through the same checks. Two rosters with the same items are equal, in any order of
 * arrival.
 *
 * Signatures of a removed authority are no longer valid, whatever their date: the holder of its key can write any date.
 * So they are neither accepted nor kept; the remover has signed again what stays valid (removal.ts).
 *
 * If another root follows (rotation.ts), each authority has one certificate under each root, for the same key: so what
 * it signed is valid under both, and only the authority's certificate beside it differs.
 */

/** The largest supported cluster. */
export const MEMBERS = 500;
/** Four times over all members replaced. A full roster is then still under 4 MiB. */
const REVOCATIONS = 2000;
/** Under one root: one authority for every sixteen members. */
const AUTHORITIES = 32;
/** The limit of rival successions that are reported. */
const RIVALS = 4;
const ITEM_BYTES = 8;
/** Verifying takes 0.3 ms each: it yields to the loop after 5 ms. */
const PER_TURN = 16;
/** Serials of one PeerId that a renewal replaced and that may still be valid. */
const OLDER_SERIALS = 8;

/** The result of an addition. `changed`: the roster should be saved and sent to others. */
export interface RosterChange {
  readonly admitted: NodeCertificate[];
  readonly renewed: NodeCertificate[];
  readonly revoked: PeerId[];
  /** The refused items; the others were accepted. */
  readonly refused: { readonly code: string; readonly detail: string }[];
  readonly changed: boolean;
  /** The set of trusted roots changed. */
  readonly roots: boolean;
}

const endOfTime = (): number => Number.POSITIVE_INFINITY;

interface Entry {
  readonly id: string;
  readonly certificate: NodeCertificate;
  /** DER, so that an export parses nothing. */
  readonly leaf: Buffer;
  readonly issuer: Buffer;
}

export class Roster {
  readonly #trust: Trust;
  readonly #path: string;
  readonly #wallMs: () => number;
  readonly #entries = new Map<PeerId, Entry>();
  /** Ids of the certificates in `#entries`. */
  readonly #held = new Set<string>();
  readonly #revocations = new Map<string, Revocation>();
  /** Serials by PeerId, revoked or not: one more for each renewal, bounded per PeerId. */
  readonly #serials = new Map<PeerId, readonly string[]>();
  readonly #revoked = new Set<PeerId>();
  /** Of members: the certificate by an authority that is now removed. Only in memory, as members replace it at once. */
  readonly #good = new Map<PeerId, string>();
  readonly #authorities = new Map<string, AuthorityCertificate>();
  readonly #line: RootLine;
  readonly #rivals = new Set<string>();
  /** The content of the file of roots. */
  #rootsKept: string;
  #saving: Promise<void> = Promise.resolve();

  /**
   * @param trust changed here, and only here, if another root follows
   * @param path where `save` writes, and the roots beside it; nothing is read here
   * @param wallMs this machine's clock, ms since the epoch. By default every certificate counts as already valid.
   */
  constructor(trust: Trust, path: string, wallMs = endOfTime) {
    this.#trust = trust;
    this.#path = path;
    this.#wallMs = wallMs;
    this.#line = new RootLine(trust);
    this.#rootsKept = rootsPem(trust);
  }

  /** The gate. An expired certificate is enough to connect, since the node needs that to renew it. */
  admits(peerId: PeerId): boolean {
    return this.#entries.has(peerId);
  }

  isRevoked(peerId: PeerId): boolean {
    return this.#revoked.has(peerId);
  }

  get(peerId: PeerId): NodeCertificate | undefined {
    return this.#entries.get(peerId)?.certificate;
  }

  /** The member with this HOST/ROLE; of two, the one that was admitted last. */
  byName(name: string): NodeCertificate | undefined {
    return this.members().findLast((member) => member.name === name);
  }

  /** All members that are not revoked, in order of admission: the index in this list is the rank. */
  members(): NodeCertificate[] {
    return [...this.#entries.values()].map((entry) => entry.certificate).sort(byAdmission);
  }

  /** Removed authorities: nothing that they signed is valid. */
  revokedAuthorities(): PeerId[] {
    const peers = [...this.#authorities.values()].map((authority) => authority.peerId);
    return [...new Set(peers)].filter((peerId) => this.#revoked.has(peerId)).sort();
  }

  /** Authorities that are members, without the removed ones. */
  authorities(): PeerId[] {
    const peers = [...this.#authorities.values()].map((authority) => authority.peerId);
    return [...new Set(peers)].filter((peerId) => this.admits(peerId)).sort();
  }

  /** Of all authorities, members or not, under each trusted root. */
  authorityCertificates(): AuthorityCertificate[] {
    return [...this.#authorities.values()];
  }

  /** All known changes of the root, the oldest first. */
  successions(): readonly Succession[] {
    return this.#line.successions;
  }

  /** The change of the root that has begun and not ended. */
  get rootChange(): Succession | undefined {
    return this.#line.underWay;
  }

  /** Refusals because two roots claim to follow the same one, as text. */
  rivals(): readonly string[] {
    return [...this.#rivals];
  }

  revocations(): Revocation[] {
    return [...this.#revocations.values()].sort(
      (a, b) => a.revokedAtMs - b.revokedAtMs || compare(a.id, b.id),
    );
  }

  /**
   * SHA-256, in upper-case hex, of certificates that were valid when their authority was removed: members present them
   * until they have the one that was signed again. Not serials, as whoever has the authority's key can write any
   * serial.
   */
  knownCertificates(): string[] {
    return [...this.#good]
      .filter(([peerId]) => this.#entries.has(peerId))
      .map(([, fingerprint]) => fingerprint);
  }

  /** All serials of a PeerId that this node has seen, the newest last, for a revocation. */
  serialsOf(peerId: PeerId): readonly string[] {
    return this.#serials.get(peerId) ?? [];
  }

  /**
   * Accepts the certificate that a peer presents for itself.
   *
   * @throws IdentityError `certificate-other-peer`, `peer-revoked`, `roster-full`, `certificate-*`
   */
  present(shownPem: string, fromPeerId: PeerId): RosterChange {
    const chainPem = this.standing(shownPem);
    const certificate = verifyChain(chainPem, this.#trust, 'any-time');
    if (certificate.peerId !== fromPeerId) {
      throw new IdentityError({
        code: 'certificate-other-peer',
        message: `${fromPeerId} showed the certificate of ${certificate.peerId}.`,
        next: 'If this repeats, check the machine at that address; nothing was changed.',
      });
    }
    const change = newChange();
    this.#rememberAuthority(authorityBeside(chainPem, this.#trust), change);
    this.#addCertificate(certificate, change);
    return change;
  }

  /**
   * Accepts at once what this node's own authority has signed: revocations, and certificates to replace those that
   * become void by them. @throws IdentityError as {@link present} and {@link addRevocation}
   */
  take(revocations: readonly Uint8Array[], certificates: readonly NodeCertificate[]): RosterChange {
    const change = newChange();
    for (const revocation of revocations.map((bytes) => verifyRevocation(bytes, this.#trust))) {
      this.#rememberAuthority(revocation.by, change);
      this.#addRevocation(revocation, change);
    }
    for (const certificate of certificates) this.#addCertificate(certificate, change);
    this.#dropVoid(change);
    return change;
  }

  /** Accepts a certificate that this node's own authority has signed. @throws as {@link present} */
  add(certificate: NodeCertificate): RosterChange {
    return this.present(certificate.chainPem, certificate.peerId);
  }

  /** The same chain with its authority's certificate under `root`; undefined if there is none. */
  hungOn(chainPem: string, root: RootCertificate): string | undefined {
    const [leaf, intermediate] = certificatesIn(chainPem);
    if (leaf === undefined || intermediate === undefined) return undefined;
    const authority = this.authorityUnder(root, intermediate);
    return authority === undefined ? undefined : leaf.toString() + authority.pem;
  }

  /** A chain in the form that can be verified now, whatever its original root. */
  standing(chainPem: string): string {
    const [, intermediate] = certificatesIn(chainPem);
    const trusted = intermediate === undefined || this.#isTrusted(intermediate);
    return trusted ? chainPem : (this.hungOn(chainPem, newestRoot(this.#trust)) ?? chainPem);
  }

  /** Adds an authority that has signed nothing yet. @throws IdentityError `certificate-*` */
  addAuthority(certificatePem: string): RosterChange {
    const [x509] = certificatesIn(certificatePem);
    if (x509 === undefined) return newChange();
    const change = newChange();
    this.#rememberAuthority(verifyAuthority(x509, this.#trust, 'any-time'), change);
    return change;
  }

  /** @throws IdentityError `revocation-malformed`, `revocation-forged`, `certificate-*` */
  addRevocation(bytes: Uint8Array): RosterChange {
    return this.take([bytes], []);
  }

  /** For a revocation from a stranger: only one of this node itself is accepted. @throws as {@link addRevocation} */
  addOwnRevocation(bytes: Uint8Array, own: PeerId): RosterChange {
    return verifyRevocation(bytes, this.#trust).peerId === own ? this.take([bytes], []) : newChange();
  }

  /** Hex; equal digests mean equal rosters. */
  digest(): string {
    return createHash('sha256').update(this.ids()).digest('hex');
  }

  /** 8 bytes per item, sorted: an authority, a certificate, a revocation or a succession. */
  ids(): Uint8Array {
    const successions = this.#line.successions.map(successionId);
    const items = [...this.#authorities.keys(), ...this.#held, ...this.#revocations.keys(), ...successions];
    return Buffer.from(items.sort().join(''), 'hex');
  }

  exportAll(): Uint8Array {
    return this.exportMissing(new Uint8Array());
  }

  /** Everything that the owner of `theirIds` lacks; malformed ids are ignored. */
  exportMissing(theirIds: Uint8Array): Uint8Array {
    const theirs = new Set<string>();
    for (let at = 0; at + ITEM_BYTES <= theirIds.length; at += ITEM_BYTES) {
      theirs.add(Buffer.from(theirIds.subarray(at, at + ITEM_BYTES)).toString('hex'));
    }
    const lacks = ({ id }: { readonly id: string }) => !theirs.has(id);
    const authorities = [...this.#authorities].map(([id, authority]) => ({ id, authority }));
    return encodeRoster({
      cluster: this.#trust.cluster,
      authorities: authorities.filter(lacks).map(({ authority }) => authority.x509.raw),
      certificates: [...this.#entries.values()].filter(lacks),
      revocations: [...this.#revocations.values()]
        .filter(lacks)
        .map(({ payload, signature, by }) => ({ payload, signature, issuer: by.x509.raw })),
      successions: this.#line.successions
        .filter((each) => lacks({ id: successionId(each) }))
        .map(({ signed }) => signed),
    });
  }

  /**
   * Accepts the export of a peer or a file. Each item is verified; bad ones are refused and reported, the others
   * accepted. Yields to the loop in between.
   *
   * @throws IdentityError `roster-malformed` when the bytes are no roster of this cluster at all; nothing changed then
   */
  async merge(bytes: Uint8Array): Promise<RosterChange> {
    const items = decodeRoster(bytes);
    if (items.cluster !== this.#trust.cluster) throw otherCluster(items.cluster);
    const change = newChange();
    let count = 0;
    for (const step of this.#steps(items, change)) {
      attempt(change, step);
      count += 1;
      if (count % PER_TURN === 0) await setImmediate();
    }
    this.#dropVoid(change);
    return change;
  }

  /** Roots before what depends on them; revocations before members: so no removed member appears for a moment. */
  *#steps(items: RosterItems, change: Change): Generator<() => void> {
    const { authorities, revocations, certificates, successions } = items;
    yield () => this.#follow(successions, change);
    for (const raw of authorities) {
      yield () => this.#rememberAuthority(this.authorityOf(raw), change);
    }
    for (const { payload, signature, issuer } of revocations) {
      yield () => {
        if (this.#revocations.has(revocationId(payload))) return;
        const by = this.authorityOf(issuer);
        this.#rememberAuthority(by, change);
        this.#addRevocation(verifySigned(payload, signature, by, this.#trust), change);
      };
    }
    for (const { leaf, issuer } of certificates) {
      yield () => {
        if (this.#held.has(idOf('certificate', leaf))) return;
        const by = this.authorityOf(issuer);
        this.#rememberAuthority(by, change);
        this.#addCertificate(verifyLeaf(parsed(leaf), by, this.#trust.cluster, 'any-time'), change);
      };
    }
  }

  /** Writes the roster and keeps the previous generation. Calls in quick succession write one after another. */
  save(): Promise<void> {
    const write = async () => {
      const older = Object.fromEntries(this.#serials);
      const items = Buffer.from(this.exportAll()).toString('base64');
      const roots = rootsPem(this.#trust);
      await writeStateFile(this.#path, JSON.stringify({ version: 1, items, serials: older }), true);
      if (roots === this.#rootsKept) return;
      // After the roster: if the process ends in between, the roster shows how one root follows from the other.
      await writeStateFile(join(dirname(this.#path), FILES.roots), roots);
      this.#rootsKept = roots;
    };
    const saved = this.#saving.then(write, write);
    this.#saving = saved.catch(() => undefined);
    return saved;
  }

  /**
   * Fills an empty roster from its file or, if that is missing or damaged, from the previous generation.
   *
   * @returns notes for an operator
   * @throws IdentityError `state-file-damaged` when neither can be read
   */
  async load(): Promise<{ readonly usedPrevious: boolean; readonly refused: RosterChange['refused'] }> {
    try {
      return { usedPrevious: false, refused: await this.#loadFrom(this.#path) };
    } catch (error) {
      if (!(error instanceof IdentityError) || error.code === 'state-permissions') throw error;
      const refused = await this.#loadFrom(`${this.#path}.previous`).catch(() => undefined);
      if (refused === undefined) throw error;
      return { usedPrevious: true, refused };
    }
  }

  async #loadFrom(path: string): Promise<RosterChange['refused']> {
    const file = decodeFile(path, await readStateFile(path));
    const change = await this.merge(Buffer.from(file.items, 'base64')).catch(() => {
      throw damaged(path);
    });
    for (const [peerId, serials] of file.serials) this.#noteSerials(peerId, serials);
    return change.refused;
  }

  /**
   * Replaces an authority's certificate under an ended root by its present one.
   *
   * @throws IdentityError `certificate-*`
   */
  authorityOf(raw: Uint8Array): AuthorityCertificate {
    const known = this.#authorities.get(idOf('authority', raw));
    if (known !== undefined) return known;
    const x509 = parsed(raw);
    const now = this.#isTrusted(x509) ? undefined : this.authorityUnder(newestRoot(this.#trust), x509);
    return now ?? verifyAuthority(x509, this.#trust, 'any-time');
  }

  #isTrusted(authority: X509Certificate): boolean {
    return this.#trust.roots.some((root) => issuedBy(authority, root.x509));
  }

  /** The certificate of the same authority, with the same key, under a root. */
  authorityUnder(root: RootCertificate, authority: X509Certificate): AuthorityCertificate | undefined {
    return [...this.#authorities.values()].find(
      ({ x509 }) =>
        x509.subject === authority.subject &&
        x509.publicKey.equals(authority.publicKey) &&
        issuedBy(x509, root.x509),
    );
  }

  #follow(signed: readonly SignedSuccession[], change: Change): void {
    const words: Succession[] = [];
    for (const each of signed)
      attempt(change, () => void words.push(verifySuccession(each, this.#trust.cluster)));
    const before = rootsPem(this.#trust);
    const { changed, refused } = this.#line.take(words);
    for (const { code, message } of refused) {
      change.refused.push({ code, detail: message });
      if (code === 'succession-rival' && this.#rivals.size < RIVALS) this.#rivals.add(message);
    }
    if (changed) change.changed = true;
    if (rootsPem(this.#trust) !== before) change.roots = true;
  }

  /** Switches chains of an ended root to the newest root. Members without an authority there are removed. */
  #hangAnew(change: Change): void {
    for (const [id, { x509 }] of this.#authorities) if (!this.#isTrusted(x509)) this.#authorities.delete(id);
    const root = newestRoot(this.#trust);
    for (const [peerId, { leaf, issuer }] of this.#entries) {
      const held = parsed(issuer);
      if (this.#isTrusted(held)) continue;
      const by = this.authorityUnder(root, held);
      if (by === undefined) {
        this.#release(peerId);
        change.revoked.push(peerId);
      } else this.#hold(verifyLeaf(parsed(leaf), by, this.#trust.cluster, 'any-time'));
    }
    for (const [id, revocation] of this.#revocations) {
      if (this.#isTrusted(revocation.by.x509)) continue;
      const by = this.authorityUnder(root, revocation.by.x509);
      if (by === undefined) this.#revocations.delete(id);
      else this.#revocations.set(id, { ...revocation, by });
    }
  }

  #rememberAuthority(authority: AuthorityCertificate, change: Change): void {
    const id = idOf('authority', authority.x509.raw);
    if (this.#authorities.has(id)) return;
    const beside = [...this.#authorities.values()].filter(
      ({ x509 }) => x509.issuer === authority.x509.issuer,
    );
    if (beside.length >= AUTHORITIES) throw full('authorities', AUTHORITIES);
    this.#authorities.set(id, authority);
    change.changed = true;
  }

  #addCertificate(certificate: NodeCertificate, change: Change): void {
    const { peerId } = certificate;
    if (this.#revoked.has(peerId)) {
      this.#noteSerials(peerId, [certificate.serialHex]);
      throw peerRevoked(certificate);
    }
    if (this.#revoked.has(certificate.issuer)) throw signedByRemoved(certificate.issuer);
    const before = this.#entries.get(peerId)?.certificate;
    if (before === undefined && this.#entries.size >= MEMBERS) throw full('members', MEMBERS);
    this.#noteSerials(peerId, [certificate.serialHex]);
    const stands = before !== undefined && !this.#revoked.has(before.issuer);
    if (stands && !isNewer(certificate, before, this.#wallMs())) return;
    const replaced = stands ? undefined : this.#entries.get(peerId);
    if (replaced !== undefined) this.#good.set(peerId, fingerprintOf(replaced.leaf).toUpperCase());
    this.#hold(certificate);
    change.changed = true;
    (before === undefined ? change.admitted : change.renewed).push(certificate);
  }

  #addRevocation(revocation: Revocation, change: Change): void {
    const { id, peerId } = revocation;
    if (this.#revocations.has(id)) return;
    if (this.#revoked.has(revocation.by.peerId)) throw signedByRemoved(revocation.by.peerId);
    if (this.#revocations.size >= REVOCATIONS) throw full('revocations', REVOCATIONS);
    this.#revocations.set(id, revocation);
    change.changed = true;
    if (this.#revoked.has(peerId)) return;
    this.#revoked.add(peerId);
    this.#release(peerId);
    change.revoked.push(peerId);
  }

  /** Last, after its replacement is there: so no remaining member is out for a moment, and no removed one is in. */
  #dropVoid(change: Change): void {
    if (change.roots) this.#hangAnew(change);
    for (const [id, { by, peerId }] of this.#revocations) {
      if (this.#revoked.has(by.peerId) && by.peerId !== peerId) this.#revocations.delete(id);
    }
    const stillOut = new Set([...this.#revocations.values()].map(({ peerId }) => peerId));
    for (const peerId of this.#revoked) if (!stillOut.has(peerId)) this.#revoked.delete(peerId);
    for (const [peerId, { certificate }] of this.#entries) {
      if (!this.#revoked.has(certificate.issuer)) continue;
      this.#release(peerId);
      change.revoked.push(peerId);
    }
  }

  #hold(certificate: NodeCertificate): void {
    this.#release(certificate.peerId);
    const [leaf, issuer] = certificatesIn(certificate.chainPem).map((x509) => x509.raw);
    if (leaf === undefined || issuer === undefined)
      throw new TypeError('a verified chain has two certificates');
    const id = idOf('certificate', leaf);
    this.#entries.set(certificate.peerId, { id, certificate, leaf, issuer });
    this.#held.add(id);
  }

  #release(peerId: PeerId): void {
    const entry = this.#entries.get(peerId);
    if (entry === undefined) return;
    this.#held.delete(entry.id);
    this.#entries.delete(peerId);
  }

  #noteSerials(peerId: PeerId, serials: readonly string[]): void {
    if (!this.#serials.has(peerId) && this.#serials.size >= MEMBERS + REVOCATIONS) return;
    const known = this.#serials.get(peerId) ?? [];
    const all = new Set([...known, ...serials.filter((serial) => /^[0-9A-F]{2,40}$/.test(serial))]);
    this.#serials.set(peerId, [...all].slice(-OLDER_SERIALS));
  }
}

interface Change extends RosterChange {
  changed: boolean;
  roots: boolean;
}

function rootsPem({ roots }: Trust): string {
  return roots.map(({ pem }) => pem).join('');
}

function newChange(): Change {
  return { admitted: [], renewed: [], revoked: [], refused: [], changed: false, roots: false };
}

/** One bad item must not block the good ones. Only our own errors pass from here. */
function attempt(change: Change, step: () => void): void {
  try {
    step();
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error;
    change.refused.push({ code: error.code, detail: error.message });
  }
}

function idOf(kind: string, raw: Uint8Array): string {
  return createHash('sha256')
    .update(kind)
    .update(raw)
    .digest('hex')
    .slice(0, 2 * ITEM_BYTES);
}

function authorityBeside(chainPem: string, trust: Trust): AuthorityCertificate {
  const [, intermediate] = certificatesIn(chainPem);
  if (intermediate !== undefined) return verifyAuthority(intermediate, trust, 'any-time');
  throw new IdentityError({
    code: 'certificate-malformed',
    message: 'The chain holds no authority.',
    next: 'Join this node again with a new token.',
  });
}

/**
 * The same on every node, so that rosters converge: the longer life, then the higher serial. But a certificate that is
 * not valid yet, because a clock was ahead, does not replace a valid one: everybody would refuse its owner until then.
 */
function isNewer(candidate: NodeCertificate, held: NodeCertificate, nowMs: number): boolean {
  const [begun, heldBegun] = [candidate.notBeforeMs <= nowMs, held.notBeforeMs <= nowMs];
  if (begun !== heldBegun) return begun;
  if (candidate.notAfterMs !== held.notAfterMs) return candidate.notAfterMs > held.notAfterMs;
  return candidate.serialHex > held.serialHex;
}

function byAdmission(a: NodeCertificate, b: NodeCertificate): number {
  return a.admittedAtMs - b.admittedAtMs || compare(a.peerId, b.peerId);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function decodeFile(path: string, text: string): { items: string; serials: [PeerId, string[]][] } {
  try {
    const file: unknown = JSON.parse(text);
    if (typeof file !== 'object' || file === null) throw damaged(path);
    const { version, items, serials } = file as Record<string, unknown>;
    if (version !== 1 || typeof items !== 'string' || typeof serials !== 'object') throw damaged(path);
    const isSerials = (value: unknown) =>
      Array.isArray(value) && value.every((serial) => typeof serial === 'string');
    return { items, serials: Object.entries(serials ?? {}).filter(([, value]) => isSerials(value)) };
  } catch {
    throw damaged(path);
  }
}

function peerRevoked(certificate: NodeCertificate): IdentityError {
  return new IdentityError({
    code: 'peer-revoked',
    message: `${certificate.name} (${certificate.peerId}) was removed from the cluster.`,
    next: 'Its machine can join again with a new key: "bornemisza join --reset -" with a new token.',
  });
}

function signedByRemoved(authority: PeerId): IdentityError {
  return new IdentityError({
    code: 'authority-removed',
    message: `It was signed by ${authority}, an authority that was removed from the cluster.`,
    next: 'Join the node again with a new token of an authority that "bornemisza authority list" names.',
  });
}

function full(what: string, limit: number): IdentityError {
  return new IdentityError({
    code: 'roster-full',
    message: `The roster has ${limit} ${what}, which is the limit.`,
    next: 'Remove members that are gone for good: "bornemisza remove NODE".',
  });
}

function otherCluster(cluster: string): IdentityError {
  return new IdentityError({
    code: 'roster-malformed',
    message: `The roster is of another cluster (${cluster}).`,
    next: 'See the journal for the member that sent it; nothing was changed.',
  });
}
