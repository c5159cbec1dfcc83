import type { MemberRow } from '../control/api.ts';

/**
 * A rollout brings the whole cluster to the newest package, one host at a time. It has no leader: each host says in its
 * own record (tag `rollout`) what it believes about the rollout and how far it is itself, and takes its turn when every
 * host before it is done and everybody is healthy. The tag has only numbers and words of this file, so it cannot name a
 * command, a path, an address or a package. Pure.
 */

type RolloutState = 'running' | 'finished' | 'stopped';
type Step = 'waiting' | 'working' | 'done' | 'failed';

/** Why a rollout stopped, with the texts for the operator; HOST is the host that was upgrading. */
export const STOPS = {
  operator: { why: 'the operator stopped it', next: 'to continue: bornemisza upgrade resume' },
  'not-back': {
    why: 'a daemon on HOST did not come back after its upgrade',
    next:
      'on HOST: journalctl -u bornemisza@ROLE -p warning; dnf downgrade bornemisza-node; then bornemisza ' +
      'upgrade resume',
  },
  'not-healthy': {
    why: 'HOST is not healthy after its upgrade',
    next: 'on HOST: bornemisza status; repair it or dnf downgrade bornemisza-node; then bornemisza upgrade resume',
  },
  package: {
    why: 'dnf failed on HOST',
    next: 'on HOST: journalctl -u bornemisza-upgrade; correct it, then bornemisza upgrade resume',
  },
  'not-begun': {
    why: 'HOST did not start its upgrade: bornemisza-upgrade.path does not run there',
    next: 'on HOST: systemctl start bornemisza-upgrade.path; then bornemisza upgrade resume',
  },
  interrupted: {
    why: 'HOST was restarted during its upgrade',
    next: 'on HOST: dnf check bornemisza-node, rpm -V bornemisza-node; then bornemisza upgrade resume',
  },
  'no-progress': {
    why: 'the rollout made no progress for too long',
    next: 'find the node that is not healthy: bornemisza members; then bornemisza upgrade resume',
  },
} as const;
export type StopCode = keyof typeof STOPS;

/** The tag of a record with the node's {@link Word}. */
export const ROLLOUT_TAG = 'rollout';

/** The state on which all nodes agree in the end. */
export interface Rollout {
  /** Unix seconds of its start; a later rollout has the higher number. */
  readonly id: number;
  readonly state: RolloutState;
  /** Only when stopped. */
  readonly code: StopCode | undefined;
}

/** The report of one node: its view of the rollout, and the step of its own host. */
export interface Word extends Rollout {
  readonly step: Step;
}

const WORD = new RegExp(
  [
    /^(?<id>\d{1,11}) (?<state>running|finished|stopped)/,
    /(?<step>waiting|working|done|failed)(?: (?<code>[a-z-]{1,20}))?$/,
  ]
    .map(({ source }) => source)
    .join(' '),
);

/** At most 50 bytes. */
export function formatWord({ id, state, step, code }: Word): string {
  return `${id} ${state} ${step}${code === undefined ? '' : ` ${code}`}`;
}

/** @returns undefined for an unknown form */
export function parseWord(text: string | undefined): Word | undefined {
  const { id, state, step, code } = WORD.exec(text ?? '')?.groups ?? {};
  if (id === undefined) return undefined;
  const known = code !== undefined && code in STOPS ? (code as StopCode) : undefined;
  return {
    id: Number(id),
    state: state as RolloutState,
    step: step as Step,
    // A later version may have other reasons; the rollout is stopped in any case.
    code: state === 'stopped' ? (known ?? 'operator') : undefined,
  };
}

/** A node whose clock is ahead must not prevent all later rollouts. */
const MAX_CLOCK_AHEAD_S = 3600;

/**
 * The later rollout wins; of the same one, stopped before finished before running. Commutative, associative,
 * idempotent.
 */
export function merged(one: Rollout | undefined, other: Rollout | undefined): Rollout | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  if (one.id !== other.id) return one.id > other.id ? one : other;
  const rank = (of: Rollout): string =>
    `${{ running: 0, finished: 1, stopped: 2 }[of.state]}${of.code ?? ''}`;
  return rank(one) >= rank(other) ? one : other;
}

