import { createHash, type KeyObject, sign, verify } from 'node:crypto';
import { promisify } from 'node:util';
import * as z from 'zod';
import { parsed, type RootCertificate, type Trust, trustOf } from '../keys/chain.ts';
import { IdentityError } from '../errors.ts';
import { inDomain } from '../keys/node-key.ts';
import type { Root } from './recovery.ts';

/**
 * The statement that one root follows another. Both roots sign it: the old one so that a node that has only the old
 * root can follow; the new one so that a node that has only the new root can keep the statement for such nodes. When
 * the old root is no longer needed, the new one signs the same statement once more, in another domain: from then on the
 * old root is not valid, and its later signatures are ignored.
 */
export interface Succession {
  readonly from: RootCertificate;
  readonly to: RootCertificate;
  /**
   * Of two statements of one root that has not ended the higher one is valid: so an operator who lost the new bundle
   * can create another.
   */
  readonly sequence: number;
  readonly madeAtMs: number;
  /** The old root is ended. */
  readonly ended: boolean;
  readonly signed: SignedSuccession;
}

/** The form on the wire and on disk. `ending` is empty while both roots are valid. */
export interface SignedSuccession {
  readonly payload: Buffer;
  readonly byOld: Buffer;
  readonly byNew: Buffer;
  readonly ending: Buffer;
}

/** Two root certificates of 1.6 kB in base64, and the rest. */
const PAYLOAD_BYTES = 6144;
const FOLLOWS = 'root-succession';
const ENDS = 'root-ending';
const signAsync = promisify(sign);

const der = z.base64().max(4096);
const Payload = z.object({
  version: z.literal(1),
  cluster: z.string().max(32),
  from: der,
  to: der,
  sequence: z.int().min(1).max(1_000_000),
  madeAtMs: z.int().min(0),
});

/** @returns the change, with both roots valid; {@link signEnding} ends the old one */
export async function signSuccession(
  from: Root,
  to: Root,
  facts: { readonly sequence: number; readonly madeAtMs: number },
): Promise<SignedSuccession> {
  const raw = (root: Root) => rootIn(root.cluster, root.certificatePem).x509.raw.toString('base64');
  const { sequence, madeAtMs } = facts;
  const words = { version: 1, cluster: from.cluster, from: raw(from), to: raw(to), sequence, madeAtMs };
  const payload = Buffer.from(JSON.stringify(Payload.parse(words)));
  const by = (key: KeyObject) => signAsync('sha256', inDomain(FOLLOWS, payload), key);
  return { payload, byOld: await by(from.key), byNew: await by(to.key), ending: Buffer.alloc(0) };
}

/** @param newRoot the opened root that followed */
export async function signEnding(signed: SignedSuccession, newRoot: Root): Promise<SignedSuccession> {
  return { ...signed, ending: await signAsync('sha256', inDomain(ENDS, signed.payload), newRoot.key) };
}

/**
 * Reads one and checks all its signatures; {@link RootLine} checks whether its roots are ours. @throws IdentityError
 * `succession-*`, `root-malformed`, `certificate-malformed`
 */
export function verifySuccession(signed: SignedSuccession, cluster: string): Succession {
  const { payload, byOld, byNew, ending } = signed;
  if (payload.length > PAYLOAD_BYTES) throw malformed();
  let words: z.infer<typeof Payload>;
  try {
    words = Payload.parse(JSON.parse(payload.toString('utf8')));
  } catch {
    throw malformed();
  }
  const [from, to] = [words.from, words.to].map((raw) =>
    rootIn(cluster, parsed(Buffer.from(raw, 'base64')).toString()),
  );
  if (words.cluster !== cluster || from === undefined || to === undefined) throw malformed();
  const holds = (domain: string, by: RootCertificate, signature: Buffer) =>
    verify('sha256', inDomain(domain, payload), by.x509.publicKey, signature);
  const ended = ending.length > 0;
  const good =
    from.fingerprint !== to.fingerprint &&
    holds(FOLLOWS, from, byOld) &&
    holds(FOLLOWS, to, byNew) &&
    (!ended || holds(ENDS, to, ending));
  if (!good) {
    throw new IdentityError({
      code: 'succession-forged',
      message: 'A succession of roots was not signed by the roots that it names.',
      next: WHO_SENT,
    });
  }
  return { from, to, sequence: words.sequence, madeAtMs: words.madeAtMs, ended, signed };
}

function rootIn(cluster: string, pem: string): RootCertificate {
  const [root, ...more] = trustOf(cluster, pem).roots;
  if (root === undefined || more.length > 0) throw malformed();
  return root;
}

/** One each half year for the life of a root; all together at most 250 kB. */
const SUCCESSIONS = 40;

/** The roots of a cluster in sequence, from the first one that this node had. It alone sets the roots in `trust`. */
export class RootLine {
  readonly #trust: { readonly cluster: string; roots: readonly RootCertificate[] };
  readonly #held: RootCertificate;
  readonly #byOld = new Map<string, Succession>();

