/**
 * What the control socket speaks: HTTP over a unix socket, JSON both ways. The `bornemisza` command and other
 * programs on the host are its clients; file permissions (root and group `bornemisza`) are its access control.
 *
 * | method and path | body → answer |
 * |---|---|
 * | GET /v1/status | → {@link StatusAnswer} |
 * | GET /v1/members | → {@link MembersAnswer} |
 * | GET /v1/plan | → {@link PlanAnswer} |
 * | GET /v1/traffic | → {@link HaproxyTraffic}; asked of HAProxy now |
 * | POST /v1/traffic/end | {@link EndRequest} → {@link StreamsEnded}; of a node in maintenance |
 * | GET /v1/audit?node=&limit= | → {@link AuditAnswer}; newest last |
 * | GET /v1/events?follow=1&since= | → one {@link AuditEntry} a line (application/x-ndjson) |
 * | GET /v1/cluster/audit?node=&since_ms=&failed=&limit= | → {@link ClusterAuditAnswer}; of all nodes |
 * | POST /v1/ping | `{ node? }`, HOST/ROLE; without it all others → {@link PingAnswer} |
 * | POST /v1/maintenance | {@link MaintenanceRequest} → {@link Done} |
 * | POST /v1/log/requests | {@link RequestLogRequest} → {@link Done}; of role app |
 * | POST /v1/leave | {@link LeaveRequest} → one {@link Progress} a line, the last one with `done` |
 * | POST /v1/tokens | {@link TokenRequest} → {@link TokenAnswer}; with `count` → {@link TokensMade} |
 * | GET /v1/tokens | → {@link TokensAnswer}; of this authority, secrets are not kept |
 * | POST /v1/tokens/revoke | {@link TokenRevocation} → {@link TokensRevoked} |
 * | POST /v1/remove | {@link RemoveRequest} → {@link Done} |
 * | POST /v1/authority/adopt | {} → {@link Done}; `bornemisza authority add` has written the key |
 * | POST /v1/authority/root | {} → {@link Done}; `bornemisza authority rotate-root` has written what it signed |
 * | POST /v1/guards/release | {} → {@link Done} |
 * | POST /v1/notify/test | {} → one {@link Progress} a channel, with `error` where it failed, the last one with `done`
 * |
 * | GET /v1/certificate | → {@link CertificateShown}; of role app |
 * | POST /v1/certificate/revoke | `{ reason?, now? }`, reason as in RFC 5280 → {@link Done}; of role app |
 * | POST /v1/certificate/renew | `{ force? }`, true ignores our own limits → {@link Done}; of role app |
 * | GET /v1/dns | → {@link DnsShown}; of role app |
 * | POST /v1/dns/adopt, /release | `{ name, type }` → {@link Done}; of role app |
 * | GET /v1/floating | → {@link FloatingShown}; of role app |
 * | POST /v1/floating/take | {} → {@link Done}; of role app |
 * | POST /v1/reload | {} → {@link Done} |
 * | POST /v1/accounts/list | `{ after? }`, `next` of the page before → {@link AccountsAnswer}; of role app |
 * | POST /v1/accounts/show | `{ email }` → {@link ShownAccount}; of role app |
 * | POST /v1/accounts/disable, /enable, /delete | `{ email }` → {@link ChangedAccount}; of role app |
 * | GET /v1/upgrade | → {@link UpgradeAnswer} |
 * | POST /v1/upgrade/start, /stop, /resume | {} → {@link Done} |
 *
 * Every refusal is {@link Refusal}: with status 400 for a request that makes no sense, 404 for a path or a member that
 * is not there, 409 for what the daemon will not do now, 413 for a body above 16 KiB, 500 for a fault of its own.
 */
import type { Health, MemberState, Role } from '../membership/types.ts';

