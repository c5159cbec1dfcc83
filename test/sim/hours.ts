import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { type FalseDeath, measureCalm, type Trouble } from './measure.ts';

/**
 * Many hours of trouble, in pieces with a seed each, so that an interruption costs one piece and a death is replayed in
 * one.
 */
export interface HoursOptions {
  readonly nodes: number;
  readonly trouble: Trouble;
  readonly firstSeed: number;
  /** Simulated. The last piece is a whole one, too. */
  readonly hours: number;
  readonly pieceHours: number;
  /**
   * What was done is noted there after each piece, and taken up from there when nodes, trouble, seed and length of a
   * piece are the same.
   */
  readonly stateFile?: string;
  /** Told after each piece. */
  readonly progress?: (tally: Tally) => void;
}

export interface Tally {
  readonly pieces: number;
  readonly hours: number;
  readonly falseDeaths: readonly (FalseDeath & { readonly seed: number })[];
  readonly suspicions: number;
  readonly published: number;
  readonly events: number;
}

type Identity = Pick<HoursOptions, 'nodes' | 'trouble' | 'firstSeed' | 'pieceHours'>;

const NOTHING: Tally = { pieces: 0, hours: 0, falseDeaths: [], suspicions: 0, published: 0, events: 0 };

export function runHours(options: HoursOptions): Tally {
  const { nodes, trouble, firstSeed, hours, pieceHours, stateFile } = options;
  const identity: Identity = { nodes, trouble, firstSeed, pieceHours };
  const pieces = Math.ceil(hours / pieceHours);
  let tally = stateFile === undefined ? NOTHING : resume(stateFile, identity);
  while (tally.pieces < pieces) {
    const seed = firstSeed + tally.pieces;
    const calm = measureCalm(nodes, pieceHours, seed, trouble);
    tally = {
      pieces: tally.pieces + 1,
      hours: (tally.pieces + 1) * pieceHours,
      falseDeaths: [...tally.falseDeaths, ...calm.falseDeaths.map((death) => ({ seed, ...death }))],
      suspicions: tally.suspicions + calm.suspicions,
      published: tally.published + calm.published,
      events: tally.events + calm.events,
    };
    if (stateFile !== undefined) keep(stateFile, identity, tally);
    options.progress?.(tally);
  }
  return tally;
}

function resume(file: string, identity: Identity): Tally {
  let kept: { readonly identity: Identity; readonly tally: Tally };
  try {
    kept = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return NOTHING;
    throw error;
  }
  return JSON.stringify(kept.identity) === JSON.stringify(identity) ? kept.tally : NOTHING;
}

function keep(file: string, identity: Identity, tally: Tally): void {
  writeFileSync(`${file}.new`, `${JSON.stringify({ identity, tally }, undefined, 2)}\n`);
  renameSync(`${file}.new`, file);
}
