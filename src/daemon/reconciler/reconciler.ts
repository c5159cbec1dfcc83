import { isDeepStrictEqual } from 'node:util';
import type { AnyPlugin, PlannedChange, Plugin, PluginError, PluginReport } from '../../plugins/contract.ts';
import type { NewAuditEntry } from '../audit/trail.ts';
import type { Clock } from '../clock.ts';
import type { PluginStatus } from '../control/api.ts';
import { jittered } from '../random.ts';
import { asPluginError, RunFailure, type RunOptions, type RunOutcome, runPlugin } from './run.ts';

/** Times in ms. */
interface ReconcilerOptions {
  /**
   * The first trigger after this time without one starts a run at once; else a run waits until no trigger has come for
   * this time …
   */
  readonly quietMs: number;
  /** … but at most this long after the first one, as steady changes would delay it for ever. */
  readonly maxQuietMs: number;
  /** Least time between two runs of one plugin. */
  readonly minIntervalMs: number;
  /** The interval of runs without a trigger, so that a hand-edited file is repaired. */
  readonly resyncMs: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  /** A run that takes longer is aborted and counts as failed. */
  readonly runTimeoutMs: number;
}

/**
 * quiet: a burst of view changes is two runs, one for the first and one for the rest; a single change waits for
 * nothing. resync: architecture. backoff: a broken program is asked twice a minute. run: CouchDB's steps end within
 * 20 s, anything longer hangs.
 */
export const DEFAULT_RECONCILER_OPTIONS: ReconcilerOptions = {
  quietMs: 30,
  maxQuietMs: 250,
  minIntervalMs: 50,
  resyncMs: 30_000,
  backoffMinMs: 500,
  backoffMaxMs: 30_000,
  runTimeoutMs: 60_000,
};

interface ReconcilerDependencies {
  readonly clock: Clock;
  readonly audit: (entry: NewAuditEntry) => void;
  readonly random?: () => number;
}

/** Why a program is checked. */
export interface Reason {
  readonly text: string;
  /** The members (HOST/ROLE) concerned, so that `explain` finds the consequences. */
  readonly subjects: readonly string[];
}

interface Slot {
  readonly plugin: AnyPlugin;
  readonly desired: () => unknown;
  readonly abort: AbortController;
  readonly endWatch: (() => void) | undefined;
  readonly looked: ((report: PluginReport) => void) | undefined;
  heartbeat: NodeJS.Timeout | undefined;
  /** The plugin's last observation, and its machine time. */
  seen: { readonly report: PluginReport; readonly atMs: number } | undefined;
  /** Codes of alarms, with the machine time of the last run that had them. */
  readonly announced: Map<string, number>;
  timer: NodeJS.Timeout | undefined;
  /** Machine time at which `timer` fires. */
  dueMs: number;
  firstTriggerMs: number | undefined;
  lastTriggerMs: number;
  /** The next run waits for no further trigger. */
  atOnce: boolean;
  reasons: Reason[];
  running: Promise<void> | undefined;
  failures: number;
  /** The program restarted by itself, and the trail has no entry yet that it is in its desired state again. */
  restarted: string | undefined;
  /** The code of the last failure, if the program's report has it still: a plugin that waits plans nothing. */
  unresolved: string | undefined;
  lastRunMs: number;
  lastConvergedMs: number | undefined;
  /**
   * After a terminal error: the desired state that caused it. Only another one, or the operator, starts a new attempt.
   */
  refusedDesired: { readonly value: unknown } | undefined;
  error: PluginError | undefined;
  changing: string;
  runs: number;
  changes: number;
  failed: number;
  busyMs: number;
  closed: boolean;
}

/** How often a program gets a sign of life: HAProxy forgets the last one after 30 s. */
const HEARTBEAT_MS = 1000;
/** An alarm that comes and goes within this time is announced once. */
const ALARM_QUIET_MS = 5 * 60_000;
/** A person waits; a provider needs some calls of a second each. */
const ASK_TIMEOUT_MS = 40_000;
/** The number of changes in the summary of an entry. */
const MOST_SAID = 3;
/** The number of reasons in an audit entry; more are one burst. */
const MAX_REASONS = 8;