export type { CertificateFacts, CertificateShown } from '../../plugins/certificates/shape.ts';
export type { DnsShown } from '../../plugins/dns/shape.ts';
export type { FloatingShown } from '../../plugins/floating/shape.ts';
export type { HaproxyFacts, HaproxyTraffic } from '../../plugins/haproxy/shape.ts';

export interface Refusal {
  readonly error: { readonly code: string; readonly message: string; readonly next: string };
}

/** Whether a member gets traffic, and why: decided by the guards from state, health and maintenance. */
export type Rotation = 'in' | 'unwatched' | 'drain' | 'out';

export interface MemberRow {
  readonly name: string;
  readonly role: Role;
  readonly peerId: string;
  readonly address: string;
  readonly state: MemberState | 'absent';
  readonly health: Health;
  readonly maintenance: boolean;
  readonly restarting: boolean;
  readonly rotation: Rotation;
  readonly reason: string;
  readonly version: string;
  readonly incarnation: number;
  readonly services: readonly { readonly name: string; readonly health: Health }[];
  readonly tags: Readonly<Record<string, string>>;
  readonly load: number;
  /** Milliseconds since the state was entered, and since its newest record was accepted. */
  readonly stateForMs: number;
  readonly heardAgoMs: number;
  readonly certificateNotAfter: string;
  readonly settingsDigest: string;
  readonly authority: boolean;
  readonly self: boolean;
}

export interface PluginStatus {
  readonly name: string;
  readonly state: 'converged' | 'pending' | 'working' | 'failing' | 'stopped';
  /** One line: what it waits for, or why it fails; '' if converged. */
  readonly detail: string;
  readonly next: string;
  readonly lastConvergedAgoMs: number | undefined;
  readonly runs: number;
  readonly changes: number;
  /** Runs that failed, and the time that all runs took; since the daemon's start. */
  readonly failed: number;
  readonly busyMs: number;
  /** The plugin's last observation, one line of facts; undefined: none yet, or it has its own field. */
  readonly seen: string | undefined;
  /** The same and more for programs: of `certificates` {@link CertificateFacts}. */
  readonly facts?: object | undefined;
  readonly seenAgoMs: number | undefined;
  readonly alarms: readonly { readonly code: string; readonly message: string; readonly next: string }[];
}

