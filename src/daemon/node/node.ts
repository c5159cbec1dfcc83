import { join } from 'node:path';
import type { CouchDbStatus } from '../../plugins/couchdb/plugin.ts';
import { announceEntry, AuditTrail } from '../reconciler/audit.ts';
import type { Clock } from '../clock.ts';
import { type Config, loadConfig, type Paths } from '../config/config.ts';
import type { Done, StatusAnswer, Warning } from '../control/api.ts';
import { type ControlActions, ControlServer } from '../control/server.ts';
import type { Driver, DriverChange } from '../driver/driver.ts';
import { hasNextStep, OperatorError } from '../errors.ts';
import { Checks } from '../health/health.ts';
import { type Identity, loadIdentity } from '../identity/identity.ts';
import type { RosterChange } from '../identity/roster/roster.ts';
import { type LocalState, LocalStateFile } from '../local-state.ts';
import type { Log } from '../process/log.ts';
import type { Goodbye, Role } from '../membership/types.ts';
import { Notifier } from '../notification/notifier.ts';
import type { ServiceManager } from '../process/systemd.ts';
import { newStartId } from '../random.ts';
import { DEFAULT_RECONCILER_OPTIONS, Reconciler } from '../reconciler/reconciler.ts';
import { DEFAULT_ROLLOUT_OPTIONS, RolloutRunner } from '../rollout/runner.ts';
import { UpgradeTurn } from '../rollout/turn.ts';
import type { SeedSearch } from '../driver/seed-search.ts';
import type { Transport } from '../transport/transport.ts';
import { VERSION } from '../version.ts';
import { Answers } from './answers.ts';
import { checksFor, healthOptions } from './checks.ts';
import { Duty } from './duty.ts';
import { type ExchangeDependencies, serveExchange } from './exchange.ts';
import { GuardedView, guardMemory } from './guarded-view.ts';
import { Leave, leftAlready, withdrawn } from './leave.ts';
import { assembleMembership } from './membership.ts';
import { Names } from './names.ts';
import { testNotification } from './notify-test.ts';
import { OwnCertificate } from './own-certificate.ts';
import { NodePlugins } from './plugins.ts';
import { Registrar } from './registrar.ts';
import { statusText } from './report.ts';
import { RootFollower } from './root-follower.ts';
import { presentedChain } from './roster.ts';
import { SecretsKeeper } from './secrets.ts';
import { SignsOfLife } from './signs-of-life.ts';
import { listenRefused, mustBeOfThisNode, mustBeReloadable } from './start-checks.ts';
import {
  foundEntry,
  memberNews,
  operatorEntry,
  removedEntry,
  rolloutEntry,
  toldEntry,
  verdictEntry,
} from './trail.ts';
import { OwnWord } from './self-report.ts';

/** How often time-dependent decisions (guards, load, secrets, certificates) are looked at. */
const TICK_MS = 1000;
/** How long a stop waits for the programs to follow before the process ends all the same. */
const STOP_DEADLINE_MS = 5000;
/** Longest wait for the first verdicts at a start, well below the unit's TimeoutStartSec. They take a tenth of a second where all is well. */
const FIRST_VERDICTS_MS = 10_000;
/** systemd.exec(5): for what only a person can mend. The unit is not started again after it. */
const EXIT_CONFIG = 78;

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
  /** Called when the node must end by itself: it was removed, or another process holds its key. */
  readonly end: (code: number, why: string) => void;
}

/**
 * One role instance, put together: identity, membership, health, guards, reconciler and control socket. All policy is
 * in the rooms that it joins; what stands here is only who is told about what.
 */
export class Node {
  readonly #options: NodeOptions;
  readonly #dependencies: NodeDependencies;
  readonly #audit: AuditTrail;
  readonly #local: LocalStateFile;
  readonly #startedMs: number;
  #config!: Config;
  #identity!: Identity;
  #names!: Names;
  #control: ControlServer | undefined;
  #checks!: Checks;
  #transport!: Transport;
  #driver!: Driver;
  #guards!: GuardedView;
  #seeds!: SeedSearch;
  #certificate!: OwnCertificate;
  #roots!: RootFollower;
  #secrets!: SecretsKeeper;
  #registrar!: Registrar;
  #reconciler!: Reconciler;
  #plugins!: NodePlugins;
  #couchdb: CouchDbStatus | undefined;
  #rollout!: RolloutRunner;
  #word!: OwnWord;
  #notifier!: Notifier;
  #signs!: SignsOfLife;
  /** Of a node that runs, in any phase. */
  #running: ControlActions | undefined;
  #phase: StatusAnswer['phase'] = 'starting';
  #drawing: boolean | undefined;
  #tick: NodeJS.Timeout | undefined;
  #saveFailed = false;
  /** Why the configuration on the disk is not the one in use, until a reload takes one. */
  #refusedReload: Warning | undefined;

