/**
 * The user of the app nodes: a document in `_users`, whose password is one of the cluster's secrets, and the rights of
 * `_users` itself: it holds the accounts of people, and each person sees only their own document.
 */
import { createHash, pbkdf2, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { CouchDbAnswer, type CouchDbClient, type Credentials } from './client.ts';
import { revOf } from './shards.ts';

/** `unasked`: no such user is wanted, or `_users` cannot be read now. */
export type AppUserState = 'right' | 'missing' | 'other-password' | 'no-role' | 'users-closed' | 'unasked';

/** Role of the app tier: reads and writes single documents of `_users`, and is no administrator. */
const KEEPER = 'bornemisza-app';
/** Role of each person with an account: CouchDB shows each only their own document. */
const ACCOUNT = 'account';
const ADMIN = '_admin';

interface Party {
  readonly names?: readonly string[];
  readonly roles?: readonly string[];
}

/** `_security` of a database, beside entries of others. */
interface Security {
  readonly admins?: Party;
  readonly members?: Party;
}

/** CouchDB's hash of the password, beside fields of others, such as roles. */
interface UserDocument {
  readonly _id: string;
  readonly _rev: string;
  readonly roles?: readonly string[];
  readonly derived_key?: unknown;
  readonly salt?: unknown;
  readonly iterations?: unknown;
  readonly pbkdf2_prf?: unknown;
}

/** Bounds the cost of a hand-written document; CouchDB's own value is 600000. */
const MOST_ROUNDS = 2_000_000;

export class AppUser {
  readonly #client: CouchDbClient;
  readonly #credentials: () => Credentials | undefined;
  /** Of document revision and password: PBKDF2 costs 0.2 s of a thread. */
  readonly #judged = { key: '', state: 'unasked' as AppUserState };

  constructor(client: CouchDbClient, credentials: () => Credentials | undefined) {
    this.#client = client;
    this.#credentials = credentials;
  }

  /** Compares hashes instead of trying a password: five wrong ones lock an account. */
  async state(signal: AbortSignal): Promise<AppUserState> {
    const credentials = this.#credentials();
    if (credentials === undefined) return 'unasked';
    try {
      if (!(await this.#usersOpen(signal)) && (await this.#usersEditable(signal))) return 'users-closed';
      const document = await this.#read(credentials, signal);
      if (document === undefined) return 'missing';
      return hasRole(document) ? await this.#judge(document, credentials) : 'no-role';
    } catch (error) {
      if (error instanceof CouchDbAnswer) return 'unasked';
      throw error;
    }
  }

  /**
   * Writes the password, its role, and the access to `_users`; entries of others stay.
   *
   * @throws CouchDbAnswer also if the document, read again, does not have what was written
   */
  async ensure(signal: AbortSignal): Promise<void> {
    const credentials = this.#credentials();
    if (credentials === undefined) return;
    await this.#openUsers(signal);
    const before = await this.#read(credentials, signal);
    const roles = before?.roles ?? [credentials.name];
    const body = {
      ...(before === undefined ? {} : { _rev: revOf(before) }),
      name: credentials.name,
      type: 'user',
      roles: roles.includes(KEEPER) ? roles : [...roles, KEEPER],
      password: credentials.password,
    };
    await this.#client.put(pathOf(credentials), body, signal);
    const after = await this.#read(credentials, signal);
    if (after === undefined || (await this.#judge(after, credentials)) !== 'right')
      throw new CouchDbAnswer(0, pathOf(credentials), 'does not hold the password that was written', true);
  }

  async #usersOpen(signal: AbortSignal): Promise<boolean> {
    const security = await this.#client.get<Security>(USERS_SECURITY, signal);
    return JSON.stringify(opened(security)) === JSON.stringify(security);
  }

  /** A CouchDB that does not run with our settings yet refuses the change. */
  async #usersEditable(signal: AbortSignal): Promise<boolean> {
    const path = '_node/_local/_config/couchdb/users_db_security_editable';
    return (await this.#client.find<string>(path, signal)) === 'true';
  }

  async #openUsers(signal: AbortSignal): Promise<void> {
    if ((await this.#usersOpen(signal)) || !(await this.#usersEditable(signal))) return;
    const security = await this.#client.get<Security>(USERS_SECURITY, signal);
    await this.#client.put(USERS_SECURITY, opened(security), signal);
  }

  async #read(credentials: Credentials, signal: AbortSignal): Promise<UserDocument | undefined> {
    return await this.#client.find<UserDocument>(pathOf(credentials), signal);
  }

  async #judge(document: UserDocument, { password }: Credentials): Promise<AppUserState> {
    const key = createHash('sha256')
      .update(`${revOf(document)} ${password}`)
      .digest('hex');
    if (this.#judged.key === key) return this.#judged.state;
    const state = (await holds(document, password)) ? 'right' : 'other-password';
    Object.assign(this.#judged, { key, state });
    return state;
  }
}

const USERS_SECURITY = '_users/_security';

/** Equal to the input if nothing is missing. */
function opened(security: Security): Security {
  return {
    ...security,
    members: withRoles(security.members, [ADMIN, KEEPER, ACCOUNT]),
    admins: withRoles(security.admins, [ADMIN, KEEPER]),
  };
}

function withRoles(party: Party | undefined, needed: readonly string[]): Party {
  const roles = party?.roles ?? [];
  return { ...party, roles: [...roles, ...needed.filter((role) => !roles.includes(role))] };
}

function hasRole({ roles }: UserDocument): boolean {
  return roles?.includes(KEEPER) ?? false;
}

function pathOf({ name }: Credentials): string {
  return `_users/${encodeURIComponent(`org.couchdb.user:${name}`)}`;
}

async function holds(document: UserDocument, password: string): Promise<boolean> {
  const { derived_key: derived, salt, iterations, pbkdf2_prf: digest } = document;
  if (typeof derived !== 'string' || typeof salt !== 'string' || digest !== 'sha256') return false;
  if (typeof iterations !== 'number' || !(iterations >= 1 && iterations <= MOST_ROUNDS)) return false;
  const held = Buffer.from(derived, 'hex');
  if (held.length !== 32) return false;
  return timingSafeEqual(await promisify(pbkdf2)(password, salt, iterations, 32, 'sha256'), held);
}
