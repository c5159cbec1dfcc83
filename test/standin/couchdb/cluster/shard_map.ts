import { crc32 } from 'node:zlib';
import { Refusal } from '../dist/distribution.ts';
import type { Body, Json } from '../store/revision.ts';

/** One copy of one range of a database; `name` is also its file's. */
export type Shard = { db: string; range: string; node: string; name: string };

export type ShardMap = {
  db: string;
  suffix: string;
  /** Ranges in order, each with its holders as the map lists them. */
  ranges: { range: string; nodes: string[] }[];
  q: number;
};

const ringSize = 2 ** 32;

export function parseMap(db: string, doc: Body): ShardMap {
  const suffix = String.fromCharCode(...((doc.shard_suffix ?? []) as number[]));
  const byRange = (doc.by_range ?? {}) as Record<string, string[]>;
  const ranges = Object.keys(byRange)
    .toSorted()
    .map((range) => ({ range, nodes: byRange[range] ?? [] }));
  return { db, suffix, ranges, q: ranges.length };
}

export function shardsOf(map: ShardMap): Shard[] {
  return map.ranges.flatMap(({ range, nodes }) =>
    nodes.map((node) => ({ db: map.db, range, node, name: shardName(map, range) })),
  );
}

export function shardName(map: ShardMap, range: string): string {
  return `shards/${range}/${map.db}${map.suffix}`;
}

/** `shards/00000000-7fffffff/my/db.1795351108` is a copy of `my/db`. */
export function dbOf(name: string): string | undefined {
  return name.match(/^shards\/[0-9a-f]{8}-[0-9a-f]{8}\/(.+)\.\d+$/)?.[1];
}

/** How many copies of each range there are: the fewest, as fabric counts n for quorums. */
export function copiesOf(map: ShardMap): number {
  return Math.min(...map.ranges.map(({ nodes }) => nodes.length));
}

/** The range that a document falls in: CRC-32 of its id (mem3_hash). */
export function rangeOf(map: ShardMap, id: string): { range: string; nodes: string[] } {
  const hash = crc32(id);
  const found = map.ranges.find(({ range }) => {
    const [begin, end] = range.split('-').map((hex) => Number.parseInt(hex, 16)) as [number, number];
    return hash >= begin && hash <= end;
  });
  if (found === undefined) throw new Refusal('no_shard', `no range for ${id}`);
  return found;
}

/**
 * A new database's map: nodes dealt out in descending order from a random one on, q ranges, n copies each
 * (mem3_util:create_partition_map).
 * @param rotate which node of the descending list comes first
 * @throws Refusal `no_nodes_in_zone` when there is no node to place a copy on.
 */
export function newMap(nodes: string[], q: number, n: number, suffix: string, rotate: number): Body {
  const copies = Math.min(n, nodes.length);
  if (copies < 1) throw new Refusal('no_nodes_in_zone');
  const descending = nodes.toSorted().toReversed();
  const ring = nodes.map((_, i) => descending[(i + rotate) % nodes.length] as string);
  const byRange: Record<string, string[]> = {};
  let next = 0;
  for (const range of ranges(q)) {
    byRange[range] = Array.from(
      { length: copies },
      (_, i) => ring[(next + i) % ring.length] as string,
    ).toSorted();
    next = (next + copies) % ring.length;
  }
  const byNode: Record<string, string[]> = {};
  for (const node of nodes.toSorted()) {
    const held = Object.keys(byRange).filter((range) => byRange[range]?.includes(node));
    if (held.length > 0) byNode[node] = held;
  }
  return {
    shard_suffix: [...Buffer.from(suffix)],
    changelog: Object.entries(byRange).flatMap(([range, holders]) =>
      holders.map((node): Json => ['add', range, node]),
    ),
    by_node: byNode,
    by_range: byRange,
    props: {},
  };
}

function ranges(q: number): string[] {
  const step = Math.floor(ringSize / q);
  const hex = (n: number) => n.toString(16).padStart(8, '0');
  return Array.from(
    { length: q },
    (_, i) => `${hex(i * step)}-${hex(i === q - 1 ? ringSize - 1 : (i + 1) * step - 1)}`,
  );
}

/**
 * What the real one checks of a map before it is written (mem3_bdu), and no more: nodes need not exist.
 * @throws Refusal `forbidden`
 */
export function validateMap(doc: Body): void {
  const byNode = objectAt(doc, 'by_node');
  const byRange = objectAt(doc, 'by_range');
  for (const [range, nodes] of Object.entries(byRange)) {
    if (!/^[0-9a-f]{8}-[0-9a-f]{8}$/.test(range))
      throw new Refusal('forbidden', `by_range key ${range} is not a range`);
    for (const node of nodes) {
      if (!byNode[node]?.includes(range))
        throw new Refusal('forbidden', `by_node for ${node} missing ${range}`);
    }
  }
  for (const [node, held] of Object.entries(byNode)) {
    for (const range of held) {
      if (!byRange[range]?.includes(node))
        throw new Refusal('forbidden', `by_range for ${range} missing ${node}`);
    }
  }
}

function objectAt(doc: Body, key: string): Record<string, string[]> {
  const value = doc[key];
  if (value === undefined) throw new Refusal('forbidden', `${key} is mandatory`);
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new Refusal('forbidden', `${key} is not an object`);
  }
  return value as Record<string, string[]>;
}
