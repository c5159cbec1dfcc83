import type { Admitted, Message, PeerId, SignedAccusation, SignedRecord } from '../membership/types.ts';
import { decodeMessage } from '../wire/message.ts';
import { verifyAccusation, verifyRecord, type Verify } from '../wire/record.ts';
import type { Refusal } from '../wire/result.ts';

/**
 * What came of something received.
 * - `message`: what the machine may hear; undefined when nothing is left.
 * - `fault`: the sender itself is to blame (it should have refused this, too), with the reason.
 * - `unknown`: it speaks of members that are not in our roster: ask the sender for its roster.
 * - `later`: a later version spoke.
 */
export interface Vetted {
  readonly message: Message | undefined;
  readonly fault: string | undefined;
  readonly unknown: boolean;
  readonly later: boolean;
}

const LATER = new Set<Refusal['code']>(['unknown-kind', 'version']);

/**
 * Stands between the network and the machine: bounded decoding, then for each record and accusation the author's
 * signature, that the author is admitted, and that the record says of itself what its certificate says.
 */
export class Incoming {
  readonly #find: (peer: PeerId) => Admitted | undefined;
  readonly #verify: Verify;
  /** The newest verified record of each member: syncs bring the same bytes again and again. Bounded by the roster. */
  readonly #known = new Map<PeerId, SignedRecord>();

  constructor(find: (peer: PeerId) => Admitted | undefined, verify: Verify) {
    this.#find = find;
    this.#verify = verify;
  }

  vet(bytes: Uint8Array): Vetted {
    const decoded = decodeMessage(bytes);
    if (!decoded.ok) {
      const later = LATER.has(decoded.code);
      return { message: undefined, fault: later ? undefined : decoded.reason, unknown: false, later };
    }
    const { message, refused } = decoded.value;
    const vetted = this.#vetMessage(message);
    // A record with a value that we do not know may be a later version's: left out, nobody's fault.
    const malformed = refused.find(({ code }) => code !== 'value');
    return malformed === undefined ? vetted : { ...vetted, fault: vetted.fault ?? malformed.reason };
  }

  /** For what does not come as a message, e.g. from the snapshot file. */
  holds(signed: SignedRecord): boolean {
    return this.#recordFault(signed) === undefined && this.#find(signed.record.peerId) !== undefined;
  }

  forget(peer: PeerId): void {
    this.#known.delete(peer);
  }

  #vetMessage(message: Message): Vetted {
    if (message.kind !== 'batch' && message.kind !== 'delta')
      return { message, fault: undefined, unknown: false, later: false };
    let fault: string | undefined;
    let unknown = false;
    const keep = (known: boolean, problem: () => string | undefined): boolean => {
      if (!known) unknown = true;
      const found = known ? problem() : undefined;
      fault ??= found;
      return known && found === undefined;
    };
    const records = message.records.filter((signed) =>
      keep(this.#find(signed.record.peerId) !== undefined, () => this.#recordFault(signed)),
    );
    const accusations = message.accusations.filter((signed) =>
      keep(this.#knows(signed), () => this.#accusationFault(signed)),
    );
    const empty = message.kind === 'batch' && records.length + accusations.length === 0;
    return {
      message: empty ? undefined : { ...message, records, accusations },
      fault,
      unknown,
      later: false,
    };
  }

  #knows({ accusation }: SignedAccusation): boolean {
    return this.#find(accusation.accuser) !== undefined && this.#find(accusation.subject) !== undefined;
  }

  #recordFault(signed: SignedRecord): string | undefined {
    const { record } = signed;
    const admitted = this.#find(record.peerId);
    if (admitted === undefined) return undefined;
    const { name, role, address } = admitted;
    if (record.name !== name || record.role !== role || record.address !== address)
      return `a record of ${name} that differs from its certificate`;
    if (sameBytes(this.#known.get(record.peerId), signed)) return undefined;
    if (!verifyRecord(signed, this.#verify)) return `a record of ${name} that ${name} has not signed`;
    this.#known.set(record.peerId, signed);
    return undefined;
  }

  #accusationFault(signed: SignedAccusation): string | undefined {
    return verifyAccusation(signed, this.#verify)
      ? undefined
      : 'an accusation that its accuser has not signed';
  }
}

function sameBytes(a: SignedRecord | undefined, b: SignedRecord): boolean {
  return a !== undefined && equal(a.signature, b.signature) && equal(a.payload, b.payload);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && a.every((byte, index) => byte === b[index]);
}
