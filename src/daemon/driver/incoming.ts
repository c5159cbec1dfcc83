import { createHash } from 'node:crypto';
import type {
  Admitted,
  Message,
  NodeRecord,
  PeerId,
  SignedAccusation,
  SignedRecord,
} from '../membership/types.ts';
import { decodeMessage } from '../wire/message.ts';
import { verifyAccusation, verifyRecord, type Verify } from '../wire/record.ts';
import type { Refusal } from '../wire/result.ts';
import { TokenBucket } from './token-bucket.ts';

/**
 * The result of a received message.
 * - `message`: the part for the machine; undefined if nothing is left.
 * - `fault`: the sender is at fault (it should have refused this too), with the reason.
 * - `unknown`: it mentions members that are not in our roster: ask the sender for its roster.
 * - `later`: a later version sent it.
 * - `news`: a part of it was verified now for the first time.
 * - `overdone`: an author that sends more than any member needs; that part is left out, and the message is not
 *   forwarded.
 * - `workMs`: its cost, for the sender's share.
 */
export interface Vetted {
  readonly message: Message | undefined;
  readonly fault: string | undefined;
  readonly unknown: boolean;
  readonly later: boolean;
  readonly news: boolean;
  readonly overdone: PeerId | undefined;
  readonly workMs: number;
}

interface IncomingDependencies {
  readonly find: (peer: PeerId) => Admitted | undefined;
  /** The record of a member in the machine. */
  readonly held: (peer: PeerId) => NodeRecord | undefined;
  readonly verify: Verify;
  readonly nowMs: () => number;
}

const LATER = new Set<Refusal['code']>(['unknown-kind', 'version']);

/** The cost of reading a message, whatever its content, and of the machine's work. */
const MESSAGE_MS = 0.2;
/**
 * Decoding. CPU time with the unit's flags at ten messages a second, where V8 optimizes nothing and collects garbage
 * often: 11 ms for 43 kB of small records, 7 ms for 48 kB of accusations. In a tight loop it is a tenth of that.
 */
export const DECODED_BYTES_PER_MS = 4 * 1024;
/** One Ed25519 check takes 0.08 to 0.1 ms. */
const SIGNATURE_MS = 0.1;
/** A digest needs a comparison of whole tables: 2 ms at 500 members. */
const DIGEST_ENTRY_MS = 0.004;

/**
 * New records of one member: it changes its own once a second, and refutes each of the two accusations a second that
 * one member may send. More is not verified, and does not count against the neighbour that forwarded it.
 */
const RECORDS_BURST = 64;
const RECORDS_PER_SECOND = 4;
/** New accusations of one member: as many as the machine counts (membership/limits.ts). */
const ACCUSATIONS_BURST = 32;
const ACCUSATIONS_PER_SECOND = 2;

/** Digests of 20 bytes of what was verified: records and accusations of 500 members, and as many again. 200 kB. */
const MAX_VERIFIED = 2048;
const DIGEST_BYTES = 20;

interface Author {
  readonly records: TokenBucket;
  readonly accusations: TokenBucket;
}

/** The findings so far about one message. */
interface Findings {
  fault: string | undefined;
  unknown: boolean;
  news: boolean;
  overdone: PeerId | undefined;
  signatures: number;
}

/**
 * The filter between the network and the machine: bounded decoding, then for each record and accusation the author's
 * signature, the author's admission, and that the record agrees with its certificate.
 *
 * Signatures are the main cost. What was verified once is known by its digest; what is older than the machine's state
 * is not verified; and each author has a share, which only its own genuine messages use up. So neither a forger nor a
 * repeater of old messages uses up a member's share.
 */
export class Incoming {
  readonly #find: IncomingDependencies['find'];
  readonly #held: IncomingDependencies['held'];
  readonly #verify: Verify;
  readonly #nowMs: () => number;
  /** Digests, the least recently used first. */
  readonly #verified = new Set<string>();
  /** By member; an entry goes with it. */
  readonly #authors = new Map<PeerId, Author>();

  constructor({ find, held, verify, nowMs }: IncomingDependencies) {
    this.#find = find;
    this.#held = held;
    this.#verify = verify;
    this.#nowMs = nowMs;
  }

  vet(bytes: Uint8Array): Vetted {
    const workMs = MESSAGE_MS + bytes.byteLength / DECODED_BYTES_PER_MS;
    const nothing = { fault: undefined, unknown: false, later: false, news: false, overdone: undefined };
    const decoded = decodeMessage(bytes);
    if (!decoded.ok) {
      const later = LATER.has(decoded.code);
      return { ...nothing, message: undefined, fault: later ? undefined : decoded.reason, later, workMs };
    }
    const { message, refused } = decoded.value;
    if (message.kind === 'digest') {
      const more = message.entries.length * DIGEST_ENTRY_MS;
      return { ...nothing, message, workMs: workMs + more };
    }
    if (message.kind !== 'batch' && message.kind !== 'delta') return { ...nothing, message, workMs };
    const vetted = this.#vetSigned(message, workMs);
    // A record with an unknown value can be of a later version: it is left out, and nobody is at fault.
    const malformed = refused.find(({ code }) => code !== 'value');
    return malformed === undefined ? vetted : { ...vetted, fault: vetted.fault ?? malformed.reason };
  }

  /** For input that is no message, e.g. from the snapshot file. */
  holds(signed: SignedRecord): boolean {
    const { record } = signed;
    return (
      this.#find(record.peerId) !== undefined &&
      this.#differs(record) === undefined &&
      this.#isSigned(signed, verifyRecord)
    );
  }

