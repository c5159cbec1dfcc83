import type { PlannedChange } from '../contract.ts';
import { parseLinks } from '../../host/ip.ts';
import type { Layer2Desired } from './desired.ts';

export interface HeldAddress {
  readonly device: string;
  /** With its prefix length, e.g. `192.0.2.7/32`. */
  readonly address: string;
  /** We put it there: it has our label. */
  readonly ours: boolean;
}

export interface Layer2Observed {
  /** IPv4 addresses of this host's devices. */
  readonly addresses: readonly HeldAddress[];
  /** What this process last announced to the neighbours, see {@link wordOf}; undefined: nothing yet. */
  readonly told: string | undefined;
}

/** In the order in which they are made. */
export type Layer2Change = PlannedChange &
  (
    | { readonly kind: 'give-up'; readonly device: string; readonly address: string }
    | { readonly kind: 'take'; readonly device: string; readonly address: string }
    | {
        readonly kind: 'tell';
        readonly device: string;
        readonly addresses: readonly string[];
        readonly word: string;
      }
  );

/**
 * Marks our addresses in the kernel, so that one that left the configuration is found after a restart too. 15
 * characters at most.
 */
export function labelOf(device: string): string {
  return `${device.slice(0, 12)}:bm`;
}

/** Reads `ip -j addr show`. */
export function parseAddresses(json: string): HeldAddress[] {
  return parseLinks(json).flatMap(({ ifname: device = '', addr_info = [] }) =>
    addr_info
      .filter(({ family, local }) => family === 'inet' && local !== undefined)
      .map(({ local, prefixlen, label }) => ({
        device,
        address: `${local}/${prefixlen}`,
        ours: label === labelOf(device),
      })),
  );
}

/**
 * What the neighbours were last notified of. It changes with other claims on the addresses, so that the holder sends
 * the last announcement.
 */
export function wordOf({ addresses, rivals }: Layer2Desired): string {
  return `${[...addresses].sort().join()} beside ${[...rivals].sort().join()}`;
}

/** The difference between the desired and the observed state. Pure. */
export function planLayer2(desired: Layer2Desired, observed: Layer2Observed): Layer2Change[] {
  const { device, hold, why } = desired;
  const wanted = [...new Set(desired.addresses)].sort();
  const has = (address: string): boolean =>
    observed.addresses.some((each) => each.device === device && each.address.startsWith(`${address}/`));
  // The configuration named another device before, or no such mode: only the label tells ours there.
  const surplus = observed.addresses.filter((each) => {
    const named = each.device === device && wanted.includes(each.address.replace(/\/.*/, ''));
    return named ? !hold : each.ours;
  });
  const changes: Layer2Change[] = surplus.map((each) => ({
    kind: 'give-up',
    device: each.device,
    address: each.address,
    summary: `${each.address}: removed from ${each.device} (${why})`,
  }));
  if (!hold) return changes;
  for (const address of wanted.filter((each) => !has(each)))
    changes.push({
      kind: 'take',
      device,
      address,
      summary: `${address}/32: added to ${device} (${why})`,
    });
  const word = wordOf(desired);
  if (observed.told !== word || changes.some(({ kind }) => kind === 'take'))
    changes.push({
      kind: 'tell',
      device,
      addresses: wanted,
      word,
      summary: `${wanted.join(', ')}: announced to the neighbours on ${device}`,
    });
  return changes;
}
