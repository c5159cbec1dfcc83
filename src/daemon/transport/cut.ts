import type { Connection, MultiaddrConnection } from '@libp2p/interface';

/**
 * Ends a connection at once. libp2p's own abort first sends a goodbye to the muxer, throws if a close has begun, and
 * then leaves the socket to the kernel, which keeps a dead one for a quarter of an hour.
 */
export function cut(connection: Connection, error: Error): void {
  try {
    connection.abort(error);
  } catch {
    const { maConn } = connection as unknown as { maConn?: MultiaddrConnection };
    maConn?.abort(error);
  }
}
