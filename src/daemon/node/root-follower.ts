import type { AuditTrail } from '../reconciler/audit.ts';
import type { Clock } from '../clock.ts';
import type { Done, MemberRow } from '../control/api.ts';
import { hasNextStep } from '../errors.ts';
import { newestRoot } from '../identity/keys/chain.ts';
import { hangOnRoot, type Identity } from '../identity/identity.ts';
import type { RosterChange } from '../identity/roster/roster.ts';
import { takeRootChange } from '../identity/root/rotation.ts';
import { rootWord } from '../identity/root/succession.ts';
import type { Log } from '../process/log.ts';
import { programsFollow, RIVAL_NEXT, rootTag, unaware } from './root.ts';

export interface RootFollowerDependencies {
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Pick<AuditTrail, 'append'>;
  readonly rows: () => readonly MemberRow[];
  /** Whether a program has nothing left to do, or is none of this node's. */
  readonly converged: (program: 'haproxy' | 'couchdb') => boolean;
  readonly hasOldHaproxies: () => Promise<boolean>;
  /** Tells all who are to know, here and elsewhere, that the roster has it. */
  readonly rosterChanged: (change: RosterChange) => void;
  readonly operatorDid: (what: string) => void;
  /** This node shows another chain than before. */
  readonly certificateChanged: (summary: string, why: string) => Promise<void>;
  /** Gives the programs the roots of now. */
  readonly readCertificates: () => Promise<void>;
  /** Joiners are shown the root of now. */
  readonly reopenAdmission: () => Promise<void>;
}

/**
 * Follows the root from one to the next: the programs believe in both first, then what this node shows hangs on the newest
 * one, as soon as nobody who is here would refuse it. How far it is stands in its {@link tag}.
 */
export class RootFollower {
  readonly #identity: Identity;
  readonly #dependencies: RootFollowerDependencies;
  /** When the programs were last told other roots or another chain, by the monotonic clock. */
  #programsToldMs = 0;
  #hasOldHaproxies = true;
  /** One change of what hangs on roots after the other. */
  #hanging: Promise<void> = Promise.resolve();
  #rivalsTold = 0;

  constructor(identity: Identity, dependencies: RootFollowerDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /** Once at the start: a run of the command that was ended, or that found no daemon, left a change here. */
  async takeLeft(): Promise<void> {
    try {
      const { roster, trust } = this.#identity;
      const change = await takeRootChange(this.#identity);
      const ended = change?.roots === true && roster.rootChange === undefined;
      if (ended) await hangOnRoot(this.#identity, newestRoot(trust));
    } catch (error) {
      if (!hasNextStep(error)) throw error;
      this.#dependencies.log.error({ code: error.code, next: error.next }, error.message);
    }
  }

  /** As with an authority’s key, the root stays in the command: what it signed lies in this node’s directory. */
  async take(): Promise<Done> {
    const { rosterChanged, operatorDid } = this.#dependencies;
    const change = await takeRootChange(this.#identity);
    if (change === undefined) return { done: true, message: 'no change of the root is waiting here' };
    rosterChanged(change);
    const message = this.#inWords();
    operatorDid(`authority rotate-root: ${message}`);
    return { done: true, message };
  }

  /** The programs first, so that they believe in what others show; a root that ended leaves nothing of ours on it. */
  async changed(): Promise<void> {
    const { audit, readCertificates, reopenAdmission } = this.#dependencies;
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
    await readCertificates();
    this.#programsTold();
    // Joiners are shown the root that their tokens name; the tokens of an ended root are void.
    if (change === undefined) await reopenAdmission();
  }

  /** Once a second. */
  look(): void {
    this.#follow();
    void this.#lookAtOldHaproxies();
  }

  /** For this node's record; undefined while the root is not being replaced. Not to be asked before the programs are known. */
  get tag(): string | undefined {
    const change = this.#identity.roster.rootChange;
    if (change === undefined) return undefined;
    const { clock, converged } = this.#dependencies;
    const uses = this.#usesNewestRoot();
    const toldForMs = clock.monotonicMs() - this.#programsToldMs;
    const follow =
      converged('haproxy') &&
      converged('couchdb') &&
      programsFollow(this.#identity.role, toldForMs, this.#hasOldHaproxies);
    // Who shows the new chain has known the root before, whatever its programs are at.
    return follow || uses ? rootTag(change.to, follow && uses) : undefined;
  }

  /** Tells once of each two roots that claim to follow one. */
  auditRivals(): void {
    const rivals = this.#identity.roster.rivals();
    for (const message of rivals.slice(this.#rivalsTold)) {
      const error = { code: 'succession-rival', message, next: RIVAL_NEXT };
      const about = { trigger: 'signed by the old root', subjects: [this.#identity.name] };
      this.#dependencies.audit.append({ kind: 'guard', summary: message, ...about, result: 'failed', error });
    }
    this.#rivalsTold = rivals.length;
  }

  /** Hangs what this node shows on the newest root, as soon as nobody who is here would refuse it. */
  #follow(): void {
    const change = this.#identity.roster.rootChange;
    if (change === undefined || this.#usesNewestRoot()) return;
    if (unaware(this.#dependencies.rows(), change.to).length > 0) return;
    void this.#hangOn();
  }

  #hangOn(): Promise<void> {
    const { certificateChanged, log } = this.#dependencies;
    this.#hanging = this.#hanging.then(async () => {
      try {
        const root = newestRoot(this.#identity.trust);
        this.#programsTold();
        if (!(await hangOnRoot(this.#identity, root))) return;
        await certificateChanged(
          `the certificate hangs on the root ${rootWord(root)}`,
          'the root is being replaced',
        );
        this.#programsTold();
      } catch (error) {
        const next = 'free the disk; it is tried again by itself';
        log.error({ err: error, next }, 'this node’s chain cannot be hung on the new root');
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
      ? `the root ${newest} is the only one that counts from now on`
      : `the root ${newest} follows ${rootWord(roster.rootChange.from)}, and both count`;
  }

  /** While nothing changes, as if all were told just now: a change finds nobody who would follow it already. */
  async #lookAtOldHaproxies(): Promise<void> {
    const { converged, hasOldHaproxies } = this.#dependencies;
    if (this.#identity.roster.rootChange === undefined) this.#programsTold();
    else if (converged('haproxy')) this.#hasOldHaproxies = await hasOldHaproxies();
  }

  #usesNewestRoot(): boolean {
    const { roster, trust, chainPem } = this.#identity;
    return roster.hungOn(chainPem, newestRoot(trust)) === chainPem;
  }
}
