import { pbkdf2, randomBytes, randomInt } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import type { Role } from '../membership/types.ts';
import { IdentityError } from './errors.ts';
import { FILES, readDecoded, writeStateFile } from './state.ts';

/**
 * What the roles need to know and nobody types. Made by the first db node; later ones ask any db member. App nodes get
 * the credentials of the application and nothing else: above all never the Erlang cookie, which is code execution on
 * every db node.
 */

const Credentials = z.object({
  user: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  password: z.string().regex(/^[A-Za-z0-9]{24,64}$/),
});

const DbSecrets = z.object({
  version: z.literal(1),
  kind: z.literal('db'),
  /** Rises when cookie and auth secret are rolled. */
  generation: z.int().min(1),
  /** Erlang's cookie: letters and digits, so that it needs no quoting anywhere. */
  cookie: z.string().regex(/^[A-Za-z0-9]{40}$/),
  /** `[chttpd_auth] secret` of CouchDB, the same on every db node. */
  authSecret: z.string().regex(/^[0-9a-f]{64}$/),
  /** `hash` is what `[admins]` holds, salt included: CouchDB accepts another node's cookies only for the very same. */
  admin: Credentials.extend({ hash: z.string().regex(/^-pbkdf2:sha256-[0-9a-f]{64},[0-9a-f]{32},\d{1,7}$/) }),
  /** `[couchdb] uuid`. */
  clusterUuid: z.string().regex(/^[0-9a-f]{32}$/),
  app: Credentials,
});
const AppSecrets = z.object({
  version: z.literal(1),
  kind: z.literal('app'),
  generation: z.int().min(1),
  app: Credentials,
});
const Secrets = z.discriminatedUnion('kind', [DbSecrets, AppSecrets]);

export type DbSecrets = Readonly<z.infer<typeof DbSecrets>>;
export type AppSecrets = Readonly<z.infer<typeof AppSecrets>>;
export type Secrets = DbSecrets | AppSecrets;

const SECRETS_BYTES = 4096;
/** What CouchDB 3.4 and later use for their own hashes. */
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
  };
}

/** After the removal of a db node, which knows the old ones. */
export function rollSecrets(own: DbSecrets): DbSecrets {
  const authSecret = randomBytes(32).toString('hex');
  return { ...own, generation: own.generation + 1, cookie: letters(40), authSecret };
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
 * What a member may know, by the role in its certificate.
 *
 * @returns undefined when this node has nothing for it: ask another db member
 */
export function answerSecretsRequest(requester: Role, own: Secrets | undefined): Secrets | undefined {
  if (own?.kind !== 'db') return undefined;
  if (requester === 'db') return own;
  return { version: 1, kind: 'app', generation: own.generation, app: own.app };
}

export function encodeSecrets(secrets: Secrets): Uint8Array {
  return Buffer.from(JSON.stringify(secrets));
}

/** @throws IdentityError `secrets-malformed`; its message quotes nothing */
export function decodeSecrets(bytes: Uint8Array): Secrets {
  try {
    if (bytes.length <= SECRETS_BYTES) return Secrets.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch {
    // The parser's words would quote the secrets.
  }
  throw new IdentityError({
    code: 'secrets-malformed',
    message: "The role's secrets cannot be read.",
    next: 'Nothing was changed; see that both nodes run the same version of bornemisza.',
  });
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

  /** Keeps the higher generation. @returns whether they are new. @throws IdentityError `secrets-other-role` */
  async put(secrets: Secrets): Promise<boolean> {
    this.#fitting(secrets);
    if (this.#held !== undefined && secrets.generation <= this.#held.generation) return false;
    await writeStateFile(this.#path, `${JSON.stringify(secrets)}\n`);
    this.#held = secrets;
    return true;
  }

  #fitting(secrets: Secrets): Secrets {
    if (secrets.kind === this.#role) return secrets;
    throw new IdentityError({
      code: 'secrets-other-role',
      message: `Secrets of role ${secrets.kind} do not belong on a node of role ${this.#role}.`,
      next: 'Nothing was changed; look in the journal for the member that sent them.',
    });
  }
}