export function isPossible(id: number, wallS: number): boolean {
  return id <= wallS + MAX_CLOCK_AHEAD_S;
}

/** This node's view after the reports of the others. */
export function agreed(
  own: Rollout | undefined,
  rows: readonly MemberRow[],
  wallS: number,
): Rollout | undefined {
  return rows
    .map(({ tags }) => parseWord(tags[ROLLOUT_TAG]))
    .filter((word) => word !== undefined)
    .filter(({ id }) => isPossible(id, wallS))
    .map(({ id, state, code }) => ({ id, state, code }))
    .reduce(merged, own);
}

/** One machine: both roles of a host are one package. */
export interface HostInRollout {
  readonly host: string;
  readonly members: readonly MemberRow[];
  readonly step: Step;
  /** Why no host of the cluster may upgrade now; undefined: this host is healthy. */
  readonly problem: string | undefined;
}

export const hostOf = (name: string): string => name.replace(/\/.*$/, '');

/**
 * The member that acts for its host: the first by name, so that both know it without a message. A member that left does
 * not act.
 */
export function leads(name: string, rows: readonly MemberRow[]): boolean {
  const names = rows
    .filter((each) => each.state !== 'left' && hostOf(each.name) === hostOf(name))
    .map((each) => each.name);
  return [...names].sort()[0] === name;
}

/**
 * The hosts in the order of their turns: the one that was admitted last begins, so that the first node, often the only
 * authority, gets a new version last.
 *
 * @param admission names in order of admission
 */
export function inOrder(
  rows: readonly MemberRow[],
  admission: readonly string[],
  id: number | undefined,
): HostInRollout[] {
  const present = rows.filter((row) => row.state !== 'left');
  const hosts = [...new Set(admission.map(hostOf))].reverse();
  return hosts.flatMap((host) => {
    const members = present.filter((row) => hostOf(row.name) === host);
    const leader = members.find(({ name }) => leads(name, members));
    if (leader === undefined) return [];
    const word = parseWord(leader.tags[ROLLOUT_TAG]);
    const step = word !== undefined && word.id === id ? word.step : 'waiting';
    return [{ host, members, step, problem: members.map(problemOf).find((each) => each !== undefined) }];
  });
}

function problemOf(row: MemberRow): string | undefined {
  if (row.state !== 'alive') return `${row.name} is ${row.state}`;
  if (row.restarting) return `${row.name} restarts`;
  if (row.maintenance) return `${row.name} is in maintenance`;
  if (row.health !== 'up') return `${row.name} is down`;
  return row.rotation === 'in' ? undefined : `${row.name} ${row.reason}`;
}

/** Why no host may upgrade now, or undefined. */
export function holding(
  hosts: readonly HostInRollout[],
  node: { readonly synced: boolean; readonly held: readonly { readonly message: string }[] },
): string | undefined {
  if (!node.synced) return 'this node has not synced since its start';
  const [held] = node.held;
  if (held !== undefined) return `a guard holds: ${held.message}`;
  return hosts.find(({ problem }) => problem !== undefined)?.problem;
}

/** Whether it is this host's turn: all hosts before it are done, and no other one is upgrading. */
export function isTurn(hosts: readonly HostInRollout[], host: string): boolean {
  const at = hosts.findIndex((each) => each.host === host);
  return (
    at >= 0 &&
    hosts.slice(0, at).every(({ step }) => step === 'done') &&
    hosts.slice(at + 1).every(({ step }) => step === 'waiting' || step === 'done')
  );
}

/** The host that was upgrading when the rollout stopped, for people. */
export function atWork(hosts: readonly HostInRollout[]): HostInRollout | undefined {
  return hosts.find(({ step }) => step === 'failed') ?? hosts.find(({ step }) => step === 'working');
}

export function stopInWords(
  code: StopCode,
  host: string | undefined,
): { readonly why: string; readonly next: string } {
  const { why, next } = STOPS[code];
  const named = (text: string): string => text.replaceAll('HOST', host ?? 'the host that was upgrading');
  return { why: named(why), next: named(next) };
}
