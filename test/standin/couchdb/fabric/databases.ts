import { isDeepStrictEqual } from 'node:util';
import { newMap, parseMap, rangeOf, type Shard, shardsOf } from '../cluster/shard_map.ts';
import type { CopyInfo } from '../store/copy.ts';
import type { Body } from '../store/revision.ts';
import { ask, byRange, type Cluster, HttpError, nearest } from './ask.ts';
import { encodeSeq } from './seq.ts';

/** fabric's own limit for an answer; a file that takes longer is answered in a strange way, see createDatabase. */
const defaultTimeoutMs = 60_000;
const missing = () => new HttpError(404, 'not_found', 'Database does not exist.');
const exists = () =>
  new HttpError(412, 'file_exists', 'The database could not be created, the file already exists.');

/** `props: false`: the map has no `props`, as those that the setup makes. */
export type NewDatabase = { q?: number; n?: number; props?: false };

export function shardsFor(cluster: Cluster, db: string): Shard[] {
  if (!cluster.catalogue.has(db)) throw missing();
  return cluster.catalogue.shards(db);
}

/** Opens any copy, this node's first: what it says of `_security` counts. @throws HttpError 404, 500 */
export async function openDatabase(
  cluster: Cluster,
  db: string,
): Promise<{ security: Body; revsLimit: number }> {
  const shards = shardsFor(cluster, db);
  return (await nearest<{ security: Body; revsLimit: number }>(cluster, shards, 'open')).value;
}

/**
 * Makes files on the chosen nodes, then writes the map to every member's `_dbs` (fabric_db_create).
 * @returns 201, or 202 when most members were not there
 * @throws HttpError 412 when it exists, 500 `no_nodes_in_zone`, 500 `ok` when a file took longer than fabric waits
 */
export async function createDatabase(cluster: Cluster, db: string, options: NewDatabase): Promise<201 | 202> {
  if (cluster.catalogue.has(db)) throw exists();
  const { body, shards } = chooseShards(cluster, db, options);
  const startedAt = performance.now();
  const made = await Promise.all(
    shards.map((shard) =>
      cluster.distribution
        .call<boolean>(shard.node, 'fabric.create_file', { name: shard.name })
        .catch(() => undefined),
    ),
  );
  const tooLate =
    performance.now() - startedAt > cluster.settings.number('fabric', 'request_timeout', defaultTimeoutMs);
  const nodes = cluster.members.list();
  const replies = await Promise.all(
    nodes.map((node) =>
      cluster.distribution.call<string>(node, 'fabric.create_map', { db, body }).catch(() => 'down'),
    ),
  );
  if (tooLate) throw new HttpError(500, 'ok', 'ok');
  if (replies.includes('conflict') || made.includes(false)) throw exists();
  const written = replies.filter((reply) => reply === 'ok').length;
  return written > nodes.length / 2 ? 201 : 202;
}

function chooseShards(cluster: Cluster, db: string, options: NewDatabase): { body: Body; shards: Shard[] } {
  const { settings, members } = cluster;
  const nodes = members.list().filter((node) => !isDecommissioned(members.attributes(node)));
  const q = options.q ?? settings.number('cluster', 'q', 2);
  const n = options.n ?? settings.number('cluster', 'n', 3);
  const suffix = `.${Math.floor(Date.now() / 1000)}`;
  if (nodes.length === 0) throw new HttpError(500, 'unknown_error', 'no_nodes_in_zone');
  // The real one starts at a random node; [standin] rotate pins it for runs that must not differ.
  const rotate = settings.number('standin', 'rotate', Math.floor(Math.random() * nodes.length));
  const { props, ...rest } = newMap(nodes, q, n, suffix, rotate);
  const body: Body = options.props === false || props === undefined ? rest : { ...rest, props };
  return { body, shards: shardsOf(parseMap(db, body)) };
}

/** `true` and `"true"` count, nothing else. */
function isDecommissioned(attributes: Body): boolean {
  return attributes.decom === true || attributes.decom === 'true';
}