/** Something that an operator should know although nothing fails. */
export interface Warning {
  /** A stable word in kebab-case, documented in docs/troubleshooting.md. */
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

/** What a guard holds now. */
export interface Held extends Warning {
  /** HOST/ROLE of each member that it keeps as it was. */
  readonly subjects: readonly string[];
}

interface CheckStatus {
  readonly name: string;
  readonly health: Health;
  readonly required: boolean;
  readonly detail: string;
  readonly sinceMs: number;
}

export interface StatusAnswer {
  readonly version: string;
  readonly cluster: string;
  readonly name: string;
  readonly role: Role;
  readonly peerId: string;
  readonly address: string;
  readonly health: Health;
  readonly maintenance: boolean;
  /** ISO 8601, UTC: until then the edge logs every request. Undefined: it does not. */
  readonly requestLogUntil?: string | undefined;
  readonly synced: boolean;
  readonly phase: 'starting' | 'running' | 'leaving' | 'left' | 'stopping';
  readonly upMs: number;
  readonly counts: Readonly<Record<MemberState | 'absent', number>>;
  readonly checks: readonly CheckStatus[];
  readonly plugins: readonly PluginStatus[];
  /** Units of this node, and how often systemd has restarted each by itself since somebody started it last. */
  readonly restarts: readonly { readonly unit: string; readonly restarts: number }[];
  readonly held: readonly Held[];
  /** Things that an operator should know although nothing fails: only one authority, different settings, … */
  readonly warnings: readonly Warning[];
  /** Whether this node has the floating IPs, and why or why not; undefined if there are none. */
  readonly announcing: boolean | undefined;
  readonly announcingWhy: string | undefined;
  readonly floating: readonly string[];
  readonly counters: Readonly<Record<string, number>>;
  /**
   * While the root is being replaced: the new one, in 8 hex characters, and the reachable members that do not use it
   * yet.
   */
  readonly rootChange?: { readonly root: string; readonly notYet: readonly string[] } | undefined;
}

export interface MembersAnswer {
  readonly self: string;
  readonly members: readonly MemberRow[];
}

/** @param rows the machines that were admitted under one name */
export function sharedInWords(rows: readonly MemberRow[]): string {
  const each = rows.map(({ peerId, address, reason }) => `${peerId} at ${address} (${reason})`);
  return `${rows.length} machines were admitted as ${rows[0]?.name}: ${each.join('; ')}`;
}

export interface PlanAnswer {
  readonly plugins: readonly {
    readonly name: string;
    readonly changes: readonly { readonly kind: string; readonly summary: string }[];
    readonly error?: { readonly code: string; readonly message: string; readonly next: string };
  }[];
}

/** One entry of the audit trail: who or what changed, why, what was done, how it ended. */
export interface AuditEntry {
  /** Rises by one with each entry of this node, across restarts. */
  readonly id: number;
  /** ISO 8601, UTC. */
  readonly at: string;
  readonly kind: 'member' | 'change' | 'guard' | 'health' | 'operator' | 'daemon';
  /** One line for people. */
  readonly summary: string;
  /** Its cause, e.g. `db2/db: alive → dead (accused by app1/app, db1/db)`. */
  readonly trigger: string;
  /** Names (HOST/ROLE) that this is about, for `explain`. */
  readonly subjects: readonly string[];
  readonly plugin?: string;
  readonly changes?: readonly string[];
  readonly result: 'ok' | 'failed' | 'rolled-back' | 'held' | 'info';
  readonly error?: { readonly code: string; readonly message: string; readonly next: string };
  readonly durationMs?: number;
}
export interface AuditAnswer {
  readonly entries: readonly AuditEntry[];
}

/** The trails of all nodes, each oldest first, by that node's clock. */
export interface ClusterAuditAnswer {
  readonly trails: readonly {
    readonly node: string;
    readonly entries: readonly AuditEntry[];
    /** Why it is missing; '' if it is not. */
    readonly missing: string;
  }[];
}

export interface PortLook {
  readonly port: number;
  /** What listens there, e.g. `daemon`. */
  readonly what: string;
  readonly open: boolean;
  /** Why not, e.g. `connection refused`; '' when open. */
  readonly detail: string;
}
/** Measurements of the path to another node and back. Times in ms. */
export interface PingedNode {
  readonly name: string;
  readonly address: string;
  readonly state: MemberRow['state'];
  readonly version: string;
  /** Round trip over the link of the daemons. */
  readonly roundTripMs?: { readonly least: number; readonly median: number; readonly most: number };
  /** How far the other's clock is ahead of this node's; negative: it is behind. */
  readonly clockAheadMs?: number;
  readonly clockSureToMs?: number;
  /** Whether so many bytes at once arrive. */
  readonly large?: { readonly bytes: number; readonly there: boolean; readonly back: boolean };
  /** The other's ports, as this node reaches them. */
  readonly portsThere: readonly PortLook[];
  /** This node's ports, as the other reaches them; undefined: it did not report. */
  readonly portsBack?: readonly PortLook[] | undefined;
  /** Why the other's daemon did not answer; '' when it did. */
  readonly problem: string;
}
export interface PingAnswer {
  readonly self: string;
  readonly nodes: readonly PingedNode[];
}

/** The rollout of a newer package over the cluster, as this node knows it. */
export interface UpgradeAnswer {
  /** `none`: there was none yet. */
  readonly state: 'none' | 'running' | 'finished' | 'stopped';
  /** ISO 8601, UTC; '' when there was none. */
  readonly startedAt: string;
  /** Why it stopped and what to do; otherwise why no host may start now, '' if there is no reason. */
  readonly why: string;
  readonly next: string;
  /** In the order of their turns. */
  readonly hosts: readonly {
    readonly host: string;
    readonly members: readonly { readonly name: string; readonly version: string }[];
    readonly step: 'waiting' | 'working' | 'done' | 'failed';
    /** Why it blocks the rollout; '' if it is healthy. */
    readonly problem: string;
  }[];
}

/** Web sockets and event streams of a node that gets nothing new: a share of those that are open, above 0 to 1. */
export interface EndRequest {
  readonly share: number;
}
export interface StreamsEnded {
  readonly ended: number;
}
export interface MaintenanceRequest {
  readonly on: boolean;
  readonly force?: boolean;
}
/** How long every request may be logged. */
export const REQUEST_LOG_LEAST_MS = 60_000;
export const REQUEST_LOG_MOST_MS = 7 * 24 * 3_600_000;
export interface RequestLogRequest {
  readonly on: boolean;
  /** How long, with `on`: from {@link REQUEST_LOG_LEAST_MS} to {@link REQUEST_LOG_MOST_MS}. Default 1 hour. */
  readonly forMs?: number | undefined;
}
export interface LeaveRequest {
  readonly force?: boolean;
  /** How long open requests may take to end. Default 30 s. */
  readonly drainMs?: number | undefined;
}
export interface TokenRequest {
  readonly role: Role;
  /** 1 minute to 24 hours. */
  readonly ttlMs: number;
  /** 1 to 64: so many tokens, all or none. */
  readonly count?: number | undefined;
}
export interface TokenAnswer {
  /** 16 hex characters: names the token without revealing it. */
  readonly id: string;
  readonly token: string;
  readonly role: Role;
  readonly expiresAt: string;
  readonly listen: string;
}
export interface TokensMade {
  readonly tokens: readonly TokenAnswer[];
}
/** A token that this authority created, without its secret, which is stored nowhere. Forgotten a day after its end. */
export interface TokenRow {
  readonly id: string;
  readonly role: Role;
  readonly state: 'open' | 'used' | 'expired' | 'revoked';
  readonly createdAt: string;
  readonly expiresAt: string;
  /** 0 when it has ended. */
  readonly expiresInMs: number;
  /** HOST/ROLE, or the PeerId of a node that was removed since. */
  readonly usedBy?: string;
  readonly usedAt?: string;
}
export interface TokensAnswer {
  /** HOST/ROLE of the authority. */
  readonly authority: string;
  readonly tokens: readonly TokenRow[];
}
/** One of the two. */
export interface TokenRevocation {
  readonly id?: string | undefined;
  readonly all?: boolean | undefined;
}
export interface TokensRevoked {
  readonly done: true;
  readonly message: string;
  readonly revoked: readonly string[];
}
export interface RemoveRequest {
  /** HOST/ROLE or a PeerId. */
  readonly node: string;
  /** The operator confirms that the machine is gone for good: its data copies are given up. */
  readonly dead?: boolean;
  readonly force?: boolean;
}
export interface Done {
  readonly done: true;
  readonly message: string;
}
export interface Progress {
  readonly message: string;
  readonly done?: boolean;
  readonly error?: { readonly code: string; readonly message: string; readonly next: string };
}

export interface ListedAccount {
  readonly email: string;
  readonly account: string;
  readonly disabled: boolean;
}
/** One page, in no order. */
export interface AccountsAnswer {
  readonly accounts: readonly ListedAccount[];
  /** There is more. */
  readonly next?: string | undefined;
}
export interface ShownAccount extends ListedAccount {
  readonly database: string;
  /** Null while the database is being created. */
  readonly usedBytes: number | null;
  readonly quotaBytes: number;
}
export interface ChangedAccount extends ListedAccount {
  /** False if nothing had to change. */
  readonly changed: boolean;
}
