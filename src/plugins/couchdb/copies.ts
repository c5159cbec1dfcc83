/** Reading and proving single copies (one range of one database on one node) through the proxy. */
import { CouchDbAnswer, type CouchDbClient } from './client.ts';
import type { Amount } from './progress.ts';
import { checkpointId, copyPath, holdersOf, idOf, rangesOf, revOf, type ShardMap } from './shards.ts';

/** Copies of one database that are asked at once. */
const COPIES_AT_ONCE = 4;

interface CopyInfo {
  readonly uuid: string;
  readonly update_seq: number;
  /** `active`: what the documents take, without what a compaction would free. */
  readonly sizes?: { readonly active?: number };
}

/** The two properties of a database that CouchDB does not copy to a new copy. */
export interface Properties {
  readonly security: unknown;
  readonly revsLimit: number;
}

export function pathOf(node: string, map: ShardMap, range: string): string {
  return `_node/${node}/${copyPath(map, range)}`;
}

export async function propertiesOf(
  client: CouchDbClient,
  node: string,
  map: ShardMap,
  range: string,
  signal: AbortSignal,
): Promise<Properties> {
  const path = pathOf(node, map, range);
  const [security, revsLimit] = await Promise.all([
    client.get<unknown>(`${path}/_security`, signal),
    client.get<number>(`${path}/_revs_limit`, signal),
  ]);
  return { security, revsLimit };
}

export function sameProperties(a: Properties, b: Properties): boolean {
  return a.revsLimit === b.revsLimit && stable(a.security) === stable(b.security);
}

