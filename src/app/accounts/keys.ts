import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';

/** One key of the ring: an id that travels with what it signed, and 32 bytes. */
export interface AppKey {
  readonly id: string;
  readonly secret: Buffer;
}

/**
 * The purposes of a key. Each purpose has its own derived key (HKDF, RFC 5869), so that a value signed for one purpose
 * is never valid for another.
 */
type Purpose = 'account-name' | 'mail-token' | 'session' | 'database-password' | 'pepper' | 'device';

/**
 * Keys shared by all app nodes, oldest first. Only the newest signs and verifies, since a node that was removed knows
 * the others. A password is checked with the key under which it was set; names always use the first key.
 */
export class KeyRing {
  #keys: readonly AppKey[] = [];
  readonly #derived = new Map<string, Buffer>();

  constructor(keys: readonly AppKey[]) {
    this.replace(keys);
  }

  /** After a node was removed, the ring has another key. @throws RangeError; nothing is changed */
  replace(keys: readonly AppKey[]): void {
    if (keys.length === 0) throw new RangeError('a key ring holds at least one key');
    if (new Set(keys.map(({ id }) => id)).size !== keys.length) throw new RangeError('key ids are unique');
    if (keys.some(({ secret }) => secret.length < 32)) throw new RangeError('a key has at least 32 bytes');
    this.#keys = keys;
    this.#derived.clear();
  }

  get newestId(): string {
    return (this.#keys.at(-1) as AppKey).id;
  }

  /** The newest key but this one, if there is any. */
  newestBut(id: string): string | undefined {
    return this.#keys.findLast((each) => each.id !== id)?.id;
  }

  has(id: string): boolean {
    return this.#keys.some((each) => each.id === id);
  }

  /** HMAC-SHA256 under the key for this purpose. @throws RangeError for an id that is not in the ring */
  mac(purpose: Purpose, text: string, id: string = this.newestId): Buffer {
    return createHmac('sha256', this.#keyFor(purpose, id)).update(text).digest();
  }

  /** For values that must never change, whatever keys are added later. */
  lastingMac(purpose: Purpose, text: string): Buffer {
    return this.mac(purpose, text, (this.#keys[0] as AppKey).id);
  }

  verifies(purpose: Purpose, text: string, mac: Buffer, id: string): boolean {
    if (id !== this.newestId) return false;
    const right = this.mac(purpose, text, id);
    return mac.length === right.length && timingSafeEqual(mac, right);
  }

  #keyFor(purpose: Purpose, id: string): Buffer {
    const name = `${id} ${purpose}`;
    const known = this.#derived.get(name);
    if (known !== undefined) return known;
    const key = this.#keys.find((each) => each.id === id);
    if (key === undefined) throw new RangeError(`no key ${id} in the ring`);
    const derived = Buffer.from(hkdfSync('sha256', key.secret, '', `bornemisza app 1 ${purpose}`, 32));
    this.#derived.set(name, derived);
    return derived;
  }
}
