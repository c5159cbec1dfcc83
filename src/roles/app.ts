import type { BirdDesired, BirdRetired } from '../plugins/bird/desired.ts';
import type {
  AppHaproxy,
  Certificates,
  Duty,
  EdgeService,
  LimitSharing,
  PeerGroup,
} from '../plugins/haproxy/desired.ts';
import type { Layer2Desired } from '../plugins/layer2/desired.ts';
import type { EffectiveMember, EffectiveView, Rotation } from './effective.ts';
import { type Holding, holdingOf, isReady } from './holder.ts';
import type { Announcement, AppSituation } from './situation.ts';

export type FloatingMode = 'off' | 'bgp' | 'ranked' | 'layer2' | 'api';

/** The part of the configuration that an app node's policy reads. */
export interface AppRoleConfig {
  readonly cluster: string;
  readonly privateAddress: string;
  readonly httpsPort: number;
  readonly httpPort: number;
  readonly doorPort: number;
  readonly statsPort: number;
  /** Where the edges share their counts, see plugins/haproxy/desired.ts. */
  readonly sharingPort: number;
  readonly databasePort: number;
  /** Of Strict-Transport-Security; undefined: no such header. */
  readonly hstsMaxAgeSeconds?: number | undefined;
  /** The founder's own parts of HAProxy's configuration. */
  readonly snippets?: AppHaproxy['snippets'];
  /** See plugins/haproxy/desired.ts. */
  readonly statisticsPassword?: string | null | undefined;
  /** HTML for errors of HAProxy itself. */
  readonly errorPage?: string | undefined;
  /** Of the account at the CA, see plugins/haproxy/desired.ts. */
  readonly challengeThumbprint?: string | undefined;
  /** The db nodes' door for app nodes. */
  readonly dbDoorPort: number;
  readonly floating: {
    readonly mode: FloatingMode;
    /** The device of the floating IPs: one of their own, or the public one in mode `layer2`. */
    readonly device: string;
    readonly addresses: readonly string[];
    /** The longest hold time of BGP that is no alarm, seconds. */
    readonly holdTimeS?: number;
  };
  readonly services: readonly {
    readonly name: string;
    readonly port: number;
    readonly prefix: string;
    readonly healthPath: string;
    readonly healthHost?: string;
    readonly healthStatus?: readonly number[];
    readonly health?: EdgeService['health'];
    readonly limit?: EdgeService['limit'];
    readonly timeoutSeconds?: number;
    readonly maxBodyKb?: number;
    readonly local: boolean;
  }[];
}

export interface AppInput {
  readonly view: EffectiveView;
  readonly config: AppRoleConfig;
  readonly certificates: Certificates;
  /**
   * Services whose check here fails by a wrong answer or a refusal. A service without an answer in time may only be
   * slow.
   */
  readonly answerWrongly: readonly string[];
  /** Whether the operator wants every request in the log. */
  readonly requestsLogged: boolean;
  /** Whether this node announces the floating IPs: decided once, by {@link floatingDecision}. */
  readonly announcement: Holding;
}

/** The input of the decision about the floating IPs. */
interface FloatingInput {
  readonly view: EffectiveView;
  readonly local: AppSituation;
}

/** Whether this node announces the floating IP, in its mode. */
export function floatingDecision(mode: FloatingMode, input: FloatingInput): Holding {
  if (mode !== 'layer2' && mode !== 'api') return { ...announcementOf(input), rivals: [] };
  // At most one node holds it, and the records do not say whose HAProxy is only slow.
  const edge = input.local.edge === 'answers' ? 'answers' : 'fails';
  const own = announcementOf({ ...input, local: { ...input.local, edge } });
  return mode === 'api' ? holdingOf(input, own, isReady) : holdingOf(input, own);
}

/**
 * Whether this node may announce the floating IP; with BGP, all nodes that may do so.
 *
 * The last candidate keeps it although its own check fails, only if every other candidate is reachable and reports
 * *down* itself. An overload makes the HAProxy of all edges slow at once: if each withdrew, the site would be
 * unreachable for everybody. Unreachable is not down. A member is reachable while the detector, which probes each
 * second, holds it alive: its newest signed record is current, however old, since an unchanged record is not resent.
 */
