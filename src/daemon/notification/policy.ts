import { createHash } from 'node:crypto';
import type { Condition, ConditionKind } from './conditions.ts';

/**
 * Which node sends which notification, and when. Pure: the same function on every node, over its view and what the
 * others publish in their records as sent.
 *
 * Each event has one notifier: the first, by name, of the nodes that can send. The others keep the event and send it if
 * the notifier is dead, reports a failure, or has not published "sent" within a bound. So a lasting event is sent at
 * least once while any node can send, and twice only if a notifier dies between sending and publishing that.
 */

/** `state` of a condition in a message; `passed`: it began and ended before it could be sent. */
export type Happening = 'began' | 'ended' | 'passed';
export interface NoticeEvent {
  readonly kind: ConditionKind;
  readonly state: Happening;
  readonly subject: string;
  readonly what: string;
  readonly next: string;
  /** Wall-clock ms. */
  readonly sinceMs: number;
  readonly untilMs?: number;
  /** Key of its entry. */
  readonly key: string;
}

/** A condition that this node has seen and that is not settled. Times are wall-clock ms. */
interface Entry extends Condition {
  readonly sinceMs: number;
  /** Its beginning was sent by this node, or by another one according to its record. */
  readonly told: boolean;
  /** This node sent it, or acts for a lost node that did. */
  readonly mine: boolean;
  readonly endedMs?: number;
  readonly ended?: string;
}

/** The state that survives a restart of the daemon. */
export interface NotificationState {
  readonly entries: readonly Entry[];
  /** Ends that this node has sent, by their mark, and since when. */
  readonly ends: readonly { readonly mark: string; readonly begin: string; readonly atMs: number }[];
  /** Messages that may be sent at once, and the time of that count. */
  readonly tokens: number;
  readonly tokensAtMs: number;
}

export const EMPTY_NOTIFICATION_STATE: NotificationState = {
  entries: [],
  ends: [],
  tokens: 0,
  // Long ago: a first start may send everything.
  tokensAtMs: 0,
};

/** One member, as a possible notifier. */
export interface Candidate {
  readonly name: string;
  readonly self: boolean;
  /** Alive or suspect, and neither leaving nor restarting. */
  readonly present: boolean;
  readonly tags: Readonly<Record<string, string>>;
}

interface PolicyInput {
  readonly nowMs: number;
  readonly members: readonly Candidate[];
  readonly conditions: readonly Condition[];
  /** Nothing is known of others yet: what is missing among the conditions has not ended. */
  readonly blind: boolean;
  /** This node’s last message reached nobody. */
  readonly failing: boolean;
  readonly endOf: (condition: Entry) => string;
}

interface PolicyOptions {
  /** A condition is sent when it has lasted this long. */
  readonly waitMs: number;
  /** Messages in the long run: one in this time, after a burst of {@link BURST}. */
  readonly intervalMs: number;
}

interface Decision {
  readonly state: NotificationState;
  /** This node's tags: that it can send, and what was sent. */
  readonly tags: Readonly<Record<string, string>>;
  /** One message to send now; empty: none. */
  readonly events: readonly NoticeEvent[];
}

/** A death, a return and one more event go out at once, whatever came before. */
const BURST = 3;
/** An announced stop or reboot is sent if it lasts longer than a reboot takes. */
const ANNOUNCED_WAIT_MS = 300_000;
/** Beyond its rate limit a notifier has this long to send, and for its record to spread. */
const TAKEOVER_MS = 60_000;
/** Gossip and the slowest sync are through by then. */
const END_KEPT_MS = 15 * 60_000;
/** Entries beyond it are the oldest that were sent; a cluster has at most 500 members. */
const MAX_ENTRIES = 1000;
/** More than the tags hold, so that the last sent ones are always published. */
const MAX_ENDS = 100;

/** A tag holds 64 bytes. 36 bits a mark: two of a thousand share one once in 100 000 times. */
const MARK_CHARACTERS = 6;
const MARKS_PER_TAG = 10;
export const TELLER_TAG = 'notify';
/**
 * Half of the tags of a record, used as needed: 80 events at once. With more, the next in order sends those without
 * room again.
 */
const TOLD_TAGS = ['told', 'told2', 'told3', 'told4', 'told5', 'told6', 'told7', 'told8'] as const;

export function markOf(key: string): string {
  return createHash('sha256').update(key).digest('base64url').slice(0, MARK_CHARACTERS);
}
const endMarkOf = (key: string): string => markOf(`end of ${key}`);

