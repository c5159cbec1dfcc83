import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { AcmeOrder, RenewalInfo } from '../../acme/answers.ts';
import { AcmeClient } from '../../acme/client.ts';
import { AcmeError } from '../../acme/error.ts';
import { readIfPresent } from '../../host/files.ts';
import { lackingAt, type NameServer, nameServersOf } from '../../host/txt-records.ts';
import { type Finding, type Plugin, PluginError, type PluginReport } from '../contract.ts';
import type { CertificatesDesired, SiteBundle, SiteOrder } from './desired.ts';
import { silentEdges } from './observe.ts';
import { factsOf, failingSinceMs } from './facts.ts';
import {
  type CertificateChange,
  type CertificatesObserved,
  heldNow,
  isOf,
  planCertificates,
  toRevoke,
  wantsOrder,
} from './plan.ts';
import { windowPauseMs } from './renewal.ts';
import { servedAt } from './served.ts';
import type { CertificateFacts, CertificateShown } from './shape.ts';
import { visitedName } from './shown.ts';
import type { Held } from './limits.ts';
import { type Ca, type RevocationReason, Steps, withOutcome, withRevocation } from './apply.ts';

/** The part of a desired state that does not come from the bundle or the clock. */
export type CertificatesWanted = Omit<CertificatesDesired, 'bundle' | 'nowMs'> & {
  readonly directory: string;
  readonly contact: readonly string[];
  readonly termsAgreed: boolean;
  /** PEM of a CA of one's own, trusted besides the public ones. */
  readonly caFile: string | undefined;
  /** For a CA that makes accounts only for its customers: its key identifier, and the file with the HMAC key. */
  readonly externalAccount: { readonly kid: string; readonly keyFile: string } | undefined;
  /** The zone with the TXT records of challenge dns-01; undefined: none is configured. */
  readonly dns: WantedZone | undefined;
  /** Addresses of the reachable app nodes: `port` without TLS, since a CA can ask any of them there. */
  readonly edges: readonly {
    readonly name: string;
    readonly address: string;
    readonly port: number;
    readonly tlsPort: number;
  }[];
};

interface WantedZone {
  readonly zone: string;
  /** Its server, if this host's resolver does not know the zone. */
  readonly server: string | undefined;
  /** Which node writes the records, for people. */
  readonly writer: string;
}

export interface CertificatesReport extends PluginReport {
  readonly facts: CertificateFacts;
  /** `failing`: this node orders, and all orders failed for a day. */
  readonly tag: 'failing' | undefined;
}

interface RenewRequest {
  /** Ignores our own limits for one signature, never the CA's. */
  readonly force: boolean;
}

interface RevokeRequest {
  readonly reason: RevocationReason;
  /** Before another certificate is there. */
  readonly now: boolean;
}

interface Done {
  readonly done: true;
  readonly message: string;
}

export interface CertificatesOptions {
  readonly userAgent: string;
  readonly desired: () => CertificatesWanted | undefined;
  readonly site: {
    get(): SiteBundle;
    change(next: (now: SiteBundle) => SiteBundle): Promise<unknown>;
    /** Reachable app nodes that have another bundle than this one. */
    differing(): readonly string[];
  };
  readonly wallMs: () => number;
  readonly nowMs: () => number;
  readonly random: () => number;
  /** The name servers of a zone; for tests. */
  readonly nameServers?: (zone: string) => Promise<readonly NameServer[]>;
}

interface Seen extends CertificatesObserved {
  readonly bundle: SiteBundle;
  readonly nowMs: number;
  /** Why the CA is not asked now; undefined: no wait. */
  readonly waits: string | undefined;
}

