import { isIPv4, isIPv6 } from 'node:net';
import { hostRoute } from '../../host/floating-address.ts';
import type { PluginReport } from '../contract.ts';
import { type BirdDesired, type BirdRetired, EXPORTED } from './desired.ts';
import { type BirdFault, type BirdObserved, PROTOCOL, type RunningBird, waits } from './plan.ts';

/**
 * A change reaches the sessions within milliseconds; a session of a BIRD that starts comes up within its hold time of
 * 9 s. A problem that lasts longer does not end by itself.
 */
export const FAULT_GRACE_MS = 12_000;

export interface BirdReport extends PluginReport {
  /** Whether a neighbour gets all addresses from this node, by BIRD's own tables. */
  readonly exported: boolean;
}

/** @param announced whether our fragment announces */
export function faultOf(
  { sessions }: Pick<RunningBird, 'sessions'>,
  addresses: readonly string[],
  announced: boolean,
): BirdFault | undefined {
  if (addresses.length === 0) return undefined;
  const routes = sessions.flatMap((each) => each.routes);
  if (!announced) return routes.length > 0 ? 'bird-route-by-another' : undefined;
  if (sessions.length === 0) return 'bird-no-session';
  if (sessions.some((each) => !each.up)) return 'bird-session-down';
  // One that was not asked may export them.
  if (sessions.some(({ unasked }) => unasked)) return undefined;
  return lackingIn(sessions, addresses).length === 0 ? undefined : 'bird-route-not-exported';
}

/**
 * What the best session of each family lacks of that family's addresses. Most providers have a session for IPv4 and
 * another one for IPv6.
 */
function lackingIn(sessions: RunningBird['sessions'], addresses: readonly string[]): string[] {
  return [isIPv4, isIPv6].flatMap((isOfFamily) => {
    const own = addresses.filter((each) => isOfFamily(each));
    const lacks = sessions.map(({ routes }) => own.filter((each) => !isIn(routes, each)));
    return lacks.toSorted((one, other) => one.length - other.length)[0] ?? own;
  });
}

function isIn(routes: RunningBird['sessions'][number]['routes'], address: string): boolean {
  return routes.some((each) => each.address === address);
}

function isExported({ sessions }: RunningBird, addresses: readonly string[]): boolean {
  const routes = sessions.flatMap((each) => each.routes);
  return addresses.length > 0 && addresses.every((address) => isIn(routes, address));
}

/** The state observed in BIRD, not the desired one. */
export function reportOf(desired: BirdDesired | BirdRetired, observed: BirdObserved): BirdReport {
  if ('retired' in desired) return { alarms: [], exported: false };
  const { running, fault } = observed;
  if (running === undefined)
    return { seen: 'not announced: BIRD is not running', alarms: [], exported: false };
  const lasting = fault !== undefined && fault.forMs >= FAULT_GRACE_MS;
  return {
    seen: waits(desired, observed) ? `not announced yet: ${desired.wait}` : sightOf(desired, running),
    alarms: [...(lasting ? [findingOf(fault.code, desired, running)] : []), ...holdTimes(desired, running)],
    exported: isExported(running, desired.addresses),
  };
}

/** For this node's record: the code of the problem, or `exported`; undefined: nothing to report. */
export function wordOf(report: BirdReport | undefined): string | undefined {
  // With a hold time that is too long it still announces.
  const fault = report?.alarms.find(({ code }) => code !== 'bird-hold-time');
  return fault?.code ?? (report?.exported === true ? EXPORTED : undefined);
}

/** A machine that dies silently keeps its share of the visitors for as long. */
function holdTimes({ holdTimeS: most }: BirdDesired, { sessions }: RunningBird): PluginReport['alarms'] {
  if (most === undefined) return [];
  return sessions
    .filter(({ holdTimeS }) => holdTimeS !== undefined && (holdTimeS > most || holdTimeS === 0))
    .map(({ name, holdTimeS }) => ({
      code: 'bird-hold-time',
      message:
        holdTimeS === 0
          ? `the session ${name} has no hold time: if this machine dies, its visitors get no answer for ever`
          : `the session ${name} has a hold time of ${holdTimeS} s: if this machine dies, its visitors get no ` +
            `answer for as long`,
      next:
        `in bird.conf set \`hold time ${most};\` in protocol ${name}, then \`birdc configure\`; if the provider ` +
        'does not allow it, set floating.hold_time_s to what it allows',
    }));
}

