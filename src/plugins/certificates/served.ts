import { connect } from 'node:tls';
import type { Served } from './shape.ts';

/** Enough for a healthy edge. */
const TIMEOUT_MS = 2000;

interface Edge {
  readonly name: string;
  readonly address: string;
  readonly tlsPort: number;
}

/**
 * Asks each edge by the private network, as a browser would.
 *
 * @param site the name that it asks for
 */
export function servedAt(edges: readonly Edge[], site: string, signal: AbortSignal): Promise<Served[]> {
  return Promise.all(
    edges.map(async ({ name, address, tlsPort }) => ({
      name,
      sha256: await shown(address, tlsPort, site, signal),
    })),
  );
}

function shown(
  host: string,
  port: number,
  servername: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  // Any issuer is accepted here: it is compared with ours.
  const socket = connect({ host, port, servername, rejectUnauthorized: false, timeout: TIMEOUT_MS }, () => {
    resolve(socket.getPeerX509Certificate()?.fingerprint256.replaceAll(':', '').toLowerCase());
    socket.destroy();
  });
  const end = (): void => {
    resolve(undefined);
    socket.destroy();
  };
  const until = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  until.addEventListener('abort', end, { once: true });
  socket.on('timeout', end);
  socket.on('error', end);
  socket.on('close', () => until.removeEventListener('abort', end));
  return promise;
}
