import { rangeOf, type Shard, shardName } from '../cluster/shard_map.ts';
import type { Edit, EditResult, Found, Lookup, StoredDoc } from '../store/copy.ts';
import { ask, type Cluster, noShards } from './ask.ts';

export type Written =
  | { id: string; rev: string; status: 'ok' | 'accepted' }
  | { id: string; error: 'conflict' };

export function copiesFor(cluster: Cluster, db: string, id: string): Shard[] {
  const map = cluster.catalogue.map(db);
  const { range, nodes } = rangeOf(map, id);
  return nodes.map((node) => ({ db, range, node, name: shardName(map, range) }));
}

/**
 * Reads a document of all its copies, answers when a quorum agrees or all have answered, and repairs those that
 * lag behind (fabric_doc_open).
 * @throws HttpError 500 when no copy can be asked
 */
export async function openDoc(
  cluster: Cluster,
  db: string,
  id: string,
  options: { rev?: string; r?: number },
): Promise<Lookup> {
  const shards = copiesFor(cluster, db, id);
  const quorum = Math.min(options.r ?? Math.floor(shards.length / 2) + 1, shards.length);
  const replies: { shard: Shard; lookup: Lookup }[] = [];
  const args = options.rev === undefined ? { id } : { id, rev: options.rev };
  const agreed = await settle(shards, async (shard) => {
    const lookup = await ask<Lookup>(cluster, shard, 'get', args);
    replies.push({ shard, lookup });
    const same = replies.filter((reply) => sameAnswer(reply.lookup, lookup));
    return same.length >= quorum ? lookup : undefined;
  });
  if (agreed !== undefined) return agreed;
  const best = replies
    .map(({ lookup }) => lookup)
    .toSorted(compareLookups)
    .at(-1);
  if (best === undefined) throw noShards();
  const differs = replies.some(({ lookup }) => !sameAnswer(lookup, best));
  if (differs && options.rev === undefined) void repair(cluster, shards, id);
  return best;
}

/** Resolves with the first defined result, or undefined when all have answered or failed. */
function settle<T>(shards: Shard[], run: (shard: Shard) => Promise<T | undefined>): Promise<T | undefined> {
  return new Promise((resolve) => {
    let left = shards.length;
    if (left === 0) resolve(undefined);
    for (const shard of shards) {
      void run(shard)
        .catch(() => undefined)
        .then((result) => {
          left -= 1;
          if (result !== undefined || left === 0) resolve(result);
        });
    }
  });
}

function sameAnswer(a: Lookup, b: Lookup): boolean {
  return answerKey(a) === answerKey(b);
}

function answerKey(lookup: Lookup): string {
  return 'found' in lookup
    ? `${lookup.found.rev} ${lookup.found.conflicts.join()}`
    : `${lookup.missing} ${lookup.rev}`;
}

/** Missing < deleted < living; among living ones the longer history, then the greater hash. */
function compareLookups(a: Lookup, b: Lookup): number {
  const rank = (lookup: Lookup) => ('found' in lookup ? 2 : Number(lookup.missing === 'deleted'));
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (!('found' in a) || !('found' in b)) return 0;
  return compareRevs(a.found, b.found) || a.found.conflicts.length - b.found.conflicts.length;
}

function compareRevs(a: Found, b: Found): number {
  if (a.revs.start !== b.revs.start) return a.revs.start - b.revs.start;
  return a.rev < b.rev ? -1 : Number(a.rev > b.rev);
}

async function repair(cluster: Cluster, shards: Shard[], id: string): Promise<void> {
  const leaves = await Promise.all(
    shards.map((shard) => ask<StoredDoc[]>(cluster, shard, 'leaves', { id }).catch((): StoredDoc[] => [])),
  );
  const docs = leaves.flat();
  await Promise.all(shards.map((shard) => ask(cluster, shard, 'put', { docs }).catch(() => undefined)));
}

