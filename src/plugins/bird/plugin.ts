import { readIfOurs } from '../../host/files.ts';
import type { Plugin } from '../contract.ts';
import { type BirdCheckpoint, BirdSteps } from './apply.ts';
import type { BirdDesired, BirdRetired } from './desired.ts';
import { BirdObserver, type BirdOptions } from './observe.ts';
import { type BirdChange, type BirdObserved, planBird } from './plan.ts';
import { type BirdReport, reportOf } from './report.ts';
import { BirdWatch } from './watch.ts';

/** The one writer of the floating IPs: their device, their addresses, and whether BIRD announces them. */
export class BirdPlugin
  implements Plugin<BirdDesired | BirdRetired, BirdObserved, BirdChange, BirdCheckpoint, BirdReport>
{
  readonly name = 'bird';
  readonly evidence = 'birdc show protocols all bornemisza_floating';
  readonly #observer: BirdObserver;
  readonly #steps: BirdSteps;
  readonly #watch: BirdWatch;
  readonly rollback: BirdSteps;

  constructor(options: BirdOptions) {
    this.#observer = new BirdObserver(options);
    this.#steps = new BirdSteps(options, this.#observer);
    this.rollback = this.#steps;
    this.#watch = new BirdWatch(this.#observer, options);
  }

  /** Whether a fragment of ours exists: BIRD was used before. */
  async leftBehind(): Promise<boolean> {
    return (await readIfOurs(this.#observer.path)) !== undefined;
  }

  observe(signal: AbortSignal): Promise<BirdObserved> {
    return this.#observer.observe(signal);
  }

  plan(desired: BirdDesired | BirdRetired, observed: BirdObserved): BirdChange[] {
    return planBird(desired, observed);
  }

  status(desired: BirdDesired | BirdRetired, observed: BirdObserved): BirdReport {
    return reportOf(desired, observed);
  }

  validate(changes: readonly BirdChange[], signal: AbortSignal): Promise<void> {
    return this.#steps.validate(changes, signal);
  }

  apply(
    changes: readonly BirdChange[],
    signal: AbortSignal,
    made: (change: BirdChange) => void,
  ): Promise<void> {
    return this.#steps.apply(changes, signal, made);
  }

  async close(): Promise<void> {
    this.#watch.end();
    await this.#steps.discard();
  }

  watch(changed: (what: string) => void): () => void {
    return this.#watch.begin(changed);
  }
}
