import { Refusal } from '../dist/distribution.ts';
import type { Copy } from '../store/copy.ts';
import type { Files } from '../store/files.ts';
import { parseMap, type Shard, type ShardMap, shardsOf } from './shard_map.ts';

/** Databases and where their copies are: the shard maps in this node's own `_dbs` database (mem3_shards). */
export class Catalogue {
  readonly #self: string;
  readonly #files: Files;
  #copy: Copy | undefined;
  readonly #maps = new Map<string, ShardMap>();

  constructor(self: string, files: Files) {
    this.#self = self;
    this.#files = files;
  }

  async start(): Promise<void> {
    const { copy } = await this.#files.create('_dbs');
    this.#copy = copy;
    for (const id of copy.ids()) await this.#read(id);
    copy.changed.on('change', (id: string) => void this.#read(id));
  }

  get copy(): Copy {
    if (this.#copy === undefined) throw new Refusal('not_started');
    return this.#copy;
  }

  databases(): string[] {
    return this.copy.ids().filter((id) => !id.startsWith('_design/'));
  }

  has(db: string): boolean {
    return this.#maps.has(db);
  }

  /** @throws Refusal `database_does_not_exist` */
  map(db: string): ShardMap {
    const map = this.#maps.get(db);
    if (map === undefined) throw new Refusal('database_does_not_exist');
    return map;
  }

  shards(db: string): Shard[] {
    return shardsOf(this.map(db));
  }

  /** All copies that any map places anywhere. */
  all(): Shard[] {
    return [...this.#maps.values()].flatMap((map) => shardsOf(map));
  }

  /** Whether a map places this very file on this node. */
  holds(name: string): boolean {
    return this.all().some((shard) => shard.name === name && shard.node === this.#self);
  }

  /** A changed map makes the files it places here, empty; it removes none and copies nothing. */
  async #read(id: string): Promise<void> {
    const lookup = this.copy.get(id);
    if (id.startsWith('_design/')) return;
    if ('missing' in lookup) {
      this.#maps.delete(id);
      return;
    }
    const map = parseMap(id, lookup.found.body);
    this.#maps.set(id, map);
    for (const shard of shardsOf(map)) {
      if (shard.node === this.#self) await this.#files.create(shard.name);
    }
  }
}
