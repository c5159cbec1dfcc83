import { BlockList, isIP } from 'node:net';

/**
 * IANA's registries of special addresses: nothing there is reached from the internet. Networks for documentation are
 * let through.
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
/** RFC 4291: all global unicast that was given out so far. */
const GLOBAL6 = new BlockList();
GLOBAL6.addSubnet('2000::', 3, 'ipv6');

/** Whether an address may stand in a public record. */
export function isGlobalUnicast(address: string): boolean {
  const version = isIP(address);
  if (version === 4) return !SPECIAL.check(address, 'ipv4');
  // In the one form in which it is compared with what a zone has.
  return version === 6 && address === address.toLowerCase() && GLOBAL6.check(address, 'ipv6');
}
