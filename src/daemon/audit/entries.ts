import type { NewAuditEntry } from './trail.ts';
import type { DriverChange } from '../driver/driver.ts';
import type { CheckVerdict } from '../health/health.ts';
import type { Held } from '../control/api.ts';
import type { Health, MemberState } from '../membership/types.ts';
import type { Message } from '../notification/message.ts';
import type { RolloutNews } from '../rollout/runner.ts';
import type { Names } from '../identity/roster/names.ts';
import type { RosterChange } from '../identity/roster/roster.ts';

/** Makes the entries of the audit trail. `name` is HOST/ROLE of this node. */

/** The notification has the whole message; the trail needs only its subject. */
const EVENTS_IN_TRAIL = 10;

export type MemberChange = Extract<DriverChange, { kind: 'changed' | 'synced' | 'reaped' }>;

/** @returns the reason of a turn, and the entry; no entry if only the record of a member changed */
export function memberNews(
  change: MemberChange,
  names: Pick<Names, 'of' | 'named'>,
): {
  readonly reason: string;
  readonly subjects: readonly string[];
  readonly entry: NewAuditEntry | undefined;
} {
  switch (change.kind) {
    case 'changed': {
      const { record, state } = change.member;
      const reason = names.named(changeInWords(record.name, change.was, state, change.why));
      const subjects = [record.name];
      const entry = { kind: 'member', summary: reason, trigger: '', subjects, result: 'info' } as const;
      return { reason, subjects, entry: change.was === state ? undefined : entry };
    }
    case 'synced':
      return {
        reason: 'first sync',
        subjects: [],
        entry: {
          kind: 'guard',
          summary: `first sync done with ${names.of(change.with)}: removals are allowed again`,
          trigger: 'start',
          subjects: [],
          result: 'info',
        },
      };
    case 'reaped':
      return {
        reason: `${change.name} reaped`,
        subjects: [change.name],
        entry: {
          kind: 'member',
          summary: `${change.name} was forgotten: it was dead for too long`,
          trigger: 'reap',
          subjects: [change.name],
          result: 'info',
        },
      };
  }
}

/** `app1/app: alive → dead (accused by …)` */
function changeInWords(name: string, was: MemberState | undefined, state: MemberState, why: string): string {
  const move = was === undefined ? `new, ${state}` : was === state ? state : `${was} → ${state}`;
  return why === '' ? `${name}: ${move}` : `${name}: ${move} (${why})`;
}

export function verdictEntry(name: string, verdict: CheckVerdict, was: Health): NewAuditEntry {
  const { health, detail, streak } = verdict;
  return {
    kind: 'health',
    summary: `${verdict.name} is ${health}: ${detail}`,
    trigger: `${streak} checks in a row, was ${was}`,
    subjects: [name],
    result: health === 'up' ? 'ok' : 'failed',
    ...(health === 'down' && {
      error: {
        code: 'check-failed',
        message: detail,
        next: `find the cause: bornemisza doctor`,
      },
    }),
  };
}

export function hostEntry(
  name: string,
  { over, ...error }: NonNullable<NewAuditEntry['error']> & { readonly over: string },
  began: boolean,
): NewAuditEntry {
  return {
    kind: 'health',
    summary: began ? error.message : `${over} (${error.message})`,
    trigger: '',
    subjects: [name],
    result: began ? 'failed' : 'ok',
    ...(began && { error }),
  };
}

/** One entry for each guard that began to hold, then one for each that ended. */
export function guardEntries(before: readonly Held[], now: readonly Held[]): NewAuditEntry[] {
  const isIn = (held: readonly Held[], { code, subjects }: Held): boolean =>
    held.some((each) => each.code === code && each.subjects.join() === subjects.join());
  const common = { kind: 'guard', trigger: '' } as const;
  return [
    ...now
      .filter((each) => !isIn(before, each))
      .map(({ subjects, ...error }): NewAuditEntry => {
        return { ...common, subjects, summary: `held: ${error.message}`, result: 'held', error };
      }),
    ...before
      .filter((each) => !isIn(now, each))
      .map(({ subjects, message }): NewAuditEntry => {
        return { ...common, subjects, summary: `no longer held: ${message}`, result: 'info' };
      }),
  ];
}

export function rolloutEntry(name: string, { text, stopped }: RolloutNews): NewAuditEntry {
  return {
    kind: 'daemon',
    summary: text,
    trigger: '',
    subjects: [name],
    result: stopped === undefined ? 'info' : 'failed',
    ...(stopped !== undefined && {
      error: { code: 'rollout-stopped', message: stopped.code, next: stopped.next },
    }),
  };
}

export function toldEntry(
  { subject, payload: { events } }: Message,
  channels: readonly string[],
): NewAuditEntry {
  return {
    kind: 'daemon',
    summary: `notified by ${channels.join(' and ')}: ${subject}`,
    trigger: events
      .slice(0, EVENTS_IN_TRAIL)
      .map((each) => each.what)
      .join('; '),
    subjects: [...new Set(events.map((each) => each.subject))],
    result: 'ok',
  };
}

export function foundEntry(name: string, where: string): NewAuditEntry {
  return {
    kind: 'daemon',
    summary: `found ${name} at ${where}, which is not the address in its record`,
    trigger: 'no member answered',
    subjects: [name],
    result: 'ok',
  };
}

/** Every node records this: a compromised authority is found by what it signed. */
export function rosterEntries(
  { admitted, revoked }: Pick<RosterChange, 'admitted' | 'revoked'>,
  names: Pick<Names, 'of' | 'removerOf'>,
): NewAuditEntry[] {
  const entry = (name: string, what: string, trigger: string): NewAuditEntry => ({
    kind: 'operator',
    summary: `${name} was ${what}`,
    trigger,
    subjects: [name],
    result: 'ok',
  });
  return [
    ...admitted.map(({ name, address, issuer }) =>
      entry(name, 'admitted with a token', `signed by ${names.of(issuer)}, for ${address}`),
    ),
    ...revoked.map((peer) =>
      entry(names.of(peer), 'removed from the cluster', `signed by ${names.removerOf(peer)}`),
    ),
  ];
}

export function startedEntry(name: string, version: string): NewAuditEntry {
  const summary = `started ${version} as ${name}`;
  return { kind: 'daemon', summary, trigger: '', subjects: [name], result: 'info' };
}

/** Names the account, not the e-mail address: the trail keeps its entries long after the account is gone. */
export function accountEntry(name: string, account: string, what: string): NewAuditEntry {
  return {
    kind: 'operator',
    summary: `account ${account} was ${what}`,
    trigger: 'operator',
    subjects: [name],
    result: 'ok',
  };
}

/** It is unknown whether it was done: only the answer may be lost. */
export function accountFailedEntry(
  name: string,
  verb: string,
  error: NonNullable<NewAuditEntry['error']>,
): NewAuditEntry {
  return {
    kind: 'operator',
    summary: `accounts ${verb} failed: ${error.message}`,
    trigger: 'operator',
    subjects: [name],
    result: 'failed',
    error,
  };
}

export function operatorEntry(name: string, what: string): NewAuditEntry {
  return { kind: 'operator', summary: what, trigger: 'operator', subjects: [name], result: 'ok' };
}
