import { isIPv4 } from 'node:net';
import { CliFailure, EXIT } from '../failure.ts';
import type { Host } from '../io.ts';

/** It stands in certificates and in libp2p's topic. */
const MAX_CLUSTER_CHARACTERS = 32;

/** An IPv4 address that is up on this host. */
export interface Address {
  readonly device: string;
  readonly address: string;
  /** The network it lies in, e.g. `10.0.0.0/24`. */
  readonly network: string;
  readonly kind: 'private' | 'public' | 'loopback' | 'other';
}

/** All IPv4 addresses that are up, in the system's order. */
export function addressesOf(interfaces: ReturnType<Host['interfaces']>): Address[] {
  return Object.entries(interfaces).flatMap(([device, infos]) =>
    (infos ?? [])
      .filter((info) => info.family === 'IPv4')
      .map((info) => ({
        device,
        address: info.address,
        network: networkOf(info.address, info.netmask),
        kind: kindOf(info.address),
      })),
  );
}

export interface Wish {
  readonly address?: string | undefined;
  readonly device?: string | undefined;
}

/**
 * The address for the cluster's own traffic: the only RFC 1918 address, or what the operator says.
 *
 * @throws CliFailure `private-address-absent`, `private-address-ambiguous` or `address-not-here`, with the candidates
 */
export function choosePrivate(addresses: readonly Address[], wish: Wish): Address {
  if (wish.address !== undefined) return holderOf(addresses, wish.address, wish.device);
  const onDevice = addresses.filter((each) => wish.device === undefined || each.device === wish.device);
  // Named outright, a device may carry any kind of address; found by ourselves, only RFC 1918's.
  const found = wish.device === undefined ? onDevice.filter((each) => each.kind === 'private') : onDevice;
  const [first, second] = found;
  if (first === undefined) {
    const where =
      wish.device === undefined
        ? 'this host has no private address (RFC 1918) that is up'
        : `device ${wish.device} has no IPv4 address that is up`;
    throw failure(
      'private-address-absent',
      `${where}; there are ${list(addresses)}`,
      'bring the private device up (ip addr), or name the address: --private-address A',
    );
  }
  if (second !== undefined) {
    throw failure(
      'private-address-ambiguous',
      `this host has ${found.length} private addresses: ${list(found)}`,
      `say which: --private-address ${first.address}`,
    );
  }
  return first;
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
  // The kernel answers for the whole of 127.0.0.0/8 without its addresses being listed.
  const loopback = here.find((each) => each.kind === 'loopback' && kindOf(wanted) === 'loopback');
  if (loopback !== undefined) return { ...loopback, address: wanted };
  const where = device === undefined ? 'on this host' : `on device ${device}`;
  throw failure(
    'address-not-here',
    `${wanted} is not ${where}; there are ${list(addresses)}`,
    'correct --private-address, or bring the device up: ip addr',
  );
}

/**
 * The device that faces the internet; undefined where there is none to see.
 *
 * @param defaultRoute device of the default route, which decides between several
 * @throws CliFailure `public-device-ambiguous`, `device-not-here`
 */
export function choosePublic(
  addresses: readonly Address[],
  facts: { privateDevice: string; wish?: string | undefined; defaultRoute?: string | undefined },
): Address | undefined {
  if (facts.wish !== undefined) {
    const wished = addresses.find((each) => each.device === facts.wish);
    if (wished === undefined)
      throw failure(
        'device-not-here',
        `device ${facts.wish} is not up on this host; there are ${list(addresses)}`,
        'correct --public-device',
      );
    return wished;
  }
  const outside = addresses.filter((each) => each.kind === 'public');
  const devices = [...new Set(outside.map((each) => each.device))];
  const routed = outside.find((each) => each.device === facts.defaultRoute);
  if (routed !== undefined) return routed;
  if (devices.length > 1)
    throw failure(
      'public-device-ambiguous',
      `this host has ${devices.length} public devices: ${list(outside)}`,
      `say which: --public-device ${devices[0]}`,
    );
  return (
    outside[0] ??
    addresses.find((each) => each.device === facts.defaultRoute && each.device !== facts.privateDevice)
  );
}

/** The device of the default route, from the text of /proc/net/route (proc(5)). */
export function defaultRouteDevice(procNetRoute: string): string | undefined {
  const rows = procNetRoute
    .split('\n')
    .slice(1)
    .map((line) => line.split('\t'));
  const usable = rows.filter(
    ([, destination, , flags]) => destination === '00000000' && (Number.parseInt(flags ?? '0', 16) & 1) === 1,
  );
  usable.sort((a, b) => Number(a[6]) - Number(b[6]));
  return usable[0]?.[0];
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
      `${JSON.stringify(host)} cannot be a host's name: letters a-z, digits and hyphens, 63 at most (RFC 1123)`,
      wish.host === undefined
        ? 'give it a name: hostnamectl set-hostname app1.example.com, or pass --host app1'
        : 'correct --host',
    );
  }
  const cluster =
    wish.cluster ?? domain.filter((part) => part !== 'localdomain' && part !== 'internal').join('-');
  if (cluster === '') {
    throw failure(
      'cluster-unknown',
      `the host name ${JSON.stringify(hostname)} has no domain to name the cluster after`,
      'name it: --cluster shop',
    );
  }
  if (!isLabel(cluster) || cluster.length > MAX_CLUSTER_CHARACTERS) {
    throw failure(
      'cluster-invalid',
      `${JSON.stringify(cluster)} cannot be a cluster's name: letters a-z, digits and hyphens, ${MAX_CLUSTER_CHARACTERS} at most`,
      'name it: --cluster shop',
    );
  }
  return { host, cluster };
}

function isLabel(text: string): boolean {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text);
}

function kindOf(address: string): Address['kind'] {
  const [a = 0, b = 0] = address.split('.').map(Number);
  if (a === 127) return 'loopback';
  if (a === 10 || (a === 172 && b >= 16 && b <= 31) || (a === 192 && b === 168)) return 'private';
  // Link-local (RFC 3927) and carrier-grade NAT (RFC 6598) face neither the cluster nor the world, unless said so.
  if ((a === 169 && b === 254) || (a === 100 && b >= 64 && b <= 127)) return 'other';
  return 'public';
}

function networkOf(address: string, netmask: string): string {
  const mask = toNumber(netmask);
  const base = (toNumber(address) & mask) >>> 0;
  return `${[24, 16, 8, 0].map((shift) => (base >>> shift) & 255).join('.')}/${mask.toString(2).replaceAll('0', '').length}`;
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
