import { type MemberRow, type RemoveRequest, type Rotation, sharedInWords } from './api.ts';
import type { Role } from '../membership/types.ts';
import { OperatorError } from '../errors.ts';

/** These guards refuse before anything is announced; after the announcement no guard holds. A flag overrides each. */

/** The members of each role that get traffic. */
export interface RoleView {
  readonly members: readonly {
    readonly self: boolean;
    readonly rotation: Rotation;
    readonly record: { readonly role: Role };
  }[];
}

/** @throws OperatorError `guard-last-of-role` if this node is the last of its role in rotation */
export function mustNotBeLast(
  { name, role }: Pick<MemberRow, 'name' | 'role'>,
  { members }: RoleView,
  what: string,
): void {
  const others = members.filter((each) => !each.self && each.record.role === role && each.rotation === 'in');
  if (others.length > 0) return;
  throw new OperatorError(
    'guard-last-of-role',
    `${name} is the last ${role} node that gets traffic: after ${what} there would be none`,
    `first bring another ${role} node into traffic, or add --force`,
  );
}

/** @throws OperatorError `guard-last-authority` */
export function mustNotBeLastAuthority(rows: readonly MemberRow[], name: string): void {
  if (!isLastAuthority(rows, name)) return;
  throw new OperatorError(
    'guard-last-authority',
    `${name} is the last authority that is alive: without it nobody can be admitted, removed or renewed`,
    'run `sudo bornemisza authority add` on a node that stays, with the recovery bundle, or add --force',
  );
}

/** Whether no other authority that is alive and stays would be left without this one. */
export function isLastAuthority(rows: readonly MemberRow[], name: string): boolean {
  const others = rows.filter((each) => each.name !== name && each.state !== 'left');
  const goes = rows.some((each) => each.name === name && each.authority);
  return goes && others.length > 0 && !others.some((each) => each.authority && each.state === 'alive');
}

/** @throws OperatorError `name-shared` if two machines were admitted under the given name */
export function mustBeOne(rows: readonly MemberRow[]): void {
  const two = rows.filter(({ name }) => name === rows[0]?.name);
  if (two.length < 2) return;
  throw new OperatorError(
    'name-shared',
    sharedInWords(two),
    'name the PeerId of the one to remove: bornemisza remove PEERID',
  );
}

/** @throws OperatorError `remove-self`, which no flag overrides, `guard-alive`, `guard-data`, `guard-last-authority` */
export function mustBeRemovable(
  rows: readonly MemberRow[],
  row: MemberRow | undefined,
  { dead, force }: Pick<RemoveRequest, 'dead' | 'force'>,
): void {
  // A node that is not in the list of members: the roster decides.
  if (row === undefined) return;
  if (row.self) {
    throw new OperatorError(
      'remove-self',
      'a node cannot remove itself',
      'run `bornemisza leave` here, or `bornemisza remove` on another node',
    );
  }
  if (row.state === 'alive' && row.rotation === 'in' && force !== true) {
    throw new OperatorError(
      'guard-alive',
      `${row.name} is alive and serving`,
      `run \`bornemisza leave\` on it, or add --force to put it out now`,
    );
  }
  if (row.role === 'db' && row.state !== 'left' && dead !== true) {
    throw new OperatorError(
      'guard-data',
      `${row.name} did not leave: its copies of the data would be lost`,
      'run `bornemisza leave` on it; if the machine is gone for good, add --dead',
    );
  }
  if (force !== true) mustNotBeLastAuthority(rows, row.name);
}