  constructor(options: NodeOptions, dependencies: NodeDependencies) {
    const { clock, log, journal } = dependencies;
    this.#options = options;
    this.#dependencies = dependencies;
    this.#startedMs = clock.monotonicMs();
    this.#local = new LocalStateFile(join(options.paths.state, 'local.json'));
    const onProblem = (error: Error): void =>
      log.warn(
        { err: error, next: `nothing is lost but its record; check the disk: df -h ${options.paths.state}` },
        'audit trail',
      );
    this.#audit = new AuditTrail(
      { file: join(options.paths.state, 'audit.jsonl') },
      { clock, onProblem, announce: (entry) => announceEntry(entry, log, journal) },
    );
  }

  // --- life ---

  /** @throws OperatorError or IdentityError that name cause and next step */
  async start(): Promise<void> {
    const { role, paths } = this.#options;
    this.#config = await loadConfig(role, paths, 'lenient');
    await this.#loadIdentity();
    await this.#loadLocalState();
    await this.#audit.load();
    this.#followIdentity();
    await this.#roots.takeLeft();
    this.#prepareRollout();
    this.#prepareWord();
    this.#control = new ControlServer(
      { path: paths.controlSocket, role },
      { trail: this.#audit, actions: () => this.#actions() },
    );
    await this.#control.listen();
    // First of all: a daemon that comes back must not tell the others, BIRD and HAProxy that its node is down.
    this.#startHealth();
    await this.#checks.decided(FIRST_VERDICTS_MS);
    await this.#startMembership();
    await this.#startPlugins();
    this.#startNotifier();
    this.#prepareRegistrar();
    this.#prepareSigns();
    this.#running = this.#assembleActions();
    this.#phase = 'running';
    this.#tick = setInterval(() => this.#look(), TICK_MS);
    await this.#registrar.start();
    await this.#signs.start();
    const { name } = this.#identity;
    const summary = `started ${VERSION} as ${name}`;
    this.#audit.append({ kind: 'daemon', summary, trigger: '', subjects: [name], result: 'info' });
  }

  /** Ends in order: word to the peers, duty off where the node goes for longer, then everything closes. */
  async stop(goodbye: Goodbye): Promise<void> {
    const { log, serviceManager } = this.#dependencies;
    if (this.#phase === 'running' || this.#phase === 'leaving') {
      this.#phase = 'stopping';
      await serviceManager.stopping(`${goodbye}: telling the others`);
      this.#driver.goodbye(goodbye);
      if (goodbye !== 'restart') {
        this.#lookAgain(`${goodbye} of this node`);
        const isWithdrawn = await this.#withdrawn();
        clearInterval(this.#tick);
        if (isWithdrawn) await this.#signs.lastBeat();
      }
      log.info({ goodbye }, 'the daemon ends; HAProxy, BIRD and CouchDB keep running');
    }
    await this.close();
  }

  /** Works after a partial start, and twice. */
  async close(): Promise<void> {
    clearInterval(this.#tick);
    this.#signs?.close();
    this.#checks?.close();
    await this.#notifier?.close();
    await this.#registrar?.close();
    await this.#reconciler?.close();
    await this.#driver?.close();
    await this.#control?.close();
    // A disk that is full must not turn an orderly end into a crash.
    await this.#save({});
    await this.#audit.close();
  }

  /** Reads the configuration again. A bad one is refused and the old one stays. */
  async reload(): Promise<Done> {
    this.#actions();
    const { serviceManager, log } = this.#dependencies;
    await serviceManager.reloading();
    try {
      const config = await loadConfig(this.#options.role, this.#options.paths);
      mustBeReloadable(this.#config, config);
      this.#config = config;
      this.#plugins.reconfigure(config);
      this.#notifier?.reconfigure(config.notify);
      await this.#certificate.read();
      this.#setChecks();
      this.#operatorDid('the configuration was read again');
      this.#shareFacts();
      this.#reconciler.retryNow('reload');
      this.#refusedReload = undefined;
      log.info('the configuration was read again');
      const passedOver = config.passedOver.map(({ message, next }) => `; ${message} -- ${next}`).join('');
      return { done: true, message: `the configuration was read again${passedOver}` };
    } catch (error) {
      const { message, next } = error as Partial<OperatorError>;
      this.#refusedReload = {
        code: 'reload-refused',
        message: `the configuration on the disk is refused, and the one from before is in use: ${message}`,
        next: next ?? 'bornemisza config check',
      };
      throw error;
    } finally {
      await this.#signs.reloaded();
    }
  }

  /** Somebody else's word that this node is out: duty ends before the process does, and systemd does not start it again. */
  async #withdrawAndEnd(why: string): Promise<void> {
    this.#phase = 'stopping';
    this.#lookAgain(why);
    await this.#withdrawn();
    this.#dependencies.end(EXIT_CONFIG, why);
  }

  #withdrawn(): Promise<boolean> {
    return withdrawn(this.#reconciler, this.#dependencies.clock, STOP_DEADLINE_MS);
  }

  // --- assembly, in the order of the start ---

  async #loadIdentity(): Promise<void> {
    const { paths } = this.#options;
    const { clock, log } = this.#dependencies;
    this.#identity = await loadIdentity(paths.state, clock.wallMs());
    mustBeOfThisNode(this.#config, this.#identity, paths.config);
    for (const { message, code, next } of this.#identity.warnings) {
      if (code === 'self-revoked') throw new OperatorError(code, message, next);
      log.warn({ code, next }, message);
    }
  }

  async #loadLocalState(): Promise<void> {
    const damaged = await this.#local.load();
    if (damaged !== undefined) {
      const next = 'run `bornemisza status` and set maintenance again if it was on';
      this.#dependencies.log.warn({ next }, damaged);
    }
    if (this.#local.state.left) throw leftAlready(this.#options.role);
  }

  /** What keeps this node's certificates, roots and secrets those of now. */
  #followIdentity(): void {
    const { clock, log } = this.#dependencies;
    const audit = this.#audit;
    const lookAgain = (reason: string): void => this.#lookAgain(reason);
    this.#names = new Names(this.#identity.roster, () => this.#driver.view);
    this.#certificate = new OwnCertificate(this.#identity, {
      clock,
      log,
      audit,
      exchange: () => this.#exchange(),
      show: () => {
        this.#transport.setChain(presentedChain(this.#identity));
        this.#driver.rosterChanged();
      },
      // A roster that comes while this node starts: the plugins read them when they are there.
      read: () => this.#plugins?.readCertificates(),
      lookAgain,
    });
    this.#roots = new RootFollower(this.#identity, {
      clock,
      log,
      audit,
      rows: () => this.#guards.rows(),
      converged: (program) => this.#reconciler.converged(program),
      hasOldHaproxies: () => this.#plugins.hasOldHaproxies(),
      rosterChanged: (change) => {
        this.#rosterChanged(change);
        this.#driver.rosterChanged();
      },
      operatorDid: (what) => this.#operatorDid(what),
      certificateChanged: (summary, why) => this.#certificate.changed(summary, why),
      readCertificates: () => this.#certificate.read(),
      reopenAdmission: () => this.#registrar?.reopen(),
    });
    this.#secrets = new SecretsKeeper({
      log,
      audit,
      exchange: () => this.#exchange(),
      view: () => this.#guards.now,
      lookAgain,
      share: () => this.#shareFacts(),
    });
  }

  #prepareRollout(): void {
    const { clock } = this.#dependencies;
    const { upgradeRequest, upgradeResult } = this.#options.paths;
    const { name, roster } = this.#identity;
    this.#rollout = new RolloutRunner(name, DEFAULT_ROLLOUT_OPTIONS, {
      clock,
      turn: new UpgradeTurn({ request: upgradeRequest, result: upgradeResult }),
      scene: () => ({
        rows: this.#guards.rows(),
        admission: roster.members().map((each) => each.name),
        synced: this.#guards.now.synced,
        held: this.#guards.now.held,
        settled: this.#reconciler.status().every(({ state }) => state === 'converged'),
      }),
      save: (rollout) => {
        void this.#save({ rollout });
        this.#shareFacts();
      },
      tell: (news) => this.#audit.append(rolloutEntry(name, news)),
    });
    this.#rollout.load(this.#local.state.rollout);
  }

  #prepareWord(): void {
    this.#word = new OwnWord(this.#identity, {
      clock: this.#dependencies.clock,
      startedMs: this.#startedMs,
      config: () => this.#config,
      phase: () => this.#phase,
      local: this.#local,
      checks: () => this.#checks,
      couchdb: () => this.#couchdb,
      rollout: this.#rollout,
      roots: this.#roots,
      plugins: () => this.#plugins,
      notifier: () => this.#notifier,
    });
  }

  #startHealth(): void {
    const { clock } = this.#dependencies;
    this.#checks = new Checks(healthOptions(this.#config), {
      clock,
      changed: (verdict, was) => {
        const { summary } = this.#audit.append(verdictEntry(this.#identity.name, verdict, was));
        this.#shareFacts();
        this.#lookAgain(summary);
      },
    });
    this.#setChecks();
    this.#shareFacts();
  }

  #setChecks(): void {
    this.#checks?.set(checksFor(this.#config, this.#identity.roster.members()));
  }

  async #startMembership(): Promise<void> {
    const { clock, log } = this.#dependencies;
    const { driver, transport, seeds } = assembleMembership(
      this.#identity,
      {
        config: this.#config,
        self: this.#word.first(newStartId()),
        snapshotPath: join(this.#options.paths.state, 'members.snapshot'),
      },
      {
        clock,
        log,
        rosterChanged: (change) => this.#rosterChanged(change),
        found: (peer, where) => this.#audit.append(foundEntry(this.#names.of(peer), where)),
      },
    );
    this.#driver = driver;
    this.#transport = transport;
    this.#seeds = seeds;
    this.#guards = new GuardedView({
      driver,
      roster: this.#identity.roster,
      names: this.#names,
      audit: this.#audit,
      wallMs: () => clock.wallMs(),
      memory: () => guardMemory(this.#local.state),
      remember: (guards) => void this.#rememberGuards(guards),
    });
    driver.onChange((change) => this.#onChange(change));
    await driver.start().catch((error: unknown) => {
      throw listenRefused(error);
    });
    serveExchange(this.#exchange());
    this.#guards.evaluate();
  }

  async #startPlugins(): Promise<void> {
    const { clock, log } = this.#dependencies;
    this.#reconciler = new Reconciler(DEFAULT_RECONCILER_OPTIONS, {
      clock,
      audit: (entry) => this.#audit.append(entry),
      subjectsOf: (texts) => this.#names.subjectsOf(texts),
    });
    this.#plugins = new NodePlugins(this.#config, {
      paths: this.#options.paths,
      identity: this.#identity,
      view: () => this.#guards.now,
      situation: () => this.#word.situation(),
      departing: () => this.#phase === 'leaving' || this.#phase === 'left',
      onCouchDb: (status) => this.#onCouchDb(status),
      onProgress: (text) => log.info({ plugin: 'couchdb' }, text),
    });
    await this.#certificate.read();
    await this.#plugins.addTo(this.#reconciler);
  }

  #startNotifier(): void {
    const { clock, log } = this.#dependencies;
    const { name, cluster, roster } = this.#identity;
    this.#notifier = new Notifier(this.#config.notify, this.#local.state.notification, {
      cluster,
      node: name,
      wallMs: () => clock.wallMs(),
      upMs: () => clock.monotonicMs() - this.#startedMs,
      view: () => this.#driver.view,
      certificates: () => new Map(roster.members().map((each) => [each.name, each.notAfterMs])),
      save: (notification) => void this.#save({ notification }),
      told: (message, channels) => {
        this.#shareFacts();
        this.#audit.append(toldEntry(message, channels, this.#names));
      },
      failed: (channel, error) =>
        log.warn(
          { code: error.code, next: error.next },
          `notification by ${channel.name} (${channel.target}) failed: ${error.message}`,
        ),
    });
    this.#shareFacts();
  }

  #prepareRegistrar(): void {
    const { clock, log } = this.#dependencies;
    this.#registrar = new Registrar(this.#identity, {
      clock,
      log,
      config: () => this.#config,
      driver: this.#driver,
      names: this.#names,
      rows: () => this.#guards.rows(),
      audit: this.#audit,
      operatorDid: (what) => this.#operatorDid(what),
      rosterChanged: (change) => this.#rosterChanged(change),
    });
  }

  #prepareSigns(): void {
    const { log, serviceManager } = this.#dependencies;
    this.#signs = new SignsOfLife({
      log,
      serviceManager,
      driver: this.#driver,
      config: () => this.#config,
      heartbeat: this.#options.paths.heartbeat,
      text: () => this.#text(),
    });
  }

  // --- what the control socket asks for, and who does it ---

  #actions(): ControlActions {
    if (this.#running !== undefined) return this.#running;
    throw new OperatorError('starting', 'the daemon is still starting', 'try again in a second');
  }

  #assembleActions(): ControlActions {
    const { paths } = this.#options;
    const { log } = this.#dependencies;
    const answers = this.#assembleAnswers();
    const duty = this.#assembleDuty();
    const leave = this.#assembleLeave();
    const registrar = this.#registrar;
    return {
      status: () => answers.status(),
      members: () => answers.members(),
      plan: () => answers.plan(),
      maintenance: (request) => duty.maintenance(request),
      releaseGuards: () => duty.releaseGuards(),
      leave: (request, progress) => leave.run(request, progress),
      token: (request) => registrar.token(request),
      remove: (request) => registrar.remove(request),
      adoptAuthority: () => registrar.adopt(),
      changeRoot: () => this.#roots.take(),
      testNotification: (progress) =>
        testNotification(this.#notifier, this.#identity, paths.config, progress),
      reload: () =>
        this.reload().catch((error: unknown) => {
          if (hasNextStep(error)) log.error({ code: error.code, next: error.next }, error.message);
          throw error;
        }),
      upgrade: () => this.#rollout.answer(),
      rollout: (verb) => {
        const done = this.#rollout[verb]();
        this.#operatorDid(`upgrade ${verb}`);
        return done;
      },
    };
  }

  #assembleAnswers(): Answers {
    return new Answers(this.#identity, {
      clock: this.#dependencies.clock,
      startedMs: this.#startedMs,
      config: () => this.#config,
      refusedReload: () => this.#refusedReload,
      phase: () => this.#phase,
      local: this.#local,
      checks: this.#checks,
      driver: this.#driver,
      transport: this.#transport,
      guards: this.#guards,
      reconciler: this.#reconciler,
      plugins: this.#plugins,
      notifier: this.#notifier,
      rollout: this.#rollout,
      couchdb: () => this.#couchdb,
    });
  }

  #assembleDuty(): Duty {
    return new Duty(this.#identity, {
      local: this.#local,
      guards: this.#guards,
      operatorDid: (what) => this.#operatorDid(what),
      share: () => this.#shareFacts(),
      lookAgain: (reason) => this.#lookAgain(reason),
      retryNow: (reason) => this.#reconciler.retryNow(reason),
    });
  }

  #assembleLeave(): Leave {
    const { clock, end } = this.#dependencies;
    return new Leave(this.#identity, {
      clock,
      config: () => this.#config,
      driver: this.#driver,
      guards: this.#guards,
      checks: this.#checks,
      reconciler: this.#reconciler,
      plugins: this.#plugins,
      couchdb: () => this.#couchdb,
      phase: () => this.#phase,
      enter: (phase) => {
        this.#phase = phase;
      },
      rememberLeft: () => this.#local.update({ left: true }),
      operatorDid: (what) => this.#operatorDid(what),
      lookAgain: (reason) => this.#lookAgain(reason),
      end,
    });
  }

  #operatorDid(what: string): void {
    this.#audit.append(operatorEntry(this.#identity.name, what));
  }

  // --- what happens ---

  #onChange(change: DriverChange): void {
    const { log, end } = this.#dependencies;
    if (change.kind === 'note') {
      log.debug({ code: change.code, peer: change.peer }, change.detail);
    } else if (change.kind !== 'clone') {
      const { entry, reason } = memberNews(change, this.#names);
      if (entry !== undefined) this.#audit.append(entry);
      this.#lookAgain(reason);
    } else if (change.mustStop) {
      end(
        EXIT_CONFIG,
        'another process with this node’s key was there first: this is a clone or an old backup -- run `bornemisza join --reset -` with a fresh token',
      );
    } else {
      log.error(
        { next: 'find the cloned machine and join it with a token of its own' },
        'another process holds this node’s key; it came later and is told to stop',
      );
    }
  }

  #onCouchDb(status: CouchDbStatus): void {
    this.#couchdb = status;
    this.#shareFacts();
    this.#lookAgain(`CouchDB is ${status.phase}`);
  }

  #rosterChanged(change: RosterChange): void {
    this.#roots.auditRivals();
    if (!change.changed) return;
    const { peerId, roster } = this.#identity;
    roster.save().catch((error: unknown) => {
      const next = 'free the disk: the roster is tried again with its next change';
      this.#dependencies.log.error({ err: error, next }, 'the roster cannot be saved');
    });
    for (const peer of change.revoked) this.#audit.append(removedEntry(this.#names.of(peer)));
    if (change.revoked.includes(peerId)) {
      void this.#withdrawAndEnd(
        'this node was removed from the cluster -- to come back: bornemisza join --reset - with a fresh token',
      );
      return;
    }
    if (change.renewed.some((each) => each.peerId === peerId)) void this.#certificate.takeSignedAnew();
    if (change.roots) void this.#roots.changed();
    this.#setChecks();
    this.#lookAgain('the roster changed');
    if (this.#phase === 'running') void this.#secrets.look();
  }

  /** Once a second: what changes with time alone. */
  #look(): void {
    this.#roots.look();
    this.#signs.beat();
    this.#shareFacts();
    this.#lookAtGuards();
    void this.#signs.tellStatus();
    if (this.#phase === 'running' && this.#notifier.tick()) this.#shareFacts();
    void this.#secrets.look();
    this.#seeds.look();
    void this.#registrar.retireTheLeft();
    this.#rollout.look().catch((error: unknown) => {
      const next = `look at the directory: ls -la ${this.#options.paths.run}`;
      this.#dependencies.log.error({ err: error, next }, 'the rollout cannot go on here');
    });
    this.#certificate.look();
  }

  #lookAtGuards(): void {
    const before = this.#guards.rotations;
    const heldBefore = this.#guards.evaluate();
    if (before !== this.#guards.rotations) this.#reconciler.trigger('a guard let go or took hold');
    const drawing = this.#plugins.announcement();
    if (drawing?.announce !== this.#drawing) this.#reconciler.trigger(`floating IPs: ${drawing?.why ?? ''}`);
    this.#drawing = drawing?.announce;
    this.#guards.auditHeld(heldBefore);
  }

  #lookAgain(reason: string): void {
    if (this.#guards === undefined) return;
    this.#guards.auditHeld(this.#guards.evaluate());
    this.#reconciler?.trigger(reason);
  }

  /** Says to the others what is so now; what they have heard already is not said again. */
  #shareFacts(): void {
    this.#driver?.local(this.#word.facts());
  }

  #exchange(): ExchangeDependencies {
    const { log, clock } = this.#dependencies;
    return { identity: this.#identity, transport: this.#transport, log, wallMs: () => clock.wallMs() };
  }

  // --- to the disk ---

  /** Never throws. */
  #save(change: Partial<LocalState>): Promise<void> {
    return this.#local.update(change).catch((error: unknown) => this.#notSaved(error));
  }

  #rememberGuards(guards: LocalState['guards']): Promise<void> {
    return this.#local.update({ guards }).then(
      () => {
        this.#saveFailed = false;
      },
      (error: unknown) => this.#notSaved(error),
    );
  }

  /** Every evaluation tries again: the first failure is told, the same one each second would be noise. */
  #notSaved(error: unknown): void {
    if (this.#saveFailed) return;
    this.#saveFailed = true;
    const next = `free the disk: df -h ${this.#options.paths.state}; it is tried again by itself`;
    this.#dependencies.log.warn({ err: error, next }, 'maintenance and the guards’ memory cannot be saved');
  }

  /** For `systemctl status`. */
  #text(): string {
    const { name } = this.#identity;
    const { maintenance } = this.#local.state;
    const { synced } = this.#guards.now;
    return statusText({ name, health: this.#checks.node, maintenance, synced }, this.#guards.rows());
  }
}
