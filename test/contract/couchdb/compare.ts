/**
 * The one normaliser: what of a recorded answer must be found again word for word, and what may differ because
 * it is drawn again in every run.
 *
 * | in the recording | must be |
 * |---|---|
 * | revision of a document | the same, digit for digit (it is a hash of the content) |
 * | revision of a shard map or of a `_users` document (they hold a time, a salt) | of the same generation; the same
 * recorded one is always the same here |
 * | uuid, secret, password hash | always the same here for the same recorded one, never the same for two |
 * | clustered sequence `21-g1AAA…` | of the same number |
 * | suffix of a database (its second of creation) | one, of the same form |
 * | time, size, `ref`, `bookmark`, counters of `_system` | there, and of the same type |
 * | id of a checkpoint | another checkpoint's (a hash of two uuids) |
 *
 * Of a release, which is not pinned, also:
 *
 * | in the recording | must be |
 * |---|---|
 * | order of holders, of a node's ranges, of a map's changelog | any: it follows from the random node that came first |
 * | `committed_update_seq` | at most that: the file is synced when the server likes |
 * | generation of a map that was made again, see `draw` in replay.ts | higher by two for each time |
 */
export type Context = {
  names: Names;
  /** The document whose revisions are drawn again, so far as the answer is about one; `any` for a list of such. */
  drawnFor: string | undefined;
  /** A release is asked: it deals copies out from a random node on and commits files when it likes. */
  chance: boolean;
};

