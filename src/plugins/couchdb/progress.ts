/** The progress of a join or a return, for people. Pure. */

export interface Amount {
  readonly done: number;
  readonly all: number;
}

export interface Progress {
  readonly databases: Amount;
  /** Of the checked copies; undefined: not checked yet. */
  readonly bytes?: Amount | undefined;
}

/** The progress at the begin of the wait. */
export interface Begun {
  readonly progress: Progress;
  readonly atMs: number;
}

/** A rate is meaningless before this time: CouchDB begins to copy within 5 s. */
const LEAST_MS = 5000;

/**
 * Bytes, rate and what is left, e.g. `, 1.2 of 4.0 GB, 35 MB a second, some 80 s left`; '' where nothing is known.
 * Bytes say more than databases, of which the largest may be the last.
 */
export function progressWords(now: Progress, begun: Begun | undefined, nowMs: number): string {
  const { bytes } = now;
  const size =
    bytes === undefined || bytes.all === 0 ? '' : `, ${bytesOf(bytes.done)} of ${bytesOf(bytes.all)}`;
  return `${size}${rateWords(now, begun, nowMs)}`;
}

function rateWords(now: Progress, begun: Begun | undefined, nowMs: number): string {
  if (begun === undefined || nowMs - begun.atMs < LEAST_MS) return '';
  const seconds = (nowMs - begun.atMs) / 1000;
  const { bytes } = now;
  const before = begun.progress.bytes;
  if (bytes !== undefined && before !== undefined && bytes.done > before.done) {
    const rate = (bytes.done - before.done) / seconds;
    return `, ${bytesOf(rate)} a second${leftWords((bytes.all - bytes.done) / rate)}`;
  }
  const rate = (now.databases.done - begun.progress.databases.done) / seconds;
  if (rate <= 0) return ', none more since it began';
  const left = (now.databases.all - now.databases.done) / rate;
  return `, ${rate < 10 ? rate.toFixed(1) : Math.round(rate)} a second${leftWords(left)}`;
}

function leftWords(seconds: number): string {
  if (seconds < 1) return '';
  return seconds < 120 ? `, some ${Math.ceil(seconds)} s left` : `, some ${Math.ceil(seconds / 60)} min left`;
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'] as const;

function bytesOf(bytes: number): string {
  const at = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  const value = bytes / 1000 ** at;
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[at]}`;
}
