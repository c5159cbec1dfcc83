/** The desired state of one of our HAProxys. Data only; `render.ts` turns it into HAProxy's configuration. */

/**
 * What a peer's server is for now.
 *
 * `out-when-down` is for a member that is dead by membership while the state of its service is unknown: it continues to
 * serve, a second check with a shorter interval runs beside HAProxy's own, and it is out only while that one fails.
 */
export type Duty = 'ready' | 'drain' | 'maint' | 'out-when-down';

export interface PeerServer {
  /** Host name; HAProxy's name of the server, and the first label of the name its certificate must carry. */
  readonly name: string;
  /** IPv4, in the private network. */
  readonly address: string;
  readonly port: number;
  readonly duty: Duty;
  /** Why it has this duty, for the audit trail, e.g. `left the cluster`. */
  readonly why: string;
  /** There is no better server: it also serves while no check passes, as long as it accepts connections. */
  readonly lastResort?: boolean;
  /** Its host answers nothing: no new requests, and none at all when its daemon is dead too. */
  readonly silent?: boolean;
}

/** Servers of one kind that are reached by mutual TLS. */
export interface PeerGroup {
  /** The peer's certificate must hold `NAME.verifySuffix` as DNS name, e.g. `db.shop.internal`. */
  readonly verifySuffix: string;
  readonly servers: readonly PeerServer[];
}

/** How HAProxy checks a service on this node, beside its path, host and statuses. */
export interface ServiceHealth {
  /** An accepted connection is enough; nothing is sent. Default: false. */
  readonly tcp?: boolean;
  /** Default: GET. */
  readonly method?: 'GET' | 'HEAD' | 'OPTIONS';
  /** Further headers of the request, by name. */
  readonly headers?: Readonly<Record<string, string>>;
  /** A text that the answer contains. */
  readonly body?: string | undefined;
  /** Undefined: HAProxy's own defaults, see service-check.ts. */
  readonly timing?: {
    readonly intervalMs?: number | undefined;
    readonly fastIntervalMs?: number | undefined;
    readonly timeoutMs?: number | undefined;
    readonly rise?: number | undefined;
    readonly fall?: number | undefined;
  };
}

/** A service behind the edge. */
export interface EdgeService {
  readonly name: string;
  /** `/` or a path without a closing slash; matches itself and everything below. */
  readonly prefix: string;
  /** Path on the local service that answers 2xx, or one of `healthStatus`, while it is well. */
  readonly healthPath: string;
  /** What the checks put into `Host`. Default: {@link CHECK_HOST}. */
  readonly healthHost?: string;
  /** Statuses that are well, in place of {@link WELL_STATUSES}. */
  readonly healthStatus?: readonly number[];
  readonly health?: ServiceHealth;
  /** Port on 127.0.0.1; undefined on a node that only routes to the service of others. */
  readonly localPort: number | undefined;
  /** How many requests that change something a client network sends to these paths, and below, in a minute. */
  readonly limit?: { readonly paths: readonly string[]; readonly perMinute: number };
  /** How long an answer, and each pause in it, may take. Default: 2 minutes. */
  readonly timeoutSeconds?: number;
  /** KiB. Larger requests get 413, and those that do not declare their length 411. Default: no limit. */
  readonly maxBodyKb?: number;
  /** This node's own instance answers its check, and wrongly: it is not merely slow. */
  readonly answersWrongly?: boolean;
  /** The app nodes' doors, this node's own included. */
  readonly peers: PeerGroup;
}

/** The founder's own parts of the configuration, as text. */
export interface Snippets {
  /** Another number: what HAProxy refused is tried again. */
  readonly readMs: number;
  /** In the order in which they are embedded. */
  readonly files: readonly { readonly file: string; readonly text: string }[];
  /** Ports that they cannot have. */
  readonly ports: readonly number[];
}

/** Contents, not paths: files are written by the plugin alone. */
export interface Certificates {
  /** PEM of the node's certificate, its chain and its key, in this order. */
  readonly node: string;
  /** PEM of the cluster's root certificates. */
  readonly ca: string;
  /** The founder's unchanged file for the site (certificate, chain, key); undefined: the node's own is served. */
  readonly edge: string | undefined;
  /** Why that file could not be read: the former certificate stays in use. */
  readonly edgeProblem?:
    | { readonly code: string; readonly message: string; readonly next: string }
    | undefined;
}

interface Revoked {
  /** Serial number of the certificate, hexadecimal. */
  readonly serialHex: string;
  /** The address of its holder; sessions from there are cut when the serial is added. */
  readonly address: string | undefined;
}