const WATCH_MS = 1000;
/** While an order is open: a first certificate needs six steps, and visitors wait for it. */
const OPEN_WATCH_MS = 250;
/** A CA needs seconds for its checks; a slower one is asked less often. */
const ASK_MS = 500;
const SLOW_ASK_MS = 15_000;
const SLOW_AFTER_MS = 60_000;
/** An app node gets a new bundle within two seconds. A slower node is not waited for: it asks when it is back. */
const SHARED_WITHIN_MS = 10_000;
/** An edge gets a new thumbprint within seconds. An edge that is silent for longer may get no traffic at all. */
const EDGES_WITHIN_MS = 120_000;
/** A DNS provider takes seconds. Later the operator is notified; the CA is not asked before the records are there. */
const RECORDS_WITHIN_MS = 120_000;
/** A provider's other places get a record some seconds after the nearest one, and a CA asks from several. */
const SETTLED_MS = 5000;
/** After this time the CA is asked to check again: it may have lost the first request. */
const CHECKS_WITHIN_MS = 30_000;
/** A former certificate whose key a removed node has is revoked even if an edge cannot replace it. */
const REVOKED_WITHIN_MS = 600_000;
/** After a start: the CA is asked for its window only by a daemon that stays. */
const FIRST_WINDOW_MS = 600_000;
/** A CA may change its directory at any time. */
const CLIENT_MS = 60_000;
/** After a failed call, if the CA does not say how long to wait. */
const PAUSE_MS = 60_000;
/**
 * After the first call in a row that finds no CA; then twice as long each time, up to {@link PAUSE_MS}. At the start of
 * a machine its network or name server may come up after the daemon, and visitors wait for the first certificate.
 */
const FIRST_PAUSE_MS = 2000;
/** The CA may be down for hours, and a third of the certificate's life is left. */
const FAILING_MS = 24 * 3_600_000;
const MOST_CA_BYTES = 256 * 1024;

/**
 * On one node of the cluster it talks to the CA; on all others it only reports the bundle. A request to a CA cannot be
 * undone, so nothing is rolled back.
 */
