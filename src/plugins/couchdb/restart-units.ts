import { runCommand } from '../../host/command.ts';

/** root's units that restart CouchDB on a request; see systemd/system. */
export const RESTART_UNITS = [
  'bornemisza-couchdb-restart.path',
  'bornemisza-couchdb-restart.service',
] as const;

/** systemd's state of one unit. */
export interface UnitState {
  readonly unit: string;
  readonly active: string;
  /** `success`, or why it failed, e.g. `resources`. */
  readonly result: string;
}

/** @returns none if systemd does not answer this user */
export async function restartUnits(signal: AbortSignal, systemctl = 'systemctl'): Promise<UnitState[]> {
  try {
    const asked = ['show', '--property=Id,ActiveState,Result', ...RESTART_UNITS];
    const { code, stdout } = await runCommand(systemctl, asked, { timeoutMs: 2000, signal });
    return code === 0 ? unitStates(stdout) : [];
  } catch {
    return [];
  }
}

export function unitStates(shown: string): UnitState[] {
  return shown.split('\n\n').flatMap((block) => {
    const of = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(block)?.[1] ?? '';
    return of('Id') === '' ? [] : [{ unit: of('Id'), active: of('ActiveState'), result: of('Result') }];
  });
}

/** The unit that prevents the restart, as text. */
export function faultWords(units: readonly UnitState[]): string {
  const failed = units.filter(
    ({ active, result }) => active === 'failed' || !['', 'success'].includes(result),
  );
  if (failed.length > 0)
    return failed.map(({ unit, result }) => `${unit} has failed (${result || 'unknown'})`).join(', ');
  const watcher = units.find(({ unit }) => unit.endsWith('.path'));
  if (watcher !== undefined && watcher.active !== 'active') return `${watcher.unit} is ${watcher.active}`;
  const working = units.find(({ unit, active }) => unit.endsWith('.service') && active === 'activating');
  if (working !== undefined) return `${working.unit} is still running`;
  return `${RESTART_UNITS.join(' or ')} has failed`;
}
