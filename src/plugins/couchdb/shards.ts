/** Shard maps as in `_dbs`, and the arithmetic of copies. Pure. */
import { createHash } from 'node:crypto';

/** A document of `_dbs`. `by_node` and `by_range` have the same content; CouchDB refuses a map in which they differ. */
export interface ShardMap {
  readonly _id: string;
  readonly _rev: string;
  readonly _conflicts?: readonly string[];
  /** Character codes, e.g. those of `.1795368815`: the moment of creation, part of each copy's file name. */
  readonly shard_suffix: readonly number[];
  readonly changelog: readonly (readonly string[])[];
  readonly by_node: Readonly<Record<string, readonly string[]>>;
  readonly by_range: Readonly<Record<string, readonly string[]>>;
  readonly props?: unknown;
}

export function isShardMap(doc: unknown): doc is ShardMap {
  return typeof doc === 'object' && doc !== null && 'by_range' in doc && 'shard_suffix' in doc;
}

export function idOf({ _id: id }: { readonly _id: string }): string {
  return id;
}

export function revOf({ _rev: rev }: { readonly _rev: string }): string {
  return rev;
}

/** Revisions that lost against this one, from a document read with `conflicts=true`. */
export function losersOf({
  _conflicts: losers,
}: {
  readonly _conflicts?: readonly string[];
}): readonly string[] {
  return losers ?? [];
}

export function rangesOf(map: ShardMap): string[] {
  return Object.keys(map.by_range).sort();
}

export function holdersOf(map: ShardMap, range: string): readonly string[] {
  return map.by_range[range] ?? [];
}

export function rangesOn(map: ShardMap, node: string): readonly string[] {
  return map.by_node[node] ?? [];
}

export function nodesOf(map: ShardMap): string[] {
  return Object.keys(map.by_node).sort();
}

export function suffixOf(map: ShardMap): string {
  return String.fromCharCode(...map.shard_suffix);
}

/** The database name of one copy, `shards/RANGE/DB.SUFFIX`, as one path segment. */
export function copyPath(map: ShardMap, range: string): string {
  return encodeURIComponent(`shards/${range}/${idOf(map)}${suffixOf(map)}`);
}

/** The map with more copies on `node`. Ranges that it already has are unchanged. */
export function withHolder(map: ShardMap, node: string, ranges: readonly string[]): ShardMap {
  const added = ranges.filter((range) => !holdersOf(map, range).includes(node));
  const byRange = { ...map.by_range };
  for (const range of added) byRange[range] = [...holdersOf(map, range), node];
  return {
    ...map,
    by_range: byRange,
    by_node: { ...map.by_node, [node]: [...new Set([...rangesOn(map, node), ...added])].sort() },
    changelog: [...map.changelog, ...added.map((range) => ['add', range, node])],
  };
}

/** The map without `node`. Throws when a range would be left without any copy. */
export function withoutHolder(map: ShardMap, node: string): ShardMap {
  const ranges = rangesOn(map, node);
  const byRange = { ...map.by_range };
  for (const range of ranges) {
    const left = holdersOf(map, range).filter((holder) => holder !== node);
    if (left.length === 0) throw new RangeError(`${idOf(map)} ${range}: the last copy is on ${node}`);
    byRange[range] = left;
  }
  const byNode = { ...map.by_node };
  delete byNode[node];
  return {
    ...map,
    by_range: byRange,
    by_node: byNode,
    changelog: [...map.changelog, ...ranges.map((range) => ['remove', range, node])],
  };
}

/**
 * All holders of all the given maps of one database (one suffix): the repair of a map that was edited on both sides of
 * a cut.
 */
export function unionOf(winner: ShardMap, losers: readonly ShardMap[]): ShardMap {
  return losers.reduce(
    (map, loser) => nodesOf(loser).reduce((sum, node) => withHolder(sum, node, rangesOn(loser, node)), map),
    winner,
  );
}

/** The ranges whose only copy is on `node`: removing it would lose them for good. */
export function lastCopies(maps: Iterable<ShardMap>, nodes: readonly string[]): string[] {
  const lost: string[] = [];
  for (const map of maps) {
    const bare = rangesOf(map).filter((range) =>
      holdersOf(map, range).every((holder) => nodes.includes(holder)),
    );
    if (bare.length > 0) lost.push(idOf(map));
  }
  return lost.sort();
}

/**
 * The ranges of one database that `target` should hold besides its own: those with fewer than `min(n, eligible)` copies
 * among the eligible nodes, where `target` is among the nodes that are next in turn (fewest copies first, then by
 * name).
 */
export function rangesToAdd(
  map: ShardMap,
  target: string,
  eligible: readonly string[],
  n: number,
  load: ReadonlyMap<string, number>,
): string[] {
  const wanted = Math.min(n, eligible.length);
  return rangesOf(map).filter((range) => {
    const holders = holdersOf(map, range).filter((holder) => eligible.includes(holder));
    const missing = wanted - holders.length;
    if (missing <= 0 || holders.includes(target)) return false;
    const next = eligible
      .filter((node) => !holders.includes(node))
      .sort((a, b) => (load.get(a) ?? 0) - (load.get(b) ?? 0) || (a < b ? -1 : 1));
    return next.slice(0, missing).includes(target);
  });
}

/** How many copies each node holds in all. */
export function loadOf(maps: Iterable<ShardMap>): Map<string, number> {
  const load = new Map<string, number>();
  for (const map of maps) {
    for (const [node, ranges] of Object.entries(map.by_node))
      load.set(node, (load.get(node) ?? 0) + ranges.length);
  }
  return load;
}

/**
 * Id of the document in which the source copy keeps how far the target has been brought (mem3_rep): base64url of the
 * MD5 over Erlang's external term format of each copy's uuid, a binary.
 */
export function checkpointId(sourceUuid: string, targetUuid: string): string {
  return `_local/shard-sync-${uuidHash(sourceUuid)}-${uuidHash(targetUuid)}`;
}

function uuidHash(uuid: string): string {
  const header = Buffer.from([0x83, 0x6d, 0, 0, 0, 0]);
  header.writeUInt32BE(Buffer.byteLength(uuid), 2);
  return createHash('md5').update(header).update(uuid).digest('base64url');
}
