import { createHash } from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';
import { canonicalAddress, hostRoute, isRoutable } from '../../host/floating-address.ts';
import { type PlannedChange, PluginError } from '../contract.ts';
import type { BirdDesired, BirdRetired } from './desired.ts';

/** The direct protocol that carries the floating IPs into BIRD. Enabled: announced; disabled: withdrawn. */
export const PROTOCOL = 'bornemisza_floating';
export const FRAGMENT = 'bornemisza.conf';

export interface ObservedDevice {
  readonly up: boolean;
  /** E.g. `dummy`; undefined: the kernel does not say. */
  readonly kind: string | undefined;
  /** Addresses with their prefix length, e.g. `192.0.2.7/32` or `2001:db8::7/128`. */
  readonly addresses: readonly string[];
}

/** What a running BIRD reports. */
export interface RunningBird {
  /** Digest of the fragment that it has loaded, from the protocol's description; undefined: not loaded. */
  readonly loaded: string | undefined;
  readonly announcing: boolean;
  readonly sessions: readonly BirdSession[];
}

/** A protocol that exports routes to a neighbour: BGP, or what a founder uses instead. */
export interface BirdSession {
  readonly name: string;
  /** The state as BIRD names it, e.g. `Established`. */
  readonly state: string;
  readonly up: boolean;
  /** Our addresses that it exports, each with the protocol that the route comes from. */
  readonly routes: readonly { readonly address: string; readonly by: string }[];
  /** Of BGP: after so many seconds of silence the neighbour gives up the routes. 0: never. */
  readonly holdTimeS?: number | undefined;
  /** There are too many sessions: whether this one exports our addresses is not known. */
  readonly unasked?: true;
}

export interface BirdObserved {
  readonly devices: ReadonlyMap<string, ObservedDevice>;
  readonly fragment: string | undefined;
  /** AS number of this node, from BIRD's sessions or else from the fragment; undefined: not known yet. */
  readonly localAs: number | undefined;
  /** Undefined: no answer at the control socket. */
  readonly running: RunningBird | undefined;
  /** The problem of the announcement, and its duration. */
  readonly fault: { readonly code: BirdFault; readonly forMs: number } | undefined;
}

/** Why the floating IPs are not where they should be. */
export type BirdFault =
  | 'bird-no-session'
  | 'bird-session-down'
  | 'bird-route-not-exported'
  | 'bird-route-by-another';

/** In the order in which they are made. */
export type BirdChange = PlannedChange &
  (
    | { readonly kind: 'withdraw' }
    | { readonly kind: 'device-add'; readonly device: string }
    | { readonly kind: 'device-up'; readonly device: string }
    | { readonly kind: 'device-remove'; readonly device: string }
    | { readonly kind: 'address-add'; readonly device: string; readonly address: string }
    | { readonly kind: 'address-remove'; readonly device: string; readonly address: string }
    | { readonly kind: 'file'; readonly content: string }
    | { readonly kind: 'file-remove' }
    /** `digest`: of the fragment that it should have afterwards; undefined: no fragment. */
    | { readonly kind: 'configure'; readonly digest: string | undefined }
    | { readonly kind: 'start' }
    | { readonly kind: 'announce' }
  );

/** More has no effect at any provider, and some refuse paths with many repetitions. */
const MAX_PREPENDS = 8;

/** Above 240, that of any other `protocol direct`; the filter of bird.conf sees the best route alone. */
const PREFERENCE = 1000;

export interface Fragment {
  readonly content: string;
  /** Digest without the announcement itself: BIRD reads its configuration again only if this differs. */
  readonly digest: string;
}

/**
 * The file that root's bird.conf includes. It can add only the configured addresses to BIRD.
 *
 * @throws PluginError `bird-value-refused` if BIRD could read a value as something else
 */
