import type { Account } from '../accounts/account.ts';
import { databaseOf } from '../accounts/names.ts';
import type { Accounts } from '../store/accounts.ts';
import type { Couch } from '../store/couch.ts';

/** How often sizes are read: a person can exceed the quota by what they write in that time. */
const EVERY_MS = 30_000;
const MAX_KNOWN = 10_000;

interface QuotaDependencies {
  readonly couch: Couch;
  readonly accounts: Pick<Accounts, 'asOwner'>;
  readonly nowMs: () => number;
}

/** How much space a person has. */
export class Quota {
  readonly bytes: number;
  readonly #dependencies: QuotaDependencies;
  readonly #sizes = new Map<string, { readonly bytes: number; readonly readMs: number }>();

  constructor(megabytes: number, dependencies: QuotaDependencies) {
    this.bytes = megabytes * 1024 * 1024;
    this.#dependencies = dependencies;
  }

  /** Bytes on disk of the own database, as of the last 30 s; undefined while it is being made. @throws CouchError */
  async used(account: Account): Promise<number | undefined> {
    const { couch, accounts, nowMs } = this.#dependencies;
    const last = this.#sizes.get(account.name);
    if (last !== undefined && nowMs() - last.readMs < EVERY_MS) return last.bytes;
    const path = `/${databaseOf(account.name)}`;
    const { status, body } = await accounts.asOwner(
      account,
      (as) => couch.ask({ method: 'GET', path, as }),
      (answer) => answer.status === 401,
    );
    if (status !== 200) return undefined;
    const bytes = (body as { sizes?: { file?: number } }).sizes?.file ?? 0;
    if (this.#sizes.size >= MAX_KNOWN) this.#sizes.clear();
    this.#sizes.set(account.name, { bytes, readMs: nowMs() });
    return bytes;
  }
}
