import { link, readFile, rename, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PluginError } from '../plugins/contract.ts';
import { type WholeFile, wholeFile } from './whole-file.ts';

interface StageOptions {
  /** Permission bits. Default: an existing file keeps its own, a new one gets 0640. */
  readonly mode?: number;
  /** End of the staged file's name, for programs that judge a file by its name. */
  readonly suffix?: string;
}

interface CommitOptions {
  /** How many former versions are kept as `NAME.1` (newest) to `NAME.N`. Default 0. */
  readonly backups?: number;
}

/** A file that is complete and on disk under another name in the same directory. */
export interface Staged {
  readonly stagedPath: string;
  /** Puts it in its place in one step: a reader of the path sees either the old or the new file, whole. */
  commit(options?: CommitOptions): Promise<void>;
  discard(): Promise<void>;
}

/**
 * Writes `content` beside `path` and waits until it is on disk. The file at `path` is not touched.
 *
 * @throws PluginError see {@link fileError}; nothing remains
 */
export async function stageFile(
  path: string,
  content: string | Uint8Array,
  options: StageOptions = {},
): Promise<Staged> {
  let whole: WholeFile;
  try {
    const before = await stat(path).catch(ignoreAbsent);
    const mode = options.mode ?? (before === undefined ? 0o640 : before.mode & 0o7777);
    // Keep the former file's group rather than our own.
    whole = await wholeFile(path, content, { mode, gid: before?.gid, suffix: options.suffix ?? '.new' });
  } catch (error) {
    throw fileError(error, path);
  }
  return {
    stagedPath: whole.stagedPath,
    async commit({ backups = 0 }: CommitOptions = {}) {
      try {
        await keepBackups(path, backups);
        await whole.replace();
      } catch (error) {
        await whole.discard().catch(() => undefined);
        throw fileError(error, path);
      }
    },
    discard: () => whole.discard(),
  };
}

/**
 * Replaces a file in one step, or does nothing if it already has these bytes and this mode.
 *
 * @throws PluginError see {@link fileError}; the former file is whole in any case
 */
export async function replaceFile(
  path: string,
  content: string | Uint8Array,
  options: StageOptions & CommitOptions = {},
): Promise<'written' | 'unchanged'> {
  if (await holds(path, content, options.mode)) return 'unchanged';
  const staged = await stageFile(path, content, options);
  await staged.commit(options);
  return 'written';
}

/** The file's text, or undefined if there is none. Files larger than `maxBytes` (default 4 MiB) are refused. */
export async function readIfPresent(path: string, maxBytes = 4 * 1024 * 1024): Promise<string | undefined> {
  try {
    const { size } = await stat(path);
    if (size > maxBytes)
      throw new RangeError(`${path} has ${size} bytes, more than the ${maxBytes} that are read`);
    return await readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw fileError(error, path);
  }
}

/**
 * Like {@link readIfPresent}, for a file that only this process should write. If it may not be read, somebody else put
 * it there: it counts as missing and is replaced.
 */
export async function readIfOurs(path: string): Promise<string | undefined> {
  try {
    return await readIfPresent(path);
  } catch (error) {
    if (error instanceof PluginError && error.code === 'file-not-permitted') return undefined;
    throw error;
  }
}

/** Turns an error of the file system into a {@link PluginError} that names the cause and the next step. */
export function fileError(error: unknown, path: string): PluginError {
  if (error instanceof PluginError) return error;
  const directory = dirname(path);
  const code = codeOf(error);
  const facts = (() => {
    switch (code) {
      case 'ENOSPC':
      case 'EDQUOT':
        return {
          code: 'disk-full',
          message: `no space left to write ${path}`,
          next: `free space: df -h ${directory}`,
        };
      case 'EACCES':
      case 'EPERM':
        return {
          code: 'file-not-permitted',
          message: `not allowed to write ${path}`,
          next: `check owner and mode: ls -ld ${directory}`,
        };
      case 'EROFS':
        return {
          code: 'file-system-read-only',
          message: `${path} lies on a read-only file system`,
          next: `mount it writable: findmnt -T ${directory}`,
        };
      case 'EMFILE':
      case 'ENFILE':
        return {
          code: 'no-file-descriptors',
          message: `no file descriptor is left to open ${path}`,
          next: 'see which files are open: `lsof -u bornemisza`; a restart of the unit closes them',
        };
      case 'ENOENT':
      case 'ENOTDIR':
        return {
          code: 'directory-missing',
          message: `${directory} does not exist`,
          next: 'run `systemd-tmpfiles --create`, then `bornemisza doctor`',
        };
      default:
        return {
          code: 'file-write-failed',
          message: `cannot write ${path}: ${error instanceof Error ? error.message : String(error)}`,
          next: 'check for errors of the disk: `journalctl -k`',
        };
    }
  })();
  return new PluginError({ ...facts, outcome: 'retry', cause: error });
}

async function holds(path: string, content: string | Uint8Array, mode: number | undefined): Promise<boolean> {
  try {
    const facts = await stat(path);
    const wanted = Buffer.from(content);
    if (facts.size !== wanted.length || (mode !== undefined && (facts.mode & 0o7777) !== mode)) return false;
    return wanted.equals(await readFile(path));
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'EACCES') return false;
    throw fileError(error, path);
  }
}

/** Hard links, not copies: a backup needs no space, which the new file may have used up. */
async function keepBackups(path: string, count: number): Promise<void> {
  if (count < 1) return;
  for (let age = count; age > 1; age -= 1) {
    await rename(`${path}.${age - 1}`, `${path}.${age}`).catch(ignoreAbsent);
  }
  await unlink(`${path}.1`).catch(ignoreAbsent);
  // The kernel allows no link to a file that is not ours (protected_hardlinks), and such a file is no former version of
  // ours.
  await link(path, `${path}.1`).catch((error: unknown) => {
    if (codeOf(error) !== 'EPERM') ignoreAbsent(error);
  });
}

function ignoreAbsent(error: unknown): undefined {
  if (codeOf(error) !== 'ENOENT') throw error;
  return undefined;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