export function decide(before: NotificationState, input: PolicyInput, options: PolicyOptions): Decision {
  const { nowMs } = input;
  const said = input.members
    .filter(({ self }) => !self)
    .map((member) => ({ member, marks: marksOf(member) }));
  const entries = looked(before.entries, input, options)
    .map((entry) => heardOf(entry, said, input))
    .filter((entry) => !endIsTold(entry, said));
  const ends = before.ends.filter(
    ({ begin, atMs }) => nowMs - atMs < END_KEPT_MS || said.some(({ marks }) => marks.has(begin)),
  );
  const state: NotificationState = {
    entries: bounded(entries),
    ends: ends.slice(-MAX_ENDS),
    tokens: tokensAt(before, nowMs, options),
    tokensAtMs: nowMs,
  };
  return {
    // A state that differs only in the clock counts as equal, so that it is not written each second.
    state: sameBut(before, state) && before.tokensAtMs <= nowMs ? before : state,
    tags: tagsOf(state, input),
    events: state.tokens < 1 ? [] : eventsOf(state.entries, input, options),
  };
}

function tokensAt(
  { tokens, tokensAtMs }: NotificationState,
  nowMs: number,
  { intervalMs }: PolicyOptions,
): number {
  return Math.min(BURST, tokens + Math.max(0, nowMs - tokensAtMs) / intervalMs);
}

/** The state after a message was sent. */
export function afterTelling(
  state: NotificationState,
  events: readonly NoticeEvent[],
  nowMs: number,
  options: PolicyOptions,
): NotificationState {
  const told = new Map(events.map((event) => [event.key, event.state]));
  const over = events.filter((event) => event.state === 'ended');
  return {
    entries: state.entries.flatMap((entry): Entry[] => {
      const happening = told.get(entry.key);
      if (happening === undefined) return [entry];
      return happening === 'began' ? [{ ...entry, told: true, mine: true }] : [];
    }),
    ends: [
      ...state.ends,
      ...over.map(({ key }) => ({ mark: endMarkOf(key), begin: markOf(key), atMs: nowMs })),
      // Both marks show the others that nothing is left to send.
      ...events
        .filter((event) => event.state === 'passed')
        .flatMap(({ key }) => [
          { mark: markOf(key), begin: '', atMs: nowMs },
          { mark: endMarkOf(key), begin: markOf(key), atMs: nowMs },
        ]),
    ],
    tokens: Math.max(0, tokensAt(state, nowMs, options) - 1),
    tokensAtMs: nowMs,
  };
}

/** The entries after a check of the present conditions. */
function looked(
  entries: readonly Entry[],
  { conditions, nowMs, blind, endOf }: PolicyInput,
  { waitMs }: PolicyOptions,
): Entry[] {
  const now = new Map(conditions.map((condition) => [condition.key, condition]));
  const kept = entries.flatMap((entry): Entry[] => {
    const condition = now.get(entry.key);
    now.delete(entry.key);
    // A clock that was set back must not delay anything for as long.
    const sinceMs = Math.min(entry.sinceMs, nowMs);
    if (condition !== undefined) {
      const { endedMs: _endedMs, ended: _ended, ...open } = entry;
      return [{ ...open, ...condition, sinceMs }];
    }
    if (blind && !entry.key.startsWith('lonely ')) return [entry];
    if (entry.endedMs !== undefined) return [{ ...entry, sinceMs, endedMs: Math.min(entry.endedMs, nowMs) }];
    if (!entry.told && nowMs - sinceMs < waitOf(entry, waitMs)) return [];
    return [{ ...entry, sinceMs, endedMs: nowMs, ended: endOf(entry) }];
  });
  const begun = [...now.values()].map(
    (condition): Entry => ({
      ...condition,
      sinceMs: nowMs,
      told: false,
      mine: false,
    }),
  );
  return [...kept, ...begun];
}

interface Said {
  readonly member: Candidate;
  readonly marks: ReadonlySet<string>;
}

/** What the others say about an entry. */
function heardOf(entry: Entry, said: readonly Said[], input: PolicyInput): Entry {
  const tellers = said.filter(({ marks }) => marks.has(markOf(entry.key)));
  if (!entry.told && tellers.length === 0) return entry;
  // What a lost notifier has sent becomes the first one's: it passes on the mark to those that come later, and
  // sends the end. If no node has the mark after the end, the end was sent as well.
  const orphaned = !tellers.some(({ member }) => member.present);
  const adopted = orphaned && isFirst(input) && (entry.endedMs === undefined || tellers.length > 0);
  return { ...entry, told: true, mine: entry.mine || adopted };
}

function endIsTold(entry: Entry, said: readonly Said[]): boolean {
  if (entry.endedMs === undefined) return false;
  if (said.some(({ marks }) => marks.has(endMarkOf(entry.key)))) return true;
  // Some node keeps the mark of a beginning until its end is sent; then it was sent while this node was away.
  return entry.told && !entry.mine && !said.some(({ marks }) => marks.has(markOf(entry.key)));
}

