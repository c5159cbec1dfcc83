import { createHash } from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';
import { PluginError } from '../contract.ts';

/**
 * The rule set of one host, as root's command writes it and bornemisza-firewall.service loads it. The order of the
 * rules is the guard: ssh comes before anything that the cluster can change, and member ports before `ct state
 * established`, so that removing an address from a set also cuts open connections.
 */
export interface FirewallBase {
  readonly roles: readonly ('app' | 'db')[];
  readonly sshPorts: readonly number[];
  /** IPv4 and IPv6 networks that may reach ssh; empty: anywhere. */
  readonly sshFrom: readonly string[];
  readonly privateDevice: string;
  readonly privateNetwork: string;
  readonly ports: FirewallPorts;
  readonly neighbours: readonly { readonly address: string; readonly multihop: boolean }[];
  /** The founder's own ports. */
  readonly allow: readonly FirewallAllow[];
  /** Another firewall filters here too: only the member ports are ours. */
  readonly beside: boolean;
}

interface FirewallPorts {
  /** HTTP and HTTPS, from anywhere, if role app is here. */
  readonly public: readonly number[];
  /** Gossip and admission of the roles here, from the whole private network: a joiner is no member yet. */
  readonly gossip: readonly number[];
  readonly appDoor: number;
  readonly appSharing: number;
  readonly appStats: number;
  readonly dbDoor: number;
  readonly dbStats: number;
  /** Between db nodes: their door, epmd, Erlang distribution. */
  readonly dbPeers: readonly number[];
  /** If metrics are on: the daemons' and HAProxy's, from the whole private network, as the scraper is no member. */
  readonly metrics: readonly number[];
}

export interface FirewallAllow {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** Undefined: anywhere. */
  readonly from: string | undefined;
}

export const TABLE = 'bornemisza';
/** The form of the file's first line; the helper reads it, see systemd/firewall. */
const FORMAT = 1;

/**
 * The file that the helper loads: its first line says whose addresses are taken from the daemons, the rest is for
 * nft(8).
 *
 * @throws PluginError `firewall-value-refused` if nft could read a value as something else
 */
export function renderBase(base: FirewallBase): { readonly text: string; readonly digest: string } {
  mustBePlain(base);
  const build = (digest: string): string =>
    [
      `# bornemisza firewall ${FORMAT} ${base.privateNetwork} ${base.roles.join(',')} ${digest}`,
      '# Written by `bornemisza firewall on`, which root runs again to change it.',
      `table inet ${TABLE} {`,
      `\tcomment "${digest}"`,
      '\tset apps { type ipv4_addr; }',
      '\tset dbs { type ipv4_addr; }',
      '\tchain members {',
      ...memberRules(base).map((rule) => `\t\t${rule}`),
      '\t}',
      '\tchain input {',
      `\t\ttype filter hook input priority filter; policy ${base.beside ? 'accept' : 'drop'};`,
      ...inputRules(base).map((rule) => `\t\t${rule}`),
      '\t}',
      '}',
      '',
    ].join('\n');
  const digest = createHash('sha256').update(build('')).digest('hex').slice(0, 16);
  return { text: build(digest), digest };
}

/** The rules as text, in their order, for the operator to read before they are loaded. */
export function describeBase(base: FirewallBase): string[] {
  const { ports, roles, sshPorts, sshFrom, neighbours, allow, privateNetwork } = base;
  const app = roles.includes('app');
  const db = roles.includes('db');
  const list = (numbers: readonly number[]): string => numbers.join(', ');
  const members = [
    ...(ports.metrics.length > 0 ? [`tcp ${list(ports.metrics)} (metrics): ${privateNetwork}`] : []),
    ...(app
      ? [`tcp ${ports.appDoor}, ${ports.appSharing}: app nodes`, `tcp ${ports.appStats}: members`]
      : []),
    ...(db
      ? [
          `tcp ${ports.dbDoor}: app nodes`,
          `tcp ${list(ports.dbPeers)}: db nodes`,
          `tcp ${ports.dbStats}: members`,
        ]
      : []),
  ];
  const ssh = `tcp ${list(sshPorts)} (ssh): ${sshFrom.length === 0 ? 'anywhere' : sshFrom.join(', ')}`;
  if (base.beside)
    return [...members, 'everything else: the other firewall decides', 'ssh: the other firewall decides'];
  return [
    ssh,
    ...members,
    `tcp ${list(ports.gossip)}: ${privateNetwork}`,
    ...(app ? [`tcp ${list(ports.public)}: anywhere`] : []),
    ...neighbours.map(({ address }) => `BGP and BFD: ${address}`),
    ...allow.map(({ protocol, port, from }) => `${protocol} ${port}: ${from ?? 'anywhere'} (firewall.allow)`),
    'ping, ICMP errors, neighbour discovery, DHCP: anywhere',
    'everything else: refused',
  ];
}

/** The rules of the private network for ports that only members share. They come before `established`. */
function memberRules({ roles, ports }: FirewallBase): string[] {
  const opened: (readonly [ports: readonly number[], sets: readonly string[]])[] = [];
  if (roles.includes('app'))
    opened.push([[ports.appDoor, ports.appSharing], ['apps']], [[ports.appStats], ['apps', 'dbs']]);
  if (roles.includes('db'))
    opened.push([[ports.dbDoor], ['apps']], [ports.dbPeers, ['dbs']], [[ports.dbStats], ['apps', 'dbs']]);
  return [
    ...opened.flatMap(([numbers, sets]) =>
      sets.map((set) => `tcp dport ${setOf(numbers)} ip saddr @${set} accept`),
    ),
    `tcp dport ${setOf(opened.flatMap(([numbers]) => numbers))} reject with tcp reset`,
    // Connections that this host opened also end when the other side is no member any more.
    `tcp sport ${setOf([ports.appDoor, ports.appSharing, ports.appStats])} ip saddr != @apps drop`,
    `tcp sport ${setOf([ports.dbDoor, ports.dbStats, ...ports.dbPeers])} ip saddr != @dbs drop`,
  ];
}

