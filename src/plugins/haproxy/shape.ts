/** In `status`, for programs. */
export interface HaproxyFacts {
  /** Old processes, from before the last reloads, and their connections. */
  readonly old: { readonly processes: number; readonly connections: number };
}

/** The present traffic of one HAProxy, as it reports it. */
export interface HaproxyTraffic {
  /** False: nobody answers at its socket, so nothing goes through it. */
  readonly running: boolean;
  /** The frontends for other hosts. Requests of services on this host to the databases do not count. */
  readonly frontends: readonly {
    readonly name: string;
    readonly connections: number;
    /** Requests under way, web sockets and feeds among them. */
    readonly requests: number;
  }[];
  /** Old processes, from before the last reloads, which finish their requests. */
  readonly old: { readonly processes: number; readonly connections: number; readonly requests: number };
  readonly servers: readonly {
    /** `BACKEND/NAME`. */
    readonly server: string;
    /** HAProxy's own status, e.g. `UP`, `DOWN`, `MAINT`, `DRAIN`, `no check`. */
    readonly status: string;
    readonly sessions: number;
  }[];
  /** All open requests, which would be cut if HAProxy ended now. */
  readonly requests: number;
  /** One line for people. */
  readonly summary: string;
}
