import { uptime } from 'node:os';
import { readIfOurs, readIfPresent } from '../../host/files.ts';

export interface FirewallPaths {
  /** The daemon's list for the helper, e.g. /run/bornemisza/app/firewall. */
  readonly list: string;
  /** Root's rules, e.g. /etc/bornemisza/firewall.base: present if the firewall is on. */
  readonly base: string;
  /** The helper's sign of life, e.g. /run/bornemisza-firewall/state. */
  readonly state: string;
}

/** The helper's last report, see systemd/firewall. */
export interface FirewallHelper {
  /** Seconds since that report. */
  readonly ageS: number;
  readonly outcome: 'loaded' | 'refused' | 'off';
  readonly apps: readonly string[];
  readonly dbs: readonly string[];
}

export interface FirewallObserved {
  readonly list: string | undefined;
  /** Root has turned the firewall on, and it was confirmed. */
  readonly on: boolean;
  /** Undefined: no readable report of the helper. */
  readonly helper: FirewallHelper | undefined;
}

/** The helper writes a line for each of at most 512 members in two lists. */
const MOST_STATE_BYTES = 64 * 1024;

export async function observeFirewall(paths: FirewallPaths): Promise<FirewallObserved> {
  const [list, base, state] = await Promise.all([
    readIfOurs(paths.list),
    readIfPresent(paths.base),
    readIfPresent(paths.state, MOST_STATE_BYTES).catch(() => undefined),
  ]);
  return { list, on: base !== undefined, helper: parseState(state ?? '', uptime()) };
}

export function parseState(text: string, uptimeS: number): FirewallHelper | undefined {
  const found = /^(\d{1,12}) (loaded|refused|off) [0-9a-f]*\napps (.*)\ndbs (.*)\n$/.exec(text);
  if (found === null) return undefined;
  const [, beat = '', outcome = '', apps = '', dbs = ''] = found;
  const listed = (line: string): string[] => (line === '' ? [] : line.split(', '));
  return {
    ageS: Math.max(0, uptimeS - Number(beat)),
    outcome: outcome as FirewallHelper['outcome'],
    apps: listed(apps),
    dbs: listed(dbs),
  };
}
