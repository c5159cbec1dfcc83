import type { AuditTrail } from '../../audit/trail.ts';
import type { Clock } from '../../clock.ts';
import type { Done, MemberRow } from '../../control/api.ts';
import type { Driver } from '../../driver/driver.ts';
import { hasNextStep } from '../../errors.ts';
import { newestRoot } from '../keys/chain.ts';
import { hangOnRoot, type Identity } from '../identity.ts';
import type { RosterChange } from '../roster/roster.ts';
import { takeRootChange } from './rotation.ts';
import { rootWord } from './succession.ts';
import type { Log } from '../../process/log.ts';
import type { Reconciler } from '../../reconciler/reconciler.ts';
import type { Registrar } from '../admission/registrar.ts';
import { programsFollow, RIVAL_NEXT, rootTag, unaware } from './following.ts';
import { storageNext } from '../storage.ts';

interface RootFollowerDependencies {
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Pick<AuditTrail, 'append'>;
  readonly driver: Pick<Driver, 'rosterChanged'>;
  readonly reconciler: Pick<Reconciler, 'converged'>;
  /** Whether an old process is left that presents and trusts the certificates of its start. */
  readonly programs: { hasOldWorkers(): Promise<boolean> };
  /** `changed`: this node presents another chain. `read`: gives the programs the present roots. */
  readonly certificate: { changed(summary: string, why: string): Promise<void>; read(): Promise<void> };
  readonly registrar: Pick<Registrar, 'reopen'>;
  readonly node: {
    rows(): readonly MemberRow[];
    operatorDid(what: string): void;
    /** Notifies the parts of this node that the roster has it. */
    rosterChanged(change: RosterChange): void;
  };
}

/**
 * Switches this node from one root CA to the next: first its programs trust both, then it presents a chain of the
 * newest one, as soon as no reachable member would refuse it. Its {@link tag} shows the progress.
 */
export class RootFollower {
  readonly #identity: Identity;
  readonly #dependencies: RootFollowerDependencies;
  /** When the programs last got other roots or another chain, by the monotonic clock. */
  #programsToldMs = 0;
  #hasOldHaproxies = true;
  /** Changes of roots and chains, one after another. */
  #hanging: Promise<void> = Promise.resolve();
  #rivalsTold = 0;

  constructor(identity: Identity, dependencies: RootFollowerDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /** As for an authority’s key, the root stays in the command, which left what it signed in this node’s directory. */
  async take(): Promise<Done> {
    const { node, driver } = this.#dependencies;
    const change = await takeRootChange(this.#identity);
    if (change === undefined) return { done: true, message: 'no change of the root is waiting here' };
    node.rosterChanged(change);
    driver.rosterChanged();
    const message = this.#inWords();
    node.operatorDid(`authority rotate-root: ${message}`);
    return { done: true, message };
  }

  /**
   * The programs come first, so that they trust what others present; after the end of a root nothing of this node
   * depends on it.
   */
  async changed(): Promise<void> {
    const { audit, certificate, registrar } = this.#dependencies;
    this.#programsTold();
    const { roster, name } = this.#identity;
    const change = roster.rootChange;
    audit.append({
      kind: 'operator',
      summary: this.#inWords(),
      trigger: 'signed by the root',
      subjects: [name],
      result: 'ok',
    });
    if (change === undefined) await this.#hangOn();
    await certificate.read();
    this.#programsTold();
    // Joiners see the root that their tokens name; the tokens of an ended root are invalid.
    if (change === undefined) await registrar.reopen();
  }

  /** Once a second. */
  look(): void {
    this.#follow();
    void this.#lookAtOldHaproxies();
  }

  /**
   * For this node's record; undefined while the root is not being replaced. Do not call it before the programs are
   * known.
   */
  get tag(): string | undefined {
    const change = this.#identity.roster.rootChange;
    if (change === undefined) return undefined;
    const { clock, reconciler } = this.#dependencies;
    const uses = this.#usesNewestRoot();
    const toldForMs = clock.monotonicMs() - this.#programsToldMs;
    const follow =
      reconciler.converged('haproxy') &&
      reconciler.converged('couchdb') &&
      programsFollow(this.#identity.role, toldForMs, this.#hasOldHaproxies);
    // A member that presents the new chain knows the root, whatever the state of its programs.
    return follow || uses ? rootTag(change.to, follow && uses) : undefined;
  }

  /** Reports each pair of roots that claim to follow the same one once. */
  auditRivals(): void {
    const rivals = this.#identity.roster.rivals();
    for (const message of rivals.slice(this.#rivalsTold)) {
      const error = { code: 'succession-rival', message, next: RIVAL_NEXT };
      const about = { trigger: 'signed by the old root', subjects: [this.#identity.name] };
      this.#dependencies.audit.append({ kind: 'guard', summary: message, ...about, result: 'failed', error });
    }
    this.#rivalsTold = rivals.length;
  }

  /** Switches this node's chain to the newest root, as soon as no reachable member would refuse it. */
  #follow(): void {
    const change = this.#identity.roster.rootChange;
    if (change === undefined || this.#usesNewestRoot()) return;
    if (unaware(this.#dependencies.node.rows(), change.to).length > 0) return;
    void this.#hangOn();
  }

  #hangOn(): Promise<void> {
    const { certificate, log } = this.#dependencies;
    this.#hanging = this.#hanging.then(async () => {
      try {
        const root = newestRoot(this.#identity.trust);
        this.#programsTold();
        if (!(await hangOnRoot(this.#identity, root))) return;
        await certificate.changed(
          `the certificate is signed under the root CA ${rootWord(root)}`,
          'the root is being replaced',
        );
        this.#programsTold();
      } catch (error) {
        const next = `${storageNext(error)}; it is tried again by itself`;
        log.error({ err: error, next }, 'cannot switch this node’s certificate to the new root CA');
      }
    });
    return this.#hanging;
  }

  #programsTold(): void {
    this.#programsToldMs = this.#dependencies.clock.monotonicMs();
    this.#hasOldHaproxies = true;
  }

  #inWords(): string {
    const { trust, roster } = this.#identity;
    const newest = rootWord(newestRoot(trust));
    return roster.rootChange === undefined
      ? `the root CA ${newest} is the only valid one from now on`
      : `the root CA ${newest} follows ${rootWord(roster.rootChange.from)}, and both are valid`;
  }

  /** Without a change in progress it counts as received now: when a change begins, no program uses it yet. */
  async #lookAtOldHaproxies(): Promise<void> {
    const { reconciler, programs } = this.#dependencies;
    if (this.#identity.roster.rootChange === undefined) this.#programsTold();
    else if (reconciler.converged('haproxy')) this.#hasOldHaproxies = await programs.hasOldWorkers();
  }

  #usesNewestRoot(): boolean {
    const { roster, trust, chainPem } = this.#identity;
    return roster.hungOn(chainPem, newestRoot(trust)) === chainPem;
  }
}

/** Once at the start: an interrupted command, or one that found no daemon, may have left a change here. */
export async function takeLeftRootChange(identity: Identity, log: Pick<Log, 'error'>): Promise<void> {
  try {
    const { roster, trust } = identity;
    const change = await takeRootChange(identity);
    const ended = change?.roots === true && roster.rootChange === undefined;
    if (ended) await hangOnRoot(identity, newestRoot(trust));
  } catch (error) {
    if (!hasNextStep(error)) throw error;
    log.error({ code: error.code, next: error.next }, error.message);
  }
}
