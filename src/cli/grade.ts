import type { StatusAnswer } from '../daemon/control/api.ts';

/** The state of a node for programs: the exit code of `status --check` (0, 1 or 2), and what `wait` waits for. */
export interface Grade {
  readonly level: 'well' | 'degraded' | 'down';
  /** The problems; '' if there is none. */
  readonly why: string;
}

/** Faults of the machine, among the notes. */
const OF_THE_MACHINE: ReadonlySet<string> = new Set([
  'disk-full',
  'link-down',
  'memory-pressure',
  'unit-restarts',
]);

export function gradeOf(status: StatusAnswer): Grade {
  const { checks, counts, held, health, maintenance, name, phase, plugins, synced, warnings } = status;
  if (phase !== 'running') return { level: 'down', why: `${name} is ${phase}` };
  const failing = checks.filter((each) => each.health === 'down');
  const names = failing.map((each) => `${each.name} (${each.detail})`).join(', ');
  if (health === 'down') return { level: 'down', why: `${name} is down: ${names}` };
  const lost = counts.dead + counts.suspect + counts.absent;
  const reasons = [
    failing.length > 0 ? `${names} is down` : '',
    ...plugins
      .filter(({ state }) => state === 'failing' || state === 'stopped')
      .map((each) => `${each.name}: ${each.detail}`),
    ...plugins.flatMap(({ alarms }) => alarms.map(({ message }) => message)),
    ...warnings.filter(({ code }) => OF_THE_MACHINE.has(code)).map(({ message }) => message),
    lost > 0 ? `${lost} members are not reachable` : '',
    ...held.map(({ message }) => `held: ${message}`),
    maintenance ? 'in maintenance' : '',
    synced ? '' : 'not synced yet',
  ].filter((each) => each !== '');
  const [first] = reasons;
  return first === undefined
    ? { level: 'well', why: '' }
    : { level: 'degraded', why: `${name}: ${reasons.join('; ')}` };
}

/** The worst of all. */
export function worst(grades: readonly Grade[]): Grade {
  for (const level of ['down', 'degraded'] as const) {
    const found = grades.find((each) => each.level === level);
    if (found !== undefined) return found;
  }
  return { level: 'well', why: '' };
}
