import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BirdPlugin } from '../../plugins/bird/index.ts';
import { readIfPresent } from '../../host/files.ts';
import { PluginError } from '../../plugins/contract.ts';
import { type CouchDbDesired, DesiredError, type DesiredFacts } from '../../plugins/couchdb/desired.ts';
import { CouchDbPlugin, type CouchDbStatus } from '../../plugins/couchdb/plugin.ts';
import type { Certificates, HaproxyDesired } from '../../plugins/haproxy/desired.ts';
import { HaproxyPlugin } from '../../plugins/haproxy/index.ts';
import { isFinding, readSite } from '../../plugins/haproxy/site-certificate.ts';
import { Layer2Plugin } from '../../plugins/layer2/index.ts';
import { appDesired, type AppInput, drawnBy } from '../../roles/app.ts';
import { dbCouchDb, dbHaproxy, type DbInput, unheardNodes } from '../../roles/db.ts';
import type { EffectiveView } from '../../roles/effective.ts';
import { PROGRAMS } from '../../roles/index.ts';
import type { Announcement, AppSituation } from '../../roles/situation.ts';
import { announces, type Config, floatingDevice, type Paths } from '../config/config.ts';
import type { Identity } from '../identity/identity.ts';
import type { Reconciler } from '../reconciler/reconciler.ts';

export interface NodePluginsDependencies {
  readonly paths: Paths;
  readonly identity: Identity;
  readonly view: () => EffectiveView;
  readonly situation: () => AppSituation;
  /** The operator said leave. A stop of the daemon is none: data stays. */
  readonly departing: () => boolean;
  readonly onCouchDb: (status: CouchDbStatus) => void;
  readonly onProgress: (text: string) => void;
}

/** The plugins of one role, and what each of them should make: a role's policy over the view of now. */
export class NodePlugins {
  readonly #dependencies: NodePluginsDependencies;
  #config: Config;
  #couchDbPlugin: CouchDbPlugin | undefined;
  #couchDbRetired = false;
  #couchDbStatus: CouchDbStatus | undefined;
  #haproxy: HaproxyPlugin | undefined;
  #certificates: Certificates | undefined;
  #siteCertificateEndMs: number | undefined;

  constructor(config: Config, dependencies: NodePluginsDependencies) {
    this.#config = config;
    this.#dependencies = dependencies;
  }

