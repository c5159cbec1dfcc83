import { setTimeout as pause } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import type { Health } from '../membership/types.ts';
import {
  type CheckState,
  type DampingOptions,
  initialCheckState,
  nextCheckState,
  returnDelayMs,
} from './damping.ts';
import { isLate } from './late.ts';
import { probe, type ProbeResult, type ProbeTarget } from './probe.ts';
import { UnitWatch, type UnitWatchPaths } from './unit-watch.ts';
import { Units, type UnitState } from './units.ts';

export interface Check {
  readonly name: string;
  /** Whether the node as a whole is down while this check is. */
  readonly required: boolean;
  readonly target: ProbeTarget;
  /** Failures beyond `fall` that are tolerated: a program that restarts at once was not down. Default 0. */
  readonly patience?: number;
  /**
   * As many questions as `fall` says are sent within one timeout, so that a program which hangs is down at its end.
   * Otherwise a silent program is asked again, and has a timeout each time. Default false.
   */
  readonly spread?: boolean;
  /** The systemd unit that runs it: while that has no process, is frozen or stopped, no question is needed. */
  readonly unit?: string | undefined;
  /** In place of the node's. */
  readonly timing?: { readonly [key in keyof Timing]?: Timing[key] | undefined };
}

export interface CheckVerdict extends CheckState {
  readonly name: string;
  readonly required: boolean;
  readonly detail: string;
  /** How the last check failed; undefined: it passed, or none ran yet. */
  readonly failure?: 'silent' | 'refused' | 'ended' | 'answer' | undefined;
}

type Timing = Pick<HealthOptions, 'rise' | 'fall' | 'intervalMs' | 'fastIntervalMs' | 'timeoutMs'>;

export interface HealthOptions extends DampingOptions {
  /** Time between two checks while the result is stable, ms. */
  readonly intervalMs: number;
  /** Time between two checks while the result is about to change, ms (HAProxy's `fastinter`). */
  readonly fastIntervalMs: number;
  readonly timeoutMs: number;
}

/** `conclusive`: it stands for as many failures as are needed. */
type Result = ProbeResult & { readonly conclusive?: boolean };

/** Of a timeout. The other one's began at another moment, at most an interval of its own later. */
const ENOUGH_OF_TIMEOUT = 0.4;

/** One without an answer yet. */
class Question {
  readonly end: (result: Result) => void;
  readonly #clock: Clock;
  readonly #sinceMs: number;
  readonly #timer: NodeJS.Timeout;
  #inVain = false;

  /** @param enoughMs a good part of its timeout */
  constructor(clock: Clock, enoughMs: number, end: (result: Result) => void) {
    this.end = end;
    this.#clock = clock;
    this.#sinceMs = clock.monotonicMs();
    this.#timer = setTimeout(() => {
      this.#inVain = !isLate(clock, this.#sinceMs, enoughMs);
    }, enoughMs).unref();
  }

  /** How long it has waited, ms; undefined: not for long, or nobody could have heard the answer. */
  get waitedMs(): number | undefined {
    return this.#inVain ? this.#clock.monotonicMs() - this.#sinceMs : undefined;
  }

  over(): void {
    clearTimeout(this.#timer);
  }
}

interface HealthDependencies {
  readonly clock: Clock;
  readonly ask?: (target: ProbeTarget, timeoutMs: number) => Promise<ProbeResult>;
  /** Where cgroup v2 is mounted. */
  readonly cgroups?: string;
  /** Files that are shared with who sees the processes of other users. Undefined: nobody does. */
  readonly unitWatch?: UnitWatchPaths;
  /** Called after a verdict changed, with the check that changed. */
  readonly changed: (verdict: CheckVerdict, was: Health) => void;
}

/**
 * Runs the local checks, each with its own deadline. One result per node: {@link Checks.node} is up only while every
 * required check is.
 */
export class Checks {
  #options: HealthOptions;
  readonly #dependencies: HealthDependencies;
  readonly #units: Units;
  readonly #running = new Map<
    string,
    {
      check: Check;
      verdict: CheckVerdict;
      timer: NodeJS.Timeout | undefined;
      /** While a question has no answer yet. */
      question: Question | undefined;
      /** Something changed during the question: another one follows. */
      again: boolean;
      ended: boolean;
      decided: PromiseWithResolvers<void>;
    }
  >();