/** JSON with sorted keys, so that equal objects have equal text. */
function stable(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/**
 * Written on the one copy, not through the database: `PUT /DB/_revs_limit` answers 500 while a holder is in
 * maintenance, `PUT /_users/_security` 403, and both would put an old value over one that was set meanwhile.
 */
export async function setProperties(
  client: CouchDbClient,
  node: string,
  map: ShardMap,
  range: string,
  wanted: Properties,
  signal: AbortSignal,
): Promise<void> {
  const path = pathOf(node, map, range);
  const present = await propertiesOf(client, node, map, range, signal);
  if (present.revsLimit !== wanted.revsLimit)
    await client.put(`${path}/_revs_limit`, wanted.revsLimit, signal);
  if (stable(present.security) !== stable(wanted.security))
    await client.put(`${path}/_security`, wanted.security, signal);
}

/** The common value of the copies, or undefined if they differ. */
export async function agreedProperties(
  client: CouchDbClient,
  nodes: readonly string[],
  map: ShardMap,
  signal: AbortSignal,
): Promise<Properties | 'none' | 'differ'> {
  const copies = rangesOf(map).flatMap((range) =>
    holdersOf(map, range)
      .filter((holder) => nodes.includes(holder))
      .map((node) => ({ node, range })),
  );
  const found: Properties[] = [];
  // A database can have 64 ranges: a few at once, so that one database does not use up the server.
  await bounded(copies, COPIES_AT_ONCE, async ({ node, range }) => {
    found.push(await propertiesOf(client, node, map, range, signal));
  });
  const [agreed, ...others] = found;
  if (agreed === undefined) return 'none';
  return others.every((other) => sameProperties(agreed, other)) ? agreed : 'differ';
}

/** `complete`: has all up to the first observation, and the source has changes since: it is being written to. */
export type Standing = 'behind' | 'complete' | 'equal';

/**
 * Proves copies complete. A copy is complete when the source holds no change after the checkpoint up to where the
 * source stood at the first look: under steady writes "nothing after the checkpoint" might never be seen, and a plain
 * `checkpoint ≥ update_seq` waits for ever, since `_security` raises update_seq without a change.
 */
export class CopyProver {
  readonly #client: CouchDbClient;
  /** The sequence of each source at the first observation, by database, map revision, range and pair. */
  readonly #goals = new Map<string, number>();
  /** Bytes of each observed copy, by database, range and target: those of its fullest source, and its own. */
  readonly #sizes = new Map<string, Amount>();

  constructor(client: CouchDbClient) {
    this.#client = client;
  }

  forget(): void {
    this.#goals.clear();
    this.#sizes.clear();
  }

  /** Of all copies that were observed since the start. */
  get bytes(): Amount | undefined {
    if (this.#sizes.size === 0) return undefined;
    const [done, all] = [...this.#sizes.values()].reduce(
      ([ours, theirs], each) => [ours + Math.min(each.done, each.all), theirs + each.all],
      [0, 0],
    );
    return { done, all };
  }

  #noteSizes(key: string, from: CopyInfo, to: CopyInfo | undefined, whole: boolean): void {
    const all = Math.max(from.sizes?.active ?? 0, this.#sizes.get(key)?.all ?? 0);
    this.#sizes.set(key, { done: whole ? all : (to?.sizes?.active ?? 0), all });
  }

  /** How the copy of `range` on `target` compares with the one on `source`. */
  async compare(
    map: ShardMap,
    range: string,
    source: string,
    target: string,
    signal: AbortSignal,
  ): Promise<Standing> {
    const sourcePath = pathOf(source, map, range);
    const [from, to] = await Promise.all([
      this.#client.find<CopyInfo>(sourcePath, signal),
      this.#client.find<CopyInfo>(pathOf(target, map, range), signal),
    ]);
    if (from === undefined)
      throw new CouchDbAnswer(404, `GET /${sourcePath}`, 'the source has no such copy', false);
    const place = `${idOf(map)} ${range} ${target}`;
    this.#noteSizes(place, from, to, false);
    if (to === undefined) return 'behind';
    const standing = await this.#standing(map, range, { path: sourcePath, info: from }, to, signal);
    // Compacted differently, a whole copy may be the smaller one.
    if (standing !== 'behind') this.#noteSizes(place, from, to, true);
    return standing;
  }

  async #standing(
    map: ShardMap,
    range: string,
    { path: sourcePath, info: from }: { readonly path: string; readonly info: CopyInfo },
    to: CopyInfo,
    signal: AbortSignal,
  ): Promise<Standing> {
    const key = [idOf(map), revOf(map), range, from.uuid, to.uuid].join(' ');
    const goal = this.#goals.get(key) ?? from.update_seq;
    // Bounded by what a large cluster has in flight; dropping them only moves goals forward.
    if (this.#goals.size > 200_000) this.#goals.clear();
    this.#goals.set(key, goal);
    const id = checkpointId(from.uuid, to.uuid);
    // Nothing was ever written to the source.
    if (from.update_seq === 0) return 'equal';
    const checkpoint = await this.#client.find<{ seq: number }>(`${sourcePath}/${id}`, signal);
    // The usual case, which saves one request; only a copy that is behind can be so by a `_security` without a change.
    if (checkpoint !== undefined && checkpoint.seq >= from.update_seq) return 'equal';
    const next = await this.#client.get<{ results: readonly { seq: number }[] }>(
      `${sourcePath}/_changes`,
      signal,
      {
        since: checkpoint?.seq ?? 0,
        limit: 1,
      },
    );
    const first = next.results[0];
    if (first === undefined) return 'equal';
    return first.seq > goal ? 'complete' : 'behind';
  }

  /** The worst standing of the copies on `target` against every other holder in `sources`. */
  async compareDatabase(
    map: ShardMap,
    target: string,
    sources: readonly string[],
    signal: AbortSignal,
  ): Promise<Standing> {
    const pairs = rangesOf(map).flatMap((range) => {
      const holders = holdersOf(map, range);
      if (!holders.includes(target)) return [];
      return holders
        .filter((holder) => holder !== target && sources.includes(holder))
        .map((source) => ({ range, source }));
    });
    const found = new Set<Standing>();
    const undecided = (): boolean => !found.has('behind');
    await bounded(
      pairs,
      COPIES_AT_ONCE,
      async ({ range, source }) => {
        found.add(await this.compare(map, range, source, target, signal));
      },
      undecided,
    );
    return found.has('behind') ? 'behind' : found.has('complete') ? 'complete' : 'equal';
  }
}

/** Runs `work` over `items`, `width` at a time; starts no new ones when `more` returns false. Errors end it. */
export async function bounded<T>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<void>,
  more: () => boolean = () => true,
): Promise<void> {
  const queue = [...items];
  const run = async (): Promise<void> => {
    while (more()) {
      const item = queue.shift();
      if (item === undefined) return;
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, queue.length) }, run));
}
