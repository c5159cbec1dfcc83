import type { MemberRow, Warning } from '../../control/api.ts';
import type { RootCertificate } from '../keys/chain.ts';
import { rootWord, type Succession } from './succession.ts';
import type { Role } from '../../membership/types.ts';

/**
 * The progress of a member while the root CA is being replaced, in a tag of its record: it `knows` the new root when
 * all of its programs trust it, and `uses` it when all of them show a chain that ends in it and none shows another one.
 * No member presents such a chain before all reachable members know the root.
 */
export const ROOT_TAG = 'root';

/** Erlang reads its files again within two minutes (ssl_pem_cache_clean in ssl(6)); the rest needs some seconds. */
const ERLANG_FOLLOWS_MS = 130_000;
/**
 * An old process of HAProxy, after a reload, presents and trusts the certificates of its start. After this time it has
 * only feeds, whose connections stay open: idle clients have had their last answer (`timeout http-keep-alive` is 60 s).
 */
const HAPROXY_FOLLOWS_MS = 75_000;

/** Whether the programs of a node use only the certificates that they got `toldForMs` ago. */
export function programsFollow(role: Role, toldForMs: number, hasOldHaproxies: boolean): boolean {
  if (role === 'db' && toldForMs < ERLANG_FOLLOWS_MS) return false;
  return !hasOldHaproxies || toldForMs >= HAPROXY_FOLLOWS_MS;
}

export function rootTag(to: RootCertificate, uses: boolean): string {
  return `${rootWord(to)} ${uses ? USES : KNOWS}`;
}

const KNOWS = 'knows';
const USES = 'uses';

/** Reachable members that would refuse a chain of the new root. */
export function unaware(rows: readonly MemberRow[], to: RootCertificate): string[] {
  return lacking(rows, [rootTag(to, false), rootTag(to, true)]);
}

/** Reachable members that would be refused if the old root ended now. */
export function notYetUsing(rows: readonly MemberRow[], to: RootCertificate): string[] {
  return lacking(rows, [rootTag(to, true)]);
}

/** Absent members switch when they come back: the signature of the old root is kept for them. */
function lacking(rows: readonly MemberRow[], tags: readonly string[]): string[] {
  const here = rows.filter(({ state }) => state !== 'dead' && state !== 'left' && state !== 'absent');
  return here.filter((each) => !tags.includes(each.tags[ROOT_TAG] ?? '')).map(({ name }) => name);
}

export const RIVAL_NEXT =
  'if you did not make both, somebody has the key of the old root: see “Another root” in docs/operations.md';

export function rootWarnings(
  change: Succession | undefined,
  rivals: readonly string[],
  rows: readonly MemberRow[],
): Warning[] {
  const about = rivals.map((message) => ({ code: 'rival-root', message, next: RIVAL_NEXT }));
  if (change === undefined) return about;
  const waiting = notYetUsing(rows, change.to);
  const begun =
    `the root is being replaced by ${rootWord(change.to)} since ` +
    new Date(change.madeAtMs).toISOString().slice(0, 10);
  return [
    ...about,
    waiting.length > 0
      ? {
          code: 'root-not-used-yet',
          message: `${begun}: ${waiting.join(', ')} does not use the new one yet`,
          next: 'wait; if one is gone for good: `bornemisza remove`',
        }
      : {
          code: 'root-ready-to-end',
          message: `${begun}: all reachable members use the new one`,
          next: 'end the old one: `sudo bornemisza authority rotate-root --end`, with the new bundle',
        },
  ];
}