export async function openLeaves(cluster: Cluster, db: string, id: string): Promise<StoredDoc[]> {
  const shards = copiesFor(cluster, db, id);
  const answers = await Promise.all(
    shards.map((shard) => ask<StoredDoc[]>(cluster, shard, 'leaves', { id }).catch(() => undefined)),
  );
  if (answers.every((answer) => answer === undefined)) throw noShards();
  const known = new Map<string, StoredDoc>();
  for (const doc of answers.flatMap((answer) => answer ?? []))
    known.set(`${doc.revs.start}-${doc.revs.ids[0]}`, doc);
  return [...known.values()];
}

type Tally = { edit: Edit; shards: Shard[]; w: number; replies: EditResult[]; left: number };

/**
 * Writes each document to all copies of its range. Enough equal answers: ok; some: accepted (fabric_doc_update).
 * Answers before slow copies have, which go on by themselves.
 * @throws HttpError 500 when no copy of some document can be asked
 */
export async function editDocs(cluster: Cluster, db: string, edits: Edit[], w?: number): Promise<Written[]> {
  const tallies: Tally[] = edits.map((edit) => {
    const shards = copiesFor(cluster, db, edit.id);
    const quorum = Math.min(w ?? Math.floor(shards.length / 2) + 1, shards.length);
    return { edit, shards, w: quorum, replies: [], left: shards.length };
  });
  await new Promise<void>((resolve) => {
    const finish = () => {
      if (tallies.every(isSettled)) resolve();
    };
    finish();
    for (const [shard, its] of workOf(tallies)) {
      void ask<EditResult[]>(cluster, shard, 'edit', { edits: its.map((tally) => tally.edit) })
        .then((results) => {
          for (const [i, tally] of its.entries()) tally.replies.push(results[i] as EditResult);
        })
        .catch(() => undefined)
        .then(() => {
          for (const tally of its) tally.left -= 1;
          finish();
        });
    }
  });
  return tallies.map(outcome);
}

function workOf(tallies: Tally[]): [Shard, Tally[]][] {
  const work = new Map<string, [Shard, Tally[]]>();
  for (const tally of tallies) {
    for (const shard of tally.shards) {
      const key = `${shard.node} ${shard.name}`;
      const entry = work.get(key) ?? [shard, []];
      entry[1].push(tally);
      work.set(key, entry);
    }
  }
  return [...work.values()];
}

function isSettled(tally: Tally): boolean {
  return tally.left === 0 || mostCommon(tally).count >= tally.w;
}

function mostCommon(tally: Tally): { result: EditResult | undefined; count: number } {
  const counts = new Map<string, { result: EditResult; count: number }>();
  for (const result of tally.replies) {
    const key = 'rev' in result ? result.rev : '';
    const entry = counts.get(key) ?? { result, count: 0 };
    entry.count += 1;
    counts.set(key, entry);
  }
  return [...counts.values()].toSorted((a, b) => b.count - a.count)[0] ?? { result: undefined, count: 0 };
}

function outcome(tally: Tally): Written {
  const { result, count } = mostCommon(tally);
  if (result === undefined) throw noShards();
  const { id } = tally.edit;
  if (count >= tally.w)
    return 'rev' in result ? { id, rev: result.rev, status: 'ok' } : { id, error: 'conflict' };
  const accepted = tally.replies.find((reply) => 'rev' in reply);
  return accepted === undefined ? { id, error: 'conflict' } : { id, rev: accepted.rev, status: 'accepted' };
}

/** Stores revisions as given (new_edits = false). @returns whether every document reached its quorum. */
export async function putDocs(cluster: Cluster, db: string, docs: StoredDoc[]): Promise<boolean> {
  const results = await Promise.all(
    docs.map(async (doc) => {
      const shards = copiesFor(cluster, db, doc.id);
      const stored = await Promise.all(
        shards.map((shard) =>
          ask(cluster, shard, 'put', { docs: [doc] }).then(
            () => true,
            () => false,
          ),
        ),
      );
      const count = stored.filter(Boolean).length;
      if (count === 0) throw noShards();
      return count > shards.length / 2;
    }),
  );
  return results.every(Boolean);
}