  constructor(options: HealthOptions, dependencies: HealthDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#units = new Units(
      (unit) => this.#unitChanged(unit),
      dependencies.cgroups,
      dependencies.unitWatch && new UnitWatch(dependencies.unitWatch),
    );
  }

  /** Verdicts stay; each check runs at once, as the former interval may have been long. */
  reconfigure(options: HealthOptions): void {
    if (JSON.stringify(options) === JSON.stringify(this.#options)) return;
    this.#options = options;
    for (const name of this.#running.keys()) this.#bringForward(name);
  }

  /**
   * Starts, keeps and ends checks so that exactly these run. While the program is the same, by its address and port, a
   * check keeps its verdict; if it is asked in another way now, it is asked at once.
   */
  set(checks: readonly Check[]): void {
    this.#units.keep(new Set(checks.map(({ unit }) => unit)));
    for (const [name, running] of this.#running) {
      const wanted = checks.find((check) => check.name === name);
      if (wanted !== undefined && isSameProgram(wanted.target, running.check.target)) {
        const same = JSON.stringify({ ...wanted, required: running.check.required });
        const changed = same !== JSON.stringify(running.check);
        running.check = wanted;
        running.verdict = { ...running.verdict, required: wanted.required };
        if (changed) this.#bringForward(name);
        continue;
      }
      running.ended = true;
      running.decided.resolve();
      clearTimeout(running.timer);
      this.#running.delete(name);
    }
    for (const check of checks) {
      if (this.#running.has(check.name)) continue;
      const state = initialCheckState(this.#dependencies.clock.monotonicMs());
      const verdict = {
        ...state,
        name: check.name,
        required: check.required,
        detail: 'not asked yet',
      };
      this.#running.set(check.name, {
        check,
        verdict,
        timer: undefined,
        question: undefined,
        again: false,
        ended: false,
        decided: Promise.withResolvers<void>(),
      });
      void this.#ask(check.name);
    }
  }

  /**
   * HAProxy's check of a service failed. That decides nothing, but brings the next question forward. Not the second
   * one: a service that restarts within `fastIntervalMs` stays up, however many signs there are.
   *
   * @param how `silent`: HAProxy had no answer in its whole timeout. If a question of this side has waited for a good
   *   part of it too, it ends: two programs asked in vain
   */
  failedElsewhere(name: string, how: 'silent' | 'failed'): void {
    const running = this.#running.get(name);
    if (running === undefined) return;
    const { check, question, verdict } = running;
    if (question === undefined) {
      if (verdict.health === 'up' && verdict.lastPassed !== false) this.#bringForward(name, false);
      return;
    }
    const { waitedMs } = question;
    if (how !== 'silent' || check.spread !== true || waitedMs === undefined) return;
    const detail = `no answer within ${Math.round(waitedMs)} ms, and none to HAProxy`;
    question.end({ passed: false, detail, failure: 'silent', conclusive: true });
  }

  get verdicts(): readonly CheckVerdict[] {
    return [...this.#running.values()].map((each) => each.verdict);
  }

  /** Up while every required check is up. A node without required checks is up. */
  get node(): Health {
    return this.verdicts.every((verdict) => !verdict.required || verdict.health === 'up') ? 'up' : 'down';
  }

  /**
   * Resolves once each check has a first real verdict, or after `withinMs`: until then this node knows nothing about
   * itself, and nobody may take that for "down".
   */
  async decided(withinMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, withinMs);
    await Promise.race([
      promise,
      Promise.all([...this.#running.values()].map((each) => each.decided.promise)),
    ]);
    clearTimeout(timer);
  }

  close(): void {
    this.set([]);
  }

  /** @param again ask again after a question that is under way; otherwise that one is enough */
  #bringForward(name: string, again = true): void {
    const running = this.#running.get(name);
    if (running === undefined) return;
    if (running.timer === undefined) {
      running.again ||= again;
      return;
    }
    clearTimeout(running.timer);
    void this.#ask(name);
  }

  #unitChanged(unit: string): void {
    for (const [name, { check }] of this.#running) {
      if (check.unit !== unit) continue;
      this.#bringForward(name);
      void this.#lookDuringQuestion(name, unit);
    }
  }

  /** A process that is stopped lets a question wait for its whole timeout. */
  async #lookDuringQuestion(name: string, unit: string): Promise<void> {
    const question = this.#running.get(name)?.question;
    if (question === undefined) return;
    const state = await this.#units.look(unit);
    if (isOver(state)) question.end(overResult(unit, state));
  }

  #optionsOf({ timing = {}, patience = 0 }: Check): HealthOptions {
    const set = Object.entries(timing).filter(([, value]) => value !== undefined);
    const options: HealthOptions = { ...this.#options, ...Object.fromEntries(set) };
    // A service may be checked more often than the node's fast interval says.
    const fastIntervalMs = Math.min(options.fastIntervalMs, options.intervalMs);
    return { ...options, fastIntervalMs, fall: options.fall + patience };
  }

  async #result({ target, unit, spread = false }: Check, options: HealthOptions): Promise<Result> {
    const { ask = probe } = this.#dependencies;
    const asked = (): Promise<Result> =>
      spread && options.fall > 1
        ? askSpread(this.#dependencies, target, options)
        : ask(target, options.timeoutMs);
    if (unit === undefined) return await asked();
    const before = await this.#units.look(unit);
    if (isOver(before)) return overResult(unit, before);
    const result = await asked();
    // It may have ended meanwhile, which explains the failure, and needs no second one.
    const after = result.passed ? before : await this.#units.look(unit);
    if (isOver(after)) return overResult(unit, after);
    return after === 'unknown' ? { ...result, detail: `${result.detail}; ${unit} cannot be seen` } : result;
  }

  async #ask(name: string): Promise<void> {
    const running = this.#running.get(name);
    if (running === undefined || running.ended) return;
    // While a check runs there is no timer to cancel.
    running.timer = undefined;
    running.again = false;
    const { clock } = this.#dependencies;
    const { promise: cut, resolve: end } = Promise.withResolvers<Result>();
    const asked = this.#optionsOf(running.check);
    const question = new Question(clock, asked.timeoutMs * ENOUGH_OF_TIMEOUT, end);
    running.question = question;
    const result = await Promise.race([cut, this.#result(running.check, asked)]);
    question.over();
    running.question = undefined;
    if (running.ended) return;
    // A reload may have changed it meanwhile.
    const options = this.#optionsOf(running.check);
    if (result.failure === 'unasked') {
      running.timer = setTimeout(() => void this.#ask(name), options.fastIntervalMs);
      running.verdict = { ...running.verdict, detail: result.detail };
      return;
    }
    const was = running.verdict;
    const fall = result.failure === 'ended' || result.conclusive === true ? 1 : options.fall;
    const state = nextCheckState(was, result.passed, clock.monotonicMs(), { ...options, fall });
    const failure = result.passed ? undefined : (result.failure ?? 'answer');
    const detail = result.detail + returning(state, clock.monotonicMs(), options);
    running.verdict = { ...state, name, required: running.check.required, detail, failure };
    // A check starts down, which is no result: on a busy machine one check may fail after each restart.
    const decided = state.health === 'up' || (!result.passed && state.streak >= fall);
    if (decided) running.decided.resolve();
    const deciding = !decided || result.passed !== (state.health === 'up');
    const waitMs = deciding ? options.fastIntervalMs : options.intervalMs;
    running.timer = setTimeout(() => void this.#ask(name), running.again ? 0 : waitMs);
    if (state.health !== was.health) this.#dependencies.changed(running.verdict, was.health);
  }
}

/** The first answer of `fall` questions that begin within one timeout, or their silence at its end. */
async function askSpread(
  { clock, ask = probe }: Pick<HealthDependencies, 'clock' | 'ask'>,
  target: ProbeTarget,
  { timeoutMs, fall }: HealthOptions,
): Promise<Result> {
  const answered = new AbortController();
  const sinceMs = clock.monotonicMs();
  let late = false;
  const questions = Array.from({ length: fall }, async (_, nth) => {
    const afterMs = Math.floor((nth * timeoutMs) / fall);
    if (nth > 0) await pause(afterMs, undefined, { signal: answered.signal, ref: false });
    late ||= isLate(clock, sinceMs, afterMs);
    const result = await ask(target, timeoutMs - afterMs);
    if (result.failure !== 'silent') return result;
    late ||= isLate(clock, sinceMs, timeoutMs);
    throw new Error(result.detail);
  });
  try {
    return await Promise.any(questions);
  } catch {
    const detail = `no answer to ${fall} questions within ${timeoutMs} ms`;
    return { passed: false, detail, failure: 'silent', conclusive: !late };
  } finally {
    answered.abort();
  }
}

const NOT_AT_WORK = {
  ended: (unit) => `${unit} has no process: systemctl status ${unit}`,
  frozen: (unit) => `${unit} is frozen: systemctl status ${unit}`,
  stopped: (unit) => `${unit} is stopped by a signal: systemctl kill --signal=SIGCONT ${unit}`,
} as const satisfies Partial<Record<UnitState, (unit: string) => string>>;

const isOver = (state: UnitState): state is keyof typeof NOT_AT_WORK => Object.hasOwn(NOT_AT_WORK, state);

const overResult = (unit: string, state: keyof typeof NOT_AT_WORK): Result => ({
  passed: false,
  detail: NOT_AT_WORK[state](unit),
  failure: 'ended',
});

const isSameProgram = (one: ProbeTarget, other: ProbeTarget): boolean =>
  one.address === other.address && one.port === other.port;

/** A check that passes again but is still held down reports that: otherwise its answer would contradict the verdict. */
function returning(state: CheckState, nowMs: number, options: DampingOptions): string {
  if (state.health === 'up' || state.lastPassed !== true) return '';
  const leftMs = state.streakSinceMs + returnDelayMs(state, nowMs, options) - nowMs;
  return leftMs > 0
    ? `; it passes again, and counts as up in ${Math.ceil(leftMs / 1000)} s if it keeps passing`
    : '';
}
