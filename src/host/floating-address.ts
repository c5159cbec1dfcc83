import { BlockList, isIPv4, isIPv6, SocketAddress } from 'node:net';

/** IPv6 addresses that no provider routes to a machine: `::/8` has loopback and IPv4 in other forms. */
const NEVER_ROUTED = new BlockList();
NEVER_ROUTED.addSubnet('::', 8, 'ipv6');
NEVER_ROUTED.addSubnet('fe80::', 9, 'ipv6');
NEVER_ROUTED.addSubnet('ff00::', 8, 'ipv6');

/** Whether a provider can route this address to a machine. Private ones count: some networks have their own. */
export function isRoutable(address: string): boolean {
  if (isIPv4(address)) return true;
  // A zone (`2001:db8::1%eth0`) is an address for isIPv6.
  return isIPv6(address) && !address.includes('%') && !NEVER_ROUTED.check(address, 'ipv6');
}

/** As the kernel, BIRD and DNS write it (RFC 5952), so that addresses can be compared. */
export function canonicalAddress(address: string): string {
  return isIPv6(address) ? new SocketAddress({ address, family: 'ipv6' }).address : address;
}

/** The route to this address alone, e.g. `192.0.2.7/32` or `2001:db8::7/128`. */
export function hostRoute(address: string): string {
  return `${address}/${isIPv6(address) ? 128 : 32}`;
}

/** `192.0.2.7` of `192.0.2.7/32`. */
export function addressOf(network: string): string {
  return network.replace(/\/.*$/, '');
}
