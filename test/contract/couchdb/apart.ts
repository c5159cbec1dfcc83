import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { inNamespace, ip, namespaceOf, spawnInside } from '../../lab/namespace.ts';
import { type ClaimedPlace, claimPlace } from '../../lab/place.ts';
import { must } from '../../lab/process.ts';
import { until } from '../../support/until.ts';

/** As many nodes as the recorded cluster had. */
const nodes = [1, 2, 3, 4];
const base = '10.77.0.';
/** Both ways, without a word to either side: behind a cut cable, but for the distribution only. */
const cutRules = (port: number): string => `table inet cut {
  chain in { type filter hook input priority 0; tcp dport ${port} drop; tcp sport ${port} drop; }
  chain out { type filter hook output priority 0; tcp dport ${port} drop; tcp sport ${port} drop; }
}
`;

/**
 * A network namespace for each node, joined by a bridge, so that a link can be cut while both ends run. Nothing of it
 * is reached from outside but through a unix socket for each node's HTTP. Needs root.
 */
export class Apart {
  readonly base = base;
  readonly #dir: string;
  readonly #place: ClaimedPlace;

  private constructor(dir: string, place: ClaimedPlace) {
    this.#dir = dir;
    this.#place = place;
  }

  static async create(dir: string, httpPort: number): Promise<Apart> {
    const apart = new Apart(dir, await claimPlace());
    try {
      await apart.#build(httpPort);
      return apart;
    } catch (error) {
      await apart.close();
      throw error;
    }
  }

  get #middle(): string {
    return namespaceOf(this.#place, 'middle');
  }

  get #all(): string[] {
    return [this.#middle, ...nodes.map((node) => this.#namespace(node))];
  }

  #namespace(node: number): string {
    return namespaceOf(this.#place, String(node));
  }

  async #build(httpPort: number): Promise<void> {
    await ip(
      undefined,
      this.#all.map((name) => `netns add ${name}`),
    );
    await ip(this.#middle, [
      'link set lo up',
      'link add wire type bridge',
      `addr add ${base}254/24 dev wire`,
      'link set wire up',
    ]);
    for (const node of nodes) {
      await ip(this.#middle, [
        `link add n${node} type veth peer name net netns ${this.#namespace(node)}`,
        `link set n${node} master wire up`,
      ]);
      await ip(this.#namespace(node), [
        'link set lo up',
        `addr add ${base}${node}/24 dev net`,
        'link set net up',
      ]);
    }
    const relay = join(import.meta.dirname, 'relay.ts');
    const targets = nodes.map((node) => `${this.socket(node)}=${base}${node}`);
    const argv = inNamespace(this.#middle, [process.execPath, relay, String(httpPort), ...targets]);
    spawnInside(this.#place.cgroup, argv, ['ignore', 'ignore', 'inherit']);
    for (const node of nodes)
      await until(() => access(this.socket(node)).then(() => true), { what: 'the relay to listen' });
  }

  /** Where the node's HTTP is heard from outside. */
  socket(node: number): string {
    return join(this.#dir, `n${node}.sock`);
  }

  inside(node: number, argv: readonly string[]): string[] {
    return inNamespace(this.#namespace(node), argv);
  }

  async cut(node: number, port: number): Promise<void> {
    await must(this.inside(node, ['nft', '-f', '-']), { stdin: cutRules(port) });
  }

  async heal(node: number): Promise<void> {
    await must(this.inside(node, ['nft', 'delete', 'table', 'inet', 'cut']));
  }

  /** The place goes with this process, however that ends; this is for one that goes on. */
  close(): Promise<void> {
    return this.#place.close();
  }
}
