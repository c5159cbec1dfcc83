import type { AuditEntry, MemberRow } from '../../src/daemon/control/api.ts';

/** One server of one HAProxy, in HAProxy's own words. */
export interface ServerState {
  /** `BACKEND/SERVER`, e.g. `db_nodes/db2`. */
  readonly server: string;
  /** `UP`, `DOWN`, `MAINT`, `DRAIN`, … as `show stat` prints it. */
  readonly status: string;
}

/** What one look at the cluster shows, each part asked of the program that knows. */
export interface Picture {
  /** By the daemon that was asked. */
  readonly askedName: string;
  readonly members: readonly MemberRow[];
  /** HAProxy’s runtime state by the instance that was asked. */
  readonly servers: ReadonlyMap<string, readonly ServerState[]>;
  /** Hosts that the provider’s router sends the floating IP to; undefined where there is no router. */
  readonly announcers: readonly string[] | undefined;
  /** `_membership` by db node; undefined while its CouchDB does not answer. */
  readonly couch: ReadonlyMap<
    string,
    { readonly connected: readonly string[]; readonly members: readonly string[] } | undefined
  >;
  readonly events: readonly AuditEntry[];
}

/** What a founder has around the cluster. */
export interface Around {
  /** What the name server of the zone answers now: addresses of the site, and the hosts that its SRV records name. */
  records(): Promise<{
    readonly site: string;
    readonly app: readonly string[];
    readonly db: readonly string[];
  }>;
  /** One request to an edge, with trust in the CA alone; what came back, or why nothing did. */
  visitTrusting(edge: string): Promise<string>;
  /** A person registers at an app node, by the link in the mail, and writes a note. */
  register(host: string): Promise<void>;
  /** The same person signs in at an app node. Resolves with the cookie of the session. */
  signIn(host: string): Promise<string>;
  /** The note as an app node has it for a session; what came back, or why nothing did. */
  readNote(host: string, cookie: string): Promise<string>;
  /** Closes the ports of every machine. */
  closePorts(): Promise<void>;
  /** Whether a machine outside of the cluster gets a connection to a member port of this host. */
  isOpen(host: string): Promise<boolean>;
  /** Removes an app node that holds a connection to another one open, past HAProxy. */
  removeTalking(host: string): Promise<void>;
  /** Whether that connection still carries data. */
  talks(): Promise<boolean>;
}

/** A cluster that the story can be told on. */
export interface World {
  readonly title: string;
  /** Whether a provider’s router is part of it; where it is not, nothing is said of routes. */
  readonly routed: boolean;
  /** What is there beside the cluster; undefined: no firewall, name server and CA are in this variant. */
  readonly around: Around | undefined;
  /** Name of the service at `/`. */
  readonly service: string;
  /** How a browser or curl finds the site. */
  readonly site: string;
  look(): Promise<Picture>;
  /** One request of a user’s browser; what came back, or why nothing did. */
  visit(): Promise<string>;
  /** Node names that run now, HOST without role, by role. */
  hosts(role: 'app' | 'db'): readonly string[];
  join(host: string, role: 'app' | 'db'): Promise<void>;
  kill(host: string): Promise<void>;
  revive(host: string): Promise<void>;
  cut(host: string): Promise<void>;
  heal(host: string): Promise<void>;
  /** Resolves when the node says that its machine can be deleted. */
  leave(host: string, progress: (text: string) => void): Promise<void>;
  rebootAll(): Promise<void>;
  /** What each daemon and its journal say, for a step that failed. */
  diagnose(): Promise<string>;
  close(): Promise<void>;
}
