import { randomBytes, randomInt } from 'node:crypto';

/** 16 random bytes in hex: tells two runs of one program apart. */
export function newStartId(): string {
  return randomBytes(16).toString('hex');
}

/** Seed of the pure machine's own generator. */
export function newSeed(): number {
  return randomInt(2 ** 32);
}

/** Spreads `valueMs` by ± `share`, so that nodes that started together do not act together. */
export function jittered(valueMs: number, share: number, random: () => number = Math.random): number {
  return valueMs * (1 + (random() * 2 - 1) * share);
}
