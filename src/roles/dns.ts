import type { DnsDesired, DnsSet } from '../plugins/dns/desired.ts';
import type { EffectiveMember, EffectiveView } from './effective.ts';

/** Tag of a member: its public addresses, at most one of each family, separated by a blank. */
export const PUBLIC_TAG = 'public';
/** Tag of a node that could read the zone, and so may write it. */
export const DNS_TAG = 'dns';
export const DNS_READY = 'ready';

export interface DnsRoleConfig {
  readonly cluster: string;
  readonly zone: string;
  /** Relative to the zone; `@` is the zone itself. */
  readonly names: readonly string[];
  readonly ttlS: number;
  /** The floating IPs; empty if there are none. */
  readonly floating: readonly string[];
  /** The TXT records that a CA must find while an order is open, as any app node may have written them. */
  readonly challenges: DnsDesired['challenges'];
  /** The names that this node's own configuration has proved by TXT records; others are not written. */
  readonly provedNames: readonly string[];
  /** Whether an address that a member names can be reached from the internet; others are skipped. */
  readonly isPublic: (address: string) => boolean;
}

/**
 * The records of the cluster. The site's names resolve to the floating IPs, or without those to the app nodes. Each
 * host has its own name, and `_app._tcp` and `_db._tcp` name the addresses of members: a node that lost all members
 * finds them there, so dead members keep these.
 */
export function dnsOf(view: EffectiveView, config: DnsRoleConfig): DnsDesired {
  const { zone, ttlS } = config;
  const members = view.members.filter(({ state }) => state !== 'left');
  const publicOf = ({ record }: EffectiveMember): string[] =>
    (record.tags[PUBLIC_TAG] ?? '').split(' ').filter(config.isPublic);
  const set = (
    name: string,
    type: DnsSet['type'],
    values: readonly string[],
    guard: DnsSet['guard'],
  ): DnsSet => ({
    name: name === '@' ? zone : `${name}.${zone}`,
    type,
    values: [...new Set(values)].sort(),
    ttlS,
    guard,
  });
  const serving = config.floating.length > 0 ? config.floating : members.filter(isServing).flatMap(publicOf);
  const hosts = Map.groupBy(members, hostOf);
  const located = [...hosts].flatMap(([host, roles]) => [
    ...both((type, of) => set(host, type, of(roles.flatMap(publicOf)), 'finds')),
    set(
      `internal.${host}`,
      'A',
      roles.map(({ record }) => record.address),
      'finds',
    ),
  ]);
  const services = (['app', 'db'] as const).map((role) =>
    set(
      `_${role}._tcp`,
      'SRV',
      members
        // A node that was admitted and has not reported yet has no port.
        .filter(({ record }) => record.role === role && record.port > 0)
        .map((each) => `1 0 ${each.record.port} internal.${hostOf(each)}.${zone}`),
      'finds',
    ),
  );
  const site = config.names.flatMap((name) =>
    // Visitors without IPv6 need an A record, so that it never becomes empty; a name with an A may lose its last AAAA.
    both((type, of, others) => {
      const guard = type === 'AAAA' && others(serving).length > 0 ? 'finds' : 'serves';
      return set(name, type, of(serving), guard);
    }),
  );
  const first = view.members.find(isWriter);
  const proved = new Set(config.provedNames.map((name) => `_acme-challenge.${name.replace(/^\*\./, '')}`));
  return {
    zone,
    owner: config.cluster,
    writer: view.synced && first?.self === true,
    why: dnsWriter(view),
    sets: [...site, ...located, ...services].filter(
      ({ values, guard }) => values.length > 0 || guard === 'serves',
    ),
    challenges: config.challenges.filter(({ name }) => proved.has(name)),
    doubtful: members.filter(({ rotation }) => rotation === 'unwatched').flatMap(publicOf),
    ...(members.some(({ guard }) => guard === 'landslide') && {
      hold: 'more than half of a role vanished at once',
    }),
  };
}

/** Includes nodes with a dead daemon: the plugin checks whether the edge is dead too. */
function isServing({ record, rotation }: EffectiveMember): boolean {
  return record.role === 'app' && (rotation === 'in' || rotation === 'unwatched');
}

type Family = (addresses: readonly string[]) => string[];
const ofIpv4: Family = (addresses) => addresses.filter((each) => !each.includes(':'));
const ofIpv6: Family = (addresses) => addresses.filter((each) => each.includes(':'));

function both(make: (type: 'A' | 'AAAA', of: Family, others: Family) => DnsSet): DnsSet[] {
  return [make('A', ofIpv4, ofIpv6), make('AAAA', ofIpv6, ofIpv4)];
}

const hostOf = ({ record }: EffectiveMember): string => record.name.split('/')[0] ?? record.name;

function isWriter({ record, state, self }: EffectiveMember): boolean {
  return record.role === 'app' && record.tags[DNS_TAG] === DNS_READY && (self || state === 'alive');
}

/** Which node writes the records, for people. */
export function dnsWriter({ synced, members }: EffectiveView): string {
  const first = members.find(isWriter);
  if (!synced) return 'waiting for the first peer';
  if (first === undefined) return 'no node could read the zone yet';
  return first.self ? 'this node writes them' : `${first.record.name} writes them`;
}

/** If the only node that can write the DNS records dies, nobody updates them. */
export function dnsWarnings({ members }: Pick<EffectiveView, 'members'>): {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}[] {
  const present = members.filter(({ state, record }) => state !== 'left' && record.role === 'app');
  const writers = present.filter(({ record }) => record.tags[DNS_TAG] === DNS_READY);
  const [writer] = writers;
  if (writer === undefined || writers.length > 1 || present.length === 1) return [];
  return [
    {
      code: 'one-dns-writer',
      message: `only ${writer.record.name} can write the DNS records; if it dies, nobody updates them`,
      next: 'put [dns] and its key file on a second app node',
    },
  ];
}
