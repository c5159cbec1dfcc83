import type { Finding } from '../contract.ts';
import type { DnsDesired, RecordType } from './desired.ts';
import { challengesIn, type FoundSet, keyOf, planDns, setsOf, type ZoneRecord } from './plan.ts';
import type { DnsShown, ShownSet } from './shape.ts';

/** Pure. */
export function shownRecords(
  desired: DnsDesired,
  zone: readonly ZoneRecord[],
  silent: ReadonlySet<string>,
): DnsShown {
  const found = new Map(setsOf(zone).map((set) => [keyOf(set), set]));
  const wanted = new Map(desired.sets.map((set) => [keyOf(set), set]));
  const left = [...found.values()].filter((set) => set.owner === desired.owner && !wanted.has(keyOf(set)));
  const rows = [...desired.sets, ...left].map(({ name, type }): ShownSet => {
    const set = found.get(keyOf({ name, type }));
    return {
      ...{ name, type },
      wanted: [...(wanted.get(keyOf({ name, type }))?.values ?? [])].sort(),
      present: (set?.records ?? []).map(({ value }) => value).sort(),
      whose: set === undefined ? 'none' : whoseIs(set, desired.owner),
    };
  });
  const { findings } = planDns(desired, zone, silent);
  const sets = [...rows, ...challengeRows(desired, zone)];
  return { zone: desired.zone, writer: desired.why, sets, findings };
}

/** Names with an answer for a CA, wanted or left. */
function challengeRows({ challenges, owner }: DnsDesired, zone: readonly ZoneRecord[]): ShownSet[] {
  const there = challengesIn(zone);
  const left = there.filter((each) => each.owner === owner);
  return [...new Set([...challenges, ...left].map(({ name }) => name))].map((name) => {
    const present = there.filter((each) => each.name === name);
    const ours = present.some((each) => each.owner === owner);
    return {
      ...{ name, type: 'TXT' },
      wanted: challenges.flatMap((each) => (each.name === name ? [each.value] : [])).sort(),
      present: present.map(({ value }) => value).sort(),
      whose: ours ? 'ours' : present.length === 0 ? 'none' : 'yours',
    };
  });
}

function whoseIs({ owner, records }: FoundSet, ours: string): ShownSet['whose'] {
  if (owner === ours) return 'ours';
  return records.every((each) => each.owner === undefined) ? 'yours' : 'another';
}

/** A set that changes its owner; its values stay. */
export interface MarkChange {
  readonly name: string;
  readonly type: RecordType;
  readonly ttlS: number;
  /** Ids of its records, if the provider has ids. */
  readonly ids: readonly string[];
  /** The owner by its mark, before and after; undefined: the founder. */
  readonly from: string | undefined;
  readonly to: string | undefined;
}

/**
 * Decides on the request of an operator. Pure.
 *
 * @returns undefined: nothing to do; or why it is refused
 */
export function markChange(
  verb: 'adopt' | 'release',
  { name, type }: { readonly name: string; readonly type: RecordType },
  desired: Pick<DnsDesired, 'owner' | 'sets' | 'zone'>,
  zone: readonly ZoneRecord[],
): MarkChange | Finding | undefined {
  const set = setsOf(zone).find((each) => keyOf(each) === keyOf({ name, type }));
  if (set === undefined)
    return {
      code: 'dns-set-unknown',
      message: `${name} has no ${type} record in ${desired.zone}`,
      next: 'see `bornemisza dns show`: it lists the records that are wanted or ours',
    };
  const { owner, records } = set;
  const change = { name, type, ttlS: records[0]?.ttlS ?? 60, ids: records.flatMap(({ id }) => id ?? []) };
  if (verb === 'release')
    return owner === desired.owner ? { ...change, from: owner, to: undefined } : undefined;
  if (owner === desired.owner) return undefined;
  // With our mark but not wanted, the next run would delete it.
  if (!desired.sets.some((each) => keyOf(each) === keyOf(set)))
    return {
      code: 'dns-not-wanted',
      message: `the cluster does not want ${name} ${type}, so with our mark it would be deleted`,
      next: `add ${name} to dns.names first, or keep the record as it is`,
    };
  return { ...change, from: owner, to: desired.owner };
}

/** Whether it is refused. */
export function isRefusal(judged: MarkChange | Finding): judged is Finding {
  return 'code' in judged;
}
