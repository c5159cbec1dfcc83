import type { Config } from '../config/config.ts';
import type { PortLook } from '../control/api.ts';
import { probe } from '../health/probe.ts';
import type { Role } from '../membership/types.ts';

/** One SYN can be lost: the second follows after a second (RFC 6298). */
const LOOK_MS = 1500;
/** The port of epmd (IANA). */
const EPMD_PORT = 4369;

interface NamedPort {
  readonly port: number;
  /** The program that listens there. */
  readonly what: string;
}

/**
 * The ports of one node that another one uses, by their roles. All but the first are settings of the whole cluster, so
 * this node's own configuration has them.
 *
 * @param libp2pPort the port in the record of the node that is checked
 */
export function portsBetween(
  from: Role,
  to: Role,
  libp2pPort: number,
  { edge, couchdb }: Pick<Config, 'edge' | 'couchdb'>,
): NamedPort[] {
  const daemon = { port: libp2pPort, what: 'daemon' };
  if (to === 'app') return [daemon, ...(from === 'app' ? [{ port: edge.door_port, what: 'edge' }] : [])];
  if (from === 'app') return [daemon, { port: couchdb.door_port, what: 'database' }];
  return [
    daemon,
    { port: couchdb.peer_port, what: 'database' },
    { port: EPMD_PORT, what: 'epmd' },
    { port: couchdb.distribution_port, what: 'Erlang' },
  ];
}

/** Opens a connection to each and ends it. Never throws. */
export async function lookAt(address: string, ports: readonly NamedPort[]): Promise<PortLook[]> {
  return await Promise.all(
    ports.map(async ({ port, what }) => {
      const { passed, detail } = await probe({ kind: 'tcp', address, port }, LOOK_MS);
      return { port, what, open: passed, detail: passed ? '' : detail };
    }),
  );
}
