import { join } from 'node:path';
import type { CouchDbStatus } from '../../plugins/couchdb/plugin.ts';
import type { CertificatesReport } from '../../plugins/certificates/plugin.ts';
import { mergedBundles } from '../../plugins/certificates/merge.ts';
import { sitePeers } from '../../roles/certificates.ts';
import { RESTART_TAG } from '../../roles/db.ts';
import { HOLDS, HOLDS_TAG, SERVER_TAG } from '../../roles/holder.ts';
import type { FloatingReport } from '../../plugins/floating/plugin.ts';
import { type BirdReport, wordOf } from '../../plugins/bird/report.ts';
import { ROOT_TAG } from '../identity/root/following.ts';
import type { AuditTrail } from '../audit/trail.ts';
import type { Config, Paths } from '../config/config.ts';
import type { Clock } from '../clock.ts';
import type { Driver } from '../driver/driver.ts';
import type { SeedSearch } from '../driver/seed-search.ts';
import { Disks, writtenTo } from '../health/disks.ts';
import type { HostFinding } from '../health/host-finding.ts';
import { Machine } from '../health/machine.ts';
import { countedUnits, Restarts } from '../health/restarts.ts';
import type { Checks } from '../health/health.ts';
import type { Silence } from '../health/silence.ts';
import type { Identity } from '../identity/identity.ts';
import type { RosterChange } from '../identity/roster/roster.ts';
import type { LocalStateFile } from '../local-state.ts';
import type { LocalFacts, Role } from '../membership/types.ts';
import { CERTIFICATE_TAG, DISK_TAG, MACHINE_TAG } from '../notification/conditions.ts';
import { Notifier } from '../notification/notifier.ts';
import { MetricsEndpoint } from '../metrics/endpoint.ts';
import type { Log } from '../process/log.ts';
import type { ServiceManager } from '../process/systemd.ts';
import { newStartId } from '../random.ts';
import { DEFAULT_RECONCILER_OPTIONS, Reconciler } from '../reconciler/reconciler.ts';
import { ROLLOUT_TAG } from '../rollout/policy.ts';
import { DEFAULT_ROLLOUT_OPTIONS, RolloutRunner } from '../rollout/runner.ts';
import { UpgradeTurn } from '../rollout/turn.ts';
import type { Transport } from '../transport/transport.ts';
import type { ControlActions } from '../control/server.ts';
import type { CurrentNode } from './current.ts';
import type { ExchangeDependencies } from '../identity/exchange.ts';
import { KeptPrograms } from './kept-programs.ts';
import type { Look, Phase, ShownCertificates, Words } from './look.ts';
import { assembleMembership, firstRecord } from '../driver/membership.ts';
import { Names } from '../identity/roster/names.ts';
import { shownBy } from './shown-certificates.ts';
import { PROGRAMS } from './programs.ts';
import { Peers } from '../peers/peers.ts';
import { type RemovalDependencies, removalReport } from '../identity/removal-report.ts';
import { Registrar, type RegistrarDependencies } from '../identity/admission/registrar.ts';
import { RootFollower } from '../identity/root/root-follower.ts';
import { presentedChain } from '../identity/roster/presented.ts';
import { OwnCertificate } from '../identity/own-certificate.ts';
import { SecretsKeeper } from '../identity/secrets-keeper.ts';
import type { SiteStore } from '../identity/site.ts';
import { SiteKeeper } from '../identity/site-keeper.ts';
import { SecretsHandOver } from '../identity/secrets-hand-over.ts';
import { SignsOfLife } from '../process/signs-of-life.ts';
import { foundEntry, hostEntry, rolloutEntry, toldEntry } from '../audit/entries.ts';

export interface NodeOptions {
  readonly role: Role;
  readonly paths: Paths;
}
export interface NodeDependencies {
  readonly log: Log;
  readonly clock: Clock;
  readonly serviceManager: ServiceManager;
  /** Whether our standard output is the journal. */
  readonly journal: boolean;
  /** Called if the node must end by itself: it was removed, or another process has its key. */
  readonly end: (code: number, why: string) => void;
}
/** The parts that exist before a node is assembled. */
export interface NodeParts {
  readonly config: Config;
  readonly identity: Identity;
  readonly local: LocalStateFile;
  readonly site: SiteStore;
  readonly audit: AuditTrail;
  readonly checks: Checks;
  readonly silence: Silence;
  readonly startedMs: number;
}

