import type { Clock } from '../clock.ts';
import { announces, type Config, floatingDevice } from '../config/config.ts';
import type { Done, LeaveRequest, MemberRow, Progress, StatusAnswer, HaproxyTraffic } from './api.ts';
import type { Driver } from '../driver/driver.ts';
import { OperatorError } from '../errors.ts';
import type { Flow } from './flow.ts';
import type { Checks } from '../health/health.ts';
import type { Identity } from '../identity/identity.ts';
import type { LocalStateFile } from '../local-state.ts';
import type { Role } from '../membership/types.ts';
import type { Reconciler } from '../reconciler/reconciler.ts';
import { mustNotBeLast, mustNotBeLastAuthority, type RoleView } from './operator-guards.ts';

/** How long the withdrawal of the floating IP may take. */
const WITHDRAW_DEADLINE_MS = 10_000;
/** How long another node may take to get it, if the provider moves it. */
const HAND_OVER_MS = 30_000;
/** How long open requests may take to end, unless the operator sets another time. */
const DRAIN_MS = 30_000;
const DRAIN_LOOK_MS = 300;
/** The others learn of a leave within milliseconds; the second check sees what they sent until then. */
const QUIET_LOOKS = 2;
/** CouchDB stops within 3 s; otherwise its check reports it, and in maintenance it harms nobody. */
const COUCHDB_STOP_MS = 20_000;
/** A partition of the private network heals within this time, or needs a person. */
const UNHEARD_MS = 30_000;
/** Time for the answer to reach the command before the daemon restarts. */
const TAKE_BACK_MS = 500;
/** Time for the others to get the last record before the operator stops the daemon. */
const DEPARTED_MS = 300;

export interface LeaveDependencies {
  readonly clock: Clock;
  readonly node: {
    readonly config: Config;
    readonly phase: StatusAnswer['phase'];
    readonly last: { readonly view: RoleView; readonly scene: { readonly holds: boolean } };
    rows(): readonly MemberRow[];
    turn(reason: string): void;
    operatorDid(what: string): void;
    enter(phase: 'leaving' | 'left'): void;
    retireCouchDb(): Promise<void>;
  };
  readonly driver: Pick<Driver, 'leave' | 'departed'>;
  readonly checks: Pick<Checks, 'verdicts'>;
  readonly reconciler: Pick<Reconciler, 'converged' | 'status'>;
  /** The last observation of CouchDB's plugin; undefined without one. */
  readonly couchdb: () => { readonly phase: string; readonly waiting: string | undefined } | undefined;
  readonly flow: { traffic(): Promise<Pick<HaproxyTraffic, 'requests' | 'summary'>> } & Pick<
    Flow,
    'endStreams'
  >;
  /** Stores that this identity is no longer valid. */
  readonly local: Pick<LocalStateFile, 'update'>;
  readonly end: (code: number, why: string) => void;
}

/** `bornemisza leave`: ends this node's work in order, then its membership, for good. */
export class Leave {
  readonly #identity: Pick<Identity, 'name' | 'role'>;
  readonly #dependencies: LeaveDependencies;

