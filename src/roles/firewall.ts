import type { FirewallDesired } from '../plugins/firewall/desired.ts';
import type { EffectiveView } from './effective.ts';

/** The limit of the helper; a cluster has tens of members. */
const MOST_MEMBERS = 512;

/**
 * Who may reach the member ports: all admitted members that have not left. A dead member stays, and before the first
 * sync no member is removed. An address outside the private network is left out, as the helper would refuse the whole
 * list because of it.
 */
export function firewallOf(view: EffectiveView, privateNetwork: string): FirewallDesired {
  const members = [...view.members, ...view.namesakes]
    .filter(({ state, record }) => state !== 'left' && isInside(record.address, privateNetwork))
    .slice(0, MOST_MEMBERS);
  const of = (role: string): string[] =>
    [
      ...new Set(members.filter(({ record }) => record.role === role).map(({ record }) => record.address)),
    ].sort();
  return {
    apps: of('app'),
    dbs: of('db'),
    keep: !view.synced,
    why: view.synced ? 'follows the members' : 'no member is removed before the first sync',
  };
}

function isInside(address: string, network: string): boolean {
  const [base = '', bits = '32'] = network.split('/');
  const [one, other] = [numberOf(address), numberOf(base)];
  if (one === undefined || other === undefined) return false;
  const size = 2 ** (32 - Number(bits));
  return Math.floor(one / size) === Math.floor(other / size);
}

function numberOf(address: string): number | undefined {
  const parts = address.split('.').map(Number);
  if (parts.length !== 4 || parts.some((part) => !(part >= 0 && part <= 255))) return undefined;
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}
