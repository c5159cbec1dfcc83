import type { Catalogue } from '../cluster/catalogue.ts';
import type { Members } from '../cluster/members.ts';
import type { Shard } from '../cluster/shard_map.ts';
import type { Distribution } from '../dist/distribution.ts';
import type { Settings } from '../start/settings.ts';

export type Cluster = {
  self: string;
  distribution: Distribution;
  catalogue: Catalogue;
  members: Members;
  settings: Settings;
};

/** An answer that is an error, as it goes out over HTTP. */
export class HttpError extends Error {
  readonly status: number;
  readonly error: string;
  readonly reason: string;
  constructor(status: number, error: string, reason: string) {
    super(`${status} ${error}: ${reason}`);
    this.status = status;
    this.error = error;
    this.reason = reason;
  }
}

export function noShards(): HttpError {
  return new HttpError(500, 'internal_server_error', 'No DB shards could be opened.');
}

export function ask<T>(cluster: Cluster, shard: Shard, op: string, args: object = {}): Promise<T> {
  return cluster.distribution.call<T>(shard.node, `fabric.${op}`, { name: shard.name, ...args });
}

/** The first of these copies to answer. @throws HttpError 500 when none does. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the type of the handler that is asked
export async function first<T>(
  cluster: Cluster,
  shards: Shard[],
  op: string,
  args: object = {},
): Promise<{ shard: Shard; value: T }> {
  try {
    return await Promise.any(
      shards.map(async (shard) => ({ shard, value: await ask<T>(cluster, shard, op, args) })),
    );
  } catch {
    throw noShards();
  }
}

/** This node's copy when it has one that answers, else the first other to answer. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as above
export async function nearest<T>(
  cluster: Cluster,
  shards: Shard[],
  op: string,
  args: object = {},
): Promise<{ shard: Shard; value: T }> {
  const here = shards.find((shard) => shard.node === cluster.self);
  const others = shards.filter((shard) => shard !== here);
  if (here !== undefined) {
    try {
      return { shard: here, value: await ask<T>(cluster, here, op, args) };
    } catch {
      // held back by maintenance mode, or the file is gone: the others may do
    }
  }
  return await first(cluster, others, op, args);
}

export function byRange(shards: Shard[]): Shard[][] {
  return [...Map.groupBy(shards, (shard) => shard.range)]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([, copies]) => copies);
}