/** Deletes the map on every member, then the files. @returns 200 when all members did, else 202 */
export async function deleteDatabase(cluster: Cluster, db: string): Promise<200 | 202> {
  const shards = shardsFor(cluster, db);
  const nodes = cluster.members.list();
  const replies = await Promise.all(
    nodes.map((node) =>
      cluster.distribution.call<string>(node, 'fabric.delete_map', { db }).catch(() => 'down'),
    ),
  );
  for (const shard of shards) {
    void cluster.distribution
      .call(shard.node, 'fabric.delete_file', { name: shard.name })
      .catch(() => undefined);
  }
  if (replies.every((reply) => reply === 'not_found')) throw missing();
  return replies.includes('down') ? 202 : 200;
}

/** Sums one copy of each range (fabric_db_info): counts of a copy that is still being filled, too. */
export async function databaseInfo(cluster: Cluster, db: string): Promise<Record<string, unknown>> {
  const shards = shardsFor(cluster, db);
  const map = cluster.catalogue.map(db);
  const infos = await Promise.all(
    byRange(shards).map((copies) => nearest<CopyInfo>(cluster, copies, 'info')),
  );
  const sum = (of: (info: CopyInfo) => number) => infos.reduce((total, { value }) => total + of(value), 0);
  const seqs = infos.map(({ shard, value }) => ({
    range: shard.range,
    node: shard.node,
    uuid: value.uuid,
    seq: value.update_seq,
  }));
  const n = rangeOf(map, 'foo').nodes.length;
  const quorum = Math.floor(n / 2) + 1;
  const bytes = sum((info) => info.external);
  return {
    instance_start_time: map.suffix.slice(1),
    db_name: db,
    purge_seq: encodeSeq(seqs.map((part) => ({ ...part, seq: 0 }))),
    update_seq: encodeSeq(seqs),
    sizes: { file: bytes * 2 + 8000, external: bytes, active: bytes },
    props: {},
    doc_del_count: sum((info) => info.doc_del_count),
    doc_count: sum((info) => info.doc_count),
    disk_format_version: 8,
    compact_running: false,
    cluster: { q: map.q, n, w: quorum, r: quorum },
  };
}

/**
 * Sets the object on every copy. A copy that can't be asked is left behind, but its message waits for the node
 * to come back and is then delivered, over whatever was set meanwhile (rexi_buffer).
 * @throws HttpError 500 `no_majority`
 */
export async function setOnAll(
  cluster: Cluster,
  db: string,
  op: 'set_security' | 'set_revs_limit',
  args: object,
  buffer: (node: string, op: string, args: object) => void,
): Promise<void> {
  const shards = shardsFor(cluster, db);
  const done = await Promise.all(
    shards.map((shard) =>
      ask(cluster, shard, op, args).then(
        () => true,
        () => {
          buffer(shard.node, `fabric.${op}`, { name: shard.name, ...args });
          return false;
        },
      ),
    ),
  );
  for (const copies of byRange(shards)) {
    const count = copies.filter((shard) => done[shards.indexOf(shard)]).length;
    if (count <= copies.length / 2) throw new HttpError(500, 'error', 'no_majority');
  }
}

/**
 * What internal replication does with security objects that differ (mem3_sync_security): the one that more than
 * half of all copies have is set on all; when there is none, nothing is done.
 */
export async function repairSecurity(
  cluster: Cluster,
  db: string,
  log: (line: string) => void,
  buffer: (node: string, op: string, args: object) => void,
): Promise<void> {
  const shards = shardsFor(cluster, db);
  const replies = await Promise.all(
    shards.map((shard) => ask<Body>(cluster, shard, 'all_security').catch(() => undefined)),
  );
  const objects = replies.filter((reply) => reply !== undefined);
  const distinct = objects.filter(
    (object, i) => objects.findIndex((other) => isDeepStrictEqual(other, object)) === i,
  );
  if (distinct.length < 2) return;
  const winner = distinct.find((object) => {
    const count = objects.filter((other) => isDeepStrictEqual(other, object)).length;
    return count >= Math.floor(shards.length / 2) + 1;
  });
  if (winner === undefined) log(`Bad security object in ${db}`);
  else await setOnAll(cluster, db, 'set_security', { security: winner }, buffer);
}