  constructor(identity: Pick<Identity, 'name' | 'role'>, dependencies: LeaveDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /**
   * @throws OperatorError `left`, `guard-last-of-role`, `guard-last-authority`; and `leave-refused`, which cancels the
   * leave
   */
  async run({ force, drainMs }: LeaveRequest, progress: (step: Progress) => void): Promise<Done> {
    const { driver, node, local } = this.#dependencies;
    const { name, role } = this.#identity;
    if (node.phase === 'left') throw leftAlready(role);
    if (force !== true) {
      mustNotBeLast(this.#identity, node.last.view, 'leave');
      mustNotBeLastAuthority(node.rows(), name);
    }
    node.enter('leaving');
    node.operatorDid('leave');
    driver.leave();
    node.turn('leave by the operator');
    progress({ message: toldWords(name, node.rows()) });
    if (role === 'app') await this.#withdraw(progress);
    else await this.#leaveData(progress, force);
    await this.#drain(progress, drainMs ?? DRAIN_MS);
    if (role === 'db') await this.#stopData(progress);
    driver.departed();
    node.enter('left');
    await local.update({ left: true });
    await pause(DEPARTED_MS);
    return {
      done: true,
      message:
        `${name} has left the cluster. Next: systemctl disable --now bornemisza@${role}; ` +
        'then the machine can be deleted at the provider',
    };
  }

  async #withdraw(progress: (step: Progress) => void): Promise<void> {
    const { reconciler, clock, node } = this.#dependencies;
    await this.#handOver(progress);
    if (!(await withdrawn(reconciler, clock, WITHDRAW_DEADLINE_MS))) {
      if (announces(node.config))
        throw this.#refused(
          'BIRD does not confirm that the floating IP is withdrawn here',
          'systemctl status bird; then run `bornemisza leave` again',
        );
      throw this.#refused(
        `the floating IP cannot be removed from ${floatingDevice(node.config)}`,
        'see why: bornemisza plan; then run `bornemisza leave` again',
      );
    }
    progress({ message: 'no new traffic; draining connections' });
  }

  /**
   * Ends when no request is open, or reports the open ones after the time limit: they do not block a leave. What lasts
   * is ended in the second half, one after another, so that its clients do not all come back in one moment.
   */
  async #drain(progress: (step: Progress) => void, drainMs: number): Promise<void> {
    const { clock, flow } = this.#dependencies;
    const untilMs = clock.monotonicMs() + drainMs;
    let told = '';
    for (let quiet = 0; ; ) {
      // There is nothing to wait for if HAProxy does not answer.
      const { requests, summary } = await flow.traffic().catch(() => ({ requests: 0, summary: 'not known' }));
      quiet = requests === 0 ? quiet + 1 : 0;
      if (quiet >= QUIET_LOOKS) return progress({ message: `drained: ${summary}` });
      if (clock.monotonicMs() >= untilMs)
        return progress({ message: `not drained: ${summary}, which are cut when HAProxy ends` });
      if (summary !== told && requests > 0) progress({ message: `draining: ${summary}` });
      told = summary;
      const leftMs = untilMs - clock.monotonicMs();
      if (requests > 0 && leftMs < drainMs / 2)
        await flow.endStreams(shareNow(leftMs, DRAIN_LOOK_MS)).catch(() => undefined);
      await pause(DRAIN_LOOK_MS);
    }
  }

  /** Mode `api`: nobody unassigns, so the node continues to serve for a while, until another one has the addresses. */
  async #handOver(progress: (step: Progress) => void): Promise<void> {
    const { clock, node } = this.#dependencies;
    const holds = (): boolean => node.config.floating.mode === 'api' && node.last.scene.holds;
    if (!holds()) return;
    progress({ message: 'waiting until another node has the floating IPs' });
    const untilMs = clock.monotonicMs() + HAND_OVER_MS;
    while (holds() && clock.monotonicMs() < untilMs) await pause(100);
    progress({ message: holds() ? 'no other node has them yet: going on' : 'another node has them' });
  }

  async #leaveData(progress: (step: Progress) => void, force: boolean | undefined): Promise<void> {
    const { reconciler, couchdb, node, clock } = this.#dependencies;
    let told = '';
    let aloneSinceMs: number | undefined;
    for (let status = couchdb(); status !== undefined && status.phase !== 'left'; status = couchdb()) {
      const plugin = reconciler.status().find((each) => each.name === 'couchdb');
      if (plugin?.state === 'stopped') throw this.#refused(plugin.detail, plugin.next);
      const words = status.waiting === undefined ? (plugin?.detail ?? '') : `waiting for ${status.waiting}`;
      if (isUnheard(node.rows())) {
        aloneSinceMs ??= clock.monotonicMs();
        if (clock.monotonicMs() - aloneSinceMs > UNHEARD_MS) {
          if (force !== true) throw this.#unheard();
          progress({ message: 'no other node is reachable, so none can take the copies of the data' });
          return;
        }
      } else aloneSinceMs = undefined;
      if (words !== told && words !== '') progress({ message: words });
      told = words;
      await pause(200);
    }
  }

  async #stopData(progress: (step: Progress) => void): Promise<void> {
    const { couchdb, node, checks, clock } = this.#dependencies;
    if (couchdb()?.phase !== 'left') return;
    progress({ message: 'the others have every copy; stopping CouchDB here (its data stays on the disk)' });
    await node.retireCouchDb();
    const untilMs = clock.monotonicMs() + COUCHDB_STOP_MS;
    const stopped = (): boolean =>
      checks.verdicts.find((each) => each.name === 'couchdb')?.failure === 'refused';
    while (!stopped() && clock.monotonicMs() < untilMs) await pause(100);
  }

  #unheard(): OperatorError {
    return this.#refused(
      'no other node is reachable, so none can take the copies of the data of this node',
      'repair the private network and run it again; if this node was removed, or its copies may be lost: ' +
        'bornemisza leave --force',
    );
  }

  /**
   * A leave was announced and cannot be completed. It is final for this incarnation, so the daemon restarts: its next
   * incarnation is a member as before.
   */
  #refused(message: string, next: string): OperatorError {
    const { end } = this.#dependencies;
    setTimeout(() => end(1, 'the leave was refused: restarting as a member'), TAKE_BACK_MS);
    return new OperatorError('leave-refused', message, `${next} (the daemon restarts and stays a member)`);
  }
}

/** Of what is still open, so that the last one ends shortly before the time does. */
const shareNow = (leftMs: number, stepMs: number): number => 1 / Math.max(1, Math.floor(leftMs / stepMs) - 2);

/** Whether there are others, and none of them is reachable. */
function isUnheard(rows: readonly MemberRow[]): boolean {
  const others = rows.filter(({ self, state }) => !self && state !== 'left');
  return others.length > 0 && !others.some(({ state }) => state === 'alive');
}

function toldWords(name: string, rows: readonly MemberRow[]): string {
  return isUnheard(rows)
    ? `no other node is reachable, so none learns that ${name} is leaving`
    : `notified the other nodes: ${name} is leaving`;
}

/** @returns whether the programs that have the floating IP have nothing left to do, after `deadlineMs` at the latest */
export async function withdrawn(
  reconciler: Pick<Reconciler, 'converged'>,
  clock: Clock,
  deadlineMs: number,
): Promise<boolean> {
  const untilMs = clock.monotonicMs() + deadlineMs;
  while (!reconciler.converged('bird') || !reconciler.converged('layer2')) {
    if (clock.monotonicMs() > untilMs) return false;
    await pause(20);
  }
  return true;
}

export function leftAlready(role: Role): OperatorError {
  return new OperatorError(
    'left',
    'this node has left its cluster',
    `to join again: bornemisza join --reset - with a new token; else: systemctl disable bornemisza@${role}`,
  );
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
