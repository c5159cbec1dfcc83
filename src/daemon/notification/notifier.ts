import { setTimeout as pause } from 'node:timers/promises';
import * as z from 'zod';
import { hasNextStep } from '../errors.ts';
import type { MembershipView } from '../membership/types.ts';
import { type Channel, channelsOf, type NotifySettings } from './channels.ts';
import { conditionsOf, endOf } from './conditions.ts';
import { type Message, messageAbout, type Sender, testMessage } from './message.ts';
import {
  afterTelling,
  type Candidate,
  decide,
  EMPTY_NOTIFICATION_STATE,
  type NotificationState,
  type NoticeEvent,
} from './policy.ts';

interface NotifierDependencies {
  readonly cluster: string;
  /** HOST/ROLE of this node. */
  readonly node: string;
  readonly wallMs: () => number;
  readonly view: () => MembershipView;
  readonly certificates: () => ReadonlyMap<string, number>;
  readonly upMs: () => number;
  /** Keeps the state; called with every change of it. */
  readonly save: (state: NotificationState) => void;
  /** A message was sent; {@link Notifier.tags} show that already. */
  readonly told: (message: Message, channels: readonly string[]) => void;
  /** A channel fails with another error than before. */
  readonly failed: (channel: Channel, error: Failure) => void;
}

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

/** A message that reached nobody is sent again after this, doubled each time. */
const RETRY_MIN_MS = 15_000;
const RETRY_MAX_MS = 15 * 60_000;
/** If a message reached one channel and not another, the other one is tried again after these times. */
const CHANNEL_RETRIES_MS = [5000, 30_000, 120_000] as const;
/** A message that is being sent when the daemon stops may still arrive. */
const CLOSE_MS = 2000;

/**
 * Asks the policy whether this node must send something, and sends it by every channel. Never blocks the daemon: one
 * message at a time, each bounded.
 */
export class Notifier {
  readonly #dependencies: NotifierDependencies;
  readonly #ended = new AbortController();
  readonly #failures = new Map<Channel['name'], Failure>();
  #settings: NotifySettings;
  #channels: readonly Channel[];
  #state: NotificationState = EMPTY_NOTIFICATION_STATE;
  #tags: Readonly<Record<string, string>> = {};
  #sending: Promise<void> | undefined;
  /** Messages in a row that reached nobody. */
  #lost = 0;
  #retryAtMs = 0;

