import { pbkdf2 } from 'node:crypto';
import { promisify } from 'node:util';

/**
 * The form in which CouchDB 3.5 keeps an admin's password: PBKDF2-HMAC-SHA256, 600000 rounds, 32 bytes, with the salt's
 * text as salt. Every node must hold the very same hash, salt included, or sessions do not cross nodes.
 *
 * Takes about 0.2 s of a thread of libuv's pool; the event loop goes on.
 */
export async function adminHash(password: string, salt: string, rounds = 600_000): Promise<string> {
  const key = await promisify(pbkdf2)(password, salt, rounds, 32, 'sha256');
  return `-pbkdf2:sha256-${key.toString('hex')},${salt},${rounds}`;
}
