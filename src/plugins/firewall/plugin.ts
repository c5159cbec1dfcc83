import type { Finding, Plugin, PluginReport, Rollback } from '../contract.ts';
import { applyFirewall, restoreList } from './apply.ts';
import type { FirewallDesired } from './desired.ts';
import { type FirewallObserved, type FirewallPaths, observeFirewall } from './observe.ts';
import { type FirewallChange, planFirewall, SILENT_AFTER_S } from './plan.ts';

/**
 * Writes the list of members for the helper, which has the right to change the rules. It writes one file, even if the
 * firewall is off, so that `bornemisza firewall on` finds it.
 */
export class FirewallPlugin
  implements Plugin<FirewallDesired, FirewallObserved, FirewallChange, string | undefined>
{
  readonly name = 'firewall';
  readonly evidence = 'journalctl -u bornemisza-firewall';
  readonly #paths: FirewallPaths;

  /** The list as it was. */
  readonly rollback: Rollback<FirewallChange, string | undefined> = {
    checkpoint: async () => (await this.observe()).list,
    undo: (list) => restoreList(list, this.#paths),
  };

  constructor(paths: FirewallPaths) {
    this.#paths = paths;
  }

  observe(): Promise<FirewallObserved> {
    return observeFirewall(this.#paths);
  }

  plan(desired: FirewallDesired, observed: FirewallObserved): FirewallChange[] {
    return planFirewall(desired, observed);
  }

  status(_: FirewallDesired, { on, helper }: FirewallObserved): PluginReport {
    if (!on) return { seen: 'off: every port is open', alarms: [] };
    const members = helper === undefined ? 0 : helper.apps.length + helper.dbs.length;
    return {
      seen: `on: ${members} members allowed`,
      alarms:
        helper?.outcome === 'refused' ? [REFUSED] : (helper?.ageS ?? 0) >= SILENT_AFTER_S ? [SILENT] : [],
    };
  }

  apply(
    changes: readonly FirewallChange[],
    signal: AbortSignal,
    made: (change: FirewallChange) => void,
  ): Promise<void> {
    return applyFirewall(changes, this.#paths, signal, made);
  }

  async close(): Promise<void> {}
}

const SILENT: Finding = {
  code: 'firewall-silent',
  message: `the helper of the firewall did not report for ${SILENT_AFTER_S} s: the rules do not follow the members`,
  next: 'systemctl restart bornemisza-firewall; see why it ended: journalctl -u bornemisza-firewall',
};
const REFUSED: Finding = {
  code: 'firewall-refused',
  message: 'the kernel refuses the rules of the firewall; the old rules stay',
  next: 'run `sudo bornemisza firewall on` again; `journalctl -u bornemisza-firewall` names the line',
};
