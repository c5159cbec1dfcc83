import { Resolver } from 'node:dns/promises';
import { PORTS } from '../config/config.ts';
import type { Seed } from '../identity/state.ts';
import { inNetwork } from '../identity/names.ts';
import type { PeerId } from '../membership/types.ts';

/** Somewhere a member may listen. */
interface Place {
  readonly address: string;
  readonly port: number;
}

export interface SeedSearchOptions {
  /** `membership.seeds`: ADDRESS or ADDRESS:PORT. */
  readonly seeds: readonly string[];
  /** `membership.srv`: names of SRV records. */
  readonly srv: readonly string[];
  /** Where members listened when this node joined. */
  readonly joined: readonly Seed[];
  readonly own: Place;
  /** DNS can be forged: what it names is dialled inside of here only. */
  readonly privateNetwork: string;
}

interface SeedSearchDependencies {
  /** Whether no member is linked although there are others. */
  readonly alone: () => boolean;
  /** Dials, and rejects where nobody or no member listens. Whoever answers has to prove to be on the roster. */
  readonly find: (address: string, port: number) => Promise<PeerId>;
  readonly found: (peer: PeerId, where: string) => void;
  readonly note: (detail: { readonly where: string; readonly err: unknown }) => void;
  /** Monotonic. */
  readonly nowMs: () => number;
}

/** The membership machine dials the addresses that it knows first; a restart of all takes it a second or two. */
const PATIENCE_MS = 5000;
const PAUSE_MS = 15_000;
/** Of all sources together, in one round. */
const PLACES = 64;
const AT_ONCE = 8;
const SRV_RECORDS = 32;

/**
 * Further sources for coming back, for a node that reaches nobody where its roster and snapshot say: the seeds of the
 * configuration, DNS, and where members were when it joined. They need no trust: a peer that answers must prove a
 * PeerId of the roster, so a wrong or forged source costs a dial.
 */
export class SeedSearch {
  readonly #options: SeedSearchOptions;
  readonly #dependencies: SeedSearchDependencies;
  #aloneSinceMs: number | undefined;
  #nextMs = 0;
  #searching = false;

  constructor(options: SeedSearchOptions, dependencies: SeedSearchDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  /** To be called about once a second. */
  look(): void {
    const { alone, nowMs } = this.#dependencies;
    if (!alone()) {
      this.#aloneSinceMs = undefined;
      return;
    }
    const now = nowMs();
    this.#aloneSinceMs ??= now;
    if (this.#searching || now < this.#nextMs || now - this.#aloneSinceMs < PATIENCE_MS) return;
    this.#searching = true;
    void this.#search().finally(() => {
      this.#searching = false;
      this.#nextMs = nowMs() + PAUSE_MS;
    });
  }

  async #search(): Promise<void> {
    const { address, port } = this.#options.own;
    const all = [...this.#configured(), ...(await this.#resolved()), ...this.#options.joined];
    const places = new Map(all.map((place) => [`${place.address}:${place.port}`, place]));
    places.delete(`${address}:${port}`);
    const rest = [...places].slice(0, PLACES);
    while (rest.length > 0 && this.#dependencies.alone())
      await Promise.all(rest.splice(0, AT_ONCE).map(([where, place]) => this.#try(where, place)));
  }

  async #try(where: string, { address, port }: Place): Promise<void> {
    try {
      this.#dependencies.found(await this.#dependencies.find(address, port), where);
    } catch (err) {
      this.#dependencies.note({ where, err });
    }
  }

  #configured(): Place[] {
    return this.#options.seeds.flatMap((seed) => {
      const [address = '', port] = seed.split(':');
      const ports = port === undefined ? [PORTS.app.libp2p, PORTS.db.libp2p] : [Number(port)];
      return ports.map((each) => ({ address, port: each }));
    });
  }

  async #resolved(): Promise<Place[]> {
    return (await Promise.all(this.#options.srv.map((name) => this.#resolve(name)))).flat();
  }

  async #resolve(srv: string): Promise<Place[]> {
    const { privateNetwork } = this.#options;
    const resolver = new Resolver({ timeout: 2000, tries: 2 });
    try {
      const records = (await resolver.resolveSrv(srv)).slice(0, SRV_RECORDS);
      const places = await Promise.all(
        records.map(async ({ name, port }) => {
          const addresses = await resolver.resolve4(name).catch(() => []);
          return addresses.map((address) => ({ address, port }));
        }),
      );
      return places.flat().filter(({ address }) => inNetwork(address, privateNetwork));
    } catch (err) {
      this.#dependencies.note({ where: srv, err });
      return [];
    }
  }
}