/** What the parts of a node need from it. */
export interface NodeHooks extends CurrentNode {
  /** The first facts of a node's record. @param said tags of other parts */
  firstFacts(said: Words): LocalFacts;
  look(): Look;
  /** Undefined while it starts. */
  readonly actions: ControlActions | undefined;
  /** The roster has it; its source notifies the peers. */
  rosterChanged(change: RosterChange): void;
  /** For `systemctl status`. */
  text(): string;
}

export interface Assembly {
  readonly driver: Driver;
  readonly transport: Transport;
  readonly seeds: SeedSearch;
  readonly peers: Peers;
  readonly names: Names;
  readonly exchange: ExchangeDependencies;
  readonly removal: RemovalDependencies;
  readonly reconciler: Reconciler;
  readonly programs: KeptPrograms;
  readonly certificate: OwnCertificate<ShownCertificates>;
  readonly registrar: Registrar;
  readonly roots: RootFollower;
  readonly secrets: SecretsKeeper;
  readonly site: SiteKeeper;
  readonly rollout: RolloutRunner;
  readonly disks: Disks;
  readonly machine: Machine;
  readonly metrics: MetricsEndpoint;
  readonly notifier: Notifier;
  readonly signs: SignsOfLife;
}

/** The parts of a node, assembled but not started. A part that needs another one is created after it. */
export function assemble(
  node: NodeHooks,
  parts: NodeParts,
  { paths }: NodeOptions,
  { clock, log, serviceManager }: NodeDependencies,
): Assembly {
  const { config, identity, audit } = parts;
  const common = { clock, log, audit, node };
  const reconciler: Reconciler = new Reconciler(DEFAULT_RECONCILER_OPTIONS, {
    clock,
    audit: (entry) => audit.append(entry),
  });
  const rollout = rolloutOf(node, parts, paths, clock, reconciler);
  const self = firstRecord(
    identity,
    { port: config.libp2pPort, startId: newStartId(clock.wallMs()), wallMs: clock.wallMs() },
    node.firstFacts({ [ROLLOUT_TAG]: rollout.tag }),
  );
  const { driver, transport, seeds } = assembleMembership(
    identity,
    { config, self, snapshotPath: join(paths.state, 'members.snapshot') },
    {
      clock,
      log,
      rosterChanged: (change) => node.rosterChanged(change),
      found: (peer, where) => audit.append(foundEntry(names.of(peer), where)),
    },
  );
  const names = new Names(identity.roster, () => driver.view);
  const exchange: ExchangeDependencies = { identity, transport, log, wallMs: () => clock.wallMs() };
  const site = siteOf(node, parts, exchange, { clock, reconciler });
  const programs = new KeptPrograms(PROGRAMS, {
    config,
    paths,
    reconciler,
    node,
    secrets: () => identity.secrets.get(),
    last: () => node.last,
    clock,
    site,
    progress: (plugin, text) => log.info({ plugin }, text),
  });
  const certificate = new OwnCertificate(identity, {
    ...common,
    exchange,
    show: () => {
      transport.setChain(presentedChain(identity));
      driver.rosterChanged();
    },
    read: () => shownBy(identity, node.config),
  });
  const removal = { identity, transport, reconciler };
  const applied: RegistrarDependencies['applied'] = (rows, removed) => removalReport(removal, rows, removed);
  const registrar = new Registrar(identity, { ...common, driver, names, applied });
  const followed = { driver, reconciler, programs, certificate, registrar };
  const roots = new RootFollower(identity, { ...common, ...followed });
  return {
    ...{ driver, transport, seeds, names, exchange, removal, reconciler, programs },
    ...{ certificate, registrar, roots, rollout, site, ...hostOf(node, parts, paths, clock) },
    metrics: new MetricsEndpoint({ clock, log, node }),
    peers: new Peers(identity, { ...common, transport, driver }),
    secrets: new SecretsKeeper({ ...common, exchange, handOver: handOverOf(identity, paths, log) }),
    notifier: notifierOf(node, parts, { clock, log }, driver),
    signs: new SignsOfLife({ log, serviceManager, driver, node, heartbeat: paths.heartbeat }),
  };
}