  constructor(trust: Trust) {
    const [held] = trust.roots;
    if (held === undefined) throw new TypeError('a trust has a root');
    this.#trust = trust;
    this.#held = held;
  }

  /** All accepted ones, the oldest first: also those of ended roots, for members that were away. */
  get successions(): readonly Succession[] {
    return [...this.#byOld.values()].sort((a, b) => a.madeAtMs - b.madeAtMs);
  }

  /** The open change of roots: both are valid. */
  get underWay(): Succession | undefined {
    return this.successions.find(({ from, ended }) => !ended && this.#trusts(from));
  }

  /**
   * Accepts changes in any order; their signatures are verified.
   *
   * @returns whether something was new, and what was refused: `succession-foreign`, `succession-rival`
   */
  take(words: readonly Succession[]): {
    readonly changed: boolean;
    readonly refused: readonly IdentityError[];
  } {
    let changed = false;
    let waiting = [...words];
    const refused: IdentityError[] = [];
    // One change can make the roots of another one known.
    for (let before = -1; before !== waiting.length; ) {
      before = waiting.length;
      waiting = waiting.filter((word) => {
        if (!this.#knows(word.from) && !this.#knows(word.to)) return true;
        try {
          changed = this.#add(word) || changed;
        } catch (error) {
          if (!(error instanceof IdentityError)) throw error;
          refused.push(error);
        }
        return false;
      });
    }
    refused.push(...waiting.map(foreign));
    if (changed) this.#trust.roots = this.#believed();
    return { changed, refused };
  }

  #add(word: Succession): boolean {
    const held = this.#byOld.get(word.from.fingerprint);
    if (held === undefined && this.#byOld.size >= SUCCESSIONS) throw tooMany();
    if (held !== undefined && !isStronger(word, held)) return false;
    this.#byOld.set(word.from.fingerprint, word);
    return true;
  }

  #knows(root: RootCertificate): boolean {
    const known = [this.#held, ...this.successions.flatMap(({ from, to }) => [from, to])];
    return known.some(({ fingerprint }) => fingerprint === root.fingerprint);
  }

  #trusts(root: RootCertificate): boolean {
    return this.#trust.roots.some(({ fingerprint }) => fingerprint === root.fingerprint);
  }

  /**
   * Forward from the first root, never backwards: a root that vouches for its predecessor makes that one known, not
   * trusted.
   */
  #believed(): readonly RootCertificate[] {
    const roots: RootCertificate[] = [];
    const seen = new Set<string>();
    for (let at: RootCertificate | undefined = this.#held; at !== undefined && !seen.has(at.fingerprint); ) {
      seen.add(at.fingerprint);
      const word: Succession | undefined = this.#byOld.get(at.fingerprint);
      if (word?.ended !== true) roots.push(at);
      at = word?.to;
    }
    return roots;
  }
}

/**
 * The same on every node, so that all reach the same result. @throws IdentityError `succession-rival` if two exclude
 * each other
 */
function isStronger(word: Succession, held: Succession): boolean {
  const same = word.to.fingerprint === held.to.fingerprint && word.sequence === held.sequence;
  if (same || (word.ended && !held.ended)) return word.ended && !held.ended;
  // Members that were away may still send one that was replaced before it ended.
  if (!word.ended && word.sequence < held.sequence) return false;
  if (held.ended || word.sequence === held.sequence) throw rival(word, held);
  return true;
}

/** 16 hex characters over everything that is signed; an ending changes them. */
export function successionId({ signed }: Succession): string {
  const { payload, ending } = signed;
  const hash = createHash('sha256')
    .update('succession')
    .update(payload)
    .update(ending.length > 0 ? 'ended' : '');
  return hash.digest('hex').slice(0, 16);
}

/** The short name of a root, for people. */
export function rootWord({ fingerprint }: RootCertificate): string {
  return fingerprint.slice(0, 8);
}

const WHO_SENT = 'See the journal for the member that sent it; nothing was changed.';

function malformed(): IdentityError {
  return new IdentityError({
    code: 'succession-malformed',
    message: 'This is not a succession of roots of this cluster.',
    next: WHO_SENT,
  });
}

function foreign({ from, to }: Succession): IdentityError {
  return new IdentityError({
    code: 'succession-foreign',
    message: `The root ${rootWord(to)} follows ${rootWord(from)}, but this node knows neither.`,
    next: WHO_SENT,
  });
}

function rival(word: Succession, held: Succession): IdentityError {
  return new IdentityError({
    code: 'succession-rival',
    message:
      `The root ${rootWord(held.from)} names two that follow it: ${rootWord(held.to)}, which this node ` +
      `holds, and ${rootWord(word.to)}, which it refuses.`,
    next: 'If you did not make both, an attacker has the old root key: see “Another root” in docs/operations.md.',
  });
}

function tooMany(): IdentityError {
  return new IdentityError({
    code: 'roster-full',
    message: `The roster holds ${SUCCESSIONS} successions of roots already, which is the limit.`,
    next: 'Create the cluster again: "bornemisza init", then join each node with a new token.',
  });
}