export class CertificatesPlugin
  implements Plugin<CertificatesWanted, Seen, CertificateChange, undefined, CertificatesReport>
{
  readonly name = 'certificates';
  readonly evidence = 'journalctl -u bornemisza@app';
  readonly #options: CertificatesOptions;
  readonly #steps: Steps;
  #timer: NodeJS.Timeout | undefined;
  /** The bundle seen last, and the monotonic time of its last change. */
  #since: { readonly bundle: SiteBundle | undefined; readonly atMs: number };
  /** The last bundle that all app nodes had. */
  #shared: SiteBundle | undefined;
  /** Machine time before which nothing is tried: a full disk must not cause an order each second. */
  #pausedMs = Number.NEGATIVE_INFINITY;
  /** Calls in a row that found no CA. */
  #unreachable = 0;
  /** The order whose names the CA was asked to check, and the machine time of that. */
  #answered: { readonly url: string; readonly atMs: number } | undefined;
  /** The order whose TXT records all name servers have, and the machine time of that. */
  #settled: { readonly url: string | undefined; readonly atMs: number } | undefined;
  #askedMs = Number.NEGATIVE_INFINITY;
  /** Machine time of the next question for the CA's window. */
  #windowMs: number;
  #window: { readonly fingerprint: string | undefined; readonly info: RenewalInfo } | undefined;
  /** The CA's directory and its last nonce serve all calls of a minute. */
  #client: { readonly of: string; readonly untilMs: number; readonly client: AcmeClient } | undefined;
  #order: AcmeOrder | undefined;
  #problem: Finding | undefined;
  /** Wall time of the first call of the CA that failed since a certificate came. */
  #failingMs: number | undefined;
  #waited: string | undefined;

  constructor(options: CertificatesOptions) {
    this.#options = options;
    this.#steps = new Steps(options);
    this.#since = { bundle: undefined, atMs: options.nowMs() };
    this.#windowMs = this.#since.atMs + FIRST_WINDOW_MS;
  }

  async observe(signal: AbortSignal): Promise<Seen> {
    const seen = await this.#look(signal);
    this.#waited = seen.waits;
    return seen;
  }

  async #look(signal: AbortSignal): Promise<Seen> {
    const { site, wallMs, desired } = this.#options;
    const [bundle, nowMs, wanted] = [site.get(), wallMs(), desired()];
    if (bundle !== this.#since.bundle) this.#since = { bundle, atMs: this.#options.nowMs() };
    const still = { bundle, nowMs, order: undefined };
    if (wanted !== undefined && !wantsOrder({ ...wanted, bundle, nowMs })) this.#note(undefined);
    if (wanted?.orders !== true) return { ...still, waits: undefined };
    const waits = this.#waits(bundle, nowMs) ?? this.#unshared(bundle);
    if (waits !== undefined) return { ...still, waits };
    const { next } = bundle;
    if (next === undefined && toRevoke(bundle) !== undefined)
      return { ...still, waits: undefined, replaced: await this.#isReplaced(wanted, bundle, signal) };
    if (this.#isWindowDue(wanted, bundle, nowMs)) await this.#askWindow(wanted, bundle, signal);
    if (next === undefined) return { ...still, waits: undefined, window: this.#windowOf(bundle) };
    if (next.url === undefined || !this.#mayAsk(next.sinceMs, nowMs)) return { ...still, waits: undefined };
    this.#askedMs = this.#options.nowMs();
    this.#order = await this.#called(async () =>
      (await this.#ca(wanted, bundle)).client().order(next.url ?? '', signal),
    );
    const unready =
      this.#order.status === 'pending' ? await this.#unready(wanted, bundle, next, signal) : undefined;
    if (unready !== undefined) return { ...still, waits: unready };
    const { url, status } = this.#order;
    if (
      status === 'pending' &&
      this.#answered?.url === url &&
      this.#askedMs - this.#answered.atMs < CHECKS_WITHIN_MS
    )
      return { ...still, waits: 'the CA checks the names' };
    return { ...still, order: status, waits: undefined };
  }

  /** Why the CA would not find our answer yet. */
  async #unready(
    wanted: CertificatesWanted,
    { account }: SiteBundle,
    next: SiteOrder,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const forMs = this.#options.wallMs() - next.sinceMs;
    if (wanted.challenge === 'dns-01')
      return next.answers === undefined
        ? undefined
        : this.#unsettled(wanted, next, forMs > RECORDS_WITHIN_MS);
    if (forMs >= EDGES_WITHIN_MS) return undefined;
    const silent = await silentEdges(wanted.edges, account?.key ?? '', signal);
    return silent.length > 0
      ? `the edge of ${silent.join(', ')} does not answer the CA's check yet`
      : undefined;
  }

  /** Why the CA would not find all TXT records yet, at whatever name server it asks. */
  async #unsettled(
    { dns }: CertificatesWanted,
    { url, answers = [] }: SiteOrder,
    late: boolean,
  ): Promise<string | undefined> {
    const { zone = '', server, writer = 'no node' } = dns ?? {};
    const known = await (this.#options.nameServers ?? nameServersOf)(zone);
    const servers = known.length > 0 || server === undefined ? known : [{ name: server, address: server }];
    const lacking = await lackingAt(servers, answers);
    if (lacking?.length === 0) {
      if (this.#settled?.url !== url) this.#settled = { url, atMs: this.#options.nowMs() };
      const settles = this.#options.nowMs() - (this.#settled?.atMs ?? 0) < SETTLED_MS;
      return settles ? 'the TXT records are there, and reach the other places of the DNS servers' : undefined;
    }
    this.#settled = undefined;
    const [first] = lacking ?? [];
    const where =
      first === undefined
        ? `no name server of ${zone} answers`
        : `${first.name} is not at ${first.server} yet`;
    if (late) this.#note(notSeen(where, zone, first?.name ?? answers[0]?.name));
    return `${where}; TXT records: ${writer}`;
  }

  plan(wanted: CertificatesWanted, { bundle, nowMs, waits, ...seen }: Seen): readonly CertificateChange[] {
    return waits === undefined ? planCertificates({ ...wanted, bundle, nowMs }, seen) : [];
  }

  status(wanted: CertificatesWanted, { bundle, nowMs, waits }: Seen): CertificatesReport {
    const { current, next } = bundle;
    const desired = { ...wanted, bundle, nowMs };
    const failingMs = wanted.orders ? this.#failingSince(desired) : undefined;
    const held = wanted.orders ? heldNow(desired) : undefined;
    const has =
      current === undefined
        ? 'no certificate yet'
        : `${current.names.join(', ')} until ${dayOf(current.endMs)}, SHA-256 ${current.fingerprint.slice(0, 16)}`;
    const former =
      toRevoke(bundle) === undefined ? '' : '; the former one is revoked when all edges serve this one';
    const doing = next === undefined ? former : '; an order is open';
    const why = waits === undefined ? '' : `; waits: ${waits}`;
    return {
      facts: this.#facts(desired, wanted.directory, failingMs),
      tag: failingMs !== undefined && nowMs - failingMs >= FAILING_MS ? 'failing' : undefined,
      seen: `${has}; ${wanted.why}${doing}${why}`,
      alarms: [
        ...(this.#problem === undefined ? [] : [this.#problem]),
        ...(held?.code === 'certificate-budget' ? [budget(held.untilMs)] : []),
      ],
    };
  }

  ask(verb: string, request: unknown, signal: AbortSignal): Promise<object> {
    if (verb === 'revoke') return this.revoke(request as RevokeRequest);
    return verb === 'renew' ? this.renew(request as RenewRequest) : this.show(signal);
  }

  /** For an operator: the facts of `status`, and what each edge serves now. */
  async show(signal: AbortSignal): Promise<CertificateShown> {
    const wanted = this.#wanted();
    const desired = { ...wanted, bundle: this.#options.site.get(), nowMs: this.#options.wallMs() };
    const facts = this.#facts(desired, wanted.directory, this.#failingSince(desired));
    return { ...facts, edges: await servedAt(wanted.edges, visitedName(wanted.names), signal) };
  }

  /**
   * Requests an order now, by the node that orders: the request is in the bundle.
   *
   * @returns what follows, for people
   * @throws PluginError `certificate-limited`, `certificate-budget`: the limit, and until when
   */
  async renew({ force }: RenewRequest): Promise<Done> {
    const { site, wallMs } = this.#options;
    const wanted = this.#wanted();
    const [bundle, nowMs] = [site.get(), wallMs()];
    if (bundle.next !== undefined) return done(`an order is already open; ${wanted.why}`);
    const asked = { fingerprint: bundle.current?.fingerprint, atMs: nowMs, force };
    const held = heldNow({ ...wanted, bundle: { ...bundle, asked }, nowMs });
    if (held !== undefined) throw refused(held, held.untilMs > bundle.notBeforeMs && !force);
    await site.change((now) => ({ ...now, asked, generation: now.generation + 1 }));
    return done(`a certificate for ${wanted.names.join(', ')} will be ordered now; ${wanted.why}`);
  }

  /**
   * Has new keys made, the next certificate ordered and the present one revoked, by the node that orders: all of that
   * is in the bundle.
   *
   * @returns what follows, for people
   * @throws PluginError `certificate-not-revocable`; `certificate-limited`, `certificate-budget` without `now`
   */
  async revoke({ reason, now }: RevokeRequest): Promise<Done> {
    const { site, wallMs } = this.#options;
    const wanted = this.#wanted();
    const { current } = site.get();
    if (current === undefined || !isOf(current, wanted.directory) || current.revoked)
      throw notRevocable(current);
    const then = withRevocation(site.get(), reason, now);
    const held = heldNow({ ...wanted, bundle: then, nowMs: wallMs() });
    if (held !== undefined && !now) throw unreplaced(held);
    await site.change((bundle) => withRevocation(bundle, reason, now));
    const until =
      held === undefined ? 'at once' : `on ${new Date(held.untilMs).toISOString().slice(0, 16)} UTC`;
    const when = now ? 'now' : 'when all edges serve the next one';
    return done(
      `the certificate ${current.fingerprint.slice(0, 16)} is revoked ${when}; ` +
        `the next one is ordered with new keys ${until}; ${wanted.why}`,
    );
  }

  #wanted(): CertificatesWanted {
    const wanted = this.#options.desired();
    if (wanted === undefined) throw new TypeError('the desired state is not known yet');
    return wanted;
  }

  #facts(desired: CertificatesDesired, directory: string, failingMs: number | undefined): CertificateFacts {
    const [waits, problem] = [this.#waited, this.#problem];
    return factsOf({ desired, directory, waits, problem, failingSinceMs: failingMs });
  }

  /** From the bundle, and from this node's own calls: a CA that does not answer leaves no entry in the bundle. */
  #failingSince(desired: CertificatesDesired): number | undefined {
    const times = [failingSinceMs(desired), this.#failingMs].filter((each) => each !== undefined);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** The CA validates each step; its answers are validated before they are kept. */
  async apply(
    changes: readonly CertificateChange[],
    signal: AbortSignal,
    made: (change: CertificateChange) => void,
  ): Promise<void> {
    const wanted = this.#options.desired();
    if (wanted === undefined) return;
    for (const change of changes) {
      const bundle = this.#options.site.get();
      const problem = await this.#called(async () =>
        this.#steps.make(change, await this.#ca(wanted, bundle), this.#order, signal),
      );
      if (change.kind === 'answer' && this.#order !== undefined)
        this.#answered = { url: this.#order.url, atMs: this.#options.nowMs() };
      this.#order = undefined;
      if (problem !== undefined || change.kind === 'download') this.#note(problem);
      made(change);
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
  }

  watch(changed: (what: string) => void): () => void {
    clearInterval(this.#timer);
    let lookedMs = Number.NEGATIVE_INFINITY;
    this.#timer = setInterval(() => {
      const { desired, site, nowMs } = this.#options;
      if (site.get().next === undefined && nowMs() - lookedMs < WATCH_MS) return;
      lookedMs = nowMs();
      const wanted = desired();
      if (wanted === undefined || !this.#isDue(wanted)) return;
      changed('the next step of the certificate is due');
    }, OPEN_WATCH_MS);
    return () => clearInterval(this.#timer);
  }

  #isDue(wanted: CertificatesWanted): boolean {
    const { site, wallMs } = this.#options;
    const [bundle, nowMs] = [site.get(), wallMs()];
    const moved = bundle !== this.#since.bundle;
    if (!wanted.orders || nowMs < bundle.notBeforeMs || this.#isPaused()) return moved;
    if (bundle.next?.url !== undefined) return this.#mayAsk(bundle.next.sinceMs, nowMs);
    const due = moved || this.#isWindowDue(wanted, bundle, nowMs);
    const seen = { order: undefined, window: this.#windowOf(bundle) };
    return due || planCertificates({ ...wanted, bundle, nowMs }, seen).length > 0;
  }

  #isWindowDue(wanted: CertificatesWanted, bundle: SiteBundle, nowMs: number): boolean {
    const { current, account } = bundle;
    return (
      current !== undefined &&
      account !== undefined &&
      isOf(current, wanted.directory) &&
      this.#options.nowMs() >= this.#windowMs &&
      !wantsOrder({ ...wanted, bundle, nowMs })
    );
  }

  /** A CA without renewal information, or without an answer, changes nothing: the chosen time stays. */
  async #askWindow(wanted: CertificatesWanted, bundle: SiteBundle, signal: AbortSignal): Promise<void> {
    const leaf = new X509Certificate(bundle.current?.chain ?? '');
    const { client } = await this.#ca(wanted, bundle);
    const info = await client()
      .renewalInfo(leaf, signal)
      .catch(() => undefined);
    signal.throwIfAborted();
    this.#windowMs = this.#options.nowMs() + windowPauseMs(info?.retryAfterMs);
    if (info !== undefined) this.#window = { fingerprint: bundle.current?.fingerprint, info };
  }

  /** It stays until the next answer: an operator's `plan`, or a full disk, must not lose it. */
  #windowOf({ current }: SiteBundle): RenewalInfo | undefined {
    return this.#window?.fingerprint === current?.fingerprint ? this.#window?.info : undefined;
  }

  /** An edge that does not answer serves no certificate at all. */
  async #isReplaced(
    wanted: CertificatesWanted,
    { current }: SiteBundle,
    signal: AbortSignal,
  ): Promise<boolean> {
    const served = await servedAt(wanted.edges, visitedName(wanted.names), signal);
    const shown = served.flatMap(({ sha256 }) => sha256 ?? []);
    const all = shown.length > 0 && shown.every((each) => each === current?.fingerprint);
    return all || this.#options.nowMs() - this.#since.atMs > REVOKED_WITHIN_MS;
  }

  #note(problem: Finding | undefined): void {
    this.#problem = problem;
    this.#failingMs = problem === undefined ? undefined : (this.#failingMs ?? this.#options.wallMs());
  }

  #isPaused(): boolean {
    return this.#options.nowMs() < this.#pausedMs;
  }

  #mayAsk(sinceMs: number, nowMs: number): boolean {
    const pauseMs = Math.max(
      nowMs - sinceMs < SLOW_AFTER_MS ? ASK_MS : SLOW_ASK_MS,
      this.#order?.retryAfterMs ?? 0,
    );
    return this.#options.nowMs() - this.#askedMs >= pauseMs || this.#order === undefined;
  }

  #waits(bundle: SiteBundle, wallMs: number): string | undefined {
    if (this.#isPaused()) return 'the last step failed';
    return wallMs < bundle.notBeforeMs
      ? `no call of the CA before ${new Date(bundle.notBeforeMs).toISOString()}`
      : undefined;
  }

  /** A node that takes over must have what it continues with. */
  #unshared(bundle: SiteBundle): string | undefined {
    const { site, nowMs } = this.#options;
    const differing = nowMs() - this.#since.atMs < SHARED_WITHIN_MS ? site.differing() : [];
    if (differing.length === 0) this.#shared = bundle;
    return this.#shared === undefined || neededOf(this.#shared) !== neededOf(bundle)
      ? `${differing.join(', ')} must get the keys first`
      : undefined;
  }

  async #ca(wanted: CertificatesWanted, { account }: SiteBundle): Promise<Ca> {
    const ca = wanted.caFile === undefined ? undefined : await readIfPresent(wanted.caFile, MOST_CA_BYTES);
    return {
      wanted,
      client: (key = account?.key ?? '') => this.#clientOf(wanted.directory, ca, key, account?.url),
    };
  }

  #clientOf(directoryUrl: string, ca: string | undefined, key: string, accountUrl: string | undefined) {
    const { userAgent, nowMs } = this.#options;
    const [of, atMs] = [JSON.stringify([directoryUrl, ca, key, accountUrl]), nowMs()];
    if (this.#client?.of !== of || atMs >= this.#client.untilMs) {
      const accountKey = createPrivateKey(key);
      const client = new AcmeClient({ directoryUrl, userAgent, ca, accountKey, accountUrl });
      this.#client = { of, untilMs: atMs + CLIENT_MS, client };
    }
    return this.#client.client;
  }

  #pauseAfter(error: unknown): number {
    const isUnreachable = error instanceof AcmeError && error.code === 'certificate-unreachable';
    this.#unreachable = isUnreachable ? this.#unreachable + 1 : 0;
    return isUnreachable ? Math.min(FIRST_PAUSE_MS * 2 ** (this.#unreachable - 1), PAUSE_MS) : PAUSE_MS;
  }

  /** A refusal of the CA and the time of the next try are kept in the bundle, for restarts and takeovers. */
  async #called<T>(call: () => Promise<T>): Promise<T> {
    const { site, wallMs } = this.#options;
    try {
      const answer = await call();
      this.#unreachable = 0;
      if (this.#problem !== undefined && PASSING.has(this.#problem.code)) this.#problem = undefined;
      return answer;
    } catch (error) {
      this.#order = undefined;
      const pauseMs = this.#pauseAfter(error);
      this.#pausedMs = this.#options.nowMs() + pauseMs;
      if (!(error instanceof AcmeError)) throw error;
      const { code, message, next, outcome, retryAfterMs } = error;
      this.#note({ code, message, next });
      const untilMs = wallMs() + (retryAfterMs ?? pauseMs);
      await site.change((now) => ({
        // An order that could not be made counts; an account that could not be made is no order.
        ...(outcome === 'terminal' && now.account?.url !== undefined
          ? withOutcome(now, 'failed', wallMs())
          : now),
        generation: now.generation + 1,
        notBeforeMs: Math.max(now.notBeforeMs, untilMs),
      }));
      throw new PluginError({ code, message, next, outcome: 'retry', cause: error });
    }
  }
}

