import type { CouchDbStatus } from '../../plugins/couchdb/plugin.ts';
import { retireCouchDb } from '../../plugins/couchdb/retire.ts';
import type { Config } from '../config/config.ts';
import type { Done, MemberRow, Warning } from '../control/api.ts';
import type { ControlActions } from '../control/server.ts';
import type { DriverChange } from '../driver/driver.ts';
import { waysOut } from '../identity/identity.ts';
import type { RosterChange } from '../identity/roster/roster.ts';
import type { Goodbye, LocalFacts, MembershipView } from '../membership/types.ts';
import { VERSION } from '../version.ts';
import { actionsOf, type OrderedNode } from './actions.ts';
import type { Assembly, NodeDependencies, NodeOptions, NodeParts } from './assemble.ts';
import { assemble, saidBy } from './assemble.ts';
import { CLONED, THIS_IS_A_CLONE } from '../driver/membership.ts';
import { checksFor, DATABASE_CHECK, healthOptions } from './checks.ts';
import { serveExchange } from '../identity/exchange.ts';
import { serveRemoved } from '../identity/removal-report.ts';
import { withdrawn } from '../control/leave.ts';
import { changedByTime, type Look, look, type Memory, type Phase, type Scene, type Words } from './look.ts';
import { memberRows } from '../control/member-rows.ts';
import { statusText } from '../control/warnings.ts';
import { guardMemory, sceneOf } from './scene.ts';
import { Reload } from '../process/reload.ts';
import { listenRefused } from '../process/start-checks.ts';
import { guardEntries, memberNews, operatorEntry, rosterEntries, startedEntry } from '../audit/entries.ts';
import type { Reason } from '../reconciler/reconciler.ts';
import { storageNext } from '../identity/storage.ts';
import { NO_RETURNS } from '../../roles/returns.ts';

/** How often time-dependent decisions (guards, load, secrets, certificates) are made again. */
const TICK_MS = 1000;
/** How long a stop waits for the programs before the process ends anyway. */
const STOP_DEADLINE_MS = 5000;
/** systemd.exec(5): for problems that only a person can correct. The unit does not start again after it. */
const EXIT_CONFIG = 78;

/**
 * One role instance. All policy is in the rooms that it joins; every event ends in {@link turn}, which makes a scene,
 * lets {@link look} decide, and carries the decision out.
 */
export class RunningNode implements OrderedNode {
  readonly #options: NodeOptions;
  readonly #dependencies: NodeDependencies;
  readonly #parts: NodeParts;
  readonly #assembly: Assembly;
  readonly #actions: ControlActions;
  readonly #reload: Reload;
  #config: Config;
  #phase: Phase = 'starting';
  #last: Look;
  /** The reasons for the next turn, while one runs. */
  #reasons: Reason[] | undefined;
  #listens = false;
  #couchdbRetired = false;
  #tick: NodeJS.Timeout | undefined;

  constructor(parts: NodeParts, options: NodeOptions, dependencies: NodeDependencies) {
    this.#parts = parts;
    this.#options = options;
    this.#dependencies = dependencies;
    this.#config = parts.config;
    const { peerId } = parts.identity;
    const nobody = { version: 0, self: peerId, synced: false, members: [] };
    const guards = guardMemory(parts.local.state);
    this.#last = look(this.#scene(nobody, {}, undefined), { guards, returns: NO_RETURNS, load: 0 });
    this.#assembly = assemble(this, parts, options, dependencies);
    const { log, serviceManager } = dependencies;
    const reloaded = () => this.#assembly.signs.reloaded();
    this.#reload = new Reload(options, { log, serviceManager, reloaded, node: this });
    this.#actions = actionsOf(this, this.#assembly, parts, options, dependencies);
  }

  get config(): Config {
    return this.#config;
  }

  get phase(): Phase {
    return this.#phase;
  }

  get last(): Look {
    return this.#last;
  }

  get refusedReload(): Warning | undefined {
    return this.#reload.refused;
  }

  /** The instance runs. */
  get actions(): ControlActions | undefined {
    return this.#phase === 'starting' ? undefined : this.#actions;
  }

  rows(): MemberRow[] {
    const { roster } = this.#parts.identity;
    return memberRows({
      view: this.#assembly.driver.view,
      effective: this.#last.view,
      certificates: roster.members(),
      authorities: roster.authorities(),
      nowMs: this.#assembly.driver.nowMs(),
    });
  }

  operatorDid(what: string): void {
    this.#parts.audit.append(operatorEntry(this.#parts.identity.name, what));
  }

