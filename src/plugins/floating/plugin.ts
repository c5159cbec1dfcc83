import { networkInterfaces } from 'node:os';
import { type Finding, type Plugin, PluginError, type PluginReport } from '../contract.ts';
import { changeDevice } from './apply.ts';
import { type ApiDesired, READY } from './desired.ts';
import { AddressWatch, addressesHeld, faultOf, Looks } from './observe.ts';
import {
  type ApiObserved,
  findingsOf,
  type FloatingChange,
  nameOf,
  paceMs,
  planFloating,
  verdictOf,
} from './plan.ts';
import type { FloatingProvider, ProviderFault } from './provider.ts';
import type { FloatingShown } from './shape.ts';

interface FloatingPluginOptions {
  readonly provider: FloatingProvider;
  /** The desired state of the node's last turn. */
  readonly desired: () => ApiDesired;
  /** Whether the edge at an address answers and finds a database, within half a second; never throws. */
  readonly ask: (address: string) => Promise<boolean>;
  /** Monotonic, ms. For tests. */
  readonly nowMs?: () => number;
}

/** The facts for the rest of the daemon. */
export interface FloatingReport extends PluginReport {
  /** Whether the provider reported that an address is assigned to this server. */
  readonly holds: boolean;
  /** For the member's record: the server's name, whether this node can get the addresses, and the problem. */
  readonly server: string | undefined;
}

const TICK_MS = 500;
/** If the process was stopped for this long, another node may have taken the addresses. */
const STOOD_STILL_MS = 2000;
const FREE_LOOK_MS = 2000;
/** An accepted request is done within this time; DigitalOcean's own example takes 11 s. */
const PENDING_MS = 20_000;
/** A request whose answer was lost may also be done. */
const UNSURE_MS = 5000;
/** A refused request is tried again after this time, doubled each time. */
const REFUSED_FIRST_MS = 1000;
const REFUSED_MOST_MS = 15_000;
/** A node whose requests fail for longer is skipped, and may try again after a minute. */
const READY_FOR_MS = 10_000;
const PASSED_OVER_MS = 60_000;

