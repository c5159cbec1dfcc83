import { BlockList, isIP } from 'node:net';

/**
 * IANA's registries of special addresses: the internet reaches none of them. Networks for documentation are allowed.
 */
const SPECIAL = new BlockList();
for (const [base, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['224.0.0.0', 3],
] as const)
  SPECIAL.addSubnet(base, bits, 'ipv4');
/** RFC 4291: all global unicast addresses that are assigned so far. */
const GLOBAL6 = new BlockList();
GLOBAL6.addSubnet('2000::', 3, 'ipv6');

/** Whether an address may be in a public record. */
export function isGlobalUnicast(address: string): boolean {
  const version = isIP(address);
  if (version === 4) return !SPECIAL.check(address, 'ipv4');
  // In the form that is compared with the zone.
  return version === 6 && address === address.toLowerCase() && GLOBAL6.check(address, 'ipv6');
}
