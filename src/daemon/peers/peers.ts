import type { AuditTrail } from '../audit/trail.ts';
import type { Clock } from '../clock.ts';
import { type Config, PORTS } from '../config/config.ts';
import type { ClusterAuditAnswer, MemberRow, PingAnswer } from '../control/api.ts';
import type { Driver } from '../driver/driver.ts';
import { OperatorError } from '../errors.ts';
import type { Identity } from '../identity/identity.ts';
import type { PeerId, Role } from '../membership/types.ts';
import type { Transport } from '../transport/transport.ts';
import { pingNode, servePing } from './ping.ts';
import { serveTrail, trailHere, trailOf, type TrailQuestion } from './trail.ts';

/** Nodes asked at once: an answer can have a quarter of a megabyte. */
const WIDTH = 8;

interface PeersDependencies {
  readonly clock: Pick<Clock, 'wallMs' | 'monotonicMs'>;
  readonly audit: Pick<AuditTrail, 'query'>;
  readonly transport: Pick<Transport, 'handle' | 'request' | 'connect'>;
  readonly driver: Pick<Driver, 'view'>;
  readonly node: { readonly config: Config; rows(): MemberRow[] };
}

/**
 * An operator's requests to other nodes through this one. Each request only reads: a member can make another one check
 * only the first member's own ports, and the work is bounded.
 */
export class Peers {
  readonly #identity: Pick<Identity, 'name' | 'roster'>;
  readonly #dependencies: PeersDependencies;

  constructor(identity: Pick<Identity, 'name' | 'roster'>, dependencies: PeersDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /** Answers members, from now on. */
  serve(): void {
    const { transport, audit, clock, node } = this.#dependencies;
    serveTrail(transport, audit);
    servePing({
      ...{ transport, clock, config: () => node.config },
      known: (peer) => {
        const member = this.#identity.roster.get(peer);
        return member === undefined ? undefined : { ...member, port: this.#portOf(peer, member.role) };
      },
    });
  }

  /** The trails of all nodes, this one's first. `missing` has the reason for one that is not available. */
  async trails(question: TrailQuestion): Promise<ClusterAuditAnswer> {
    const { audit, transport } = this.#dependencies;
    const own = { node: this.#identity.name, entries: trailHere(audit, question), missing: '' };
    const others = await inParallel(this.#others(), async ({ name: node, peerId, address, role, state }) => {
      try {
        await transport.connect(peerId, address, this.#portOf(peerId, role));
        return { node, entries: await trailOf(transport, peerId, question), missing: '' };
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        return { node, entries: [], missing: state === 'alive' ? why : `it is ${state}` };
      }
    });
    return { trails: [own, ...others] };
  }

  /**
   * @param name HOST/ROLE; undefined: all others that have not left
   * @throws OperatorError `member-unknown`, `ping-self`
   */
  async ping(name: string | undefined): Promise<PingAnswer> {
    const { node } = this.#dependencies;
    if (name === this.#identity.name) {
      const next = 'name another node, or none to ping all';
      throw new OperatorError('ping-self', `${name} is this node itself`, next);
    }
    const wanted = this.#others().filter((row) => name === undefined || row.name === name);
    if (name !== undefined && wanted.length === 0) {
      const next = 'list all nodes: bornemisza members';
      throw new OperatorError('member-unknown', `there is no node ${name} in this cluster`, next);
    }
    const nodes = await inParallel(wanted, (row) => {
      const port = this.#portOf(row.peerId, row.role);
      return pingNode(row, { ...this.#dependencies, config: node.config, port });
    });
    return { self: this.#identity.name, nodes };
  }

  #others(): MemberRow[] {
    return this.#dependencies.node.rows().filter(({ self, state }) => !self && state !== 'left');
  }

  /** The port in its record, otherwise the default of its role. */
  #portOf(peer: PeerId, role: Role): number {
    const { members } = this.#dependencies.driver.view;
    return members.find(({ record }) => record.peerId === peer)?.record.port ?? PORTS[role].libp2p;
  }
}

async function inParallel<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const queue = [...items.entries()];
  const run = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [at, item] = next;
      results[at] = await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(WIDTH, items.length) }, run));
  return results;
}
