import { isIPv4 } from 'node:net';
import { CliFailure, EXIT } from '../failure.ts';
import type { Host } from '../io.ts';

/** The name is part of certificates and of libp2p's topic. */
const MAX_CLUSTER_CHARACTERS = 32;

/** An IPv4 address that is up on this host. */
export interface Address {
  readonly device: string;
  readonly address: string;
  /** The network of its device, e.g. `10.0.0.0/24`; a /32 if no route says more. */
  readonly network: string;
  /** `other`: neither the cluster nor the internet, unless the operator names it. */
  readonly kind: 'private' | 'public' | 'loopback' | 'other';
}

/** All IPv4 addresses that are up, in the system's order. */
export function addressesOf(interfaces: ReturnType<Host['interfaces']>): Address[] {
  return Object.entries(interfaces).flatMap(([device, infos]) =>
    (infos ?? [])
      .filter((info) => info.family === 'IPv4')
      .map((info) => ({
        // A label of ifupdown (`eth1:0`); no device has a colon in its name (dev_valid_name of the kernel).
        device: device.replace(/:.*$/, ''),
        address: info.address,
        network: networkOf(info.address, bitsOfMask(info.netmask)),
        kind: kindOf(info.address),
      })),
  );
}

interface Wish {
  readonly address?: string | undefined;
  readonly device?: string | undefined;
}

/**
 * The address for the cluster's own traffic: the only RFC 1918 address on a device without a public one, or what the
 * operator names. Beside a public address it is unclear: at DigitalOcean an anchor that no other machine reaches, at
 * Linode the private one.
 *
 * @throws CliFailure `private-address-absent`, `private-address-ambiguous`, `private-address-unsure` or
 * `address-not-here`, with the candidates
 */
export function choosePrivate(addresses: readonly Address[], wish: Wish): Address {
  if (wish.address !== undefined) return holderOf(addresses, wish.address, wish.device);
  // A device that the operator names can have any kind of address; detection accepts only RFC 1918.
  const onDevice = addresses.filter((each) => each.device === wish.device);
  const found = wish.device === undefined ? candidates(addresses) : onDevice;
  const [first, second] = found;
  if (first === undefined) {
    const where =
      wish.device === undefined
        ? 'this host has no private address (RFC 1918) that is up'
        : `device ${wish.device} has no IPv4 address that is up`;
    throw failure(
      'private-address-absent',
      `${where}; found: ${list(addresses)}`,
      'bring the private device up (ip addr), or name the address: --private-address A',
    );
  }
  if (second !== undefined) {
    throw failure(
      'private-address-ambiguous',
      `this host has ${found.length} private addresses: ${list(found)}`,
      `choose one: --private-address ${first.address}`,
    );
  }
  const beside = addresses.find((each) => each.device === first.device && each.kind === 'public');
  if (beside !== undefined && wish.device === undefined) {
    throw failure(
      'private-address-unsure',
      `${first.address} is on ${first.device} beside the public address ${beside.address}: other ` +
        'machines may not reach it (at DigitalOcean it is an anchor address)',
      `if the other machines reach it: --private-address ${first.address}; else bring the private device up`,
    );
  }
  return first;
}

function candidates(addresses: readonly Address[]): Address[] {
  const inside = addresses.filter((each) => each.kind === 'private');
  const apart = inside.filter(
    ({ device }) => !addresses.some((each) => each.device === device && each.kind === 'public'),
  );
  return apart.length > 0 ? apart : inside;
}

/**
 * The network of the nodes' private addresses: from the routes of the device, or what the operator names.
 *
 * @throws CliFailure `private-network-unknown`, `private-network-invalid`
 */
export function choosePrivateNetwork({ address, device, network }: Address, wish?: string): string {
  if (wish !== undefined) {
    const [base = '', bits = '', ...rest] = wish.split('/');
    if (
      rest.length === 0 &&
      isIPv4(base) &&
      /^\d{1,2}$/.test(bits) &&
      Number(bits) < 32 &&
      inside(address, wish)
    )
      return networkOf(base, Number(bits));
    throw failure(
      'private-network-invalid',
      `${JSON.stringify(wish)} is not an IPv4 network with ${address} in it`,
      'write it like 10.0.0.0/16',
      EXIT.usage,
    );
  }
  if (!network.endsWith('/32')) return network;
  throw failure(
    'private-network-unknown',
    `${device} has ${address}/32 and no route names its network, so no other node could connect`,
    `find the network on your provider’s page, and pass it: --private-network ${networkOf(address, 20)}`,
  );
}

