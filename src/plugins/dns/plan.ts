import type { Finding, PlannedChange } from '../contract.ts';
import type { DnsDesired, DnsSet, RecordType } from './desired.ts';

/** One record of the zone at the provider. */
export interface ZoneRecord {
  readonly name: string;
  readonly type: string;
  readonly value: string;
  readonly ttlS: number;
  /** The mark of a cluster; undefined: the founder's record. */
  readonly owner: string | undefined;
  /** The provider's own name for it, where it has one. */
  readonly id?: string | undefined;
}

/**
 * `create` makes a set with its mark, only if there is no such record. `add` and `remove` change a set with our mark.
 */
export interface DnsChange extends PlannedChange {
  readonly kind: 'create' | 'add' | 'remove';
  readonly name: string;
  /** `TXT`: answers for a CA, each value with a mark of its own. `add` and `remove` only. */
  readonly type: RecordType | 'TXT';
  readonly values: readonly string[];
  readonly ttlS: number;
  /** The last values are removed, and the mark with them. `remove` only. */
  readonly last: boolean;
  /** Ids of the records that `remove` deletes, if the provider has ids. */
  readonly ids: readonly string[];
}

interface DnsPlan {
  readonly changes: readonly DnsChange[];
  readonly findings: readonly Finding[];
}

const OURS: readonly string[] = ['A', 'AAAA', 'SRV'];
/** A batch that a provider accepts whole; the rest follows in the next run. */
const MOST_CHANGES = 50;

/**
 * The difference between the wanted records and the zone. Pure. Records without our mark are never changed. At one name
 * and type values are added first; only a later run, which has read them back, removes others.
 *
 * @param silent addresses whose edge does not answer
 */
export function planDns(
  desired: Pick<DnsDesired, 'owner' | 'sets' | 'challenges' | 'hold' | 'doubtful'>,
  zone: readonly ZoneRecord[],
  silent: ReadonlySet<string> = new Set(),
): DnsPlan {
  const changes: DnsChange[] = [];
  const findings: Finding[] = [];
  planChallenges(desired, zone, changes, findings);
  const wanted = new Map(desired.sets.map((set) => [keyOf(set), set]));
  const gone = (value: string): boolean => desired.doubtful.includes(value) && silent.has(value);
  for (const set of desired.sets) {
    const values = set.guard === 'serves' ? set.values.filter((each) => !gone(each)) : set.values;
    planSet({ ...set, values }, desired, zone, changes, findings);
  }
  for (const left of setsOf(zone).filter((each) => !wanted.has(keyOf(each)))) {
    if (left.owner !== desired.owner || desired.hold !== undefined) continue;
    changes.push(removal(left, left.records, true, 'no member has this name now'));
  }
  return { changes: changes.slice(0, MOST_CHANGES), findings };
}

/** A resolver stores a value no longer than that; the next order has others. */
const CHALLENGE_TTL_S = 60;
/** RFC 8555 section 8.4. */
const CHALLENGE_NAME = /^_acme-challenge\./;

/** The text of a TXT record, which a provider may give in quotes. */
export const unquoted = (text: string): string => text.replace(/^"(.*)"$/, '$1');

/** The values at the names that a CA asks for, without quotes. */
export function challengesIn(zone: readonly ZoneRecord[]): ZoneRecord[] {
  return zone
    .filter(({ name, type }) => type === 'TXT' && CHALLENGE_NAME.test(name))
    .map((each) => ({ ...each, value: unquoted(each.value) }));
}

/**
 * Each value has an owner of its own: others may stand at the same name. None is removed while an order is open, as the
 * other side of a partition may have one open too; a CA accepts any value that fits.
 */
function planChallenges(
  { owner, challenges }: Pick<DnsDesired, 'owner' | 'challenges'>,
  zone: readonly ZoneRecord[],
  changes: DnsChange[],
  findings: Finding[],
): void {
  const there = challengesIn(zone);
  const shared = { type: 'TXT', last: false, step: 'once' } as const;
  // All values at a name share a TTL: an addition with another one would change the founder's (RFC 2181 section 5.2).
  const ttlAt = (name: string): number => there.find((each) => each.name === name)?.ttlS ?? CHALLENGE_TTL_S;
  for (const [name, wanted] of Map.groupBy(challenges, (each) => each.name)) {
    const missing = wanted
      .map(({ value }) => value)
      .filter((value) => !there.some((each) => each.name === name && each.value === value));
    if (missing.length === 0) continue;
    if (zone.some((each) => each.name === name && each.type === 'CNAME')) findings.push(aliased(name));
    else {
      const summary = summaryOf({ name, type: 'TXT' }, `+${missing.join(' +')} (for the CA)`);
      changes.push({ ...shared, kind: 'add', name, values: missing, ttlS: ttlAt(name), ids: [], summary });
    }
  }
  if (challenges.length > 0) return;
  const left = there.filter((each) => each.owner === owner);
  for (const [name, records] of Map.groupBy(left, (each) => each.name)) {
    const values = records.map(({ value }) => value).sort();
    const summary = summaryOf({ name, type: 'TXT' }, `-${values.join(' -')} (no order is open)`);
    changes.push({
      ...{ ...shared, kind: 'remove', name, values, ttlS: ttlAt(name), summary },
      ids: records.flatMap(({ id }) => id ?? []),
    });
  }
}

