import { PluginError, type PlannedChange, type Plugin } from '../contract.ts';
import { AppUser } from './app-user.ts';
import type { Alarm, CouchDbChange } from './changes.ts';
import { AccountLocked, CouchDbAnswer, CouchDbClient, type Credentials, PasswordRefused } from './client.ts';
import { clusterDigest, restartDigest } from './config.ts';
import { CopyProver } from './copies.ts';
import { type Claim, type CouchDbDesired, type Disagreement, formatClaim } from './desired.ts';
import { Observer, type Places } from './observe.ts';
import type { Observed } from './observed.ts';
import {
  disagreementNext,
  type Outlook,
  outlookOf,
  type Phase,
  type RestartWord,
  START_AGAIN_MS,
} from './plan.ts';
import { type Begun, type Progress, progressWords } from './progress.ts';
import { restartUnits } from './restart-units.ts';
import { Steps } from './apply.ts';

export interface CouchDbStatus {
  /** What this node waits for, and for how long, for `status`. */
  readonly seen?: string | undefined;
  readonly phase: Phase;
  /** What this node waits for, one line. */
  readonly waiting: string | undefined;
  readonly progress?: Progress | undefined;
  readonly alarms: readonly Alarm[];
  /**
   * Why administrative writes (databases, maps, `_security`) are refused, e.g. during a cut; undefined: they are not.
   */
  readonly disagreement: Disagreement | undefined;
  /** For the tag `couchdb-restart`. */
  readonly restart: RestartWord | undefined;
  readonly version: string | undefined;
  /** For the tag `couchdb` of this node's record. */
  readonly tag: string;
}

interface CouchDbPluginOptions {
  /** Read for each request, so that new secrets are used at once. */
  credentials(): Credentials;
  /** The user of the app nodes, kept in `_users`; undefined: none. */
  appUser?(): Credentials | undefined;
  /**
   * Node names of members whose daemon is not reachable, e.g. during a partition: their CouchDB is not waited for long.
   */
  unheard?(): readonly string[];
  /** Default http://127.0.0.1:15984. */
  readonly baseUrl?: string;
  /** Default /var/lib/bornemisza/couchdb. */
  readonly configDirectory?: string;
  /** In CouchDB's data directory, so that it goes when the data goes. */
  readonly markerFile?: string;
  /** A path unit restarts CouchDB and removes it. */
  readonly restartFile?: string;
  /** One apply begins no new step after this time. Default 15000. */
  readonly applyBudgetMs?: number;
  onProgress?(text: string): void;
}

/** These are complete once they are made. Every other step waits for other nodes, or proceeds in parts. */
const MADE_ONCE: readonly CouchDbChange['kind'][] = ['file', 'marker', 'forget-marker'];

/** While work is not finished, observe again after this time; while settled, check for changes. */
const BUSY_LOOK_MS = 1000;
const IDLE_LOOK_MS = 5000;

