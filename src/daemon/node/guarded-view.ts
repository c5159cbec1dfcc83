import type { EffectiveView } from '../../roles/effective.ts';
import { EMPTY_GUARD_STATE, guarded, type GuardState } from '../../roles/guards.ts';
import type { AuditTrail } from '../reconciler/audit.ts';
import type { MemberRow } from '../control/api.ts';
import type { Driver } from '../driver/driver.ts';
import { authorityWord } from '../identity/keys/certificates.ts';
import type { Roster } from '../identity/roster/roster.ts';
import type { LocalState } from '../local-state.ts';
import type { Names } from './names.ts';
import { memberRows } from './report.ts';
import { guardEntries } from './trail.ts';

export interface GuardedViewDependencies {
  readonly driver: Pick<Driver, 'view' | 'nowMs'>;
  readonly roster: Roster;
  readonly wallMs: () => number;
  /** What the guards remember across restarts. */
  readonly memory: () => GuardState;
  readonly remember: (state: GuardState) => void;
  readonly audit: Pick<AuditTrail, 'append'>;
  readonly names: Pick<Names, 'subjectsOf'>;
}

/** Everybody who is admitted, as the guards leave them: what the roles and the operator are shown. */
export class GuardedView {
  readonly #dependencies: GuardedViewDependencies;
  #now!: EffectiveView;

  constructor(dependencies: GuardedViewDependencies) {
    this.#dependencies = dependencies;
  }

  /** As of the last {@link evaluate}; there is none before the first. */
  get now(): EffectiveView {
    return this.#now;
  }

  /** Who is at what, to be compared with another time. */
  get rotations(): string {
    return JSON.stringify(this.#now.members.map((each) => [each.record.name, each.rotation]));
  }

  /** @returns what was held before, for {@link auditHeld} */
  evaluate(): readonly string[] {
    const { driver, roster, wallMs, memory, remember } = this.#dependencies;
    const heldBefore = this.#now?.held ?? [];
    const revoked = roster
      .revocations()
      .flatMap(({ address, serials }) => serials.map((serialHex) => ({ serialHex, address })));
    const { effective, state } = guarded(
      {
        view: driver.view,
        roster: roster.members(),
        revoked,
        revokedAuthorities: roster.revokedAuthorities().map(authorityWord),
        knownCertificates: roster.knownCertificates(),
        nowMs: driver.nowMs(),
        wallMs: wallMs(),
      },
      memory(),
    );
    this.#now = effective;
    remember(state);
    return heldBefore;
  }

  /** Tells which guards took hold and which let go since then. */
  auditHeld(before: readonly string[]): void {
    const { audit, names } = this.#dependencies;
    for (const entry of guardEntries(before, this.#now.held, names)) audit.append(entry);
  }

  /** One row for each member, sorted by name. */
  rows(): MemberRow[] {
    const { driver, roster } = this.#dependencies;
    return memberRows({
      view: driver.view,
      effective: this.#now,
      certificates: roster.members(),
      authorities: roster.authorities(),
      nowMs: driver.nowMs(),
    });
  }
}

export function guardMemory({ guards }: Pick<LocalState, 'guards'>): GuardState {
  return (guards as GuardState | undefined) ?? EMPTY_GUARD_STATE;
}
