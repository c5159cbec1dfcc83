/** Every bound of the wire, with its reason. Sizes in bytes, lengths of strings in UTF-16 units unless stated. */

/** Protocol versions of this program. A reader refuses messages that need a later one. */
export const PROTOCOL_MIN = 1;
export const PROTOCOL_MAX = 1;

/**
 * One frame or gossiped message: a digest of MAX_DIGEST_ENTRIES members (66 bytes each) fits, and a hundred queued
 * frames stay under 7 MB.
 */
export const MAX_MESSAGE_BYTES = 64 * 1024;

/**
 * An encoded record: 32 services and 16 tags at their longest are 5 KB; the rest is room for fields of later versions.
 */
export const MAX_RECORD_BYTES = 8 * 1024;

/** An encoded accusation is two PeerIds and a number: 130 bytes; the rest is room for later fields. */
export const MAX_ACCUSATION_BYTES = 512;

/**
 * Records in one message: at 280 bytes each about as many as MAX_MESSAGE_BYTES holds; each costs a signature check (0.1
 * ms).
 */
export const MAX_RECORDS_PER_MESSAGE = 256;

/** Two accusers decide; 256 leaves room for a whole site that fails at once. */
export const MAX_ACCUSATIONS_PER_MESSAGE = 256;

/**
 * A digest must be whole (a missing entry means "unknown to me"), so this bounds the cluster; we promise 500 members.
 */
export const MAX_DIGEST_ENTRIES = 768;

/** Members in a snapshot: those of a digest, and as many again that were left or reaped late. */
export const MAX_SNAPSHOT_MEMBERS = 2 * MAX_DIGEST_ENTRIES;

/** A snapshot file: MAX_SNAPSHOT_MEMBERS at the size of an ordinary full record. */
export const MAX_SNAPSHOT_BYTES = 8 * 1024 * 1024;

/** Ed25519, RFC 8032 section 5.1.6. */
export const SIGNATURE_BYTES = 64;

/** Start ids are 16 random bytes: no two processes share one by chance. */
export const START_ID_BYTES = 16;

/** First 8 bytes of a SHA-256: enough to show differences, not a proof. */
export const SETTINGS_DIGEST_BYTES = 8;

/** First 8 bytes of a hash over the whole table: two different tables agree by chance once in 2^64 syncs. */
export const TABLE_HASH_BYTES = 8;

/** A node runs a handful of services; the record has to stay small enough to gossip. */
export const MAX_SERVICES = 32;
export const MAX_SERVICE_NAME_LENGTH = 64;

/** Tags are labels, not a database. */
export const MAX_TAGS = 16;
export const MAX_TAG_BYTES = 64;

/**
 * HOST/ROLE, where HOST may be a full domain name (RFC 1035 bounds it to 253; commonName in a certificate to 64, so
 * this is generous).
 */
export const MAX_NAME_LENGTH = 200;
export const MAX_VERSION_LENGTH = 32;

/** One-minute load average times 100: no machine has a load of a million. */
export const MAX_LOAD = 100_000_000;

/** A goodbye's window as received; the machine bounds it further. */
export const MAX_GOODBYE_WINDOW_MS = 3_600_000;

/**
 * A certificate chain without its root, in DER: a leaf and an intermediate of RSA-3072 are 2.6 KB, of RSA-4096 3.2 KB.
 * Strangers may send one, so it stays small.
 */
export const MAX_CHAIN_BYTES = 4096;

/** A hello is a chain and 300 bytes of numbers and names. */
export const MAX_HELLO_BYTES = MAX_CHAIN_BYTES + 512;

/** The same kind of value as a start id, created by the transport. */
export const INSTANCE_BYTES = 16;

/** A cluster's name is a topic and part of a certificate's URI. */
export const MAX_CLUSTER_LENGTH = 128;
