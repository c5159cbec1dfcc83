import { type Couch, CouchError, type Credentials } from './couch.ts';

interface Version {
  readonly rev: string;
  readonly body: Readonly<Record<string, unknown>>;
}
type Lookup =
  | { readonly found: readonly Version[] }
  /** `deleted`: it existed before. */
  | { readonly found: undefined; readonly deleted: boolean };

/** Single documents of one database, in the name of one account, with the losing versions of a conflict. */
export class Documents {
  readonly #couch: Couch;
  readonly #as: Credentials;
  readonly #base: string;

  constructor(couch: Couch, database: string, as: Credentials) {
    this.#couch = couch;
    this.#as = as;
    this.#base = `/${encodeURIComponent(database)}`;
  }

  /** The winner first. @throws CouchError */
  async read(id: string): Promise<Lookup> {
    const path = `${this.#base}/${encodeURIComponent(id)}`;
    const { status, body } = await this.#couch.ask({
      method: 'GET',
      path: `${path}?conflicts=true`,
      as: this.#as,
    });
    // The other reason is that the database is missing: then nothing is known of the document.
    if (status === 404 && (body['reason'] === 'missing' || body['reason'] === 'deleted'))
      return { found: undefined, deleted: body['reason'] === 'deleted' };
    if (status !== 200) throw refused('reading', status, body);
    const others = (body['_conflicts'] ?? []) as string[];
    const versions = [{ rev: body['_rev'] as string, body }];
    for (const rev of others) {
      const one = await this.#couch.ask({ method: 'GET', path: `${path}?rev=${rev}`, as: this.#as });
      if (one.status === 200) versions.push({ rev, body: one.body });
    }
    return { found: versions };
  }

  /** Ids that begin with `prefix` and come after `after`, in CouchDB's order. @throws CouchError */
  async ids(prefix: string, after: string | undefined, limit: number): Promise<string[]> {
    const query = new URLSearchParams({
      startkey: JSON.stringify(after ?? prefix),
      endkey: JSON.stringify(`${prefix}\uFFF0`),
      limit: String(limit + 1),
    });
    const path = `${this.#base}/_all_docs?${query.toString()}`;
    const { status, body } = await this.#couch.ask({ method: 'GET', path, as: this.#as });
    if (status !== 200) throw refused('listing', status, body);
    const ids = (body['rows'] as readonly { readonly id: string }[]).map(({ id }) => id);
    return ids.filter((id) => id !== after).slice(0, limit);
  }

  /**
   * @returns whether it was written; `false`: another version exists
   * @throws CouchError `not-durable` if only a minority of the copies has it: writing it again is harmless
   */
  async write(id: string, body: object, rev?: string): Promise<boolean> {
    const path = `${this.#base}/${encodeURIComponent(id)}`;
    const document = rev === undefined ? body : { ...body, _rev: rev };
    const answer = await this.#couch.ask({ method: 'PUT', path, as: this.#as, body: document });
    if (answer.status === 409) return false;
    if (answer.status === 202)
      throw new CouchError('not-durable', 'too few databases have taken this change; try again');
    if (answer.status !== 201 && answer.status !== 200) throw refused('writing', answer.status, answer.body);
    return true;
  }

  /** A missing document counts as deleted. @throws CouchError */
  async remove(id: string, rev: string, as: Credentials = this.#as): Promise<void> {
    const path = `${this.#base}/${encodeURIComponent(id)}?rev=${rev}`;
    const { status, body } = await this.#couch.ask({ method: 'DELETE', path, as });
    if (status === 202)
      throw new CouchError('not-durable', 'too few databases have taken this change; try again');
    if (status !== 200 && status !== 404 && status !== 409) throw refused('deleting', status, body);
  }
}

function refused(what: string, status: number, body: Readonly<Record<string, unknown>>): CouchError {
  return new CouchError(
    'databases-refuse',
    `${what} is refused by CouchDB: ${status} ${String(body['reason'])}`,
  );
}
