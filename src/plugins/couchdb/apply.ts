/** Makes the planned steps. Each reads again what it edits; no answer counts as proof, as the next run checks. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { replaceFile } from '../../host/files.ts';
import type { AppUser } from './app-user.ts';
import type { ChangeOf, CouchDbChange } from './changes.ts';
import { CouchDbAnswer, type CouchDbClient } from './client.ts';
import { isFilling } from './cluster.ts';
import {
  agreedProperties,
  bounded,
  CopyProver,
  pathOf,
  type Properties,
  setProperties,
  type Standing,
} from './copies.ts';
import { type Observer, type Places, recordFile } from './observe.ts';
import type { NodeDocument } from './observed.ts';
import {
  holdersOf,
  idOf,
  lastCopies,
  losersOf,
  nodesOf,
  rangesOf,
  rangesOn,
  revOf,
  type ShardMap,
  suffixOf,
  unionOf,
  withHolder,
  withoutHolder,
} from './shards.ts';

interface StepsOptions {
  readonly client: CouchDbClient;
  readonly observer: Observer;
  readonly appUser: AppUser;
  readonly places: Places;
  readonly progress: (text: string) => void;
  /** After this time no new step is begun. */
  readonly budgetMs: number;
}

/** How long every member may take to see an edit. Observed: under 1 s. */
const SPREAD_MS = 5000;
/** How long the proof before a removal may take inside one step; it continues at the next run. */
const REMOVAL_PROOF_MS = 3000;
/** How long busy databases are pushed before a node opens: about two rounds of CouchDB's own sync. */
const CATCH_UP_MS = 10_000;
/** Databases worked on at once. */
const WIDTH = 8;
/** Ranges of one database worked on at once. */
const RANGES_AT_ONCE = 4;
/** A joiner that did not connect is admitted again after this time. */
const SHUN_MS = 5 * 60_000;

/** Another node edited meanwhile: nothing was done, run again. */
class Outrun extends Error {}

export class Steps {
  readonly #options: StepsOptions;
  readonly #client: CouchDbClient;
  readonly #prover: CopyProver;

  constructor(options: StepsOptions) {
    this.#options = options;
    this.#client = options.client;
    this.#prover = new CopyProver(options.client);
  }

  /** Begins steps in order until the time is over. Steps on different databases run in parallel. */
  async run(
    changes: readonly CouchDbChange[],
    signal: AbortSignal,
    made: (change: CouchDbChange) => void,
  ): Promise<void> {
    const endMs = performance.now() + this.#options.budgetMs;
    const inTime = (): boolean => performance.now() < endMs && !signal.aborted;
    const wide = new Set<CouchDbChange['kind']>(['add-copies', 'remove-copies', 'carry', 'sync']);
    await bounded(
      changes.filter((change) => !wide.has(change.kind)),
      1,
      (change) => this.#step(change, signal, made),
      inTime,
    );
    await bounded(
      changes.filter((change) => wide.has(change.kind)),
      WIDTH,
      (change) => this.#step(change, signal, made),
      inTime,
    );
  }

