import { createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { HttpError } from '../fabric/ask.ts';
import type { Settings } from '../start/settings.ts';
import type { Body } from '../store/revision.ts';
import type { UserCtx } from './message.ts';

const derive = promisify(pbkdf2);
/** CouchDB 3.5 hashes with this many rounds of HMAC-SHA256. */
const rounds = 600_000;
const defaultThreshold = 5;
const defaultLockedMs = 300_000;

/** What is needed to check a password and to sign a cookie: an admin's of the ini, or a user document's. */
type Credentials = {
  name: string;
  roles: string[];
  salt: string;
  key: string;
  iterations: number;
  digest: string;
};

/** A ready hash as local.ini holds it: `-pbkdf2:sha256-<hex>,<salt>,<iterations>`. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(16).toString('hex');
  const key = await derive(password, salt, rounds, 32, 'sha256');
  return `-pbkdf2:sha256-${key.toString('hex')},${salt},${rounds}`;
}

/** A user document as it is stored: the password replaced by its hash. */
export async function hashUserDoc(doc: Body): Promise<Body> {
  const { password, ...rest } = doc;
  if (typeof password !== 'string') return doc;
  const salt = randomBytes(16).toString('hex');
  const key = await derive(password, salt, rounds, 32, 'sha256');
  const scheme = { password_scheme: 'pbkdf2', pbkdf2_prf: 'sha256', salt, iterations: rounds };
  return { ...scheme, derived_key: key.toString('hex'), ...rest };
}

/** Replaces plain passwords of `[admins]` by hashes, as a start of the real one does. */
export async function hashAdmins(settings: Settings): Promise<void> {
  for (const [name, value] of Object.entries(settings.section('admins'))) {
    if (!/^-(pbkdf2|hashed)/.test(value)) await settings.set('admins', name, await hashPassword(value), true);
  }
}

function rolesOf(doc: Body | undefined): string[] {
  return (doc?.roles ?? []) as string[];
}

export class Auth {
  readonly #settings: Settings;
  readonly #userDoc: (name: string) => Promise<Body | undefined>;
  /** Right passwords by hash: only the first use costs the rounds. */
  readonly #known = new Map<string, string>();
  readonly #failures = new Map<string, { count: number; since: number }>();

  constructor(settings: Settings, userDoc: (name: string) => Promise<Body | undefined>) {
    this.#settings = settings;
    this.#userDoc = userDoc;
  }

  /** Who asks: by cookie, then by Basic; nobody when there is neither or the cookie is not ours. */
  async identify(headers: Record<string, string>, peer: string): Promise<UserCtx> {
    const cookie = headers.cookie?.match(/(?:^|;\s*)AuthSession=([^;]*)/)?.[1];
    if (cookie !== undefined && cookie !== '') {
      const user = await this.#fromCookie(cookie);
      if (user !== undefined) return user;
    }
    const basic = headers.authorization?.match(/^Basic\s+(.+)$/i)?.[1];
    if (basic === undefined) return { name: null, roles: [] };
    const text = Buffer.from(basic, 'base64').toString();
    const at = text.indexOf(':');
    const found = await this.login(text.slice(0, at), text.slice(at + 1), peer);
    return { name: found.name, roles: found.roles, by: 'default' };
  }

  /** @throws HttpError 401 for a wrong password, 403 for any while the account is locked for this peer */
  async login(name: string, password: string, peer: string): Promise<Credentials> {
    const key = `${peer} ${name}`;
    if (this.#isLocked(key)) {
      throw new HttpError(
        403,
        'forbidden',
        'Account is temporarily locked due to multiple authentication failures',
      );
    }
    const credentials = await this.#credentials(name);
    if (credentials !== undefined && (await this.#matches(credentials, password))) return credentials;
    this.#fail(key);
    throw new HttpError(401, 'unauthorized', 'Name or password is incorrect.');
  }

  /** A Set-Cookie value; makes the secret at the first login when there is none. */
  async cookieFor(credentials: Credentials): Promise<string> {
    if (this.#secret() === undefined) {
      await this.#settings.set('chttpd_auth', 'secret', randomBytes(16).toString('hex'), true);
    }
    const time = Math.floor(Date.now() / 1000)
      .toString(16)
      .toUpperCase();
    const plain = `${credentials.name}:${time}`;
    const mac = this.#sign(plain, credentials.salt);
    const value = Buffer.concat([Buffer.from(`${plain}:`), mac]).toString('base64url');
    return this.cookieHeader(value);
  }

  cookieHeader(value: string): string {
    const seconds = this.#timeoutSeconds();
    const expires = new Date(Date.now() + seconds * 1000).toUTCString().replace(/ (\w{3}) (\d{4})/, '-$1-$2');
    return `AuthSession=${value}; Version=1; Expires=${expires}; Max-Age=${seconds}; Path=/; HttpOnly`;
  }

  #timeoutSeconds(): number {
    return this.#settings.number('chttpd_auth', 'timeout', 600);
  }

  #secret(): string | undefined {
    return this.#settings.get('chttpd_auth', 'secret');
  }

  /** The key is secret and salt: another node's cookie counts only when both are the same there. */
  #sign(plain: string, salt: string): Buffer {
    return createHmac('sha256', `${this.#secret() ?? ''}${salt}`)
      .update(plain)
      .digest();
  }

  async #fromCookie(cookie: string): Promise<UserCtx | undefined> {
    const bytes = Buffer.from(cookie, 'base64url');
    const head = bytes
      .subarray(0, -33)
      .toString()
      .match(/^(.*):([0-9A-F]+)$/);
    if (bytes.length < 35 || head === null || this.#secret() === undefined) return undefined;
    const [plain, name, time] = [head[0], head[1] as string, Number.parseInt(head[2] as string, 16)];
    if (Date.now() / 1000 - time > this.#timeoutSeconds()) return undefined;
    const credentials = await this.#credentials(name);
    if (credentials === undefined) return undefined;
    if (!timingSafeEqual(this.#sign(plain, credentials.salt), bytes.subarray(-32))) return undefined;
    return { name, roles: credentials.roles, by: 'cookie' };
  }

  /**
   * An administrator is looked up in `_users` as well, at each request: so with a copy behind a cut it takes until that
   * is noticed.
   */
  async #credentials(name: string): Promise<Credentials | undefined> {
    const doc = await this.#userDoc(name);
    const admin = this.#settings.get('admins', name)?.match(/^-pbkdf2(?::(\w+))?-([0-9a-f]+),([^,]+),(\d+)$/);
    if (admin !== null && admin !== undefined) {
      const [, digest = 'sha1', key, salt, iterations] = admin;
      return {
        name,
        roles: ['_admin', ...rolesOf(doc)],
        key: key as string,
        salt: salt as string,
        iterations: Number(iterations),
        digest,
      };
    }
    if (doc === undefined || typeof doc.derived_key !== 'string') return undefined;
    const { derived_key: key, salt, iterations, pbkdf2_prf: digest = 'sha1' } = doc;
    return {
      name,
      roles: rolesOf(doc),
      key,
      salt: salt as string,
      iterations: iterations as number,
      digest: digest as string,
    };
  }

  async #matches({ key, salt, iterations, digest }: Credentials, password: string): Promise<boolean> {
    const id = `${key},${salt}`;
    if (this.#known.get(id) === password) return true;
    const derived = await derive(password, salt, iterations, key.length / 2, digest);
    const same = derived.toString('hex') === key;
    if (same) this.#known.set(id, password);
    return same;
  }

  #isLocked(key: string): boolean {
    if (this.#settings.get('chttpd_auth_lockout', 'mode') === 'off') return false;
    const failures = this.#failures.get(key);
    if (failures === undefined) return false;
    if (
      Date.now() - failures.since >
      this.#settings.number('chttpd_auth_lockout', 'max_lifetime', defaultLockedMs)
    ) {
      this.#failures.delete(key);
      return false;
    }
    return failures.count >= this.#settings.number('chttpd_auth_lockout', 'threshold', defaultThreshold);
  }

  #fail(key: string): void {
    const failures = this.#failures.get(key) ?? { count: 0, since: Date.now() };
    failures.count += 1;
    this.#failures.set(key, failures);
  }
}
