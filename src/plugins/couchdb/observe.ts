/** Observes files, CouchDB itself, and the other members through its proxy. Writes nothing. */
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { readIfPresent } from '../../host/files.ts';
import type { AppUser } from './app-user.ts';
import { AccountLocked, CouchDbAnswer, type CouchDbClient, PasswordRefused } from './client.ts';
import { agreedProperties, bounded, CopyProver, propertiesOf, sameProperties } from './copies.ts';
import type {
  CopyLack,
  Http,
  Identity,
  MemberWord,
  NodeDocument,
  Observed,
  Proof,
  Server,
} from './observed.ts';
import { isFilling, mayBeServedElsewhere } from './cluster.ts';
import { idOf, isShardMap, nodesOf, rangesOf, rangesOn, revOf, type ShardMap } from './shards.ts';

export interface Places {
  readonly configDirectory: string;
  readonly markerFile: string;
  readonly restartFile: string;
}

const fileNames = [
  'bornemisza.ini',
  'vm.args',
  'cookie',
  'couchdb.env',
  'ca-cert.pem',
  'cert.pem',
  'key.pem',
  'couch_dist.conf',
] as const;

/** How long one observation may verify copies; the rest is verified at the next. A run has 60 s in all. */
const PROOF_BUDGET_MS = 15_000;
/** A living CouchDB answers through another one's proxy in some 10 ms; this holds on a machine that is very busy. */
const DOUBTED_MS = 1500;
const DOUBT_EVERY_MS = 250;
/** Databases proved at once: each takes a few small requests, and the server also serves clients. */
const PROOF_WIDTH = 8;

export function recordFile(places: Places): string {
  return join(places.configDirectory, 'identity.json');
}

export class Observer {
  readonly #client: CouchDbClient;
  readonly #places: Places;
  readonly #prover: CopyProver;
  readonly #appUser: AppUser;
  readonly #unheard: () => readonly string[];
  #maps = new Map<string, ShardMap>();
  #mapsOf = '';
  #mapsSeq = 0;
  /** When each database was first seen, by name and suffix; the first observation counts as always. */
  #seenMs = new Map<string, number>();
  #fillingSinceMs: number | undefined;
  readonly #sameMaps = new Set<string>();
  readonly #absentSince = new Map<string, number>();
  /** Databases whose copies here are proved: name → map revision and sources. */
  readonly #proved = new Map<string, string>();
  /** Databases that were being written to while they were proved. */
  readonly #hot = new Set<string>();
  #provingSinceMs: number | undefined;
  readonly #shunned = new Map<string, number>();
  readonly #unrepairable = new Set<string>();

  constructor(
    client: CouchDbClient,
    places: Places,
    prover: CopyProver,
    appUser: AppUser,
    unheard: () => readonly string[],
  ) {
    this.#client = client;
    this.#places = places;
    this.#prover = prover;
    this.#appUser = appUser;
    this.#unheard = unheard;
  }

  /** A map was edited or a copy repaired: observes this database again. */
  doubt(database: string): void {
    this.#proved.delete(database);
  }

  /** A joiner that never connected is ignored for a while, so that it does not block the others. */
  shun(node: string, forMs: number): void {
    this.#shunned.set(node, performance.now() + forMs);
  }

  /** A conflict that no recipe resolves without choosing between two sets of documents. Until the map changes. */
  giveUp(conflict: string): void {
    this.#unrepairable.add(conflict);
  }

