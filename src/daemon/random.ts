import { randomBytes, randomInt } from 'node:crypto';

/**
 * 16 bytes in hex that distinguish two runs of one program. The time comes first, so that of two holders of one key the
 * one that started later has the higher id and ends.
 *
 * @param wallMs of the start, ms since the epoch
 */
export function newStartId(wallMs: number): string {
  const id = randomBytes(16);
  id.writeUIntBE(Math.floor(wallMs), 0, 6);
  return id.toString('hex');
}

/** Seed of the pure machine's own generator. */
export function newSeed(): number {
  return randomInt(2 ** 32);
}

/** Spreads `valueMs` by ± `share`, so that nodes that started together do not act together. */
export function jittered(valueMs: number, share: number, random: () => number = Math.random): number {
  return valueMs * (1 + (random() * 2 - 1) * share);
}