/**
 * Level-triggered: each run computes the difference between desired and observed state, whatever the trigger; without a
 * difference it writes nothing. One run at a time for each plugin; plugins do not wait for one another.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #dependencies: ReconcilerDependencies;
  readonly #slots = new Map<string, Slot>();

  constructor(options: ReconcilerOptions, dependencies: ReconcilerDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  /**
   * @param desired computes the desired state for each run; undefined: not known yet, the program is not changed
   * @param looked called with each observation of a run
   */
  add<D, O, C extends PlannedChange, K, R extends PluginReport>(
    plugin: Plugin<D, O, C, K, R>,
    desired: () => D | undefined,
    looked?: (report: R) => void,
  ): void {
    const endWatch = plugin.watch?.((what, restarted = false) => {
      const slot = this.#slots.get(plugin.name);
      if (slot !== undefined && restarted) slot.restarted = what;
      this.trigger(what, plugin.name);
    });
    const slot: Slot = {
      plugin,
      desired,
      endWatch,
      // The types of a plugin's state stay between the plugin and the caller that added it.
      looked: looked as ((report: PluginReport) => void) | undefined,
      heartbeat: undefined,
      seen: undefined,
      announced: new Map(),
      abort: new AbortController(),
      timer: undefined,
      dueMs: Number.POSITIVE_INFINITY,
      firstTriggerMs: undefined,
      lastTriggerMs: this.#dependencies.clock.monotonicMs(),
      atOnce: false,
      reasons: [],
      running: undefined,
      failures: 0,
      restarted: undefined,
      unresolved: undefined,
      lastRunMs: Number.NEGATIVE_INFINITY,
      lastConvergedMs: undefined,
      refusedDesired: undefined,
      error: undefined,
      changing: '',
      runs: 0,
      changes: 0,
      failed: 0,
      busyMs: 0,
      closed: false,
    };
    this.#slots.set(plugin.name, slot);
    if (plugin.heartbeat !== undefined) this.#beat(slot);
    this.trigger('start', plugin.name);
  }

  /** Requests a run of one plugin or of all. @param subjects members (HOST/ROLE) that the reason concerns */
  trigger(text: string, pluginName?: string, subjects: readonly string[] = []): void {
    const nowMs = this.#dependencies.clock.monotonicMs();
    for (const slot of this.#slots.values()) {
      if (pluginName !== undefined && slot.plugin.name !== pluginName) continue;
      const isKnown = slot.reasons.some((each) => each.text === text);
      if (slot.reasons.length < MAX_REASONS && !isKnown) slot.reasons.push({ text, subjects });
      slot.firstTriggerMs ??= nowMs;
      slot.atOnce ||= nowMs - slot.lastTriggerMs >= this.#options.quietMs;
      slot.lastTriggerMs = nowMs;
      if (slot.running === undefined) this.#schedule(slot, this.#quietDueMs(slot, nowMs), slot.failures > 0);
    }
  }

  /** For the operator: tries again now, whatever failed before. */
  retryNow(reason: string): void {
    for (const slot of this.#slots.values()) {
      slot.refusedDesired = undefined;
      slot.failures = 0;
      slot.plugin.retry?.();
    }
    this.trigger(reason);
  }

  /** What would be changed now. Reads only. */
  async plan(): Promise<{ name: string; changes: readonly PlannedChange[]; error?: PluginError }[]> {
    return Promise.all(
      [...this.#slots.values()].map(async ({ plugin, desired }) => {
        try {
          const wanted = desired();
          if (wanted === undefined) return { name: plugin.name, changes: [] };
          const observed = await plugin.observe(AbortSignal.timeout(this.#options.runTimeoutMs));
          return { name: plugin.name, changes: plugin.plan(wanted, observed) };
        } catch (error) {
          return { name: plugin.name, changes: [], error: asPluginError(error, plugin.name) };
        }
      }),
    );
  }

  /**
   * Further requests of an operator to a program; undefined: it is not managed here, or has no such request.
   *
   * @throws PluginError of the program
   */
  async ask(pluginName: string, verb: string, request: object): Promise<object | undefined> {
    const plugin = this.#slots.get(pluginName)?.plugin;
    const answer = await plugin?.ask?.(verb, request, AbortSignal.timeout(ASK_TIMEOUT_MS));
    if (answer === undefined || verb === 'show') return answer;
    const summary = [pluginName, verb, ...Object.values(request).map(String)].join(' ');
    this.#dependencies.audit({ kind: 'operator', summary, trigger: 'operator', subjects: [], result: 'ok' });
    this.trigger(summary, pluginName);
    return answer;
  }

  status(): PluginStatus[] {
    const nowMs = this.#dependencies.clock.monotonicMs();
    return [...this.#slots.values()].map((slot) => ({
      name: slot.plugin.name,
      state: stateOf(slot),
      detail: slot.error?.message ?? slot.changing,
      next: slot.error?.next ?? '',
      lastConvergedAgoMs: slot.lastConvergedMs === undefined ? undefined : nowMs - slot.lastConvergedMs,
      runs: slot.runs,
      changes: slot.changes,
      failed: slot.failed,
      busyMs: slot.busyMs,
      seen: slot.seen?.report.seen,
      facts: slot.seen?.report.facts,
      seenAgoMs: slot.seen === undefined ? undefined : nowMs - slot.seen.atMs,
      alarms: slot.seen?.report.alarms ?? [],
    }));
  }

  /** Whether every plugin (or the named one) has run since the last trigger and found nothing to do. */
  converged(pluginName?: string): boolean {
    return [...this.#slots.values()]
      .filter((slot) => pluginName === undefined || slot.plugin.name === pluginName)
      .every(
        (slot) => stateOf(slot) === 'converged' && slot.reasons.length === 0 && slot.running === undefined,
      );
  }

  async close(): Promise<void> {
    const slots = [...this.#slots.values()];
    for (const slot of slots) {
      slot.closed = true;
      clearTimeout(slot.timer);
      clearTimeout(slot.heartbeat);
      slot.endWatch?.();
      slot.abort.abort(new Error('the daemon stops'));
    }
    await Promise.allSettled(slots.flatMap((slot) => slot.running ?? []));
    await Promise.allSettled(slots.map((slot) => slot.plugin.close()));
    this.#slots.clear();
  }

  #quietDueMs(slot: Slot, nowMs: number): number {
    const firstMs = slot.firstTriggerMs ?? nowMs;
    const { quietMs, maxQuietMs } = this.#options;
    const quiet = slot.atOnce ? firstMs : Math.min(nowMs + quietMs, firstMs + maxQuietMs);
    // A trigger can bring a failing program's next attempt forward (it may be the repair), but not before the first
    // backoff.
    const { minIntervalMs, backoffMinMs } = this.#options;
    const notBefore = slot.lastRunMs + (slot.failures > 0 ? backoffMinMs : minIntervalMs);
    return Math.max(quiet, notBefore, nowMs);
  }

  #schedule(slot: Slot, dueMs: number, keepEarlier: boolean): void {
    if (slot.closed || (keepEarlier && slot.timer !== undefined && slot.dueMs <= dueMs)) return;
    clearTimeout(slot.timer);
    slot.dueMs = dueMs;
    slot.timer = setTimeout(
      () => {
        slot.timer = undefined;
        slot.running = this.#run(slot).finally(() => {
          slot.running = undefined;
          this.#afterRun(slot);
        });
      },
      Math.max(0, dueMs - this.#dependencies.clock.monotonicMs()),
    );
  }

  #afterRun(slot: Slot): void {
    const nowMs = this.#dependencies.clock.monotonicMs();
    const { backoffMinMs, backoffMaxMs, resyncMs } = this.#options;
    if (slot.failures > 0) {
      const backoffMs = Math.min(backoffMinMs * 2 ** (slot.failures - 1), backoffMaxMs);
      const againMs = nowMs + jittered(backoffMs, 0.2, this.#dependencies.random);
      const triggered = slot.reasons.length > 0;
      this.#schedule(slot, triggered ? Math.min(againMs, this.#quietDueMs(slot, nowMs)) : againMs, false);
    } else if (slot.reasons.length > 0) {
      this.#schedule(slot, this.#quietDueMs(slot, nowMs), false);
    } else {
      this.#schedule(slot, nowMs + jittered(resyncMs, 0.1, this.#dependencies.random), true);
    }
  }

  async #run(slot: Slot): Promise<void> {
    const { clock } = this.#dependencies;
    const reasons = slot.reasons.length > 0 ? slot.reasons : [{ text: 'resync', subjects: [] }];
    slot.reasons = [];
    slot.firstTriggerMs = undefined;
    slot.atOnce = false;
    slot.lastRunMs = clock.monotonicMs();
    slot.runs += 1;
    const startedMs = clock.monotonicMs();
    let desired: unknown;
    try {
      desired = slot.desired();
      if (desired === undefined) return;
      if (slot.refusedDesired !== undefined && isDeepStrictEqual(slot.refusedDesired.value, desired)) return;
      const outcome = await runPlugin(slot.plugin, desired, this.#runOptions(slot));
      this.#succeeded(slot, reasons, outcome, clock.monotonicMs() - startedMs);
    } catch (error) {
      if (slot.closed) return;
      const failure =
        error instanceof RunFailure
          ? error
          : new RunFailure(asPluginError(error, slot.plugin.name), [], false);
      this.#failed(slot, reasons, failure, desired, clock.monotonicMs() - startedMs);
    } finally {
      slot.busyMs += clock.monotonicMs() - startedMs;
    }
  }

  #runOptions(slot: Slot): RunOptions<PluginReport> {
    const { runTimeoutMs } = this.#options;
    return {
      signal: AbortSignal.any([slot.abort.signal, AbortSignal.timeout(runTimeoutMs)]),
      undoTimeoutMs: runTimeoutMs,
      looked: (report) => {
        slot.seen = { report, atMs: this.#dependencies.clock.monotonicMs() };
        this.#announce(slot, report.alarms);
        slot.plugin.note?.(report);
        slot.looked?.(report);
      },
      changing: (summary) => {
        slot.changing = summary;
      },
      stopping: () => slot.closed,
    };
  }

  /** A problem that a program reports is one entry of the journal, not one for each run. */
  #announce(slot: Slot, alarms: PluginReport['alarms']): void {
    const nowMs = this.#dependencies.clock.monotonicMs();
    for (const { code, message, next } of alarms) {
      const lastMs = slot.announced.get(code) ?? Number.NEGATIVE_INFINITY;
      slot.announced.set(code, nowMs);
      if (nowMs - lastMs < ALARM_QUIET_MS) continue;
      const summary = `${slot.plugin.name}: needs attention`;
      this.#audit(slot, [], [], { summary, result: 'failed', error: { code, message, next } });
    }
  }

  /** One at a time; the next run reports a failure. */
  #beat(slot: Slot): void {
    const signal = AbortSignal.any([slot.abort.signal, AbortSignal.timeout(HEARTBEAT_MS)]);
    void slot.plugin
      .heartbeat?.(signal)
      .catch(() => undefined)
      .then(() => {
        if (slot.closed) return;
        slot.heartbeat = setTimeout(() => this.#beat(slot), HEARTBEAT_MS);
      });
  }

  #succeeded(
    slot: Slot,
    reasons: readonly Reason[],
    { planned, made }: RunOutcome<PlannedChange>,
    durationMs: number,
  ): void {
    const { restarted } = slot;
    const failure = slot.error?.code ?? slot.unresolved;
    const stays = made.length === 0 && slot.seen?.report.alarms.some(({ code }) => code === failure) === true;
    slot.unresolved = stays ? failure : undefined;
    const recovered = !stays && (failure !== undefined || restarted !== undefined);
    slot.failures = 0;
    if (!stays) slot.restarted = undefined;
    slot.error = undefined;
    slot.refusedDesired = undefined;
    slot.changing = '';
    slot.lastConvergedMs = this.#dependencies.clock.monotonicMs();
    slot.changes += made.length;
    // A plugin that works in steps (CouchDB) runs again until nothing is left to do; news that comes now joins it.
    if (made.length > 0 || planned.some(({ step }) => step !== 'repeats')) {
      slot.lastTriggerMs = this.#dependencies.clock.monotonicMs();
      this.trigger('after a change', slot.plugin.name);
    }
    if (made.length === 0 && !recovered) return;
    const summary =
      made.length === 0
        ? `${slot.plugin.name} is correct again`
        : `${slot.plugin.name}: ${changesInWords(made)}`;
    // This also covers a run that had already begun.
    const others = reasons.filter(({ text }) => text !== restarted);
    const why = restarted === undefined ? reasons : [{ text: restarted, subjects: [] }, ...others];
    this.#audit(slot, why, made, { summary, result: 'ok', durationMs });
  }

  #failed(
    slot: Slot,
    reasons: readonly Reason[],
    { reason: error, planned, undone }: RunFailure,
    desired: unknown,
    durationMs: number,
  ): void {
    // The same failure at each retry is one entry, not one every 30 s.
    const repeated = slot.error?.code === error.code && slot.error.message === error.message;
    slot.failures += 1;
    slot.failed += 1;
    slot.error = error;
    slot.changing = '';
    if (error.outcome === 'terminal') slot.refusedDesired = { value: desired };
    if (repeated) return;
    const { code, message, next } = error;
    const result = undone ? 'rolled-back' : 'failed';
    const summary = `${slot.plugin.name}: ${undone ? 'a change was rolled back' : 'reconcile failed'}`;
    this.#audit(slot, reasons, planned, { summary, result, durationMs, error: { code, message, next } });
  }

  #audit(
    slot: Slot,
    reasons: readonly Reason[],
    changes: readonly PlannedChange[],
    outcome: Pick<NewAuditEntry, 'summary' | 'result' | 'durationMs' | 'error'>,
  ): void {
    this.#dependencies.audit({
      kind: 'change',
      trigger: reasons.map(({ text }) => text).join('; '),
      plugin: slot.plugin.name,
      changes: changes.map(({ summary }) => summary),
      subjects: [...new Set([...changes, ...reasons].flatMap(({ subjects = [] }) => subjects))],
      ...outcome,
    });
  }
}

/** As many as fit one line; the entry lists all. */
function changesInWords(made: readonly PlannedChange[]): string {
  const said = made.slice(0, MOST_SAID).map(({ summary }) => summary);
  const more = made.length - said.length;
  return more > 0 ? `${said.join('; ')}; ${more} more changes` : said.join('; ');
}

function stateOf(slot: Slot): PluginStatus['state'] {
  if (slot.error?.outcome === 'terminal') return 'stopped';
  if (slot.failures > 0) return 'failing';
  if (slot.running !== undefined) return slot.changing === '' ? 'pending' : 'working';
  return slot.lastConvergedMs === undefined || slot.reasons.length > 0 ? 'pending' : 'converged';
}
