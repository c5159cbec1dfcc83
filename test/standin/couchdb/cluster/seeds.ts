import type { Cluster } from '../fabric/ask.ts';
import type { StoredDoc } from '../store/copy.ts';
import type { Files } from '../store/files.ts';

/** mem3_seeds asks the next seed after so long; the first that answers is enough. */
const retryMs = 1000;

type SeedState = {
  timestamp?: string;
  last_replication_status?: 'ok' | 'error';
  pending_updates?: Record<string, number>;
};

/**
 * `[cluster] seedlist`: this node enters the seeds as members of its own, pulls `_nodes` and `_dbs` from the
 * first that can be reached and says "seeding" until it has.
 */
export class Seeds {
  readonly #cluster: Cluster;
  readonly #files: Files;
  readonly #state = new Map<string, SeedState>();
  #ready = true;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(cluster: Cluster, files: Files) {
    this.#cluster = cluster;
    this.#files = files;
  }

  get isReady(): boolean {
    return this.#ready;
  }

  /** As `/_up` shows them. */
  status(): Record<string, SeedState> {
    return Object.fromEntries(this.#state);
  }

  async start(): Promise<void> {
    const { settings, self } = this.#cluster;
    const list = (settings.get('cluster', 'seedlist') ?? '').split(',').map((seed) => seed.trim());
    const seeds = list.filter((seed) => seed !== '' && seed !== self);
    if (seeds.length === 0) return;
    for (const seed of seeds) this.#state.set(seed, {});
    this.#ready = false;
    const { copy } = await this.#files.create('_nodes');
    for (const seed of seeds) {
      if ('missing' in copy.get(seed)) copy.edit({ id: seed, deleted: false, body: {} });
    }
    void this.#pull(seeds, 0);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #pull(seeds: string[], turn: number): Promise<void> {
    const seed = seeds[turn % seeds.length] as string;
    const { distribution } = this.#cluster;
    let status: 'ok' | 'error' = 'error';
    try {
      await distribution.connect(seed);
      for (const name of ['_nodes', '_dbs']) await this.#pullCopy(seed, name);
      status = 'ok';
      this.#ready = true;
    } catch {
      // not reachable yet: the next in the list has its turn
    }
    const pending = status === 'ok' ? { pending_updates: { _nodes: 0, _dbs: 0, _users: 0 } } : {};
    const timestamp = new Date().toISOString().replace('Z', '000Z');
    this.#state.set(seed, { timestamp, ...pending, last_replication_status: status });
    if (this.#ready || this.#stopped) return;
    this.#timer = setTimeout(() => void this.#pull(seeds, turn + 1), retryMs).unref();
  }

  async #pullCopy(seed: string, name: string): Promise<void> {
    const { copy } = await this.#files.create(name);
    const docs = await this.#cluster.distribution.call<StoredDoc[]>(seed, 'seeds.docs', { name });
    for (const doc of docs) copy.put(doc);
    await this.#files.flush(name);
  }

  serve(): void {
    this.#cluster.distribution.handle('seeds.docs', ({ name }: { name: string }) => {
      const copy = this.#files.open(name);
      return copy?.changes(0, Number.MAX_SAFE_INTEGER).flatMap(({ id }) => copy.leaves(id)) ?? [];
    });
  }
}