function inputRules(base: FirewallBase): string[] {
  const { privateDevice, privateNetwork, ports, roles, neighbours, allow } = base;
  const members = `iifname "${privateDevice}" ip saddr ${privateNetwork} jump members`;
  // Before the members' ports, which include the statistics.
  const scraped =
    ports.metrics.length === 0
      ? []
      : [`iifname "${privateDevice}" ip saddr ${privateNetwork} tcp dport ${setOf(ports.metrics)} accept`];
  if (base.beside) return ['iif "lo" accept', ...scraped, members];
  return [
    'iif "lo" accept',
    ...sourcesOf(base.sshFrom).map((source) => `${source}tcp dport ${setOf(base.sshPorts)} accept`),
    ...scraped,
    members,
    'ct state established,related accept',
    'ct state invalid drop',
    'icmp type echo-request limit rate 10/second burst 20 packets accept',
    'icmp type { destination-unreachable, time-exceeded, parameter-problem } accept',
    'icmpv6 type echo-request limit rate 10/second burst 20 packets accept',
    'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept',
    'icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept',
    'udp sport 67 udp dport 68 accept',
    'ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept',
    `iifname "${privateDevice}" ip saddr ${privateNetwork} tcp dport ${setOf(ports.gossip)} accept`,
    ...(roles.includes('app') ? [`tcp dport ${setOf(ports.public)} accept`] : []),
    ...neighbours.flatMap(({ address, multihop }) => [
      `${familyOf(address)} saddr ${address} tcp dport 179 accept`,
      `${familyOf(address)} saddr ${address} udp dport ${multihop ? 4784 : 3784} accept`,
    ]),
    ...allow.map(
      ({ protocol, port, from }) =>
        `${from === undefined ? '' : `${familyOf(from)} saddr ${from} `}${protocol} dport ${port} accept`,
    ),
    // A lost SYN would cost a joiner a second; on the public side nothing is answered.
    `iifname "${privateDevice}" meta l4proto tcp counter reject with tcp reset`,
    `iifname "${privateDevice}" counter reject`,
    'counter drop',
  ];
}

/** The beginnings of the rules for these networks, one for each kind of address; none: anywhere. */
function sourcesOf(networks: readonly string[]): string[] {
  if (networks.length === 0) return [''];
  return (['ip', 'ip6'] as const).flatMap((family) => {
    const some = networks.filter((each) => familyOf(each) === family);
    return some.length === 0 ? [] : [`${family} saddr ${setOf(some)} `];
  });
}

const familyOf = (network: string): 'ip' | 'ip6' => (network.includes(':') ? 'ip6' : 'ip');

function setOf(values: readonly (number | string)[]): string {
  return `{ ${[...new Set(values)].join(', ')} }`;
}

function mustBePlain(base: FirewallBase): void {
  const { ports } = base;
  const numbers = [
    ...base.sshPorts,
    ...ports.public,
    ...ports.gossip,
    ...ports.dbPeers,
    ...ports.metrics,
    ...base.allow.map(({ port }) => port),
    ports.appDoor,
    ports.appSharing,
    ports.appStats,
    ports.dbDoor,
    ports.dbStats,
  ];
  for (const number of numbers)
    if (!Number.isInteger(number) || number < 1 || number > 65535) throw refused('port', String(number));
  // Without a port there would be no rule for ssh, and no operator could connect again.
  if (base.sshPorts.length === 0 && !base.beside) throw refused('list of ssh ports', '');
  if (base.roles.length === 0) throw refused('list of roles', '');
  // IFNAMSIZ in linux/if.h is 16 with the closing zero.
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/.test(base.privateDevice))
    throw refused('private device', base.privateDevice);
  if (!isNetwork(base.privateNetwork)) throw refused('network', base.privateNetwork);
  for (const each of [...base.sshFrom, ...base.allow.flatMap(({ from }) => from ?? [])])
    if (!isNetwork(each) && !isNetwork6(each)) throw refused('network', each);
  for (const { address } of base.neighbours)
    if (!isIPv4(address) && (!isIPv6(address) || address.includes('%')))
      throw refused('BGP neighbour', address);
}

function isNetwork(text: string): boolean {
  const [base = '', bits = '32', ...rest] = text.split('/');
  return rest.length === 0 && isIPv4(base) && /^\d{1,2}$/.test(bits) && Number(bits) <= 32;
}

function isNetwork6(text: string): boolean {
  const [base = '', bits = '128', ...rest] = text.split('/');
  // A zone (`fe80::1%eth0`) is an address for isIPv6.
  return (
    rest.length === 0 && isIPv6(base) && !base.includes('%') && /^\d{1,3}$/.test(bits) && Number(bits) <= 128
  );
}

function refused(what: string, value: string): PluginError {
  return new PluginError({
    code: 'firewall-value-refused',
    message: `${what} ${JSON.stringify(value.slice(0, 80))} is not valid in a rule of the firewall`,
    next: 'correct it in /etc/bornemisza/ROLE.toml and run `bornemisza firewall on` again; no rule has changed',
    outcome: 'terminal',
  });
}