function holderOf(addresses: readonly Address[], wanted: string, device: string | undefined): Address {
  if (!isIPv4(wanted))
    throw failure(
      'address-invalid',
      `${JSON.stringify(wanted)} is not an IPv4 address`,
      'write it like 10.0.0.11',
      EXIT.usage,
    );
  const here = addresses.filter((each) => device === undefined || each.device === device);
  const exact = here.find((each) => each.address === wanted);
  if (exact !== undefined) return exact;
  // The kernel accepts all of 127.0.0.0/8 without listing its addresses.
  const loopback = here.find((each) => each.kind === 'loopback' && kindOf(wanted) === 'loopback');
  if (loopback !== undefined) return { ...loopback, address: wanted };
  const where = device === undefined ? 'on this host' : `on device ${device}`;
  throw failure(
    'address-not-here',
    `${wanted} is not ${where}; found: ${list(addresses)}`,
    'correct --private-address, or bring the device up: ip addr',
  );
}

/**
 * The device that faces the internet; undefined if none is found.
 *
 * @param defaultRoutes devices of the default routes, best first: they decide between several, and a device with only
 * IPv6 shows nowhere else
 * @throws CliFailure `public-device-ambiguous`, `device-not-here`
 */
export function choosePublic(
  addresses: readonly Address[],
  facts: { privateDevice: string; wish?: string | undefined; defaultRoutes?: readonly string[] },
): string | undefined {
  const { defaultRoutes = [] } = facts;
  if (facts.wish !== undefined) {
    if (!addresses.some((each) => each.device === facts.wish) && !defaultRoutes.includes(facts.wish))
      throw failure(
        'device-not-here',
        `device ${facts.wish} is not up on this host; found: ${list(addresses)}`,
        'correct --public-device',
      );
    return facts.wish;
  }
  const outside = addresses.filter((each) => each.kind === 'public');
  const devices = [...new Set(outside.map((each) => each.device))];
  const routed = defaultRoutes.find((device) => devices.includes(device));
  if (routed !== undefined) return routed;
  if (devices.length > 1)
    throw failure(
      'public-device-ambiguous',
      `this host has ${devices.length} public devices: ${list(outside)}`,
      `choose one: --public-device ${devices[0]}`,
    );
  return devices[0] ?? defaultRoutes.find((device) => device !== facts.privateDevice);
}

/**
 * Domains that providers give to their customers' machines, and that home routers give to everything. A domain that is
 * missing here becomes an odd cluster name, which `init` shows before it does anything.
 */
const PROVIDERS_DOMAINS = [
  // AWS, in us-east-1 and elsewhere; GCE in both forms; Azure; Oracle Cloud
  /^ec2\.internal$/,
  /(^|\.)compute(-\d+)?\.(internal|amazonaws\.com)$/,
  /(^|\.)c\.[a-z0-9-]+(\.[a-z0-9-]+)?\.internal$/,
  /(^|\.)(internal\.)?cloudapp\.(net|azure\.com)$/,
  /(^|\.)oraclevcn\.com$/,
  // Hetzner, Linode, OVH, Scaleway, Vultr, Contabo, IONOS, netcup, UpCloud, DigitalOcean, OpenStack
  /(^|\.)(your-server\.de|clients\.your-server\.de)$/,
  /(^|\.)(members\.linode\.com|linodeusercontent\.com)$/,
  /(^|\.)(ovh\.(net|ca|us)|kimsufi\.com|ip-[0-9a-f-]+\.(eu|net))$/,
  /(^|\.)(scaleway\.com|scw\.cloud|poneytelecom\.eu)$/,
  /(^|\.)(vultr\.guest|vultrusercontent\.com)$/,
  /(^|\.)(contaboserver\.net|stratoserver\.net|onlinehome-server\.(com|info)|ultrasrv\.de|upcloud\.host)$/,
  /(^|\.)(digitaloceanspaces\.com|novalocal|openstacklocal)$/,
  /^(guest|lan|local|home|home\.arpa|fritz\.box|localhost|internal)$/,
];

