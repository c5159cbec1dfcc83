import { createHash } from 'node:crypto';
import { type Distribution, Refusal } from '../dist/distribution.ts';
import type { StoredDoc } from '../store/copy.ts';
import type { Files } from '../store/files.ts';
import type { Body, Json } from '../store/revision.ts';
import type { Catalogue } from './catalogue.ts';
import type { Members } from './members.ts';
import { dbOf } from './shard_map.ts';

/** mem3_sync: a written copy is pushed to the others so long after the first write. */
const writeDelayMs = 5000;
const batchSize = 500;
/** Batches before the rest is counted and queued again; only then does the backlog show it. */
const batchesPerRound = 5;
/** A batch of 500 takes the real one about 0.1 s; the windows with wrong answers are as long here. */
const batchPauseMs = 60;
const maxActive = 10;
/** Initial synchronisation waits for the peer's processes (mem3_sync waits for rexi). */
const nodeupDelayMs = 40;

type Job = { name: string; node: string; pending: number; again: boolean };
type Opened = { uuid: string; seq: number; checkpoint: Body | null };

/**
 * Internal replication (mem3_sync, mem3_rep): pushes a copy's changes to the same file on another node, with
 * checkpoints on both, on nodeup, after writes, and when asked.
 */
export class Sync {
  readonly #distribution: Distribution;
  readonly #files: Files;
  readonly #members: Members;
  readonly #catalogue: Catalogue;
  readonly #afterPush: (db: string) => Promise<void>;
  readonly #active = new Map<string, Job>();
  readonly #waiting = new Map<string, Job>();
  readonly #dirty = new Map<string, NodeJS.Timeout>();
  #stopped = false;

  constructor(
    parts: { distribution: Distribution; files: Files; members: Members; catalogue: Catalogue },
    afterPush: (db: string) => Promise<void>,
  ) {
    this.#distribution = parts.distribution;
    this.#files = parts.files;
    this.#members = parts.members;
    this.#catalogue = parts.catalogue;
    this.#afterPush = afterPush;
    this.#serve();
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#dirty.values()) clearTimeout(timer);
    this.#waiting.clear();
  }

