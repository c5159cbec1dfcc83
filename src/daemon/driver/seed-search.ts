import { Resolver } from 'node:dns/promises';
import { PORTS } from '../config/config.ts';
import type { Seed } from '../identity/state.ts';
import { inNetwork } from '../identity/names.ts';
import type { PeerId } from '../membership/types.ts';

/** An address where a member may listen. */
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
  /** DNS can be forged: only addresses in this network are dialled. */
  readonly privateNetwork: string;
}

interface SeedSearchDependencies {
  /** Whether there are other members and none is linked. */
  readonly alone: () => boolean;
  /** Dials, and rejects if nobody or no member listens. The answering peer has to prove that it is on the roster. */
  readonly find: (address: string, port: number) => Promise<PeerId>;
  readonly found: (peer: PeerId, where: string) => void;
  readonly note: (detail: { readonly where: string; readonly err: unknown }) => void;
  /** Monotonic. */
  readonly nowMs: () => number;
}

/**
 * The membership machine first dials the addresses that it knows; after a restart of all nodes that takes a second or
 * two.
 */
const PATIENCE_MS = 5000;
const PAUSE_MS = 15_000;
/** The limit for all sources together, in one round. */
const PLACES = 64;
const AT_ONCE = 8;
const SRV_RECORDS = 32;

/**
 * Further addresses for a node that reaches nobody at the addresses of its roster and snapshot: the seeds of the
 * configuration, DNS, and the addresses of members when it joined. They need no trust: a peer that answers must prove a
 * PeerId of the roster, so a wrong or forged source costs one dial.
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

  /** Call it about once a second. */
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