function isProviders(domain: string): boolean {
  return PROVIDERS_DOMAINS.some((each) => each.test(domain));
}

/**
 * Host and cluster from the host name: `App1.shop.example` is host `app1` of cluster `shop-example`.
 *
 * @throws CliFailure `host-invalid`, `cluster-unknown`, `cluster-invalid`
 */
export function nameNode(
  hostname: string,
  wish: { host?: string | undefined; cluster?: string | undefined },
): { host: string; cluster: string } {
  const [first = '', ...domain] = hostname.toLowerCase().replace(/\.$/, '').split('.');
  const host = wish.host ?? first;
  if (!isLabel(host)) {
    throw failure(
      'host-invalid',
      `${JSON.stringify(host)} is no valid host name: letters a-z, digits and hyphens, at most 63 (RFC 1123)`,
      wish.host === undefined
        ? 'set the name: hostnamectl set-hostname app1.example.com, or pass --host app1'
        : 'correct --host',
    );
  }
  const provider = wish.cluster === undefined && isProviders(domain.join('.'));
  const cluster =
    wish.cluster ??
    (provider ? '' : domain.filter((part) => part !== 'localdomain' && part !== 'internal').join('-'));
  if (cluster === '') {
    throw failure(
      'cluster-unknown',
      provider
        ? `the domain of ${JSON.stringify(hostname)} belongs to your provider: it cannot name your cluster`
        : `the host name ${JSON.stringify(hostname)} has no domain to name the cluster after`,
      'name it: --cluster shop',
    );
  }
  if (!isLabel(cluster) || cluster.length > MAX_CLUSTER_CHARACTERS) {
    throw failure(
      'cluster-invalid',
      `${JSON.stringify(cluster)} is no valid cluster name: letters a-z, digits and hyphens, ` +
        `at most ${MAX_CLUSTER_CHARACTERS}`,
      'name it: --cluster shop',
    );
  }
  return { host, cluster };
}

function isLabel(text: string): boolean {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text);
}

export function kindOf(address: string): Address['kind'] {
  const [a = 0, b = 0] = address.split('.').map(Number);
  if (a === 127) return 'loopback';
  if (a === 10 || (a === 172 && b >= 16 && b <= 31) || (a === 192 && b === 168)) return 'private';
  // Link-local (RFC 3927) and carrier-grade NAT (RFC 6598) are neither private nor public, unless the operator says so.
  if ((a === 169 && b === 254) || (a === 100 && b >= 64 && b <= 127)) return 'other';
  return 'public';
}

/** @param bits length of the prefix */
export function networkOf(address: string, bits: number): string {
  const base = (toNumber(address) & maskOf(bits)) >>> 0;
  return `${[24, 16, 8, 0].map((shift) => (base >>> shift) & 255).join('.')}/${bits}`;
}

export function inside(address: string, network: string): boolean {
  const [base = '', bits = '32'] = network.split('/');
  return ((toNumber(address) ^ toNumber(base)) & maskOf(Number(bits))) === 0;
}

function maskOf(bits: number): number {
  return bits === 0 ? 0 : (-1 << (32 - bits)) >>> 0;
}

function bitsOfMask(netmask: string): number {
  return toNumber(netmask).toString(2).replaceAll('0', '').length;
}

function toNumber(address: string): number {
  return address.split('.').reduce((sum, part) => ((sum << 8) | Number(part)) >>> 0, 0);
}

function list(addresses: readonly Address[]): string {
  const shown = addresses
    .filter((each) => each.kind !== 'loopback')
    .map((each) => `${each.address} on ${each.device}`);
  return shown.length === 0 ? 'none but loopback' : shown.join(', ');
}

function failure(
  code: string,
  message: string,
  next: string,
  exit: CliFailure['exit'] = EXIT.failure,
): CliFailure {
  return new CliFailure(exit, code, message, next);
}