function aliased(name: string): Finding {
  return {
    code: 'dns-foreign',
    message: `${name} has a CNAME record, so the answer for the CA cannot be written; no certificate is issued`,
    next: `delete the CNAME of ${name}; or, without wildcards, set certificates.challenge = "http-01"`,
  };
}

function planSet(
  set: DnsSet,
  { owner, hold }: Pick<DnsDesired, 'owner' | 'hold'>,
  zone: readonly ZoneRecord[],
  changes: DnsChange[],
  findings: Finding[],
): void {
  const values = [...new Set(set.values)].sort();
  const found = setsOf(zone).find((each) => keyOf(each) === keyOf(set));
  const alias = zone.find(({ name, type }) => name === set.name && type === 'CNAME');
  if (found === undefined) {
    if (values.length === 0) return;
    if (alias !== undefined) findings.push(foreign(set, 'CNAME'));
    else changes.push({ ...facts(set, 'create', values), summary: summaryOf(set, `+${values.join(' +')}`) });
    return;
  }
  const there = found.records.map(({ value }) => value);
  const missing = values.filter((value) => !there.includes(value));
  const surplus = found.records.filter(({ value }) => !values.includes(value));
  if (missing.length === 0 && surplus.length === 0) return;
  // A founder's set with the wanted values was handled above: it stays the founder's.
  if (found.owner !== owner) return void findings.push(foreign(set, set.type));
  if (missing.length > 0) {
    changes.push({ ...facts(set, 'add', missing), summary: summaryOf(set, `+${missing.join(' +')}`) });
    return;
  }
  const empties = surplus.length === found.records.length;
  if (hold !== undefined) findings.push(held(set, surplus, hold));
  else if (empties && set.guard === 'serves') findings.push(held(set, surplus, 'nothing else serves'));
  else changes.push(removal(found, surplus, empties, 'no longer wanted'));
}

export interface FoundSet {
  readonly name: string;
  readonly type: RecordType;
  readonly records: readonly ZoneRecord[];
  /**
   * Undefined if a record has no mark, or several different marks: then it is the founder's.
   */
  readonly owner: string | undefined;
}

export function setsOf(zone: readonly ZoneRecord[]): FoundSet[] {
  const groups = Map.groupBy(
    zone.filter(({ type }) => OURS.includes(type)),
    keyOf,
  );
  return [...groups.values()].flatMap((records) => {
    const [first] = records;
    if (first === undefined) return [];
    const owners = new Set(records.map(({ owner }) => owner));
    const owner = owners.size === 1 ? first.owner : undefined;
    return [{ name: first.name, type: first.type as RecordType, records, owner }];
  });
}

export const keyOf = ({ name, type }: { readonly name: string; readonly type: string }): string =>
  `${name} ${type}`;

function facts(set: DnsSet, kind: 'create' | 'add', values: readonly string[]): Omit<DnsChange, 'summary'> {
  return { kind, name: set.name, type: set.type, values, ttlS: set.ttlS, last: false, ids: [], step: 'once' };
}

function removal(
  { name, type }: FoundSet,
  records: readonly ZoneRecord[],
  last: boolean,
  why: string,
): DnsChange {
  const values = records.map(({ value }) => value);
  return {
    kind: 'remove',
    name,
    type,
    values,
    ttlS: records[0]?.ttlS ?? 0,
    last,
    ids: records.flatMap(({ id }) => id ?? []),
    step: 'once',
    summary: `${summaryOf({ name, type }, `-${values.join(' -')}`)} (${why})`,
  };
}

function summaryOf({ name, type }: { readonly name: string; readonly type: string }, what: string): string {
  return `${name} ${type}: ${what}`;
}

function foreign({ name, type }: DnsSet, stands: string): Finding {
  return {
    code: 'dns-foreign',
    message: `${name} has a ${stands} record without our mark; ${name} ${type} is not managed`,
    next:
      stands === 'CNAME'
        ? `remove ${name} from dns.names, or delete its CNAME record at the provider`
        : `bornemisza dns adopt ${name} ${type}, or remove ${name} from dns.names`,
  };
}

function held({ name, type }: DnsSet, surplus: readonly ZoneRecord[], why: string): Finding {
  return {
    code: 'dns-held',
    message: `${surplus.map(({ value }) => value).join(', ')} stays in ${name} ${type}: ${why}`,
    next: 'see `bornemisza status`; the records follow when the guard is released',
  };
}
