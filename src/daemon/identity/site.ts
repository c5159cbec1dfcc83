import { createHash } from 'node:crypto';
import { join } from 'node:path';
import * as z from 'zod';
import type { Log } from '../process/log.ts';
import { IdentityError } from './errors.ts';
import { FILES, readDecoded, setFileAside, writeStateFile } from './state.ts';

/**
 * The keys and the certificate of the site, which all app nodes have and no db node ever gets: their content, and their
 * form on the wire and on disk. Other files decide which node orders, and which of two wins.
 */

const name = z.string().max(253);
/** The limit of a configuration and of our certificates. */
const names = z.array(name).min(1).max(20).readonly();
const url = z.string().max(2048);
/** A P-256 key has 241 characters, an RSA key of another make 3,300. */
const key = z.string().max(4096);
const ms = z.number().min(0).max(8.64e15);
const profile = z.string().max(64).optional();
const fingerprint = z.string().regex(/^[0-9a-f]{64}$/);

/** A TXT record of an open order: a SHA-256 in base64url. */
const answer = z.object({
  name: z
    .string()
    .max(253)
    .regex(/^_acme-challenge(\.[a-z0-9-]+)+$/),
  value: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
});

const Site = z.object({
  generation: z.int().min(0).max(999_999_999),
  account: z
    .object({ directory: url.optional(), key, nextKey: key.optional(), url: url.optional() })
    .optional(),
  current: z
    .object({
      names,
      profile,
      key,
      /** A chain of four certificates with many names has some 20 kB. */
      chain: z.string().max(65_536),
      fingerprint,
      directory: url.optional(),
      fromMs: ms,
      endMs: ms,
      revoked: z.boolean(),
    })
    .optional(),
  next: z
    .object({
      names,
      profile,
      key,
      url: url.optional(),
      sinceMs: ms,
      answers: z.array(answer).max(20).readonly().optional(),
    })
    .optional(),
  renewal: z.object({ fingerprint, atMs: ms }).optional(),
  notBeforeMs: ms,
  /** A leaf with many names has some 5 kB. */
  exposed: z
    .array(
      z.object({
        ...{ fingerprint, leaf: z.string().max(16_384), directory: url.optional(), endMs: ms },
        ...{ reason: z.int().min(0).max(10).optional(), now: z.boolean().optional() },
      }),
    )
    .max(4)
    .readonly()
    .optional(),
  asked: z.object({ fingerprint: fingerprint.optional(), atMs: ms, force: z.boolean() }).optional(),
  recent: z
    .array(
      z.object({
        atMs: ms,
        names: z.string().max(1100),
        outcome: z.enum(['finalized', 'issued', 'refused', 'failed']),
      }),
    )
    .max(64)
    .readonly(),
  /** More removals of app nodes than a cluster sees in its life. */
  without: z.array(z.string().max(64)).max(1000).readonly(),
});
export type Site = Readonly<z.infer<typeof Site>>;

/** 64 outcomes of a thousand characters, a chain, three keys and a thousand removed nodes. */
export const SITE_BYTES = 256 * 1024;

export function encodeSite(site: Site): Uint8Array {
  return Buffer.from(JSON.stringify(site));
}

/** @throws IdentityError `site-malformed`; its message quotes nothing */
export function decodeSite(bytes: Uint8Array): Site {
  try {
    if (bytes.length <= SITE_BYTES) return Site.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch {
    // The parser's message would quote the keys.
  }
  throw new IdentityError({
    code: 'site-malformed',
    message: 'The keys of the site’s certificate cannot be read.',
    next: 'Check that all app nodes run the same version of bornemisza; nothing was changed.',
  });
}

/**
 * The tag of an app node's bundle in its record: equal tags mean equal bundles. 64 bits of a digest over keys of 256
 * random bits reveal nothing about them.
 */
export function siteWord(site: Site): string {
  const text = Buffer.from(encodeSite(decodeSite(encodeSite(site))));
  return `${site.generation}-${createHash('sha256').update(text).digest('hex').slice(0, 16)}`;
}

/** Unreadable keys block nothing else: the other app nodes have them. */
export async function openedSite(stateDir: string, empty: Site, log: Log): Promise<SiteStore> {
  const site = new SiteStore(stateDir, empty);
  const damaged = await site.load();
  if (damaged !== undefined) log.error({ code: damaged.code, next: damaged.next }, damaged.message);
  return site;
}

/** The bundle of this node, on disk 0600. Changes are applied one after another. */
export class SiteStore {
  readonly #path: string;
  readonly #empty: Site;
  #held: Site;
  #word: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(stateDir: string, empty: Site) {
    this.#path = join(stateDir, FILES.site);
    this.#empty = empty;
    this.#held = empty;
    this.#word = siteWord(empty);
  }

  /**
   * A file that cannot be read is renamed, so that nothing overwrites it: the other app nodes have the same bundle.
   *
   * @returns its problem; undefined: none
   */
  async load(): Promise<IdentityError | undefined> {
    try {
      this.#take(await readDecoded(this.#path, (text) => decodeSite(Buffer.from(text))));
      return undefined;
    } catch (error) {
      if (!(error instanceof IdentityError)) throw error;
      if (error.code === 'state-file-missing') return undefined;
      if (error.code !== 'state-file-damaged') return error;
      await setFileAside(this.#path);
      return new IdentityError({
        code: 'site-file-damaged',
        message: `${this.#path} is damaged or cut short: the keys of the site's certificate are not read from it.`,
        next:
          'If another app node runs, wait: this node gets them from there. Else one certificate is ordered ' +
          `again. The damaged file is kept as ${this.#path}.damaged.`,
      });
    }
  }

  get(): Site {
    return this.#held;
  }

  /** See {@link siteWord}; '' while there is no bundle. */
  get word(): string {
    return this.#held === this.#empty ? '' : this.#word;
  }

  /**
   * It is on disk before it is used. @returns whether something changed
   *
   * @throws IdentityError `disk-full` and others, see state.ts; what was held stays
   */
  change(next: (now: Site) => Site): Promise<boolean> {
    const done = this.#after(this.#last, next);
    this.#last = done.catch(() => undefined);
    return done;
  }

  async #after(last: Promise<unknown>, next: (now: Site) => Site): Promise<boolean> {
    await last;
    const site = next(this.#held);
    const word = siteWord(site);
    if (word === this.#word) return false;
    await writeStateFile(this.#path, `${JSON.stringify(site)}\n`);
    this.#take(site, word);
    return true;
  }

  #take(site: Site, word = siteWord(site)): void {
    this.#held = site;
    this.#word = word;
  }
}
