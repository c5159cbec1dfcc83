import * as z from 'zod';
import { type AuditTrail, isAbout } from '../audit/trail.ts';
import { hasFailed, parseEntry } from '../audit/stored.ts';
import type { AuditEntry } from '../control/api.ts';
import type { PeerId } from '../membership/types.ts';
import type { Transport } from '../transport/transport.ts';

/** One request for entries of an audit trail. */
const TRAIL_PROTOCOL = '/bornemisza/trail/1';
/** Some 500 entries; the newest are sent. */
const MAX_ANSWER_BYTES = 256 * 1024;
const LIMITS = { timeoutMs: 5000, maxBytes: MAX_ANSWER_BYTES };
const MAX_LIMIT = 2000;

export const trailQuestion = z.object({
  /** HOST/ROLE or HOST. */
  node: z.string().max(200).optional(),
  /** Only entries after this time, ms since the epoch by that node's clock. */
  since_ms: z.coerce.number().int().min(0).optional(),
  /** Only entries that failed, were rolled back or are held. */
  failed: z.enum(['0', '1']).default('0'),
  limit: z.coerce.number().int().min(1).max(MAX_LIMIT).default(200),
});
export type TrailQuestion = z.output<typeof trailQuestion>;

/** The latest requested entries, oldest first. */
export function trailHere(
  audit: Pick<AuditTrail, 'query'>,
  { node, since_ms: sinceMs, failed, limit }: TrailQuestion,
): readonly AuditEntry[] {
  return audit
    .query()
    .filter(
      (entry) =>
        (node === undefined || isAbout(entry, node)) &&
        (sinceMs === undefined || Date.parse(entry.at) >= sinceMs) &&
        (failed === '0' || hasFailed(entry)),
    )
    .slice(-limit);
}

/** Lines of JSON as in the trail's file: the latest that fit. A malformed request gets no answer. */
export function serveTrail(transport: Pick<Transport, 'handle'>, audit: Pick<AuditTrail, 'query'>): void {
  transport.handle(TRAIL_PROTOCOL, (_from, bytes) => {
    const question = trailQuestion.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    const lines: string[] = [];
    let left = MAX_ANSWER_BYTES;
    for (const entry of trailHere(audit, question).toReversed()) {
      const line = `${JSON.stringify(entry)}\n`;
      left -= Buffer.byteLength(line);
      if (left < 0) break;
      lines.push(line);
    }
    return Buffer.from(lines.toReversed().join(''));
  });
}

/** @throws TransportError, also if the other's version does not know the request */
export async function trailOf(
  transport: Pick<Transport, 'request'>,
  peer: PeerId,
  question: TrailQuestion,
): Promise<readonly AuditEntry[]> {
  const asked = Buffer.from(JSON.stringify(question));
  const answer = await transport.request(peer, TRAIL_PROTOCOL, asked, LIMITS);
  const lines = Buffer.from(answer).toString('utf8').split('\n');
  return lines.flatMap((line) => (line === '' ? [] : (parseEntry(line) ?? []))).slice(-question.limit);
}
