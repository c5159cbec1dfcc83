import { parseLinks } from '../../host/ip.ts';
import type { Finding, PlannedChange } from '../contract.ts';
import type { ApiDesired, Owner } from './desired.ts';
import type { Assignment } from './provider.ts';

export interface HeldAddress {
  readonly device: string;
  /** Without its prefix length. */
  readonly address: string;
}

export interface ApiObserved {
  /** In messages, e.g. `DigitalOcean`. */
  readonly label: string;
  /** The provider's name of this server; undefined: not known yet. */
  readonly self: string | undefined;
  /** From the last successful observation. A missing address was never observed. */
  readonly assigned: ReadonlyMap<string, Assignment>;
  /** Whether the present observation worked: otherwise the provider is not called. */
  readonly fresh: boolean;
  /** Why the provider's answer is missing, and since when (0: it is not). */
  readonly fault: Finding | undefined;
  readonly failingForMs: number;
  /** Addresses on devices of this host that bear our label. */
  readonly held: readonly HeldAddress[];
  /** The results of checking the addresses. A missing one was not checked often enough. */
  readonly asked: ReadonlyMap<string, 'answers' | 'silent'>;
  /** Requested, and neither done nor given up yet. */
  readonly pending: ReadonlySet<string>;
  /** Requested again, since a node found that they do not answer. */
  readonly again: ReadonlySet<string>;
  /** Servers of members, present and former, by their names. */
  readonly ids: ReadonlyMap<string, string>;
}

/** In the order in which they are made. */
export type FloatingChange = PlannedChange &
  (
    | { readonly kind: 'device-off'; readonly device: string; readonly address: string }
    | { readonly kind: 'device-on'; readonly device: string; readonly address: string }
    | { readonly kind: 'assign'; readonly address: string; readonly again: boolean }
  );

/** The decision about one address. */
type Verdict = 'ours' | 'assign' | 'ask' | 'serves' | 'foreign' | 'busy' | 'elsewhere' | 'stays';

/**
 * Marks our addresses in the kernel, so that one that left the configuration is found after a restart too. 15
 * characters at most; another mark than that of mode `layer2`, whose program removes its own.
 */
export function labelOf(device: string): string {
  return `${device.slice(0, 12)}:bf`;
}

export function isLabel(name: string): boolean {
  return name.endsWith(':bf');
}

/** Parses `ip -j addr show`: the addresses with our label. */
export function heldIn(json: string): HeldAddress[] {
  return parseLinks(json).flatMap(({ ifname: device = '', addr_info = [] }) =>
    addr_info
      .filter(({ family, label }) => family === 'inet' && label === labelOf(device))
      .map(({ local = '' }) => ({ device, address: local })),
  );
}

/**
 * The difference between what should be and what is. Pure.
 *
 * The device follows the assignment, calls follow the decision. Only the taking node calls; no node gives an assignment
 * up.
 */
export function planFloating(desired: ApiDesired, observed: ApiObserved): FloatingChange[] {
  const { addresses, device, why } = desired;
  const left = observed.held.filter((each) => each.device !== device || !addresses.includes(each.address));
  return [
    ...left.map((each) => off(each, why)),
    ...addresses.flatMap((address) => planAddress(address, desired, observed)),
  ];
}

function planAddress(address: string, desired: ApiDesired, observed: ApiObserved): FloatingChange[] {
  const { device } = desired;
  const seen = observed.assigned.get(address);
  // Unknown does not mean unassigned.
  if (seen === undefined || observed.self === undefined) return [];
  const isOn = observed.held.some((each) => each.address === address && each.device === device);
  const on = device === '' || isOn ? [] : [onDevice(device, address, desired.why)];
  const verdict = verdictOf(address, desired, observed);
  if (verdict === 'ours') return [...on, ...onceMore(address, desired, observed)];
  if (verdict === 'assign') return [...on, assigned(address, desired, observed)];
  // A request may be carried out at this moment.
  if (!isOn || observed.pending.has(address)) return [];
  const owner = seen.to === undefined ? 'nobody' : nameOf(seen.to, desired, observed);
  return [off({ device, address }, `${observed.label} assigns it to ${owner}`)];
}

export function verdictOf(address: string, desired: ApiDesired, observed: ApiObserved): Verdict {
  const seen = observed.assigned.get(address);
  if (seen === undefined) return 'stays';
  if (seen.to !== undefined && seen.to === observed.self) return 'ours';
  if (!desired.take || !observed.fresh || observed.pending.has(address)) return 'stays';
  if (seen.elsewhere !== undefined) return 'elsewhere';
  if (seen.busy) return 'busy';
  if (seen.to === undefined) return 'assign';
  const owner = ownerOf(seen.to, desired, observed);
  if (owner === undefined) return 'foreign';
  switch (owner.from) {
    case 'given':
      return 'assign';
    case 'rival':
      return [...observed.assigned.values()].some(({ to }) => to === observed.self) ? 'assign' : 'stays';
    case 'never':
      return 'stays';
    case 'unheard': {
      const said = observed.asked.get(address);
      return said === undefined ? 'ask' : said === 'silent' ? 'assign' : 'serves';
    }
  }
}

