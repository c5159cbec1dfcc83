import * as z from 'zod';
import type { Clock } from '../clock.ts';
import type { Done, MemberRow, UpgradeAnswer } from '../control/api.ts';
import { OperatorError } from '../errors.ts';
import {
  agreed,
  atWork,
  formatWord,
  holding,
  hostOf,
  type HostInRollout,
  inOrder,
  isTurn,
  leads,
  ROLLOUT_TAG,
  type StopCode,
  stopInWords,
  STOPS,
  type Word,
} from './policy.ts';
import type { UpgradeTurn } from './turn.ts';

/** Times in ms. */
export interface RolloutOptions {
  /** How long all nodes must be healthy before a host begins, and a host before it is done. */
  readonly settleMs: number;
  /**
   * The time between announcing its turn and beginning: two hosts that announced at once know of each other by then.
   */
  readonly announceMs: number;
  /** Limit for root's unit to start the upgrade. */
  readonly beginMs: number;
  /** Limit after dnf has succeeded until the host is healthy. */
  readonly verifyMs: number;
  /** How long a member of the upgrading host may stay dead, beyond the window of a restart. */
  readonly returnMs: number;
  /** Limit of a rollout without a working host and without progress. */
  readonly idleMs: number;
  /** Limit of one upgrading host: more than systemd's limit of dnf. */
  readonly workMs: number;
}

export const DEFAULT_ROLLOUT_OPTIONS: RolloutOptions = {
  settleMs: 3000,
  announceMs: 2000,
  beginMs: 30_000,
  verifyMs: 120_000,
  returnMs: 10_000,
  idleMs: 600_000,
  workMs: 1_200_000,
};

/** The present view of this node. */
interface RolloutScene {
  readonly rows: readonly MemberRow[];
  /** Names in order of admission. */
  readonly admission: readonly string[];
  readonly synced: boolean;
  readonly held: readonly { readonly message: string }[];
  /** Whether no plugin of this daemon has anything left to do. */
  readonly settled: boolean;
}

interface RolloutDependencies {
  readonly clock: Clock;
  readonly turn: Pick<UpgradeTurn, 'ask' | 'withdraw' | 'state'>;
  readonly scene: () => RolloutScene;
  /** Stores this node's report across restarts and reboots; called for each change. */
  readonly save: (word: Word) => void;
  /** Called once for each change of the rollout's state and of this host's step. */
  readonly tell: (what: RolloutNews) => void;
}

export interface RolloutNews {
  readonly text: string;
  readonly stopped?: { readonly code: StopCode; readonly next: string };
}

const kept = z.object({
  id: z.int().min(0),
  state: z.enum(['running', 'finished', 'stopped']),
  step: z.enum(['waiting', 'working', 'done', 'failed']),
  code: z.enum(Object.keys(STOPS) as [StopCode, ...StopCode[]]).optional(),
});

/** This node's part in a rollout. `look()` is called once a second and does everything. */
export class RolloutRunner {
  readonly #name: string;
  readonly #options: RolloutOptions;
  readonly #dependencies: RolloutDependencies;
  #word: Word | undefined;
  #looking = false;
  #healthySinceMs: number | undefined;
  /** The same of this host alone. */
  #ownWellSinceMs: number | undefined;
  /** The steps of all hosts, and since when. */
  #steps = '';
  #stepsSinceMs = 0;
  /** Since when this host announces its turn, waits for root, or verifies; in the present process. */
  #phase: { readonly kind: 'announced' | 'asked' | 'verifying'; readonly sinceMs: number } | undefined;

  /** @param name HOST/ROLE of this node */
  constructor(name: string, options: RolloutOptions, dependencies: RolloutDependencies) {
    this.#name = name;
    this.#options = options;
    this.#dependencies = dependencies;
  }

  /** Restores this node's last report. Unknown content counts as no part in a rollout. */
  load(state: unknown): void {
    const { data } = kept.safeParse(state);
    this.#word = data === undefined ? undefined : { ...data, code: data.code };
  }

