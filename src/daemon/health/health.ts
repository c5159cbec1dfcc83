import type { Clock } from '../clock.ts';
import type { Health } from '../membership/types.ts';
import {
  type CheckState,
  type DampingOptions,
  initialCheckState,
  nextCheckState,
  returnDelayMs,
} from './damping.ts';
import { probe, type ProbeResult, type ProbeTarget } from './probe.ts';
import { Units, type UnitState } from './units.ts';

export interface Check {
  readonly name: string;
  /** Whether the node as a whole is down while this check is. */
  readonly required: boolean;
  readonly target: ProbeTarget;
  /** Failures beyond `fall` that are tolerated: a program that restarts at once was not down. Default 0. */
  readonly patience?: number;
  /** The systemd unit that runs it: while that has no process, or is frozen, the check is down without a question. */
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

interface HealthDependencies {
  readonly clock: Clock;
  readonly ask?: (target: ProbeTarget, timeoutMs: number) => Promise<ProbeResult>;
  /** Where cgroup v2 is mounted. */
  readonly cgroups?: string;
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
      ended: boolean;
      decided: PromiseWithResolvers<void>;
    }
  >();

  constructor(options: HealthOptions, dependencies: HealthDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#units = new Units((unit) => this.#unitChanged(unit), dependencies.cgroups);
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
        ended: false,
        decided: Promise.withResolvers<void>(),
      });
      void this.#ask(check.name);
    }
  }

  /**
   * Brings the next question of a check forward: there is a sign that it fails now. Not the second one: a service that
   * restarts within `fastIntervalMs` stays up, however many signs there are.
   */
  askNow(name: string): void {
    const verdict = this.#running.get(name)?.verdict;
    if (verdict?.health === 'up' && verdict.lastPassed !== false) this.#bringForward(name);
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

  /** Asks now instead of later; a question under way is enough. */
  #bringForward(name: string): void {
    const timer = this.#running.get(name)?.timer;
    if (timer === undefined) return;
    clearTimeout(timer);
    void this.#ask(name);
  }

  #unitChanged(unit: string): void {
    for (const [name, { check }] of this.#running) if (check.unit === unit) this.#bringForward(name);
  }

  #optionsOf({ timing = {}, patience = 0 }: Check): HealthOptions {
    const set = Object.entries(timing).filter(([, value]) => value !== undefined);
    const options: HealthOptions = { ...this.#options, ...Object.fromEntries(set) };
    // A service may be checked more often than the node's fast interval says.
    const fastIntervalMs = Math.min(options.fastIntervalMs, options.intervalMs);
    return { ...options, fastIntervalMs, fall: options.fall + patience };
  }

  async #result({ target, unit }: Check, timeoutMs: number): Promise<ProbeResult> {
    const { ask = probe } = this.#dependencies;
    if (unit === undefined) return await ask(target, timeoutMs);
    const before = await this.#units.look(unit);
    if (isOver(before)) return overResult(unit, before);
    const result = await ask(target, timeoutMs);
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
    const { clock } = this.#dependencies;
    const result = await this.#result(running.check, this.#optionsOf(running.check).timeoutMs);
    if (running.ended) return;
    // A reload may have changed it meanwhile.
    const options = this.#optionsOf(running.check);
    if (result.failure === 'unasked') {
      running.timer = setTimeout(() => void this.#ask(name), options.fastIntervalMs);
      running.verdict = { ...running.verdict, detail: result.detail };
      return;
    }
    const was = running.verdict;
    const fall = result.failure === 'ended' ? 1 : options.fall;
    const state = nextCheckState(was, result.passed, clock.monotonicMs(), { ...options, fall });
    const failure = result.passed ? undefined : (result.failure ?? 'answer');
    const detail = result.detail + returning(state, clock.monotonicMs(), options);
    running.verdict = { ...state, name, required: running.check.required, detail, failure };
    // A check starts down, which is no result: on a busy machine one check may fail after each restart.
    const decided = state.health === 'up' || (!result.passed && state.streak >= fall);
    if (decided) running.decided.resolve();
    const deciding = !decided || result.passed !== (state.health === 'up');
    running.timer = setTimeout(
      () => void this.#ask(name),
      deciding ? options.fastIntervalMs : options.intervalMs,
    );
    if (state.health !== was.health) this.#dependencies.changed(running.verdict, was.health);
  }
}

const isOver = (state: UnitState): state is 'ended' | 'frozen' => state === 'ended' || state === 'frozen';

function overResult(unit: string, state: 'ended' | 'frozen'): ProbeResult {
  const detail = state === 'ended' ? `${unit} has no process` : `${unit} is frozen`;
  return { passed: false, detail: `${detail}: systemctl status ${unit}`, failure: 'ended' };
}

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