  #shunnedNow(): ReadonlySet<string> {
    for (const [node, untilMs] of this.#shunned) if (untilMs < performance.now()) this.#shunned.delete(node);
    return new Set(this.#shunned.keys());
  }

  async observe(signal: AbortSignal): Promise<Observed> {
    const files = new Map<string, string | undefined>();
    for (const name of fileNames)
      files.set(name, await readIfPresent(join(this.#places.configDirectory, name)));
    const restartPending = await exists(this.#places.restartFile);
    return {
      files,
      marker: parseIdentity(await readIfPresent(this.#places.markerFile)),
      record: parseIdentity(await readIfPresent(recordFile(this.#places))),
      restartPending,
      restartAskedAgoMs: 0,
      restartDueForMs: 0,
      http: await this.#http(restartPending, signal),
    };
  }

  async #http(stopping: boolean, signal: AbortSignal): Promise<Http> {
    const up = await this.#client.up(signal);
    if (up === 'down' || up === 'silent') {
      this.#reset();
      // A restart can bring other settings: the refused password may be right then.
      if (up === 'down') this.#client.forgetRefusal();
      // A server that is slow or ended a connection runs: it is not restarted for that.
      if (up === 'down' || stopping) return { kind: 'down' };
      return { kind: 'failed', detail: '/_up was not answered', unheard: this.#unheard() };
    }
    try {
      const server = await this.#server(signal);
      if (server !== undefined) return { kind: 'up', server };
      return { kind: 'failed', detail: 'no answer in time', unheard: this.#unheard() };
    } catch (error) {
      if (error instanceof AccountLocked) return { kind: 'locked', open: up === 'ok' };
      if (error instanceof PasswordRefused) return { kind: 'refused' };
      // Without an answer it may wait for an unreachable node, whatever ended the request.
      if (error instanceof CouchDbAnswer)
        return { kind: 'failed', detail: error.message, unheard: error.status === 0 ? this.#unheard() : [] };
      throw error;
    }
  }

  /** After a stop earlier proofs do not count: the node may have missed writes. */
  #reset(): void {
    this.#proved.clear();
    this.#hot.clear();
    this.#prover.forget();
    this.#sameMaps.clear();
    this.#provingSinceMs = undefined;
  }

  /** @returns undefined if it does not answer while another db node is unreachable */
  async #server(signal: AbortSignal): Promise<Server | undefined> {
    // With two nodes, CouchDB answers no administrator during a partition: it first reads the name in `_users`, on
    // both.
    const own = await this.#patiently(
      () => this.#unheard().length > 0,
      signal,
      (hurried) => this.#own(hurried),
    );
    if (own === undefined) return undefined;
    const { self, welcome, membership, ours, cluster, maintenance, maps } = own;
    const members = new Map<string, MemberWord | undefined>();
    await bounded(membership.cluster_nodes, 4, async (node) => {
      const reachable = membership.all_nodes.includes(node);
      members.set(node, reachable ? await this.#member(node, signal) : undefined);
    });
    const allSpoke = [...members.values()].every((word) => word !== undefined);
    this.#noteFilling(members.get(self)?.documents ?? []);
    await this.#compareCounts(membership.all_nodes, members, maps, signal);
    const absentMs = this.#absence(membership.all_nodes, membership.cluster_nodes);
    const server: Server = {
      nodeName: self,
      version: welcome.version,
      runningDigest: ours['settings'],
      runningCookie: ours['cookie'],
      seedlist: cluster['seedlist'] ?? '',
      maintenance,
      allNodes: membership.all_nodes,
      clusterNodes: [...membership.cluster_nodes].sort(),
      members,
      maps,
      late: this.#madeSince(maps, this.#fillingSinceMs),
      sameMaps: this.#sameMaps,
      absentMs,
      shunned: this.#shunnedNow(),
      unrepairable: this.#unrepairable,
      // A document is read from several nodes: if one is cut off, that never ends either.
      appUser: allSpoke && !maintenance && maps.has('_users') ? await this.#appUser.state(signal) : 'unasked',
      proof: undefined,
    };
    if (!maintenance || membership.cluster_nodes.length < 2) {
      this.#reset();
      return server;
    }
    return { ...server, proof: await this.#prove(self, server, signal) };
  }

  async #own(signal: AbortSignal) {
    const client = this.#client;
    const { name: self } = await client.get<{ name: string }>('_node/_local', signal);
    const welcome = await client.get<{ version: string }>('', signal);
    const membership = await client.get<{ all_nodes: string[]; cluster_nodes: string[] }>(
      '_membership',
      signal,
    );
    const ours = await client.get<Record<string, string>>('_node/_local/_config/bornemisza', signal);
    const cluster = await client.get<Record<string, string>>('_node/_local/_config/cluster', signal);
    const maintenance = await maintenanceOf(client, '_local', signal);
    const maps = await this.#readMaps(signal);
    return { self, welcome, membership, ours, cluster, maintenance, maps };
  }

  #member(node: string, signal: AbortSignal): Promise<MemberWord | undefined> {
    return this.#patiently(
      () => this.#unheard().includes(node),
      signal,
      (hurried) => this.#ask(node, hurried),
    );
  }

  /**
   * After a silent cut Erlang holds a node connected for up to 18 s, and no request ends; the daemons know earlier.
   *
   * @returns undefined if there was no answer during {@link DOUBTED_MS} of doubt
   */
  async #patiently<T>(
    doubtful: () => boolean,
    signal: AbortSignal,
    ask: (hurried: AbortSignal) => Promise<T>,
  ): Promise<T | undefined> {
    const patience = new AbortController();
    let doubtedMs = 0;
    const doubting = setInterval(() => {
      if (doubtful()) doubtedMs += DOUBT_EVERY_MS;
      if (doubtedMs >= DOUBTED_MS) patience.abort();
    }, DOUBT_EVERY_MS);
    try {
      return await ask(AbortSignal.any([signal, patience.signal]));
    } catch (error) {
      signal.throwIfAborted();
      if (patience.signal.aborted) return undefined;
      throw error;
    } finally {
      clearInterval(doubting);
    }
  }

  async #ask(node: string, signal: AbortSignal): Promise<MemberWord | undefined> {
    try {
      const system = await this.#client.get<{ distribution?: Record<string, unknown> }>(
        `_node/${node}/_system`,
        signal,
      );
      const list = await this.#client.get<{ rows: readonly { doc: NodeDocument }[] }>(
        `_node/${node}/_nodes/_all_docs`,
        signal,
        {
          include_docs: true,
          conflicts: true,
        },
      );
      const maintenance = await maintenanceOf(this.#client, node, signal);
      const { doc_count: databases } = await this.#client.get<{ doc_count: number }>(
        `_node/${node}/_dbs`,
        signal,
      );
      return {
        connected: [node, ...Object.keys(system.distribution ?? {})].sort(),
        documents: list.rows.map((row) => row.doc).filter((doc) => idOf(doc).includes('@')),
        maintenance,
        databases,
      };
    } catch (error) {
      if (error instanceof CouchDbAnswer) return undefined;
      throw error;
    }
  }

  /** By `_changes`, not by lists: thousands of databases cost one small request while nothing changes. */
  async #readMaps(signal: AbortSignal): Promise<ReadonlyMap<string, ShardMap>> {
    const info = await this.#client.get<{ uuid: string; update_seq: number }>('_node/_local/_dbs', signal);
    if (info.uuid !== this.#mapsOf || info.update_seq < this.#mapsSeq) {
      this.#maps = new Map();
      this.#mapsSeq = 0;
      this.#mapsOf = info.uuid;
    }
    if (info.update_seq === this.#mapsSeq) return this.#maps;
    const maps = new Map(this.#maps);
    let since = this.#mapsSeq;
    for (;;) {
      const page = await this.#client.get<{
        results: readonly { id: string; deleted?: boolean; doc?: unknown }[];
        last_seq: number;
      }>('_node/_local/_dbs/_changes', signal, { since, limit: 500, include_docs: true, conflicts: true });
      for (const change of page.results) {
        if (change.deleted === true || !isShardMap(change.doc)) maps.delete(change.id);
        else maps.set(change.id, change.doc);
      }
      since = page.last_seq;
      if (page.results.length < 500) break;
    }
    const first = this.#mapsSeq === 0;
    this.#maps = maps;
    this.#mapsSeq = since;
    const seenMs = [...maps.values()].map((map): [string, number] => {
      const key = madeKey(map);
      return [key, this.#seenMs.get(key) ?? (first ? 0 : performance.now())];
    });
    this.#seenMs = new Map(seenMs);
    return maps;
  }

  #noteFilling(documents: readonly NodeDocument[]): void {
    if (documents.some(isFilling)) this.#fillingSinceMs ??= performance.now();
    else this.#fillingSinceMs = undefined;
  }

  /**
   * Momentary counts: while databases are created all the time, two counts that are read one after another may never be
   * equal.
   */
  async #compareCounts(
    allNodes: readonly string[],
    members: ReadonlyMap<string, MemberWord | undefined>,
    maps: ReadonlyMap<string, ShardMap>,
    signal: AbortSignal,
  ): Promise<void> {
    for (const node of this.#sameMaps) if (!allNodes.includes(node)) this.#sameMaps.delete(node);
    const open = [...members].filter(([node, word]) => word !== undefined && !this.#sameMaps.has(node));
    if (open.length === 0) return;
    const { doc_count: now } = await this.#client.get<{ doc_count: number }>('_node/_local/_dbs', signal);
    const [least, most] = [Math.min(now, maps.size), Math.max(now, maps.size)];
    for (const [node, word] of open) {
      const count = word?.databases ?? -1;
      if (count >= least && count <= most) this.#sameMaps.add(node);
    }
  }

  #madeSince(maps: ReadonlyMap<string, ShardMap>, sinceMs: number | undefined): ReadonlySet<string> {
    if (sinceMs === undefined) return new Set();
    const made = [...maps.values()].filter((map) => (this.#seenMs.get(madeKey(map)) ?? 0) >= sinceMs);
    return new Set(made.map(idOf));
  }

  #absence(allNodes: readonly string[], clusterNodes: readonly string[]): Map<string, number> {
    const nowMs = performance.now();
    const absent = new Map<string, number>();
    for (const node of this.#absentSince.keys()) {
      if (allNodes.includes(node) || !clusterNodes.includes(node)) this.#absentSince.delete(node);
    }
    for (const node of clusterNodes.filter((name) => !allNodes.includes(name))) {
      const sinceMs = this.#absentSince.get(node) ?? nowMs;
      this.#absentSince.set(node, sinceMs);
      absent.set(node, nowMs - sinceMs);
    }
    return absent;
  }

  async #prove(self: string, server: Server, signal: AbortSignal): Promise<Proof> {
    const nowMs = performance.now();
    this.#provingSinceMs ??= nowMs;
    const live = server.allNodes.filter((node) => node !== self);
    const mine = [...server.maps.values()].filter((map) => nodesOf(map).includes(self));
    const young = this.#madeSince(server.maps, this.#provingSinceMs);
    const isProved = (map: ShardMap): boolean => this.#proved.get(idOf(map)) === proofKey(map, live);
    const required = mine.filter((map) => !young.has(idOf(map)));
    const unproved = required.filter((map) => !isProved(map));
    const lacking: CopyLack[] = [];
    let open = 0;
    const inTime = (): boolean => performance.now() - nowMs < PROOF_BUDGET_MS;
    await bounded(
      unproved,
      PROOF_WIDTH,
      async (map) => {
        const lack = await this.#lackOf(self, map, live, signal);
        if (lack === undefined) this.#proved.set(idOf(map), proofKey(map, live));
        else lacking.push(lack);
        open += lack === undefined ? 0 : 1;
      },
      inTime,
    );
    const proved = required.filter(isProved).length;
    const isBusy = (database: string): boolean => this.#hot.has(database) || young.has(database);
    const names = mine.map(idOf);
    return {
      total: required.length,
      proved,
      bytes: this.#prover.bytes,
      busyFirst: names.sort((a, b) => Number(isBusy(b)) - Number(isBusy(a))),
      busy: names.filter(isBusy).length,
      lacking: lacking.sort((a, b) => (a.database < b.database ? -1 : 1)).slice(0, 32),
      alone: mine.some((map) =>
        rangesOn(map, self).some((range) => !mayBeServedElsewhere(map, range, self, server)),
      ),
      waitingMs: open === 0 && proved === required.length ? 0 : nowMs - this.#provingSinceMs,
    };
  }

  async #lackOf(
    self: string,
    map: ShardMap,
    live: readonly string[],
    signal: AbortSignal,
  ): Promise<CopyLack | undefined> {
    const database = idOf(map);
    try {
      const standing = await this.#prover.compareDatabase(map, self, live, signal);
      // The properties are read once the copy is complete: only then do they decide anything.
      if (standing === 'behind') return { database, incomplete: true, carry: false, disagree: false };
      if (standing === 'complete') this.#hot.add(database);
      const [agreed, own] = await Promise.all([
        agreedProperties(this.#client, live, map, signal),
        Promise.all(rangesOn(map, self).map((range) => propertiesOf(this.#client, self, map, range, signal))),
      ]);
      const disagree = agreed === 'differ';
      const carry = agreed !== 'none' && !disagree && own.some((each) => !sameProperties(agreed, each));
      return carry || disagree ? { database, incomplete: false, carry, disagree } : undefined;
    } catch (error) {
      // A copy or database that is just being created or deleted: not verified, observed again.
      if (error instanceof CouchDbAnswer)
        return { database, incomplete: true, carry: false, disagree: false };
      throw error;
    }
  }
}

/** A database that was deleted and created again under its name is another one. */
function madeKey(map: ShardMap): string {
  return `${idOf(map)} ${map.shard_suffix.join(',')}`;
}

function proofKey(map: ShardMap, live: readonly string[]): string {
  const sources = nodesOf(map).filter((node) => live.includes(node));
  return `${revOf(map)} ${rangesOf(map).length} ${sources.join(',')}`;
}

async function maintenanceOf(client: CouchDbClient, node: string, signal: AbortSignal): Promise<boolean> {
  const value = await client.find<string>(`_node/${node}/_config/couchdb/maintenance_mode`, signal);
  return value === 'true';
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

function parseIdentity(text: string | undefined): Identity | undefined {
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    const { nodeName, peerId } = value as Record<string, unknown>;
    return typeof nodeName === 'string' && typeof peerId === 'string' ? { nodeName, peerId } : undefined;
  } catch {
    // A damaged file counts as missing, and the copies are proved again.
    return undefined;
  }
}