  /** @param kept the last value passed to `save`, from the disk; anything else counts as nothing */
  constructor(settings: NotifySettings, kept: unknown, dependencies: NotifierDependencies) {
    this.#dependencies = dependencies;
    this.#settings = settings;
    this.#channels = channelsOf(settings);
    const read = stateSchema.safeParse(kept);
    if (read.success && this.#channels.length > 0) this.#state = read.data as NotificationState;
    this.#look();
  }

  /** This node's tags. */
  get tags(): Readonly<Record<string, string>> {
    return this.#tags;
  }

  /** One sentence for each channel that fails, for `status`. */
  get warnings(): readonly { readonly code: string; readonly message: string; readonly next: string }[] {
    return [...this.#failures].map(([channel, { code, message, next }]) => ({
      code,
      message: `notification by ${channel} fails: ${message}`,
      next,
    }));
  }

  reconfigure(settings: NotifySettings): void {
    this.#settings = settings;
    this.#channels = channelsOf(settings);
    this.#failures.clear();
    this.#lost = 0;
    this.#retryAtMs = 0;
    if (this.#channels.length === 0) {
      // Conditions that others send while this node does not watch are no longer its task.
      this.#keep(EMPTY_NOTIFICATION_STATE);
      this.#tags = {};
    }
  }

  /**
   * Once a second.
   *
   * @returns whether {@link tags} changed
   */
  tick(): boolean {
    const before = JSON.stringify(this.#tags);
    const events = this.#look();
    if (events.length > 0 && this.#sending === undefined && this.#dependencies.wallMs() >= this.#retryAtMs) {
      this.#sending = this.#tell(events).finally(() => (this.#sending = undefined));
    }
    return before !== JSON.stringify(this.#tags);
  }

  /** Sends a test by every channel, one after another; yields each result. */
  async *test(): AsyncGenerator<{ readonly channel: Channel; readonly failure: Failure | undefined }> {
    const message = testMessage(this.#sender(), this.#dependencies.wallMs());
    for (const channel of this.#channels) {
      const failure = await this.#send(channel, message);
      if (failure === undefined) this.#lost = 0;
      yield { channel, failure };
    }
  }

  /** Resolves when no message is being sent. */
  async idle(): Promise<void> {
    await this.#sending;
  }

  /** Waits for the present message, at most two seconds. */
  async close(): Promise<void> {
    if (this.#sending !== undefined) {
      const timer = setTimeout(() => this.#ended.abort(), CLOSE_MS);
      await this.#sending;
      clearTimeout(timer);
    }
    this.#ended.abort();
  }

  #look(): readonly NoticeEvent[] {
    if (this.#channels.length === 0) return [];
    const { certificates, upMs, wallMs } = this.#dependencies;
    const view = this.#dependencies.view();
    const nowMs = wallMs();
    const conditions = conditionsOf({ view, certificates: certificates(), wallMs: nowMs, upMs: upMs() });
    const { state, tags, events } = decide(
      this.#state,
      {
        nowMs,
        members: candidatesOf(view),
        conditions,
        blind: !view.synced,
        failing: this.#lost > 0,
        endOf: (entry) => endOf(entry, view),
      },
      this.#options(),
    );
    this.#tags = tags;
    this.#keep(state);
    return events;
  }

  async #tell(events: readonly NoticeEvent[]): Promise<void> {
    const { wallMs, told } = this.#dependencies;
    const message = messageAbout(events, this.#sender(), wallMs());
    const channels = this.#channels;
    const results = await Promise.all(
      channels.map(async (channel) => ({ channel, failure: await this.#send(channel, message) })),
    );
    const reached = results.filter(({ failure }) => failure === undefined).map(({ channel }) => channel.name);
    if (reached.length === 0) {
      // Published in the record, so that the next in order takes over; tried again here in case that one fails too.
      this.#retryAtMs = wallMs() + Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** this.#lost);
      this.#lost += 1;
      return;
    }
    this.#lost = 0;
    this.#keep(afterTelling(this.#state, events, wallMs(), this.#options()));
    // At once into the record: from here on no other node needs to send it.
    this.#look();
    told(message, reached);
    for (const { channel, failure } of results)
      if (failure !== undefined) void this.#sendLater(channel, message);
  }

  /**
   * The message has already reached people, so a channel that stays down finally loses it, with a warning in `status`.
   */
  async #sendLater(channel: Channel, message: Message): Promise<void> {
    for (const delayMs of CHANNEL_RETRIES_MS) {
      // The stop of the daemon ends the wait; the next line ends the loop.
      await pause(delayMs, undefined, { signal: this.#ended.signal }).catch(() => undefined);
      if (this.#ended.signal.aborted || !this.#channels.includes(channel)) return;
      if ((await this.#send(channel, message)) === undefined) return;
    }
  }

  async #send(channel: Channel, message: Message): Promise<Failure | undefined> {
    try {
      await channel.send(message, this.#ended.signal);
      this.#failures.delete(channel.name);
      return undefined;
    } catch (error) {
      const failure = failureOf(error);
      // A repeated error is one warning.
      const known = this.#failures.get(channel.name)?.code === failure.code;
      this.#failures.set(channel.name, failure);
      if (!known && !this.#ended.signal.aborted) this.#dependencies.failed(channel, failure);
      return failure;
    }
  }

  #options() {
    return { waitMs: this.#settings.wait_ms, intervalMs: this.#settings.interval_ms };
  }

  #sender(): Sender {
    const view = this.#dependencies.view();
    const others = view.members.filter(({ self }) => !self);
    return {
      cluster: this.#dependencies.cluster,
      node: this.#dependencies.node,
      alone: others.length > 0 && others.every(({ state }) => state !== 'alive' && state !== 'suspect'),
    };
  }

  #keep(state: NotificationState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#dependencies.save(state);
  }
}

function candidatesOf(view: MembershipView): Candidate[] {
  return view.members.map(({ record, state, restarting, self }) => ({
    name: record.name,
    self,
    present:
      self ||
      (view.synced &&
        (state === 'alive' || state === 'suspect') &&
        !restarting &&
        record.goodbye === undefined),
    tags: record.tags,
  }));
}

function failureOf(error: unknown): Failure {
  if (hasNextStep(error)) return { code: error.code, message: error.message, next: error.next };
  return {
    code: 'notify-failed',
    message: error instanceof Error ? error.message : String(error),
    next: 'report this with the lines of the journal around it',
  };
}

const stateSchema = z.object({
  entries: z.array(
    z.object({
      key: z.string(),
      kind: z.enum([
        'node-dead',
        'guard-holding',
        'announcement-failing',
        'certificate-ending',
        'rollout-stopped',
      ]),
      subject: z.string(),
      what: z.string(),
      next: z.string(),
      announced: z.boolean(),
      sinceMs: z.number(),
      told: z.boolean(),
      mine: z.boolean(),
      endedMs: z.number().optional(),
      ended: z.string().optional(),
    }),
  ),
  ends: z.array(z.object({ mark: z.string(), begin: z.string(), atMs: z.number() })),
  tokens: z.number(),
  tokensAtMs: z.number(),
});