  /** @throws OperatorError if the port is not available */
  async start(): Promise<void> {
    this.#assembly.driver.onChange((change) => this.#onChange(change));
    await this.#assembly.driver.start().catch((error: unknown) => {
      throw listenRefused(error);
    });
    this.#listens = true;
    serveExchange(this.#assembly.exchange);
    serveRemoved(this.#assembly.removal);
    this.#assembly.peers.serve();
    if (this.#config.role === 'app') this.#assembly.site.serve();
    this.turn('start');
    await this.#assembly.certificate.read();
    await this.#assembly.programs.start();
    this.#phase = 'running';
    this.#rememberDatabase();
    this.turn('start');
    this.#tick = setInterval(() => this.#look(), TICK_MS);
    await this.#assembly.registrar.start();
    await this.#assembly.signs.start();
    this.#parts.audit.append(startedEntry(this.#parts.identity.name, VERSION));
  }

  /** Says goodbye to the peers, and ends this node's traffic if it goes for longer than a restart. */
  async stop(goodbye: Goodbye): Promise<void> {
    const { log, serviceManager } = this.#dependencies;
    if (this.#phase !== 'running' && this.#phase !== 'leaving') return;
    this.#phase = 'stopping';
    await serviceManager.stopping(`${goodbye}: notifying the others`);
    this.#assembly.driver.goodbye(goodbye);
    if (goodbye !== 'restart') {
      this.turn(`${goodbye} of this node`);
      const isWithdrawn = await this.#withdrawn();
      clearInterval(this.#tick);
      if (isWithdrawn) await this.#assembly.signs.lastBeat();
    }
    log.info({ goodbye }, 'the daemon ends; HAProxy, BIRD and CouchDB keep running');
  }

  /** Works after a partial start, and twice. */
  async close(): Promise<void> {
    clearInterval(this.#tick);
    this.#listens = false;
    this.#assembly.signs.close();
    this.#assembly.metrics.close();
    this.#parts.checks.close();
    await this.#assembly.notifier.close();
    await this.#assembly.registrar.close();
    await this.#assembly.reconciler.close();
    await this.#assembly.driver.close();
    // A full disk must not turn an orderly end into a crash.
    await this.#parts.local.keep({});
  }

  reload(): Promise<Done> {
    return this.#reload.run();
  }

  /** Puts a configuration that was read again into use. */
  async take(config: Config): Promise<void> {
    this.#config = config;
    this.#assembly.notifier.reconfigure(config.notify);
    await this.#assembly.certificate.read();
    this.#setChecks();
    this.operatorDid('the configuration was read again');
    this.turn('reload');
    this.#assembly.reconciler.retryNow('reload');
  }

  turn(text: string, subjects: readonly string[] = []): void {
    // The first turn sees events from before this node listens; a turn itself sees the events that it causes.
    if (!this.#listens || this.#reasons !== undefined) {
      this.#reasons?.push({ text, subjects });
      return;
    }
    this.#reasons = [{ text, subjects }];
    try {
      // A node's own record is part of the view that it acts on.
      this.#assembly.driver.local(this.look().facts);
      this.#follow(this.look(), this.#reasons);
    } finally {
      this.#reasons = undefined;
    }
    void this.#assembly.site.look();
  }

  #follow(now: Look, reasons: readonly Reason[]): void {
    const before = this.#last;
    this.#last = now;
    void this.#parts.local.keep({ guards: now.memory.guards });
    const said = reasons.filter(({ text }) => text !== '');
    this.#assembly.programs.follow(now, said.length > 0 ? said : [changedByTime(before, now)]);
    for (const entry of guardEntries(before.view.held, now.view.held)) this.#parts.audit.append(entry);
  }

  /** The present state, without consequences. */
  look(): Look {
    const assembly = this.#assembly;
    const said = saidBy(assembly, this.#phase);
    return look(this.#scene(assembly.driver.view, said, assembly), this.#memory);
  }

  firstFacts(said: Words): LocalFacts {
    return look(this.#scene(this.#last.scene.view, said, undefined), this.#memory).facts;
  }

  get #memory(): Memory {
    return { ...this.#last.memory, guards: guardMemory(this.#parts.local.state) };
  }

  /** @param assembly undefined before it exists */
  #scene(view: MembershipView, said: Words, assembly: Assembly | undefined): Scene {
    return sceneOf({
      ...this.#parts,
      view,
      said,
      certificates: assembly?.certificate.shown,
      couchdb: assembly?.programs.report('couchdb') as CouchDbStatus | undefined,
      dnsProgram: assembly?.reconciler.status().find(({ name }) => name === 'dns'),
      config: this.#config,
      phase: this.#phase,
      clock: this.#dependencies.clock,
      couchdbData: this.#options.paths.couchdbData,
      couchdbRetired: this.#couchdbRetired,
    });
  }

  /** A check of this node has another verdict: the program of that name may have changed since its last observation. */
  verdict(check: string, summary: string): void {
    const subjects = [this.#parts.identity.name];
    this.#assembly.reconciler.trigger(summary, check, subjects);
    if (check === DATABASE_CHECK) this.#rememberDatabase();
    this.turn(summary, subjects);
  }

  /** Once it has found a database, this node depends on finding one. */
  #rememberDatabase(): void {
    const { checks, local } = this.#parts;
    const found = checks.verdicts.some(({ name, health }) => name === DATABASE_CHECK && health === 'up');
    if (!found || local.state.databaseFound) return;
    void this.#parts.local.keep({ databaseFound: true });
    this.#setChecks();
  }

  #onChange(change: DriverChange): void {
    const { log, end } = this.#dependencies;
    if (change.kind === 'note') {
      log.debug({ code: change.code, peer: change.peer }, change.detail);
    } else if (change.kind !== 'clone') {
      const { entry, reason, subjects } = memberNews(change, this.#assembly.names);
      if (entry !== undefined) this.#parts.audit.append(entry);
      this.turn(reason, subjects);
    } else if (change.mustStop) {
      end(EXIT_CONFIG, THIS_IS_A_CLONE);
    } else {
      log.error({ next: CLONED.next }, CLONED.message);
    }
  }

  rosterChanged(change: RosterChange): void {
    const { identity, audit } = this.#parts;
    const { peerId, roster } = identity;
    this.#assembly.roots.auditRivals();
    if (!change.changed) return;
    roster.save().catch((error: unknown) => {
      const next = `${storageNext(error)}; the roster is tried again with its next change`;
      this.#dependencies.log.error({ err: error, next }, 'the roster cannot be saved');
    });
    for (const entry of rosterEntries(change, this.#assembly.names)) audit.append(entry);
    if (change.revoked.includes(peerId)) {
      // Its identity is no longer valid, as after a leave: `status` and `leave --wipe` know it without the daemon.
      void this.#parts.local
        .update({ left: true })
        .catch(() => undefined)
        .then(() =>
          this.#withdrawAndEnd(`this node was removed from the cluster -- ${waysOut(identity.role)}`),
        );
      return;
    }
    if (change.renewed.some((each) => each.peerId === peerId))
      void this.#assembly.certificate.takeSignedAnew();
    if (change.roots) void this.#assembly.roots.changed();
    this.#setChecks();
    this.turn('the roster changed');
    if (this.#phase === 'running') void this.#assembly.secrets.look();
  }

  /** Once a second: decisions that change with time alone. */
  #look(): void {
    this.#assembly.roots.look();
    this.#assembly.signs.beat();
    this.#assembly.metrics.look();
    if (this.#phase === 'running') this.#assembly.notifier.tick();
    this.turn('');
    void this.#assembly.signs.tellStatus();
    void this.#assembly.secrets.look();
    this.#assembly.seeds.look();
    void this.#assembly.disks.look();
    void this.#assembly.machine.look();
    void this.#assembly.registrar.retireTheLeft();
    this.#assembly.rollout.look().catch((error: unknown) => {
      const next = `check the directory: ls -la ${this.#options.paths.run}`;
      this.#dependencies.log.error({ err: error, next }, 'the rollout cannot continue here');
    });
    this.#assembly.certificate.look();
  }

  /** Others report that this node was removed: its traffic ends before the process, and systemd does not restart it. */
  async #withdrawAndEnd(why: string): Promise<void> {
    this.#phase = 'stopping';
    this.turn(why);
    await this.#withdrawn();
    this.#dependencies.end(EXIT_CONFIG, why);
  }

  #withdrawn(): Promise<boolean> {
    return withdrawn(this.#assembly.reconciler, this.#dependencies.clock, STOP_DEADLINE_MS);
  }

  enter(phase: Phase): void {
    this.#phase = phase;
  }

  async retireCouchDb(): Promise<void> {
    this.#couchdbRetired = true;
    await retireCouchDb(this.#options.paths);
  }

  text(): string {
    const { name } = this.#parts.identity;
    const { health, maintenance } = this.#last.facts;
    return statusText({ name, health, maintenance, synced: this.#last.view.synced }, this.rows());
  }

  #setChecks(): void {
    const { checks, identity, local } = this.#parts;
    checks.reconfigure(healthOptions(this.#config));
    checks.set(checksFor(this.#config, identity.roster.members(), local.state));
  }
}
