import type { Health } from '../daemon/membership/types.ts';

/** What this node knows of itself. */
export interface AppSituation {
  readonly health: Health;
  /**
   * Our HAProxy on the floating IP (or on loopback, where there is none): it answers; it gives no answer in time, and
   * may be slow and no more; or it refuses, answers wrongly, or was not asked yet.
   */
  readonly edge: 'answers' | 'silent' | 'fails';
  readonly maintenance: boolean;
  /** Leaving, stopping or shutting down: duty ends before the process does. */
  readonly leaving: boolean;
  /** Modes `layer2` and `api`: the floating IPs are on this node's public device, or assigned to its server. */
  readonly holds: boolean;
  /** Since the daemon's start. */
  readonly upMs: number;
}

/** Whether a node draws the floating IP, and why. */
export interface Announcement {
  readonly announce: boolean;
  readonly why: string;
}
