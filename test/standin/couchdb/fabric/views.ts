/* oxlint-disable no-underscore-dangle -- CouchDB's own field names */
import type { Shard } from '../cluster/shard_map.ts';
import { compareIds } from '../store/copy.ts';
import type { Body } from '../store/revision.ts';
import { ask, byRange, type Cluster, first, nearest } from './ask.ts';
import { shardsFor } from './databases.ts';
import { decodeSeq, encodeSeq, type SeqPart } from './seq.ts';
import type { ChangesAnswer, Row, Rows, Window } from './worker.ts';

/** The copy of each range that is first to be ready; its answer stands, right or wrong. */
async function readyCopies(cluster: Cluster, db: string): Promise<Shard[]> {
  const ranges = byRange(shardsFor(cluster, db));
  return await Promise.all(ranges.map(async (copies) => (await first(cluster, copies, 'ready')).shard));
}

export async function allDocs(
  cluster: Cluster,
  db: string,
  window: Window & { skip?: number },
): Promise<{ total: number; offset: number; rows: Row[] }> {
  const shards = await readyCopies(cluster, db);
  const skip = window.skip ?? 0;
  const limit = window.limit === undefined ? {} : { limit: window.limit + skip };
  const answers = await Promise.all(
    shards.map((shard) => ask<Rows>(cluster, shard, 'rows', { ...window, ...limit })),
  );
  const total = answers.reduce((sum, answer) => sum + answer.total, 0);
  let rows = answers.flatMap((answer) => answer.rows);
  if (window.keys === undefined) rows.sort((a, b) => (window.descending ? -1 : 1) * compareIds(a.id, b.id));
  else rows = window.keys.flatMap((key) => rows.filter((row) => row.id === key).slice(0, 1));
  rows = rows.slice(skip, window.limit === undefined ? undefined : skip + window.limit);
  return { total, offset: skip, rows };
}

export async function find(cluster: Cluster, db: string, selector: Body, limit: number): Promise<Body[]> {
  const ranges = byRange(shardsFor(cluster, db));
  const answers = await Promise.all(
    ranges.map(async (copies) => (await nearest<Body[]>(cluster, copies, 'find', { selector, limit })).value),
  );
  const docs = answers.flat();
  docs.sort((a, b) => compareIds(a._id as string, b._id as string));
  return docs.slice(0, limit);
}

export type FeedRow = { seq: string; id: string; changes: { rev: string }[]; deleted?: true; doc?: Body };
export type FeedOptions = {
  since: string;
  limit: number;
  docs?: boolean;
  allLeaves?: boolean;
  conflicts?: boolean;
};

/**
 * A database's changes over its ranges, from wherever `since` stands. A copy other than the one `since` was read
 * from is read from its beginning: rows may come again, none is left out.
 */
export class Feed {
  readonly #cluster: Cluster;
  readonly #db: string;
  readonly #options: FeedOptions;
  #parts: SeqPart[] = [];
  pending = 0;

  constructor(cluster: Cluster, db: string, options: FeedOptions) {
    this.#cluster = cluster;
    this.#db = db;
    this.#options = options;
  }

  get seq(): string {
    return encodeSeq(this.#parts);
  }

  async open(): Promise<void> {
    const since = decodeSeq(this.#options.since);
    const ranges = byRange(shardsFor(this.#cluster, this.#db));
    this.#parts = await Promise.all(
      ranges.map(async (copies) => {
        const range = (copies[0] as Shard).range;
        const before = since.find((part) => part.range === range);
        const preferred = copies.filter(
          (shard) => shard.node === before?.node && this.#cluster.distribution.isConnected(shard.node),
        );
        const { shard, value } = await nearest<{ update_seq: number; uuid: string }>(
          this.#cluster,
          preferred.length > 0 ? preferred : copies,
          'info',
        ).catch(() => nearest<{ update_seq: number; uuid: string }>(this.#cluster, copies, 'info'));
        const known = before?.uuid === value.uuid ? before.seq : 0;
        return {
          range,
          node: shard.node,
          uuid: value.uuid,
          seq: this.#options.since === 'now' ? value.update_seq : known,
        };
      }),
    );
  }

  /** The next rows; with `waitMs`, the first that come within it. */
  async next(limit: number, waitMs?: number): Promise<FeedRow[]> {
    let rows = await this.#collect(limit);
    if (rows.length === 0 && waitMs !== undefined && waitMs > 0) {
      await Promise.any(this.#parts.map((part) => this.#ask(part, 1, waitMs))).catch(() => undefined);
      rows = await this.#collect(limit);
    }
    return rows;
  }

  async #collect(limit: number): Promise<FeedRow[]> {
    const rows: FeedRow[] = [];
    this.pending = 0;
    for (const [i, part] of this.#parts.entries()) {
      const answer = await this.#ask(part, Math.max(0, limit - rows.length));
      if (answer === undefined) continue;
      for (const { seq, ...change } of answer.changes) {
        this.#parts[i] = { ...part, uuid: answer.uuid, seq };
        rows.push({ seq: this.seq, ...change });
      }
      this.#parts[i] = { ...part, uuid: answer.uuid, seq: answer.last };
      this.pending += answer.pending;
    }
    return rows;
  }

  async #ask(part: SeqPart, limit: number, waitMs?: number): Promise<ChangesAnswer | undefined> {
    const shards = shardsFor(this.#cluster, this.#db).filter((shard) => shard.range === part.range);
    const shard = shards.find(({ node }) => node === part.node);
    const { docs, allLeaves, conflicts } = this.#options;
    const args = { since: part.seq, limit, docs, allLeaves, conflicts, waitMs };
    if (shard !== undefined) {
      const answer = await ask<ChangesAnswer>(this.#cluster, shard, 'changes', args).catch(() => undefined);
      if (answer !== undefined) return answer;
    }
    const others = shards.filter((other) => other !== shard);
    const { shard: other, value } = await first<{ uuid: string }>(this.#cluster, others, 'info');
    Object.assign(part, { node: other.node, uuid: value.uuid, seq: 0 });
    return await ask<ChangesAnswer>(this.#cluster, other, 'changes', { ...args, since: 0 });
  }
}
