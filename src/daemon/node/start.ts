import { join } from 'node:path';
import { EMPTY_BUNDLE } from '../../plugins/certificates/desired.ts';
import { Failures } from '../../plugins/haproxy/failures.ts';
import { AUDIT_FILE } from '../audit/stored.ts';
import { announceEntry, AuditTrail } from '../audit/trail.ts';
import { loadConfig } from '../config/config.ts';
import type { Done } from '../control/api.ts';
import { type ControlActions, ControlServer } from '../control/server.ts';
import { OperatorError } from '../errors.ts';
import { Checks } from '../health/health.ts';
import { Silence } from '../health/silence.ts';
import { type Identity, loadIdentity } from '../identity/identity.ts';
import { openedSite } from '../identity/site.ts';
import { LocalStateFile } from '../local-state.ts';
import type { Goodbye } from '../membership/types.ts';
import type { NodeDependencies, NodeOptions } from './assemble.ts';
import { checksFor, healthOptions } from './checks.ts';
import { leftAlready } from '../control/leave.ts';
import { RunningNode } from './node.ts';
import { takeLeftRootChange } from '../identity/root/root-follower.ts';
import { mustBeOfThisNode } from '../process/start-checks.ts';
import { verdictEntry } from '../audit/entries.ts';
import { storageNext } from '../identity/storage.ts';

/**
 * Longest wait for the first verdicts at a start, well below the unit's TimeoutStartSec. On a healthy node they take a
 * tenth of a second.
 */
const FIRST_VERDICTS_MS = 10_000;

/** One role instance in its process: starting, running or closed. */
export class Node {
  readonly #options: NodeOptions;
  readonly #dependencies: NodeDependencies;
  /** The started parts, which are closed in reverse order. */
  readonly #started: { close(): Promise<void> | void }[] = [];
  #running: RunningNode | undefined;

  constructor(options: NodeOptions, dependencies: NodeDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  /** @throws OperatorError or IdentityError that name cause and next step */
  async start(): Promise<void> {
    const { role, paths } = this.#options;
    const { clock } = this.#dependencies;
    const startedMs = clock.monotonicMs();
    const config = await loadConfig(role, paths, 'lenient');
    const identity = await this.#loadIdentity();
    mustBeOfThisNode(config, identity, paths.config);
    const local = await this.#loadLocalState();
    const site = await openedSite(paths.state, EMPTY_BUNDLE, this.#dependencies.log);
    const audit = this.#opened(this.#auditTrail());
    await audit.load();
    await takeLeftRootChange(identity, this.#dependencies.log);
    const control = this.#opened(
      new ControlServer(
        { path: paths.controlSocket, role },
        { trail: audit, actions: () => this.#actions() },
      ),
    );
    await control.listen();
    // This comes first: a restarted daemon must not report its node as down to the others, BIRD and HAProxy.
    const checks = this.#opened(
      new Checks(healthOptions(config), {
        clock,
        unitWatch: paths.unitWatch,
        changed: (verdict, was) => {
          const { summary } = audit.append(verdictEntry(identity.name, verdict, was));
          this.#running?.verdict(verdict.name, summary);
        },
      }),
    );
    checks.set(checksFor(config, identity.roster.members(), local.state));
    const { preset } = config.membership;
    const silence = this.#opened(new Silence(preset, { clock, node: () => this.#running }));
    const listened = join(paths.haproxyRun, 'stats.sock');
    if (role === 'app') this.#opened(new Failures(listened, checks, silence).listen());
    await checks.decided(FIRST_VERDICTS_MS);
    const parts = { config, identity, local, site, audit, checks, silence, startedMs };
    this.#running = this.#opened(new RunningNode(parts, this.#options, this.#dependencies));
    await this.#running.start();
  }

  /** Ends in order: goodbye to the peers, then the node's traffic if it goes for longer, then everything closes. */
  async stop(goodbye: Goodbye): Promise<void> {
    await this.#running?.stop(goodbye);
    await this.close();
  }

  /** Works after a partial start, and twice. */
  async close(): Promise<void> {
    for (const each of this.#started.toReversed()) await each.close();
  }

  /** Reads the configuration again. An invalid one is refused, and the old one stays in use. */
  async reload(): Promise<Done> {
    this.#actions();
    return (this.#running as RunningNode).reload();
  }

  #actions(): ControlActions {
    const actions = this.#running?.actions;
    if (actions !== undefined) return actions;
    throw new OperatorError('starting', 'the daemon is still starting', 'try again in a second');
  }

  #opened<T extends { close(): Promise<void> | void }>(part: T): T {
    this.#started.push(part);
    return part;
  }

  async #loadIdentity(): Promise<Identity> {
    const { clock, log } = this.#dependencies;
    const identity = await loadIdentity(this.#options.paths.state, clock.wallMs(), () => clock.wallMs());
    for (const { message, code, next } of identity.warnings) {
      if (code === 'self-revoked') throw new OperatorError(code, message, next);
      log.warn({ code, next }, message);
    }
    return identity;
  }

  async #loadLocalState(): Promise<LocalStateFile> {
    const { state } = this.#options.paths;
    const { log } = this.#dependencies;
    const local = new LocalStateFile(join(state, 'local.json'), (error) => {
      const next = `${storageNext(error, state)}; it is tried again by itself`;
      log.warn({ err: error, next }, 'maintenance and the guards’ memory cannot be saved');
    });
    const damaged = await local.load();
    if (damaged !== undefined) {
      const next = 'run `bornemisza status`, and set maintenance again if it was on';
      log.warn({ next }, damaged);
    }
    if (local.state.left) throw leftAlready(this.#options.role);
    return local;
  }

  #auditTrail(): AuditTrail {
    const { clock, log, journal } = this.#dependencies;
    const { state } = this.#options.paths;
    const onProblem = (error: Error): void =>
      log.warn(
        { err: error, next: `only the record of events is lost; ${storageNext(error, state)}` },
        'audit trail',
      );
    return new AuditTrail(
      { file: join(state, AUDIT_FILE) },
      { clock, onProblem, announce: (entry) => announceEntry(entry, log, journal) },
    );
  }
}
