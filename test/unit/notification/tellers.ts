import type { Condition } from '../../../src/daemon/notification/conditions.ts';
import {
  afterTelling,
  type Candidate,
  decide,
  EMPTY_NOTIFICATION_STATE,
  type NoticeEvent,
  type NotificationState,
} from '../../../src/daemon/notification/policy.ts';

/** Several nodes under one clock that see the same conditions and hear each other's records with a delay. */

export const OPTIONS = { waitMs: 10_000, intervalMs: 300_000 };

export interface Sent {
  readonly by: string;
  readonly atMs: number;
  readonly events: readonly NoticeEvent[];
}

interface Node {
  readonly name: string;
  /** Its record is in no view any more. */
  removed: boolean;
  state: NotificationState;
  tags: Readonly<Record<string, string>>;
  alive: boolean;
  canSend: boolean;
  lost: number;
  retryAtMs: number;
}

export class Tellers {
  readonly sent: Sent[] = [];
  readonly #nodes: Node[];
  readonly #delayMs: (from: string, to: string) => number;
  /** Records as they were published: each is seen by another node after the delay. */
  readonly #published: { name: string; tags: Readonly<Record<string, string>>; atMs: number }[] = [];
  readonly #changes: { name: string; alive: boolean; atMs: number }[] = [];
  readonly #conditions = new Map<string, { condition: Condition; seenBy: (name: string) => boolean }>();
  #nowMs = 1_700_000_000_000;

  constructor(names: readonly string[], delayMs: (from: string, to: string) => number = () => 200) {
    this.#delayMs = delayMs;
    this.#nodes = [];
    for (const name of names) this.joins(name);
  }

  /** A node that knows nothing of what was. */
  joins(name: string): void {
    this.#nodes.push({
      name,
      removed: false,
      state: EMPTY_NOTIFICATION_STATE,
      tags: {},
      alive: true,
      canSend: true,
      lost: 0,
      retryAtMs: 0,
    });
  }

  /** As by an operator: nothing of its record is left. */
  remove(name: string): void {
    this.dies(name);
    this.#node(name).removed = true;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  setClock(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  begins(key: string, facts: Partial<Condition> = {}, seenBy: (name: string) => boolean = () => true): void {
    const condition: Condition = {
      key,
      kind: 'node-dead',
      subject: key,
      what: `${key} is dead`,
      next: 'look',
      announced: false,
      ...facts,
    };
    this.#conditions.set(key, { condition, seenBy });
  }

  ends(key: string): void {
    this.#conditions.delete(key);
  }

  /** It is gone: it neither looks nor sends, and the others know after the delay. */
  dies(name: string): void {
    this.#set(name, false);
  }

  /** With what it had on its disk. */
  returns(name: string): void {
    this.#set(name, true);
  }

  cannotSend(name: string, is = true): void {
    this.#node(name).canSend = !is;
  }

  /** Goes on in steps of a second, each node looking once a step in the given order. */
  pass(ms: number, order: (names: readonly string[]) => readonly string[] = (names) => names): void {
    for (const untilMs = this.#nowMs + ms; this.#nowMs < untilMs; ) {
      this.#nowMs += 1000;
      for (const name of order(this.#nodes.map((each) => each.name))) this.#look(this.#node(name));
    }
  }

  /** Every telling of one condition, as `state by`. */
  tellings(key: string): string[] {
    return this.sent.flatMap(({ by, events }) =>
      events.filter((event) => event.key === key).map((event) => `${event.state} by ${by}`),
    );
  }

  tagsOf(name: string): Readonly<Record<string, string>> {
    return this.#node(name).tags;
  }

  #look(node: Node): void {
    if (!node.alive) return;
    const { state, tags, events } = decide(
      node.state,
      {
        nowMs: this.#nowMs,
        members: this.#nodes.filter((other) => !other.removed).map((other) => this.#seen(other, node)),
        conditions: [...this.#conditions.values()]
          .filter(({ seenBy }) => seenBy(node.name))
          .map(({ condition }) => condition),
        blind: false,
        failing: node.lost > 0,
        endOf: ({ subject }) => `${subject} is back`,
      },
      OPTIONS,
    );
    node.state = state;
    if (JSON.stringify(tags) !== JSON.stringify(node.tags)) {
      node.tags = tags;
      this.#published.push({ name: node.name, tags, atMs: this.#nowMs });
    }
    if (events.length === 0 || this.#nowMs < node.retryAtMs) return;
    if (!node.canSend) {
      node.retryAtMs = this.#nowMs + 15_000 * 2 ** node.lost;
      node.lost += 1;
      return;
    }
    node.lost = 0;
    this.sent.push({ by: node.name, atMs: this.#nowMs, events });
    node.state = afterTelling(state, events, this.#nowMs, OPTIONS);
  }

  #seen(other: Node, by: Node): Candidate {
    const self = other === by;
    const heardMs = self ? this.#nowMs : this.#nowMs - this.#delayMs(other.name, by.name);
    const record = this.#published.findLast(({ name, atMs }) => name === other.name && atMs <= heardMs);
    const change = this.#changes.findLast(({ name, atMs }) => name === other.name && atMs <= heardMs);
    return { name: other.name, self, present: self || (change?.alive ?? true), tags: record?.tags ?? {} };
  }

  #set(name: string, alive: boolean): void {
    this.#node(name).alive = alive;
    this.#changes.push({ name, alive, atMs: this.#nowMs });
  }

  #node(name: string): Node {
    const found = this.#nodes.find((each) => each.name === name);
    if (found === undefined) throw new Error(`there is no ${name}`);
    return found;
  }
}