/** The one writer of this node's CouchDB, and of its cluster's documents while it is the coordinator. */
export class CouchDbPlugin
  implements Plugin<CouchDbDesired, Observed, CouchDbChange, undefined, CouchDbStatus>
{
  readonly name = 'couchdb';
  readonly evidence = 'journalctl -u couchdb';
  readonly #client: CouchDbClient;
  readonly #observer: Observer;
  readonly #places: Places;
  readonly #steps: Steps;
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #closing = new AbortController();
  #status: CouchDbStatus = {
    phase: 'unknown',
    waiting: undefined,
    alarms: [],
    disagreement: { message: 'this node’s CouchDB was not checked yet', subjects: [] },
    restart: undefined,
    version: undefined,
    tag: 'out',
  };
  #restartWasPending = false;
  #restartAskedMs = performance.now();
  #restartDueSinceMs: number | undefined;
  #waiting: { readonly for: string; readonly sinceMs: number; readonly begun: Begun | undefined } | undefined;
  #busy = true;
  #seen = '';

  constructor(options: CouchDbPluginOptions) {
    this.#places = {
      configDirectory: options.configDirectory ?? '/var/lib/bornemisza/couchdb',
      markerFile: options.markerFile ?? '/var/lib/couchdb/data/bornemisza-identity.json',
      restartFile: options.restartFile ?? '/run/bornemisza/db/restart-couchdb',
    };
    this.#client = new CouchDbClient({
      baseUrl: options.baseUrl ?? 'http://127.0.0.1:15984',
      credentials: () => options.credentials(),
    });
    const appUser = new AppUser(this.#client, () => options.appUser?.());
    const unheard = (): readonly string[] => options.unheard?.() ?? [];
    this.#observer = new Observer(this.#client, this.#places, new CopyProver(this.#client), appUser, unheard);
    this.#steps = new Steps({
      client: this.#client,
      observer: this.#observer,
      appUser,
      places: this.#places,
      progress: (text) => options.onProgress?.(text),
      budgetMs: options.applyBudgetMs ?? 15_000,
    });
  }

  /** The last status that {@link note} got. */
  known(): CouchDbStatus {
    return this.#status;
  }

  async observe(signal: AbortSignal): Promise<Observed> {
    const observed = await this.#observer.observe(this.#bounded(signal));
    // A restart applies other settings: the refused password may be right now.
    if (this.#restartWasPending && !observed.restartPending) this.#client.forgetRefusal();
    this.#restartWasPending = observed.restartPending;
    const nowMs = performance.now();
    const restartAskedAgoMs = nowMs - this.#restartAskedMs;
    const overdue = observed.restartPending && restartAskedAgoMs > START_AGAIN_MS;
    return {
      ...observed,
      restartAskedAgoMs,
      restartUnits: overdue ? await restartUnits(this.#bounded(signal)) : [],
      restartDueForMs: nowMs - (this.#restartDueSinceMs ?? nowMs),
      restartSaid: this.#status.restart,
    };
  }

  /** A CouchDB that restarts between two looks was never seen down, and takes the password now. */
  retry(): void {
    this.#client.forgetRefusal();
  }

  plan(desired: CouchDbDesired, observed: Observed): readonly CouchDbChange[] {
    const { changes } = outlookOf(desired, observed, this.#places.configDirectory);
    return changes.map((change) => {
      const member = 'node' in change && desired.members.find(({ nodeName }) => nodeName === change.node);
      return { ...change, step: stepOf(change), ...(member && { subjects: [member.name] }) };
    });
  }

  status(desired: CouchDbDesired, observed: Observed): CouchDbStatus {
    const outlook = outlookOf(desired, observed, this.#places.configDirectory);
    const restart = outlook.restart ?? restartLeft(outlook.phase, observed);
    const seen = this.#waitsFor(outlook);
    return { ...statusOf(desired, observed, outlook, this.#places.configDirectory), restart, seen };
  }

  /** Counts in the text change during a wait; it is still the same wait. */
  #waitsFor({ waiting, progress }: Outlook): string | undefined {
    if (waiting === undefined) return undefined;
    const nowMs = performance.now();
    const since = this.#waiting?.for === kindOf(waiting) ? this.#waiting : undefined;
    const begun = since?.begun;
    const far = progress === undefined ? '' : progressWords(progress, begun, nowMs);
    return `waits for ${waiting}${far}, for ${Math.round((nowMs - (since?.sinceMs ?? nowMs)) / 1000)} s`;
  }

  async validate(changes: readonly CouchDbChange[], signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const able = changes.some((change) => change.kind !== 'refuse');
    const refusal = changes.find((change) => change.kind === 'refuse');
    // Possible changes are made first; the alarms show a blocked state meanwhile.
    if (refusal === undefined || able) return;
    throw new PluginError({
      code: refusal.code,
      message: refusal.summary,
      next: refusal.next,
      outcome: refusal.outcome,
    });
  }

  /**
   * Nothing is rolled back: node documents and maps only go forward, each step is safe to stop after, and to undo one
   * could remove data: the way back from a join is a leave.
   */
  async apply(
    changes: readonly CouchDbChange[],
    signal: AbortSignal,
    made: (change: CouchDbChange) => void,
  ): Promise<void> {
    try {
      if (changes.some((change) => change.kind === 'restart')) this.#restartAskedMs = performance.now();
      await this.#steps.run(changes, this.#bounded(signal), made);
    } catch (error) {
      throw pluginError(error);
    }
  }

  note(status: CouchDbStatus): void {
    this.#busy = status.waiting !== undefined || !['serving', 'left'].includes(status.phase);
    this.#restartDueSinceMs =
      status.restart === 'due' ? (this.#restartDueSinceMs ?? performance.now()) : undefined;
    const { waiting } = status;
    if (waiting === undefined) this.#waiting = undefined;
    else if (this.#waiting?.for !== kindOf(waiting))
      this.#waiting = { for: kindOf(waiting), sinceMs: performance.now(), begun: begunWith(status) };
    this.#status = status;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  watch(changed: (what: string) => void): () => void {
    let ended = false;
    const look = async (): Promise<void> => {
      if (this.#busy) changed('couchdb: more to do');
      else if (await this.#stirred()) changed('couchdb: its cluster changed');
    };
    let timer: NodeJS.Timeout | undefined;
    const schedule = (): void => {
      if (ended || this.#closing.signal.aborted) return;
      timer = setTimeout(
        () => {
          if (timer !== undefined) this.#timers.delete(timer);
          // The next observe reports a check that fails.
          void look().then(schedule, schedule);
        },
        this.#busy ? BUSY_LOOK_MS : IDLE_LOOK_MS,
      );
      timer.unref();
      this.#timers.add(timer);
    };
    schedule();
    return () => {
      ended = true;
      if (timer === undefined) return;
      clearTimeout(timer);
      this.#timers.delete(timer);
    };
  }

  /** Three small requests: whether members came or went, a map changed, or CouchDB itself was restarted. */
  async #stirred(): Promise<boolean> {
    const { signal } = this.#closing;
    const up = await this.#client.up(signal);
    const of = async (path: string): Promise<string> =>
      up === 'down' || up === 'silent' ? '' : JSON.stringify(await this.#client.get(path, signal));
    const seen = [up, await of('_membership'), await of('_node/_local/_dbs')].join(' ');
    const stirred = this.#seen !== '' && this.#seen !== seen;
    this.#seen = seen;
    return stirred;
  }

  #bounded(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#closing.signal]);
  }
}

function begunWith({ progress }: CouchDbStatus): Begun | undefined {
  return progress === undefined ? undefined : { progress, atMs: performance.now() };
}

const kindOf = (waiting: string): string => waiting.replaceAll(/\d+/g, '#');

function stepOf({ kind }: CouchDbChange): NonNullable<PlannedChange['step']> {
  return MADE_ONCE.includes(kind) ? 'once' : 'repeats';
}

/** The turn ends when CouchDB serves again, or has nothing to serve. */
function restartLeft(phase: Phase, { restartSaid }: Observed): RestartWord | undefined {
  return phase === 'serving' || phase === 'fresh' || phase === 'left' || restartSaid !== 'now'
    ? undefined
    : 'now';
}

function statusOf(
  desired: CouchDbDesired,
  observed: Observed,
  outlook: Outlook,
  directory: string,
): Omit<CouchDbStatus, 'restart' | 'seen'> {
  const server = observed.http.kind === 'up' ? observed.http.server : undefined;
  const refusals = outlook.changes
    .filter((change) => change.kind === 'refuse')
    .map((change) => ({ code: change.code, message: change.summary, next: change.next }));
  return {
    phase: outlook.phase,
    waiting: outlook.waiting,
    progress: outlook.progress,
    alarms: [...refusals, ...disagreementAlarm(desired, observed, outlook), ...outlook.alarms],
    disagreement: outlook.disagreement,
    version: server?.version,
    tag: formatClaim(claimOf(desired, observed, outlook, directory)),
  };
}

function disagreementAlarm(
  desired: CouchDbDesired,
  observed: Observed,
  { phase, disagreement }: Outlook,
): Alarm[] {
  if (disagreement === undefined || !['proving', 'serving', 'leaving'].includes(phase)) return [];
  return [
    {
      code: 'couchdb-disagreement',
      message: `creating and deleting databases is refused here: ${disagreement.message}`,
      next: disagreementNext(desired, observed),
    },
  ];
}

/** This node's own report. `fresh` only if it could be admitted at this moment. */
function claimOf(desired: CouchDbDesired, observed: Observed, outlook: Outlook, directory: string): Claim {
  const was = observed.marker !== undefined || observed.record !== undefined;
  const server = observed.http.kind === 'up' ? observed.http.server : undefined;
  switch (outlook.phase) {
    case 'serving':
    case 'left':
    case 'proving':
      return { kind: outlook.phase };
    case 'leaving':
      return { kind: 'proving' };
    case 'fresh':
      if (server === undefined || !server.maintenance || server.maps.size > 0) return { kind: 'out' };
      if (server.runningDigest !== restartDigest(desired, directory)) return { kind: 'out' };
      return { kind: 'fresh', version: server.version, digest: clusterDigest(desired.settings) };
    case 'unknown':
    case 'down':
    case 'refused':
      return { kind: was ? 'down' : 'out' };
  }
  return outlook.phase satisfies never;
}

function pluginError(error: unknown): Error {
  if (error instanceof PluginError) return error;
  if (error instanceof AccountLocked) {
    return new PluginError({
      code: 'couchdb-account-locked',
      message: error.message,
      next: 'wait: the lock ends after at most 5 minutes, and the daemon then continues',
      outcome: 'retry',
    });
  }
  if (error instanceof PasswordRefused) {
    return new PluginError({
      code: 'couchdb-password-refused',
      message: error.message,
      next:
        'restart CouchDB so that it takes its settings from /var/lib/bornemisza/couchdb; ' +
        'then `systemctl reload bornemisza@db`',
      outcome: 'terminal',
    });
  }
  if (error instanceof CouchDbAnswer) {
    return new PluginError({
      code: error.unsure ? 'couchdb-unsure' : 'couchdb-answer',
      message: error.message,
      next: 'wait: it is tried again; if it stays, see `journalctl -u couchdb`',
      outcome: 'retry',
      cause: error,
    });
  }
  return error instanceof Error ? error : new Error(String(error));
}
