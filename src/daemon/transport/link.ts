import type { Connection } from '@libp2p/interface';
import type { PeerId } from '../membership/types.ts';
import type { FramedStream } from './framed-stream.ts';

/**
 * Frames that wait for a neighbour that does not read: three whole syncs of 500 members. Beyond it new frames are
 * dropped and counted; probes then find the neighbour slow, and the next sync repairs what it missed.
 */
export const MAX_UNSENT_BYTES = 512 * 1024;

/** One admitted connection with its message stream. At most one per peer. */
export interface Link {
  readonly peer: PeerId;
  readonly connection: Connection;
  readonly frames: FramedStream;
  /** The other side's transport instance, the side that dialled, and the number of that dial. */
  readonly instance: string;
  readonly dialledBy: 'self' | 'peer';
  readonly dial: number;
  readonly sinceMs: number;
}
