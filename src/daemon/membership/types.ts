/** The types of the membership protocol: statements about a member, input of the machine, output of the machine. */

/** A libp2p PeerId in its text form (base58btc of the Ed25519 public key's multihash). */
export type PeerId = string;
export type Role = 'app' | 'db';
export type Health = 'up' | 'down';

/** Why a process says goodbye. systemd knows which; `restart` is bounded and delays only the death verdict. */
export type Goodbye = 'restart' | 'stop' | 'shutdown';

/** A member's record about itself. One writer: its owner. Signed by the owner, verified on every path. */
export interface NodeRecord {
  readonly peerId: PeerId;
  /** HOST/ROLE, unique among the living. */
  readonly name: string;
  readonly role: Role;
  /** Private IPv4 address and libp2p port; both must lie in the owner's certificate and the private network. */
  readonly address: string;
  readonly port: number;
  /** Rises on each start, refutation and rejoin; never regresses. */
  readonly incarnation: number;
  /** Rises with every change of this record inside one incarnation. */
  readonly sequence: number;
  /** 16 bytes in hex, new and higher at each start of the process: tells two holders of one key apart. */
  readonly startId: string;
  /** Version of the program, and the range of protocol versions that it speaks. */
  readonly version: string;
  readonly protocolMin: number;
  readonly protocolMax: number;
  /** `leaving` and `left` are final for this incarnation. */
  readonly status: 'alive' | 'leaving' | 'left';
  /** Set by a goodbye; bounded by the machine whatever the record says. */
  readonly goodbye?: { readonly kind: Goodbye; readonly windowMs: number };
  readonly health: Health;
  readonly maintenance: boolean;
  /** Health of each named local service, e.g. `haproxy`, `couchdb`, or a founder's own. At most 32. */
  readonly services: readonly { readonly name: string; readonly health: Health }[];
  /** At most 16 pairs, 64 bytes each. */
  readonly tags: Readonly<Record<string, string>>;
  /** One-minute load average × 100, whole. */
  readonly load: number;
  /** SHA-256 (hex, 16 characters) over the cluster-wide settings, so that differences between nodes show. */
  readonly settingsDigest: string;
}

/**
 * A record with its proof. The payload is kept as received, so that fields of later versions are passed on unchanged.
 */
export interface SignedRecord {
  readonly record: NodeRecord;
  /** The encoded record, exactly the bytes that were signed. Opaque to the machine. */
  readonly payload: Uint8Array;
  /** Ed25519 signature by the owner's node key over the payload with the domain prefix. */
  readonly signature: Uint8Array;
}

/**
 * The signed statement of a member that it could not reach another. It names the incarnation and proves nothing else.
 */
export interface Accusation {
  readonly subject: PeerId;
  readonly incarnation: number;
  readonly accuser: PeerId;
  /**
   * `closed`: the connection ended and the subject's own host refused a new one, so no process listens there, and the
   * time left for a refutation may be short. `silent` (and absent): no answer, directly or through others.
   */
  readonly evidence?: Evidence;
}
export type Evidence = 'silent' | 'closed';
export interface SignedAccusation {
  readonly accusation: Accusation;
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
}

export interface DigestEntry {
  readonly peerId: PeerId;
  readonly incarnation: number;
  readonly sequence: number;
  readonly state: MemberState;
}

/** The messages between members. `batch` goes by gossip or stream, the others by stream only. */
export type Message =
  | {
      readonly kind: 'batch';
      readonly records: readonly SignedRecord[];
      readonly accusations: readonly SignedAccusation[];
    }
  | { readonly kind: 'ping'; readonly nonce: number }
  | { readonly kind: 'ack'; readonly nonce: number }
  | { readonly kind: 'pingRequest'; readonly nonce: number; readonly target: PeerId }
  /** Answer to a pingRequest: whether the target answered the asked member in time. */
  | {
      readonly kind: 'pingReport';
      readonly nonce: number;
      readonly target: PeerId;
      readonly reached: boolean;
    }
  /** "I close this link because I have too many": the end of a connection that follows is no evidence of anything. */
  | { readonly kind: 'unlink' }
  /**
   * First half of a sync. `wantsReply` asks for the other side's digest difference in return. With `hash` (16 hex
   * characters over the whole table) `entries` is empty: who holds the same table answers with an empty final delta,
   * who does not answers with its own entries.
   */
  | {
      readonly kind: 'digest';
      readonly entries: readonly DigestEntry[];
      readonly wantsReply: boolean;
      readonly hash?: string;
    }
  /** Second half: what the asked side knows better, and what it wants from the asker. `final` ends the exchange. */
  | {
      readonly kind: 'delta';
      readonly records: readonly SignedRecord[];
      readonly accusations: readonly SignedAccusation[];
      readonly wants: readonly PeerId[];
      readonly final: boolean;
    };

/**
 * `suspect` still counts as serving; `dead` by verdict; `left` by its own record; `reaped` members are gone from the
 * view.
 */
export type MemberState = 'alive' | 'suspect' | 'dead' | 'leaving' | 'left';

/** A member, as the rest of the daemon sees it. */
export interface Member {
  readonly record: NodeRecord;
  readonly state: MemberState;
  /** Machine time (ms) when `state` was entered. */
  readonly sinceMs: number;
  /** Machine time (ms) when the newest record of this member was accepted; for the member itself: now. */
  readonly heardMs: number;
  /** True while a goodbye's window delays the death verdict. */
  readonly restarting: boolean;
  /** True for the member that is this process. */
  readonly self: boolean;
  /** Accusers counted against the present incarnation. */
  readonly accusers: readonly PeerId[];
}

