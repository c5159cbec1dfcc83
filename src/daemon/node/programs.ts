import { join } from 'node:path';
import { isGlobalUnicast } from '../../host/public-address.ts';
import { BirdPlugin } from '../../plugins/bird/plugin.ts';
import {
  type AnyPlugin,
  type PlannedChange,
  type Plugin,
  PluginError,
  type PluginReport,
} from '../../plugins/contract.ts';
import { DesiredError } from '../../plugins/couchdb/desired.ts';
import {
  type CertificatesOptions,
  CertificatesPlugin,
  type CertificatesWanted,
} from '../../plugins/certificates/plugin.ts';
import { CouchDbPlugin } from '../../plugins/couchdb/plugin.ts';
import { restartFileOf } from '../../plugins/couchdb/retire.ts';
import type { DnsDesired } from '../../plugins/dns/desired.ts';
import { DnsPlugin } from '../../plugins/dns/plugin.ts';
import { dnsProviderOf } from '../../plugins/dns/providers.ts';
import { FirewallPlugin } from '../../plugins/firewall/plugin.ts';
import { FloatingPlugin } from '../../plugins/floating/plugin.ts';
import { providerOf } from '../../plugins/floating/providers.ts';
import {
  CHECK_HOST,
  EDGE_HEALTH_PATH,
  EDGE_SERVES_PATH,
  WELL_STATUSES,
} from '../../plugins/haproxy/desired.ts';
import { HaproxyPlugin } from '../../plugins/haproxy/plugin.ts';
import { Layer2Plugin } from '../../plugins/layer2/plugin.ts';
import { appBird, appHaproxy, appLayer2 } from '../../roles/app.ts';
import { certificatesOf } from '../../roles/certificates.ts';
import { dbCouchDb, dbHaproxy, unheardNodes } from '../../roles/db.ts';
import { dnsOf } from '../../roles/dns.ts';
import { floatingOf } from '../../roles/floating.ts';
import { firewallOf } from '../../roles/firewall.ts';
import {
  announces,
  apiFloating,
  certificateSettings,
  type Config,
  floatingProvider,
  type Paths,
} from '../config/config.ts';
import { probe } from '../health/probe.ts';
import type { Secrets } from '../identity/secrets.ts';
import type { Role } from '../membership/types.ts';
import type { Clock } from '../clock.ts';
import { VERSION } from '../version.ts';
import { appInput, dbInput } from './inputs.ts';
import { type Look, situationOf } from './look.ts';

/** The dependencies of plugins. */
export interface Surroundings {
  readonly config: Config;
  readonly paths: Paths;
  /** Of this role; read each time, so that new secrets are used at once. */
  readonly secrets: () => Secrets | undefined;
  /** Of the last turn, as some programs ask each second. */
  readonly last: () => Look;
  readonly clock: Clock;
  /** The keys and the certificate of all app nodes. */
  readonly site: CertificatesOptions['site'];
  readonly progress: (program: string, text: string) => void;
}

/** One managed program: its one writer, and its desired state. */
export interface Program {
  readonly name: string;
  /** Whose daemon is its one writer. */
  readonly roles: readonly Role[];
  /** A program that is not enabled is kept while its plugin finds something of ours that a former mode left. */
  enabled(config: Config): boolean;
  make(surroundings: Surroundings): AnyPlugin;
  /** Pure. Undefined: not known yet, do not change the program. @throws PluginError */
  desired(look: Look): unknown;
}

/** Connects a role's desired state with its plugin. */
export function program<D, O, C extends PlannedChange, K, R extends PluginReport>(of: {
  readonly name: string;
  readonly roles: readonly Role[];
  enabled(config: Config): boolean;
  make(surroundings: Surroundings): Plugin<D, O, C, K, R>;
  desired(look: Look): D | undefined;
}): Program {
  return of;
}

/** For an input that may be missing at first. */
const from =
  <I, D>(input: (look: Look) => I | undefined, desired: (input: I) => D) =>
  (look: Look): D | undefined => {
    const given = input(look);
    return given === undefined ? undefined : desired(given);
  };

