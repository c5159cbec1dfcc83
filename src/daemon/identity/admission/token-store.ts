import { timingSafeEqual } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import type { PeerId, Role } from '../../membership/types.ts';
import { IdentityError } from '../errors.ts';
import { parseAddress, parsePort } from '../names.ts';
import { fileError, readDecoded, writeNewStateFile, writeStateFile } from '../state.ts';
import { TOKEN_LEAST_MS, TOKEN_MOST_MS, TOKENS_MOST } from './token-life.ts';
import { createToken, formatToken, storedKeyBehind, storedKeyOf } from './tokens.ts';

/**
 * The issuer's side of tokens: one file per token (a hash of its secret, no more) and one per token that was used. The
 * second is created with link(2), which succeeds only once: so two joins at once, even in two processes, cannot both
 * use the token. It has the answer, so that a joiner whose answer was lost gets it again. A revocation uses the token
 * up in the same way, so that of a join and a revocation at once exactly one succeeds.
 */

const MINUTE_MS = 60_000;
/** How long after its end a token is reported as expired, not as unknown. */
const KEPT_MS = 24 * 60 * MINUTE_MS;
/** How long the listener stays open for a joiner whose answer was lost. */
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
/** The answer that the holder of a token got. */
export type Claim = Readonly<Omit<z.infer<typeof Claim>, 'version'>>;

/** Instead of a claim: the operator revoked the unused token. */
const Revocation = z.object({ version: z.literal(1), revokedAtMs: z.int() });
type Revocation = Readonly<Omit<z.infer<typeof Revocation>, 'version'>>;
const Used = z.union([Claim, Revocation]);

interface TokenFacts {
  readonly id: string;
  readonly role: Role;
  readonly state: 'unused' | 'used' | 'expired' | 'revoked';
  readonly createdAtMs: number;
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

interface TokensRequest {
  readonly role: Role;
  readonly ttlMs: number;
  readonly address: string;
  readonly port: number;
  readonly nowMs: number;
}

interface MadeToken {
  readonly token: string;
  readonly id: string;
  readonly expiresAtMs: number;
}

/** The issuer as named in a token, without its address. */
interface TokenIssuer {
  readonly peerId: PeerId;
  readonly cluster: string;
  /** SHA-256 of the root of the issuer's certificate, lower-case hex. */
  readonly rootFingerprint: string;
}

export class TokenStore {
  readonly #directory: string;
  readonly #issuer: TokenIssuer;
  /** One creation after another: two at once would both find free places. */
  #creating: Promise<unknown> = Promise.resolve();

  /** @param directory holds the token files and nothing else; it exists */
  constructor(directory: string, issuer: TokenIssuer) {
    this.#directory = directory;
    this.#issuer = issuer;
  }

  /**
   * @param request `address` and `port` are where this issuer's admission listens
   * @returns the string to paste, shown once and stored nowhere
   * @throws IdentityError `token-ttl`, `token-too-many`, `disk-full` and the like
   */
  async create(request: TokensRequest): Promise<MadeToken> {
    const [made] = await this.createMany(request, 1);
    if (made === undefined) throw new Error('one token was asked for');
    return made;
  }

  /** All or none. @throws IdentityError as {@link create} */
  createMany(request: TokensRequest, count: number): Promise<readonly MadeToken[]> {
    const turn = this.#creating.then(() => this.#createMany(request, count));
    this.#creating = turn.catch(() => undefined);
    return turn;
  }

  async #createMany(request: TokensRequest, count: number): Promise<readonly MadeToken[]> {
    const { ttlMs, nowMs } = request;
    if (!(ttlMs >= TOKEN_LEAST_MS && ttlMs <= TOKEN_MOST_MS)) throw wrongTtl();
    const open = (await this.#swept(nowMs)).length;
    if (open + count > TOKENS_MOST) throw tooMany(open, count);
    const made: MadeToken[] = [];
    try {
      while (made.length < count) made.push(await this.#createOne(request));
    } catch (error) {
      // The others are shown to nobody, so they must not admit anybody.
      for (const { id } of made) await rm(this.#path(id, 'issued'), { force: true });
      throw error;
    }
    return made;
  }

  async #createOne(request: TokensRequest): Promise<MadeToken> {
    const { role, ttlMs, nowMs } = request;
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
      const used = await this.claimOf(id);
      const { role, createdAtMs, expiresAtMs } = issued;
      const common = { id, role, createdAtMs, expiresAtMs };
      if (used === undefined) facts.push({ ...common, state: nowMs > expiresAtMs ? 'expired' : 'unused' });
      else if (isRevocation(used)) facts.push({ ...common, state: 'revoked' });
      else facts.push({ ...common, state: 'used', usedBy: used.peerId, usedAtMs: used.usedAtMs });
    }
    return facts;
  }