function eventsOf(
  entries: readonly Entry[],
  input: PolicyInput,
  options: PolicyOptions,
): readonly NoticeEvent[] {
  const { nowMs } = input;
  const due = entries.flatMap((entry) => {
    const happening = happeningOf(entry);
    if (happening === undefined) return [];
    const holdBackMs = rankFor(entry, happening, input) * (options.intervalMs + TAKEOVER_MS);
    return [{ entry, happening, inMs: dueMs(entry, happening, options) + holdBackMs - nowMs }];
  });
  if (!due.some(({ inMs }) => inMs <= 0)) return [];
  // A condition that has just begun is included, so that many deaths in a short time are one message.
  const rides = ({ entry, happening, inMs }: (typeof due)[number]): boolean =>
    inMs <= 0 || (happening === 'began' && !entry.announced && inMs <= options.waitMs);
  return due.filter(rides).map(({ entry, happening }) => eventOf(entry, happening));
}

function happeningOf(entry: Entry): Happening | undefined {
  if (entry.endedMs === undefined) return entry.told ? undefined : 'began';
  return entry.told ? 'ended' : 'passed';
}

/** When the first in order sends it. An end must also have lasted for a while: a short return is none. */
function dueMs(entry: Entry, happening: Happening, { waitMs }: PolicyOptions): number {
  return happening === 'began' ? entry.sinceMs + waitOf(entry, waitMs) : (entry.endedMs ?? 0) + waitMs;
}

function waitOf({ announced }: Pick<Entry, 'announced'>, waitMs: number): number {
  return announced ? Math.max(waitMs, ANNOUNCED_WAIT_MS) : waitMs;
}

function eventOf(entry: Entry, state: Happening): NoticeEvent {
  const { key, kind, subject, next, sinceMs, endedMs, ended } = entry;
  const what =
    state === 'began' ? entry.what : state === 'ended' ? (ended ?? '') : `${entry.what}; ${ended ?? ''}`;
  const until = endedMs === undefined ? {} : { untilMs: endedMs };
  return { key, kind, state, subject, what, next: state === 'began' ? next : '', sinceMs, ...until };
}

/**
 * How many nodes come before this one: those that do not fail; for an end, those that sent the beginning; then by name.
 */
function rankFor(entry: Entry, happening: Happening, { members, failing }: PolicyInput): number {
  const mark = markOf(entry.key);
  const order = members
    .filter(({ present, self, tags }) => self || (present && tags[TELLER_TAG] !== undefined))
    .map((member) => ({
      member,
      failing: member.self ? failing : member.tags[TELLER_TAG] !== 'ok',
      stranger: happening === 'ended' && !(member.self ? entry.mine : marksOf(member).has(mark)),
    }))
    .sort(
      (one, other) =>
        Number(one.failing) - Number(other.failing) ||
        Number(one.stranger) - Number(other.stranger) ||
        (one.member.name < other.member.name ? -1 : 1),
    );
  return Math.max(
    0,
    order.findIndex(({ member }) => member.self),
  );
}

function tagsOf(state: NotificationState, { failing }: PolicyInput): Readonly<Record<string, string>> {
  const told = state.entries.filter((entry) => entry.told && entry.mine);
  // The last sent ones come first: if there is no room for all, the others know least about these.
  const marks = [
    ...state.ends.map(({ mark }) => mark).toReversed(),
    ...told.map(({ key }) => markOf(key)).toReversed(),
  ];
  const parts = TOLD_TAGS.map((tag, index) => [
    tag,
    marks.slice(index * MARKS_PER_TAG, (index + 1) * MARKS_PER_TAG).join(''),
  ]);
  return Object.fromEntries([
    [TELLER_TAG, failing ? 'failing' : 'ok'],
    ...parts.filter(([, value]) => value !== ''),
  ]) as Record<string, string>;
}

/** Whether this node comes before all others that can send. */
function isFirst({ members }: PolicyInput): boolean {
  const own = members.find(({ self }) => self)?.name ?? '';
  return members.every(
    ({ self, present, tags, name }) => self || !present || tags[TELLER_TAG] === undefined || name > own,
  );
}

function marksOf({ tags }: Candidate): ReadonlySet<string> {
  return new Set(TOLD_TAGS.flatMap((tag) => (tags[tag] ?? '').match(/.{6}/g) ?? []));
}

function bounded(entries: readonly Entry[]): readonly Entry[] {
  if (entries.length <= MAX_ENTRIES) return entries;
  return [...entries.filter((entry) => !entry.told), ...entries.filter((entry) => entry.told)].slice(
    0,
    MAX_ENTRIES,
  );
}

function sameBut(one: NotificationState, other: NotificationState): boolean {
  const without = ({ entries, ends }: NotificationState): string => JSON.stringify([entries, ends]);
  return without(one) === without(other);
}
