import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import * as pb from './gen/membership_pb.js';
import { bytesFromHex, hexFromBytes } from './hex.ts';
import {
  INSTANCE_BYTES,
  MAX_CHAIN_BYTES,
  MAX_CLUSTER_LENGTH,
  MAX_HELLO_BYTES,
  PROTOCOL_MAX,
  PROTOCOL_MIN,
} from './limits.ts';
import { count } from './record.ts';
import { attempt, type Decoded, refused } from './result.ts';

/** The first message of the dialling side. */
export interface Hello {
  readonly protocolMin: number;
  readonly protocolMax: number;
  readonly cluster: string;
  /** Hex of 16 random bytes, new at each start of the transport. */
  readonly instance: string;
  /** How many times this instance has dialled this peer, including this time. */
  readonly dial: number;
  /** The highest `dial` ever received from the other side's instance `seenInstance`; '' and 0 if there was none. */
  readonly seenInstance: string;
  readonly seen: number;
  readonly chain: Uint8Array;
}

export interface Answer {
  readonly verdict: 'admitted' | 'refused' | 'duplicate';
  /** Protocol version of the link; 0 unless admitted. */
  readonly protocol: number;
  readonly instance: string;
  readonly reason: string;
  /** The signed revocation of the refused peer; empty if there is none. Not verified here. */
  readonly revocation?: Uint8Array;
}

const VERDICTS = {
  admitted: pb.Verdict.ADMITTED,
  refused: pb.Verdict.REFUSED,
  duplicate: pb.Verdict.DUPLICATE,
} as const satisfies Record<Answer['verdict'], pb.Verdict>;

/** The limit of an answer's reason, which is for a log line. */
const MAX_REASON_LENGTH = 120;

export function encodeHello(hello: Hello): Uint8Array {
  return toBinary(
    pb.HelloSchema,
    create(pb.HelloSchema, {
      protocolMin: hello.protocolMin,
      protocolMax: hello.protocolMax,
      cluster: hello.cluster,
      instance: bytesFromHex(hello.instance),
      dial: BigInt(hello.dial),
      seenInstance: bytesFromHex(hello.seenInstance),
      seen: BigInt(hello.seen),
      chain: hello.chain,
    }),
  );
}

export function decodeHello(bytes: Uint8Array): Decoded<Hello> {
  if (bytes.byteLength > MAX_HELLO_BYTES) return refused('size', `a hello of ${bytes.byteLength} bytes`);
  return attempt(() => {
    const wire = fromBinary(pb.HelloSchema, bytes, { readUnknownFields: false });
    if (wire.chain.byteLength > MAX_CHAIN_BYTES)
      return refused('size', `a chain of ${wire.chain.byteLength} bytes`);
    if (wire.cluster.length > MAX_CLUSTER_LENGTH) return refused('limit', 'a cluster name that is too long');
    if (wire.instance.byteLength !== INSTANCE_BYTES) return refused('value', 'a hello without an instance');
    if (![0, INSTANCE_BYTES].includes(wire.seenInstance.byteLength))
      return refused('value', 'seenInstance is no instance');
    const { protocolMin, protocolMax, cluster } = wire;
    if (protocolMin < 1 || protocolMin > protocolMax)
      return refused('value', 'an empty range of protocol versions');
    const value: Hello = {
      protocolMin,
      protocolMax,
      cluster,
      instance: hexFromBytes(wire.instance, INSTANCE_BYTES),
      dial: count(wire.dial, 'dial'),
      seenInstance: hexFromBytes(wire.seenInstance, INSTANCE_BYTES),
      seen: count(wire.seen, 'seen'),
      chain: new Uint8Array(wire.chain),
    };
    return { ok: true, value };
  });
}

export function encodeAnswer(answer: Answer): Uint8Array {
  return toBinary(
    pb.AnswerSchema,
    create(pb.AnswerSchema, {
      verdict: VERDICTS[answer.verdict],
      protocol: answer.protocol,
      instance: bytesFromHex(answer.instance),
      reason: answer.reason.slice(0, MAX_REASON_LENGTH),
      // A revocation that does not fit is left out: the refusal itself must arrive.
      revocation: fitting(answer.revocation),
    }),
  );
}

function fitting(revocation: Uint8Array | undefined): Uint8Array {
  return revocation !== undefined && revocation.byteLength <= MAX_CHAIN_BYTES
    ? revocation
    : new Uint8Array(0);
}

export function decodeAnswer(bytes: Uint8Array): Decoded<Answer> {
  if (bytes.byteLength > MAX_HELLO_BYTES) return refused('size', `an answer of ${bytes.byteLength} bytes`);
  return attempt(() => {
    const wire = fromBinary(pb.AnswerSchema, bytes, { readUnknownFields: false });
    const verdict = (Object.keys(VERDICTS) as Answer['verdict'][]).find(
      (word) => VERDICTS[word] === wire.verdict,
    );
    if (verdict === undefined) return refused('value', `verdict ${wire.verdict} is not known`);
    if (wire.instance.byteLength !== INSTANCE_BYTES) return refused('value', 'an answer without an instance');
    // The reason can get into a log line: printable ASCII only.
    const reason = wire.reason.slice(0, MAX_REASON_LENGTH).replaceAll(/[^ -~]/g, '?');
    return {
      ok: true,
      value: {
        verdict,
        protocol: wire.protocol,
        instance: hexFromBytes(wire.instance, INSTANCE_BYTES),
        reason,
        ...(wire.revocation.byteLength > 0 && { revocation: new Uint8Array(wire.revocation) }),
      },
    };
  });
}

/** The highest version that both sides speak, or undefined. */
export function commonProtocol(hello: Pick<Hello, 'protocolMin' | 'protocolMax'>): number | undefined {
  const highest = Math.min(hello.protocolMax, PROTOCOL_MAX);
  return highest >= Math.max(hello.protocolMin, PROTOCOL_MIN) ? highest : undefined;
}