  /**
   * Revokes an unused token. It is used up as by a join, so that a joiner who proved it a moment ago is refused.
   *
   * @throws IdentityError `token-unknown`, `token-not-open`
   */
  async revoke(id: string, nowMs: number): Promise<Pick<TokenFacts, 'id' | 'role'>> {
    const known = (await this.list(nowMs)).find((token) => token.id === id);
    if (known === undefined) throw unknownToken(id);
    if (known.state !== 'unused') throw notOpen(id, known.state);
    const revocation = JSON.stringify({ version: 1, revokedAtMs: Math.floor(nowMs) });
    if (!(await writeNewStateFile(this.#path(id, 'used'), revocation))) throw notOpen(id, 'used');
    return known;
  }

  /** Until when the listener must be open, in wall time; undefined if no token is valid. */
  async openUntilMs(nowMs: number): Promise<number | undefined> {
    const ends = (await this.list(nowMs))
      .filter(({ state }) => state !== 'revoked')
      .map((token) =>
        token.usedAtMs === undefined
          ? token.expiresAtMs
          : Math.min(token.expiresAtMs, token.usedAtMs + REPEAT_MS),
      );
    const last = Math.max(...ends, 0);
    return last > nowMs ? last : undefined;
  }

  /**
   * Compares in constant time. The answer does not distinguish a wrong proof from an unknown token.
   *
   * @returns undefined if the secret was not proved
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

  /** @returns false if the token was used before; the first claim wins, atomically and for good */
  claim(id: string, claim: Claim): Promise<boolean> {
    return writeNewStateFile(this.#path(id, 'used'), JSON.stringify({ version: 1, ...claim }));
  }

  async claimOf(id: string): Promise<Claim | Revocation | undefined> {
    return this.#read(this.#path(id, 'used'), (text) => Used.parse(JSON.parse(text)));
  }

  #issued(id: string): Promise<Issued | undefined> {
    return this.#read(this.#path(id, 'issued'), (text) => Issued.parse(JSON.parse(text)));
  }

  /**
   * A damaged token file is a token that does not work: another takes a second to create. A damaged claim must not be
   * ignored.
   */
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

  /** Deletes tokens that ended a day ago. @returns the ids of usable tokens */
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
  const message = 'A token is valid for one minute to 24 hours.';
  return new IdentityError({ code: 'token-ttl', message, next: 'Pass another --ttl, such as 1h.' });
}

function tooMany(open: number, count: number): IdentityError {
  const message = `${open} tokens are open; ${count} more would exceed the limit of ${TOKENS_MOST}.`;
  return new IdentityError({
    code: 'token-too-many',
    message,
    next: 'Use them, or revoke them: bornemisza token list, then bornemisza token revoke ID or --all.',
  });
}

export function isRevocation(used: Claim | Revocation): used is Revocation {
  return 'revokedAtMs' in used;
}

function unknownToken(id: string): IdentityError {
  return new IdentityError({
    code: 'token-unknown',
    message: `This node did not create a token ${id.slice(0, 16)}.`,
    next: 'See its tokens: bornemisza token list. Each authority knows only its own tokens.',
  });
}

const NOT_OPEN: Readonly<Record<Exclude<TokenFacts['state'], 'unused'>, string>> = {
  used: 'was used: it admits no other node',
  expired: 'has expired: it admits no node',
  revoked: 'was already revoked',
};

function notOpen(id: string, state: keyof typeof NOT_OPEN): IdentityError {
  return new IdentityError({
    code: 'token-not-open',
    message: `Token ${id} ${NOT_OPEN[state]}.`,
    next:
      state === 'used'
        ? 'See who used it: bornemisza token list. To remove that node: bornemisza remove NODE.'
        : 'Nothing to do: no node can join with it.',
  });
}
