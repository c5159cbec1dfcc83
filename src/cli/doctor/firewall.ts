import { readFile } from 'node:fs/promises';
import { renderBase } from '../../plugins/firewall/rules.ts';
import { gatherBase } from '../firewall/gather.ts';
import { type FirewallStatus, status } from '../firewall/status.ts';
import { basePath } from '../firewall/turn.ts';
import type { Io } from '../io.ts';
import { type Area, areaOf, type Check } from './check.ts';

export interface FirewallFacts extends FirewallStatus {
  /** Whether the rules match the present configuration; undefined: unknown. */
  readonly current: boolean | undefined;
}

/** Runs while this process is still root: the kernel answers nobody else. It reads only root's files. */
export async function askFirewall(io: Io, root: string): Promise<FirewallFacts | undefined> {
  if (io.host.uid !== 0) return undefined;
  const found = await status(io, root);
  return { ...found, current: found.state === 'on' ? await isCurrent(io, root) : undefined };
}

async function isCurrent({ host }: Io, root: string): Promise<boolean | undefined> {
  try {
    const kept = (await readFile(basePath(root), 'utf8')).split('\n', 1)[0] ?? '';
    // The first line does not say whether another firewall was active.
    const base = await gatherBase(host, root, false);
    return [false, true].some((beside) => kept.endsWith(` ${renderBase({ ...base, beside }).digest}`));
  } catch {
    return undefined;
  }
}

/** Whether the rules are loaded, confirmed, and match the present configuration. */
export function checkFirewall(facts: FirewallFacts | undefined): Check[] {
  const area: Area = areaOf('host');
  if (facts === undefined) return [];
  switch (facts.state) {
    case 'off':
      return [area.ok('firewall', 'off: every port is open (`sudo bornemisza firewall on` closes them)')];
    case 'missing':
      return [
        area.fail(
          'firewall',
          'it should be on, but no rule is loaded: every port is open',
          'systemctl status bornemisza-firewall, then sudo bornemisza firewall on',
        ),
      ];
    case 'trial':
      return [
        area.warn(
          'firewall',
          'the rules are on trial and not confirmed: they will be removed soon',
          'sudo bornemisza firewall confirm, in a new ssh connection',
        ),
      ];
    case 'on':
      return [onCheck(facts, area)];
  }
}

function onCheck({ apps, dbs, current, refusedPackets }: FirewallFacts, area: Area): Check {
  const letIn = `${apps.length} app nodes and ${dbs.length} db nodes allowed, ${refusedPackets} packets refused`;
  if (current !== false) return area.ok('firewall', `on: ${letIn}`);
  return area.warn(
    'firewall',
    'ports, roles, sshd or BIRD’s neighbours of this host changed since the rules were made',
    'sudo bornemisza firewall on, then confirm',
  );
}