/** The member whose server it is or was; undefined: none's. */
function ownerOf(id: string, { others }: ApiDesired, { ids }: ApiObserved): Owner | undefined {
  const present = others.find((each) => (each.id ?? ids.get(each.name)) === id);
  if (present !== undefined) return present;
  const former = [...ids].find(([, each]) => each === id)?.[0];
  // It left or was removed.
  return former === undefined ? undefined : { name: former, id, from: 'given' };
}

export function nameOf(id: string, desired: ApiDesired, observed: ApiObserved): string {
  if (id === observed.self) return 'this node';
  return ownerOf(id, desired, observed)?.name ?? `server ${id}, no member`;
}

/** Assigned here, but another node finds that it does not answer: the provider may have reported more than it did. */
function onceMore(address: string, desired: ApiDesired, observed: ApiObserved): FloatingChange[] {
  const [by] = desired.silentTo;
  if (by === undefined || !desired.take || !observed.fresh) return [];
  if (observed.again.has(address) || observed.pending.has(address)) return [];
  const summary = `${address}: assigned to this node again (${by}: it does not answer)`;
  return [{ kind: 'assign', address, again: true, summary, subjects: [by], step: 'repeats' }];
}

function assigned(address: string, desired: ApiDesired, observed: ApiObserved): FloatingChange {
  const id = observed.assigned.get(address)?.to;
  const owner = id === undefined ? undefined : ownerOf(id, desired, observed);
  const before = id === undefined ? 'nobody' : nameOf(id, desired, observed);
  return {
    kind: 'assign',
    address,
    again: false,
    summary: `${address}: ${before} → this node at ${observed.label} (${desired.why})`,
    subjects: owner === undefined ? [] : [owner.name],
    step: 'repeats',
  };
}

function onDevice(device: string, address: string, why: string): FloatingChange {
  return {
    kind: 'device-on',
    device,
    address,
    summary: `${address}/32: added to ${device} (${why})`,
    step: 'repeats',
  };
}

function off({ device, address }: HeldAddress, why: string): FloatingChange {
  return {
    kind: 'device-off',
    device,
    address,
    summary: `${address}/32: removed from ${device} (${why})`,
    step: 'repeats',
  };
}

/** The problems of the addresses, for an operator. Pure. */
export function findingsOf(desired: ApiDesired, observed: ApiObserved): Finding[] {
  const { fault, label } = observed;
  const found = desired.addresses.flatMap((address) => findingOf(address, desired, observed) ?? []);
  return fault === undefined
    ? found
    : [{ ...fault, message: `${fault.message}${whereNow(desired, observed, label)}` }];
}

function whereNow({ addresses }: ApiDesired, { assigned: known }: ApiObserved, label: string): string {
  const never = addresses.filter((each) => !known.has(each));
  return never.length === 0 ? '' : ` (${label} has not reported yet where ${never.join(', ')} is)`;
}

function findingOf(address: string, desired: ApiDesired, observed: ApiObserved): Finding | undefined {
  const { label } = observed;
  const seen = observed.assigned.get(address);
  const owner = seen?.to === undefined ? 'nobody' : nameOf(seen.to, desired, observed);
  switch (verdictOf(address, desired, observed)) {
    case 'foreign':
      return {
        code: 'floating-foreign',
        message: `${address} is assigned to ${owner}, so it is not taken`,
        next: 'if it should serve this cluster: sudo bornemisza floating take',
      };
    case 'serves':
      return {
        code: 'floating-serves',
        message: `${owner} is not reachable from this node, but ${address} answers; it is not moved`,
        next: `check the private network and the daemon of ${owner}: systemctl status bornemisza@app there`,
      };
    case 'busy':
      return {
        code: 'floating-busy',
        message: `${label} has not finished an action on ${address}; it is tried again`,
        next: 'wait; if it lasts, find the pending action on the provider’s page',
      };
    case 'elsewhere':
      return {
        code: 'floating-region',
        message: `${address} is in ${seen?.elsewhere}, and this server is not: it cannot be assigned here`,
        next: 'order the address in the region of the app nodes, or app nodes in the region of the address',
      };
    case 'ours':
      return observed.again.has(address) && desired.silentTo.length > 0
        ? silent(address, 'this node', desired.device)
        : undefined;
    default:
      return desired.ask === 'watch' && seen?.to !== undefined && observed.asked.get(address) === 'silent'
        ? silent(address, owner, '')
        : undefined;
  }
}

function silent(address: string, owner: string, device: string): Finding {
  const where = device === '' ? 'ip -br addr' : `ip addr show ${device}`;
  return {
    code: 'floating-unmoved',
    message: `${address} is assigned to ${owner}, but does not answer`,
    next: `on that machine: \`${where}\`, its firewall, and its page at the provider`,
  };
}

/** The maximum age of the last observation. @param calls of one observation */
export function paceMs(
  { take, ask, addresses }: ApiDesired,
  { assigned: known, self, pending }: Pick<ApiObserved, 'assigned' | 'self' | 'pending'>,
  calls: number,
): number {
  const ours = addresses.filter((each) => self !== undefined && known.get(each)?.to === self).length;
  // 1.1 s, so that a request still fits into the sixty calls of a minute.
  if (pending.size > 0) return 1100 * calls;
  // It waits for the answering host, an operator, or the node that takes them from here.
  if (take ? ours < addresses.length : ours > 0) return 3300 * calls;
  if (ours > 0) return 10_000;
  return ask === undefined ? 600_000 : 60_000;
}
