import type { EffectiveView } from '../../roles/effective.ts';
import type { AuditTrail } from '../reconciler/audit.ts';
import { type ExchangeDependencies, fetchSecrets } from './exchange.ts';
import { LEFT } from '../identity/roster/removal.ts';
import type { Roster } from '../identity/roster/roster.ts';
import { notRolledFor, outranks, rankOf, rollSecrets } from '../identity/secrets.ts';
import type { Log } from '../process/log.ts';
import type { PeerId } from '../membership/types.ts';

/** Under this tag a db node says in its record which secrets it has. */
export const SECRETS_TAG = 'secrets';

/**
 * One look at the secrets of role db: takes those of a peer that has newer ones; else rolls them, if a db node was removed
 * that knows these and this node is the one to do it. Level-triggered: a roll that a crash cut short is made at the next look,
 * here or by whoever is first then.
 *
 * @returns what was done, for the audit trail; undefined when there was nothing to do
 */
export async function keepDbSecrets(
  exchange: ExchangeDependencies,
  view: EffectiveView,
): Promise<string | undefined> {
  const { identity } = exchange;
  const own = identity.secrets.get();
  if (own?.kind !== 'db') return undefined;
  const ahead = peersAhead(view, rankOf(own));
  if (ahead.length > 0) {
    const taken = await fetchSecrets(exchange, ahead);
    return taken ? 'took the Erlang cookie and CouchDB’s secret that were made anew' : undefined;
  }
  const removed = notRolledFor(own, removedDatabases(identity.roster));
  if (removed.length === 0 || !view.synced || firstDatabase(view) !== identity.peerId) return undefined;
  await identity.secrets.put(rollSecrets(own, removed));
  return 'made the Erlang cookie and CouchDB’s secret anew, since a db node was removed';
}

export interface SecretsKeeperDependencies {
  readonly exchange: () => ExchangeDependencies;
  readonly view: () => EffectiveView;
  readonly log: Log;
  readonly audit: Pick<AuditTrail, 'append'>;
  readonly lookAgain: (reason: string) => void;
  /** This node has others than it says in its record. */
  readonly share: () => void;
}

/** Sees to it that this node has its role's secrets, and those of now. */
export class SecretsKeeper {
  readonly #dependencies: SecretsKeeperDependencies;
  #looking = false;

  constructor(dependencies: SecretsKeeperDependencies) {
    this.#dependencies = dependencies;
  }

  /** Does nothing while another look is under way. Never throws. */
  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const { log, share } = this.#dependencies;
    try {
      if (await this.#keep()) share();
    } catch (error) {
      const next = 'free the disk: it is tried again by itself';
      log.warn({ err: error, next }, 'this role’s secrets cannot be kept');
    } finally {
      this.#looking = false;
    }
  }

  /** @returns whether they are others than before */
  async #keep(): Promise<boolean> {
    const { exchange, view, audit, lookAgain } = this.#dependencies;
    const { identity } = exchange();
    if (identity.secrets.get() === undefined) {
      if (!(await fetchSecrets(exchange()))) return false;
      lookAgain('this role’s secrets arrived');
      return true;
    }
    const done = await keepDbSecrets(exchange(), view());
    if (done === undefined) return false;
    audit.append({ kind: 'daemon', summary: done, trigger: '', subjects: [identity.name], result: 'ok' });
    lookAgain(done);
    return true;
  }
}

/** Who has newer secrets than these, the newest first. */
function peersAhead(view: EffectiveView, rank: string): PeerId[] {
  return view.members
    .filter(({ record, self }) => !self && record.role === 'db' && outranks(rankIn(record.tags), rank))
    .toSorted((a, b) => (outranks(rankIn(a.record.tags), rankIn(b.record.tags)) ? -1 : 1))
    .map(({ record }) => record.peerId);
}

const rankIn = (tags: Readonly<Record<string, string>>): string => tags[SECRETS_TAG] ?? '';

/** Exactly one makes them: the first in order of admission among those that live and have any. */
function firstDatabase(view: EffectiveView): PeerId | undefined {
  return view.members
    .filter(({ record, self, state }) => record.role === 'db' && (self || state === 'alive'))
    .filter(({ record, self }) => self || rankIn(record.tags) !== '')
    .toSorted((a, b) => a.rank - b.rank)[0]?.record.peerId;
}

/** Put out by an operator. Who left by its own word was trusted until then, and its machine is its operator's. */
function removedDatabases(roster: Roster): PeerId[] {
  return roster
    .revocations()
    .filter(({ name, reason }) => name.endsWith('/db') && !reason.startsWith(LEFT))
    .map(({ peerId }) => peerId);
}