interface Instance {
  /** IPv4 of this node in the private network. */
  readonly privateAddress: string;
  readonly statsPort: number;
  /** Of user `metrics`, for the statistics and metrics; undefined: none is asked for; null: nobody gets them. */
  readonly statisticsPassword?: string | null | undefined;
  readonly certificates: Certificates;
  readonly revoked: readonly Revoked[];
  /**
   * How the names of removed authorities end: nothing that they signed is accepted except `knownCertificates`.
   */
  readonly revokedAuthorities: readonly string[];
  /**
   * SHA-256, in hex, of certificates that are accepted although a removed authority signed them: they were valid
   * before.
   */
  readonly knownCertificates: readonly string[];
}

/** How the edges share what they count for the limits of services. */
export interface LimitSharing {
  /** This node's host name. */
  readonly host: string;
  /** Where each edge listens for the others, on its private address. */
  readonly port: number;
  readonly verifySuffix: string;
  /** The other app nodes, healthy or not: a change of this list is a reload. */
  readonly edges: readonly { readonly name: string; readonly address: string }[];
}

export interface AppHaproxy extends Instance {
  readonly instance: 'app';
  readonly edge: {
    /**
     * `*` (IPv4, and IPv6 where the host has it) or IPv4 addresses; an address may come and go (floating), so it is
     * bound transparently.
     */
    readonly addresses: readonly string[];
    readonly httpsPort: number;
    readonly httpPort: number;
    /** Seconds of Strict-Transport-Security; undefined: no such header, since it can't be taken back. */
    readonly hstsMaxAgeSeconds: number | undefined;
    /**
     * Thumbprint of the cluster's account at the CA (RFC 8555 section 8.1), which is public: with it every edge answers
     * the checks of the CA alike, whichever edge the router picks. Undefined: no account.
     */
    readonly challengeThumbprint?: string | undefined;
  };
  /** HTML that replaces HAProxy's own pages for 500, 502, 503 and 504. */
  readonly errorPage?: string | undefined;
  /** Undefined: none. */
  readonly snippets?: Snippets | undefined;
  /** The edge logs every request, not only those that fail. */
  readonly requestsLogged?: boolean;
  /** The door for other app nodes' edges. */
  readonly doorPort: number;
  readonly services: readonly EdgeService[];
  /** Undefined if no service has a limit. */
  readonly sharing?: LimitSharing | undefined;
  /** Port on 127.0.0.1 where the app finds the databases. */
  readonly databasePort: number;
  readonly databases: PeerGroup;
  /** The other app nodes, whatever they serve: whether their hosts answer. */
  readonly doors: PeerGroup;
}

export interface Permission {
  readonly given: boolean;
  /** For the audit trail, and the members (HOST/ROLE) that it is about. */
  readonly why: string;
  readonly subjects?: readonly string[];
}

export interface DbHaproxy extends Instance {
  readonly instance: 'db';
  /** The door for app nodes; falls over to peers. */
  readonly appDoorPort: number;
  /** The door for db nodes; local CouchDB only, so that failover can't loop. */
  readonly peerDoorPort: number;
  /** Port of the local CouchDB on 127.0.0.1. */
  readonly couchdbPort: number;
  /** The other db nodes' peer doors. */
  readonly peers: PeerGroup;
  /** Whether clients may create and delete databases; undefined: not known yet, so as the running HAProxy has it. */
  readonly databases: Permission | undefined;
}

export type HaproxyDesired = AppHaproxy | DbHaproxy;

/** Answers 200 on the edge, with and without TLS, as long as this HAProxy lives. */
export const EDGE_HEALTH_PATH = '/.well-known/bornemisza/health';
/** The same of an edge that finds a database, else 503: whether visitors are served there. */
export const EDGE_SERVES_PATH = '/.well-known/bornemisza/serves';
/** Below it a CA requests its challenge (RFC 8555 section 8.3). */
export const CHALLENGE_PATH = '/.well-known/acme-challenge/';
/** `SERVICE_HEALTH_PATH + name` on the door answers 200 while the local service is well, else 503. */
export const SERVICE_HEALTH_PATH = '/.well-known/bornemisza/service/';

/** The `Host` of every check, HAProxy's and the daemon's: different requests could get different answers. */
export const CHECK_HOST = 'localhost';
/** The statuses of a healthy service. A redirect does not prove that its target works. */
export const WELL_STATUSES = { least: 200, most: 299 } as const;
