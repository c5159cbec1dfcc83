import { createHash, pbkdf2, randomBytes, randomInt } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import * as z from 'zod';
import type { PeerId, Role } from '../membership/types.ts';
import { IdentityError } from './errors.ts';
import { FILES, readDecoded, writeStateFile } from './state.ts';

/**
 * The secrets of the roles, which nobody types. The first db node creates them; later ones ask any db member. App nodes
 * get only the credentials of the application: above all never the Erlang cookie, which allows running code on every db
 * node.
 */

/** More removals of db nodes than a cluster sees in its life; older ones are forgotten and cause no replacement. */
const WITHOUT = 1000;

const Credentials = z.object({
  user: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  password: z.string().regex(/^[A-Za-z0-9]{24,64}$/),
});

/** More removals of app nodes than a cluster sees in its life; see {@link withNewKey} for what is dropped. */
const MAX_APP_KEYS = 64;
const AppKey = z.object({
  /**
   * Follows from the secret: of two keys that were made at once, on both sides of a partition, neither is taken for the
   * other.
   */
  id: z.string().regex(/^[0-9a-f]{16}$/),
  secret: z.string().regex(/^[0-9a-f]{64}$/),
});
/** Keys of the app tier, oldest first, for sessions, links and names of accounts. Only the newest verifies. */
const AppKeys = z.array(AppKey).max(MAX_APP_KEYS).default([]);

const DbSecrets = z.object({
  version: z.literal(1),
  kind: z.literal('db'),
  /** Rises when cookie and auth secret are replaced. */
  generation: z.int().min(1),
  /** Erlang's cookie: letters and digits, so that it needs no quoting anywhere. */
  cookie: z.string().regex(/^[A-Za-z0-9]{40}$/),
  /** `[chttpd_auth] secret` of CouchDB, the same on every db node. */
  authSecret: z.string().regex(/^[0-9a-f]{64}$/),
  /**
   * `hash` is the value in `[admins]` with its salt: CouchDB accepts another node's cookies only if it is identical.
   */
  admin: Credentials.extend({ hash: z.string().regex(/^-pbkdf2:sha256-[0-9a-f]{64},[0-9a-f]{32},\d{1,7}$/) }),
  /** `[couchdb] uuid`. */
  clusterUuid: z.string().regex(/^[0-9a-f]{32}$/),
  app: Credentials,
  appKeys: AppKeys,
  /**
   * Last 8 characters of the PeerIds of removed nodes: these secrets were made after their removal, and they never get
   * them.
   */
  without: z
    .array(z.string().regex(/^[A-Za-z0-9]{8}$/))
    .max(WITHOUT)
    .default([]),
});
const AppSecrets = z.object({
  version: z.literal(1),
  kind: z.literal('app'),
  generation: z.int().min(1),
  /** Rank of the db secrets to which these belong, see {@link rankOf}. */
  rank: z.string().max(32).default(''),
  app: Credentials,
  appKeys: AppKeys,
});
const Secrets = z.discriminatedUnion('kind', [DbSecrets, AppSecrets]);

export type DbSecrets = Readonly<z.infer<typeof DbSecrets>>;
type AppSecrets = Readonly<z.infer<typeof AppSecrets>>;
export type Secrets = DbSecrets | AppSecrets;
type AppKey = z.infer<typeof AppKey>;

/** 1000 removed nodes are 11 kB, 64 keys 7 kB. */
const SECRETS_BYTES = 24_576;
/** The iterations that CouchDB 3.4 and later use. */
const PBKDF2_ROUNDS = 600_000;
const pbkdf2Async = promisify(pbkdf2);

/** For the first db node of a cluster. Takes 0.2 s in the thread pool. */
export async function createSecrets(): Promise<DbSecrets> {
  const password = letters(32);
  return {
    version: 1,
    kind: 'db',
    generation: 1,
    cookie: letters(40),
    authSecret: randomBytes(32).toString('hex'),
    admin: { user: 'admin', password, hash: await adminHash(password, randomBytes(16).toString('hex')) },
    clusterUuid: randomBytes(16).toString('hex'),
    app: { user: 'app', password: letters(32) },
    appKeys: [newAppKey()],
    without: [],
  };
}

/** After the removal of db nodes, which know the old secrets. */
export function rollSecrets(own: DbSecrets, removed: readonly PeerId[]): DbSecrets {
  const authSecret = randomBytes(32).toString('hex');
  return { ...rollAppKeys(own, removed), cookie: letters(40), authSecret };
}

/** After the removal of app nodes, which know only the keys of the app tier. */
export function rollAppKeys(own: DbSecrets, removed: readonly PeerId[]): DbSecrets {
  const without = [...new Set([...own.without, ...removed.map(shortOf)])].slice(-WITHOUT);
  return { ...own, generation: own.generation + 1, appKeys: withNewKey(own.appKeys), without };
}

/** The first key stays for ever, since names of accounts follow from it. */
function withNewKey(keys: readonly AppKey[]): AppKey[] {
  return [...keys.slice(0, 1), ...keys.slice(1).slice(-(MAX_APP_KEYS - 2)), newAppKey()];
}

