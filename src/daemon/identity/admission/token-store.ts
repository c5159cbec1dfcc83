import { timingSafeEqual } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { PeerId, Role } from '../../membership/types.ts';
import { IdentityError } from '../errors.ts';
import { parseAddress, parsePort } from '../names.ts';
import { fileError, readDecoded, writeNewStateFile, writeStateFile } from '../state.ts';
import { TOKEN_LEAST_MS, TOKEN_MOST_MS } from './token-life.ts';
import { createToken, formatToken, storedKeyBehind, storedKeyOf } from './tokens.ts';

/**
 * The issuer's side of tokens: one file per token (a hash of its secret, no more) and one per token that was used. The
 * second is made with link(2), which succeeds once, whoever else tries: so two joins at once, even in two processes,
 * cannot both have the token. It holds the answer, so that a joiner whose answer was lost gets the same again.
 */

/** More than a founder ever adds machines at once. */
const LIVE_TOKENS = 64;
const MINUTE_MS = 60_000;
/** For so long after its end a token is answered as expired, not as unknown. */
const KEPT_MS = 24 * 60 * MINUTE_MS;
/** How long the door stays open for a joiner whose answer was lost. */
export const REPEAT_MS = 5 * MINUTE_MS;

const Issued = z.object({
  version: z.literal(1),
  role: z.enum(['app', 'db']),
  storedKey: z.string().regex(/^[0-9a-f]{64}$/),
  createdAtMs: z.int(),
  expiresAtMs: z.int(),
});
type Issued = z.infer<typeof Issued>;

const Claim = z.object({
  version: z.literal(1),
  usedAtMs: z.int(),
  peerId: z.string().max(64),
  /** SHA-256 over the joiner's signing request: the same node, the same keys. */
  request: z.string().regex(/^[0-9a-f]{64}$/),
  chainPem: z.string().max(16_384),
  firstOfRole: z.boolean(),
});
/** What the holder of a token was given for it. */
export type Claim = Readonly<Omit<z.infer<typeof Claim>, 'version'>>;

export interface TokenFacts {
  readonly id: string;
  readonly role: Role;
  readonly state: 'unused' | 'used' | 'expired';
  readonly expiresAtMs: number;
  readonly usedBy?: PeerId;
  readonly usedAtMs?: number;
}

/** A token whose secret was proved just now. */
export interface ProvedToken {
  readonly id: string;
  readonly role: Role;
  readonly expired: boolean;
}

/** What a token says of its issuer, whatever its address. */
export interface TokenIssuer {
  readonly peerId: PeerId;
  readonly cluster: string;
  /** SHA-256 of the root that the issuer's certificate hangs on, lower-case hex. */
  readonly rootFingerprint: string;
}

export class TokenStore {
  readonly #directory: string;
  readonly #issuer: TokenIssuer;

  /** @param directory holds the token files and nothing else; it exists */
  constructor(directory: string, issuer: TokenIssuer) {
    this.#directory = directory;
    this.#issuer = issuer;
  }

