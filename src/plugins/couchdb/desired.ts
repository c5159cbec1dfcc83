import { USUAL_DIRECTORY } from '../../host/couchdb-directory.ts';

/**
 * The desired state of this db node's CouchDB: pure data, made by the role from the membership view and the roster.
 *
 * One daemon manages one CouchDB. One daemon at a time, the coordinator (see plan.ts), edits what concerns the whole
 * cluster (node documents, shard maps, system databases), always through one arbiter's documents.
 */

/** The phase of a db node in the roster. No node is removed from a CouchDB cluster because its process is silent. */
export type MemberPhase =
  /** Admitted and wanted. Also while its process is dead: death of a member never removes data. */
  | 'in'
  /** It announced a leave: its copies are moved to the others, then its node document goes. */
  | 'leaving'
  /** The operator declared it gone for good (`remove`, `remove --dead`, `replace`). Its copies are given up. */
  | 'removed';

/** A db node's report about its own CouchDB, in the tag `couchdb` of its record. At most 64 bytes. */
export type Claim =
  /** Running, empty, alone, in maintenance: may be admitted. `version` and `digest` must equal the taker's own. */
  | { readonly kind: 'fresh'; readonly version: string; readonly digest: string }
  /** In a cluster, not yet (or not again) proved complete: no client reaches it. */
  | { readonly kind: 'proving' }
  /** In a cluster and every copy proved complete: may be in rotation. */
  | { readonly kind: 'serving' }
  /** Its node document is gone: the program can be stopped and its data wiped. */
  | { readonly kind: 'left' }
  /** Not running or not readable, but its data belongs to a cluster. */
  | { readonly kind: 'down' }
  /** Not running, refused or not observed yet; nothing shows that it ever was in a cluster. */
  | { readonly kind: 'out' };

export interface DesiredMember {
  /** Erlang's name of the node, `couchdb@PRIVATE_IPV4`. Fixed for the life of the data: shard maps hold it. */
  readonly nodeName: string;
  readonly peerId: string;
  /** HOST/ROLE, for people. */
  readonly name: string;
  readonly phase: MemberPhase;
  /** Whether the membership view holds its daemon for alive (or suspect, or restarting). */
  readonly alive: boolean;
  /** Undefined: never received. */
  readonly claim: Claim | undefined;
}

/** What this node itself must do for the cluster. */
type Duty = 'serve' | 'leave';

/** PEM texts for the Erlang distribution. The certificate needs the private address as a DNS SAN. */
export interface DistributionTls {
  readonly caPem: string;
  readonly certPem: string;
  readonly keyPem: string;
}

/** The values that end up in the generated files. The same on every node, but for the address and the TLS files. */
export interface CouchDbSettings {
  /** Erlang cookie: letters and digits. A secret: it allows running code on every peer. */
  readonly cookie: string;
  /** `[chttpd_auth] secret`, hexadecimal. The same everywhere, else sessions do not cross nodes. */
  readonly secret: string;
  readonly adminName: string;
  /** `-pbkdf2:sha256-HEX,SALT,600000`: the very same hash everywhere, else sessions do not cross nodes. */
  readonly adminHash: string;
  /** `[couchdb] uuid`, 32 hexadecimal characters: replication ids are made from it. */
  readonly uuid: string;
  /** Ranges of a new database. Default 2. */
  readonly q: number;
  /** Copies of each range. Default 3; fewer while fewer nodes are in. */
  readonly n: number;
  /** HTTP, loopback only. Default 127.0.0.1. */
  readonly httpAddress: string;
  /** Default 15984, never 5984, which is the app role's listener. */
  readonly httpPort: number;
  /** Erlang distribution on the private address. Default 9100. */
  readonly distributionPort: number;
  /** Seconds; the same everywhere, since different values make idle links flap. Default 15. */
  readonly netTicktimeS: number;
  /** Default 5: a healed link is used again after at most so many seconds. */
  readonly reconnectIntervalS: number;
  /**
   * TCP_USER_TIMEOUT on the distribution. Default 3000 ms: requests that wait for a node that was cut off go on within
   * 5 s, and membership has held it for dead by then. 0 leaves it out.
   */
  readonly tcpUserTimeoutMs: number;
  /** Undefined: plain distribution, for a loopback cluster only. */
  readonly tls: DistributionTls | undefined;
  /** `false`: no epmd; every node is found at `distributionPort`. Default true. */
  readonly epmd: boolean;
  /** Where data and local.ini lie, the ini file that the server itself writes. Default /var/lib/couchdb. */
  readonly dataDirectory: string;
  /** Where the release is. Default /opt/couchdb, where Apache's package puts it. */
  readonly releaseDirectory: string;
}

/** Why no administrative write is allowed now, and the members (HOST/ROLE) concerned. */
export interface Disagreement {
  readonly message: string;
  readonly subjects: readonly string[];
}

export interface CouchDbDesired {
  readonly self: {
    readonly nodeName: string;
    readonly address: string;
    readonly peerId: string;
    readonly name: string;
  };
  /** All db nodes that were admitted, self included, in order of admission. Removed ones stay listed as `removed`. */
  readonly members: readonly DesiredMember[];
  readonly duty: Duty;
  /** True where this node may make the first cluster, if nobody else claims one: the first admitted db node. */
  readonly mayFound: boolean;
  /** True while this node may be restarted for new settings; the caller ensures one node at a time. */
  readonly mayRestart: boolean;
  readonly systemDatabases: readonly string[];
  readonly settings: CouchDbSettings;
}

const systemDatabases: readonly string[] = ['_users', '_replicator', '_global_changes'];

/** Why a desired state is impossible. The role shows it to the operator; nothing is changed. */
export class DesiredError extends Error {
  readonly code = 'couchdb-desired-refused';
}

