import type {
  Effect,
  Event,
  MembershipView,
  MemberState,
  NodeRecord,
  PeerId,
} from '../../src/daemon/membership/types.ts';
import type { Cluster, Process } from './cluster.ts';

/**
 * What must hold at every event (safety). docs/membership.md lists them by these names.
 */
export const INVARIANTS = {
  'nobody-healthy-dies':
    'Neither 10 % loss, nor a pause of one second, nor a busy loop, nor an announced restart, nor one ' +
    'liar makes anybody dead.',
  'incarnations-never-regress': 'In one process’ view a member’s (incarnation, sequence) never falls.',
  'no-return-without-incarnation':
    'Who was dead, left or forgotten comes back with a higher incarnation only.',
  'only-owners-write': 'Every record in every view was made by its owner.',
  'two-accusers-or-alone': 'Dead needs two accusers, or the own accusation where no other member answers.',
  'slow-node-blames-itself': 'A process that was stopped for a second accuses nobody healthy for it.',
  'views-are-orderly':
    'Views are frozen, sorted, versions rise, self is there once, no two living share a name.',
  'effects-are-bounded': 'No event makes more effects than a few per member.',
  'machine-is-total': 'The machine never meets an error of its own.',
  'gossip-has-a-budget': 'All together publish fewer than ten messages a second, seen over ten seconds.',
  'views-agree': 'After healing, all running processes hold the same view, and it is the truth.',
} as const;
export type Invariant = keyof typeof INVARIANTS;

export interface Violation {
  readonly invariant: Invariant;
  readonly atMs: number;
  readonly detail: string;
}

/** Who is under a fault that may excuse a death verdict, about him or by him. */
export interface Excuses {
  isExcused(host: PeerId): boolean;
  /** Stopped for at most a second, just now. */
  wasPaused(host: PeerId): boolean;
}

interface Seen {
  readonly incarnation: number;
  readonly sequence: number;
  readonly state: MemberState;
}

export function watchInvariants(cluster: Cluster, excuses: Excuses): Violation[] {
  const violations: Violation[] = [];
  const fail = (invariant: Invariant, detail: string): void => {
    if (violations.length < 100) violations.push({ invariant, atMs: cluster.queue.nowMs, detail });
  };
  const histories = new WeakMap<Process, Map<PeerId, Seen>>();
  const versions = new WeakMap<Process, number>();
  cluster.watchers.push((process, event, effects) => {
    const history = histories.get(process) ?? new Map<PeerId, Seen>();
    histories.set(process, history);
    if (effects.length > 100 + 12 * cluster.hosts.length)
      fail('effects-are-bounded', `${effects.length} for one ${event.kind}`);
    for (const effect of effects) checkEffect(cluster, excuses, process, effect, history, fail);
    if (effects.some((effect) => effect.kind === 'changed')) checkView(process, versions, fail);
  });
  cluster.onAccusation.push(({ accusation }, by) => {
    if (excuses.wasPaused(by.host.id) && !excuses.isExcused(accusation.subject))
      fail('slow-node-blames-itself', `${by.host.name} accused ${accusation.subject} after its pause`);
  });
  watchGossip(cluster, fail);
  return violations;
}

type Fail = (invariant: Invariant, detail: string) => void;

function checkEffect(
  cluster: Cluster,
  excuses: Excuses,
  process: Process,
  effect: Effect,
  history: Map<PeerId, Seen>,
  fail: Fail,
): void {
  if (effect.kind === 'note' && effect.code === 'internal-error') fail('machine-is-total', effect.detail);
  if (effect.kind !== 'changed') return;
  const { member, why } = effect;
  const { record, state } = member;
  const where = `${process.host.name} about ${record.name} (${why})`;
  if (!cluster.records.has(record)) fail('only-owners-write', where);
  const before = history.get(record.peerId);
  if (before !== undefined) checkOrder(before, { ...record, state }, where, fail);
  history.set(record.peerId, { incarnation: record.incarnation, sequence: record.sequence, state });
  if (state !== 'dead' || effect.was === undefined) return;
  const alone = member.accusers.length === 1 && member.accusers[0] === process.host.id;
  if (member.accusers.length < 2 && !alone) fail('two-accusers-or-alone', where);
  const subject = cluster.hosts.find((host) => host.id === record.peerId);
  const lives = subject?.process?.running === true && subject.process.startId === record.startId;
  if (lives && !excuses.isExcused(record.peerId) && !excuses.isExcused(process.host.id))
    fail('nobody-healthy-dies', where);
}