export function renderFragment(desired: BirdDesired, localAs: number | undefined): Fragment {
  // IFNAMSIZ is 16 with the closing zero.
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/.test(desired.device))
    throw refused('floating device', desired.device);
  for (const address of desired.addresses)
    if (!isRoutable(address) || canonicalAddress(address) !== address)
      throw refused('floating address', address);
  if (!Number.isInteger(desired.rank) || desired.rank < 0) throw refused('rank', String(desired.rank));
  const prepends =
    desired.mode === 'ranked' && localAs !== undefined ? Math.min(desired.rank, MAX_PREPENDS) : 0;
  const path = Array.from({ length: prepends }, () => `    bgp_path.prepend(${localAs});`);
  const [ipv4, ipv6] = [desired.addresses.filter(isIPv4), desired.addresses.filter(isIPv6)];
  const channels = [
    ...(ipv4.length > 0 || ipv6.length === 0 ? channel('ipv4', ipv4, path) : []),
    ...(ipv6.length > 0 ? channel('ipv6', ipv6, path) : []),
  ];
  const build = (digest: string, disabled: boolean): string =>
    [
      '# Written by bornemisza, which restores it after an edit.',
      ...(localAs === undefined || desired.mode === 'equal' ? [] : [`# local AS ${localAs}`]),
      `protocol direct ${PROTOCOL} {`,
      `  description "bornemisza ${digest}";`,
      `  disabled ${disabled ? 'yes' : 'no'};`,
      ...channels,
      `  interface "${desired.device}";`,
      '}',
      '',
    ].join('\n');
  const digest = createHash('sha256').update(build('', false)).digest('hex').slice(0, 16);
  return { content: build(digest, !desired.announce), digest };
}

/** BIRD has a channel for each of both, and no set of prefixes with both. */
function channel(family: 'ipv4' | 'ipv6', addresses: readonly string[], path: readonly string[]): string[] {
  const networks = routesOf(addresses);
  const filter =
    networks.length === 0
      ? ['    reject;']
      : [
          `    if net !~ [ ${networks.join(', ')} ] then reject;`,
          // A founder's own `protocol direct` has the same route: ours is the one that is exported.
          `    preference = ${PREFERENCE};`,
          ...path,
          '    accept;',
        ];
  return [`  ${family} { import filter {`, ...filter, '  }; };'];
}

function routesOf(addresses: readonly string[]): string[] {
  return [...new Set(addresses)].sort().map(hostRoute);
}

/** The AS number in a fragment of ours: known even while BIRD is down. */
export function localAsIn(fragment: string): number | undefined {
  const found = /^# local AS (\d+)$/m.exec(fragment)?.[1];
  return found === undefined ? undefined : Number(found);
}

/**
 * The difference between the desired and the observed state. Pure. A withdrawal comes first, as each millisecond costs
 * requests; an announcement comes last, when everything behind it is ready.
 */
export function planBird(wanted: BirdDesired | BirdRetired, observed: BirdObserved): BirdChange[] {
  if ('retired' in wanted) return planRetirement(wanted, observed);
  const desired = waits(wanted, observed) ? { ...wanted, announce: false } : wanted;
  const fragment = renderFragment(desired, observed.localAs);
  const { running } = observed;
  const changes: BirdChange[] = [];
  const why = `(${desired.why})`;
  if (running !== undefined && running.announcing && !desired.announce) {
    changes.push({ kind: 'withdraw', summary: `floating IPs: withdrawn ${why}` });
  }
  changes.push(...deviceChanges(desired, observed));
  if (observed.fragment !== fragment.content) {
    const verb = observed.fragment === undefined ? 'written' : 'rewritten';
    changes.push({ kind: 'file', content: fragment.content, summary: `${FRAGMENT}: ${verb}` });
  }
  if (running === undefined)
    return [
      ...changes,
      { kind: 'start', summary: 'BIRD is not running: it reads the fragment at its start' },
    ];
  if (running.loaded !== fragment.digest) {
    const reason = running.loaded === undefined ? 'the fragment is not loaded' : 'the fragment changed';
    changes.push({
      kind: 'configure',
      digest: fragment.digest,
      summary: `BIRD reads its configuration: ${reason}`,
    });
  }
  if (!running.announcing && desired.announce) {
    changes.push({ kind: 'announce', summary: `floating IPs: announced ${why}` });
  }
  return changes;
}

