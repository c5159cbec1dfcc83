import { ip, ipFailed, parseLinks } from '../../host/ip.ts';
import type { ObservedDevice } from './plan.ts';

/** Reads all devices of this host and their addresses. */
export async function readDevices(signal: AbortSignal): Promise<Map<string, ObservedDevice>> {
  const { stdout, complaint } = await ip(['-j', '-d', 'addr', 'show'], signal);
  if (complaint !== undefined) throw ipFailed('list the devices', complaint);
  return parseDevices(stdout);
}

/** Reads `ip -j -d addr show`. */
export function parseDevices(json: string): Map<string, ObservedDevice> {
  return new Map(
    parseLinks(json).flatMap(({ ifname, flags = [], addr_info = [], linkinfo }) => {
      const addresses = addr_info
        .filter(({ family, local, scope }) => local !== undefined && isCarried(family, scope))
        .map(({ local, prefixlen }) => `${local}/${prefixlen}`);
      const facts = { up: flags.includes('UP'), kind: linkinfo?.info_kind, addresses };
      return ifname === undefined ? [] : [[ifname, facts] as const];
    }),
  );
}

/** The kernel puts a link-local IPv6 address on each device that is up. */
function isCarried(family: string | undefined, scope: string | undefined): boolean {
  return family === 'inet' || (family === 'inet6' && scope === 'global');
}

/** `dummy`, or `ifb` on kernels without it; both can carry addresses. */
export async function addDevice(device: string, signal: AbortSignal): Promise<void> {
  const made = await ip(['link', 'add', device, 'type', 'dummy'], signal);
  if (made.complaint !== undefined) {
    const other = await ip(['link', 'add', device, 'type', 'ifb'], signal);
    if (other.complaint !== undefined) throw ipFailed(`add device ${device}`, made.complaint);
  }
  await raiseDevice(device, signal);
}

/** With all its addresses. */
export async function removeDevice(device: string, signal: AbortSignal): Promise<void> {
  const { complaint } = await ip(['link', 'del', 'dev', device], signal);
  if (complaint !== undefined) throw ipFailed(`remove device ${device}`, complaint);
}

export async function raiseDevice(device: string, signal: AbortSignal): Promise<void> {
  const { complaint } = await ip(['link', 'set', 'dev', device, 'up'], signal);
  if (complaint !== undefined) throw ipFailed(`bring up ${device}`, complaint);
}

export async function addAddress(device: string, address: string, signal: AbortSignal): Promise<void> {
  // Nobody else is on the device, so there is nobody to ask whether the address is in use (RFC 4862, 5.4).
  const untested = address.includes(':') ? ['nodad'] : [];
  const { complaint } = await ip(['addr', 'replace', address, 'dev', device, ...untested], signal);
  if (complaint !== undefined) throw ipFailed(`put ${address} on ${device}`, complaint);
}
