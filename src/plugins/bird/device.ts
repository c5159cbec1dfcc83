import { runCommand } from '../command.ts';
import { PluginError } from '../contract.ts';
import type { ObservedDevice } from './plan.ts';

/** `ip` takes 2 ms. */
const TIMEOUT_MS = 5000;
const missingNext = 'install it: `dnf install iproute`';

/** Reads all devices of this host and their IPv4 addresses. */
export async function readDevices(signal: AbortSignal): Promise<Map<string, ObservedDevice>> {
  const options = { timeoutMs: TIMEOUT_MS, signal, missingNext };
  const { code, stdout, stderr } = await runCommand('ip', ['-j', 'addr', 'show'], options);
  if (code !== 0) throw ipFailed('list the devices', stderr);
  return parseDevices(stdout);
}

interface IpLink {
  readonly ifname?: string;
  readonly flags?: readonly string[];
  readonly addr_info?: readonly {
    readonly family?: string;
    readonly local?: string;
    readonly prefixlen?: number;
  }[];
}

/** Reads `ip -j addr show`. */
export function parseDevices(json: string): Map<string, ObservedDevice> {
  const links = (json.trim() === '' ? [] : JSON.parse(json)) as readonly IpLink[];
  return new Map(
    links.flatMap(({ ifname, flags = [], addr_info = [] }) => {
      const addresses = addr_info
        .filter(({ family, local }) => family === 'inet' && local !== undefined)
        .map(({ local, prefixlen }) => `${local}/${prefixlen}`);
      return ifname === undefined ? [] : [[ifname, { up: flags.includes('UP'), addresses }] as const];
    }),
  );
}

/** `dummy` everywhere but on kernels built without it; `ifb` carries addresses as well. */
export async function addDevice(device: string, signal: AbortSignal): Promise<void> {
  const made = await ip(['link', 'add', device, 'type', 'dummy'], signal);
  if (made !== undefined) {
    const other = await ip(['link', 'add', device, 'type', 'ifb'], signal);
    if (other !== undefined) throw ipFailed(`add device ${device}`, made);
  }
  await raiseDevice(device, signal);
}

export async function raiseDevice(device: string, signal: AbortSignal): Promise<void> {
  const complaint = await ip(['link', 'set', 'dev', device, 'up'], signal);
  if (complaint !== undefined) throw ipFailed(`bring up ${device}`, complaint);
}

export async function addAddress(device: string, address: string, signal: AbortSignal): Promise<void> {
  const complaint = await ip(['addr', 'replace', address, 'dev', device], signal);
  if (complaint !== undefined) throw ipFailed(`put ${address} on ${device}`, complaint);
}

export async function removeAddress(device: string, address: string, signal: AbortSignal): Promise<void> {
  const complaint = await ip(['addr', 'del', address, 'dev', device], signal);
  if (complaint !== undefined && !complaint.includes('Cannot assign'))
    throw ipFailed(`take ${address} off ${device}`, complaint);
}

/** Undefined: it worked; else what it complained about. */
async function ip(args: readonly string[], signal: AbortSignal): Promise<string | undefined> {
  const { code, stderr } = await runCommand('ip', args, { timeoutMs: TIMEOUT_MS, signal, missingNext });
  return code === 0 ? undefined : stderr.trim();
}

function ipFailed(what: string, complaint: string): PluginError {
  const permitted = !/not permitted/.test(complaint);
  return new PluginError({
    code: permitted ? 'floating-device-failed' : 'floating-device-not-permitted',
    message: `cannot ${what}: ${complaint.split('\n')[0]?.slice(0, 200)}`,
    next: permitted
      ? 'see `ip link` and `bornemisza doctor`'
      : 'the daemon needs CAP_NET_ADMIN: compare its unit with the one that was shipped (`systemctl cat bornemisza@app`)',
    outcome: 'retry',
    stateChanged: false,
  });
}
