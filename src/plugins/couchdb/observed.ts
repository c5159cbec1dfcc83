/** The observed state for the plan. */
import type { AppUserState } from './app-user.ts';
import type { Amount } from './progress.ts';
import type { UnitState } from './restart-units.ts';
import type { ShardMap } from './shards.ts';

export interface Identity {
  readonly nodeName: string;
  readonly peerId: string;
}

/** A document of `_nodes`. `decom` keeps new databases off the node; `bornemisza` is our own mark. */
export interface NodeDocument {
  readonly _id: string;
  readonly _rev: string;
  readonly _conflicts?: readonly string[];
  readonly decom?: unknown;
  readonly bornemisza?: unknown;
}

/**
 * The mark in a node document, for messages between the coordinator and the node: `filling`: copies are being added,
 * stay in maintenance; `filled`: all are in the maps, prove them and open; `leaving`: the node is being emptied and may
 * serve while some data is only there.
 */
export type Mark = 'filling' | 'filled' | 'leaving';

/** The answers of one member of the CouchDB cluster, through the proxy of this node. */
export interface MemberWord {
  /** Nodes that it is connected to, itself included. */
  readonly connected: readonly string[];
  readonly documents: readonly NodeDocument[];
  readonly maintenance: boolean;
  /** The number of its shard maps. */
  readonly databases: number;
}

/** Why a copy of this node differs from the others. */
export interface CopyLack {
  readonly database: string;
  /** Changes of other copies that are not here yet. */
  readonly incomplete: boolean;
  /** `_security` or `_revs_limit` of this copy must be set to what all other copies have. */
  readonly carry: boolean;
  /** The other copies differ among themselves. */
  readonly disagree: boolean;
}

/** The progress of the proof of rule "start and return". */
export interface Proof {
  /**
   * Databases that have to be proved: all with copies here, but for those that were made since the proof began. These
   * are pushed as the node opens, else a node would never open where databases are made all the time.
   */
  readonly total: number;
  readonly proved: number;
  /** Of the observed copies of this node, and how much of that is here. */
  readonly bytes?: Amount | undefined;
  /** All databases with copies here, those first that were being written to. */
  readonly busyFirst: readonly string[];
  /** How many of `busyFirst` were being written to. */
  readonly busy: number;
  /** At most 32, the first ones by name. */
  readonly lacking: readonly CopyLack[];
  /** True when some range of this node has no other copy that is being served: a full restart. */
  readonly alone: boolean;
  /** For how long the proof has been waiting, ms. */
  readonly waitingMs: number;
}

export interface Server {
  /** The name that it runs under. */
  readonly nodeName: string;
  readonly version: string;
  /** The digest in the settings that it runs with; undefined: it was not started with our files. */
  readonly runningDigest: string | undefined;
  /** The digest of the cookie that it runs with; undefined as above. */
  readonly runningCookie: string | undefined;
  readonly seedlist: string;
  readonly maintenance: boolean;
  readonly allNodes: readonly string[];
  readonly clusterNodes: readonly string[];
  /** By node name; undefined: did not answer. Self is included. */
  readonly members: ReadonlyMap<string, MemberWord | undefined>;
  /** All shard maps as this node's `_dbs` holds them, with `_conflicts`. */
  readonly maps: ReadonlyMap<string, ShardMap>;
  /** Databases first seen since a joiner was last marked as filling: they do not hold up its opening. */
  readonly late: ReadonlySet<string>;
  /** Members whose number of shard maps was once the same as here since they connected. */
  readonly sameMaps: ReadonlySet<string>;
  /** For how long each node of `clusterNodes` has been absent from `allNodes`, ms. */
  readonly absentMs: ReadonlyMap<string, number>;
  /** Joiners that did not connect after their admission; ignored for a while. */
  readonly shunned: ReadonlySet<string>;
  /** `DATABASE REVISION` of map conflicts that only a person can resolve. */
  readonly unrepairable: ReadonlySet<string>;
  /** The state of the app nodes' user. */
  readonly appUser: AppUserState;
  /** Only while this node is in maintenance and in a cluster. */
  readonly proof: Proof | undefined;
}

export type Http =
  | { readonly kind: 'down' }
  /** It runs and refuses the administrator's password. */
  | { readonly kind: 'refused' }
  /** Another client's wrong passwords locked the administrator's account; `open`: its `/_up` says that it serves. */
  | { readonly kind: 'locked'; readonly open: boolean }
  /** It gives wrong or late answers; `unheard` are the nodes that it may wait for. */
  | { readonly kind: 'failed'; readonly detail: string; readonly unheard: readonly string[] }
  | { readonly kind: 'up'; readonly server: Server };

export interface Observed {
  /** The generated files on disk. */
  readonly files: ReadonlyMap<string, string | undefined>;
  /** In the data directory: it is lost together with the data. */
  readonly marker: Identity | undefined;
  /** In the configuration directory: this node was in a cluster, whatever happened to the data. */
  readonly record: Identity | undefined;
  readonly restartPending: boolean;
  /** Milliseconds since this process began or last asked for a restart. */
  readonly restartAskedAgoMs: number;
  /** systemd's state of the units that should have done it; only read if it is overdue. */
  readonly restartUnits?: readonly UnitState[] | undefined;
  /** Milliseconds since this node said first that a restart is due; 0 where none is. */
  readonly restartDueForMs: number;
  /** This node's last report of its restart. */
  readonly restartSaid?: 'due' | 'now' | undefined;
  readonly http: Http;
}
