import { isIPv4, isIPv6 } from 'node:net';
import { hostRoute, isRoutable } from '../../host/floating-address.ts';
import { CliFailure, EXIT } from '../failure.ts';

/** The provider's side of BGP, as its documentation gives it. */
export interface Upstream {
  /** One session with each, for the addresses of its own family. */
  readonly neighbors: readonly string[];
  readonly neighborAs: number;
  readonly localAs: number;
  /** TCP MD5 signature (RFC 2385). Read from a file, never from argv. */
  readonly password: string | undefined;
  /** Hops to the neighbour; undefined: directly connected. */
  readonly multihop: number | undefined;
}

/** How soon the provider notices that this machine is dead: `[floating]`. */
export interface Liveness {
  readonly holdTimeS: number;
  readonly bfd: boolean;
}

export interface BirdFacts {
  readonly routerId: string;
  /** This host's public IPv6 address; needed for BFD over several hops of IPv6. */
  readonly localIpv6?: string | undefined;
  readonly floatingAddresses: readonly string[];
  readonly upstream: Upstream;
  readonly liveness: Liveness;
  /** Directory of the daemon's fragments, e.g. /etc/bird/bornemisza.d */
  readonly fragments: string;
}

export const BIRD_MARK = '# Bornemisza: first set-up of BIRD.';
/** RFC 2385's key as Linux takes it (TCP_MD5SIG_MAXKEYLEN). */
const MAX_PASSWORD_BYTES = 80;

/**
 * Root's bird.conf. The filter exports only the configured addresses, whatever the daemon's fragments contain. BIRD's
 * default hold time is 240 s, its wait after a lost session 60 s and more, and graceful restart would keep the routes
 * of a dead edge for 120 s.
 */
export function birdText(facts: BirdFacts): string {
  const { neighbors, multihop } = facts.upstream;
  return `${BIRD_MARK} You can edit it: it is written only once.
# The daemon writes only ${facts.fragments}; the filter below decides what is announced.
log syslog all;
router id ${facts.routerId};

protocol device {
}
${facts.liveness.bfd ? bfdText(multihop) : ''}
${birdFilter(facts.floatingAddresses)}
${neighbors.map((neighbor, index) => sessionText(facts, neighbor, index)).join('')}
include "${facts.fragments}/*.conf";
`;
}

/** A dead machine is noticed after 0.3 s, unless the provider asks for a longer interval. */
function bfdText(multihop: number | undefined): string {
  const times = 'interval 100 ms; multiplier 3;';
  return `
protocol bfd {
	${multihop === undefined ? `interface "*" { ${times} };` : `multihop { ${times} };`}
}
`;
}

function sessionText(facts: BirdFacts, neighbor: string, index: number): string {
  const { upstream, liveness, routerId, localIpv6 } = facts;
  const { localAs, neighborAs, multihop, password } = upstream;
  const local = isIPv6(neighbor) ? localIpv6 : routerId;
  const lines = [
    // The router ID is this host's public IPv4 address.
    `local ${needsLocal(facts) ? `${local} ` : ''}as ${localAs};`,
    `neighbor ${neighbor} as ${neighborAs};`,
    ...(multihop === undefined ? [] : [`multihop ${multihop};`]),
    `hold time ${liveness.holdTimeS};`,
    `keepalive time ${Math.floor(liveness.holdTimeS / 3)};`,
    ...(liveness.bfd ? ['bfd yes;'] : []),
    'connect delay time 1;',
    'connect retry time 5;',
    'error wait time 2, 10;',
    'graceful restart off;',
    ...(password === undefined ? [] : [`password "${password}";`]),
  ];
  return `
protocol bgp bornemisza_upstream${index === 0 ? '' : index + 1} {
${lines.map((line) => `	${line}\n`).join('')}	${familyOf(neighbor)} {
		import none;
		export filter bornemisza_export;
		next hop self;
	};
}
`;
}

/** Whether the sessions name this host's address: BIRD asks for it where BFD goes over several hops. */
export function needsLocal({ liveness, upstream }: Pick<BirdFacts, 'liveness' | 'upstream'>): boolean {
  return liveness.bfd && upstream.multihop !== undefined;
}

export const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIPv6(address) ? 'ipv6' : 'ipv4');

/** The lines that a founder adds to a bird.conf of their own, which is never changed. */
export function birdLinesToAdd(
  facts: Pick<BirdFacts, 'floatingAddresses' | 'fragments' | 'liveness'>,
): string {
  const { holdTimeS, bfd } = facts.liveness;
  const channels = [...new Set(facts.floatingAddresses.map(familyOf))]
    .sort()
    .map((family) => `#	${family} { import none; export filter bornemisza_export; next hop self; };\n`);
  return `${birdFilter(facts.floatingAddresses)}

include "${facts.fragments}/*.conf";

# and in the bgp protocol of your provider:
#	hold time ${holdTimeS};
${bfd ? '#	bfd yes; (and a protocol bfd)\n' : ''}#	graceful restart off;
${channels.join('')}`;
}

/**
 * The filter names our protocol: a `protocol direct` of the founder would keep the route when ours withdraws it. BIRD
 * has no set of prefixes with both families.
 */
function birdFilter(addresses: readonly string[]): string {
  const networks = [addresses.filter(isIPv4), addresses.filter(isIPv6)].filter((each) => each.length > 0);
  const accepted = networks
    .map((each) => each.map(hostRoute).join(', '))
    .map((set) => `	if proto = "bornemisza_floating" && net ~ [ ${set} ] then accept;\n`);
  return `filter bornemisza_export {
${accepted.join('')}	reject;
}`;
}

/**
 * @throws CliFailure for values that BIRD cannot read, or that would end a string in its configuration
 */
export function checkUpstream(upstream: Upstream): Upstream {
  for (const neighbor of upstream.neighbors)
    if (!isRoutable(neighbor))
      throw refused(
        `--bgp-neighbor ${JSON.stringify(neighbor)} is not an IPv4 address and not a routed IPv6 address`,
        'write it like 169.254.169.254 or 2001:db8::1',
      );
  for (const [flag, number] of [
    ['--bgp-as', upstream.neighborAs],
    ['--bgp-local-as', upstream.localAs],
  ] as const) {
    if (!(Number.isInteger(number) && number >= 1 && number <= 4_294_967_294))
      throw refused(`${flag} is not an AS number`, 'your provider names it, e.g. 64515');
  }
  const { multihop, password } = upstream;
  if (multihop !== undefined && !(Number.isInteger(multihop) && multihop >= 1 && multihop <= 255))
    throw refused('--bgp-multihop must be 1 to 255', 'your provider names it, e.g. 2');
  // BIRD's strings have no escapes.
  if (
    password !== undefined &&
    (!/^[\x20\x21\x23-\x7e]+$/.test(password) || Buffer.byteLength(password) > MAX_PASSWORD_BYTES)
  ) {
    throw refused(
      `the BGP password must be 1 to ${MAX_PASSWORD_BYTES} printable ASCII characters without "`,
      'set another one at your provider',
    );
  }
  return upstream;
}

function refused(message: string, next: string): CliFailure {
  return new CliFailure(EXIT.usage, 'bgp-invalid', message, next);
}
