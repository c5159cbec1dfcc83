import { createPrivateKey } from 'node:crypto';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import type { CouchDbStatus } from '../../plugins/couchdb/plugin.ts';
import { labelOf } from '../../plugins/layer2/plan.ts';
import type { AppSituation } from '../../roles/app.ts';
import { RESTART_TAG } from '../../roles/db.ts';
import type { EffectiveView } from '../../roles/effective.ts';
import { EMPTY_GUARD_STATE, type GuardState, guarded, released } from '../../roles/guards.ts';
import { HOLDS, HOLDS_TAG } from '../../roles/holder.ts';
import { AuditTrail, journalEntry, messageOf } from '../audit.ts';
import type { Clock } from '../clock.ts';
import { announces, type Config, floatingDevice, loadConfig, type Paths } from '../config.ts';
import type {
  AuditEntry,
  Done,
  MembersAnswer,
  PlanAnswer,
  Progress,
  StatusAnswer,
  UpgradeAnswer,
} from '../control/api.ts';
import { ControlServer, type RolloutVerb } from '../control/server.ts';
import { Driver, type DriverChange } from '../driver.ts';
import { hasNextStep, OperatorError } from '../errors.ts';
import { Heartbeat, type Watched } from '../heartbeat.ts';
import { type CheckVerdict, Checks } from '../health/health.ts';
import { isLocal, isOn } from '../health/probe.ts';
import { authorityWord } from '../identity/certificates.ts';
import {
  adoptAuthority,
  adoptCertificate,
  hangOnRoot,
  type Identity,
  loadIdentity,
  removeMember,
} from '../identity/identity.ts';
import type { RosterChange } from '../identity/roster.ts';
import { takeRootChange } from '../identity/rotation.ts';
import { rootWord } from '../identity/succession.ts';
import { newestRoot } from '../identity/chain.ts';
import { LocalStateFile } from '../local-state.ts';
import type { Log } from '../log.ts';
import { createMembership } from '../membership/machine.ts';
import { presets } from '../membership/preset.ts';
import type { Goodbye, LocalFacts, NodeRecord, Role } from '../membership/types.ts';
import { checksFor } from './checks.ts';
import { fetchSecrets, renewCertificate, serveExchange } from './exchange.ts';
import { changeInWords, countsOf, isLastAuthority, memberRows, warningsOf } from './report.ts';
import { NodePlugins } from './plugins.ts';
import { notYetUsing, programsFollow, RIVAL_NEXT, ROOT_TAG, rootTag, rootWarnings, unaware } from './root.ts';
import { keepDbSecrets, SECRETS_TAG } from './secrets.ts';
import { SeedSearch } from '../seed-search.ts';
import { LEFT } from '../identity/removal.ts';
import { rankOf } from '../identity/secrets.ts';
import { driverRoster, presentedChain } from './roster.ts';
import { type Notices, NOTICE_TAG, noticeTag, CERTIFICATE_ENDING_MS } from '../notification/conditions.ts';
import { Notifier } from '../notification/notifier.ts';
import type { ServiceManager } from '../notify.ts';
import { newSeed, newStartId } from '../random.ts';
import { DEFAULT_RECONCILER_OPTIONS, Reconciler } from '../reconciler.ts';
import { ROLLOUT_TAG } from '../rollout.ts';
import { DEFAULT_ROLLOUT_OPTIONS, type RolloutNews, RolloutRunner } from '../rollout-runner.ts';
import { UpgradeTurn } from '../rollout-turn.ts';
import { settingsDigest } from '../settings.ts';
import { AdmissionListener } from '../transport/admission.ts';
import { signWith, verifyByPeerId } from '../identity/node-key.ts';
import { TransportError } from '../transport/errors.ts';
import { Transport } from '../transport/transport.ts';
import { VERSION } from '../version.ts';
import { PROTOCOL_MAX, PROTOCOL_MIN } from '../wire/limits.ts';
import { signer } from '../wire/record.ts';

/** How often time-dependent decisions (guards, load, secrets, certificates) are looked at. */
const TICK_MS = 1000;
/** A driver whose last turn is older does not turn; while it is well it turns each second. */
const TURN_MS = 5000;
/** The load average travels only when it moved by this much (× 100), so that a quiet cluster stays quiet. */
const LOAD_STEP = 100;
const RENEWAL_LOOK_MS = 3_600_000;
const EXPIRED_LOOK_MS = 3000;
/** A node that left stays to be looked at for a while before its certificate is taken back. */
const LEFT_RETIRE_MS = 120_000;
/** An edge that was told to go stays up this long, so that what is under way can end. */
const DRAIN_MS = 2000;
/** How long a stop waits for the programs to follow before the process ends all the same. */
const STOP_DEADLINE_MS = 5000;
/** The answer reaches the asker before the daemon starts again. */
const TAKE_BACK_MS = 500;
/** systemd.exec(5): for what only a person can mend. The unit is not started again after it. */
const EXIT_CONFIG = 78;
/** What the driver notes that an operator should hear of, and what to do about it. All else is for debugging. */
const NOTES_FOR_PEOPLE: ReadonlyMap<string, string> = new Map([
  ['snapshot-unusable', 'nothing: the other members tell again who is there; look at the disk if it repeats'],
  ['snapshot-failed', 'free the disk (df -h): it is tried again by itself'],
]);
/** The whole of a message went to people; the trail needs to say what it was about. */
const EVENTS_IN_TRAIL = 10;
/** CouchDB stops within 3 s; one that does not is reported by its check, and harms nobody in maintenance. */
const COUCHDB_STOP_MS = 20_000;

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

/** Longest wait for the first verdicts at a start, well below the unit's TimeoutStartSec. They take a tenth of a second where all is well. */
const FIRST_VERDICTS_MS = 10_000;

/**
 * One role instance, put together: identity, membership, health, guards, reconciler and control socket. All policy is
 * in the rooms that it joins; what stands here is only who is told about what.
 */