/** Whether an announcement is to be made, but not yet. A BIRD that does not run announced before, and does so again. */
export function waits({ announce, wait }: BirdDesired, { running }: Pick<BirdObserved, 'running'>): boolean {
  return announce && wait !== undefined && running?.announcing === false;
}

function deviceChanges(desired: BirdDesired, { devices, fragment }: BirdObserved): BirdChange[] {
  const { device } = desired;
  const present = devices.get(device);
  const wanted = routesOf(desired.addresses);
  const there = present?.addresses ?? [];
  // The configuration named another device before: this host would still answer for an address there.
  const former = deviceIn(fragment ?? '') ?? device;
  const behind = former === device ? [] : (devices.get(former)?.addresses ?? []);
  return [
    ...(present === undefined
      ? [{ kind: 'device-add', device, summary: `device ${device}: added` } as const]
      : []),
    ...(present?.up === false
      ? [{ kind: 'device-up', device, summary: `device ${device}: up` } as const]
      : []),
    ...wanted
      .filter((address) => !there.includes(address))
      .map(
        (address) =>
          ({ kind: 'address-add', device, address, summary: `${address}: added to ${device}` }) as const,
      ),
    ...there.filter((address) => !wanted.includes(address)).map((address) => takeOff(device, address)),
    ...behind.filter((address) => wanted.includes(address)).map((address) => takeOff(former, address)),
  ];
}

function takeOff(device: string, address: string): BirdChange {
  return { kind: 'address-remove', device, address, summary: `${address}: removed from ${device}` };
}

/**
 * The content of our fragment until BIRD has unloaded it: while the file exists, some step is left to do.
 */
const EMPTY_FRAGMENT = '# Written by bornemisza, which is about to remove it.\n';
/** The kinds that we create. Another one belongs to the founder, and stays without the addresses. */
const OWN_KINDS: readonly (string | undefined)[] = ['dummy', 'ifb'];

/**
 * Removes all that this fragment of ours created; the file is removed last, so that each step is repeated until all
 * are done.
 */
function planRetirement({ why }: BirdRetired, { fragment, devices, running }: BirdObserved): BirdChange[] {
  if (fragment === undefined) return [];
  const changes: BirdChange[] = [];
  if (running?.announcing === true)
    changes.push({ kind: 'withdraw', summary: `floating IPs: withdrawn (${why})` });
  const device = deviceIn(fragment) ?? '';
  const there = devices.get(device);
  if (there !== undefined && OWN_KINDS.includes(there.kind))
    changes.push({ kind: 'device-remove', device, summary: `device ${device}: removed (${why})` });
  else
    changes.push(
      ...(there?.addresses ?? [])
        .filter((address) => addressesIn(fragment).includes(address))
        .map((address) => takeOff(device, address)),
    );
  if (running?.loaded !== undefined) {
    changes.push({ kind: 'file', content: EMPTY_FRAGMENT, summary: `${FRAGMENT}: emptied` });
    changes.push({
      kind: 'configure',
      digest: undefined,
      summary: 'BIRD reads its configuration without the fragment',
    });
  }
  return [...changes, { kind: 'file-remove', summary: `${FRAGMENT}: removed` }];
}

function deviceIn(fragment: string): string | undefined {
  return /^ {2}interface "([^"]+)";$/m.exec(fragment)?.[1];
}

/** The addresses that a fragment of ours imports, with their length, e.g. `192.0.2.7/32`. */
export function addressesIn(fragment: string): readonly string[] {
  const sets = fragment.matchAll(/^ {4}if net !~ \[ (.+) \] then reject;$/gm);
  return [...sets].flatMap(([, set = '']) => set.split(', '));
}

function refused(what: string, value: string): PluginError {
  return new PluginError({
    code: 'bird-value-refused',
    message: `${what} ${JSON.stringify(value.slice(0, 80))} is not valid in BIRD's configuration`,
    next: 'correct it under [floating] and run `bornemisza config check`; BIRD is unchanged',
    outcome: 'terminal',
  });
}
