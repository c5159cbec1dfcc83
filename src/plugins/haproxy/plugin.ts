import type { Plugin, PluginReport } from '../contract.ts';
import { type HaproxyCheckpoint, Steps } from './apply.ts';
import type { HaproxyDesired } from './desired.ts';
import { Endings, type Spread } from './endings.ts';
import { HaproxyFiles, sha256 } from './files.ts';
import { Observer } from './observe.ts';
import { decided, type HaproxyChange, type HaproxyObserved, planHaproxy } from './plan.ts';
import type { Layout } from './rendered.ts';
import { render } from './render.ts';
import { chooseSite } from './site-certificate.ts';
import { chooseSnippets } from './snippets.ts';
import { Sockets } from './sockets.ts';
import { sightOf } from './status.ts';
import type { HaproxyFacts, HaproxyTraffic } from './shape.ts';
import { isOuter, trafficOf } from './traffic.ts';
import { Validator } from './validate.ts';
import { Watch } from './watch.ts';

interface HaproxyOptions {
  readonly instance: 'app' | 'db';
  /** Where the configuration lies, e.g. /var/lib/bornemisza/haproxy/app; the unit starts from haproxy.cfg there. */
  readonly directory: string;
  /** Where the unit makes stats.sock and master.sock, e.g. /run/bornemisza-haproxy/app. */
  readonly runDirectory: string;
  readonly binary?: string;
  /** How often the running HAProxy and the files are checked. Default 1000. */
  readonly watchIntervalMs?: number;
  /** When the streams of an old process end. Default: between 10 and 14.5 minutes after the reload. */
  readonly spread?: Spread & { readonly stepMs: number };
}

/** The one writer of our own HAProxy instance: its files, and over its sockets its running state. */
export class HaproxyPlugin
  implements Plugin<HaproxyDesired, HaproxyObserved, HaproxyChange, HaproxyCheckpoint>
{
  readonly name = 'haproxy';
  readonly evidence: string;
  readonly #layout: Layout;
  readonly #observer: Observer;
  readonly #validator: Validator;
  readonly #steps: Steps;
  readonly #sockets: Sockets;
  readonly #watch: Watch;
  readonly #endings: Endings;
  readonly #vouch: ((signal: AbortSignal) => Promise<void>) | undefined;
  readonly rollback: Steps;

  constructor({
    instance,
    directory,
    runDirectory,
    binary = 'haproxy',
    watchIntervalMs = 1000,
    spread,
  }: HaproxyOptions) {
    const files = new HaproxyFiles(directory);
    const sockets = new Sockets(instance, runDirectory);
    this.#vouch = instance === 'db' ? (signal) => sockets.vouch(signal) : undefined;
    this.#endings = new Endings(sockets, spread, spread?.stepMs);
    this.evidence = `journalctl -u ${sockets.unit}`;
    this.#sockets = sockets;
    this.#layout = { directory, statsSocket: sockets.stats };
    this.#observer = new Observer(instance, binary, files, sockets);
    this.#validator = new Validator(instance, binary, files);
    this.#steps = new Steps({
      instance,
      files,
      sockets,
      observer: this.#observer,
      validator: this.#validator,
      heartbeat: this.#vouch,
    });
    this.rollback = this.#steps;
    this.#watch = new Watch(files, sockets, this.#steps.lingering, watchIntervalMs);
  }

  observe(signal: AbortSignal): Promise<HaproxyObserved> {
    return this.#observer.observe(this.#validator.refusals, signal);
  }

  /**
   * While nobody answers, the file has no snippets: one that worked can keep HAProxy from starting, e.g. after a boot
   * where another program has its port. They come by a reload, which cannot end what runs.
   */
  plan(desired: HaproxyDesired, observed: HaproxyObserved): readonly HaproxyChange[] {
    const { certificates } = desired;
    const edge = chooseSite(certificates.edge, certificates.edgeProblem, observed.site).pem;
    const wanted = decided({ ...desired, certificates: { ...certificates, edge } }, observed);
    const layout = { ...this.#layout, ipv6: observed.ipv6 };
    const snippets = observed.running === undefined ? [] : snippetsOf(desired, observed).used;
    return planHaproxy(render(wanted, layout, observed.refused, snippets), observed, sha256);
  }

  status(desired: HaproxyDesired, observed: HaproxyObserved): PluginReport {
    const { running, site, old } = observed;
    const { edge, edgeProblem } = desired.certificates;
    const { alarm } = chooseSite(edge, edgeProblem, site);
    return {
      seen: sightOf(running, old),
      facts: { old: old ?? { processes: 0, connections: 0 } } satisfies HaproxyFacts,
      alarms: [...(alarm === undefined ? [] : [alarm]), ...snippetsOf(desired, observed).alarms],
    };
  }

  /** What the running process gets first is checked after it, before the file takes its place. */
  async validate(changes: readonly HaproxyChange[], signal: AbortSignal): Promise<void> {
    if (this.#steps.tellsFirst(changes)) await this.#validator.discard();
    else await this.#validator.validate(changes, signal);
  }

  apply(
    changes: readonly HaproxyChange[],
    signal: AbortSignal,
    made: (change: HaproxyChange) => void,
  ): Promise<void> {
    return this.#steps.apply(changes, signal, made);
  }

  async close(): Promise<void> {
    this.#watch.end();
    await this.#validator.discard();
  }

  watch(changed: (what: string, restarted?: boolean) => void): () => void {
    return this.#watch.begin(changed);
  }

  async heartbeat(signal: AbortSignal): Promise<void> {
    await this.#vouch?.(signal);
    await this.#endings.step(signal);
  }

  /** `show`: what goes through it now. `end`: ends a share of what lasts, for a node that gets nothing new. */
  async ask(
    verb: string,
    request: { readonly share?: number },
    signal: AbortSignal,
  ): Promise<HaproxyTraffic | { readonly ended: number }> {
    if (verb === 'end') return { ended: await this.#endings.drain(request.share ?? 1, isOuter, signal) };
    return await trafficOf(this.#sockets, (until) => this.#observer.oldWorkers(until), signal);
  }

  hasOldWorkers(): Promise<boolean> {
    return this.#observer.hasOldWorkers();
  }
}

const snippetsOf = (desired: HaproxyDesired, { refusedSnippets }: HaproxyObserved) =>
  chooseSnippets(
    (desired.instance === 'app' && desired.snippets) || { files: [], readMs: 0, ports: [] },
    refusedSnippets,
  );