export function announcementOf({ view, local }: FloatingInput): Announcement {
  if (local.leaving) return { announce: false, why: 'this node is leaving' };
  if (local.maintenance) return { announce: false, why: 'maintenance' };
  const self = view.members.find((member) => member.self);
  // The others do not count it among the candidates, so they would not withdraw in its favour.
  if (self?.guard === 'namesake') return { announce: false, why: self.reason };
  if (local.edge === 'fails') return { announce: false, why: 'the check of HAProxy is down here' };
  const silent = local.edge === 'silent';
  if (local.health === 'up' && !silent) return { announce: true, why: 'this node is up' };
  const others = view.members.filter((member) => !member.self && member.record.role === 'app');
  const candidates = others.filter((member) => member.state !== 'left' && !member.record.maintenance);
  // An edge that answers, even for a node that is down, is better than one that is silent.
  const saysDown = ({ record }: EffectiveMember): boolean =>
    (silent ? saysOf(record, 'haproxy') : record.health) === 'down';
  const surelyDown = (member: EffectiveMember): boolean =>
    view.synced && member.state === 'alive' && saysDown(member);
  const doubtful = candidates.filter((member) => !surelyDown(member));
  if (doubtful.length === 0) {
    return {
      announce: true,
      why:
        candidates.length === 0
          ? 'down, but the only app node'
          : 'down, but every other app node reports down too: last candidate',
    };
  }
  const names = doubtful.map((member) => member.record.name).join(', ');
  const what = silent ? 'HAProxy does not answer in time here' : 'this node is down';
  return { announce: false, why: `${what}, and ${names} may be up` };
}

export function appHaproxy(input: AppInput): AppHaproxy {
  const { view, config, certificates, answerWrongly, requestsLogged } = input;
  const apps = view.members.filter((member) => member.record.role === 'app');
  const databases = view.members.filter((member) => member.record.role === 'db');
  const anybodyWell = (service: string): boolean =>
    apps.some(
      ({ state, record }) => state === 'alive' && saysOf(record, service) === 'up' && !record.maintenance,
    );
  return {
    instance: 'app',
    privateAddress: config.privateAddress,
    statsPort: config.statsPort,
    statisticsPassword: config.statisticsPassword,
    certificates,
    revoked: view.revoked.map(({ serialHex, address }) => ({ serialHex, address })),
    revokedAuthorities: view.revokedAuthorities,
    knownCertificates: view.knownCertificates,
    edge: {
      addresses: ['*'],
      httpsPort: config.httpsPort,
      httpPort: config.httpPort,
      hstsMaxAgeSeconds: config.hstsMaxAgeSeconds,
      challengeThumbprint: config.challengeThumbprint,
    },
    snippets: config.snippets,
    errorPage: config.errorPage,
    requestsLogged,
    doorPort: config.doorPort,
    services: config.services.map((service) => ({
      name: service.name,
      prefix: service.prefix,
      healthPath: service.healthPath,
      ...(service.healthHost !== undefined && { healthHost: service.healthHost }),
      ...(service.healthStatus !== undefined && { healthStatus: service.healthStatus }),
      ...(service.health !== undefined && { health: service.health }),
      ...(service.limit !== undefined && { limit: service.limit }),
      ...(service.timeoutSeconds !== undefined && { timeoutSeconds: service.timeoutSeconds }),
      ...(service.maxBodyKb !== undefined && { maxBodyKb: service.maxBodyKb }),
      localPort: service.local ? service.port : undefined,
      ...(answerWrongly.includes(service.name) && { answersWrongly: true }),
      peers: {
        verifySuffix: `app.${config.cluster}.internal`,
        servers: apps.flatMap((member) =>
          serviceServer(member, service.name, config, anybodyWell(service.name)),
        ),
      },
    })),
    sharing: sharingOf(apps, config),
    databasePort: config.databasePort,
    databases: databaseGroup(databases, config),
    doors: peerGroup(
      apps.filter(({ self }) => !self),
      'app',
      config.cluster,
      config.doorPort,
    ),
  };
}

/** All edges that may return: an edge that is away for a while causes no reload. */
function sharingOf(apps: readonly EffectiveMember[], config: AppRoleConfig): LimitSharing | undefined {
  const self = apps.find((member) => member.self);
  if (self === undefined || config.services.every(({ limit }) => limit === undefined)) return undefined;
  const others = apps.filter((member) => !member.self && member.state !== 'left');
  return {
    host: hostOf(self),
    port: config.sharingPort,
    verifySuffix: `app.${config.cluster}.internal`,
    edges: others.map((member) => ({ name: hostOf(member), address: member.record.address })),
  };
}

