import { type Cluster, HttpError } from '../fabric/ask.ts';
import { createDatabase, deleteDatabase, openDatabase, setOnAll } from '../fabric/databases.ts';
import type { Copy } from '../store/copy.ts';
import type { Files } from '../store/files.ts';
import type { Body } from '../store/revision.ts';
import { rangeOf } from './shard_map.ts';

/** couch_peruser waits this long after it was enabled before its first database. */
const startPeriodMs = 5000;
const lookIntervalMs = 100;

/** `[couch_peruser]`: a database for each user document, made by one of the live holders of its range. */
export class Peruser {
  readonly #cluster: Cluster;
  readonly #files: Files;
  readonly #buffer: (node: string, op: string, args: object) => void;
  readonly #seen = new Map<string, number>();
  #enabledAt: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #busy = false;

  constructor(cluster: Cluster, files: Files, buffer: (node: string, op: string, args: object) => void) {
    this.#cluster = cluster;
    this.#files = files;
    this.#buffer = buffer;
  }

  start(): void {
    this.#timer = setInterval(() => void this.#look(), lookIntervalMs).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (!this.#cluster.settings.flag('couch_peruser', 'enable', false)) {
      this.#enabledAt = undefined;
      return;
    }
    this.#enabledAt ??= performance.now();
    const { catalogue, self } = this.#cluster;
    if (this.#busy || performance.now() - this.#enabledAt < startPeriodMs || !catalogue.has('_users')) return;
    this.#busy = true;
    for (const shard of catalogue.shards('_users')) {
      const copy = shard.node === self ? this.#files.open(shard.name) : undefined;
      if (copy !== undefined) await this.#readCopy(copy);
    }
    this.#busy = false;
  }

  async #readCopy(copy: Copy): Promise<void> {
    for (const change of copy.changes(this.#seen.get(copy.uuid) ?? 0, Number.MAX_SAFE_INTEGER)) {
      if (change.id.startsWith('org.couchdb.user:') && this.#isOwner(change.id)) {
        try {
          await this.#ensure(change.id.slice('org.couchdb.user:'.length), change.deleted === true);
        } catch {
          return; // a holder went away in the middle: again at the next look
        }
      }
      this.#seen.set(copy.uuid, change.seq);
    }
  }

  /** The first live holder in the order of the map decides, so that only one does. */
  #isOwner(id: string): boolean {
    const { nodes } = rangeOf(this.#cluster.catalogue.map('_users'), id);
    return nodes.find((node) => this.#cluster.distribution.isConnected(node)) === this.#cluster.self;
  }

  async #ensure(user: string, deleted: boolean): Promise<void> {
    const { settings, catalogue } = this.#cluster;
    const db = `${settings.get('couch_peruser', 'database_prefix') ?? 'userdb-'}${Buffer.from(user).toString('hex')}`;
    if (deleted) {
      const may = settings.flag('couch_peruser', 'delete_dbs', false);
      if (may && catalogue.has(db)) await deleteDatabase(this.#cluster, db);
      return;
    }
    if (!catalogue.has(db)) {
      await createDatabase(this.#cluster, db, { q: settings.number('couch_peruser', 'q', 1) }).catch(
        (error: unknown) => {
          if (!(error instanceof HttpError && error.status === 412)) throw error;
        },
      );
    }
    const { security } = await openDatabase(this.#cluster, db);
    const wanted = {
      ...security,
      members: withName(security.members, user),
      admins: withName(security.admins, user),
    };
    if (JSON.stringify(wanted) === JSON.stringify(security)) return;
    await setOnAll(this.#cluster, db, 'set_security', { security: wanted }, this.#buffer);
  }
}

function withName(part: unknown, user: string): Body {
  const body = (part ?? {}) as Body;
  const names = (body.names ?? []) as string[];
  return { ...body, names: names.includes(user) ? names : [...names, user] };
}