/** The one caller of the provider for the floating IPs, and the one writer of them on this host's devices. */
export class FloatingPlugin
  implements Plugin<ApiDesired, ApiObserved, FloatingChange, undefined, FloatingReport>
{
  readonly name = 'floating';
  readonly evidence = 'bornemisza floating show';
  readonly #options: Required<FloatingPluginOptions>;
  readonly #looks: Looks;
  readonly #watch: AddressWatch;
  readonly #pendingMs = new Map<string, number>();
  /** Failed requests in a row, over all addresses. */
  #refused: { readonly fault: Finding; readonly sinceMs: number; lastMs: number; count: number } | undefined;
  readonly #again = new Set<string>();
  readonly #ids = new Map<string, string>();
  #observed: ApiObserved | undefined;
  /** The purpose of the last observation: another decision needs a new one. */
  #decided = '';
  #timer: NodeJS.Timeout | undefined;
  #tickMs = Number.POSITIVE_INFINITY;
  #freeMs = Number.NEGATIVE_INFINITY;

  constructor(options: FloatingPluginOptions) {
    const { nowMs = () => performance.now() } = options;
    this.#options = { ...options, nowMs };
    this.#looks = new Looks(options.provider, nowMs);
    this.#watch = new AddressWatch(options.ask);
  }

  async leftBehind(): Promise<boolean> {
    return (await addressesHeld(false, AbortSignal.timeout(TICK_MS * 10))).length > 0;
  }

  async observe(signal: AbortSignal): Promise<ApiObserved> {
    const desired = this.#options.desired();
    const decided = JSON.stringify([desired.addresses, desired.take && desired.others]);
    if (decided !== this.#decided) this.#looks.forget();
    this.#decided = decided;
    const due = desired.addresses.length > 0 && this.#looks.due(this.#paceMs(desired));
    const fresh = due && (await this.#looks.look(desired.addresses, signal));
    return this.#remember(desired, fresh, await addressesHeld(desired.device !== '', signal));
  }

  plan(desired: ApiDesired, observed: ApiObserved): FloatingChange[] {
    return planFloating(desired, observed);
  }

  status(desired: ApiDesired, observed: ApiObserved): FloatingReport {
    const { addresses } = desired;
    const { self, assigned, failingForMs } = observed;
    if (addresses.length === 0) return { alarms: [], holds: false, server: undefined };
    const alarms = findingsOf(desired, observed);
    const works = failingForMs < READY_FOR_MS;
    const ready =
      works && assigned.size > 0 && [...assigned.values()].every((each) => each.elsewhere === undefined);
    const words = [self, ready ? READY : undefined, alarms[0]?.code].filter((each) => each !== undefined);
    return {
      seen: addresses.map((each) => `${each} ${whereIs(each, desired, observed)}`).join(', '),
      alarms,
      // This node claims only what it knows: another node may be the holder.
      holds: works && addresses.some((each) => verdictOf(each, desired, observed) === 'ours'),
      server: self === undefined ? undefined : words.join(' '),
    };
  }

  /** Observes, decides again, requests. A plan from an older view is dropped. */
  async apply(
    changes: readonly FloatingChange[],
    signal: AbortSignal,
    made: (change: FloatingChange) => void,
  ): Promise<void> {
    for (const change of changes) {
      if (!this.#stillPlanned(change)) continue;
      if (change.kind === 'assign') {
        // Only once, whatever the result: a provider may refuse an existing assignment.
        if (change.again) this.#again.add(change.address);
        await this.#assign(change.address, signal);
      } else await changeDevice(change, signal);
      made(change);
    }
  }

  /** `show`, or `take`: has the addresses assigned to this node, whichever node has them. */
  async ask(verb: string, _request: unknown, signal: AbortSignal): Promise<object> {
    if (verb !== 'take') return this.#show(signal);
    const { addresses, barred, device } = this.#options.desired();
    if (barred !== undefined)
      throw new PluginError({
        code: 'floating-not-fit',
        message: `the floating IPs cannot be taken here: ${barred}`,
        next: 'see bornemisza status; on a healthy node: sudo bornemisza floating take',
        outcome: 'terminal',
      });
    await this.#lookNow(signal);
    const moved = addresses.filter((each) => this.#looks.assigned.get(each)?.to !== this.#looks.self);
    for (const address of moved) {
      if (device !== '') await changeDevice({ kind: 'device-on', device, address, summary: '' }, signal);
      await this.#assign(address, signal);
    }
    const list = moved.join(', ');
    const message =
      moved.length === 0
        ? 'they are already assigned to this node'
        : `${list}: assignment to this node requested; see the result: bornemisza floating show`;
    return { done: true, message };
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
  }

  watch(changed: (what: string) => void): () => void {
    clearInterval(this.#timer);
    this.#tickMs = Number.POSITIVE_INFINITY;
    this.#timer = setInterval(() => this.#tick(changed), TICK_MS);
    return () => clearInterval(this.#timer);
  }

  #tick(changed: (what: string) => void): void {
    const { desired: desiredNow, nowMs, provider } = this.#options;
    const desired = desiredNow();
    const now = nowMs();
    const stoodStill = now - this.#tickMs > STOOD_STILL_MS;
    this.#tickMs = now;
    if (desired.addresses.length === 0) return;
    if (stoodStill) {
      this.#looks.forget();
      changed('this process was stopped for a while');
    } else if (this.#looks.due(this.#paceMs(desired)))
      changed(`the last answer of ${provider.label} is too old`);
    // This host would itself answer for an address that it already has.
    const { assigned, self } = this.#looks;
    const elsewhere = desired.addresses.filter((each) => assigned.get(each)?.to !== self && !isHere(each));
    this.#watch.look(desired.ask, elsewhere, now, (what) => {
      this.#looks.forget();
      changed(what);
    });
    if (desired.silentTo.length === 0) this.#again.clear();
    if (now - this.#freeMs >= FREE_LOOK_MS) void this.#freeLook(changed, now);
  }

  /** A node that lost the address learns it within two seconds, without a call. */
  async #freeLook(changed: (what: string) => void, now: number): Promise<void> {
    const { provider, desired } = this.#options;
    const { assigned, self } = this.#looks;
    this.#freeMs = now;
    if (provider.active === undefined || self === undefined) return;
    if (!desired().addresses.some((each) => assigned.get(each)?.to === self)) return;
    if ((await provider.active(AbortSignal.timeout(FREE_LOOK_MS)).catch(() => undefined)) !== false) return;
    this.#looks.forget();
    changed(`${provider.label} reports that no floating IP is assigned here`);
  }

  #stillPlanned(change: FloatingChange): boolean {
    const { desired } = this.#options;
    const observed = this.#observed;
    return (
      observed !== undefined &&
      planFloating(desired(), observed).some(
        (each) => each.kind === change.kind && each.address === change.address,
      )
    );
  }

  async #assign(address: string, signal: AbortSignal): Promise<void> {
    const { provider, nowMs } = this.#options;
    const { self } = this.#looks;
    if (self === undefined) return;
    // The next observation asks the provider, whatever the result.
    this.#looks.forget();
    this.#pendingMs.set(address, nowMs() + PENDING_MS);
    try {
      await provider.assign(address, self, signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#orderFailed(address, faultOf(error, provider.label));
      throw error;
    }
  }

  #orderFailed(address: string, { code, message, next, unsure }: ProviderFault): void {
    const now = this.#options.nowMs();
    const count = this.#refused?.count ?? 0;
    const againMs = unsure ? UNSURE_MS : Math.min(REFUSED_FIRST_MS * 2 ** count, REFUSED_MOST_MS);
    this.#pendingMs.set(address, now + againMs);
    const sinceMs = this.#refused?.sinceMs ?? now;
    this.#refused = { fault: { code, message, next }, sinceMs, lastMs: now, count: count + 1 };
  }

  async #lookNow(signal: AbortSignal): Promise<void> {
    const desired = this.#options.desired();
    const fresh = await this.#looks.look(desired.addresses, signal);
    this.#remember(desired, fresh, await addressesHeld(desired.device !== '', signal));
    const { fault } = this.#looks;
    if (!fresh && fault !== undefined) throw new PluginError({ ...fault, outcome: 'retry' });
  }

  async #show(signal: AbortSignal): Promise<FloatingShown> {
    const desired = this.#options.desired();
    const fresh = await this.#looks.look(desired.addresses, signal);
    const observed = this.#remember(desired, fresh, await addressesHeld(desired.device !== '', signal));
    const { label, self, assigned, held } = observed;
    return {
      provider: label,
      server: self ?? null,
      why: desired.why,
      addresses: desired.addresses.map((address) => {
        const seen = assigned.get(address);
        return {
          address,
          server: seen?.to ?? null,
          owner: seen?.to === undefined ? 'nobody' : nameOf(seen.to, desired, observed),
          known: seen !== undefined,
          busy: seen?.busy ?? false,
          device: held.find((each) => each.address === address)?.device ?? null,
        };
      }),
      findings: findingsOf(desired, observed),
    };
  }

  #remember(desired: ApiDesired, fresh: boolean, held: ApiObserved['held']): ApiObserved {
    const { provider, nowMs } = this.#options;
    const { self, assigned } = this.#looks;
    const now = nowMs();
    for (const { name, id } of desired.others) if (id !== undefined) this.#ids.set(name, id);
    for (const [address, untilMs] of this.#pendingMs)
      if (now >= untilMs || (fresh && assigned.get(address)?.to === self)) this.#pendingMs.delete(address);
    const done = fresh && desired.addresses.every((each) => assigned.get(each)?.to === self);
    if (done || now - (this.#refused?.lastMs ?? now) >= PASSED_OVER_MS) this.#refused = undefined;
    const orderFailingMs = this.#refused === undefined ? 0 : now - this.#refused.sinceMs;
    this.#observed = {
      ...{ label: provider.label, self, assigned, fresh, held },
      fault: this.#looks.fault ?? this.#refused?.fault,
      failingForMs: Math.max(this.#looks.failingForMs, orderFailingMs),
      asked: this.#watch.said,
      pending: new Set(this.#pendingMs.keys()),
      again: new Set(this.#again),
      ids: new Map(this.#ids),
    };
    return this.#observed;
  }

  #paceMs(desired: ApiDesired): number {
    const { provider } = this.#options;
    const { assigned, self } = this.#looks;
    const pending = new Set(this.#pendingMs.keys());
    return paceMs(desired, { assigned, self, pending }, provider.callsFor(desired.addresses));
  }
}

function isHere(address: string): boolean {
  return Object.values(networkInterfaces()).some((all) => all?.some((each) => each.address === address));
}

function whereIs(address: string, desired: ApiDesired, observed: ApiObserved): string {
  const seen = observed.assigned.get(address);
  if (seen === undefined) return 'was not checked yet';
  return seen.to === undefined ? 'is not assigned' : `is assigned to ${nameOf(seen.to, desired, observed)}`;
}
