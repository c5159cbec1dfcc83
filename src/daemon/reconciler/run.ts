import { type PlannedChange, type Plugin, PluginError, type PluginReport } from '../../plugins/contract.ts';

export interface RunOptions<Report> {
  readonly signal: AbortSignal;
  /** Time limit of an undo, independent of the run. */
  readonly undoTimeoutMs: number;
  /** Called with the observed state of each run. */
  readonly looked?: (report: Report) => void;
  /** Called with the present step. */
  readonly changing?: (summary: string) => void;
  /** Nothing is undone while the daemon stops: the next start runs again. */
  readonly stopping?: () => boolean;
}

export interface RunOutcome<Change> {
  readonly planned: readonly Change[];
  readonly made: readonly Change[];
}

/** A failed run: its plan, and whether its changes were undone. */
export class RunFailure extends Error {
  readonly reason: PluginError;
  readonly planned: readonly PlannedChange[];
  readonly undone: boolean;

  constructor(reason: PluginError, planned: readonly PlannedChange[], undone: boolean) {
    super(reason.message);
    this.reason = reason;
    this.planned = planned;
    this.undone = undone;
  }
}

/**
 * One run of a plugin: observe, plan, validate, apply, and observe again. An applied change must not be planned again;
 * otherwise, or if applying fails, the plugin undoes it.
 *
 * @throws RunFailure
 */
export async function runPlugin<D, O, C extends PlannedChange, K, R extends PluginReport>(
  plugin: Plugin<D, O, C, K, R>,
  desired: D,
  options: RunOptions<R>,
): Promise<RunOutcome<C>> {
  let planned: readonly C[] = [];
  try {
    planned = await look(plugin, desired, options);
    if (planned.length === 0) return { planned, made: [] };
    options.changing?.(planned[0]?.summary ?? '');
    await plugin.validate?.(planned, options.signal);
    return { planned, made: await change(plugin, desired, planned, options) };
  } catch (error) {
    if (error instanceof RunFailure) throw error;
    throw new RunFailure(asPluginError(error, plugin.name), planned, false);
  }
}

async function look<D, O, C extends PlannedChange, K, R extends PluginReport>(
  plugin: Plugin<D, O, C, K, R>,
  desired: D,
  { signal, looked }: RunOptions<R>,
): Promise<readonly C[]> {
  const observed = await plugin.observe(signal);
  if (plugin.status !== undefined) looked?.(plugin.status(desired, observed));
  return plugin.plan(desired, observed);
}

async function change<D, O, C extends PlannedChange, K, R extends PluginReport>(
  plugin: Plugin<D, O, C, K, R>,
  desired: D,
  planned: readonly C[],
  options: RunOptions<R>,
): Promise<readonly C[]> {
  const made: C[] = [];
  const { rollback } = plugin;
  const checkpoint = await rollback?.checkpoint(planned, options.signal);
  try {
    await plugin.apply(planned, options.signal, (each) => made.push(each));
    verify(plugin, await look(plugin, desired, options), made);
    return made;
  } catch (error) {
    const reason = asPluginError(error, plugin.name);
    if (rollback === undefined || reason.keepsChanges || options.stopping?.() === true)
      throw new RunFailure(reason, planned, false);
    try {
      await rollback.undo(checkpoint as K, AbortSignal.timeout(options.undoTimeoutMs));
    } catch (second) {
      throw new RunFailure(notUndone(reason, asPluginError(second, plugin.name)), planned, false);
    }
    throw new RunFailure(reason, planned, made.length > 0);
  }
}

/** A plugin that works in steps may have further steps, but none that was just made. */
function verify(
  { name, evidence }: { readonly name: string; readonly evidence: string },
  left: readonly PlannedChange[],
  made: readonly PlannedChange[],
): void {
  const again = (each: PlannedChange): boolean =>
    made.some(({ kind, summary }) => kind === each.kind && summary === each.summary);
  const wrong = left.filter((each) => each.step === undefined || (each.step === 'once' && again(each)));
  if (wrong.length === 0) return;
  const summaries = wrong.slice(0, 3).map(({ summary }) => summary);
  throw new PluginError({
    code: 'change-did-not-hold',
    message: `${name} still differs after the change: ${summaries.join('; ')}`,
    next: `check whether another program changes it: \`${evidence}\`; it is tried again`,
    outcome: 'retry',
  });
}

function notUndone({ code, message, next, outcome, cause }: PluginError, second: PluginError): PluginError {
  const both = `${message}; the former state could not be restored: ${second.message}`;
  return new PluginError({ code, message: both, next, outcome, cause });
}

export function asPluginError(error: unknown, plugin: string): PluginError {
  if (error instanceof PluginError) return error;
  const named = namedElsewhere(error);
  if (named !== undefined) return named;
  const timedOut = error instanceof Error && (error.name === 'TimeoutError' || error.name === 'AbortError');
  return new PluginError({
    code: timedOut ? 'plugin-timeout' : 'plugin-unexpected',
    message: timedOut
      ? `${plugin} did not finish in time`
      : error instanceof Error
        ? error.message
        : String(error),
    next: timedOut
      ? `check whether the program that ${plugin} manages still answers`
      : 'report this with the journal around it',
    outcome: 'retry',
    cause: error,
  });
}

/** E.g. of the room that stores what a plugin keeps: it names its own code and next step. */
function namedElsewhere(error: unknown): PluginError | undefined {
  if (!(error instanceof Error)) return undefined;
  const { message, code, next } = error as Error & { readonly code?: unknown; readonly next?: unknown };
  return typeof code === 'string' && typeof next === 'string'
    ? new PluginError({ code, message, next, outcome: 'retry', cause: error })
    : undefined;
}
