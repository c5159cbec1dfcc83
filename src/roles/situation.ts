import type { Health } from '../daemon/membership/types.ts';

/** What this node knows about itself. */
export interface AppSituation {
  readonly health: Health;
  /**
   * Our HAProxy on the floating IP (without one, on loopback): it answers; it gives no answer in time and may only be
   * slow; or it refuses, answers wrongly, or was not checked yet.
   */
  readonly edge: 'answers' | 'silent' | 'fails';
  readonly maintenance: boolean;
  /** Leaving, stopping or shutting down: traffic ends before the process does. */
  readonly leaving: boolean;
  /** Modes `layer2` and `api`: the floating IPs are on this node's public device, or assigned to its server. */
  readonly holds: boolean;
  /** Since the daemon's start. */
  readonly upMs: number;
}

/** Whether a node announces the floating IP, and why. */
export interface Announcement {
  readonly announce: boolean;
  readonly why: string;
}
