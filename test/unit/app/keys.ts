import { KeyRing } from '../../../src/app/accounts/keys.ts';

/** A ring of so many keys, always the same. */
export function ring(count = 1): KeyRing {
  return new KeyRing(
    Array.from({ length: count }, (_, at) => ({ id: `k${at + 1}`, secret: Buffer.alloc(32, at + 1) })),
  );
}
