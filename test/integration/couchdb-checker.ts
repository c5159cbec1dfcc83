/** Writers and readers through the nodes in rotation, and the count of what went wrong. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Cluster, Node } from './couchdb-cluster.ts';

/** A document acknowledged so long ago must be seen by every read. */
const SETTLE_MS = 1000;

export interface Verdict {
  readonly acknowledged: number;
  /** Requests that got no answer or an error: a client's balancer would try another node. */
  readonly failed: number;
  readonly reads: number;
  readonly wrongReads: readonly string[];
}

export class Checker {
  readonly #cluster: Cluster;
  readonly #database: string;
  readonly #acknowledged = new Map<string, number>();
  readonly #wrong: string[] = [];
  #failed = 0;
  #reads = 0;
  readonly #ended = new AbortController();
  readonly #loops: Promise<void>[];

  constructor(cluster: Cluster, database: string, before: readonly string[]) {
    this.#cluster = cluster;
    this.#database = database;
    for (const id of before) this.#acknowledged.set(id, 0);
    this.#loops = [this.#write(0), this.#write(1), this.#read(), this.#count()];
  }

  async stop(): Promise<Verdict> {
    this.#ended.abort();
    await Promise.all(this.#loops);
    return {
      acknowledged: this.#acknowledged.size,
      failed: this.#failed,
      reads: this.#reads,
      wrongReads: this.#wrong,
    };
  }

  /** Acknowledged documents that a node still does not have when the settle time is long over. */
  async lostOn(node: Node): Promise<string[]> {
    const endMs = performance.now() + 10_000;
    for (;;) {
      const all = await node.ask('GET', `${this.#database}/_all_docs`);
      const rows = (all.body as { rows?: { id: string }[] }).rows ?? [];
      const present = new Set(rows.map((row) => row.id));
      const lost = [...this.#acknowledged.keys()].filter((id) => !present.has(id));
      if (lost.length === 0 || performance.now() > endMs) return lost;
      await delay(200);
    }
  }

  #pick(turn: number): Node | undefined {
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
          if (status === 404) this.#wrong.push(`${id} is missing through ${node.address}`);
          else if (status !== 200) this.#failed += 1;
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
          if (found < least)
            this.#wrong.push(`${found} of ${least} documents counted through ${node.address}`);
        }
        this.#reads += 1;
      });
      await delay(60);
    }
  }

  #settled(): string[] {
    const beforeMs = performance.now() - SETTLE_MS;
    return [...this.#acknowledged].filter(([, atMs]) => atMs < beforeMs).map(([id]) => id);
  }

  async #attempt(node: Node | undefined, request: (node: Node) => Promise<void>): Promise<void> {
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