  async #step(
    change: CouchDbChange,
    signal: AbortSignal,
    made: (change: CouchDbChange) => void,
  ): Promise<void> {
    this.#options.progress(change.summary);
    try {
      await this.#make(change, signal);
      if (change.kind !== 'refuse') made(change);
    } catch (error) {
      const outrun = error instanceof Outrun || (error instanceof CouchDbAnswer && error.status === 409);
      if (!outrun) throw error;
      this.#options.progress(`${change.summary}: changed meanwhile, checking again`);
    }
  }

  async #make(change: CouchDbChange, signal: AbortSignal): Promise<void> {
    const { places } = this.#options;
    switch (change.kind) {
      case 'file':
        await replaceFile(join(places.configDirectory, change.file.name), change.file.content, {
          mode: change.file.mode,
        });
        return;
      case 'restart':
        await replaceFile(places.restartFile, 'restart\n', { mode: 0o640 });
        return;
      case 'marker':
        await this.#mark(change);
        return;
      case 'forget-marker':
        await rm(recordFile(places), { force: true });
        return;
      case 'refuse':
        return;
      case 'maintenance':
        await this.#maintenance(change.node, true, signal);
        return;
      case 'open':
        await this.#open(change, signal);
        return;
      case 'admit':
        // Exactly this body: the joiner has written its own first document `{}`, both are revision 1, and the higher
        // hash wins. `{"decom":true}` wins against `{}`; with another key beside it, it may lose.
        await this.#client.put(`_node/${change.arbiter}/_nodes/${change.node}`, { decom: true }, signal);
        return;
      case 'node-document':
        await this.#nodeDocument(change, signal);
        return;
      case 'expel':
        await this.#expel(change, signal);
        return;
      case 'create-database':
        await this.#create(change.database, signal);
        return;
      case 'app-user':
        await this.#options.appUser.ensure(signal);
        return;
      case 'add-copies':
        await this.#addCopies(change, signal);
        return;
      case 'remove-copies':
        await this.#removeCopies(change, signal);
        return;
      case 'carry':
        await this.#carry(change, signal);
        return;
      case 'sync':
        await this.#sync(change.database, signal);
        return;
      case 'repair-map':
        await this.#repairMap(change, signal);
        return;
      case 'repair-node-document':
        for (const rev of change.losers) {
          await this.#client.delete(`_node/${change.arbiter}/_nodes/${change.node}`, rev, signal);
        }
        return;
    }
  }

  /** The record first: a crash between the two reads as "data gone", which waits, never as "fresh", which may join. */
  async #mark(change: ChangeOf<'marker'>): Promise<void> {
    const text = `${JSON.stringify(change.identity)}\n`;
    await replaceFile(recordFile(this.#options.places), text, { mode: 0o640 });
    await replaceFile(this.#options.places.markerFile, text, { mode: 0o640 });
  }

  async #maintenance(node: string, on: boolean, signal: AbortSignal): Promise<void> {
    await this.#client.put(
      `_node/${node}/_config/couchdb/maintenance_mode`,
      on ? 'true' : 'false',
      signal,
      true,
    );
  }

  /**
   * In maintenance a copy gets writes only by the internal sync, which CouchDB begins up to 5 s after a write. So busy
   * databases are pushed directly before the opening, and all databases directly after it: a gap of 5 s becomes a
   * moment.
   */
  async #open(change: ChangeOf<'open'>, signal: AbortSignal): Promise<void> {
    const { node, databases } = change;
    await bounded(databases.slice(0, change.busy), WIDTH, (database) =>
      this.#catchUp(change, database, signal),
    );
    const document = await this.#client.find<NodeDocument>(`_node/_local/_nodes/${node}`, signal);
    if (document === undefined || isFilling(document)) throw new Outrun();
    await this.#maintenance(node, false, signal);
    if (change.sources.length === 0) return;
    const push = (database: string): Promise<void> =>
      // A database that was deleted meanwhile needs no push.
      this.#sync(database, signal).catch(ignoreAnswer);
    await bounded(databases.slice(0, change.busy), WIDTH, push);
    // Thousands of idle ones must not delay the report that the node serves. CouchDB pushes the rest by itself.
    void bounded(databases.slice(change.busy), WIDTH, push).catch(() => undefined);
  }

  /** The copies are verified already; this only narrows what is missing at the opening, so its time is bounded. */
  async #catchUp(change: ChangeOf<'open'>, database: string, signal: AbortSignal): Promise<void> {
    const map = await this.#map('_local', database, signal);
    if (map === undefined) return;
    const prover = new CopyProver(this.#client);
    const endMs = performance.now() + CATCH_UP_MS;
    let pushedMs = Number.NEGATIVE_INFINITY;
    for (;;) {
      const standing: Standing = await prover.compareDatabase(map, change.node, change.sources, signal);
      if (standing !== 'behind') return;
      if (performance.now() > endMs) break;
      if (performance.now() - pushedMs > 1000) {
        await this.#sync(database, signal);
        pushedMs = performance.now();
      }
      await delay(50, undefined, { signal });
    }
    this.#options.progress(`${database}: shard sync continues while ${change.node} opens`);
  }

  async #nodeDocument(change: ChangeOf<'node-document'>, signal: AbortSignal): Promise<void> {
    const path = `_node/${change.arbiter}/_nodes/${change.node}`;
    const { decom: _decom, bornemisza: _mark, ...rest } = await this.#client.get<NodeDocument>(path, signal);
    const body = {
      ...rest,
      ...(change.decom ? { decom: true } : {}),
      ...(change.mark === undefined ? {} : { bornemisza: change.mark }),
    };
    await this.#client.put(path, body, signal);
  }

  /** Done on the leaver itself if it is alive, since it would undo a removal elsewhere; then read again everywhere. */
  async #expel(change: ChangeOf<'expel'>, signal: AbortSignal): Promise<void> {
    const path = `_node/${change.through}/_nodes/${change.node}`;
    const document = await this.#client.find<NodeDocument>(path, signal);
    if (document !== undefined) await this.#client.delete(path, revOf(document), signal);
    if (change.shun) this.#options.observer.shun(change.node, SHUN_MS);
    const left = change.witnesses.filter((node) => node !== change.node);
    await this.#until(signal, `all members to see that ${change.node} is out`, async () => {
      for (const node of left) {
        const still = await this.#client.find(`_node/${node}/_nodes/${change.node}`, signal);
        if (still !== undefined) return false;
      }
      return true;
    });
  }

  /** 412: it exists. It can also have been created despite a 5xx or a timeout. */
  async #create(database: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#client.put(database, undefined, signal);
    } catch (error) {
      if (!(error instanceof CouchDbAnswer) || error.status !== 412) throw error;
    }
    await this.#client.get(database, signal);
  }

  /**
   * Rule 4: properties read, map, written to the new copies, sync. The proof before the opening reads all copies again.
   */
  async #addCopies(change: ChangeOf<'add-copies'>, signal: AbortSignal): Promise<void> {
    const path = `_node/${change.arbiter}/_dbs/${encodeURIComponent(change.database)}`;
    const before = await this.#client.find<ShardMap>(path, signal);
    if (before === undefined) return;
    const wanted = await this.#agreed(before, change.sources, signal);
    const after = withHolder(before, change.node, change.ranges);
    const { rev } = await this.#client.put<{ rev: string }>(path, after, signal);
    this.#options.observer.doubt(change.database);
    await this.#spread(change.database, rev, change.members, signal);
    // The proof sees a source that changes its properties later; the node does not open without the proof.
    await this.#bring(after, change.node, wanted, signal);
    await this.#sync(change.database, signal);
  }

  async #agreed(map: ShardMap, sources: readonly string[], signal: AbortSignal): Promise<Properties> {
    const found = await agreedProperties(this.#client, sources, map, signal);
    if (found === 'none')
      throw new CouchDbAnswer(0, `copies of ${idOf(map)}`, 'no source copy can be read', false);
    // They change just now, or really differ: in both cases no copy is added now.
    if (found === 'differ') throw new Outrun();
    return found;
  }

  /** A node creates the new file when it learns of the map; until then its properties cannot be set. */
  async #bring(map: ShardMap, node: string, wanted: Properties, signal: AbortSignal): Promise<void> {
    await bounded(rangesOn(map, node), RANGES_AT_ONCE, async (range) => {
      await this.#until(signal, `the copy of ${idOf(map)} on ${node}`, async () => {
        return (await this.#client.find(pathOf(node, map, range), signal)) !== undefined;
      });
      await setProperties(this.#client, node, map, range, wanted, signal);
    });
  }

  /** An edit of the map alone does not copy idle databases. */
  async #sync(database: string, signal: AbortSignal): Promise<void> {
    await this.#client.post(`${encodeURIComponent(database)}/_sync_shards`, signal);
  }

  async #carry(change: ChangeOf<'carry'>, signal: AbortSignal): Promise<void> {
    const map = await this.#map(change.node, change.database, signal);
    if (map === undefined) return;
    const wanted = await this.#agreed(map, change.sources, signal);
    await this.#bring(map, change.node, wanted, signal);
  }

  /** A copy is proved again directly before another one is removed. */
  async #removeCopies(change: ChangeOf<'remove-copies'>, signal: AbortSignal): Promise<void> {
    const map = await this.#map(change.arbiter, change.database, signal);
    if (map === undefined || rangesOn(map, change.node).length === 0) return;
    if (lastCopies([map], [change.node]).length > 0) throw new Outrun();
    if (!change.gone && !(await this.#proveStayers(map, change, signal))) return;
    const path = `_node/${change.arbiter}/_dbs/${encodeURIComponent(change.database)}`;
    const { rev } = await this.#client.put<{ rev: string }>(path, withoutHolder(map, change.node), signal);
    this.#options.observer.doubt(change.database);
    await this.#spread(change.database, rev, change.members, signal);
  }

  async #proveStayers(
    map: ShardMap,
    change: ChangeOf<'remove-copies'>,
    signal: AbortSignal,
  ): Promise<boolean> {
    const endMs = performance.now() + REMOVAL_PROOF_MS;
    const stayers = change.stayers.filter((node) => nodesOf(map).includes(node));
    for (let round = 0; performance.now() < endMs; round += 1) {
      if (await this.#allComplete(map, change.node, stayers, signal)) return true;
      if (round === 0) await this.#sync(change.database, signal);
      await delay(200, undefined, { signal });
    }
    this.#options.progress(`${change.database}: copies are not complete yet, ${change.node} keeps its own`);
    return false;
  }

  async #allComplete(
    map: ShardMap,
    source: string,
    stayers: readonly string[],
    signal: AbortSignal,
  ): Promise<boolean> {
    for (const range of rangesOn(map, source)) {
      const keep = holdersOf(map, range).filter((holder) => stayers.includes(holder));
      if (keep.length === 0) return false;
      for (const target of keep) {
        if ((await this.#prover.compare(map, range, source, target, signal)) === 'behind') return false;
      }
    }
    return true;
  }

  async #map(node: string, database: string, signal: AbortSignal): Promise<ShardMap | undefined> {
    return this.#client.find<ShardMap>(`_node/${node}/_dbs/${encodeURIComponent(database)}`, signal);
  }

  async #spread(
    database: string,
    rev: string,
    members: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    await this.#until(signal, `all members to see the new map of ${database}`, async () => {
      const maps = await Promise.all(members.map((node) => this.#map(node, database, signal)));
      return maps.every((map) => map !== undefined && generationOf(revOf(map)) >= generationOf(rev));
    });
  }

  /**
   * Recipes: (a) one database, two maps: all holders of both, copies merge; (b) two databases of one name, one without
   * documents: its map is deleted. Two with documents: a person decides, see {@link Observer.giveUp}.
   */
  async #repairMap(change: ChangeOf<'repair-map'>, signal: AbortSignal): Promise<void> {
    const path = `_node/${change.arbiter}/_dbs/${encodeURIComponent(change.database)}`;
    const winner = await this.#client.find<ShardMap>(path, signal, { conflicts: true });
    if (winner === undefined) return;
    const losers: ShardMap[] = [];
    for (const rev of losersOf(winner)) losers.push(await this.#client.get<ShardMap>(path, signal, { rev }));
    const same = losers.filter((loser) => suffixOf(loser) === suffixOf(winner));
    if (same.length > 0) {
      await this.#merge(path, winner, same, change, signal);
      return;
    }
    const won = await this.#documentsIn(winner, signal);
    for (const loser of losers) {
      const lost = await this.#documentsIn(loser, signal);
      if (lost > 0 && won > 0) this.#options.observer.giveUp(`${change.database} ${revOf(winner)}`);
      else await this.#client.delete(path, revOf(lost === 0 ? loser : winner), signal);
      if (lost > 0 && won === 0) return;
    }
  }

  /** The union before the deletions: a crash between them loses no holder. */
  async #merge(
    path: string,
    winner: ShardMap,
    losers: readonly ShardMap[],
    change: ChangeOf<'repair-map'>,
    signal: AbortSignal,
  ): Promise<void> {
    const { _conflicts: _others, ...plain } = winner;
    const union = unionOf(plain, losers);
    const grown = union.changelog.length > winner.changelog.length;
    const rev = grown ? (await this.#client.put<{ rev: string }>(path, union, signal)).rev : revOf(winner);
    for (const loser of losers) await this.#client.delete(path, revOf(loser), signal);
    this.#options.observer.doubt(change.database);
    await this.#spread(change.database, rev, change.members, signal);
    await this.#sync(change.database, signal);
  }

  /** Documents and deletions in the fullest copy of each range. A copy that was never created has none. */
  async #documentsIn(map: ShardMap, signal: AbortSignal): Promise<number> {
    let sum = 0;
    for (const range of rangesOf(map)) {
      let most = 0;
      for (const node of holdersOf(map, range)) {
        const info = await this.#client.find<{ doc_count: number; doc_del_count: number }>(
          pathOf(node, map, range),
          signal,
        );
        most = Math.max(most, (info?.doc_count ?? 0) + (info?.doc_del_count ?? 0));
      }
      sum += most;
    }
    return sum;
  }

  async #until(signal: AbortSignal, what: string, met: () => Promise<boolean>): Promise<void> {
    const endMs = performance.now() + SPREAD_MS;
    while (!(await met())) {
      if (performance.now() > endMs)
        throw new CouchDbAnswer(0, 'waiting for', `${what}: not within ${SPREAD_MS} ms`, true);
      await delay(50, undefined, { signal });
    }
  }
}

/** A step that only speeds things up: the next observation sees its failure. */
function ignoreAnswer(error: unknown): void {
  if (!(error instanceof CouchDbAnswer)) throw error;
}

function generationOf(rev: string): number {
  return Number.parseInt(rev, 10);
}
