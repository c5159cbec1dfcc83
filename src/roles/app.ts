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

/** What of the configuration an app node's policy needs. */
export interface AppRoleConfig {
  readonly cluster: string;
  readonly privateAddress: string;
  readonly httpsPort: number;
  readonly httpPort: number;
  readonly doorPort: number;
  readonly statsPort: number;
  /** Where edges share what they count, see the plugin. */
  readonly sharingPort: number;
  readonly databasePort: number;
  /** Of the account at the CA, see the plugin. */
  readonly challengeThumbprint?: string | undefined;
  /** The db nodes' door for app nodes. */
  readonly dbDoorPort: number;
  readonly floating: {
    readonly mode: FloatingMode;
    /** Carries them: a device of their own, or the public one in mode `layer2`. */
    readonly device: string;
    readonly addresses: readonly string[];
  };
  readonly services: readonly {
    readonly name: string;
    readonly port: number;
    readonly prefix: string;
    readonly healthPath: string;
    readonly healthHost?: string;
    readonly healthStatus?: readonly number[];
    readonly limit?: EdgeService['limit'];
    readonly local: boolean;
  }[];
}

export interface AppInput {
  readonly view: EffectiveView;
  readonly config: AppRoleConfig;
  readonly certificates: Certificates;
  /**
   * Services whose check here fails by its answer or a refusal. One that gives no answer in time may be slow and no
   * more.
   */
  readonly answerWrongly: readonly string[];
  /** Whether this node draws the floating IPs: decided once, by {@link floatingDecision}. */
  readonly announcement: Holding;
}

/** What the decision about the floating IPs is made from. */
export interface FloatingInput {
  readonly view: EffectiveView;
  readonly local: AppSituation;
}

/** Whether this node draws the floating IP, by the means of its mode. */
export function floatingDecision(mode: FloatingMode, input: FloatingInput): Holding {
  if (mode !== 'layer2' && mode !== 'api') return { ...announcementOf(input), rivals: [] };
  // One holds at most, and the records do not say whose HAProxy is only slow.
  const edge = input.local.edge === 'answers' ? 'answers' : 'fails';
  const own = announcementOf({ ...input, local: { ...input.local, edge } });
  return mode === 'api' ? holdingOf(input, own, isReady) : holdingOf(input, own);
}

/**
 * Whether this node is fit to draw the floating IP; with BGP, all that are do.
 *
 * The last one standing keeps it though its own check fails, only when every other candidate says *down* itself and
 * is still heard. An overload makes the HAProxy of all edges slow at once: that each withdraws would make it dark for
 * everybody. Not heard is not down. Heard is who the detector, which probes each second, holds alive: the newest
 * signed record of such a member is its word of now, however old, since an unchanged record is not sent again.
 */
export function announcementOf({ view, local }: FloatingInput): Announcement {
  if (local.leaving) return { announce: false, why: 'this node is going' };
  if (local.maintenance) return { announce: false, why: 'maintenance' };
  const self = view.members.find((member) => member.self);
  // The others do not see it among the candidates, so they would not let go for it.
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
          : 'down, but so says every other app node: last one standing',
    };
  }
  const names = doubtful.map((member) => member.record.name).join(', ');
  const what = silent ? 'HAProxy gives no answer in time here' : 'this node is down';
  return { announce: false, why: `${what}, and ${names} may be up` };
}

export function appHaproxy({ view, config, certificates, answerWrongly }: AppInput): AppHaproxy {
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
    certificates,
    revoked: view.revoked.map(({ serialHex, address }) => ({ serialHex, address })),
    revokedAuthorities: view.revokedAuthorities,
    knownCertificates: view.knownCertificates,
    edge: {
      addresses: ['*'],
      httpsPort: config.httpsPort,
      httpPort: config.httpPort,
      hstsMaxAgeSeconds: undefined,
      challengeThumbprint: config.challengeThumbprint,
    },
    doorPort: config.doorPort,
    services: config.services.map((service) => ({
      name: service.name,
      prefix: service.prefix,
      healthPath: service.healthPath,
      ...(service.healthHost !== undefined && { healthHost: service.healthHost }),
      ...(service.healthStatus !== undefined && { healthStatus: service.healthStatus }),
      ...(service.limit !== undefined && { limit: service.limit }),
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
  };
}

/** All edges that may come back: who is away for a while costs no reload. */
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

/** A node that never said that it carries a service is no server of it; one that is down there gets nothing new. */
function serviceServer(
  member: EffectiveMember,
  service: string,
  config: AppRoleConfig,
  anybodyWell: boolean,
): PeerGroup['servers'] {
  const own = config.services.find((each) => each.name === service);
  const said = member.record.services.find((each) => each.name === service);
  // One that was not heard yet said nothing either way: while a guard keeps it, its check decides.
  const kept = !Number.isFinite(member.freshMs) && member.rotation !== 'out';
  if (member.self ? own?.local !== true : said === undefined && !kept) return [];
  const server = serverOf(member, config.doorPort);
  // The node as a whole may be down for a reason that is not this service’s (it finds no database): its own word about
  // the service counts, and HAProxy's check beside it.
  const serving = said?.health === 'up' && member.record.health === 'down' && !member.record.maintenance;
  if (serving && server.duty === 'maint' && member.state !== 'left') {
    return [{ ...server, duty: 'ready', why: `${service} is up there` }];
  }
  if (said?.health !== 'down' || !(server.duty === 'ready' || onlySaysDown(member))) return [server];
  // It knows sooner than any check from here. While all say so, a check decides: they may be wrong, and nobody would be
  // left.
  if (member.state === 'alive' && anybodyWell)
    return [{ ...server, duty: 'maint', why: `says that ${service} is down` }];
  const lastResort = !anybodyWell && { lastResort: true };
  return [{ ...server, duty: 'out-when-down', why: `says that ${service} is down`, ...lastResort }];
}

/** Nothing speaks against it but its own word on its health, which a busy machine gives in error. */
function onlySaysDown({ state, record, rotation }: EffectiveMember): boolean {
  const here = state === 'alive' || state === 'suspect';
  return here && rotation === 'out' && record.health === 'down' && !record.maintenance;
}

/** While no db node says that it is well, a check decides for those that say they are down. */
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
  };
}

export function appBird({ view, config, announcement }: AppInput): BirdDesired | BirdRetired {
  const { announce, why } = announcement;
  const { mode, device, addresses } = config.floating;
  if (mode !== 'bgp' && mode !== 'ranked') return { retired: true, why: modeWord(mode) };
  const rank = view.members.find((member) => member.self)?.rank ?? 0;
  return { device, addresses, mode: mode === 'ranked' ? 'ranked' : 'equal', rank, announce, why };
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