/** All programs that a node may manage. A new one needs an entry here, its folder, policy and configuration. */
export const PROGRAMS: readonly Program[] = [
  program({
    name: 'haproxy',
    roles: ['app', 'db'],
    enabled: () => true,
    make: ({ config, paths }) =>
      new HaproxyPlugin({
        instance: config.role,
        directory: paths.haproxyFiles,
        runDirectory: paths.haproxyRun,
      }),
    desired: (look) =>
      look.scene.config.role === 'app' ? from(appInput, appHaproxy)(look) : from(dbInput, dbHaproxy)(look),
  }),
  program({
    name: 'bird',
    roles: ['app'],
    enabled: announces,
    make: ({ paths }) =>
      new BirdPlugin({ fragmentDirectory: paths.birdFragments, controlSocket: paths.birdSocket }),
    desired: from(appInput, appBird),
  }),
  program({
    name: 'layer2',
    roles: ['app'],
    enabled: ({ floating }) => floating.mode === 'layer2',
    make: () => new Layer2Plugin(),
    desired: from(appInput, appLayer2),
  }),
  program({
    name: 'floating',
    roles: ['app'],
    enabled: ({ floating }) => floating.mode === 'api',
    make: ({ config, last }) =>
      new FloatingPlugin({
        provider: providerOf(floatingProvider(config)),
        desired: () => floatingIps(last()),
        ask: (address) => edgeAnswers(config, address, EDGE_SERVES_PATH, 500),
      }),
    desired: floatingIps,
  }),
  program({
    name: 'firewall',
    roles: ['app', 'db'],
    enabled: () => true,
    make: ({ paths }) => new FirewallPlugin(paths.firewall),
    desired: ({ scene, view }) => firewallOf(view, scene.config.network.private_network),
  }),
  program({
    name: 'dns',
    roles: ['app'],
    enabled: ({ dns }) => dns.provider !== 'off',
    make: makeDns,
    desired: dnsRecords,
  }),
  program({
    name: 'certificates',
    roles: ['app'],
    enabled: ({ certificates }) => certificates.names.length > 0,
    make: ({ last, site, clock }) =>
      new CertificatesPlugin({
        userAgent: `bornemisza/${VERSION}`,
        desired: () => siteCertificate(last()),
        site,
        wallMs: () => clock.wallMs(),
        nowMs: () => clock.monotonicMs(),
        random: Math.random,
      }),
    desired: siteCertificate,
  }),
  program({
    name: 'couchdb',
    roles: ['db'],
    enabled: () => true,
    make: makeCouchDb,
    desired: from(dbInput, refusing(dbCouchDb)),
  }),
];

function siteCertificate({ scene, view }: Look): CertificatesWanted {
  return certificatesOf(view, scene.roster.removedApps, certificateSettings(scene.config));
}

function makeDns({ config, last }: Surroundings): DnsPlugin {
  return new DnsPlugin({
    provider: dnsProviderOf(config.dns),
    desired: () => dnsRecords(last()),
    ask: (address) => edgeAnswers(config, address, EDGE_HEALTH_PATH, config.health.timeout_ms),
    nowMs: () => performance.now(),
  });
}

/** Checks a node with a dead daemon from outside, like a visitor. */
async function edgeAnswers({ edge }: Config, address: string, path: string, ms: number): Promise<boolean> {
  const asked = { kind: 'http', tls: true, host: CHECK_HOST, statuses: WELL_STATUSES } as const;
  return (await probe({ ...asked, address, port: edge.https_port, path }, ms)).passed;
}

function floatingIps({ scene, view, floating }: Look) {
  return floatingOf(view, situationOf(scene), floating, apiFloating(scene.config));
}

function dnsRecords({ scene, view }: Look): DnsDesired | undefined {
  const { node, dns, floating, certificates } = scene.config;
  if (dns.zone === undefined) return undefined;
  return dnsOf(view, {
    cluster: node.cluster,
    zone: dns.zone.toLowerCase(),
    names: dns.names,
    ttlS: dns.ttl_s,
    floating: floating.mode === 'off' ? [] : floating.addresses,
    challenges: scene.site?.answers ?? [],
    provedNames: certificates.challenge === 'dns-01' ? certificates.names : [],
    isPublic: isGlobalUnicast,
  });
}

function makeCouchDb({ config, paths, secrets, last, progress }: Surroundings): CouchDbPlugin {
  return new CouchDbPlugin({
    credentials: () => {
      const known = secrets();
      return known?.kind === 'db'
        ? { name: known.admin.user, password: known.admin.password }
        : { name: '', password: '' };
    },
    appUser: () => {
      const known = secrets();
      return known?.kind === 'db' ? { name: known.app.user, password: known.app.password } : undefined;
    },
    unheard: () => unheardNodes(last().view),
    baseUrl: `http://127.0.0.1:${config.couchdb.http_port}`,
    configDirectory: paths.couchdbFiles,
    markerFile: join(paths.couchdbData, 'data', 'bornemisza-identity.json'),
    restartFile: restartFileOf(paths),
    onProgress: (text) => progress('couchdb', text),
  });
}

/** Only the operator can correct a setting that is not allowed in CouchDB's files. */
function refusing<I, D>(desired: (input: I) => D): (input: I) => D {
  return (input) => {
    try {
      return desired(input);
    } catch (error) {
      if (!(error instanceof DesiredError)) throw error;
      throw new PluginError({
        code: error.code,
        message: error.message,
        next: 'correct [couchdb] in /etc/bornemisza/db.toml, then systemctl reload bornemisza@db',
        outcome: 'terminal',
        cause: error,
      });
    }
  };
}
