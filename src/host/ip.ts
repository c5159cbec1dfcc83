import { networkInterfaces } from 'node:os';
import { runCommand } from './command.ts';
import { PluginError } from '../plugins/contract.ts';

/** `ip` takes 2 ms. */
const TIMEOUT_MS = 5000;
const missingNext = 'install it: `dnf install iproute`';

/** Runs ip(8). Returns its output or its complaint. */
export async function ip(
  args: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly stdout: string; readonly complaint: string | undefined }> {
  const { code, stdout, stderr } = await runCommand('ip', args, {
    timeoutMs: TIMEOUT_MS,
    signal,
    missingNext,
  });
  return { stdout, complaint: code === 0 ? undefined : stderr.trim() };
}

/** @param address with its prefix length */
export async function removeAddress(device: string, address: string, signal: AbortSignal): Promise<void> {
  const { complaint } = await ip(['addr', 'del', address, 'dev', device], signal);
  if (complaint !== undefined && !complaint.includes('Cannot assign'))
    throw ipFailed(`take ${address} off ${device}`, complaint);
}

/** One link of `ip -j addr show`, as far as it is read. */
export interface IpLink {
  readonly ifname?: string;
  readonly flags?: readonly string[];
  /** The bridge or bond to which it belongs. */
  readonly master?: string;
  /** Only with `-d`, and not for every device. */
  readonly linkinfo?: { readonly info_kind?: string };
  readonly addr_info?: readonly {
    readonly family?: string;
    readonly local?: string;
    readonly prefixlen?: number;
    readonly scope?: string;
    readonly label?: string;
    /** The kernel's flag of a further address of the same network on the same device. */
    readonly secondary?: boolean;
  }[];
}

/** Parses `ip -j addr show`, which prints nothing if there is nothing. */
export function parseLinks(json: string): readonly IpLink[] {
  return (json.trim() === '' ? [] : JSON.parse(json)) as readonly IpLink[];
}

/** getifaddrs: one system call, no process. A device that is down doesn't appear. */
export function addressesNow(): string {
  return Object.entries(networkInterfaces())
    .flatMap(([device, all = []]) =>
      // A link-local one only says that its device is up.
      all.filter(({ address }) => !address.startsWith('fe80:')).map(({ address }) => `${device} ${address}`),
    )
    .sort()
    .join(', ');
}

export function ipFailed(what: string, complaint: string): PluginError {
  const permitted = !/not permitted/.test(complaint);
  return new PluginError({
    code: permitted ? 'floating-device-failed' : 'floating-device-not-permitted',
    message: `cannot ${what}: ${complaint.split('\n')[0]?.slice(0, 200)}`,
    next: permitted
      ? 'see `ip link` and `bornemisza doctor`'
      : 'the daemon needs CAP_NET_ADMIN: compare its unit with the one of the package (`systemctl cat ' +
        'bornemisza@app`)',
    outcome: 'retry',
  });
}
