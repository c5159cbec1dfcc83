/**
 * What the reconciler asks of a plugin, and all that a plugin may know of the daemon.
 *
 * A plugin is the one writer of one managed program. Each run goes observe → plan → validate → apply → verify, and
 * rollback when verify fails. The reconciler owns everything else: when to run, one run at a time, limits, backoff, audit.
 */
export interface Plugin<Desired, Observed, Change extends PlannedChange, Checkpoint> {
  readonly name: string;
  /** Reads what is, from the program itself and from its files. Writes nothing. */
  observe(signal: AbortSignal): Promise<Observed>;
  /** Pure. The difference between what should be and what is; `[]` means converged. */
  plan(desired: Desired, observed: Observed): Change[];
  /** Proves the changes before anything is touched, e.g. `haproxy -c` on the staged file. Throws {@link PluginError}. */
  validate(changes: readonly Change[], signal: AbortSignal): Promise<void>;
  /** Makes the changes. The checkpoint holds what `rollback` needs to restore the last good state. */
  apply(changes: readonly Change[], signal: AbortSignal): Promise<Checkpoint>;
  /** Observes again; the plan must be empty. Throws {@link PluginError} otherwise. */
  verify(desired: Desired, signal: AbortSignal): Promise<void>;
  rollback(checkpoint: Checkpoint, signal: AbortSignal): Promise<void>;
  /** Ends watches and children. Works after a partial start, and twice. */
  close(): Promise<void>;
  /**
   * Optional: tells the reconciler at once that the world changed behind its back (a socket closed, an address gone),
   * instead of at the next resync. `restarted`: the program itself ended and was started anew, which the audit trail
   * says even when nothing is left to do. Returns the function that ends the watch.
   */
  watch?(changed: (what: string, restarted?: boolean) => void): () => void;
}

/** One planned change, as `bornemisza plan` and the audit trail print it. No secrets in either field. */
export interface PlannedChange {
  /** A stable word for programs, e.g. `server-state`, `file`, `announce`. */
  readonly kind: string;
  /** One line for people, e.g. `db_nodes/db2: ready → maint (left the cluster)`. */
  readonly summary: string;
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
  /** Whether the managed program may have been changed when this was thrown. */
  readonly stateChanged: boolean;
  readonly cause?: unknown;
}

export class PluginError extends Error {
  readonly code: string;
  readonly next: string;
  readonly outcome: 'retry' | 'terminal';
  readonly stateChanged: boolean;

  constructor(facts: PluginErrorFacts) {
    super(facts.message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = 'PluginError';
    this.code = facts.code;
    this.next = facts.next;
    this.outcome = facts.outcome;
    this.stateChanged = facts.stateChanged;
  }
}
