import { type Plugin, PluginError, type PluginReport } from '../contract.ts';
import type { DnsDesired } from './desired.ts';
import { EdgeWatch } from './observe.ts';
import { type DnsChange, planDns, type ZoneRecord } from './plan.ts';
import type { DnsProvider } from './provider.ts';
import { type DnsShown, isRefusal, type MarkChange, markChange, shownRecords } from './shown.ts';

export interface DnsPluginOptions {
  readonly provider: DnsProvider;
  /** What should be now: who writes, and whose daemon is dead. */
  readonly desired: () => DnsDesired | undefined;
  /** Whether the edge at an address answers; never throws. */
  readonly ask: (address: string) => Promise<boolean>;
  /** Monotonic, ms. */
  readonly nowMs: () => number;
}

export interface DnsObserved {
  readonly zone: readonly ZoneRecord[];
  /** Addresses of dead daemons whose edge does not answer either. */
  readonly silent: ReadonlySet<string>;
}

/**
 * How old a reading of the zone may be: of who writes, and of who stands by. What changes it are people and the next
 * writer.
 */
const WRITER_AGE_MS = 60_000;
const STANDBY_AGE_MS = 600_000;
const WATCH_MS = 1000;

/**
 * The one writer of the records that bear the cluster's mark. A record that was made is right, and one that went was
 * not, so nothing is rolled back.
 */
export class DnsPlugin implements Plugin<DnsDesired, DnsObserved, DnsChange, undefined> {
  readonly name = 'dns';
  readonly evidence = 'bornemisza plan --role app';
  readonly #options: DnsPluginOptions;
  readonly #edges: EdgeWatch;
  #zone: { readonly records: readonly ZoneRecord[]; readonly atMs: number } | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: DnsPluginOptions) {
    this.#options = options;
    this.#edges = new EdgeWatch(options.ask);
  }

  async observe(signal: AbortSignal): Promise<DnsObserved> {
    const { desired, nowMs } = this.#options;
    const ageMs = nowMs() - (this.#zone?.atMs ?? Number.NEGATIVE_INFINITY);
    if (ageMs > (desired()?.writer === true ? WRITER_AGE_MS : STANDBY_AGE_MS)) await this.#readAnew(signal);
    return { zone: this.#zone?.records ?? [], silent: this.#edges.silent };
  }

  plan(desired: DnsDesired, { zone, silent }: DnsObserved): readonly DnsChange[] {
    return desired.writer ? planDns(desired, zone, silent).changes : [];
  }

  status(desired: DnsDesired, { zone, silent }: DnsObserved): PluginReport {
    const ours = zone.filter(({ owner, type }) => owner === desired.owner && type !== 'TXT').length;
    return {
      seen: `${ours} records of ours in ${desired.zone}; ${desired.why}`,
      alarms: desired.writer ? planDns(desired, zone, silent).findings : [],
    };
  }

  async ask(verb: string, request: unknown, signal: AbortSignal): Promise<object> {
    if (verb !== 'adopt' && verb !== 'release') return this.show(signal);
    return {
      done: true,
      message: await this.mark(verb, request as Pick<MarkChange, 'name' | 'type'>, signal),
    };
  }

  /** For an operator: what is wanted, and the zone as it is now. @throws PluginError of the provider */
  async show(signal: AbortSignal): Promise<DnsShown> {
    return shownRecords(this.#desired(), await this.#readAnew(signal), this.#edges.silent);
  }

  /**
   * Marks a set as the cluster's, or gives it back; any node with the provider's key may.
   *
   * @returns what was done, in words
   * @throws PluginError `dns-set-unknown`, `dns-not-wanted`, `dns-changed`, or of the provider
   */
  async mark(
    verb: 'adopt' | 'release',
    set: Pick<MarkChange, 'name' | 'type'>,
    signal: AbortSignal,
  ): Promise<string> {
    const judged = markChange(verb, set, this.#desired(), await this.#readAnew(signal));
    const what = `${set.name} ${set.type}`;
    if (judged === undefined) return `${what} is ${verb === 'adopt' ? 'the cluster’s' : 'yours'} already`;
    if (isRefusal(judged)) throw new PluginError({ ...judged, outcome: 'terminal' });
    await this.#options.provider.mark(judged, signal);
    this.#zone = undefined;
    return verb === 'adopt'
      ? `${what} is the cluster’s now; its values follow the members within a minute`
      : `${what} is yours now, and stays as it is`;
  }

  #desired(): DnsDesired {
    const desired = this.#options.desired();
    if (desired === undefined) throw new TypeError('asked for before the node knows what it wants');
    return desired;
  }

  async #readAnew(signal: AbortSignal): Promise<readonly ZoneRecord[]> {
    const records = await this.#options.provider.list(signal);
    this.#zone = { records, atMs: this.#options.nowMs() };
    return records;
  }

  /** Both providers prove a change themselves: by its prerequisite, or by the record's id. */
  async apply(
    changes: readonly DnsChange[],
    signal: AbortSignal,
    made: (change: DnsChange) => void,
  ): Promise<void> {
    const owner = this.#options.desired()?.owner;
    if (owner === undefined) return;
    // Whatever comes of it, the next look asks the provider anew.
    this.#zone = undefined;
    await this.#options.provider.changeAll(changes, owner, signal, made);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
  }

  /** Only who writes asks the edges of dead daemons. */
  watch(changed: (what: string) => void): () => void {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => {
      const { desired, nowMs } = this.#options;
      const now = desired();
      this.#edges.look(now?.writer === true ? now.doubtful : [], nowMs(), changed);
    }, WATCH_MS);
    return () => clearInterval(this.#timer);
  }
}
