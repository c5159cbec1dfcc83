import { closest, distance } from 'fastest-levenshtein';
import { type MemberRow, type MembersAnswer, sharedInWords } from '../daemon/control/api.ts';
import { CliFailure, EXIT } from './failure.ts';

/**
 * The member that an operator means by HOST/ROLE, HOST, PeerId or address.
 *
 * @throws CliFailure `node-unknown` (with the nearest name), `node-ambiguous`, or `name-shared` if two machines were
 *   admitted under the name
 */
export function findMember(members: MembersAnswer['members'], wanted: string): MemberRow {
  const found = matches(members, wanted);
  const [first, second] = found;
  if (first !== undefined && second === undefined) return first;
  if (first !== undefined) {
    const names = [...new Set(found.map((each) => each.name))];
    if (names.length === 1)
      throw new CliFailure(
        EXIT.usage,
        'name-shared',
        sharedInWords(found),
        'name the PeerId of the one that you mean',
      );
    throw new CliFailure(
      EXIT.usage,
      'node-ambiguous',
      `${shown(wanted)} can be ${names.join(' or ')}`,
      `choose one, e.g. ${names[0]}`,
    );
  }
  const near = nearest(
    wanted,
    members.flatMap((each) => [each.name, hostOf(each.name)]),
  );
  throw new CliFailure(
    EXIT.failure,
    'node-unknown',
    `there is no node ${shown(wanted)} in this cluster${near === undefined ? '' : `; did you mean ${near}?`}`,
    'list all nodes: bornemisza members',
  );
}

function matches(members: MembersAnswer['members'], wanted: string): MemberRow[] {
  for (const key of [wanted, wanted.toLowerCase()]) {
    const exact = members.filter((each) => each.name === key || each.peerId === key);
    if (exact.length > 0) return exact;
    const loose = members.filter((each) => hostOf(each.name) === key || each.address.split(':')[0] === key);
    if (loose.length > 0) return loose;
  }
  return [];
}

/** The nearest known word, if it is near enough to be a typing mistake. */
function nearest(wanted: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined;
  const near = closest(wanted, [...known]);
  return distance(wanted, near) <= Math.max(2, Math.floor(near.length / 3)) ? near : undefined;
}

/** Whether the report of the member is current; of one that is not reachable only its last report is known. */
export function isHeard({ state }: Pick<MemberRow, 'state'>): boolean {
  return state === 'alive' || state === 'suspect' || state === 'leaving';
}

export function hostOf(name: string): string {
  return name.split('/')[0] ?? name;
}

function shown(text: string): string {
  return /^[\w./:-]+$/.test(text) ? text : JSON.stringify(text);
}
