import type { AuditTrail } from '../audit/trail.ts';
import { type ExchangeDependencies, fetchSecrets } from './exchange.ts';
import { LEFT } from './roster/removal.ts';
import type { Roster } from './roster/roster.ts';
import { notRolledFor, outranks, rankOf, rollAppKeys, rollSecrets } from './secrets.ts';
import type { Log } from '../process/log.ts';
import type { Member, PeerId, Role } from '../membership/types.ts';
import type { SecretsHandOver } from './secrets-hand-over.ts';
import { storageNext } from './storage.ts';

/** Tag in a db node's record: the secrets that it has. */
export const SECRETS_TAG = 'secrets';

/** The facts of members that this file needs. */
interface SecretsView {
  readonly synced: boolean;
  readonly members: readonly (Pick<Member, 'record' | 'self' | 'state'> & { readonly rank: number })[];
}

/** Checks the secrets of an app node once: fetches those of a db node with newer ones. */
export async function keepAppSecrets(
  exchange: ExchangeDependencies,
  view: SecretsView,
): Promise<string | undefined> {
  const own = exchange.identity.secrets.get();
  if (own?.kind !== 'app') return undefined;
  const ahead = peersAhead(view, own.rank);
  const taken = ahead.length > 0 && (await fetchSecrets(exchange, ahead));
  return taken ? 'received the new keys of the app tier' : undefined;
}

/**
 * Checks the secrets of role db once: fetches those of a peer with newer ones; otherwise replaces them, if a removed
 * node knows these and this node is the one to do it. Level-triggered: after a crash the next check does it, here or on
 * the node that is then first.
 *
 * @returns what was done, for the audit trail; undefined if nothing
 */
export async function keepDbSecrets(
  exchange: ExchangeDependencies,
  view: SecretsView,
): Promise<string | undefined> {
  const { identity } = exchange;
  const own = identity.secrets.get();
  if (own?.kind !== 'db') return undefined;
  const ahead = peersAhead(view, rankOf(own));
  if (ahead.length > 0) {
    const taken = await fetchSecrets(exchange, ahead);
    return taken ? 'received the new Erlang cookie and CouchDB’s new secret' : undefined;
  }
  if (!view.synced || firstDatabase(view) !== identity.peerId) return undefined;
  if (own.appKeys.length === 0 && isFirstOfAll(view)) {
    await identity.secrets.put(rollAppKeys(own, []));
    return 'made the first key of the app tier';
  }
  const databases = notRolledFor(own, removed(identity.roster, 'db'));
  if (databases.length > 0) {
    await identity.secrets.put(rollSecrets(own, databases));
    return 'replaced the Erlang cookie and CouchDB’s secret, since a db node was removed';
  }
  const apps = notRolledFor(own, removed(identity.roster, 'app'));
  if (apps.length === 0) return undefined;
  await identity.secrets.put(rollAppKeys(own, apps));
  return 'made a new key of the app tier, since an app node was removed: people sign in again';
}

interface SecretsKeeperDependencies {
  readonly exchange: ExchangeDependencies;
  readonly log: Log;
  readonly audit: Pick<AuditTrail, 'append'>;
  readonly node: { readonly last: { readonly view: SecretsView }; turn(reason: string): void };
  /** The app tier's file; undefined on a node without app tier. */
  readonly handOver: SecretsHandOver | undefined;
}

/** Keeps this node's role secrets present and up to date. */
export class SecretsKeeper {
  readonly #dependencies: SecretsKeeperDependencies;
  #looking = false;

  constructor(dependencies: SecretsKeeperDependencies) {
    this.#dependencies = dependencies;
  }

  /** Does nothing while another check runs. Never throws. */
  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const { exchange, handOver } = this.#dependencies;
    try {
      await this.#keep();
      await handOver?.write(exchange.identity.secrets.get());
    } catch (error) {
      const next = `${storageNext(error)}; it is tried again by itself`;
      this.#dependencies.log.warn({ err: error, next }, 'this role’s secrets cannot be kept');
    } finally {
      this.#looking = false;
    }
  }

  async #keep(): Promise<void> {
    const { exchange, node, audit } = this.#dependencies;
    const { identity } = exchange;
    if (identity.secrets.get() === undefined) {
      if (await fetchSecrets(exchange)) node.turn('this role’s secrets arrived');
      return;
    }
    const keep = identity.secrets.get()?.kind === 'db' ? keepDbSecrets : keepAppSecrets;
    const done = await keep(exchange, node.last.view);
    if (done === undefined) return;
    audit.append({ kind: 'daemon', summary: done, trigger: '', subjects: [identity.name], result: 'ok' });
    node.turn(done);
  }
}

/** Members with newer secrets than these, the newest first. */
function peersAhead(view: SecretsView, rank: string): PeerId[] {
  return view.members
    .filter(({ record, self }) => !self && record.role === 'db' && outranks(rankIn(record.tags), rank))
    .toSorted((a, b) => (outranks(rankIn(a.record.tags), rankIn(b.record.tags)) ? -1 : 1))
    .map(({ record }) => record.peerId);
}

const rankIn = (tags: Readonly<Record<string, string>>): string => tags[SECRETS_TAG] ?? '';

/** Exactly one node makes them: the first in order of admission among living members that have some. */
function firstDatabase(view: SecretsView): PeerId | undefined {
  return view.members
    .filter(({ record, self, state }) => record.role === 'db' && (self || state === 'alive'))
    .filter(({ record, self }) => self || rankIn(record.tags) !== '')
    .toSorted((a, b) => a.rank - b.rank)[0]?.record.peerId;
}

/** In a partition two first keys would be made, and the names that follow from one of them would be lost. */
function isFirstOfAll(view: SecretsView): boolean {
  const [first] = view.members
    .filter(({ record }) => record.role === 'db')
    .toSorted((a, b) => a.rank - b.rank);
  return first?.self === true;
}

/** Removed by an operator. A node that left was trusted until then, and its machine still belongs to the operator. */
function removed(roster: Roster, role: Role): PeerId[] {
  return roster
    .revocations()
    .filter(({ name, reason }) => name.endsWith(`/${role}`) && !reason.startsWith(LEFT))
    .map(({ peerId }) => peerId);
}