function checkOrder(before: Seen, now: Seen, where: string, fail: Fail): void {
  const risen = now.incarnation > before.incarnation;
  const regressed = now.incarnation < before.incarnation || (!risen && now.sequence < before.sequence);
  if (regressed) fail('incarnations-never-regress', `${where}: ${before.incarnation} to ${now.incarnation}`);
  const wasGone = before.state === 'dead' || before.state === 'left';
  const isBack = now.state !== 'dead' && now.state !== 'left';
  if (wasGone && isBack && !risen) fail('no-return-without-incarnation', where);
}

function checkView(process: Process, versions: WeakMap<Process, number>, fail: Fail): void {
  const { view } = process.membership;
  const where = process.host.name;
  if (view.version <= (versions.get(process) ?? -1)) fail('views-are-orderly', `${where}: version fell`);
  versions.set(process, view.version);
  const problem = disorderOf(view);
  if (problem !== undefined) fail('views-are-orderly', `${where}: ${problem}`);
}

function disorderOf(view: MembershipView): string | undefined {
  if (!Object.isFrozen(view) || !Object.isFrozen(view.members)) return 'not frozen';
  if (view.members.filter((member) => member.self).length !== 1) return 'self is not there once';
  const living = new Set<string>();
  let last = '';
  for (const member of view.members) {
    const { name } = member.record;
    if (name < last) return 'not sorted';
    last = name;
    if (!Object.isFrozen(member) || !Object.isFrozen(member.record)) return `${name} is not frozen`;
    if (member.state === 'dead' || member.state === 'left') continue;
    if (living.has(name)) return `two living ${name}`;
    living.add(name);
  }
  return undefined;
}

function watchGossip(cluster: Cluster, fail: Fail): void {
  const times: number[] = [];
  cluster.watchers.push((_process: Process, _event: Event, effects) => {
    for (const effect of effects) if (effect.kind === 'publish') times.push(cluster.queue.nowMs);
    while (times.length > 0 && cluster.queue.nowMs - (times[0] as number) > 10_000) times.shift();
    if (times.length > 100) {
      fail('gossip-has-a-budget', `${times.length} messages in ten seconds`);
      times.length = 0;
    }
  });
}

/** Liveness: what is still wrong; undefined when all agree on the truth. */
export function disagreement(cluster: Cluster, hasLeft: (host: PeerId) => boolean): string | undefined {
  const running = cluster.running();
  const truths = running.map((process) => ({ host: process.host, ...truthOf(process) }));
  for (const process of running) {
    const { view } = process.membership;
    if (!view.synced) return `${process.host.name} has not synced`;
    const members = new Map(view.members.map((member) => [member.record.peerId, member]));
    for (const truth of truths) {
      const member = members.get(truth.host.id);
      if (member === undefined) return `${process.host.name} misses ${truth.host.name}`;
      if (member.state !== truth.state)
        return `${process.host.name} holds ${truth.host.name} ${member.state}, it is ${truth.state}`;
      if (member.record !== truth.record && contentOf(member.record) !== truth.content)
        return `${process.host.name} has an old record of ${truth.host.name}`;
    }
    for (const host of cluster.hosts) {
      if (host.process?.running === true) continue;
      const member = members.get(host.id);
      if (member === undefined) continue;
      const gone = hasLeft(host.id)
        ? member.state === 'left' || member.state === 'dead'
        : member.state === 'dead';
      if (!gone) return `${process.host.name} holds ${host.name} ${member.state}, it is gone`;
    }
  }
  return undefined;
}

interface Truth {
  readonly state: MemberState;
  readonly record: NodeRecord;
  readonly content: string;
}

function truthOf(process: Process): Truth {
  const self = process.membership.view.members.find((member) => member.self);
  if (self === undefined) throw new Error(`${process.host.name} misses itself`);
  return { state: self.state, record: self.record, content: contentOf(self.record) };
}

/** Load travels late on purpose, and a sequence may stand for load alone. */
function contentOf(record: NodeRecord): string {
  return JSON.stringify({ ...record, load: 0, sequence: 0 });
}