/** Frozen and versioned: a new object with a higher version for every visible change. */
export interface MembershipView {
  readonly version: number;
  readonly self: PeerId;
  /** False from the start until the first sync with a member ended (a fresh `init` counts as synced). */
  readonly synced: boolean;
  /** Sorted by name. Includes self. */
  readonly members: readonly Member[];
}

/** A timer is data: a stale one (other epoch or incarnation) has no effect, so nothing needs cancelling. */
export type Timer =
  | { readonly kind: 'probe'; readonly epoch: number }
  | { readonly kind: 'probeTimeout'; readonly epoch: number; readonly nonce: number }
  | { readonly kind: 'indirectTimeout'; readonly epoch: number; readonly nonce: number }
  | { readonly kind: 'relayTimeout'; readonly epoch: number; readonly nonce: number }
  | {
      readonly kind: 'suspicion';
      readonly epoch: number;
      readonly subject: PeerId;
      readonly incarnation: number;
    }
  | {
      readonly kind: 'restartWindow';
      readonly epoch: number;
      readonly subject: PeerId;
      readonly incarnation: number;
    }
  | { readonly kind: 'flush'; readonly epoch: number }
  | { readonly kind: 'sync'; readonly epoch: number }
  | { readonly kind: 'links'; readonly epoch: number }
  | { readonly kind: 'reap'; readonly epoch: number };

/** The fields of the own record that the daemon may change. */
export interface LocalFacts {
  readonly health: Health;
  readonly maintenance: boolean;
  readonly services: readonly { readonly name: string; readonly health: Health }[];
  readonly tags: Readonly<Record<string, string>>;
  readonly load: number;
  readonly settingsDigest: string;
}

/** An admitted member, by its certificate. The machine ignores everybody else. */
export interface Admitted {
  readonly peerId: PeerId;
  readonly name: string;
  readonly role: Role;
  readonly address: string;
}

export type Event =
  /** Once, first. `roster` holds everybody admitted and not revoked, self included. */
  | {
      readonly kind: 'start';
      readonly roster: readonly Admitted[];
      readonly snapshot: Snapshot | undefined;
      /** True only for the node that has just made the cluster: it counts as synced. */
      readonly founder: boolean;
    }
  | { readonly kind: 'admitted'; readonly member: Admitted }
  | { readonly kind: 'revoked'; readonly peer: PeerId }
  | { readonly kind: 'connected'; readonly peer: PeerId }
  /** The last connection with the peer ended, whoever ended it. */
  | { readonly kind: 'disconnected'; readonly peer: PeerId }
  /**
   * A dial that `connect` requested ended without a connection. `refused` is true only when the other host itself said
   * so (ECONNREFUSED, or a reset during the handshake): then no process listens there. False for timeouts, unreachable
   * networks and everything else.
   */
  | { readonly kind: 'dialFailed'; readonly peer: PeerId; readonly refused: boolean }
  /**
   * `from` is the authenticated peer at the other end of the stream; for gossip, the peer that passed it on. `via`
   * distinguishes a batch that gossip carries to everybody (default) from one on a stream to this node alone.
   */
  | {
      readonly kind: 'received';
      readonly from: PeerId;
      readonly message: Message;
      readonly via?: 'gossip' | 'stream';
    }
  | { readonly kind: 'timer'; readonly timer: Timer }
  | { readonly kind: 'local'; readonly facts: LocalFacts }
  /** The event loop was late by this much: the node's own health gets worse, its timeouts longer. */
  | { readonly kind: 'lag'; readonly lagMs: number }
  | { readonly kind: 'goodbye'; readonly goodbye: Goodbye }
  /** Graceful leave: `leaving` at once; `left` when the daemon has handed over the node's work (`departed`). */
  | { readonly kind: 'leave' }
  | { readonly kind: 'departed' };

export type Effect =
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: Message }
  | { readonly kind: 'publish'; readonly message: Extract<Message, { kind: 'batch' }> }
  | { readonly kind: 'schedule'; readonly timer: Timer; readonly afterMs: number }
  | { readonly kind: 'connect'; readonly peer: PeerId; readonly address: string; readonly port: number }
  | { readonly kind: 'disconnect'; readonly peer: PeerId; readonly reason: string }
  /** The view changed. `member` is the newest state, `was` the state before (undefined: new). */
  | {
      readonly kind: 'changed';
      readonly member: Member;
      readonly was: MemberState | undefined;
      readonly why: string;
    }
  /** The first sync ended. */
  | { readonly kind: 'synced'; readonly with: PeerId }
  /** A member was forgotten for good. */
  | { readonly kind: 'reaped'; readonly peer: PeerId; readonly name: string }
  /** Another process with this node's key is alive and started later or earlier; the later one must stop. */
  | { readonly kind: 'clone'; readonly otherStartId: string; readonly mustStop: boolean }
  /** A note for an operator, e.g. a refused record. `code` is stable. */
  | {
      readonly kind: 'note';
      readonly code: string;
      readonly peer: PeerId | undefined;
      readonly detail: string;
    };

/** The state that survives a restart: every known record, also of dead members. */
export interface Snapshot {
  readonly savedAtMs: number;
  readonly incarnation: number;
  readonly members: readonly { readonly signed: SignedRecord; readonly state: MemberState }[];
}

/** Signing is pure (Ed25519 is deterministic), so the machine calls it directly. */
export interface Signer {
  record(record: NodeRecord): SignedRecord;
  accusation(accusation: Accusation): SignedAccusation;
}

export interface Membership {
  /** The only entry. Never throws for any event; `nowMs` is monotonic. */
  step(event: Event, nowMs: number): Effect[];
  readonly view: MembershipView;
  snapshot(): Snapshot;
}
