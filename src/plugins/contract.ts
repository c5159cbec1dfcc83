/**
 * What the reconciler asks of a plugin, and all that a plugin may know of the daemon.
 *
 * A plugin is the one writer of one managed program. Each run goes observe → plan → validate → checkpoint → apply. The
 * reconciler owns the rest: it verifies (observes and plans again), has the plugin undo what did not hold, and decides
 * when to run, one run at a time, with limits, backoff and audit.
 */
export interface Plugin<
  Desired,
  Observed,
  Change extends PlannedChange,
  Checkpoint,
  Report extends PluginReport = PluginReport,
> {
  readonly name: string;
  /**
   * The command that shows what the program did, e.g. `journalctl -u bird`: for an operator when a change does not
   * hold.
   */
  readonly evidence: string;
  /** Only looks: reads what is, from the program itself and from its files. */
  observe(signal: AbortSignal): Promise<Observed>;
  /** Pure: the difference between what should be and what is; `[]` means converged. It may be asked at any time. */
  plan(desired: Desired, observed: Observed): readonly Change[];
  /** Pure: what was seen, for `status`, and what an operator must know of it. */
  status?(desired: Desired, observed: Observed): Report;
  /**
   * Proves the changes before anything is touched, e.g. `haproxy -c` on the staged file. Throws {@link PluginError}.
   * Left out where whoever takes a change proves it, as a DNS server does; a change that the running program takes or
   * refuses by itself may be proved in `apply`, after it.
   */
  validate?(changes: readonly Change[], signal: AbortSignal): Promise<void>;
  /** Makes the changes and reports each one that is made. Throws {@link PluginError}. */
  apply(changes: readonly Change[], signal: AbortSignal, made: (change: Change) => void): Promise<void>;
  /** Left out where each step is right by itself, and the next look finds what is left to do. */
  readonly rollback?: Rollback<Change, Checkpoint>;
  /** Ends watches and children. Works after a partial start, and twice. */
  close(): Promise<void>;
  /**
   * Optional: reports at once that the world changed behind the reconciler's back (a socket closed, an address gone),
   * instead of at the next resync. It only watches. `restarted`: the program itself ended and was started anew, which
   * the audit trail says even when nothing is left to do. Returns the function that ends the watch.
   */
  watch?(changed: (what: string, restarted?: boolean) => void): () => void;
  /**
   * Optional: what an operator asks of the program besides `status`: `show`, or a verb of its own. The request was
   * checked where it came in. Throws {@link PluginError}.
   */
  ask?(verb: string, request: unknown, signal: AbortSignal): Promise<object>;
  /** Optional: keeps what the last look of a run saw, for the next one. */
  note?(report: Report): void;
  /** Optional: whether something of ours is on this host, left by a mode that is no longer configured. Only looks. */
  leftBehind?(): Promise<boolean>;
  /** Optional: whether a process of the program is left that shows and trusts what it was started with. */
  hasOldWorkers?(): Promise<boolean>;
  /**
   * Optional: a sign of life that the program forgets unless it is given again each second. Says nothing else to it.
   */
  readonly heartbeat?: ((signal: AbortSignal) => Promise<void>) | undefined;
}

/** How the last good state comes back after a change that failed or did not hold. */
export interface Rollback<Change extends PlannedChange, Checkpoint> {
  /** What `undo` needs. Asked after `validate`, before anything is touched. */
  checkpoint(changes: readonly Change[], signal: AbortSignal): Promise<Checkpoint>;
  /** Restores nothing that is right already. */
  undo(checkpoint: Checkpoint, signal: AbortSignal): Promise<void>;
}

/** One planned change, as `bornemisza plan` and the audit trail print it. No secrets in either field. */
export interface PlannedChange {
  /** A stable word for programs, e.g. `server-state`, `file`, `announce`. */
  readonly kind: string;
  /** One line for people, e.g. `db_nodes/db2: ready → maint (left the cluster)`. */
  readonly summary: string;
  /** Members that it is about, by HOST/ROLE, so that `explain` finds it. */
  readonly subjects?: readonly string[];
  /**
   * Undefined: when a run is over, no such change may be left. `once`: it may follow from another step, but a run that
   * made it must not find it again. `repeats`: it may be planned again, since it waits for others or goes on bit by
   * bit.
   */
  readonly step?: 'once' | 'repeats';
}

/** Something that an operator must know, with what to do about it. */
export interface Finding {
  /** A stable word in kebab-case, e.g. `bird-session-down`. */
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

/** What a plugin saw at its last look. */
export interface PluginReport {
  /** One line of facts, not of intent. Undefined: the plugin has its own place in `status`. */
  readonly seen?: string | undefined;
  /** The same and more for programs, in a form of the plugin's own. */
  readonly facts?: object | undefined;
  readonly alarms: readonly Finding[];
}

export interface PluginErrorFacts {
  /** A stable word in kebab-case, e.g. `haproxy-config-refused`. */
  readonly code: string;
  /** One sentence that names the cause. */
  readonly message: string;
  /** One sentence: what the operator can do next. */
  readonly next: string;
  /** `retry`: trying again can help (backoff); `terminal`: only a new desired state or the operator can. */
  readonly outcome: 'retry' | 'terminal';
  /** What was made so far is right and waits for something, e.g. for the program to start: it is not undone. */
  readonly keepsChanges?: boolean;
  readonly cause?: unknown;
}

export class PluginError extends Error {
  readonly code: string;
  readonly next: string;
  readonly outcome: 'retry' | 'terminal';
  readonly keepsChanges: boolean;

  constructor(facts: PluginErrorFacts) {
    super(facts.message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = 'PluginError';
    this.code = facts.code;
    this.next = facts.next;
    this.outcome = facts.outcome;
    this.keepsChanges = facts.keepsChanges ?? false;
  }
}
