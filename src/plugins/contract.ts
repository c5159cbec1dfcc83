/**
 * The interface of a plugin to the reconciler, and everything that a plugin may know of the daemon.
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
   * The command that shows what the program did, e.g. `journalctl -u bird`: for an operator if verification fails.
   */
  readonly evidence: string;
  /** Reads the observed state from the program itself and from its files. Changes nothing. */
  observe(signal: AbortSignal): Promise<Observed>;
  /** Pure: the difference between desired and observed state; `[]` means converged. Callable at any time. */
  plan(desired: Desired, observed: Observed): readonly Change[];
  /** Pure: the observed state for `status`, and alarms for the operator. */
  status?(desired: Desired, observed: Observed): Report;
  /**
   * Checks the changes before anything is changed, e.g. `haproxy -c` on the staged file. Throws {@link PluginError}.
   * Absent if the receiver of a change checks it, as a DNS server does; a change that the running program accepts or
   * refuses by itself may be checked in `apply`, after it.
   */
  validate?(changes: readonly Change[], signal: AbortSignal): Promise<void>;
  /** Makes the changes and reports each completed one. Throws {@link PluginError}. */
  apply(changes: readonly Change[], signal: AbortSignal, made: (change: Change) => void): Promise<void>;
  /** Absent if each step is valid by itself, and the next run finds the remaining ones. */
  readonly rollback?: Rollback<Change, Checkpoint>;
  /** Ends watches and children. Works after a partial start, and twice. */
  close(): Promise<void>;
  /**
   * Optional: reports at once that the observed state changed (a socket closed, an address gone), instead of at the
   * next resync. It only watches. `restarted`: the program itself was restarted, which the audit trail records even if
   * nothing is left to do. Returns the function that ends the watch.
   */
  watch?(changed: (what: string, restarted?: boolean) => void): () => void;
  /**
   * Optional: further requests of an operator: `show`, or a verb of the plugin. The control socket has validated the
   * request. Throws {@link PluginError}.
   */
  ask?(verb: string, request: unknown, signal: AbortSignal): Promise<object>;
  /** Optional: an operator asks for another try: what the program refused may be asked for once more. */
  retry?(): void;
  /** Optional: keeps the last observed state of a run, for the next one. */
  note?(report: Report): void;
  /** Optional: whether a mode that is no longer configured left something of ours on this host. Changes nothing. */
  leftBehind?(): Promise<boolean>;
  /** Optional: whether an old process of the program still uses the certificates that it was started with. */
  hasOldWorkers?(): Promise<boolean>;
  /**
   * Optional, once a second: a sign of life that the program would forget, and the next step of what takes minutes. It
   * changes no configuration.
   */
  readonly heartbeat?: ((signal: AbortSignal) => Promise<void>) | undefined;
}

/** Any plugin: its types of desired state, observed state, change and checkpoint stay between its role and itself. */
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyPlugin = Plugin<any, any, PlannedChange, any, any>;

/** How to restore the last good state after a change that failed or whose verification failed. */
export interface Rollback<Change extends PlannedChange, Checkpoint> {
  /** The input of `undo`. Called after `validate`, before anything is changed. */
  checkpoint(changes: readonly Change[], signal: AbortSignal): Promise<Checkpoint>;
  /** Restores only what differs. */
  undo(checkpoint: Checkpoint, signal: AbortSignal): Promise<void>;
}

/** One planned change, as `bornemisza plan` and the audit trail print it. No secrets in either field. */
export interface PlannedChange {
  /** A stable word for programs, e.g. `server-state`, `file`, `announce`. */
  readonly kind: string;
  /** One line for people, e.g. `db_nodes/db2: ready → maint (left the cluster)`. */
  readonly summary: string;
  /** The members concerned, by HOST/ROLE, so that `explain` finds it. */
  readonly subjects?: readonly string[];
  /**
   * Undefined: after a run no such change may be left. `once`: it can follow from another step, but a run that made it
   * must not find it again. `repeats`: it can be planned again, since it waits for others or proceeds in small steps.
   */
  readonly step?: 'once' | 'repeats';
}

/** Something that an operator must know, with the next step. */
export interface Finding {
  /** A stable word in kebab-case, e.g. `bird-session-down`. */
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

/** What a plugin observed at its last run. */
export interface PluginReport {
  /** One line of facts, not of intent. Undefined: the plugin has its own section in `status`. */
  readonly seen?: string | undefined;
  /** The same and more for programs; each plugin has its own form. */
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
  /** The completed changes are valid and wait for something, e.g. for the program to start: they are not undone. */
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
