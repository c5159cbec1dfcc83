import type { Admitted, PeerId } from '../membership/types.ts';
import type { RequestHandler, RequestLimits } from '../transport/transport.ts';

/** One request: "this is my roster's digest", or "take this roster". */
export const ROSTER_PROTOCOL = '/bornemisza/roster/1';
/** A roster of 500 members with a certificate of 2.6 KB each, and as many revocations. */
const MAX_ROSTER_BYTES = 4 * 1024 * 1024;
/** Room for a digest of any usual hash. */
const MAX_DIGEST_BYTES = 64;
const ASK = 1;
const OFFER = 2;
const TIMEOUT_MS = 10_000;

export interface RosterChanges {
  readonly admitted: readonly Admitted[];
  readonly revoked: readonly PeerId[];
  /** Items that were verified and refused. */
  readonly refused?: number;
}

/** The certificates and revocations of the cluster, here opaque bytes; their owner verifies them. */
export interface RosterSync {
  /** Equal digests mean equal rosters. At most 64 bytes. */
  digest(): Uint8Array;
  export(): Uint8Array;
  /** Accepts what is new and valid in it. Rejects bytes that are no roster at all. */
  import(bytes: Uint8Array): Promise<RosterChanges>;
}

type Request = (
  to: PeerId,
  protocol: string,
  bytes: Uint8Array,
  limits: RequestLimits,
) => Promise<Uint8Array>;

/**
 * Makes two rosters equal: one exchange of digests if they are equal; otherwise the other side sends its roster, and
 * gets back what it lacks.
 *
 * @returns what was new here
 */
export async function syncRoster(roster: RosterSync, request: Request, peer: PeerId): Promise<RosterChanges> {
  const limits = { timeoutMs: TIMEOUT_MS, maxBytes: MAX_ROSTER_BYTES + 1 + MAX_DIGEST_BYTES };
  const answer = await request(peer, ROSTER_PROTOCOL, join(ASK, roster.digest()), limits);
  if (answer.byteLength === 0) return { admitted: [], revoked: [] };
  const digestBytes = Math.min(answer[0] ?? 0, MAX_DIGEST_BYTES);
  const theirDigest = answer.subarray(1, 1 + digestBytes);
  const changes = await roster.import(answer.subarray(1 + digestBytes));
  if (!Buffer.from(roster.digest()).equals(theirDigest))
    await request(peer, ROSTER_PROTOCOL, join(OFFER, roster.export()), limits);
  return changes;
}

/** The other side of `syncRoster`. */
export function answerRosterSync(
  roster: RosterSync,
  changed: (changes: RosterChanges, from: PeerId) => void,
): RequestHandler {
  return async (from, question) => {
    const [kind] = question;
    const body = question.subarray(1);
    if (kind === OFFER) {
      changed(await roster.import(body), from);
      return new Uint8Array(0);
    }
    const digest = roster.digest();
    if (kind !== ASK || Buffer.from(digest).equals(body)) return new Uint8Array(0);
    return Buffer.concat([Uint8Array.of(digest.byteLength), digest, roster.export()]);
  };
}

function join(kind: number, body: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(kind), body]);
}
