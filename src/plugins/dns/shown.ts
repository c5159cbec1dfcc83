import type { Finding } from '../contract.ts';
import type { DnsDesired, RecordType } from './desired.ts';
import { type FoundSet, keyOf, planDns, setsOf, type ZoneRecord } from './plan.ts';

/** What people are shown of the records: one row for each set that is wanted, or bears our mark. */
export interface ShownSet {
  readonly name: string;
  readonly type: RecordType;
  readonly wanted: readonly string[];
  readonly present: readonly string[];
  /**
   * `ours`: it bears our mark. `yours`: it has none and is left as it is. `another`: it bears another cluster's, or
   * several. `none`: it is not there.
   */
  readonly whose: 'ours' | 'yours' | 'another' | 'none';
}

export interface DnsShown {
  readonly zone: string;
  /** Who writes, in words. */
  readonly writer: string;
  readonly sets: readonly ShownSet[];
  readonly findings: readonly Finding[];
}

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
  return { zone: desired.zone, writer: desired.why, sets: rows, findings };
}

function whoseIs({ owner, records }: FoundSet, ours: string): ShownSet['whose'] {
  if (owner === ours) return 'ours';
  return records.every((each) => each.owner === undefined) ? 'yours' : 'another';
}

/** A set that changes hands; its values stay. */
export interface MarkChange {
  readonly name: string;
  readonly type: RecordType;
  readonly ttlS: number;
  /** Of its records, where the provider names them. */
  readonly ids: readonly string[];
  /** Whose mark it has and is to have; undefined: the founder's. */
  readonly from: string | undefined;
  readonly to: string | undefined;
}

/**
 * What an operator asks for, judged. Pure.
 *
 * @returns undefined: it is so already; or why it is refused
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
      next: '`bornemisza dns show` lists those that are wanted or ours',
    };
  const { owner, records } = set;
  const change = { name, type, ttlS: records[0]?.ttlS ?? 60, ids: records.flatMap(({ id }) => id ?? []) };
  if (verb === 'release')
    return owner === desired.owner ? { ...change, from: owner, to: undefined } : undefined;
  if (owner === desired.owner) return undefined;
  // With our mark and no wish for it, the next look would delete it.
  if (!desired.sets.some((each) => keyOf(each) === keyOf(set)))
    return {
      code: 'dns-not-wanted',
      message: `${name} ${type} is not among the records that the cluster keeps, so with our mark it would be deleted`,
      next: `put ${name} into dns.names first, or leave the record as it is: it is yours`,
    };
  return { ...change, from: owner, to: desired.owner };
}

/** Whether it is refused. */
export function isRefusal(judged: MarkChange | Finding): judged is Finding {
  return 'code' in judged;
}
