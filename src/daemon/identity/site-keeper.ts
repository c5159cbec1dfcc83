import type { PeerId } from '../membership/types.ts';
import type { ExchangeDependencies } from './exchange.ts';
import { decodeSite, encodeSite, type Site, SITE_BYTES, type SiteStore } from './site.ts';
import { storageNext } from './storage.ts';

const SITE_PROTOCOL = '/bornemisza/site/1';
const LIMITS = { timeoutMs: 5000, maxBytes: SITE_BYTES };
/** A member whose bundle differs but brought nothing new is asked again: it may have been in the middle of a change. */
const ASK_AGAIN_MS = 5000;

/** A reachable app node, with the digest of its bundle; undefined: it has none. */
interface SitePeer {
  readonly peerId: PeerId;
  readonly name: string;
  readonly word: string | undefined;
}

interface SiteKeeperDependencies extends ExchangeDependencies {
  readonly store: SiteStore;
  /** Two nodes that merge the same two bundles get the same result. */
  readonly merged: (own: Site, other: Site) => Site;
  /** Undefined: this node has no bundle. */
  readonly peers: () => readonly SitePeer[] | undefined;
  readonly changed: (what: string) => void;
  /** All reachable app nodes have the same bundle now. */
  readonly shared: () => void;
  readonly nowMs: () => number;
}

/** Keeps the bundle equal on all app nodes: it asks a node that differs, and both get the same result. */
export class SiteKeeper {
  readonly #dependencies: SiteKeeperDependencies;
  readonly #asked = new Map<PeerId, { readonly words: string; readonly atMs: number }>();
  #looking = false;
  /** The members changed during a look. */
  #again = false;
  #differed = false;

  constructor(dependencies: SiteKeeperDependencies) {
    this.#dependencies = dependencies;
  }

  /** Over the same mutually authenticated stream as the secrets of role db. */
  serve(): void {
    const { transport, identity, store } = this.#dependencies;
    transport.handle(SITE_PROTOCOL, (from) => {
      const given = store.word !== '' && mayHave(identity.roster.get(from)?.role, from, store.get());
      return given ? encodeSite(store.get()) : new Uint8Array(0);
    });
  }

  get(): Site {
    return this.#dependencies.store.get();
  }

  async change(next: (now: Site) => Site): Promise<void> {
    const { store, changed } = this.#dependencies;
    if (await store.change(next)) changed('the order of the site’s certificate went on');
  }

  /** Names of reachable app nodes that have another bundle than this node. */
  differing(): string[] {
    const { store, peers } = this.#dependencies;
    return (peers() ?? [])
      .filter(({ word }) => word !== undefined && word !== store.word)
      .map(({ name }) => name);
  }

  /** When the members or the bundle changed, and once a second. Never throws. */
  async look(): Promise<void> {
    const { log, peers, shared } = this.#dependencies;
    const differs = this.differing().length > 0;
    if (this.#differed && !differs) shared();
    this.#differed = differs;
    this.#again = true;
    if (this.#looking) return;
    this.#looking = true;
    try {
      while (this.#again) {
        this.#again = false;
        // Side by side: one that does not answer must not delay the bundle of another.
        await Promise.all((peers() ?? []).map(({ peerId, word }) => this.#ask(peerId, word ?? '')));
      }
    } catch (error) {
      const next = `${storageNext(error)}; it is tried again by itself`;
      log.warn({ err: error, next }, 'the keys of the site’s certificate cannot be kept');
    } finally {
      this.#looking = false;
    }
  }

  async #ask(peer: PeerId, word: string): Promise<void> {
    const { store, transport, log, changed, merged, identity, nowMs } = this.#dependencies;
    if (word === '' || word === store.word || identity.roster.get(peer)?.role !== 'app') return;
    const words = `${word} ${store.word}`;
    const before = this.#asked.get(peer);
    if (before?.words === words && nowMs() - before.atMs < ASK_AGAIN_MS) return;
    this.#asked.set(peer, { words, atMs: nowMs() });
    const bytes = await transport
      .request(peer, SITE_PROTOCOL, new Uint8Array(0), LIMITS)
      .catch((error: unknown) => {
        log.debug({ err: error, peer }, 'asking an app node for the site’s certificate failed');
        return new Uint8Array(0);
      });
    if (bytes.length === 0) return;
    const site = decodeSite(bytes);
    if (await store.change((now) => merged(now, site))) changed('the site’s certificate arrived');
  }
}

/** Only app nodes; and no node whose removal caused new keys, even if its removal is not known here yet. */
export function mayHave(role: string | undefined, peer: PeerId, { without }: Pick<Site, 'without'>): boolean {
  return role === 'app' && !without.includes(peer);
}
