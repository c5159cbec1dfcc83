import type { Member, MembershipView, NodeRecord } from '../../../src/daemon/membership/types.ts';
import { SMALL } from '../wire/samples.ts';

/** A member that is alive and has said nothing special. */
export function member(
  name: string,
  facts: Partial<Omit<Member, 'record'>> & { readonly record?: Partial<NodeRecord> } = {},
): Member {
  const { record, ...rest } = facts;
  return {
    record: {
      ...SMALL,
      peerId: `12D3KooW${name.replaceAll(/[^a-z0-9]/g, '')}`,
      name,
      role: name.endsWith('/db') ? 'db' : 'app',
      address: '10.0.0.11',
      incarnation: 7,
      ...record,
    },
    state: 'alive',
    sinceMs: 0,
    heardMs: 0,
    restarting: false,
    self: false,
    accusers: [],
    ...rest,
  };
}

export function viewOf(members: readonly Member[], synced = true): MembershipView {
  const self = members.find((each) => each.self) ?? members[0];
  return { version: 1, self: self?.record.peerId ?? '', synced, members };
}