  /**
   * Reads the certificates that HAProxy shows. Called at the start, after a renewal, and with each reload.
   *
   * @returns whether they differ from before
   */
  async readCertificates(): Promise<boolean> {
    const { identity } = this.#dependencies;
    const key = await identity.tlsKeyPem();
    const file = this.#config.role === 'app' ? this.#config.edge.certificate : undefined;
    const site = file === undefined ? { edge: undefined } : await readEdgeCertificate(file);
    const read: Certificates = {
      node: `${identity.chainPem.trim()}\n${key}`,
      ca: identity.rootsPem,
      ...site,
    };
    const differs = JSON.stringify(read) !== JSON.stringify(this.#certificates);
    this.#certificates = read;
    this.#siteCertificateEndMs = site.edge === undefined ? undefined : endOf(site.edge);
    return differs;
  }

  /** When the founder's own certificate for the site ends, in ms since the epoch; undefined where there is none. */
  get siteCertificateEndMs(): number | undefined {
    return this.#siteCertificateEndMs;
  }

  /** Whether a process of HAProxy is left that shows and trusts what it was started with. */
  async hasOldHaproxies(): Promise<boolean> {
    return (await this.#haproxy?.hasOldWorkers()) ?? false;
  }

  reconfigure(config: Config): void {
    this.#config = config;
    this.#couchDbPlugin?.askAgain();
  }

  /** Besides the programs of the mode of now those of a former one, where it left something. */
  async addTo(reconciler: Reconciler): Promise<void> {
    const { paths, onCouchDb, onProgress } = this.#dependencies;
    const { role, couchdb } = this.#config;
    const programs = PROGRAMS[role];
    if (programs.includes('haproxy')) {
      const haproxy = new HaproxyPlugin({
        instance: role,
        directory: paths.haproxyFiles,
        runDirectory: paths.haproxyRun,
      });
      this.#haproxy = haproxy;
      reconciler.add(haproxy, () => (role === 'app' ? this.#app()?.haproxy : this.#dbHaproxy()));
    }
    if (programs.includes('bird')) {
      const bird = new BirdPlugin({
        fragmentDirectory: paths.birdFragments,
        controlSocket: paths.birdSocket,
      });
      if (announces(this.#config) || (await mayBe(bird.leftBehind())))
        reconciler.add(bird, () => this.#app()?.bird);
    }
    if (programs.includes('layer2')) {
      const layer2 = new Layer2Plugin();
      if (this.#config.floating.mode === 'layer2' || (await mayBe(layer2.leftBehind())))
        reconciler.add(layer2, () => this.#app()?.layer2);
    }
    if (programs.includes('couchdb')) {
      const plugin = new CouchDbPlugin({
        credentials: () => this.#credentials(),
        appUser: () => this.#appUser(),
        unheard: () => unheardNodes(this.#dependencies.view()),
        baseUrl: `http://127.0.0.1:${couchdb.http_port}`,
        configDirectory: paths.couchdbFiles,
        markerFile: join(paths.couchdbData, 'data', 'bornemisza-identity.json'),
        restartFile: join(paths.run, 'restart-couchdb'),
        onStatus: (status) => {
          this.#couchDbStatus = status;
          onCouchDb(status);
        },
        onProgress,
      });
      this.#couchDbPlugin = plugin;
      reconciler.add(
        plugin,
        () => this.#couchDb(),
        (status) => plugin.note(status),
      );
    }
  }

  /**
   * Ends CouchDB for good after its node document is gone: a start with its data would put it back into the cluster, and
   * until it stops the others stay connected with it. Without vm.args its unit does not start; the data stays.
   */
  async retireCouchDb(): Promise<void> {
    const { paths } = this.#dependencies;
    this.#couchDbRetired = true;
    await rm(join(paths.couchdbFiles, 'vm.args'), { force: true });
    await writeFile(join(paths.run, 'restart-couchdb'), 'stop: this node has left\n', { mode: 0o640 });
  }

  /** Whether this node wants to draw the floating IP; undefined where there is none. */
  announcement(): Announcement | undefined {
    if (this.#config.role !== 'app' || this.#config.floating.mode === 'off') return undefined;
    const { view, situation } = this.#dependencies;
    return drawnBy(this.#config.floating.mode, { view: view(), local: situation() });
  }

  #app(): ReturnType<typeof appDesired> | undefined {
    if (this.#certificates === undefined) return undefined;
    const { node, network, edge, floating, services } = this.#config;
    const input: AppInput = {
      view: this.#dependencies.view(),
      certificates: this.#certificates,
      local: this.#dependencies.situation(),
      config: {
        cluster: node.cluster,
        privateAddress: network.private_address,
        httpsPort: edge.https_port,
        httpPort: edge.http_port,
        doorPort: edge.door_port,
        statsPort: edge.stats_port,
        databasePort: edge.database_port,
        dbDoorPort: this.#config.couchdb.door_port,
        floating: { ...floating, device: floatingDevice(this.#config) },
        services: services.map((service) => ({
          name: service.name,
          port: service.port,
          prefix: service.path_prefix,
          healthPath: service.health_path,
          healthHost: service.health_host,
          local: service.local,
        })),
      },
    };
    return appDesired(input);
  }

  #dbHaproxy(): HaproxyDesired | undefined {
    const input = this.#db();
    return input === undefined ? undefined : dbHaproxy(input);
  }

  #couchDb(): CouchDbDesired | undefined {
    const input = this.#db();
    if (input === undefined) return undefined;
    try {
      return dbCouchDb(input);
    } catch (error) {
      if (!(error instanceof DesiredError)) throw error;
      throw new PluginError({
        code: error.code,
        message: error.message,
        next: 'correct [couchdb] in /etc/bornemisza/db.toml, then systemctl reload bornemisza@db',
        outcome: 'terminal',
        stateChanged: false,
        cause: error,
      });
    }
  }

  #db(): DbInput | undefined {
    if (this.#certificates === undefined) return undefined;
    const { node, network, couchdb } = this.#config;
    return {
      view: this.#dependencies.view(),
      certificates: this.#certificates,
      settings: this.#settings(),
      removed: this.#removed(),
      leaving: this.#dependencies.departing(),
      couchdb: this.#couchDbStatus,
      config: {
        cluster: node.cluster,
        privateAddress: network.private_address,
        doorPort: couchdb.door_port,
        peerPort: couchdb.peer_port,
        statsPort: couchdb.stats_port,
        httpPort: couchdb.http_port,
      },
    };
  }

  #settings(): DesiredFacts['settings'] | undefined {
    const { identity } = this.#dependencies;
    const secrets = identity.secrets.get();
    if (secrets?.kind !== 'db' || this.#certificates === undefined || this.#couchDbRetired) return undefined;
    const [leafAndChain, key] = splitKey(this.#certificates.node);
    const { couchdb } = this.#config;
    return {
      cookie: secrets.cookie,
      secret: secrets.authSecret,
      adminName: secrets.admin.user,
      adminHash: secrets.admin.hash,
      uuid: secrets.clusterUuid,
      tls: { caPem: this.#certificates.ca, certPem: leafAndChain, keyPem: key },
      httpPort: couchdb.http_port,
      distributionPort: couchdb.distribution_port,
      n: couchdb.n,
      q: couchdb.q,
      dataDirectory: this.#dependencies.paths.couchdbData,
    };
  }

  #credentials(): { name: string; password: string } {
    const secrets = this.#dependencies.identity.secrets.get();
    return secrets?.kind === 'db'
      ? { name: secrets.admin.user, password: secrets.admin.password }
      : { name: '', password: '' };
  }

  #appUser(): { name: string; password: string } | undefined {
    const secrets = this.#dependencies.identity.secrets.get();
    return secrets?.kind === 'db' ? { name: secrets.app.user, password: secrets.app.password } : undefined;
  }

  #removed(): DbInput['removed'] {
    const { roster } = this.#dependencies.identity;
    return roster.revocations().filter(({ name }) => name.endsWith('/db'));
  }
}

/** What keeps us from looking is told by the plugin's own look. */
function mayBe(leftBehind: Promise<boolean>): Promise<boolean> {
  return leftBehind.catch(() => true);
}

function splitKey(pem: string): [string, string] {
  const at = pem.indexOf('-----BEGIN PRIVATE KEY-----');
  return [pem.slice(0, at), pem.slice(at)];
}

/** The plugin judges the file; a certificate that is refused is not watched. */
function endOf(pem: string): number | undefined {
  const site = readSite(pem);
  return isFinding(site) ? undefined : site.untilMs;
}

/** A file that cannot be read is one optional input: it stops nothing else, and `status` says so. */
async function readEdgeCertificate(file: string): Promise<Pick<Certificates, 'edge' | 'edgeProblem'>> {
  try {
    const edge = await readIfPresent(file);
    if (edge !== undefined) return { edge };
    return { edge: undefined, edgeProblem: unreadable(file, 'there is no such file') };
  } catch (error) {
    const why = error instanceof PluginError ? error.message : String(error);
    return { edge: undefined, edgeProblem: unreadable(file, why) };
  }
}

function unreadable(file: string, why: string): NonNullable<Certificates['edgeProblem']> {
  return {
    code: 'edge-certificate',
    message: `cannot read the site’s certificate file ${file}: ${why}`,
    next: `make it readable for the daemon: chgrp bornemisza ${file} && chmod 640 ${file}, then \`systemctl reload bornemisza@app\``,
  };
}
