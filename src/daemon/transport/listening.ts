import { createServer } from 'node:net';
import { socketCode, TransportError } from './errors.ts';

/** libp2p loses the reason why it cannot listen, so the address is tried before. */
export async function probeAddress(address: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const server = createServer();
  server.once('error', reject);
  server.listen({ host: address, port }, () => server.close(() => resolve()));
  try {
    await promise;
  } catch (error) {
    const where = `${address}:${port}`;
    const code = socketCode(error);
    if (code === 'EADDRINUSE')
      throw new TransportError('address-in-use', `another program listens on ${where}`, { cause: error });
    if (code === 'EADDRNOTAVAIL')
      throw new TransportError('address-not-here', `no device of this host has ${address}`, { cause: error });
    throw new TransportError(
      'failed',
      `cannot listen on ${where}: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}
