import { announces, type Config } from '../config/config.ts';
import { OperatorError } from '../errors.ts';
import { isLocal } from '../health/probe.ts';
import type { Identity } from '../identity/identity.ts';
import { TransportError } from '../transport/errors.ts';

/** Reasons to refuse a start, or a reload of the configuration. */

/**
 * A configuration must match the machine and the cluster for which this node was admitted.
 *
 * @param file path of the configuration
 * @throws OperatorError `config-identity-differs`, `address-not-here`
 */
export function mustBeOfThisNode(
  { node, network }: Config,
  { name, host, address, cluster }: Identity,
  file: string,
): void {
  const differs = (what: string, has: string, says: string): OperatorError =>
    new OperatorError(
      'config-identity-differs',
      `${file} says ${what} ${says}, but ${name} was admitted with ${has}`,
      `correct ${file}, or leave the cluster and join again`,
    );
  if (node.host !== host) throw differs('host', host, node.host);
  if (node.cluster !== cluster) throw differs('cluster', cluster, node.cluster);
  if (network.private_address !== address) throw differs('private_address', address, network.private_address);
  if (!isLocal(address)) {
    throw new OperatorError(
      'address-not-here',
      `the private address ${address} is not on any device of this host that is up`,
      `bring the private network up (ip -br addr; expected on ${network.private_device}); systemd tries ` +
        'again',
    );
  }
}

/** Why the libp2p port cannot be opened, with the next step. The unit starts the daemon again by itself. */
export function listenRefused(error: unknown): unknown {
  if (!(error instanceof TransportError)) return error;
  const next =
    error.code === 'address-in-use'
      ? 'find it with `ss -ltnp` and stop it, or set network.libp2p_port; the daemon tries again'
      : 'see `ip -br addr`; the daemon tries again';
  return new OperatorError(error.code, error.message, next, { cause: error });
}

/** @throws OperatorError `reload-needs-restart` with the changed settings that are read only at the start */
export function mustBeReloadable(before: Config, after: Config): void {
  const differing = readAtStartOnly(before, after);
  if (differing.length === 0) return;
  throw new OperatorError(
    'reload-needs-restart',
    `${differing.join(', ')} changed, which is read only at the start`,
    `restart the daemon: systemctl restart bornemisza@${after.role} (HAProxy, BIRD and CouchDB keep running)`,
  );
}

/** What a running daemon cannot change: its identity, its addresses, and which programs it manages. */
function readAtStartOnly(before: Config, after: Config): string[] {
  const parts = (config: Config): Record<string, unknown> => ({
    '[node]': config.node,
    '[network]': config.network,
    '[membership]': config.membership,
    '[floating] mode': announces(config) || config.floating.mode,
    '[floating] device': config.floating.device,
    '[floating] of mode "api"': config.floating.mode === 'api' && { ...config.floating, addresses: [] },
    '[couchdb] http_port': config.couchdb.http_port,
    '[dns]': config.dns,
    '[certificates]': config.certificates,
    '[log]': config.log,
  });
  const [was, is] = [parts(before), parts(after)];
  return Object.keys(was).filter((key) => JSON.stringify(was[key]) !== JSON.stringify(is[key]));
}
