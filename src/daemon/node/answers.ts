import { dnsWarnings } from '../../roles/dns.ts';
import { floatingWarnings } from '../../roles/floating.ts';
import type { Clock } from '../clock.ts';
import type { MembersAnswer, PlanAnswer, StatusAnswer, Warning } from '../control/api.ts';
import type { Driver } from '../driver/driver.ts';
import type { Disks } from '../health/disks.ts';
import type { Machine } from '../health/machine.ts';
import type { Checks } from '../health/health.ts';
import type { Identity } from '../identity/identity.ts';
import { rootWord } from '../identity/root/succession.ts';
import type { LocalStateFile } from '../local-state.ts';
import type { MetricsEndpoint } from '../metrics/endpoint.ts';
import type { Notifier } from '../notification/notifier.ts';
import type { Reconciler } from '../reconciler/reconciler.ts';
import type { RolloutRunner } from '../rollout/runner.ts';
import type { Transport } from '../transport/transport.ts';
import { VERSION } from '../version.ts';
import type { CurrentNode } from './current.ts';
import type { KeptPrograms } from './kept-programs.ts';
import { authorityDamage, countsOf, namesakeWarnings, warningsOf } from '../control/warnings.ts';
import { requestLogEnd } from '../control/request-log.ts';
import { notYetUsing, rootWarnings } from '../identity/root/following.ts';

export interface AnswersDependencies {
  readonly clock: Clock;
  readonly startedMs: number;
  readonly node: Pick<CurrentNode, 'config' | 'phase' | 'last' | 'rows'> & {
    /** Why the configuration on the disk is not in use. */
    readonly refusedReload: Warning | undefined;
  };
  readonly local: Pick<LocalStateFile, 'state'>;
  readonly checks: Pick<Checks, 'node' | 'verdicts'>;
  readonly driver: Pick<Driver, 'counters'>;
  readonly transport: Pick<Transport, 'counters'>;
  readonly reconciler: Pick<Reconciler, 'status' | 'plan'>;
  readonly programs: Pick<KeptPrograms, 'report'>;
  readonly notifier: Pick<Notifier, 'warnings'>;
  readonly rollout: Pick<RolloutRunner, 'warnings'>;
  readonly disks: Pick<Disks, 'findings'>;
  readonly machine: Pick<Machine, 'findings' | 'restarts'>;
  readonly metrics: Pick<MetricsEndpoint, 'warnings'>;
}

/** The queries of an operator: this node's state, the members, the plan. Changes nothing. */
export class Answers {
  readonly #identity: Identity;
  readonly #dependencies: AnswersDependencies;

  constructor(identity: Identity, dependencies: AnswersDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  status(): StatusAnswer {
    const { clock, startedMs, node, local, checks, driver, transport } = this.#dependencies;
    const { reconciler, programs, notifier, rollout, disks, machine, metrics } = this.#dependencies;
    const { config, last } = node;
    const { cluster, name, role, peerId, address, roster } = this.#identity;
    const rows = node.rows();
    const nowMs = clock.monotonicMs();
    const { rootChange } = roster;
    return {
      version: VERSION,
      cluster,
      name,
      role,
      peerId,
      address,
      health: checks.node,
      maintenance: local.state.maintenance,
      requestLogUntil: requestLogEnd(local.state, clock.wallMs()),
      synced: last.view.synced,
      phase: node.phase,
      upMs: nowMs - startedMs,
      counts: countsOf(rows),
      checks: checks.verdicts.map((each) => ({
        name: each.name,
        health: each.health,
        required: each.required,
        detail: each.detail,
        sinceMs: nowMs - each.sinceMs,
      })),
      plugins: reconciler.status(),
      restarts: machine.restarts,
      held: last.view.held,
      warnings: [
        ...[...disks.findings, ...machine.findings].map(({ over: _over, ...warning }) => warning),
        ...[node.refusedReload ?? []].flat(),
        ...config.passedOver,
        ...namesakeWarnings(last.view.namesakes),
        ...warningsOf(rows, clock.wallMs()),
        ...authorityDamage(this.#identity),
        ...rootWarnings(rootChange, roster.rivals(), rows),
        ...dnsWarnings(last.view),
        ...floatingWarnings(last.view),
        ...notifier.warnings,
        ...rollout.warnings,
        ...metrics.warnings,
        ...(programs.report('couchdb')?.alarms ?? []),
      ],
      announcing: last.floating?.announce,
      announcingWhy: last.floating?.why,
      floating: config.role === 'app' ? config.floating.addresses : [],
      counters: { ...driver.counters, ...transport.counters },
      ...(rootChange !== undefined && {
        rootChange: { root: rootWord(rootChange.to), notYet: notYetUsing(rows, rootChange.to) },
      }),
    };
  }

  members(): MembersAnswer {
    return { self: this.#identity.name, members: this.#dependencies.node.rows() };
  }

  async plan(): Promise<PlanAnswer> {
    const plans = await this.#dependencies.reconciler.plan();
    return {
      plugins: plans.map(({ name, changes, error }) => ({
        name,
        changes: changes.map(({ kind, summary }) => ({ kind, summary })),
        ...(error !== undefined && { error: { code: error.code, message: error.message, next: error.next } }),
      })),
    };
  }
}