function sightOf(desired: BirdDesired, running: RunningBird): string {
  const unasked = running.sessions.filter((each) => each.unasked).length;
  const seen = sightOfAsked(desired, running);
  if (unasked === 0) return seen;
  return `${seen}; ${unasked} more sessions were not asked what they export`;
}

function sightOfAsked({ addresses }: BirdDesired, { sessions }: RunningBird): string {
  if (sessions.length === 0) return 'not announced: BIRD has no session with the provider';
  const [given, rest] = [sessions.filter(({ routes }) => routes.length > 0), stateWords(sessions)];
  if (given.length === 0) return `not announced: exported to no session (${rest})`;
  const routes = given.flatMap((each) => each.routes);
  const there = addresses.filter((address) => isIn(routes, address));
  const foreign = [...new Set(routes.map(({ by }) => by))].filter((by) => by !== PROTOCOL);
  const by = foreign.length === 0 ? '' : ` by protocol ${foreign.join(', ')} of bird.conf`;
  const part = there.length === addresses.length ? '' : ` (${there.join(', ')} only)`;
  return `announced${part}: exported to ${given.map(({ name }) => name).join(', ')}${by} (${rest})`;
}

function stateWords(sessions: RunningBird['sessions']): string {
  return sessions.map(({ name, state }) => `${name} ${state === '' ? 'down' : state}`).join(', ');
}

function findingOf(
  code: BirdFault,
  { addresses, why }: BirdDesired,
  running: RunningBird,
): PluginReport['alarms'][number] {
  const [list, first = ''] = [addresses.join(', '), addresses[0]];
  const down = running.sessions.filter(({ up }) => !up);
  const routes = running.sessions.flatMap((each) => each.routes);
  const names = running.sessions.map(({ name }) => name).join(', ');
  switch (code) {
    case 'bird-no-session':
      return {
        code: 'bird-no-session',
        message: `bird.conf has no BGP session, so the provider has no route to ${list} through this node`,
        next: 'add your provider’s session to bird.conf (`bornemisza doctor` names the file), then `birdc configure`',
      };
    case 'bird-session-down': {
      const lost = addresses.filter((address) => !isIn(routes, address));
      const effect =
        lost.length > 0
          ? `the provider has no route to ${lost.join(', ')} through this node`
          : `only the others announce ${list}`;
      return {
        code: 'bird-session-down',
        message: `the session with the provider is not up (${stateWords(down)}): ${effect}`,
        next:
          'compare neighbour, AS numbers and password with your provider: `birdc show protocols all ' +
          `${down[0]?.name}\``,
      };
    }
    case 'bird-route-not-exported': {
      const lacking = lackingIn(running.sessions, addresses);
      const route = hostRoute(lacking[0] ?? first);
      return {
        code: 'bird-route-not-exported',
        message: `${names} does not export ${lacking.join(', ')}: no neighbour has a route to it through this node`,
        next:
          `the session needs an ${route.includes(':') ? 'ipv6' : 'ipv4'} channel with the table of ${PROTOCOL} and ` +
          `an export filter that accepts ${route}: \`birdc show route ${route} all\``,
      };
    }
    case 'bird-route-by-another':
      return {
        code: 'bird-route-by-another',
        message:
          `${list} should be withdrawn (${why}), but ${othersOf(running)} of bird.conf still announces it: ` +
          'requests come here and fail',
        next:
          `accept only our protocol in the export filter: if proto = "${PROTOCOL}" && net ~ [ ${hostRoute(first)} ] ` +
          'then accept; reject; then `birdc configure`',
      };
  }
}

function othersOf({ sessions }: RunningBird): string {
  const names = sessions.flatMap(({ routes }) => routes.map(({ by }) => by));
  return `protocol ${[...new Set(names)].join(', ')}`;
}
