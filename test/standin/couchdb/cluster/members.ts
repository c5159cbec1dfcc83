import type { Distribution } from '../dist/distribution.ts';
import type { Settings } from '../start/settings.ts';
import type { Copy } from '../store/copy.ts';
import type { Files } from '../store/files.ts';
import type { Body } from '../store/revision.ts';

/** A new member is called this long after its document was written: a membership asked at once lacks it. */
const connectDelayMs = 60;

/**
 * Who is in the cluster: the documents of this node's own `_nodes` database (mem3_nodes), with no check of
 * any kind. Keeps trying to reach those that are not connected.
 */
export class Members {
  readonly #self: string;
  readonly #files: Files;
  readonly #distribution: Distribution;
  readonly #settings: Settings;
  readonly #seen = new Set<string>();
  #copy: Copy | undefined;
  #known = new Map<string, Body>();
  #onAdded: (node: string) => void = () => undefined;
  #reconnect: NodeJS.Timeout | undefined;

  constructor(files: Files, distribution: Distribution, settings: Settings) {
    this.#self = distribution.self;
    this.#files = files;
    this.#distribution = distribution;
    this.#settings = settings;
  }

  /** Opens `_nodes` and enters this node when it is not there: so one that left is back after a restart. */
  async start(onAdded: (node: string) => void): Promise<void> {
    this.#onAdded = onAdded;
    const { copy } = await this.#files.create('_nodes');
    this.#copy = copy;
    if ('missing' in copy.get(this.#self)) copy.edit({ id: this.#self, deleted: false, body: {} });
    this.#read();
    copy.changed.on('change', () => this.#read());
    this.#scheduleReconnect();
  }

  stop(): void {
    clearTimeout(this.#reconnect);
  }

  /** Sorted names; this node is among them unless it was removed. */
  list(): string[] {
    return [...this.#known.keys()].toSorted();
  }

  has(node: string): boolean {
    return this.#known.has(node);
  }

  attributes(node: string): Body {
    return this.#known.get(node) ?? {};
  }

  /** Connected members without this node. */
  live(): string[] {
    return this.list().filter((node) => node !== this.#self && this.#distribution.isConnected(node));
  }

  /** Every name heard of since the start: a name never heard of is "no such node". */
  isHeardOf(node: string): boolean {
    return this.#seen.has(node) || this.#distribution.isConnected(node);
  }

  /** The next live member in the ring of sorted names, itself when alone; none when this node was removed. */
  next(): string | undefined {
    const ring = this.list().filter((node) => node === this.#self || this.#distribution.isConnected(node));
    const at = ring.indexOf(this.#self);
    return at < 0 ? undefined : ring[(at + 1) % ring.length];
  }

  #read(): void {
    const before = this.#known;
    const rows = this.#copy?.rows({ docs: true }) ?? [];
    this.#known = new Map(rows.map(({ id, doc }) => [id, doc ?? {}]));
    for (const change of this.#copy?.changes(0, Number.POSITIVE_INFINITY) ?? []) this.#seen.add(change.id);
    for (const node of this.#known.keys()) {
      if (before.has(node) || node === this.#self) continue;
      setTimeout(() => void this.#distribution.connect(node), connectDelayMs).unref();
      this.#onAdded(node);
    }
  }

  #scheduleReconnect(): void {
    const seconds = this.#settings.number('cluster', 'reconnect_interval_sec', 37);
    const delayMs = seconds * 1000 * (1 + Math.random() / 4);
    this.#reconnect = setTimeout(() => {
      for (const node of this.list()) void this.#distribution.connect(node);
      this.#scheduleReconnect();
    }, delayMs).unref();
  }
}
