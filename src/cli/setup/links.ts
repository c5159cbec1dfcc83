import { type IpLink, parseLinks } from '../../host/ip.ts';
import type { Host } from '../io.ts';
import { succeeded } from '../answered.ts';
import { type Address, addressesOf, inside, kindOf, networkOf } from './discover.ts';

/** The networks of this host, before any decision. */
export interface HostNetwork {
  /** IPv4 addresses that are up, in the system's order. */
  readonly addresses: readonly Address[];
  /** Devices of the default routes, IPv4 before IPv6, lowest metric first. */
  readonly defaultRoutes: readonly string[];
}

/** The fields of `ip -j route show` that are used. */
interface IpRoute {
  /** `default`, a network, or one address. */
  readonly dst?: string;
  readonly dev?: string;
  /** Present if packets are dropped: `blackhole`, `unreachable`, `prohibit`. */
  readonly type?: string;
  readonly metric?: number;
  readonly nexthops?: readonly { readonly dev?: string }[];
}

/**
 * Kinds of devices for containers, or for addresses that no other machine reaches. Tunnels (wireguard, tun) are not
 * listed: the private network can be one.
 */
const NO_NETWORK_KINDS = new Set(['dummy', 'ifb', 'ipip', 'sit', 'gre', 'vxlan', 'geneve', 'nlmon', 'vrf']);
/**
 * Devices that container engines and hypervisors put into a bridge. A bridge with only these reaches no other machine.
 */
const GUEST_KINDS = new Set(['veth', 'tun', 'vxlan']);

const QUESTIONS = ['-d -j addr show up', '-j -4 route show', '-j -6 route show default'] as const;

/**
 * Asks ip(8). Where it is not installed, only the addresses that the kernel lists are known, and no routes.
 *
 * @throws CliFailure `program-no-answer`, `program-failed`: without one of the answers a device of ours or of a
 * container looks like one that faces the internet
 */
export async function readNetwork(host: Host): Promise<HostNetwork> {
  const answers = await Promise.all(
    QUESTIONS.map(async (question) => ({ question, ran: await host.run('ip', question.split(' ')) })),
  );
  if (answers.every(({ ran }) => ran.code === -1 && ran.silence === undefined))
    return { addresses: addressesOf(host.interfaces()), defaultRoutes: [] };
  const [links = '', routes, routes6] = answers.map(({ question, ran }) => {
    const text = succeeded(`ip ${question}`, ran);
    if (isWhole(text)) return text;
    const half = { code: 1, stdout: '', stderr: 'its answer is not whole' };
    return succeeded(`ip ${question}`, half);
  });
  return networkFrom(links, routes ?? '', routes6);
}

/** It prints nothing if there is nothing. */
function isWhole(text: string): boolean {
  if (text.trim() === '') return true;
  try {
    return Array.isArray(JSON.parse(text));
  } catch {
    return false;
  }
}

/**
 * @param links `ip -d -j addr show up` @param routes `ip -j -4 route show` @param routes6 `ip -j -6 route show default`
 */
export function networkFrom(links: string, routes: string, routes6 = ''): HostNetwork {
  const table = parseRoutes(routes);
  const all = parseLinks(links);
  return {
    addresses: all.flatMap((link) => addressesOn(link, all, table)),
    defaultRoutes: [...defaults(table), ...defaults(parseRoutes(routes6))],
  };
}

function addressesOn(link: IpLink, all: readonly IpLink[], routes: readonly IpRoute[]): Address[] {
  const device = link.ifname ?? '';
  const leads = leadsToMachines(link, all);
  const own = (link.addr_info ?? []).filter(({ family }) => family === 'inet');
  return own.flatMap(({ local = '', prefixlen = 32, secondary }) => {
    // A second address of the same network (AWS), or a single one within it (keepalived), can move between machines.
    const moves = (other: (typeof own)[number]): boolean =>
      prefixlen === 32 && (other.prefixlen ?? 32) < 32 && inside(local, `${other.local}/${other.prefixlen}`);
    if (secondary === true || own.some(moves)) return [];
    const kind = kindOf(local);
    return [
      {
        device,
        address: local,
        network: widest(networkOf(local, prefixlen), device, local, routes),
        kind: kind === 'private' && !leads ? 'other' : kind,
      },
    ];
  });
}

function leadsToMachines(link: IpLink, all: readonly IpLink[]): boolean {
  const kind = link.linkinfo?.info_kind;
  if (kind !== 'bridge') return kind === undefined || !NO_NETWORK_KINDS.has(kind);
  const ports = all.filter(({ master }) => master === link.ifname);
  return ports.some((port) => !GUEST_KINDS.has(port.linkinfo?.info_kind ?? ''));
}

/**
 * The network of a device. Its own prefix is only what is on the same link: Hetzner Cloud and GCE give a /32 and a
 * route through a gateway. Only routes inside RFC 1918 count, so 0.0.0.0/1 of a VPN does not.
 */
function widest(own: string, device: string, address: string, routes: readonly IpRoute[]): string {
  const reached = routes.flatMap(({ dst = '', dev, type = 'unicast' }) => {
    const [base = '', bits = '32'] = dst.split('/');
    const fits = dev === device && type === 'unicast' && kindOf(base) === 'private' && Number(bits) >= 8;
    return fits && inside(address, dst) ? [dst] : [];
  });
  return [own, ...reached].reduce((a, b) => (bitsOf(b) < bitsOf(a) ? b : a));
}

function bitsOf(network: string): number {
  return Number(network.split('/')[1] ?? '32');
}

function defaults(routes: readonly IpRoute[]): string[] {
  return routes
    .filter(({ dst, type = 'unicast' }) => dst === 'default' && type === 'unicast')
    .sort((a, b) => (a.metric ?? 0) - (b.metric ?? 0))
    .flatMap(({ dev, nexthops = [] }) => [dev, ...nexthops.map((each) => each.dev)])
    .filter((device) => device !== undefined);
}

function parseRoutes(json: string): readonly IpRoute[] {
  return (json.trim() === '' ? [] : JSON.parse(json)) as readonly IpRoute[];
}
