import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Where Linux begins to take ports for connections and for who asks for any (`ip_local_port_range`). */
const FIRST_EPHEMERAL = 32_768;
/** More than one try in a row finds one taken on no machine that tests run on. */
const TRIES = 100;

/**
 * A port that nobody has on 127.0.0.1, for a program that must be told one. Not one that the kernel gives out: it would
 * give it to another test's connection before the program has it.
 *
 * @throws Error when none was found
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const port = randomInt(10_000, FIRST_EPHEMERAL);
    const server = createServer().listen(port, '127.0.0.1');
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!free) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
  throw new Error(`no free port on 127.0.0.1 in ${TRIES} tries`);
}