  /**
   * @param request `address` and `port` are where this issuer's admission listens
   * @returns the string to paste, shown once and kept nowhere
   * @throws IdentityError `token-ttl`, `token-too-many`, `disk-full` and the like
   */
  async create(request: {
    readonly role: Role;
    readonly ttlMs: number;
    readonly address: string;
    readonly port: number;
    readonly nowMs: number;
  }): Promise<{ readonly token: string; readonly id: string; readonly expiresAtMs: number }> {
    const { role, ttlMs, nowMs } = request;
    if (!(ttlMs >= TOKEN_LEAST_MS && ttlMs <= TOKEN_MOST_MS)) throw wrongTtl();
    if ((await this.#swept(nowMs)).length >= LIVE_TOKENS) throw tooMany();
    const { peerId, cluster, rootFingerprint } = this.#issuer;
    const token = createToken({
      cluster,
      issuer: { address: parseAddress(request.address), port: parsePort(request.port), peerId },
      rootFingerprint,
      role,
      expiresAtMs: Math.floor(nowMs + ttlMs),
    });
    const issued: Issued = {
      version: 1,
      role,
      storedKey: storedKeyOf(token),
      createdAtMs: Math.floor(nowMs),
      expiresAtMs: token.expiresAtMs,
    };
    await writeStateFile(this.#path(token.id, 'issued'), JSON.stringify(issued));
    return { token: formatToken(token), id: token.id, expiresAtMs: token.expiresAtMs };
  }

  async list(nowMs: number): Promise<TokenFacts[]> {
    const facts: TokenFacts[] = [];
    for (const id of await this.#ids()) {
      const issued = await this.#issued(id);
      if (issued === undefined) continue;
      const claim = await this.claimOf(id);
      const { role, expiresAtMs } = issued;
      if (claim !== undefined) {
        facts.push({ id, role, state: 'used', expiresAtMs, usedBy: claim.peerId, usedAtMs: claim.usedAtMs });
      } else {
        facts.push({ id, role, state: nowMs > expiresAtMs ? 'expired' : 'unused', expiresAtMs });
      }
    }
    return facts;
  }

  /** Until when the door must be open, in wall time; undefined when no token lives. */
  async openUntilMs(nowMs: number): Promise<number | undefined> {
    const ends = (await this.list(nowMs)).map((token) =>
      token.usedAtMs === undefined
        ? token.expiresAtMs
        : Math.min(token.expiresAtMs, token.usedAtMs + REPEAT_MS),
    );
    const last = Math.max(...ends, 0);
    return last > nowMs ? last : undefined;
  }

  /**
   * Compares in constant time. A wrong proof and an unknown token are the same to the asker.
   *
   * @returns undefined when the secret was not proved
   */
  async prove(
    id: string,
    proof: Uint8Array,
    exporter: Uint8Array,
    nowMs: number,
  ): Promise<ProvedToken | undefined> {
    const issued = /^[0-9a-f]{16}$/.test(id) ? await this.#issued(id) : undefined;
    const storedKey = Buffer.from(issued?.storedKey ?? '00'.repeat(32), 'hex');
    const fits = timingSafeEqual(storedKeyBehind(proof, storedKey, exporter), storedKey);
    return fits && issued !== undefined
      ? { id, role: issued.role, expired: nowMs > issued.expiresAtMs }
      : undefined;
  }

  /** @returns false when the token was used before: the first one has it, atomically and for good */
  claim(id: string, claim: Claim): Promise<boolean> {
    return writeNewStateFile(this.#path(id, 'used'), JSON.stringify({ version: 1, ...claim }));
  }

  async claimOf(id: string): Promise<Claim | undefined> {
    return this.#read(this.#path(id, 'used'), (text) => Claim.parse(JSON.parse(text)));
  }

  #issued(id: string): Promise<Issued | undefined> {
    return this.#read(this.#path(id, 'issued'), (text) => Issued.parse(JSON.parse(text)));
  }

  /** A damaged token file is a token that does not work: another is made in a second. A claim's must not be overlooked. */
  async #read<T>(path: string, decode: (text: string) => T): Promise<T | undefined> {
    try {
      return await readDecoded(path, decode);
    } catch (error) {
      const code = error instanceof IdentityError ? error.code : '';
      if (code === 'state-file-missing' || (code === 'state-file-damaged' && path.endsWith('.issued.json'))) {
        return undefined;
      }
      throw error;
    }
  }

  async #ids(): Promise<string[]> {
    const names = await readdir(this.#directory).catch((error: unknown) => {
      throw fileError(this.#directory, error);
    });
    return names.flatMap((name) => /^([0-9a-f]{16})\.issued\.json$/.exec(name)?.[1] ?? []);
  }

  /** Forgets tokens that ended a day ago. @returns the ids of those that can still be used */
  async #swept(nowMs: number): Promise<string[]> {
    const live: string[] = [];
    for (const id of await this.#ids()) {
      const expiresAtMs = (await this.#issued(id))?.expiresAtMs ?? 0;
      if (nowMs > expiresAtMs + KEPT_MS) {
        await rm(this.#path(id, 'issued'), { force: true });
        await rm(this.#path(id, 'used'), { force: true });
      } else if (nowMs <= expiresAtMs && (await this.claimOf(id)) === undefined) {
        live.push(id);
      }
    }
    return live;
  }

  #path(id: string, what: 'issued' | 'used'): string {
    return join(this.#directory, `${id}.${what}.json`);
  }
}

function wrongTtl(): IdentityError {
  const message = 'A token lives from one minute to 24 hours.';
  return new IdentityError({ code: 'token-ttl', message, next: 'Give another --ttl, such as 1h.' });
}

function tooMany(): IdentityError {
  const message = `${LIVE_TOKENS} tokens are waiting to be used.`;
  return new IdentityError({
    code: 'token-too-many',
    message,
    next: 'Use one of them, or wait until they end.',
  });
}
