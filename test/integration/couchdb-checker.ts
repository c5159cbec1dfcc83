/** Writers and readers through the nodes in rotation, and the count of what went wrong. */
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { isOver } from '../support/patience.ts';

export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** A CouchDB that is asked as its administrator. */
export interface Asked {
  readonly address: string;
  ask(method: string, path: string, body?: unknown, timeoutMs?: number): Promise<Answer>;
}

/** Where clients are sent in this moment. */
export interface Rotation {
  rotation(): readonly Asked[];
}

export interface MapBody {
  readonly _id: string;
  readonly _rev: string;
  readonly _conflicts?: readonly string[];
  readonly by_node: Record<string, string[]>;
  readonly by_range: Record<string, string[]>;
  readonly shard_suffix: readonly number[];
  readonly changelog: readonly (readonly string[])[];
}

/** The shard map as the asked node has it, with its conflicts. */
export async function mapOf(asked: Asked, database: string): Promise<MapBody> {
  return (await asked.ask('GET', `_node/_local/_dbs/${database}?conflicts=true`)).body as MapBody;
}

/** What each single copy says of itself, read on its own node, not through the database: by range. */
export async function copiesOf(
  asked: Asked,
  database: string,
  path: '' | '/_security' | '/_revs_limit',
): Promise<Map<string, unknown[]>> {
  const map = await mapOf(asked, database);
  const suffix = String.fromCharCode(...map.shard_suffix);
  const found = new Map<string, unknown[]>();
  for (const [range, holders] of Object.entries(map.by_range)) {
    for (const holder of holders) {
      const copy = encodeURIComponent(`shards/${range}/${database}${suffix}`);
      const { body } = await asked.ask('GET', `_node/${holder}/${copy}${path}`);
      found.set(range, [
        ...(found.get(range) ?? []),
        path === '' ? (body as { doc_count: number }).doc_count : body,
      ]);
    }
  }
  return found;
}

/** Copies whose `_security` is another than the one that was set. */
export async function securityDisagreements(asked: Asked, database: string, wanted: object): Promise<number> {
  const copies = [...(await copiesOf(asked, database, '/_security')).values()].flat();
  return copies.filter((copy) => !isDeepStrictEqual(copy, wanted)).length;
}

/** Ranges that have fewer than `copies` copies, or copies that do not hold the same number of documents. */
export async function underReplicated(asked: Asked, database: string, copies: number): Promise<number> {
  const counts = [...(await copiesOf(asked, database, '')).values()];
  return counts.filter((found) => found.length < copies || new Set(found).size !== 1).length;
}

/** A document acknowledged so long ago must be seen by every read. */
const SETTLE_MS = 1000;
/** A wrong answer is asked again for so long, to say whether it was a moment's or stays. */
const WRONG_WATCHED_MS = 3000;
/** More are the same thing again, and each is asked 50 times a second. */
const WRONG_WATCHED = 10;

export interface Verdict {
  readonly acknowledged: number;
  /** Requests that got no answer or an error: a client's balancer would try another node. */
  readonly failed: number;
  readonly reads: number;
  readonly wrongReads: readonly string[];
}

export class Checker {
  readonly #cluster: Rotation;
  readonly #database: string;
  readonly #acknowledged = new Map<string, number>();
  readonly #wrong: string[] = [];
  readonly #watches: Promise<void>[] = [];
  #failed = 0;
  #reads = 0;
  readonly #beganMs = performance.now();
  readonly #ended = new AbortController();
  readonly #loops: Promise<void>[];

  constructor(cluster: Rotation, database: string, before: readonly string[]) {
    this.#cluster = cluster;
    this.#database = database;
    for (const id of before) this.#acknowledged.set(id, 0);
    this.#loops = [this.#write(0), this.#write(1), this.#read(), this.#count()];
  }

  get reads(): number {
    return this.#reads;
  }

