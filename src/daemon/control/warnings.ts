import type { Identity } from '../identity/identity.ts';
import type { MemberState } from '../membership/types.ts';
import { TELLER_TAG } from '../notification/policy.ts';
import type { MemberRow, StatusAnswer, Warning } from './api.ts';

/** The notes of `status` about the members. */

/** A certificate this close to its end gets a warning: its renewal has then failed for weeks. */
const CERTIFICATE_WARNING_MS = 14 * 24 * 3_600_000;

export function countsOf(rows: readonly MemberRow[]): StatusAnswer['counts'] {
  const counts: Record<MemberState | 'absent', number> = {
    alive: 0,
    suspect: 0,
    dead: 0,
    leaving: 0,
    left: 0,
    absent: 0,
  };
  for (const each of rows) counts[each.state] += 1;
  return counts;
}

/** A damaged authority is reported until `authority add` has repaired it. */
export function authorityDamage({
  authority,
  warnings,
}: Pick<Identity, 'authority' | 'warnings'>): Warning[] {
  if (authority !== undefined) return [];
  return warnings
    .filter(({ code }) => code === 'authority-damaged')
    .map(({ code, message, next }) => ({ code, message, next }));
}

/** Two authorities admitted the same name or address, or a compromised one did. */
export function namesakeWarnings(
  namesakes: readonly (Pick<MemberRow, 'reason'> & {
    readonly record: Pick<MemberRow, 'name' | 'peerId' | 'role'>;
  })[],
): Warning[] {
  return namesakes.map(({ record: { name, peerId, role }, reason }) => ({
    code: 'name-shared',
    message: `${name}, ${peerId}, ${reason}`,
    next:
      `on an authority: bornemisza remove ${peerId}${role === 'db' ? ' --dead' : ''}; then join that machine ` +
      'again with a new token and a host name and address of its own',
  }));
}

/** Things that an operator should know although nothing fails. */
export function warningsOf(rows: readonly MemberRow[], wallMs: number): Warning[] {
  const warnings: Warning[] = [];
  const present = rows.filter((each) => each.state !== 'left');
  warnings.push(...authorityWarnings(present));
  for (const role of ['app', 'db'] as const) {
    const digests = new Set(
      present
        .filter((each) => each.role === role && each.settingsDigest !== '')
        .map((each) => each.settingsDigest),
    );
    if (digests.size > 1)
      warnings.push({
        code: 'settings-differ',
        message: `the cluster-wide settings in /etc/bornemisza/${role}.toml differ between ${role} nodes`,
        next: `compare /etc/bornemisza/${role}.toml of the ${role} nodes`,
      });
  }
  const versions = new Set(present.filter((each) => each.version !== '').map((each) => each.version));
  if (versions.size > 1)
    warnings.push({
      code: 'versions-differ',
      message: `versions differ: ${[...versions].sort().join(', ')}`,
      next: 'bornemisza upgrade status',
    });
  for (const each of present) {
    const leftMs = Date.parse(each.certificateNotAfter) - wallMs;
    if (leftMs < CERTIFICATE_WARNING_MS) {
      warnings.push({
        code: 'certificate-ending',
        message: `the certificate of ${each.name} ends ${each.certificateNotAfter.slice(0, 10)}`,
        next: `check whether ${each.name} reaches an authority: run \`sudo bornemisza doctor\` on it`,
      });
    }
  }
  const tellers = present.filter(({ tags }) => tags[TELLER_TAG] !== undefined);
  const [only] = tellers;
  if (only !== undefined && tellers.length === 1 && present.length > 1)
    warnings.push({
      code: 'one-notifier',
      message: `only ${only.name} sends notifications; if it dies, none is sent`,
      next: 'add [notify] to the configuration of a second node',
    });
  return warnings;
}

/** With three or more nodes, one lost disk must not keep the others from admitting, removing and renewing. */
function authorityWarnings(present: readonly MemberRow[]): Warning[] {
  const authorities = present.filter((each) => each.authority);
  const names = authorities.map((each) => each.name).join(', ');
  const add = 'run `sudo bornemisza authority add` on a node, with the recovery bundle';
  if (authorities.length > 0 && !authorities.some((each) => each.state === 'alive' || each.self))
    return [
      {
        code: 'no-authority-alive',
        message: `no authority is alive (${names}): nobody can be admitted or removed`,
        next: `start it, or ${add}`,
      },
    ];
  if (present.length < 3 || authorities.length >= 2) return [];
  if (authorities.length === 0)
    return [
      {
        code: 'no-authority',
        message: 'no node is an authority: nobody can be admitted or removed',
        next: add,
      },
    ];
  return [
    {
      code: 'one-authority',
      message: `${names} is the only authority: without it nobody can be admitted or removed`,
      next: `to have a second one, ${add}`,
    },
  ];
}

/** This node and its cluster in one line, as `systemctl status` shows it. */
export function statusText(
  { name, health, maintenance, synced }: Pick<StatusAnswer, 'name' | 'health' | 'maintenance' | 'synced'>,
  rows: readonly MemberRow[],
): string {
  const { alive, dead, suspect } = countsOf(rows);
  const gone = dead + suspect;
  return (
    `${name} ${health}${maintenance ? ' (maintenance)' : ''}, ${alive} ` +
    `alive${gone > 0 ? `, ${gone} missing` : ''}${synced ? '' : ', waiting for the first peer'}`
  );
}