function newAppKey(): AppKey {
  const secret = randomBytes(32).toString('hex');
  return { id: createHash('sha256').update(`id ${secret}`).digest('hex').slice(0, 16), secret };
}

/** The removed nodes that know these secrets. */
export function notRolledFor(own: DbSecrets, removed: readonly PeerId[]): PeerId[] {
  return removed.slice(-WITHOUT).filter((peerId) => !own.without.includes(shortOf(peerId)));
}

const shortOf = (peerId: PeerId): string => peerId.slice(-8);

/**
 * The tag of a db node's secrets in its record: the generation and 32 bits of a digest over 450 random ones. Of two
 * that were made at once, on both sides of a partition, the same one wins everywhere.
 */
export function rankOf(secrets: DbSecrets): string {
  const keys = secrets.appKeys.map(({ secret }) => secret);
  const made = [secrets.cookie, secrets.authSecret, ...keys].join(' ');
  const digest = createHash('sha256').update(made).digest('hex');
  return `${secrets.generation}-${digest.slice(0, 8)}`;
}

/** Whether one rank, as written by a peer, is higher than another. Text that is no rank is higher than none. */
export function outranks(one: string, other: string): boolean {
  const [mine, theirs] = [one, other].map((text) => /^(\d{1,9})-([0-9a-f]{8})$/.exec(text));
  if (mine === null || mine === undefined) return false;
  if (theirs === null || theirs === undefined) return true;
  const difference = Number(mine[1]) - Number(theirs[1]);
  return difference === 0 ? (mine[2] ?? '') > (theirs[2] ?? '') : difference > 0;
}

/** CouchDB's form of an admin's password: PBKDF2 over the salt as text, 32 bytes. */
export async function adminHash(password: string, salt: string): Promise<string> {
  const key = await pbkdf2Async(password, salt, PBKDF2_ROUNDS, 32, 'sha256');
  return `-pbkdf2:sha256-${key.toString('hex')},${salt},${PBKDF2_ROUNDS}`;
}

function letters(count: number): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  return Array.from({ length: count }, () => alphabet.charAt(randomInt(alphabet.length))).join('');
}

/**
 * The secrets for a member, by the role in its certificate. A member whose removal caused a replacement gets nothing,
 * even on nodes that do not know of its removal yet.
 *
 * @returns undefined if this node has nothing for it: ask another db member
 */
export function answerSecretsRequest(
  requester: { readonly role: Role; readonly peerId: PeerId },
  own: Secrets | undefined,
): Secrets | undefined {
  if (own?.kind !== 'db' || own.without.includes(shortOf(requester.peerId))) return undefined;
  if (requester.role === 'db') return own;
  const { generation, app, appKeys } = own;
  return { version: 1, kind: 'app', generation, rank: rankOf(own), app, appKeys };
}

export function encodeSecrets(secrets: Secrets): Uint8Array {
  return Buffer.from(JSON.stringify(secrets));
}

/** @throws IdentityError `secrets-malformed`; its message quotes nothing */
export function decodeSecrets(bytes: Uint8Array): Secrets {
  try {
    if (bytes.length <= SECRETS_BYTES) return Secrets.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch {
    // The parser's message would quote the secrets.
  }
  throw new IdentityError({
    code: 'secrets-malformed',
    message: "The role's secrets cannot be read.",
    next: 'Check that both nodes run the same version of bornemisza; nothing was changed.',
  });
}

function isNewer(candidate: Secrets, held: Secrets): boolean {
  if (candidate.kind === 'db' && held.kind === 'db') return outranks(rankOf(candidate), rankOf(held));
  return candidate.kind === 'app' && held.kind === 'app' && outranks(candidate.rank, held.rank);
}

/** The secrets of this node, on disk 0600. */
export class SecretsStore {
  readonly #path: string;
  readonly #role: Role;
  #held: Secrets | undefined;

  constructor(stateDir: string, role: Role) {
    this.#path = join(stateDir, FILES.secrets);
    this.#role = role;
  }

  /** @throws IdentityError `state-file-damaged`, `state-permissions` */
  async load(): Promise<void> {
    try {
      this.#held = await readDecoded(this.#path, (text) => this.#fitting(decodeSecrets(Buffer.from(text))));
    } catch (error) {
      if (!(error instanceof IdentityError) || error.code !== 'state-file-missing') throw error;
    }
  }

  /** undefined: not fetched yet. */
  get(): Secrets | undefined {
    return this.#held;
  }

  /** Stores them if their rank is higher. @returns whether they are new. @throws IdentityError `secrets-other-role` */
  async put(secrets: Secrets): Promise<boolean> {
    this.#fitting(secrets);
    if (this.#held !== undefined && !isNewer(secrets, this.#held)) return false;
    await writeStateFile(this.#path, `${JSON.stringify(secrets)}\n`);
    this.#held = secrets;
    return true;
  }

  #fitting(secrets: Secrets): Secrets {
    if (secrets.kind === this.#role) return secrets;
    throw new IdentityError({
      code: 'secrets-other-role',
      message: `Secrets of role ${secrets.kind} do not belong on a node of role ${this.#role}.`,
      next: 'See the journal for the member that sent them; nothing was changed.',
    });
  }
}
