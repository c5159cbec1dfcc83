import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isGlobalUnicast } from '../../host/public-address.ts';
import { BirdPlugin } from '../../plugins/bird/plugin.ts';
import { type PlannedChange, type Plugin, PluginError, type PluginReport } from '../../plugins/contract.ts';
import { DesiredError } from '../../plugins/couchdb/desired.ts';
import {
  type CertificatesOptions,
  CertificatesPlugin,
  type CertificatesWanted,
} from '../../plugins/certificates/plugin.ts';
import { CouchDbPlugin } from '../../plugins/couchdb/plugin.ts';
import { CloudflareProvider } from '../../plugins/dns/cloudflare.ts';
import type { DnsDesired } from '../../plugins/dns/desired.ts';
import { DnsPlugin } from '../../plugins/dns/plugin.ts';
import type { DnsProvider } from '../../plugins/dns/provider.ts';
import { Rfc2136Provider } from '../../plugins/dns/rfc2136.ts';
import { FirewallPlugin } from '../../plugins/firewall/plugin.ts';
import { CHECK_HOST, EDGE_HEALTH_PATH, WELL_STATUSES } from '../../plugins/haproxy/desired.ts';
import { HaproxyPlugin } from '../../plugins/haproxy/plugin.ts';
import { Layer2Plugin } from '../../plugins/layer2/plugin.ts';
import { appBird, appHaproxy, appLayer2 } from '../../roles/app.ts';
import { certificatesOf } from '../../roles/certificates.ts';
import { dbCouchDb, dbHaproxy, unheardNodes } from '../../roles/db.ts';
import { dnsOf } from '../../roles/dns.ts';
import type { EffectiveView } from '../../roles/effective.ts';
import { firewallOf } from '../../roles/firewall.ts';
import { announces, type Config, type Paths } from '../config/config.ts';
import { probe } from '../health/probe.ts';
import type { Secrets } from '../identity/secrets.ts';
import type { Role } from '../membership/types.ts';
import type { Clock } from '../clock.ts';
import { VERSION } from '../version.ts';
import { appInput, dbInput } from './inputs.ts';
import type { Look } from './look.ts';

/** What a plugin may be given when it is made. */
export interface Surroundings {
  readonly config: Config;
  readonly paths: Paths;
  /** Of this role; asked each time, so that rolled secrets are used at once. */
  readonly secrets: () => Secrets | undefined;
  /** The last turn's: a program that asks each second has no look made for it. */
  readonly last: () => Look;
  readonly clock: Clock;
  /** The keys and the certificate that all app nodes share. */
  readonly site: CertificatesOptions['site'];
  readonly progress: (program: string, text: string) => void;
}

/** What is desired, seen and changed stays between a program's role and its plugin. */
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyPlugin = Plugin<any, any, PlannedChange, any>;

/** One managed program: one writer, and what it is to be. */
export interface Program {
  readonly name: string;
  /** Whose daemon is its one writer. */
  readonly roles: readonly Role[];
  /** One that is not enabled is kept as long as its plugin finds something of ours that a former mode left. */
  enabled(config: Config): boolean;
  make(surroundings: Surroundings): AnyPlugin;
  /** Pure. Undefined: not known yet, leave the program alone. @throws PluginError */
  desired(look: Look): unknown;
}

/** Ties what a role desires to what its plugin takes. */
export function program<D, O, C extends PlannedChange, K, R extends PluginReport>(of: {
  readonly name: string;
  readonly roles: readonly Role[];
  enabled(config: Config): boolean;
  make(surroundings: Surroundings): Plugin<D, O, C, K, R>;
  desired(look: Look): D | undefined;
}): Program {
  return of;
}

/** Of an input that may not be there yet. */
const from =
  <I, D>(input: (look: Look) => I | undefined, desired: (input: I) => D) =>
  (look: Look): D | undefined => {
    const given = input(look);
    return given === undefined ? undefined : desired(given);
  };

/**
 * All programs that a node may keep. A new one is one entry here, its folder, its role's policy and its configuration.
 */
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
    desired: ({ scene, view }) => dnsRecords(scene.config, view),
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
  const { certificates, edge } = scene.config;
  const { names, profile, directory, contact, terms, ca_file: caFile } = certificates;
  return certificatesOf(view, scene.roster.removedApps, {
    ...{ names, profile, directory, contact, caFile },
    termsAgreed: terms === 'agreed',
    httpPort: edge.http_port,
    httpsPort: edge.https_port,
  });
}

function makeDns({ config, last }: Surroundings): DnsPlugin {
  const { edge, health } = config;
  const asked = { kind: 'http', tls: true, host: CHECK_HOST, statuses: WELL_STATUSES } as const;
  return new DnsPlugin({
    provider: dnsProvider(config),
    desired: () => dnsRecords(config, last().view),
    // Of a node whose daemon is dead, as visitors come to it.
    ask: async (address) => {
      const target = { ...asked, address, port: edge.https_port, path: EDGE_HEALTH_PATH };
      return (await probe(target, health.timeout_ms)).passed;
    },
    nowMs: () => performance.now(),
  });
}

function dnsRecords({ node, dns, floating }: Config, view: EffectiveView): DnsDesired | undefined {
  if (dns.zone === undefined) return undefined;
  return dnsOf(view, {
    cluster: node.cluster,
    zone: dns.zone.toLowerCase(),
    names: dns.names,
    ttlS: dns.ttl_s,
    floating: floating.mode === 'off' ? [] : floating.addresses,
    isPublic: isGlobalUnicast,
  });
}

/** The configuration has judged that what a provider needs is there. */
function dnsProvider({ dns }: Config): DnsProvider {
  const { zone_id = '', token_file = '', server = '', port, key_file = '' } = dns;
  const zone = (dns.zone ?? '').toLowerCase();
  return dns.provider === 'cloudflare'
    ? new CloudflareProvider({ zone, zoneId: zone_id, tokenFile: token_file })
    : new Rfc2136Provider({ zone, server, port, keyFile: key_file });
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

/**
 * Ends CouchDB for good after its node document is gone: a start with its data would put it back into the cluster, and
 * until it stops the others stay connected with it. Without vm.args its unit does not start; the data stays.
 */
export async function retireCouchDb(paths: Pick<Paths, 'couchdbFiles' | 'run'>): Promise<void> {
  await rm(join(paths.couchdbFiles, 'vm.args'), { force: true });
  await writeFile(restartFileOf(paths), 'stop: this node has left\n', { mode: 0o640 });
}

/** A path unit restarts CouchDB and removes it. */
function restartFileOf({ run }: Pick<Paths, 'run'>): string {
  return join(run, 'restart-couchdb');
}

/** A setting that cannot stand in CouchDB's files is its owner's to correct. */
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