  /** What `_system` shows as internal_replication_jobs: nothing before the first full round. */
  backlog(): number {
    return [...this.#active.values(), ...this.#waiting.values()].reduce((sum, job) => sum + job.pending, 0);
  }

  /** A copy changed here: the cluster's own databases go on at once, shards after the delay. */
  changed(name: string): void {
    // Once the list of members follows the change: a node just removed is not told of it.
    if (name === '_nodes') setImmediate(() => this.#pushToLive(name));
    else if (name === '_dbs') this.#pushToNext(name);
    else if (name.startsWith('shards/') && !this.#dirty.has(name)) {
      const timer = setTimeout(() => {
        this.#dirty.delete(name);
        this.pushToHolders(name);
      }, writeDelayMs);
      this.#dirty.set(name, timer.unref());
    }
  }

  /** A member was added or came back: the ring's databases to the next node, shared shards to that member. */
  peerIsUp(node: string): void {
    if (!this.#members.has(node)) return;
    setTimeout(() => {
      if (this.#stopped || !this.#distribution.isConnected(node)) return;
      for (const name of ['_nodes', '_dbs']) this.#pushToNext(name);
      for (const name of this.#sharedWith(node)) this.push(name, node);
    }, nodeupDelayMs).unref();
  }

  #sharedWith(node: string): string[] {
    const all = this.#catalogue.all();
    const here = new Set(all.filter((s) => s.node === this.#distribution.self).map((s) => s.name));
    return all.filter((s) => s.node === node && here.has(s.name)).map((s) => s.name);
  }

  /** Every copy that this node holds of the database to every other holder (`_sync_shards`). */
  pushDatabase(db: string): void {
    for (const shard of this.#catalogue.shards(db)) {
      if (shard.node === this.#distribution.self) this.pushToHolders(shard.name);
    }
  }

  pushAll(): void {
    for (const db of this.#catalogue.databases()) if (this.#catalogue.has(db)) this.pushDatabase(db);
  }

  pushToHolders(name: string): void {
    const db = dbOf(name);
    if (db === undefined || !this.#catalogue.has(db)) return;
    for (const shard of this.#catalogue.shards(db)) {
      if (shard.name === name && shard.node !== this.#distribution.self) this.push(name, shard.node);
    }
  }

  #pushToLive(name: string): void {
    for (const node of this.#members.live()) this.push(name, node);
  }

  #pushToNext(name: string): void {
    const next = this.#members.next();
    if (next !== undefined && next !== this.#distribution.self) this.push(name, next);
  }

  push(name: string, node: string): void {
    if (this.#stopped || !this.#distribution.isConnected(node)) return;
    const key = `${node} ${name}`;
    const active = this.#active.get(key);
    if (active !== undefined) active.again = true;
    else this.#waiting.set(key, this.#waiting.get(key) ?? { name, node, pending: 0, again: false });
    this.#next();
  }

  #next(): void {
    for (const [key, job] of this.#waiting) {
      // The cluster's own databases never queue behind shards (mem3_sync keeps them in front).
      if (this.#active.size >= maxActive && job.name.startsWith('shards/')) continue;
      this.#waiting.delete(key);
      this.#active.set(key, job);
      void this.#run(key, job);
    }
  }

  async #run(key: string, job: Job): Promise<void> {
    let more = false;
    try {
      more = await this.#round(job);
      const db = dbOf(job.name);
      if (!more && db !== undefined && this.#catalogue.has(db)) await this.#afterPush(db);
    } catch {
      // The peer went away or the file was removed: the next nodeup or write pushes again.
    }
    this.#active.delete(key);
    if (this.#stopped) return;
    if (more || job.again) this.#waiting.set(key, { ...job, again: false });
    this.#next();
  }

  /** Up to five batches. @returns whether changes are left. */
  async #round(job: Job): Promise<boolean> {
    const source = this.#files.open(job.name);
    if (source === undefined) return false;
    const target = await this.#distribution.call<Opened>(job.node, 'sync.open', {
      name: job.name,
      uuid: source.uuid,
    });
    const id = checkpointId(source.uuid, target.uuid);
    const mine = source.local(id);
    let since = mine !== undefined && target.checkpoint !== null ? Number(mine.seq) : 0;
    for (let batch = 0; batch < batchesPerRound; batch++) {
      const changes = source.changes(since, batchSize);
      const last = changes.at(-1);
      if (last === undefined) break;
      const seq = await this.#sendBatch(
        job,
        changes.map((c) => c.id),
      );
      since = last.seq;
      const history = {
        target: job.node,
        targetUuid: target.uuid,
        targetSeq: seq,
        source: this.#distribution.self,
      };
      const checkpoint = newCheckpoint(source.local(id), {
        ...history,
        sourceUuid: source.uuid,
        sourceSeq: since,
      });
      await this.#distribution.call(job.node, 'sync.checkpoint', { name: job.name, id, body: checkpoint });
      source.putLocal(id, checkpoint);
      if (changes.length === batchSize) await new Promise((resolve) => setTimeout(resolve, batchPauseMs));
    }
    job.pending = source.changes(since, Number.POSITIVE_INFINITY).length;
    return job.pending > 0;
  }

  async #sendBatch(job: Job, ids: string[]): Promise<number> {
    const source = this.#files.open(job.name);
    const docs = ids.flatMap((id) => source?.leaves(id) ?? []);
    const wanted: Record<string, string[]> = {};
    for (const { id, revs } of docs) (wanted[id] ??= []).push(`${revs.start}-${revs.ids[0]}`);
    const missing = await this.#distribution.call<Record<string, string[]>>(job.node, 'sync.missing', {
      name: job.name,
      wanted,
    });
    const send = docs.filter(({ id, revs }) => missing[id]?.includes(`${revs.start}-${revs.ids[0]}`));
    return await this.#distribution.call<number>(job.node, 'sync.put', { name: job.name, docs: send });
  }

  /** The other side. Opening makes the file where it is missing, with the default security object. */
  #serve(): void {
    this.#distribution.handle(
      'sync.open',
      async ({ name, uuid }: { name: string; uuid: string }): Promise<Opened> => {
        const { copy } = await this.#files.create(name);
        return {
          uuid: copy.uuid,
          seq: copy.seq,
          checkpoint: copy.local(checkpointId(uuid, copy.uuid)) ?? null,
        };
      },
    );
    this.#distribution.handle(
      'sync.missing',
      ({ name, wanted }: { name: string; wanted: Record<string, string[]> }) =>
        this.#target(name).missing(wanted),
    );
    this.#distribution.handle('sync.put', async ({ name, docs }: { name: string; docs: StoredDoc[] }) => {
      const copy = this.#target(name);
      for (const doc of docs) copy.put(doc);
      await this.#files.flush(name);
      return copy.seq;
    });
    this.#distribution.handle(
      'sync.checkpoint',
      ({ name, id, body }: { name: string; id: string; body: Body }) => {
        this.#target(name).putLocal(id, body);
      },
    );
  }

  #target(name: string) {
    const copy = this.#files.open(name);
    if (copy === undefined) throw new Refusal('not_found');
    return copy;
  }
}

/** `_local/shard-sync-H(source)-H(target)`, H = base64url of the MD5 of the uuid as an Erlang term. */
export function checkpointId(sourceUuid: string, targetUuid: string): string {
  return `_local/shard-sync-${hashOf(sourceUuid)}-${hashOf(targetUuid)}`;
}

function hashOf(uuid: string): string {
  const head = Buffer.from([131, 109, 0, 0, 0, uuid.length]);
  return createHash('md5').update(head).update(uuid).digest('base64url');
}

type Step = {
  target: string;
  targetUuid: string;
  targetSeq: number;
  source: string;
  sourceUuid: string;
  sourceSeq: number;
};

/** The newest step first, thinned out as the real one does not keep them all. */
function newCheckpoint(before: Body | undefined, step: Step): Body {
  const older = (before?.history as Record<string, Json[]> | undefined)?.[step.source] ?? [];
  const entry = {
    target_node: step.target,
    target_uuid: step.targetUuid,
    target_seq: step.targetSeq,
    source_node: step.source,
    source_uuid: step.sourceUuid,
    source_seq: step.sourceSeq,
    timestamp: new Date().toISOString().replace('Z', '000Z'),
  };
  return {
    seq: step.sourceSeq,
    target_uuid: step.targetUuid,
    history: { [step.source]: [entry, ...older].slice(0, 10) },
  };
}
