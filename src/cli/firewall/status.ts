import { readFile } from 'node:fs/promises';
import { TABLE } from '../../plugins/firewall/rules.ts';
import { answered } from '../answered.ts';
import type { Io } from '../io.ts';
import { basePath, mustBeRoot, trialPath } from './turn.ts';

export interface FirewallStatus {
  /** `trial`: loaded, but not confirmed yet. `missing`: it should be loaded and is not. */
  readonly state: 'on' | 'trial' | 'off' | 'missing';
  readonly apps: readonly string[];
  readonly dbs: readonly string[];
  /** Packets dropped or refused since the rules were last loaded. */
  readonly refusedPackets: number;
}

/** Read from the kernel. */
export async function status(io: Io, root: string): Promise<FirewallStatus> {
  mustBeRoot(io);
  const { code, stdout } = answered(await io.host.run('nft', ['list', 'table', 'inet', TABLE]));
  const there = async (path: string): Promise<boolean> =>
    (await readFile(path).catch(() => undefined)) !== undefined;
  const trial = await there(trialPath(root));
  const wanted = trial || (await there(basePath(root)));
  if (code !== 0) return { state: wanted ? 'missing' : 'off', apps: [], dbs: [], refusedPackets: 0 };
  const counted = [...stdout.matchAll(/counter packets (\d+)/g)].map(([, packets]) => Number(packets));
  return {
    state: trial ? 'trial' : 'on',
    apps: elements(stdout, 'apps'),
    dbs: elements(stdout, 'dbs'),
    refusedPackets: counted.reduce((sum, packets) => sum + packets, 0),
  };
}

function elements(listing: string, set: string): string[] {
  const found = new RegExp(`set ${set} \\{[^}]*?elements = \\{([^}]*)\\}`).exec(listing)?.[1] ?? '';
  return found.split(',').flatMap((each) => (each.trim() === '' ? [] : [each.trim()]));
}

const STATES: Readonly<Record<FirewallStatus['state'], string>> = {
  on: 'on',
  trial: 'on trial: type `sudo bornemisza firewall confirm` in a new ssh connection to keep it',
  off: 'off: every port is open. `sudo bornemisza firewall on` closes those that the cluster does not need',
  missing:
    'should be on, but no rule is loaded: every port is open. See `systemctl status bornemisza-firewall`',
};

export function picture(found: FirewallStatus): string {
  const head = `firewall: ${STATES[found.state]}\n`;
  if (found.state === 'off' || found.state === 'missing') return head;
  return (
    `${head}app nodes allowed: ${found.apps.join(', ') || 'none'}\ndb nodes allowed: ` +
    `${found.dbs.join(', ') || 'none'}\npackets refused since the rules were loaded: ` +
    `${found.refusedPackets}\n`
  );
}
