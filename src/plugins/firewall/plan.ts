import type { PlannedChange } from '../contract.ts';
import type { FirewallDesired } from './desired.ts';
import type { FirewallHelper, FirewallObserved } from './observe.ts';

export type FirewallChange = PlannedChange &
  (
    | { readonly kind: 'list'; readonly content: string }
    /** The helper has not loaded these members yet. */
    | { readonly kind: 'load'; readonly apps: readonly string[]; readonly dbs: readonly string[] }
  );

/** The helper checks every 0.7 s and reports every 7 s: four reports in a row are missing. */
export const SILENT_AFTER_S = 30;

/** The difference between the members and the addresses that the firewall allows. Pure. */
export function planFirewall(desired: FirewallDesired, observed: FirewallObserved): FirewallChange[] {
  const before = parseList(observed.list ?? '');
  const apps = desired.keep ? merged(desired.apps, before.apps) : desired.apps;
  const dbs = desired.keep ? merged(desired.dbs, before.dbs) : desired.dbs;
  const content = renderList(apps, dbs);
  const changes: FirewallChange[] = [];
  if (content !== observed.list) {
    const summary = `members for the firewall: ${difference(before, { apps, dbs })} (${desired.why})`;
    changes.push({ kind: 'list', content, summary });
  }
  // A list without former members is loaded in the same way; only the kernel's table could prove it.
  if (observed.on && (changes.length > 0 || !inForce(observed.helper, apps, dbs)))
    changes.push({ kind: 'load', apps, dbs, summary: 'the firewall loads the list of members' });
  return changes;
}

/** The other role on this host adds members of its own: ours must be among those that the helper has. */
export function inForce(
  helper: FirewallHelper | undefined,
  apps: readonly string[],
  dbs: readonly string[],
): boolean {
  if (helper === undefined || helper.outcome !== 'loaded' || helper.ageS >= SILENT_AFTER_S) return false;
  return apps.every((each) => helper.apps.includes(each)) && dbs.every((each) => helper.dbs.includes(each));
}

function renderList(apps: readonly string[], dbs: readonly string[]): string {
  const lines = [...apps.map((address) => `app ${address}`), ...dbs.map((address) => `db ${address}`)];
  return `${lines.join('\n')}\n`;
}

function parseList(text: string): { readonly apps: readonly string[]; readonly dbs: readonly string[] } {
  const lines = text.split('\n');
  const of = (role: string): string[] =>
    lines.filter((line) => line.startsWith(`${role} `)).map((line) => line.slice(role.length + 1));
  return { apps: of('app'), dbs: of('db') };
}

function merged(one: readonly string[], other: readonly string[]): string[] {
  return [...new Set([...one, ...other])].sort();
}

function difference(before: ReturnType<typeof parseList>, after: ReturnType<typeof parseList>): string {
  const words = (['apps', 'dbs'] as const).flatMap((set) => [
    ...after[set].filter((each) => !before[set].includes(each)).map((each) => `+${each}`),
    ...before[set].filter((each) => !after[set].includes(each)).map((each) => `-${each}`),
  ]);
  return words.length === 0 ? 'written again' : [...new Set(words)].join(' ');
}
