import { createHash, timingSafeEqual } from 'node:crypto';
import { open } from 'node:fs/promises';
import { replaceWhole } from '../../host/whole-file.ts';
import type { Snapshot } from '../membership/types.ts';
import { MAX_SNAPSHOT_BYTES } from '../wire/limits.ts';
import { type Decoded, refused } from '../wire/result.ts';
import { decodeSnapshot, encodeSnapshot } from '../wire/snapshot.ts';

/** The type of the file; a SHA-256 of the rest follows. */
const MAGIC = Buffer.from('BMSNAP1\n');
const SHA256_BYTES = 32;
const HEADER_BYTES = MAGIC.byteLength + SHA256_BYTES;

/** Reads a snapshot. A missing file gives `undefined`, a damaged one a refusal. Never throws. */
export async function readSnapshot(path: string): Promise<Decoded<Snapshot> | undefined> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size > HEADER_BYTES + MAX_SNAPSHOT_BYTES) return refused('size', `a file of ${size} bytes`);
      return parse(await file.readFile());
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    return refused('malformed', error instanceof Error ? error.message : 'not readable');
  }
}

function parse(bytes: Buffer): Decoded<Snapshot> {
  if (bytes.byteLength < HEADER_BYTES || !bytes.subarray(0, MAGIC.byteLength).equals(MAGIC))
    return refused('malformed', 'not a snapshot, or cut short');
  const payload = bytes.subarray(HEADER_BYTES);
  if (!timingSafeEqual(sha256(payload), bytes.subarray(MAGIC.byteLength, HEADER_BYTES)))
    return refused('malformed', 'its checksum does not hold');
  return decodeSnapshot(payload);
}

/** Replaces the file as a whole: after a power cut it is either the old or the new one. */
async function writeSnapshot(path: string, snapshot: Snapshot): Promise<void> {
  const payload = encodeSnapshot(snapshot);
  const bytes = Buffer.concat([MAGIC, sha256(payload), payload]);
  await replaceWhole(path, bytes, { mode: 0o600, oneWriter: true });
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

interface SnapshotKeeperOptions {
  readonly path: string;
  /** Shortest time between two writes. */
  readonly everyMs: number;
  /** After a failed write (a full disk): the time until the next attempt. */
  readonly retryMs: number;
}

/** Writes the newest snapshot, seldom. Writes never overlap. */
export class SnapshotKeeper {
  readonly #options: SnapshotKeeperOptions;
  readonly #take: () => Snapshot;
  readonly #failed: (error: unknown) => void;
  #dirty = false;
  #closed = false;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #notBeforeMs = 0;
  writes = 0;

  constructor(
    options: SnapshotKeeperOptions,
    dependencies: { take: () => Snapshot; failed: (error: unknown) => void },
  ) {
    this.#options = options;
    this.#take = dependencies.take;
    this.#failed = dependencies.failed;
  }

  /** Something changed; it will be on the disk within `everyMs`. */
  touch(): void {
    this.#dirty = true;
    if (this.#timer !== undefined || this.#closed) return;
    const waitMs = Math.max(0, this.#notBeforeMs - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#write();
    }, waitMs).unref();
  }

  /** Writes pending changes. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#write();
  }

  async #write(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#writeOnce());
    await this.#writing;
  }

  async #writeOnce(): Promise<void> {
    if (!this.#dirty) return;
    this.#dirty = false;
    const { path, everyMs, retryMs } = this.#options;
    this.#notBeforeMs = performance.now() + everyMs;
    try {
      await writeSnapshot(path, this.#take());
      this.writes += 1;
    } catch (error) {
      this.#failed(error);
      this.#notBeforeMs = performance.now() + retryMs;
      this.touch();
    }
  }
}
