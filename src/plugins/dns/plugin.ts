import type { Plugin, PluginReport } from '../contract.ts';
import { Zone } from './apply.ts';
import type { DnsDesired } from './desired.ts';
import { EdgeWatch } from './observe.ts';
import { type DnsChange, planDns, type ZoneRecord } from './plan.ts';
import type { DnsProvider } from './provider.ts';
import type { DnsShown } from './shape.ts';
import { type MarkChange, shownRecords } from './shown.ts';

interface DnsPluginOptions {
  readonly provider: DnsProvider;
  /** The present desired state. */
  readonly desired: () => DnsDesired | undefined;
  /** Whether the edge at an address answers; never throws. */
  readonly ask: (address: string) => Promise<boolean>;
  /** Monotonic, ms. */
  readonly nowMs: () => number;
}

interface DnsObserved {
  readonly zone: readonly ZoneRecord[];
  /** Addresses of dead daemons whose edge does not answer either. */
  readonly silent: ReadonlySet<string>;
}

/** The maximum age of a reading of the zone, on the writer and on others: only people and other writers change it. */
const WRITER_AGE_MS = 60_000;
const STANDBY_AGE_MS = 600_000;
const WATCH_MS = 1000;

/**
 * The one writer of the records with the cluster's mark. A new record is right and a deleted one was not, so nothing is
 * rolled back.
 */
export class DnsPlugin implements Plugin<DnsDesired, DnsObserved, DnsChange, undefined> {
  readonly name = 'dns';
  readonly evidence = 'bornemisza plan --role app';
  readonly #options: DnsPluginOptions;
  readonly #edges: EdgeWatch;
  readonly #zone: Zone;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: DnsPluginOptions) {
    this.#options = options;
    this.#edges = new EdgeWatch(options.ask);
    this.#zone = new Zone(options.provider, options.nowMs);
  }

  async observe(signal: AbortSignal): Promise<DnsObserved> {
    const maxAgeMs = this.#options.desired()?.writer === true ? WRITER_AGE_MS : STANDBY_AGE_MS;
    return { zone: await this.#zone.records(maxAgeMs, signal), silent: this.#edges.silent };
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
    const set = request as Pick<MarkChange, 'name' | 'type'>;
    return { done: true, message: await this.#zone.mark(verb, set, this.#desired(), signal) };
  }

  /** For an operator: the wanted records, and the present zone. @throws PluginError of the provider */
  async show(signal: AbortSignal): Promise<DnsShown> {
    return shownRecords(this.#desired(), await this.#zone.read(signal), this.#edges.silent);
  }

  #desired(): DnsDesired {
    const desired = this.#options.desired();
    if (desired === undefined) throw new TypeError('the desired state is not known yet');
    return desired;
  }

  async apply(
    changes: readonly DnsChange[],
    signal: AbortSignal,
    made: (change: DnsChange) => void,
  ): Promise<void> {
    const owner = this.#options.desired()?.owner;
    if (owner !== undefined) await this.#zone.change(changes, owner, signal, made);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
  }

  /** Only the writer checks the edges of dead daemons. */
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
