import { argon2, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import type { KeyRing } from '../accounts/keys.ts';

const derive = promisify(argon2);

/** OWASP's smallest recommended Argon2id: 19 MiB, 2 passes, 1 lane. About 30 ms of one core. */
const PARAMETERS = { parallelism: 1, tagLength: 32, memory: 19 * 1024, passes: 2 };
/** Two at once leave a core of a small machine for everything else. */
const AT_ONCE = 2;
/** Two at work and twenty that wait, at most 0.3 s on an idle machine: a flood is refused at once. */
const MAX_INSIDE = AT_ONCE + 20;
const FORM = /^\$b1\$([\w.-]{1,32})\$([0-9a-f]{32})\$([0-9a-f]{64})$/;

/** Too many passwords are being checked. */
export class BusyError extends Error {}

/** Hashes passwords of people, peppered by the app key, a bounded number at once. */
export class PasswordHashes {
  readonly #keys: KeyRing;
  #inside = 0;
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(keys: KeyRing) {
    this.#keys = keys;
  }

  /**
   * @param of names the account and its epoch: the salt follows from both, so two nodes that set the same password at
   * once write the same document
   * @throws BusyError
   */
  async hash(password: string, of: string): Promise<string> {
    const keyId = this.#keys.newestId;
    const salt = this.#keys.mac('pepper', `salt ${of}`, keyId).subarray(0, 16);
    const tag = await this.#inTurn(() => this.#bounded(() => this.#derive(password, salt, keyId)));
    return `$b1$${keyId}$${salt.toString('hex')}$${tag.toString('hex')}`;
  }

  /**
   * Takes the same time without a hash, so that the time does not show who has an account.
   *
   * @param find gets the stored hash; called after the request has its place: a flood does not reach the databases
   * @throws BusyError and what `find` throws
   */
  async verify(password: string, find: () => Promise<string | undefined>): Promise<boolean> {
    return this.#inTurn(async () => {
      const [, keyId, saltHex, tagHex] = FORM.exec((await find()) ?? '') ?? [];
      const known = keyId !== undefined && this.#keys.has(keyId);
      const salt = known ? Buffer.from(saltHex ?? '', 'hex') : Buffer.alloc(16);
      const withKey = known ? keyId : this.#keys.newestId;
      const tag = await this.#bounded(() => this.#derive(password, salt, withKey));
      return known && timingSafeEqual(tag, Buffer.from(tagHex ?? '', 'hex'));
    });
  }

  async #derive(password: string, nonce: Buffer, keyId: string): Promise<Buffer> {
    const secret = this.#keys.mac('pepper', 'pepper', keyId);
    return derive('argon2id', { ...PARAMETERS, message: password.normalize('NFC'), nonce, secret });
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#inside >= MAX_INSIDE) throw new BusyError('too many passwords are being checked');
    this.#inside += 1;
    try {
      return await work();
    } finally {
      this.#inside -= 1;
    }
  }

  async #bounded<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= AT_ONCE) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    try {
      return await work();
    } finally {
      // The next one gets the place directly.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}