const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)$/;

/** `couchdb@ADDRESS`. Throws {@link DesiredError} for anything but an IPv4 address: the name lands in config files. */
export function nodeNameOf(address: string): string {
  if (!IPV4.test(address)) throw new DesiredError(`not an IPv4 address: ${JSON.stringify(address)}`);
  return `couchdb@${address}`;
}

export function addressOf(nodeName: string): string {
  return nodeName.slice(nodeName.indexOf('@') + 1);
}

/** The role's knowledge of one db node; tags of its record, `undefined` if none was received. */
export interface MemberFacts {
  readonly peerId: string;
  readonly name: string;
  readonly address: string;
  readonly phase: MemberPhase;
  readonly alive: boolean;
  readonly tag: string | undefined;
}

export interface DesiredFacts {
  readonly selfPeerId: string;
  /** In order of admission (the roster's), self included, db nodes only. */
  readonly members: readonly MemberFacts[];
  readonly mayRestart: boolean;
  readonly settings: Pick<CouchDbSettings, 'cookie' | 'secret' | 'adminName' | 'adminHash' | 'uuid'> &
    Partial<CouchDbSettings>;
}

const settingsDefaults: Omit<CouchDbSettings, 'cookie' | 'secret' | 'adminName' | 'adminHash' | 'uuid'> = {
  q: 2,
  n: 3,
  httpAddress: '127.0.0.1',
  httpPort: 15984,
  distributionPort: 9100,
  netTicktimeS: 15,
  reconnectIntervalS: 5,
  tcpUserTimeoutMs: 3000,
  tls: undefined,
  epmd: true,
  dataDirectory: '/var/lib/couchdb',
  releaseDirectory: USUAL_DIRECTORY,
};

/** The desired state from what the role knows. Throws {@link DesiredError} when a value is not allowed in a file. */
export function couchDbDesired(facts: DesiredFacts): CouchDbDesired {
  const settings: CouchDbSettings = { ...settingsDefaults, ...facts.settings };
  checkSettings(settings);
  const members = facts.members.map(memberOf);
  const self = facts.members.find((member) => member.peerId === facts.selfPeerId);
  if (self === undefined) throw new DesiredError('this node is not in the roster of db nodes');
  const names = new Set(
    members.filter((member) => member.phase !== 'removed').map((member) => member.nodeName),
  );
  if (names.size !== members.filter((member) => member.phase !== 'removed').length) {
    throw new DesiredError('two db nodes have the same private address');
  }
  const first = members.find((member) => member.phase === 'in');
  return {
    self: { nodeName: nodeNameOf(self.address), address: self.address, peerId: self.peerId, name: self.name },
    members,
    duty: self.phase === 'in' ? 'serve' : 'leave',
    mayFound: first?.peerId === facts.selfPeerId,
    mayRestart: facts.mayRestart,
    systemDatabases,
    settings,
  };
}

function memberOf(facts: MemberFacts): DesiredMember {
  return {
    nodeName: nodeNameOf(facts.address),
    peerId: facts.peerId,
    name: facts.name,
    phase: facts.phase,
    alive: facts.alive,
    claim: facts.tag === undefined ? undefined : parseClaim(facts.tag),
  };
}

/** Each value is written into files that CouchDB and Erlang parse: only what cannot end a line or a term passes. */
function checkSettings(settings: CouchDbSettings): void {
  const path = /^\/[A-Za-z0-9._/-]{1,200}$/;
  const rules: readonly [string, string, RegExp][] = [
    ['cookie', settings.cookie, /^[A-Za-z0-9]{16,255}$/],
    ['secret', settings.secret, /^[0-9a-f]{16,128}$/],
    ['adminName', settings.adminName, /^[a-z][a-z0-9_-]{0,63}$/],
    ['adminHash', settings.adminHash, /^-pbkdf2:sha256-[0-9a-f]{64},[0-9A-Za-z]{8,64},\d{1,7}$/],
    ['uuid', settings.uuid, /^[0-9a-f]{32}$/],
    ['dataDirectory', settings.dataDirectory, path],
    ['releaseDirectory', settings.releaseDirectory, path],
    ['httpAddress', settings.httpAddress, /^127(?:\.\d{1,3}){3}$/],
  ];
  for (const [key, value, rule] of rules) {
    if (!rule.test(value)) throw new DesiredError(`couchdb setting ${key} has a form that is not allowed`);
  }
  for (const [key, low, high] of [
    ['q', 1, 64],
    ['n', 1, 9],
    ['httpPort', 1024, 65535],
    ['distributionPort', 1024, 65535],
    ['netTicktimeS', 10, 120],
    ['reconnectIntervalS', 1, 60],
    ['tcpUserTimeoutMs', 0, 60_000],
  ] as const) {
    const value = settings[key];
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new DesiredError(`couchdb setting ${key} must be a whole number from ${low} to ${high}`);
    }
  }
  if (settings.httpPort === 5984) {
    throw new DesiredError('couchdb cannot listen on 127.0.0.1:5984, which is the listener of the app role');
  }
}

export function formatClaim(claim: Claim): string {
  return claim.kind === 'fresh' ? `fresh:${claim.version}:${claim.digest}` : claim.kind;
}

/** Parses a tag of a peer; an unknown form counts as `out`. */
export function parseClaim(tag: string): Claim {
  const fresh = /^fresh:([0-9A-Za-z.+-]{1,24}):([0-9a-f]{16})$/.exec(tag);
  if (fresh !== null) return { kind: 'fresh', version: fresh[1] as string, digest: fresh[2] as string };
  if (tag === 'proving' || tag === 'serving' || tag === 'left' || tag === 'down') return { kind: tag };
  return { kind: 'out' };
}