  forget(peer: PeerId): void {
    this.#authors.delete(peer);
  }

  #vetSigned(message: Extract<Message, { kind: 'batch' | 'delta' }>, workMs: number): Vetted {
    const findings: Findings = {
      fault: undefined,
      unknown: false,
      news: false,
      overdone: undefined,
      signatures: 0,
    };
    const records = new Map<PeerId, SignedRecord>();
    for (const signed of message.records) {
      const { peerId } = signed.record;
      if (records.has(peerId)) findings.fault ??= 'two records of one member in one message';
      else if (this.#takeRecord(signed, findings)) records.set(peerId, signed);
    }
    const pairs = new Set<string>();
    const accusations = message.accusations.filter((signed) => {
      const { accuser, subject } = signed.accusation;
      const pair = `${accuser} ${subject}`;
      const taken = !pairs.has(pair) && this.#takeAccusation(signed, records.get(subject), findings);
      if (taken) pairs.add(pair);
      return taken;
    });
    const { signatures, ...found } = findings;
    const empty = message.kind === 'batch' && records.size + accusations.length === 0;
    return {
      ...found,
      message: empty ? undefined : { ...message, records: [...records.values()], accusations },
      later: false,
      workMs: workMs + signatures * SIGNATURE_MS,
    };
  }

  #takeRecord(signed: SignedRecord, findings: Findings): boolean {
    const { record } = signed;
    if (this.#find(record.peerId) === undefined) {
      findings.unknown = true;
      return false;
    }
    const differs = this.#differs(record);
    findings.fault ??= differs;
    if (differs !== undefined || isOlder(record, this.#held(record.peerId))) return false;
    return this.#takeSigned(signed, record.peerId, 'records', findings);
  }

  #takeAccusation(signed: SignedAccusation, beside: SignedRecord | undefined, findings: Findings): boolean {
    const { accuser, subject, incarnation } = signed.accusation;
    if (this.#find(accuser) === undefined || this.#find(subject) === undefined) {
      findings.unknown = true;
      return false;
    }
    // About an earlier or an unknown incarnation: the machine would ignore it.
    const ofNow = [this.#held(subject), beside?.record].some((known) => known?.incarnation === incarnation);
    return ofNow && this.#takeSigned(signed, accuser, 'accusations', findings);
  }

  #takeSigned(
    signed: SignedRecord | SignedAccusation,
    author: PeerId,
    kind: keyof Author,
    findings: Findings,
  ): boolean {
    const digest = digestOf(signed);
    if (this.#isKnown(digest)) return true;
    const share = this.#authorOf(author)[kind];
    if (!share.has(this.#nowMs())) {
      findings.overdone ??= author;
      return false;
    }
    findings.signatures += 1;
    const good =
      'record' in signed ? verifyRecord(signed, this.#verify) : verifyAccusation(signed, this.#verify);
    if (!good) {
      findings.fault ??=
        kind === 'records'
          ? `a record of ${this.#find(author)?.name ?? author} that it has not signed`
          : 'an accusation that its accuser has not signed';
      return false;
    }
    share.take(this.#nowMs());
    findings.news = true;
    this.#remember(digest);
    return true;
  }

  #differs({ peerId, name, role, address }: NodeRecord): string | undefined {
    const admitted = this.#find(peerId);
    const same = admitted?.name === name && admitted.role === role && admitted.address === address;
    return same ? undefined : `a record of ${admitted?.name ?? peerId} that differs from its certificate`;
  }

  #isSigned(signed: SignedRecord, check: typeof verifyRecord): boolean {
    const digest = digestOf(signed);
    if (this.#isKnown(digest)) return true;
    if (!check(signed, this.#verify)) return false;
    this.#remember(digest);
    return true;
  }

  #isKnown(digest: string): boolean {
    if (!this.#verified.delete(digest)) return false;
    this.#verified.add(digest);
    return true;
  }

  #remember(digest: string): void {
    this.#verified.add(digest);
    if (this.#verified.size <= MAX_VERIFIED) return;
    const [oldest] = this.#verified;
    if (oldest !== undefined) this.#verified.delete(oldest);
  }

  #authorOf(peer: PeerId): Author {
    let author = this.#authors.get(peer);
    if (author === undefined) {
      const nowMs = this.#nowMs();
      author = {
        records: new TokenBucket(RECORDS_BURST, RECORDS_PER_SECOND, nowMs),
        accusations: new TokenBucket(ACCUSATIONS_BURST, ACCUSATIONS_PER_SECOND, nowMs),
      };
      this.#authors.set(peer, author);
    }
    return author;
  }
}

/** Another start of the same incarnation is never older: two holders of one key must learn of each other. */
function isOlder(record: NodeRecord, held: NodeRecord | undefined): boolean {
  if (held === undefined) return false;
  if (record.incarnation !== held.incarnation) return record.incarnation < held.incarnation;
  return record.startId === held.startId && record.sequence < held.sequence;
}

/** Kind, signature and payload, as the same bytes have another meaning in another kind. */
function digestOf(signed: SignedRecord | SignedAccusation): string {
  return createHash('sha256')
    .update('record' in signed ? 'record' : 'accusation')
    .update(signed.signature)
    .update(signed.payload)
    .digest()
    .subarray(0, DIGEST_BYTES)
    .toString('latin1');
}