  /** For this node's record; undefined before the first rollout. */
  get tag(): string | undefined {
    return this.#word === undefined ? undefined : formatWord(this.#word);
  }

  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      this.#listen();
      if (this.#word?.state === 'running') await this.#advance();
    } finally {
      this.#looking = false;
    }
  }

  start(): Done {
    const { state } = this.#word ?? {};
    if (state === 'stopped') {
      const { why, next } = this.#stopWords();
      throw new OperatorError('guard-rollout-stopped', `the last rollout was stopped: ${why}`, next);
    }
    return this.#begin('a rollout begins');
  }

  resume(): Done {
    if (this.#word?.state !== 'stopped') {
      throw new OperatorError(
        'rollout-not-stopped',
        'no rollout is stopped',
        'bornemisza upgrade status; a new one: bornemisza upgrade',
      );
    }
    return this.#begin('the rollout goes on');
  }

  stop(): Done {
    if (this.#word?.state !== 'running') {
      throw new OperatorError('rollout-not-running', 'no rollout runs', 'bornemisza upgrade status');
    }
    this.#stop('operator');
    return {
      done: true,
      message: 'the rollout is stopped: a host that upgrades now finishes, no other starts',
    };
  }

  answer(): UpgradeAnswer {
    const hosts = this.#hosts();
    const word = this.#word;
    const { why, next } =
      word?.state === 'stopped' ? this.#stopWords() : { why: this.#waitsFor(hosts), next: '' };
    return {
      state: word?.state ?? 'none',
      startedAt: word === undefined ? '' : new Date(word.id * 1000).toISOString(),
      why,
      next,
      hosts: hosts.map(({ host, members, step, problem }) => ({
        host,
        members: members.map(({ name, version }) => ({ name, version })),
        step: word === undefined ? 'waiting' : step,
        problem: problem ?? '',
      })),
    };
  }

  /** For `status`, as a stopped rollout is easily forgotten. */
  get warnings(): { code: string; message: string; next: string }[] {
    if (this.#word?.state !== 'stopped') return [];
    const { why, next } = this.#stopWords();
    return [{ code: 'rollout-stopped', message: `a rollout is stopped: ${why}`, next }];
  }

  /** Merges the reports of the others. */
  #listen(): void {
    const { rows } = this.#dependencies.scene();
    const own = this.#word;
    const heard = agreed(own, rows, Math.floor(this.#dependencies.clock.wallMs() / 1000));
    if (heard === undefined) return;
    if (own?.id === heard.id && own.state === heard.state && own.code === heard.code) return;
    const step = own?.id === heard.id ? own.step : 'waiting';
    if (own?.id !== heard.id) this.#phase = undefined;
    this.#say({ ...heard, step });
  }

  async #advance(): Promise<void> {
    const { clock } = this.#dependencies;
    const nowMs = clock.monotonicMs();
    const hosts = this.#hosts();
    const scene = this.#dependencies.scene();
    const since = (well: boolean, was: number | undefined): number | undefined =>
      well ? (was ?? nowMs) : undefined;
    this.#healthySinceMs = since(holding(hosts, scene) === undefined, this.#healthySinceMs);
    const own = hosts.find(({ host }) => host === hostOf(this.#name));
    const ownWell = scene.synced && scene.settled && own !== undefined && own.problem === undefined;
    this.#ownWellSinceMs = since(ownWell, this.#ownWellSinceMs);
    if (this.#watch(hosts, nowMs)) return;
    if (!leads(this.#name, scene.rows)) return;
    if (this.#word?.step === 'working') await this.#work(hosts, nowMs);
    else if (this.#word?.step === 'waiting') this.#maybeBegin(hosts, nowMs);
  }

  /** The checks of every node, whichever host is upgrading. @returns whether the rollout ended */
  #watch(hosts: readonly HostInRollout[], nowMs: number): boolean {
    const steps = hosts.map(({ host, step }) => `${host} ${step}`).join();
    if (steps !== this.#steps) {
      this.#steps = steps;
      this.#stepsSinceMs = nowMs;
    }
    const working = hosts.find(({ step }) => step === 'working');
    const { returnMs, idleMs, workMs } = this.#options;
    const lost =
      working?.members.some((each) => each.state === 'dead' && each.stateForMs > returnMs) ?? false;
    const quietMs = nowMs - this.#stepsSinceMs;
    if (lost) this.#stop('not-back');
    else if (quietMs > (working === undefined ? idleMs : workMs)) this.#stop('no-progress');
    else if (hosts.length > 0 && hosts.every(({ step }) => step === 'done'))
      this.#say({ ...this.#mustHave(), state: 'finished' });
    return this.#word?.state !== 'running';
  }

  #maybeBegin(hosts: readonly HostInRollout[], nowMs: number): void {
    if (!isTurn(hosts, hostOf(this.#name)) || !stood(this.#healthySinceMs, this.#options.settleMs, nowMs))
      return;
    this.#phase = { kind: 'announced', sinceMs: nowMs };
    this.#say({ ...this.#mustHave(), step: 'working' });
  }

  /**
   * This host is upgrading: it asks root, waits for dnf, and checks its health. The process can be another one than at
   * the beginning.
   */
  async #work(hosts: readonly HostInRollout[], nowMs: number): Promise<void> {
    const { turn } = this.#dependencies;
    const { announceMs, beginMs, verifyMs, settleMs } = this.#options;
    const phase = this.#phase;
    if (phase?.kind === 'announced') {
      if (!isTurn(hosts, hostOf(this.#name)) || !stood(this.#healthySinceMs, settleMs, nowMs)) {
        this.#phase = undefined;
        this.#say({ ...this.#mustHave(), step: 'waiting' });
      } else if (nowMs - phase.sinceMs >= announceMs) {
        this.#phase = { kind: 'asked', sinceMs: nowMs };
        await turn.ask();
      }
      return;
    }
    const state = await turn.state();
    if (state === 'none') this.#fail('interrupted');
    else if (state === 'failed') this.#fail('package');
    else if (state === 'asked') {
      this.#phase ??= { kind: 'asked', sinceMs: nowMs };
      if (nowMs - this.#phase.sinceMs < beginMs) return;
      await turn.withdraw();
      this.#fail('not-begun');
    } else if (state === 'success') {
      const sinceMs = phase?.kind === 'verifying' ? phase.sinceMs : nowMs;
      this.#phase = { kind: 'verifying', sinceMs };
      if (nowMs - sinceMs >= settleMs && stood(this.#ownWellSinceMs, settleMs, nowMs)) {
        this.#phase = undefined;
        this.#say({ ...this.#mustHave(), step: 'done' });
      } else if (nowMs - sinceMs > verifyMs) this.#fail('not-healthy');
    }
  }

  #begin(text: string): Done {
    const { clock } = this.#dependencies;
    if (this.#word?.state === 'running') {
      throw new OperatorError(
        'rollout-running',
        'a rollout is already running',
        'watch it: bornemisza upgrade status',
      );
    }
    const problem = holding(this.#hosts(), this.#dependencies.scene());
    if (problem !== undefined) {
      throw new OperatorError(
        'guard-rollout',
        `not every node is healthy: ${problem}`,
        'see bornemisza members; repair that first, then start the rollout again',
      );
    }
    const id = Math.max(Math.floor(clock.wallMs() / 1000), (this.#word?.id ?? 0) + 1);
    this.#phase = undefined;
    this.#healthySinceMs = undefined;
    this.#say({ id, state: 'running', step: 'waiting', code: undefined });
    return { done: true, message: text };
  }

  #fail(code: StopCode): void {
    this.#phase = undefined;
    this.#say({ ...this.#mustHave(), state: 'stopped', code, step: 'failed' });
  }

  #stop(code: StopCode): void {
    this.#say({ ...this.#mustHave(), state: 'stopped', code });
  }

  #say(word: Word): void {
    const was = this.#word;
    this.#word = word;
    this.#dependencies.save(word);
    const { tell } = this.#dependencies;
    if (was?.id !== word.id && word.state === 'running') {
      this.#steps = '';
      tell({
        text: `rollout: it runs, one host after the other: ${this.#hosts()
          .map(({ host }) => host)
          .join(', ')}`,
      });
    } else if (was?.state !== word.state && word.state === 'stopped' && word.code !== undefined) {
      const { why, next } = this.#stopWords();
      tell({ text: `rollout: stopped, ${why}`, stopped: { code: word.code, next } });
    } else if (was?.state !== word.state) tell({ text: `rollout: ${word.state}` });
    else if (was.step !== word.step) tell({ text: `rollout: ${hostOf(this.#name)} is ${word.step}` });
  }

  /** The own report first: the record with it follows a moment later. */
  #hosts(): HostInRollout[] {
    const { rows, admission } = this.#dependencies.scene();
    const { tag } = this;
    const said = rows.map((row) =>
      row.name === this.#name && tag !== undefined
        ? { ...row, tags: { ...row.tags, [ROLLOUT_TAG]: tag } }
        : row,
    );
    return inOrder(said, admission, this.#word?.id);
  }

  #waitsFor(hosts: readonly HostInRollout[]): string {
    const problem = holding(hosts, this.#dependencies.scene());
    if (this.#word?.state !== 'running') return problem ?? '';
    const working = atWork(hosts);
    if (working !== undefined) return `${working.host} is upgrading`;
    return problem ?? '';
  }

  #stopWords(): { readonly why: string; readonly next: string } {
    return stopInWords(this.#word?.code ?? 'operator', atWork(this.#hosts())?.host);
  }

  #mustHave(): Word {
    if (this.#word === undefined) throw new Error('there is no rollout');
    return this.#word;
  }
}

function stood(sinceMs: number | undefined, ms: number, nowMs: number): boolean {
  return sinceMs !== undefined && nowMs - sinceMs >= ms;
}