/** What another node needs to continue, and cannot find at the CA: an account is found by its key. */
const neededOf = ({ account, next, without }: SiteBundle): string =>
  JSON.stringify([account?.key, account?.nextKey, next?.key, next?.url, without]);

/** They end with the next successful call; the result of a check of a name stays until there is a certificate. */
const PASSING: ReadonlySet<string> = new Set([
  'certificate-unreachable',
  'certificate-limited',
  'certificate-answer',
  'certificate-account',
  'certificate-dns-not-seen',
]);

function notSeen(where: string, zone: string, name: string | undefined): Finding {
  return {
    code: 'certificate-dns-not-seen',
    message: `the CA cannot check the names: ${where} after two minutes; the present certificate stays in use`,
    next:
      `run \`bornemisza dns show\` on the node that writes the records, and \`dig ${name ?? zone} TXT\`: is ${zone} ` +
      'delegated to its servers, and the name neither a CNAME nor delegated elsewhere? It goes on by itself',
  };
}

function budget(untilMs: number): Finding {
  return {
    code: 'certificate-budget',
    message: `3 certificates for these names were signed in 7 days: the next order is on ${dayOf(untilMs)}`,
    next: 'wait: the present certificate stays in use, and the next is ordered then',
  };
}

function refused({ code, untilMs }: Held, own: boolean): PluginError {
  const until = `${new Date(untilMs).toISOString().slice(0, 16)} UTC`;
  return new PluginError({
    code,
    message: `no certificate is ordered before ${until}: ${own ? 'our own limit' : 'the CA asked us to wait'}`,
    next: own
      ? 'wait, or run `bornemisza certificate renew --force`: it ignores our own limits, never those of the CA'
      : 'wait until then; the present certificate stays in use',
    outcome: 'retry',
  });
}

function unreplaced({ code, untilMs }: Held): PluginError {
  const until = `${new Date(untilMs).toISOString().slice(0, 16)} UTC`;
  return new PluginError({
    code,
    message: `nothing is revoked: no other certificate can be ordered before ${until}`,
    next: 'to revoke it nevertheless: `bornemisza certificate revoke --now`; browsers may refuse the site until then',
    outcome: 'retry',
  });
}

function notRevocable(current: SiteBundle['current']): PluginError {
  const state = current?.revoked === true ? 'revoked already' : 'from another CA than the configured one';
  return new PluginError({
    code: 'certificate-not-revocable',
    message:
      current === undefined ? 'there is no certificate to revoke' : `the present certificate is ${state}`,
    next: 'see `bornemisza certificate show`',
    outcome: 'terminal',
  });
}

const done = (message: string): Done => ({ done: true, message });

function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