export class Node {
  readonly #options: NodeOptions;
  readonly #dependencies: NodeDependencies;
  readonly #audit: AuditTrail;
  readonly #local: LocalStateFile;
  readonly #startId = newStartId();
  readonly #startedMs: number;
  #config!: Config;
  #identity!: Identity;
  #transport!: Transport;
  #driver!: Driver;
  #checks!: Checks;
  #reconciler!: Reconciler;
  #control: ControlServer | undefined;
  #admission: AdmissionListener | undefined;
  #plugins!: NodePlugins;
  #notifier: Notifier | undefined;
  #heartbeat: Heartbeat | undefined;
  #seeds!: SeedSearch;
  #effective!: EffectiveView;
  #rollout!: RolloutRunner;
  #couchdb: CouchDbStatus | undefined;
  #phase: StatusAnswer['phase'] = 'starting';
  #drawing: boolean | undefined;
  #tick: NodeJS.Timeout | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  #loadSent = 0;
  #renewalLookedMs = Number.NEGATIVE_INFINITY;
  #fetching = false;
  /** When the programs were last told other roots or another chain, by the monotonic clock. */
  #rootsToldMs = 0;
  #hasOldHaproxies = true;
  /** One change of what hangs on roots after the other. */
  #hanging: Promise<void> = Promise.resolve();
  #retiring = false;
  #saveFailed = false;
  #rivalsTold = 0;
  #statusText = '';

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
      { clock, onProblem, announce: (entry) => this.#announce(entry, journal) },
    );
  }

  /** @throws OperatorError or IdentityError that name cause and next step */
  async start(): Promise<void> {
    const { role, paths } = this.#options;
    const { clock, log, serviceManager } = this.#dependencies;
    this.#config = await loadConfig(role, paths);
    this.#identity = await loadIdentity(paths.state, clock.wallMs());
    this.#checkIdentity();
    const { warnings } = this.#identity;
    for (const { message, code, next } of warnings) {
      if (code === 'self-revoked') throw new OperatorError(code, message, next);
      log.warn({ code, next }, message);
    }
    const damaged = await this.#local.load();
    if (damaged !== undefined)
      log.warn({ next: 'run `bornemisza status` and set maintenance again if it was on' }, damaged);
    if (this.#local.state.left) throw leftAlready(role);
    await this.#audit.load();
    await this.#takeLeftRootChange();
    this.#prepareRollout();
    this.#control = new ControlServer({ path: paths.controlSocket, role }, this);
    await this.#control.listen();
    // First of all: a daemon that comes back must not tell the others, BIRD and HAProxy that its node is down.
    this.#startHealth();
    await this.#checks.decided(FIRST_VERDICTS_MS);
    await this.#startMembership();
    await this.#startPlugins();
    this.#startNotifier();
    this.#startHeartbeat();
    this.#phase = 'running';
    this.#tick = setInterval(() => this.#look(), TICK_MS);
    await this.#startAdmission();
    await this.#pushStatus(true);
    const watchdogMs = serviceManager.watchdogIntervalMs;
    if (watchdogMs !== undefined)
      this.#watchdog = setInterval(() => this.#feedWatchdog(watchdogMs), watchdogMs);
    this.#audit.append({
      kind: 'daemon',
      summary: `started ${VERSION} as ${this.#identity.name}`,
      trigger: '',
      subjects: [this.#identity.name],
      result: 'info',
    });
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
        const withdrawn = await this.#withdrawn(STOP_DEADLINE_MS);
        clearInterval(this.#tick);
        // The dead-man switch has nothing left to take off.
        if (withdrawn) await this.#heartbeat?.beat({ ...this.#watched(), addresses: [] });
      }
      log.info({ goodbye }, 'the daemon ends; HAProxy, BIRD and CouchDB keep running');
    }
    await this.close();
  }

  /** Works after a partial start, and twice. */
  async close(): Promise<void> {
    clearInterval(this.#tick);
    clearInterval(this.#watchdog);
    this.#checks?.close();
    await this.#notifier?.close();
    await this.#admission?.close();
    await this.#reconciler?.close();
    await this.#driver?.close();
    await this.#control?.close();
    // A disk that is full must not turn an orderly end into a crash.
    await this.#local.update({}).catch((error: unknown) => this.#notSaved(error));
    await this.#audit.close();
  }

  // --- assembly ---

  #checkIdentity(): void {
    const { node, network } = this.#config;
    const { name, host, address, cluster } = this.#identity;
    const file = this.#options.paths.config;
    const differs = (what: string, has: string, says: string): OperatorError =>
      new OperatorError(
        'config-identity-differs',
        `${file} says ${what} ${says}, but ${name} was admitted with ${has}`,
        `correct ${file}, or leave the cluster and join again`,
      );
    if (node.host !== host) throw differs('host', host, node.host);
    if (node.cluster !== cluster) throw differs('cluster', cluster, node.cluster);
    if (network.private_address !== address)
      throw differs('private_address', address, network.private_address);
    if (!isLocal(address)) {
      throw new OperatorError(
        'address-not-here',
        `the private address ${address} is on no device of this host that is up`,
        `bring the private network up (ip -br addr; expected on ${network.private_device}); systemd tries again by itself`,
      );
    }
  }

  async #startMembership(): Promise<void> {
    const { clock, log } = this.#dependencies;
    const key = createPrivateKey(this.#identity.nodeKey.pem);
    const snapshotPath = join(this.#options.paths.state, 'members.snapshot');
    const machine = createMembership({
      self: this.#firstRecord(),
      signer: signer(signWith(key)),
      preset: presets[this.#config.membership.preset],
      seed: newSeed(),
    });
    this.#driver = new Driver(
      { self: this.#identity.peerId, founder: this.#identity.founder, snapshotPath },
      {
        machine,
        roster: driverRoster(this.#identity, (change) => this.#rosterChanged(change)),
        verify: verifyByPeerId(),
        clock: { nowMs: () => clock.monotonicMs() },
        transport: (events, gate) => {
          this.#transport = new Transport(
            {
              nodeKey: key,
              cluster: this.#identity.cluster,
              address: this.#identity.address,
              port: this.#config.libp2pPort,
              chain: presentedChain(this.#identity),
            },
            { gate, events },
          );
          return this.#transport;
        },
        onNote: (code, peer, detail) => {
          const next = NOTES_FOR_PEOPLE.get(code);
          if (next === undefined) log.debug({ code, peer, detail }, 'membership');
          else log.warn({ code, next }, detail);
        },
      },
    );
    this.#driver.onChange((change) => this.#onChange(change));
    await this.#driver.start().catch((error: unknown) => {
      throw listenRefused(error);
    });
    serveExchange(this.#exchange());
    this.#seeds = this.#seedSearch();
    this.#evaluate();
  }

  #seedSearch(): SeedSearch {
    const { clock, log } = this.#dependencies;
    const { membership, network } = this.#config;
    return new SeedSearch(
      {
        seeds: membership.seeds,
        srv: membership.srv,
        joined: this.#identity.seeds,
        own: { address: this.#identity.address, port: this.#config.libp2pPort },
        privateNetwork: network.private_network,
      },
      {
        alone: () => this.#transport.peers().length === 0 && this.#identity.roster.members().length > 1,
        find: (address, port) => this.#transport.find(address, port),
        nowMs: () => clock.monotonicMs(),
        found: (peer, where) => {
          const name = this.#nameOf(peer);
          const summary = `found ${name} at ${where}, where its record does not say that it is`;
          this.#audit.append({
            kind: 'daemon',
            summary,
            trigger: 'no member answered',
            subjects: [name],
            result: 'ok',
          });
        },
        note: (detail) => log.debug(detail, 'looking for members'),
      },
    );
  }

  #startHealth(): void {
    const { clock } = this.#dependencies;
    const { health } = this.#config;
    this.#checks = new Checks(
      {
        rise: health.rise,
        fall: health.fall,
        returnDelayMs: health.damping_ms,
        intervalMs: health.interval_ms,
        fastIntervalMs: health.fast_interval_ms,
        timeoutMs: health.timeout_ms,
      },
      {
        clock,
        changed: (verdict, was) => {
          const summary = `${verdict.name} is ${verdict.health}: ${verdict.detail}`;
          const result = verdict.health === 'up' ? 'ok' : 'failed';
          this.#audit.append({
            kind: 'health',
            summary,
            trigger: `${verdict.streak} checks in a row, was ${was}`,
            subjects: [this.#identity.name],
            result,
            ...(verdict.health === 'down' && {
              error: {
                code: 'check-failed',
                message: verdict.detail,
                next: `see what ${verdict.name} says: bornemisza doctor`,
              },
            }),
          });
          this.#shareFacts();
          this.#lookAgain(summary);
        },
      },
    );
    this.#checks.set(checksFor(this.#config, this.#identity.roster.members()));
    this.#shareFacts();
  }

  async #startPlugins(): Promise<void> {
    const { clock } = this.#dependencies;
    this.#reconciler = new Reconciler(DEFAULT_RECONCILER_OPTIONS, {
      clock,
      audit: (entry) => this.#audit.append(entry),
      subjectsOf: (texts) => this.#subjectsOf(texts),
    });
    this.#plugins = new NodePlugins(this.#config, {
      paths: this.#options.paths,
      identity: this.#identity,
      view: () => this.#effective,
      situation: () => this.#situation(),
      departing: () => this.#phase === 'leaving' || this.#phase === 'left',
      onCouchDb: (status) => this.#onCouchDb(status),
      onProgress: (text) => this.#dependencies.log.info({ plugin: 'couchdb' }, text),
    });
    await this.#readCertificates();
    await this.#plugins.addTo(this.#reconciler);
  }

  #prepareRollout(): void {
    const { clock } = this.#dependencies;
    const { upgradeRequest, upgradeResult } = this.#options.paths;
    this.#rollout = new RolloutRunner(this.#identity.name, DEFAULT_ROLLOUT_OPTIONS, {
      clock,
      turn: new UpgradeTurn({ request: upgradeRequest, result: upgradeResult }),
      scene: () => ({
        rows: this.#rows(),
        admission: this.#identity.roster.members().map(({ name }) => name),
        synced: this.#effective.synced,
        held: this.#effective.held,
        settled: this.#reconciler.status().every(({ state }) => state === 'converged'),
      }),
      save: (word) => {
        this.#local.update({ rollout: word }).catch((error: unknown) => this.#notSaved(error));
        this.#shareFacts();
      },
      tell: (news) => this.#auditRollout(news),
    });
    this.#rollout.load(this.#local.state.rollout);
  }

  #auditRollout({ text, stopped }: RolloutNews): void {
    this.#audit.append({
      kind: 'daemon',
      summary: text,
      trigger: '',
      subjects: [this.#identity.name],
      result: stopped === undefined ? 'info' : 'failed',
      ...(stopped !== undefined && {
        error: { code: 'rollout-stopped', message: stopped.code, next: stopped.next },
      }),
    });
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
      save: (state) => {
        this.#local.update({ notification: state }).catch((error: unknown) => this.#notSaved(error));
      },
      told: (message, channels) => {
        this.#shareFacts();
        const { events } = message.payload;
        this.#audit.append({
          kind: 'daemon',
          summary: `told by ${channels.join(' and ')}: ${message.subject}`,
          trigger: events
            .slice(0, EVENTS_IN_TRAIL)
            .map((each) => each.what)
            .join('; '),
          subjects: this.#subjectsOf(events.map((each) => each.subject)),
          result: 'ok',
        });
      },
      failed: (channel, error) =>
        log.warn(
          { code: error.code, next: error.next },
          `notification by ${channel.name} (${channel.target}) failed: ${error.message}`,
        ),
    });
    this.#shareFacts();
  }

  #startHeartbeat(): void {
    const { log } = this.#dependencies;
    const { heartbeat } = this.#options.paths;
    if (this.#config.role !== 'app') return;
    this.#heartbeat = new Heartbeat(heartbeat, (error) =>
      log.warn(
        {
          code: 'heartbeat-failed',
          next: 'systemd-tmpfiles --create bornemisza.conf; it is tried again by itself',
        },
        `the dead-man switch sees no sign of life, as ${heartbeat} cannot be written: ${error.message}`,
      ),
    );
  }

  #watched(): Watched {
    const { floating, edge } = this.#config;
    return {
      device: floatingDevice(this.#config),
      port: edge.http_port,
      addresses: floating.mode === 'off' ? [] : floating.addresses,
    };
  }

  async #startAdmission(): Promise<void> {
    if (this.#identity.authority === undefined) return;
    const { clock, log } = this.#dependencies;
    this.#admission = new AdmissionListener({
      identity: this.#identity,
      address: this.#identity.address,
      port: this.#config.admissionPort,
      privateNetwork: this.#config.network.private_network,
      isAlive: (peer) =>
        this.#driver.view.members.some(
          (each) => each.record.peerId === peer && each.state !== 'dead' && each.state !== 'left',
        ),
      seeds: () =>
        this.#driver.view.members.map(({ record }) => ({
          peerId: record.peerId,
          address: record.address,
          port: record.port,
        })),
      onAdmitted: (change) => {
        this.#rosterChanged(change);
        for (const member of change.admitted) {
          this.#driver.admitted(member);
          this.#audit.append({
            kind: 'operator',
            summary: `${member.name} was admitted with a token`,
            trigger: `asked from ${member.address}`,
            subjects: [member.name],
            result: 'ok',
          });
        }
        this.#driver.rosterChanged();
      },
      onNote: (code, detail) => {
        if (code === 'admission-open' || code === 'admission-closed')
          log.info({ code }, `admission: ${detail}`);
        else
          log.warn({ code, next: 'nothing, unless it repeats: then look who asks' }, `admission: ${detail}`);
      },
      nowMs: () => clock.wallMs(),
    });
    await this.#admission.refresh();
  }

  // --- what happens ---

  #onChange(change: DriverChange): void {
    const { log, end } = this.#dependencies;
    switch (change.kind) {
      case 'changed': {
        const { record, state } = change.member;
        const words = this.#named(changeInWords(record.name, change.was, state, change.why));
        if (change.was !== state) {
          this.#audit.append({
            kind: 'member',
            summary: words,
            trigger: '',
            subjects: [record.name],
            result: 'info',
          });
        }
        this.#lookAgain(words);
        return;
      }
      case 'synced':
        this.#audit.append({
          kind: 'guard',
          summary: `first sync done with ${this.#nameOf(change.with)}: removals are allowed again`,
          trigger: 'start',
          subjects: [],
          result: 'info',
        });
        this.#lookAgain('first sync');
        return;
      case 'reaped':
        this.#audit.append({
          kind: 'member',
          summary: `${change.name} was forgotten: dead for long`,
          trigger: 'reap',
          subjects: [change.name],
          result: 'info',
        });
        this.#lookAgain(`${change.name} reaped`);
        return;
      case 'clone':
        if (!change.mustStop) {
          log.error(
            { next: 'find the cloned machine and join it with a token of its own' },
            'another process holds this node’s key; it came later and is told to stop',
          );
          return;
        }
        end(
          EXIT_CONFIG,
          'another process with this node’s key was there first: this is a clone or an old backup -- run `bornemisza join --reset -` with a fresh token',
        );
        return;
      case 'note':
        log.debug({ code: change.code, peer: change.peer }, change.detail);
    }
  }

  /** Somebody else's word that this node is out: duty ends before the process does, and systemd does not start it again. */
  async #withdrawAndEnd(why: string): Promise<void> {
    this.#phase = 'stopping';
    this.#lookAgain(why);
    await this.#withdrawn(STOP_DEADLINE_MS);
    this.#dependencies.end(EXIT_CONFIG, why);
  }

  #onCouchDb(status: CouchDbStatus): void {
    this.#couchdb = status;
    this.#shareFacts();
    this.#lookAgain(`CouchDB is ${status.phase}`);
  }

  #rosterChanged(change: RosterChange): void {
    const { log } = this.#dependencies;
    this.#auditRivals();
    if (!change.changed) return;
    this.#identity.roster
      .save()
      .catch((error: unknown) =>
        log.error(
          { err: error, next: 'free the disk: the roster is tried again with its next change' },
          'the roster cannot be saved',
        ),
      );
    for (const peer of change.revoked) {
      const name = this.#nameOf(peer);
      this.#audit.append({
        kind: 'operator',
        summary: `${name} was removed from the cluster`,
        trigger: 'signed revocation',
        subjects: [name],
        result: 'ok',
      });
    }
    if (change.revoked.includes(this.#identity.peerId)) {
      void this.#withdrawAndEnd(
        'this node was removed from the cluster -- to come back: bornemisza join --reset - with a fresh token',
      );
      return;
    }
    if (change.renewed.some(({ peerId }) => peerId === this.#identity.peerId)) void this.#takeSignedAnew();
    if (change.roots) void this.#rootsChanged();
    this.#checks?.set(checksFor(this.#config, this.#identity.roster.members()));
    this.#lookAgain('the roster changed');
    if (this.#phase === 'running' && !this.#fetching) void this.#keepSecrets();
  }

  /** The authority that had signed this node's certificate was removed; another one signed it anew. */
  async #takeSignedAnew(): Promise<void> {
    try {
      if (await adoptCertificate(this.#identity))
        await this.#certificateChanged(this.#renewedWords(), 'its authority was removed');
    } catch (error) {
      const next = 'free the disk; it is tried again at the next start';
      this.#dependencies.log.error({ err: error, next }, 'this node’s new certificate cannot be kept');
    }
  }

  /** A run of the command that was ended, or that found no daemon, left it here. */
  async #takeLeftRootChange(): Promise<void> {
    try {
      const { roster, trust } = this.#identity;
      const change = await takeRootChange(this.#identity);
      const ended = change?.roots === true && roster.rootChange === undefined;
      if (ended) await hangOnRoot(this.#identity, newestRoot(trust));
    } catch (error) {
      if (!hasNextStep(error)) throw error;
      this.#dependencies.log.error({ code: error.code, next: error.next }, error.message);
    }
  }

  /** The programs first, so that they believe in what others show; a root that ended leaves nothing of ours on it. */
  async #rootsChanged(): Promise<void> {
    this.#programsTold();
    const { roster, name } = this.#identity;
    const change = roster.rootChange;
    this.#audit.append({
      kind: 'operator',
      summary: this.#rootsInWords(),
      trigger: 'signed by the root',
      subjects: [name],
      result: 'ok',
    });
    if (change === undefined) await this.#hangOn();
    await this.#readCertificates();
    this.#programsTold();
    // Joiners are shown the root that their tokens name; the tokens of an ended root are void.
    if (change === undefined) await this.#admission?.reopen();
  }

  #rootsInWords(): string {
    const { trust, roster } = this.#identity;
    const newest = rootWord(newestRoot(trust));
    return roster.rootChange === undefined
      ? `the root ${newest} is the only one that counts from now on`
      : `the root ${newest} follows ${rootWord(roster.rootChange.from)}, and both count`;
  }

  /** Hangs what this node shows on the newest root, as soon as nobody who is here would refuse it. */
  #followRoot(): void {
    const { roster } = this.#identity;
    const change = roster.rootChange;
    if (change === undefined || this.#usesNewestRoot() || unaware(this.#rows(), change.to).length > 0) return;
    void this.#hangOn();
  }

  #hangOn(): Promise<void> {
    this.#hanging = this.#hanging.then(async () => {
      try {
        const root = newestRoot(this.#identity.trust);
        this.#programsTold();
        if (!(await hangOnRoot(this.#identity, root))) return;
        await this.#certificateChanged(
          `the certificate hangs on the root ${rootWord(root)}`,
          'the root is being replaced',
        );
        this.#programsTold();
      } catch (error) {
        const next = 'free the disk; it is tried again by itself';
        this.#dependencies.log.error(
          { err: error, next },
          'this node’s chain cannot be hung on the new root',
        );
      }
    });
    return this.#hanging;
  }

  #programsTold(): void {
    this.#rootsToldMs = this.#dependencies.clock.monotonicMs();
    this.#hasOldHaproxies = true;
  }

  /** While nothing changes, as if all were told just now: a change finds nobody who would follow it already. */
  async #lookAtOldHaproxies(): Promise<void> {
    if (this.#identity.roster.rootChange === undefined) this.#programsTold();
    else if (this.#reconciler.converged('haproxy'))
      this.#hasOldHaproxies = await this.#plugins.hasOldHaproxies();
  }

  #usesNewestRoot(): boolean {
    const { roster, trust, chainPem } = this.#identity;
    return roster.hungOn(chainPem, newestRoot(trust)) === chainPem;
  }

  #rootTag(): string | undefined {
    const change = this.#identity.roster.rootChange;
    if (change === undefined || this.#phase === 'starting') return undefined;
    const uses = this.#usesNewestRoot();
    const toldForMs = this.#dependencies.clock.monotonicMs() - this.#rootsToldMs;
    const follow =
      ['haproxy', 'couchdb'].every((program) => this.#reconciler.converged(program)) &&
      programsFollow(this.#identity.role, toldForMs, this.#hasOldHaproxies);
    // Who shows the new chain has known the root before, whatever its programs are at.
    return follow || uses ? rootTag(change.to, follow && uses) : undefined;
  }

  #auditRivals(): void {
    const rivals = this.#identity.roster.rivals();
    for (const message of rivals.slice(this.#rivalsTold)) {
      const error = { code: 'succession-rival', message, next: RIVAL_NEXT };
      const about = { trigger: 'signed by the old root', subjects: [this.#identity.name] };
      this.#audit.append({ kind: 'guard', summary: message, ...about, result: 'failed', error });
    }
    this.#rivalsTold = rivals.length;
  }

  /** Once a second: what changes with time alone. */
  #look(): void {
    this.#followRoot();
    void this.#lookAtOldHaproxies();
    const { clock } = this.#dependencies;
    if (this.#turns(TURN_MS)) void this.#heartbeat?.beat(this.#watched());
    this.#shareFacts();
    const before = JSON.stringify(this.#effective.members.map((each) => [each.record.name, each.rotation]));
    const heldBefore = this.#effective.held;
    this.#evaluate();
    const after = JSON.stringify(this.#effective.members.map((each) => [each.record.name, each.rotation]));
    if (before !== after) this.#reconciler.trigger('a guard let go or took hold');
    const drawing = this.#plugins.announcement();
    if (drawing?.announce !== this.#drawing) this.#reconciler.trigger(`floating IPs: ${drawing?.why ?? ''}`);
    this.#drawing = drawing?.announce;
    this.#auditGuards(heldBefore);
    void this.#pushStatus(false);
    if (this.#phase === 'running' && this.#notifier?.tick() === true) this.#shareFacts();
    if (!this.#fetching) void this.#keepSecrets();
    this.#seeds.look();
    void this.#retireTheLeft();
    this.#rollout
      .look()
      .catch((error: unknown) =>
        this.#dependencies.log.error(
          { err: error, next: `look at the directory: ls -la ${this.#options.paths.run}` },
          'the rollout cannot go on here',
        ),
      );
    if (clock.monotonicMs() - this.#renewalLookedMs > this.#renewalPauseMs()) void this.#renew();
  }

  #auditGuards(before: readonly string[]): void {
    const subjects = (words: readonly string[]): string[] => this.#subjectsOf(words);
    const now = this.#effective.held;
    for (const held of now.filter((each) => !before.includes(each))) {
      this.#audit.append({
        kind: 'guard',
        summary: `held: ${held}`,
        trigger: '',
        subjects: subjects([held]),
        result: 'held',
      });
    }
    for (const gone of before.filter((each) => !now.includes(each))) {
      this.#audit.append({
        kind: 'guard',
        summary: `no longer held: ${gone}`,
        trigger: '',
        subjects: subjects([gone]),
        result: 'info',
      });
    }
  }

  /** An authority takes back the certificates of those that left by their own word. */
  async #retireTheLeft(): Promise<void> {
    if (this.#identity.authority === undefined || this.#retiring) return;
    const nowMs = this.#driver.nowMs();
    const gone = this.#driver.view.members.find(
      ({ state, sinceMs, self, record }) =>
        state === 'left' &&
        !self &&
        nowMs - sinceMs > LEFT_RETIRE_MS &&
        this.#identity.roster.admits(record.peerId),
    );
    if (gone === undefined) return;
    this.#retiring = true;
    const { clock, log } = this.#dependencies;
    const { name, peerId } = gone.record;
    try {
      const { change } = await removeMember(this.#identity, peerId, LEFT, clock.wallMs());
      this.#rosterChanged(change);
      this.#driver.revoked(peerId);
      this.#driver.rosterChanged();
    } catch (error) {
      log.warn({ err: error, next: `run \`bornemisza remove ${name}\`` }, 'retiring a node that left failed');
    } finally {
      this.#retiring = false;
    }
  }

  async #keepSecrets(): Promise<void> {
    this.#fetching = true;
    try {
      if (this.#identity.secrets.get() === undefined) {
        if (!(await fetchSecrets(this.#exchange()))) return;
        this.#lookAgain('this role’s secrets arrived');
      } else {
        const done = await keepDbSecrets(this.#exchange(), this.#effective);
        if (done === undefined) return;
        const subjects = [this.#identity.name];
        this.#audit.append({ kind: 'daemon', summary: done, trigger: '', subjects, result: 'ok' });
        this.#lookAgain(done);
      }
      this.#shareFacts();
    } catch (error) {
      const next = 'free the disk: it is tried again by itself';
      this.#dependencies.log.warn({ err: error, next }, 'this role’s secrets cannot be kept');
    } finally {
      this.#fetching = false;
    }
  }

  /** With a certificate that ended, peers' HAProxies turn this node away: whoever comes back after long asks until it has one. */
  #renewalPauseMs(): number {
    const ended = this.#dependencies.clock.wallMs() > this.#identity.certificate.notAfterMs;
    return ended ? EXPIRED_LOOK_MS : RENEWAL_LOOK_MS;
  }

  async #renew(): Promise<void> {
    this.#renewalLookedMs = this.#dependencies.clock.monotonicMs();
    try {
      if (!(await renewCertificate(this.#exchange()))) return;
    } catch (error) {
      this.#dependencies.log.warn(
        { err: error, next: 'it is tried again within the hour' },
        'renewing this node’s certificate failed',
      );
      return;
    }
    await this.#certificateChanged(this.#renewedWords(), 'half of its life is over');
  }

  #renewedWords(): string {
    const ends = new Date(this.#identity.certificate.notAfterMs).toISOString().slice(0, 10);
    return `the certificate was renewed until ${ends}`;
  }

  async #certificateChanged(summary: string, why: string): Promise<void> {
    this.#transport.setChain(presentedChain(this.#identity));
    this.#driver.rosterChanged();
    this.#audit.append({
      kind: 'daemon',
      summary,
      trigger: why,
      subjects: [this.#identity.name],
      result: 'ok',
    });
    await this.#readCertificates();
  }

  #lookAgain(reason: string): void {
    if (this.#driver === undefined) return;
    const heldBefore = this.#effective?.held ?? [];
    this.#evaluate();
    this.#auditGuards(heldBefore);
    this.#reconciler?.trigger(reason);
  }

  #evaluate(): void {
    const { clock } = this.#dependencies;
    const { roster } = this.#identity;
    const state = (this.#local.state.guards as GuardState | undefined) ?? EMPTY_GUARD_STATE;
    const revoked = roster
      .revocations()
      .flatMap(({ address, serials }) => serials.map((serialHex) => ({ serialHex, address })));
    const result = guarded(
      {
        view: this.#driver.view,
        roster: roster.members(),
        revoked,
        revokedAuthorities: roster.revokedAuthorities().map(authorityWord),
        knownCertificates: roster.knownCertificates(),
        nowMs: this.#driver.nowMs(),
        wallMs: clock.wallMs(),
      },
      state,
    );
    this.#effective = result.effective;
    this.#local.update({ guards: result.state }).then(
      () => (this.#saveFailed = false),
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

  // --- this node’s own word ---

  #firstRecord(): NodeRecord {
    return {
      peerId: this.#identity.peerId,
      name: this.#identity.name,
      role: this.#identity.role,
      address: this.#identity.address,
      port: this.#config.libp2pPort,
      incarnation: Math.floor(this.#dependencies.clock.wallMs() / 1000),
      sequence: 0,
      startId: this.#startId,
      version: VERSION,
      protocolMin: PROTOCOL_MIN,
      protocolMax: PROTOCOL_MAX,
      status: 'alive',
      ...this.#facts(),
    };
  }

  #facts(): LocalFacts {
    const load = Math.round((loadavg()[0] ?? 0) * 100);
    if (Math.abs(load - this.#loadSent) >= LOAD_STEP) this.#loadSent = load;
    return {
      health: this.#checks?.node ?? 'down',
      maintenance: this.#local.state.maintenance,
      services: (this.#checks?.verdicts ?? []).map(({ name, health }) => ({ name, health })),
      tags: this.#recordTags(),
      load: this.#loadSent,
      settingsDigest: settingsDigest(this.#config),
    };
  }

  #recordTags(): Readonly<Record<string, string>> {
    const notices = noticeTag(this.#notices());
    const secrets = this.#identity.secrets.get();
    const root = this.#rootTag();
    return {
      ...(this.#couchdb !== undefined && { couchdb: this.#couchdb.tag }),
      ...(this.#couchdb?.restart !== undefined && { [RESTART_TAG]: this.#couchdb.restart }),
      ...(secrets?.kind === 'db' && { [SECRETS_TAG]: rankOf(secrets) }),
      ...(this.#rollout.tag !== undefined && { [ROLLOUT_TAG]: this.#rollout.tag }),
      ...(root !== undefined && { [ROOT_TAG]: root }),
      ...(notices !== '' && { [NOTICE_TAG]: notices }),
      ...(this.#holds() && { [HOLDS_TAG]: HOLDS }),
      ...this.#notifier?.tags,
    };
  }

  /** What no other node can see of this one, and a person should be told of, by whichever node tells. */
  #notices(): Notices {
    const { landslides } = (this.#local.state.guards as GuardState | undefined) ?? EMPTY_GUARD_STATE;
    const running = this.#phase === 'running';
    const endMs = this.#plugins?.siteCertificateEndMs;
    const near = endMs !== undefined && endMs - this.#dependencies.clock.wallMs() < CERTIFICATE_ENDING_MS;
    return {
      landslides: landslides.map((each) => each.role),
      lastStanding:
        running && this.#checks.node === 'down' && this.#plugins.announcement()?.announce === true,
      siteCertificateEndMs: near ? endMs : undefined,
    };
  }

  #shareFacts(): void {
    this.#driver?.local(this.#facts());
  }

  /** What a role’s policy may know of this node besides the view. */
  #situation(): AppSituation {
    const edge = this.#checks.verdicts.find((each) => each.name === 'haproxy');
    return {
      health: this.#checks.node,
      edgeAnswers: edge?.health === 'up',
      maintenance: this.#local.state.maintenance,
      // A node that goes for longer than a restart takes itself out before it ends.
      leaving: this.#phase === 'leaving' || this.#phase === 'left' || this.#phase === 'stopping',
      holds: this.#holds(),
      upMs: this.#dependencies.clock.monotonicMs() - this.#startedMs,
    };
  }

  /** Mode `layer2`: whether the floating IPs are on the public device. Another one may have them from a former mode. */
  #holds(): boolean {
    const { mode, addresses } = this.#config.floating;
    const device = floatingDevice(this.#config);
    return mode === 'layer2' && addresses.some((each) => isOn([device, labelOf(device)], each));
  }

  /** A certificate that cannot be read leaves the former one in use. */
  async #readCertificates(): Promise<void> {
    try {
      // A roster that comes while this node starts: the plugins read them when they are there.
      if (await this.#plugins?.readCertificates()) this.#lookAgain('certificates changed');
    } catch (error) {
      if (!hasNextStep(error)) throw error;
      this.#dependencies.log.error({ code: error.code, next: error.next }, error.message);
    }
  }

  #exchange() {
    const { log, clock } = this.#dependencies;
    return { identity: this.#identity, transport: this.#transport, log, wallMs: () => clock.wallMs() };
  }

  #nameOf(peer: string): string {
    return (
      this.#identity.roster.get(peer)?.name ??
      this.#driver.view.members.find((each) => each.record.peerId === peer)?.record.name ??
      this.#identity.roster.revocations().find((each) => each.peerId === peer)?.name ??
      peer
    );
  }

  /** The machine speaks of PeerIds; people know names. */
  #named(text: string): string {
    return text.replaceAll(/\b12D3KooW\w{44}\b/g, (peer) => this.#nameOf(peer));
  }

  /** Members whose name, or whose host as a server name, stands in a text. */
  #subjectsOf(texts: readonly string[]): string[] {
    const words = new Set(
      texts.flatMap((text) => text.split(/[^A-Za-z0-9./-]+/).flatMap((word) => [word, ...word.split('/')])),
    );
    return this.#identity.roster
      .members()
      .filter((member) => words.has(member.name) || words.has(member.host))
      .map((member) => member.name);
  }

  // --- to the outside ---

  #announce(entry: AuditEntry, journal: boolean): void {
    const { log } = this.#dependencies;
    if (entry.result === 'failed' || entry.result === 'rolled-back' || entry.result === 'held') {
      // On our own output: journald may miss the unit of a logger that has ended already, and `journalctl -u` with it.
      log.warn({ audit: entry.id }, messageOf(entry));
    } else if (journal) {
      journalEntry(entry, (error) => log.warn({ err: error }, messageOf(entry)));
    } else {
      log.info({ audit: entry.id }, messageOf(entry));
    }
  }

  async #pushStatus(ready: boolean): Promise<void> {
    const { serviceManager } = this.#dependencies;
    const counts = countsOf(this.#rows());
    const gone = counts.dead + counts.suspect;
    const text = `${this.#identity.name} ${this.#checks.node}${this.#local.state.maintenance ? ' (maintenance)' : ''}, ${counts.alive} alive${gone > 0 ? `, ${gone} missing` : ''}${this.#effective.synced ? '' : ', waiting for the first peer'}`;
    if (text === this.#statusText && !ready) return;
    this.#statusText = text;
    await (ready ? serviceManager.ready(text) : serviceManager.status(text));
  }

  /** Fed only while the driver's loop turns: a process that hangs is ended and started again by systemd. */
  #feedWatchdog(intervalMs: number): void {
    if (this.#turns(intervalMs)) void this.#dependencies.serviceManager.watchdog();
  }

  /** Whether the driver's loop turned within this time. */
  #turns(withinMs: number): boolean {
    return this.#driver.nowMs() - this.#driver.lastTurnMs < withinMs;
  }

  #rows() {
    const { roster } = this.#identity;
    return memberRows({
      view: this.#driver.view,
      effective: this.#effective,
      certificates: roster.members(),
      authorities: roster.authorities(),
      nowMs: this.#driver.nowMs(),
    });
  }

  // --- the control socket asks (ControlActions) ---

  status(): StatusAnswer {
    this.#mustRun();
    const { clock } = this.#dependencies;
    const rows = this.#rows();
    const nowMs = clock.monotonicMs();
    const { roster } = this.#identity;
    const { rootChange } = roster;
    const announcement = this.#plugins.announcement();
    return {
      version: VERSION,
      cluster: this.#identity.cluster,
      name: this.#identity.name,
      role: this.#identity.role,
      peerId: this.#identity.peerId,
      address: this.#identity.address,
      health: this.#checks.node,
      maintenance: this.#local.state.maintenance,
      synced: this.#effective.synced,
      phase: this.#phase,
      upMs: nowMs - this.#startedMs,
      counts: countsOf(rows),
      checks: this.#checks.verdicts.map(({ name, health, required, detail, sinceMs }) => ({
        name,
        health,
        required,
        detail,
        sinceMs: nowMs - sinceMs,
      })),
      plugins: this.#reconciler.status(),
      held: this.#effective.held,
      warnings: [
        ...warningsOf(rows, clock.wallMs()),
        ...rootWarnings(rootChange, roster.rivals(), rows),
        ...(this.#notifier?.warnings ?? []),
        ...this.#rollout.warnings,
        ...(this.#couchdb?.alarms ?? []).map(({ message, next }) => `${message} -- ${next}`),
      ],
      announcing: announcement?.announce,
      announcingWhy: announcement?.why,
      floating: this.#config.role === 'app' ? this.#config.floating.addresses : [],
      counters: { ...this.#driver.counters, ...this.#transport.counters },
      ...(rootChange !== undefined && {
        rootChange: { root: rootWord(rootChange.to), notYet: notYetUsing(rows, rootChange.to) },
      }),
    };
  }

  members(): MembersAnswer {
    this.#mustRun();
    return { self: this.#identity.name, members: this.#rows() };
  }

  async plan(): Promise<PlanAnswer> {
    this.#mustRun();
    const plans = await this.#reconciler.plan();
    return {
      plugins: plans.map(({ name, changes, error }) => ({
        name,
        changes: changes.map(({ kind, summary }) => ({ kind, summary })),
        ...(error !== undefined && { error: { code: error.code, message: error.message, next: error.next } }),
      })),
    };
  }

  audit(options: { subject?: string; sinceId?: number; limit?: number }): readonly AuditEntry[] {
    return this.#audit.query(options);
  }

  follow(follower: (entry: AuditEntry) => void): () => void {
    return this.#audit.follow(follower);
  }

  async maintenance({ on, force }: { on: boolean; force?: boolean }): Promise<Done> {
    this.#mustRun();
    if (on && force !== true) this.#mustNotBeLast('maintenance');
    const was = this.#local.state.maintenance;
    try {
      await this.#local.update({ maintenance: on });
    } catch (error) {
      // What would not outlive a reboot is not promised: the operator hears why, and nothing changed.
      await this.#local.update({ maintenance: was }).catch(() => undefined);
      throw error;
    }
    this.#operatorDid(`maintenance ${on ? 'on' : 'off'}`);
    this.#shareFacts();
    this.#lookAgain(`maintenance ${on ? 'on' : 'off'} by the operator`);
    return {
      done: true,
      message: on
        ? `${this.#identity.name} is out of rotation and stays so across reboots`
        : `${this.#identity.name} goes back into rotation as soon as its checks pass`,
    };
  }

  async leave({ force }: { force?: boolean }, progress: (step: Progress) => void): Promise<Done> {
    this.#mustRun();
    if (this.#phase === 'left') throw leftAlready(this.#options.role);
    const { name, role } = this.#identity;
    if (force !== true) {
      this.#mustNotBeLast('leave');
      this.#mustNotBeLastAuthority(name);
    }
    this.#phase = 'leaving';
    this.#operatorDid('leave');
    this.#driver.leave();
    this.#lookAgain('leave by the operator');
    progress({ message: `told the others: ${name} is leaving` });
    if (role === 'app') await this.#leaveEdge(progress);
    else await this.#leaveData(progress);
    this.#driver.departed();
    this.#phase = 'left';
    await this.#local.update({ left: true });
    await pause(300);
    return {
      done: true,
      message: `${name} has left and carries no duty any more. Next: systemctl disable --now bornemisza@${role}; then the machine can be deleted at the provider`,
    };
  }

  async #leaveEdge(progress: (step: Progress) => void): Promise<void> {
    if (!(await this.#withdrawn(10_000))) {
      if (announces(this.#config))
        throw this.#leaveRefused(
          'BIRD does not confirm that the floating IP is withdrawn here',
          'systemctl status bird; then leave again',
        );
      throw this.#leaveRefused(
        `the floating IP cannot be taken off ${floatingDevice(this.#config)}`,
        'bornemisza plan says why; then leave again',
      );
    }
    progress({ message: 'nothing new comes here; waiting for what is under way' });
    await pause(DRAIN_MS);
    progress({ message: 'drained' });
  }

  async #leaveData(progress: (step: Progress) => void): Promise<void> {
    let told = '';
    while (this.#couchdb !== undefined && this.#couchdb.phase !== 'left') {
      const plugin = this.#reconciler.status().find((each) => each.name === 'couchdb');
      if (plugin?.state === 'stopped') {
        throw this.#leaveRefused(plugin.detail, plugin.next);
      }
      const words = this.#couchdb.waiting ?? plugin?.detail ?? '';
      if (words !== told && words !== '') progress({ message: words });
      told = words;
      await pause(200);
    }
    if (this.#couchdb === undefined) return;
    progress({ message: 'every copy is on the others; stopping CouchDB here (its data stays on the disk)' });
    await this.#plugins.retireCouchDb();
    const { clock } = this.#dependencies;
    const untilMs = clock.monotonicMs() + COUCHDB_STOP_MS;
    const check = (): CheckVerdict | undefined =>
      this.#checks.verdicts.find((each) => each.name === 'couchdb');
    while (check()?.detail !== 'connection refused' && clock.monotonicMs() < untilMs) await pause(100);
  }

  /**
   * A leave was announced and cannot be finished. The word is final for this incarnation, so the daemon starts again: its
   * next one is a member like before.
   */
  #leaveRefused(message: string, next: string): OperatorError {
    setTimeout(
      () => this.#dependencies.end(1, 'the leave was refused: starting again as a member'),
      TAKE_BACK_MS,
    );
    return new OperatorError(
      'leave-refused',
      message,
      `${next} (the daemon starts again and stays a member)`,
    );
  }

  /** @returns whether those that draw the floating IP have nothing left to do */
  async #withdrawn(deadlineMs: number): Promise<boolean> {
    const untilMs = this.#dependencies.clock.monotonicMs() + deadlineMs;
    while (!this.#reconciler.converged('bird') || !this.#reconciler.converged('layer2')) {
      if (this.#dependencies.clock.monotonicMs() > untilMs) return false;
      await pause(20);
    }
    return true;
  }

  async token({ role, ttlMs }: { role: Role; ttlMs: number }) {
    this.#mustRun();
    const { tokens, address, roster, peerId } = this.#identity;
    if (tokens === undefined || this.#admission === undefined) {
      const authorities = roster.authorities().map((each) => this.#nameOf(each));
      throw new OperatorError(
        'not-authority',
        `${this.#identity.name} does not sign certificates`,
        `run this on ${authorities.join(' or ')}`,
      );
    }
    const port = this.#config.admissionPort;
    const made = await tokens.create({
      role,
      ttlMs,
      address,
      port,
      nowMs: this.#dependencies.clock.wallMs(),
    });
    await this.#admission.refresh();
    this.#operatorDid(
      `a token for one ${role} node was made (${Math.round(ttlMs / 60_000)} minutes, ${peerId.slice(-6)})`,
    );
    return {
      token: made.token,
      role,
      expiresAt: new Date(made.expiresAtMs).toISOString(),
      listen: `${address}:${port}`,
    };
  }

  async remove({ node, dead, force }: { node: string; dead?: boolean; force?: boolean }): Promise<Done> {
    this.#mustRun();
    const { clock } = this.#dependencies;
    const row = this.#rows().find(
      (each) => each.name === node || each.peerId === node || each.name.startsWith(`${node}/`),
    );
    if (row?.self === true) {
      throw new OperatorError(
        'remove-self',
        'a node cannot remove itself',
        'run `bornemisza leave` here, or `bornemisza remove` on another node',
      );
    }
    if (row?.state === 'alive' && row.rotation === 'in' && force !== true) {
      throw new OperatorError(
        'guard-alive',
        `${row.name} is alive and serving`,
        `run \`bornemisza leave\` on it, or add --force to put it out now`,
      );
    }
    if (row?.role === 'db' && row.state !== 'left' && dead !== true) {
      throw new OperatorError(
        'guard-data',
        `${row.name} did not leave: its copies of the data would be given up`,
        'run `bornemisza leave` on it; if the machine is gone for good, add --dead',
      );
    }
    if (row !== undefined && force !== true) this.#mustNotBeLastAuthority(row.name);
    const { change, peerId } = await removeMember(
      this.#identity,
      node,
      'removed by the operator',
      clock.wallMs(),
    );
    this.#rosterChanged(change);
    this.#driver.revoked(peerId);
    this.#driver.rosterChanged();
    return {
      done: true,
      message: `${row?.name ?? node} was removed: its certificate is revoked everywhere, its connections are cut`,
    };
  }

  /** The root itself never comes here: the command opened it, and left the key of this one authority. */
  async adoptAuthority(): Promise<Done> {
    this.#mustRun();
    const { name } = this.#identity;
    const change = await adoptAuthority(this.#identity);
    if (change === undefined) return { done: true, message: `${name} is an authority already` };
    await this.#startAdmission();
    this.#rosterChanged(change);
    this.#driver.rosterChanged();
    this.#operatorDid(`${name} was made an authority`);
    return {
      done: true,
      message: `${name} is an authority: it can admit and remove nodes, and renew certificates`,
    };
  }

  /** As with an authority’s key, the root stays in the command: what it signed lies in this node’s directory. */
  async changeRoot(): Promise<Done> {
    this.#mustRun();
    const change = await takeRootChange(this.#identity);
    if (change === undefined) return { done: true, message: 'no change of the root is waiting here' };
    this.#rosterChanged(change);
    this.#driver.rosterChanged();
    const message = this.#rootsInWords();
    this.#operatorDid(`authority rotate-root: ${message}`);
    return { done: true, message };
  }

  async releaseGuards(): Promise<Done> {
    this.#mustRun();
    const held = this.#effective.held.length;
    await this.#local.update({ guards: released(this.#local.state.guards as GuardState) });
    this.#operatorDid('guards released');
    this.#lookAgain('guards released by the operator');
    this.#reconciler.retryNow('guards released by the operator');
    return { done: true, message: held === 0 ? 'no guard held anything' : `${held} held, now released` };
  }

  async testNotification(progress: (step: Progress) => void): Promise<Done> {
    this.#mustRun();
    let reached = 0;
    let failed = 0;
    for await (const { channel, failure } of this.#notifier?.test() ?? []) {
      if (failure === undefined) reached += 1;
      else failed += 1;
      const words = `${channel.name} (${channel.target})`;
      progress(
        failure === undefined
          ? { message: `sent by ${words}` }
          : { message: `${words} failed: ${failure.message}`, error: failure },
      );
    }
    if (reached + failed === 0) {
      throw new OperatorError(
        'notify-not-configured',
        `${this.#identity.name} is told nothing in [notify], so it tells nobody`,
        `add mail_to, webhook_url or command to ${this.#options.paths.config}, then: systemctl reload bornemisza@${this.#options.role}`,
      );
    }
    if (failed > 0) {
      throw new OperatorError(
        'notify-test-failed',
        `${failed} of ${reached + failed} ways to tell somebody failed`,
        'do what is said for each, then test again',
      );
    }
    return { done: true, message: 'sent by every way; see whether it arrives' };
  }

  /** Reads the configuration again. A bad one is refused and the old one stays. */
  async reload(): Promise<Done> {
    this.#mustRun();
    const { serviceManager, log } = this.#dependencies;
    await serviceManager.reloading();
    try {
      const config = await loadConfig(this.#options.role, this.#options.paths);
      const before = this.#config;
      const differing = readAtStartOnly(before, config);
      if (differing.length > 0) {
        throw new OperatorError(
          'reload-needs-restart',
          `${differing.join(', ')} changed, which is read at the start only`,
          `restart the daemon: systemctl restart bornemisza@${config.role} (HAProxy, BIRD and CouchDB keep running)`,
        );
      }
      this.#config = config;
      this.#plugins.reconfigure(config);
      this.#notifier?.reconfigure(config.notify);
      await this.#readCertificates();
      this.#checks.set(checksFor(config, this.#identity.roster.members()));
      this.#operatorDid('the configuration was read again');
      this.#shareFacts();
      this.#reconciler.retryNow('reload');
      log.info('the configuration was read again');
      return { done: true, message: 'the configuration was read again' };
    } finally {
      await serviceManager.ready(this.#statusText);
    }
  }

  upgrade(): UpgradeAnswer {
    this.#mustRun();
    return this.#rollout.answer();
  }

  rollout(verb: RolloutVerb): Done {
    this.#mustRun();
    const done = this.#rollout[verb]();
    this.#operatorDid(`upgrade ${verb}`);
    return done;
  }

  #operatorDid(what: string): void {
    this.#audit.append({
      kind: 'operator',
      summary: what,
      trigger: 'operator',
      subjects: [this.#identity.name],
      result: 'ok',
    });
  }

  /** The asker is refused before anything is announced; once announced, nobody holds it. */
  #mustNotBeLast(what: string): void {
    const { role, name } = this.#identity;
    const others = this.#effective.members.filter(
      (each) => !each.self && each.record.role === role && each.rotation === 'in',
    );
    if (others.length > 0) return;
    throw new OperatorError(
      'guard-last-of-role',
      `${name} is the last ${role} node in rotation: ${what} would leave nobody`,
      `bring another ${role} node into rotation first, or add --force`,
    );
  }

  #mustNotBeLastAuthority(name: string): void {
    if (!isLastAuthority(this.#rows(), name)) return;
    throw new OperatorError(
      'guard-last-authority',
      `${name} is the last authority that is alive: without it nobody can be admitted, removed or renewed`,
      'run `sudo bornemisza authority add` on a node that stays, with the recovery bundle, or add --force',
    );
  }

  #mustRun(): void {
    if (this.#phase !== 'starting') return;
    throw new OperatorError('starting', 'the daemon is still starting', 'try again in a second');
  }
}

/** What keeps the libp2p port from being opened, with what to do about it. The unit starts the daemon again by itself. */
function listenRefused(error: unknown): unknown {
  if (!(error instanceof TransportError)) return error;
  const next =
    error.code === 'address-in-use'
      ? 'find it with `ss -ltnp` and end it, or set network.libp2p_port; the daemon tries again by itself'
      : 'see `ip -br addr`; the daemon tries again by itself';
  return new OperatorError(error.code, error.message, next, { cause: error });
}

/** What a running daemon cannot take over: its identity, its addresses, and which programs it keeps. */
function readAtStartOnly(before: Config, after: Config): string[] {
  const parts = (config: Config): Record<string, unknown> => ({
    '[node]': config.node,
    '[network]': config.network,
    '[membership]': config.membership,
    '[floating] mode': announces(config) || config.floating.mode,
    '[floating] device': config.floating.device,
    '[couchdb] http_port': config.couchdb.http_port,
    '[log]': config.log,
  });
  const [was, is] = [parts(before), parts(after)];
  return Object.keys(was).filter((key) => JSON.stringify(was[key]) !== JSON.stringify(is[key]));
}

function leftAlready(role: Role): OperatorError {
  return new OperatorError(
    'left',
    'this node has left its cluster',
    `to come back: bornemisza join --reset - with a fresh token; else: systemctl disable bornemisza@${role}`,
  );
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
