import { isDeepStrictEqual } from 'node:util';
import { type AnyPlugin, PluginError, type PluginReport } from '../../plugins/contract.ts';
import type { Reason, Reconciler } from '../reconciler/reconciler.ts';
import type { Look } from './look.ts';
import type { Program, Surroundings } from './programs.ts';

export interface KeptProgramsDependencies extends Surroundings {
  readonly reconciler: Pick<Reconciler, 'add' | 'trigger'>;
  /** Each run of a program starts from the present state; what its plugin observes is a reason for another turn. */
  readonly node: { look(): Look; turn(reason: string): void };
}

/** The programs of this node: each runs when its desired state changes. */
export class KeptPrograms {
  readonly #list: readonly Program[];
  readonly #dependencies: KeptProgramsDependencies;
  readonly #kept = new Map<
    string,
    { readonly program: Program; readonly plugin: AnyPlugin; desired: unknown }
  >();
  readonly #reports = new Map<string, PluginReport>();

  constructor(list: readonly Program[], dependencies: KeptProgramsDependencies) {
    this.#list = list;
    this.#dependencies = dependencies;
  }

  /** The programs of the present mode, and those of a former mode that left something. */
  async start(): Promise<void> {
    const { config, reconciler, node } = this.#dependencies;
    for (const program of this.#list.filter(({ roles }) => roles.includes(config.role))) {
      const plugin = program.make(this.#dependencies);
      if (!program.enabled(config) && !(await leftBehind(plugin))) continue;
      const { name } = program;
      this.#kept.set(name, { program, plugin, desired: desiredOf(program, node.look()) });
      reconciler.add(
        plugin,
        () => program.desired(node.look()),
        (report) => this.#looked(name, report),
      );
    }
  }

  /** Asks for a run of each program whose desired state has changed since the last turn. */
  follow(look: Look, reasons: readonly Reason[]): void {
    for (const [name, kept] of this.#kept) {
      const desired = desiredOf(kept.program, look);
      if (isDeepStrictEqual(kept.desired, desired)) continue;
      kept.desired = desired;
      for (const { text, subjects } of reasons) this.#dependencies.reconciler.trigger(text, name, subjects);
    }
  }

  /** The last observation of a program's plugin. */
  report(program: string): PluginReport | undefined {
    return this.#reports.get(program);
  }

  /** Whether an old process is left that presents and trusts the certificates of its start. */
  async hasOldWorkers(): Promise<boolean> {
    for (const { plugin } of this.#kept.values()) if ((await plugin.hasOldWorkers?.()) === true) return true;
    return false;
  }

  #looked(name: string, report: PluginReport): void {
    if (isDeepStrictEqual(this.#reports.get(name), report)) return;
    this.#reports.set(name, report);
    this.#dependencies.node.turn(`${name}: ${report.seen ?? 'its status changed'}`);
  }
}

/** A failed observation is reported by the plugin's own run. */
async function leftBehind(plugin: AnyPlugin): Promise<boolean> {
  return (await plugin.leftBehind?.().catch(() => true)) ?? false;
}

/** The program's run reports an impossible desired state; here it counts as one more different state. */
function desiredOf(program: Program, look: Look): unknown {
  try {
    return program.desired(look);
  } catch (error) {
    if (error instanceof PluginError) return { code: error.code, message: error.message };
    throw error;
  }
}