/** A node that never reported a service is no server of it; a node whose instance is down gets no new requests. */
function serviceServer(
  member: EffectiveMember,
  service: string,
  config: AppRoleConfig,
  anybodyWell: boolean,
): PeerGroup['servers'] {
  const own = config.services.find((each) => each.name === service);
  const said = member.record.services.find((each) => each.name === service);
  // A member without a report yet: while a guard keeps it, its check decides.
  const kept = !Number.isFinite(member.freshMs) && member.rotation !== 'out';
  if (member.self ? own?.local !== true : said === undefined && !kept) return [];
  const server = serverOf(member, config.doorPort);
  // The node as a whole can be down for a reason outside of this service (it finds no database): its report about the
  // service counts, together with HAProxy's check.
  const serving = said?.health === 'up' && member.record.health === 'down' && !member.record.maintenance;
  if (serving && server.duty === 'maint' && member.state !== 'left') {
    return [{ ...server, duty: 'ready', why: `${service} is up there` }];
  }
  if (said?.health !== 'down' || !(server.duty === 'ready' || onlySaysDown(member))) return [server];
  // It knows earlier than any check from here. If all report down, the checks decide: the reports may be wrong, and no
  // server would be left.
  if (member.state === 'alive' && anybodyWell)
    return [{ ...server, duty: 'maint', why: `reports ${service} down` }];
  const lastResort = !anybodyWell && { lastResort: true };
  return [{ ...server, duty: 'out-when-down', why: `reports ${service} down`, ...lastResort }];
}

/** The only reason against it is its own report of its health, which can be wrong on a busy machine. */
function onlySaysDown({ state, record, rotation }: EffectiveMember): boolean {
  const here = state === 'alive' || state === 'suspect';
  return here && rotation === 'out' && record.health === 'down' && !record.maintenance;
}

/** If no db node reports healthy, a check decides for those that report down. */
function databaseGroup(databases: readonly EffectiveMember[], config: AppRoleConfig): PeerGroup {
  const group = peerGroup(databases, 'db', config.cluster, config.dbDoorPort);
  if (databases.some(({ rotation }) => rotation === 'in')) return group;
  const servers = databases.map((member) => ({
    ...serverOf(member, config.dbDoorPort),
    ...(onlySaysDown(member) && { duty: 'out-when-down' as const }),
  }));
  return { ...group, servers };
}

function saysOf({ services }: EffectiveMember['record'], service: string): string | undefined {
  return services.find(({ name }) => name === service)?.health;
}

export function peerGroup(
  members: readonly EffectiveMember[],
  role: string,
  cluster: string,
  port: number,
): PeerGroup {
  return {
    verifySuffix: `${role}.${cluster}.internal`,
    servers: members.map((member) => serverOf(member, port)),
  };
}

const DUTIES: Readonly<Record<Rotation, Duty>> = {
  in: 'ready',
  unwatched: 'out-when-down',
  drain: 'drain',
  out: 'maint',
};

const hostOf = ({ record }: EffectiveMember): string => record.name.split('/')[0] ?? record.name;

function serverOf(member: EffectiveMember, port: number): PeerGroup['servers'][number] {
  const { record, rotation, reason } = member;
  return {
    name: hostOf(member),
    address: record.address,
    port,
    duty: DUTIES[rotation],
    why: reason,
    ...(member.silent === true && { silent: true }),
  };
}

export function appBird({ view, config, announcement }: AppInput): BirdDesired | BirdRetired {
  const { announce, why, wait } = announcement;
  const { mode, device, addresses, holdTimeS } = config.floating;
  if (mode !== 'bgp' && mode !== 'ranked') return { retired: true, why: modeWord(mode) };
  const rank = view.members.find((member) => member.self)?.rank ?? 0;
  const times = holdTimeS === undefined ? {} : { holdTimeS };
  return {
    device,
    addresses,
    mode: mode === 'ranked' ? 'ranked' : 'equal',
    rank,
    ...times,
    announce,
    why,
    wait,
  };
}

export function appLayer2({ config, announcement }: AppInput): Layer2Desired {
  const { announce, rivals, why } = announcement;
  const { mode, device, addresses } = config.floating;
  return mode === 'layer2'
    ? { device, addresses, hold: announce, rivals, why }
    : { device: '', addresses: [], hold: false, rivals: [], why: modeWord(mode) };
}

function modeWord(mode: FloatingMode): string {
  return `floating.mode is "${mode}"`;
}
