/** The present traffic of one HAProxy, as it reports it. */
export interface HaproxyTraffic {
  /** False: nobody answers at its socket, so nothing goes through it. */
  readonly running: boolean;
  /** What other hosts come in by. What services on this host ask of the databases stays when the node goes. */
  readonly frontends: readonly {
    readonly name: string;
    readonly connections: number;
    /** Requests under way, web sockets and feeds among them. */
    readonly requests: number;
  }[];
  /** Processes of before the last reloads, which end what they have. */
  readonly old: { readonly processes: number; readonly connections: number; readonly requests: number };
  readonly servers: readonly {
    /** `BACKEND/NAME`. */
    readonly server: string;
    /** As HAProxy has it, e.g. `UP`, `DOWN`, `MAINT`, `DRAIN`, `no check`. */
    readonly status: string;
    readonly sessions: number;
  }[];
  /** All requests under way that would be cut if HAProxy ended now. */
  readonly requests: number;
  /** One line for people. */
  readonly summary: string;
}