  async stop(): Promise<Verdict> {
    this.#ended.abort();
    await Promise.all(this.#loops);
    await Promise.all(this.#watches);
    return {
      acknowledged: this.#acknowledged.size,
      failed: this.#failed,
      reads: this.#reads,
      wrongReads: this.#wrong,
    };
  }

  /** Acknowledged documents that a node still does not have when the settle time is long over. */
  async lostOn(node: Asked, withinMs = 10_000): Promise<string[]> {
    const sinceMs = performance.now();
    for (;;) {
      const all = await node.ask('GET', `${this.#database}/_all_docs`);
      const rows = (all.body as { rows?: { id: string }[] }).rows ?? [];
      const present = new Set(rows.map((row) => row.id));
      const lost = [...this.#acknowledged.keys()].filter((id) => !present.has(id));
      if (lost.length === 0 || isOver(sinceMs, withinMs)) return lost;
      await delay(200);
    }
  }

  #pick(turn: number): Asked | undefined {
    const nodes = this.#cluster.rotation();
    return nodes[turn % Math.max(1, nodes.length)];
  }

  async #write(writer: number): Promise<void> {
    for (let turn = 0; !this.#ended.signal.aborted; turn += 1) {
      const id = `w${writer}-${turn}`;
      await this.#attempt(this.#pick(turn), async (node) => {
        const { status } = await node.ask('PUT', `${this.#database}/${id}`, { turn });
        if (status === 201 || status === 202) this.#acknowledged.set(id, performance.now());
        else this.#failed += 1;
      });
      await delay(40);
    }
  }

  async #read(): Promise<void> {
    for (let turn = 0; !this.#ended.signal.aborted; turn += 1) {
      const settled = this.#settled();
      const id = settled[(turn * 7919) % Math.max(1, settled.length)];
      if (id !== undefined) {
        await this.#attempt(this.#pick(turn), async (node) => {
          const { status } = await node.ask('GET', `${this.#database}/${id}`);
          if (status === 404) {
            const wrong = `${id} is missing through ${node.address}`;
            this.#note(wrong, async () => (await node.ask('GET', `${this.#database}/${id}`)).status === 200);
          } else if (status !== 200) this.#failed += 1;
          this.#reads += 1;
        });
      }
      await delay(40);
    }
  }

  async #count(): Promise<void> {
    for (let turn = 0; !this.#ended.signal.aborted; turn += 1) {
      const least = this.#settled().length;
      await this.#attempt(this.#pick(turn), async (node) => {
        const { status, body } = await node.ask('GET', this.#database);
        if (status !== 200) this.#failed += 1;
        else {
          const { doc_count: found } = body as { doc_count: number };
          if (found < least) {
            const wrong = `${found} of ${least} documents counted through ${node.address}`;
            this.#note(wrong, async () => {
              const again = (await node.ask('GET', this.#database)).body as { doc_count?: number };
              return (again.doc_count ?? 0) >= least;
            });
          }
        }
        this.#reads += 1;
      });
      await delay(60);
    }
  }

  /** One wrong read with when it was seen; of the first ones also for how long the same question was answered so. */
  #note(wrong: string, right: () => Promise<boolean>): void {
    const seconds = ((performance.now() - this.#beganMs) / 1000).toFixed(1);
    const index = this.#wrong.push(`${seconds} s: ${wrong}`) - 1;
    if (index < WRONG_WATCHED) this.#watches.push(this.#watch(index, right));
  }

  async #watch(index: number, right: () => Promise<boolean>): Promise<void> {
    const beganMs = performance.now();
    let lasted = 'when it was asked last';
    while (performance.now() - beganMs < WRONG_WATCHED_MS) {
      if (await right().catch(() => false)) {
        lasted = `for ${Math.round(performance.now() - beganMs)} ms`;
        break;
      }
      await delay(20);
    }
    this.#wrong[index] += `, still so ${lasted}`;
  }

  #settled(): string[] {
    const beforeMs = performance.now() - SETTLE_MS;
    return [...this.#acknowledged].filter(([, atMs]) => atMs < beforeMs).map(([id]) => id);
  }

  async #attempt(node: Asked | undefined, request: (node: Asked) => Promise<void>): Promise<void> {
    if (node === undefined) {
      this.#failed += 1;
      return;
    }
    try {
      await request(node);
    } catch {
      this.#failed += 1;
    }
  }
}