const hex32 = /^[0-9a-f]{32}$/;
const revision = /^(\d+)-[0-9a-f]{32}$/;
const passwordHash = /^-pbkdf2:sha256-[0-9a-f]{64},[0-9a-f]{32},\d+$/;
const copyName = /^(shards\/[0-9a-f]{8}-[0-9a-f]{8}\/.+)(\.\d{10})$/;
const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;
const volatileKeys = new Set([
  'derived_key',
  'instance_start_time',
  'timestamp',
  'ref',
  'sizes',
  'purge_seq',
  'password',
  'history',
  'uptime',
  'memory',
]);
/** Lists whose order follows from the random node that a map began with. */
const dealtOut = /\.(?:by_node|by_range|shards)\.[^[]+$|\.(?:changelog|nodes)$/;
const seqKeys = new Set(['update_seq', 'last_seq', 'seq']);

/** Which recorded name stands for which here, in both directions. */
export class Names {
  readonly #here = new Map<string, string>();
  readonly #recorded = new Map<string, string>();
  readonly #madeAnew = new Map<string, number>();

  /** @returns whether the pair fits what is known */
  learn(kind: string, recorded: string, here: string): boolean {
    const known = this.#here.get(`${kind} ${recorded}`);
    if (known !== undefined) return known === here;
    const other = this.#recorded.get(`${kind} ${here}`);
    if (other !== undefined && other !== recorded) return false;
    this.#here.set(`${kind} ${recorded}`, here);
    this.#recorded.set(`${kind} ${here}`, recorded);
    return true;
  }

  /** For what several recorded ones may share here: databases of one second have one suffix. */
  note(kind: string, recorded: string, here: string): void {
    this.#here.set(`${kind} ${recorded}`, here);
  }

  /** A deletion and another creation: two more generations. */
  madeAnew(document: string): void {
    this.#madeAnew.set(document, this.shift(document) + 2);
  }

  /** Generations that a document has here beyond those of the recording. */
  shift(document: string | undefined): number {
    return this.#madeAnew.get(document ?? '') ?? 0;
  }

  get shifts(): number[] {
    return [0, ...this.#madeAnew.values()];
  }

  here(kind: string, recorded: string): string | undefined {
    return this.#here.get(`${kind} ${recorded}`);
  }
}

/** @returns where and how the answer differs, nothing when it does not */
export function difference(recorded: unknown, here: unknown, context: Context, at = ''): string | undefined {
  const key = at.slice(at.lastIndexOf('.') + 1);
  if (context.chance && key === 'committed_update_seq')
    return Number(here) <= Number(recorded) ? undefined : differ(at, recorded, here);
  if (volatileKeys.has(key)) return sameType(recorded, here, at);
  if (key === 'bookmark')
    return (recorded === 'nil') === (here === 'nil') ? undefined : differ(at, recorded, here);
  if (seqKeys.has(key) && typeof recorded === 'string') return differentSeq(recorded, here, at);
  if (key === 'shard_suffix') return differentSuffix(recorded, here, context, at);
  if (typeof recorded === 'string') return differentText(recorded, here, context, at);
  if (Array.isArray(recorded)) return differentList(recorded, here, context, at);
  if (recorded !== null && typeof recorded === 'object') return differentObject(recorded, here, context, at);
  return recorded === here ? undefined : differ(at, recorded, here);
}

function differ(at: string, recorded: unknown, here: unknown): string {
  const show = (value: unknown) => (JSON.stringify(value) ?? 'nothing').slice(0, 300);
  return `${at || 'body'}: recorded ${show(recorded)}, here ${show(here)}`;
}

function sameType(recorded: unknown, here: unknown, at: string): string | undefined {
  return typeof recorded === typeof here ? undefined : differ(at, recorded, here);
}

function differentSeq(recorded: string, here: unknown, at: string): string | undefined {
  const number = (seq: unknown) => String(seq).split('-')[0];
  return number(recorded) === number(here) ? undefined : differ(at, recorded, here);
}

function differentSuffix(
  recorded: unknown,
  here: unknown,
  { names }: Context,
  at: string,
): string | undefined {
  const text = (codes: unknown) => String.fromCodePoint(...(codes as number[]));
  if (!Array.isArray(here) || !/^\.\d{10}$/.test(text(here))) return differ(at, recorded, here);
  names.note('suffix', text(recorded), text(here));
  return undefined;
}

function differentText(recorded: string, here: unknown, context: Context, at: string): string | undefined {
  if (recorded === here) return undefined;
  if (typeof here !== 'string') return differ(at, recorded, here);
  const [generation, copy] = [revision.exec(recorded)?.[1], copyName.exec(recorded)];
  const learn = (kind: string) =>
    context.names.learn(kind, recorded, here) ? undefined : differ(at, recorded, here);
  if (generation !== undefined && context.drawnFor !== undefined) {
    const more = Number(revision.exec(here)?.[1]) - Number(generation);
    if (context.drawnFor === 'any' && context.names.shifts.includes(more)) return undefined;
    if (context.drawnFor !== 'any' && more === context.names.shift(context.drawnFor))
      return learn(`revision ${context.drawnFor}`);
  }
  if (hex32.test(recorded) && hex32.test(here)) return learn('uuid');
  if (passwordHash.test(recorded) && passwordHash.test(here)) return learn('hash');
  if (copy !== null && copyName.exec(here)?.[1] === copy[1]) return undefined;
  if (recorded.startsWith('_local/shard-sync-') && here.startsWith('_local/shard-sync-')) return undefined;
  if (time.test(recorded) && time.test(here)) return undefined;
  return differ(at, recorded, here);
}

function differentList(recorded: unknown[], here: unknown, context: Context, at: string): string | undefined {
  if (!Array.isArray(here) || here.length !== recorded.length) return differ(at, recorded, here);
  if (context.chance && dealtOut.test(at)) {
    const sorted = (list: unknown[]) => JSON.stringify(list.map((item) => JSON.stringify(item)).toSorted());
    return sorted(recorded) === sorted(here) ? undefined : differ(at, recorded, here);
  }
  for (const [i, item] of recorded.entries()) {
    if (
      typeof item === 'object' &&
      item !== null &&
      'id' in item &&
      String(item.id).startsWith('_local/shard-sync')
    )
      continue;
    const found = difference(item, here[i], context, `${at}[${i}]`);
    if (found !== undefined) return found;
  }
  return undefined;
}

function differentObject(recorded: object, here: unknown, context: Context, at: string): string | undefined {
  if (here === null || typeof here !== 'object' || Array.isArray(here)) return differ(at, recorded, here);
  const keys = Object.keys(recorded).toSorted();
  const keysHere = Object.keys(here).toSorted();
  if (keys.join() !== keysHere.join()) return differ(`${at} keys`, keys, keysHere);
  if ('uptime' in recorded && 'process_count' in recorded) return differentSystem(recorded, here);
  for (const key of keys) {
    if (key === 'seq' && 'target_uuid' in recorded) continue; // a checkpoint's, of a copy filled in other batches
    const found = difference(
      recorded[key as keyof object],
      here[key as keyof object],
      context,
      `${at}.${key}`,
    );
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Of `_system` the names count, and which nodes it speaks of, and the backlog. */
function differentSystem(recorded: object, here: object): string | undefined {
  const facts = (body: object) => {
    const { distribution, internal_replication_jobs: jobs } = body as Record<string, unknown>;
    return JSON.stringify([Object.keys(distribution as object).toSorted(), jobs]);
  };
  return facts(recorded) === facts(here) ? undefined : differ('_system', facts(recorded), facts(here));
}