function siteOf(
  node: NodeHooks,
  { site: store }: NodeParts,
  exchange: ExchangeDependencies,
  { clock, reconciler }: { readonly clock: Clock; readonly reconciler: Reconciler },
) {
  return new SiteKeeper({
    ...{ ...exchange, store },
    merged: mergedBundles,
    peers: () => (node.last.scene.site === undefined ? undefined : sitePeers(node.last.view)),
    changed: (what) => node.turn(what),
    shared: () => reconciler.trigger('all app nodes have the keys of the site', 'certificates'),
    nowMs: () => clock.monotonicMs(),
  });
}

function handOverOf({ role }: Identity, { accountsFiles }: Paths, log: Log): SecretsHandOver | undefined {
  return role === 'app' ? new SecretsHandOver(accountsFiles, log) : undefined;
}

/** The parts' tags in this node's record; nothing about the roots before the programs are known. */
export function saidBy(assembly: Assembly, phase: Phase): Words {
  const { rollout, roots, notifier, programs, disks, machine } = assembly;
  const couchdb = programs.report('couchdb') as CouchDbStatus | undefined;
  const floating = programs.report('floating') as FloatingReport | undefined;
  return {
    couchdb: couchdb?.tag,
    [RESTART_TAG]: couchdb?.restart,
    [ROLLOUT_TAG]: rollout.tag,
    [ROOT_TAG]: phase === 'starting' ? undefined : roots.tag,
    [HOLDS_TAG]: floating?.holds ? HOLDS : wordOf(programs.report('bird') as BirdReport | undefined),
    [SERVER_TAG]: floating?.server,
    [DISK_TAG]: disks.tag,
    [MACHINE_TAG]: machine.tag,
    [CERTIFICATE_TAG]: (programs.report('certificates') as CertificatesReport | undefined)?.tag,
    ...notifier.tags,
  };
}

function hostOf(node: NodeHooks, { identity, audit, config }: NodeParts, paths: Paths, clock: Clock) {
  const changed = (finding: HostFinding, began: boolean): void =>
    node.turn(audit.append(hostEntry(identity.name, finding, began)).summary);
  const dependencies = { nowMs: () => clock.monotonicMs(), changed };
  const { private_device, public_device } = config.network;
  const devices = { private: private_device, public: public_device };
  const units = () => countedUnits(node.config);
  const restarts = new Restarts({ units, file: `${paths.run}/restarts.json` });
  return {
    disks: new Disks(writtenTo(paths, config.role), dependencies),
    machine: new Machine({ devices, restarts }, dependencies),
  };
}

function rolloutOf(
  node: NodeHooks,
  { identity, local, audit }: NodeParts,
  { upgradeRequest, upgradeResult }: Paths,
  clock: Clock,
  reconciler: Reconciler,
): RolloutRunner {
  const { name, roster } = identity;
  const rollout = new RolloutRunner(name, DEFAULT_ROLLOUT_OPTIONS, {
    clock,
    turn: new UpgradeTurn({ request: upgradeRequest, result: upgradeResult }),
    scene: () => ({
      rows: node.rows(),
      admission: roster.members().map((each) => each.name),
      synced: node.last.view.synced,
      held: node.last.view.held,
      settled: reconciler.status().every(({ state }) => state === 'converged'),
    }),
    save: (word) => {
      void local.keep({ rollout: word });
      node.turn('');
    },
    tell: (news) => audit.append(rolloutEntry(name, news)),
  });
  rollout.load(local.state.rollout);
  return rollout;
}

function notifierOf(
  node: NodeHooks,
  { config, identity, local, audit, startedMs }: NodeParts,
  { clock, log }: Pick<NodeDependencies, 'clock' | 'log'>,
  driver: Driver,
): Notifier {
  const { name, cluster, roster } = identity;
  return new Notifier(config.notify, local.state.notification, {
    cluster,
    node: name,
    wallMs: () => clock.wallMs(),
    upMs: () => clock.monotonicMs() - startedMs,
    view: () => driver.view,
    certificates: () => new Map(roster.members().map((each) => [each.name, each.notAfterMs])),
    save: (notification) => void local.keep({ notification }),
    told: (message, channels) => {
      node.turn('');
      audit.append(toldEntry(message, channels));
    },
    failed: (channel, { code, next, message }) =>
      log.warn({ code, next }, `notification by ${channel.name} (${channel.target}) failed: ${message}`),
  });
}
