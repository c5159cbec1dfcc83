import { randomBytes } from 'node:crypto';
import { type FileHandle, link, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

interface WriteOptions {
  /** Permission bits; the umask does not apply. */
  readonly mode: number;
  /** Group of the file, if we may set it. Otherwise it has its directory's group (setgid) or ours. */
  readonly gid?: number | undefined;
  /** Suffix of the temporary name. Default `.new`. */
  readonly suffix?: string;
  /**
   * The temporary name is always the same, so that the next write replaces what a crash left. Only for a path with one
   * writer at a time. Default: a random name.
   */
  readonly oneWriter?: boolean;
  /** False if there is no disk to wait for, as in /run. Default true. */
  readonly durable?: boolean;
}

/** A file that is complete and on disk under another name in the same directory. */
export interface WholeFile {
  readonly stagedPath: string;
  /** Puts it in its place in one step: a reader of the path sees either the old or the new file, whole. */
  replace(): Promise<void>;
  /**
   * Puts it in its place only if nothing is there: of two writers at once one wins. @returns whether it was this one
   */
  create(): Promise<boolean>;
  discard(): Promise<void>;
}

/**
 * The one way to write a file whole or not at all: under another name, fsync, rename, fsync of the directory. The file
 * at `path` is not touched.
 *
 * @throws the error of the file system; nothing remains
 */
export async function wholeFile(
  path: string,
  content: string | Uint8Array,
  { mode, gid, suffix = '.new', oneWriter = false, durable = true }: WriteOptions,
): Promise<WholeFile> {
  const directory = dirname(path);
  const stagedPath = oneWriter
    ? `${path}${suffix}`
    : join(directory, `.${basename(path)}.${randomBytes(6).toString('hex')}${suffix}`);
  const discard = (): Promise<void> => rm(stagedPath, { force: true });
  const orDiscard = async <T>(step: () => Promise<T>): Promise<T> => {
    try {
      return await step();
    } catch (error) {
      await discard().catch(() => undefined);
      throw error;
    }
  };
  if (oneWriter) await discard();
  await orDiscard(() => write(stagedPath, content, { mode, gid, durable }));
  const settle = async (): Promise<void> => {
    // A rename is on disk only when the directory is.
    if (durable) await syncDirectory(directory);
  };
  return {
    stagedPath,
    discard,
    replace: () => orDiscard(() => rename(stagedPath, path).then(settle)),
    create: async () => {
      try {
        await link(stagedPath, path);
        await settle();
        return true;
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
        throw error;
      } finally {
        await discard().catch(() => undefined);
      }
    },
  };
}

/** {@link wholeFile} and its `replace` in one. */
export async function replaceWhole(
  path: string,
  content: string | Uint8Array,
  options: WriteOptions,
): Promise<void> {
  await (await wholeFile(path, content, options)).replace();
}

async function write(
  path: string,
  content: string | Uint8Array,
  { mode, gid, durable }: Pick<WriteOptions, 'mode' | 'gid' | 'durable'>,
): Promise<void> {
  // 'wx': a file that is already there under such a name is a trap, not ours.
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(content);
    if (gid !== undefined) await setGroup(file, gid);
    // After the group: chown clears setuid and setgid bits.
    await file.chmod(mode);
    if (durable === true) await file.sync();
  } finally {
    await file.close();
  }
}

async function setGroup(file: FileHandle, gid: number): Promise<void> {
  const { uid, gid: present } = await file.stat();
  if (present === gid) return;
  await file.chown(uid, gid).catch((error: unknown) => {
    if (!(error instanceof Error && 'code' in error && error.code === 'EPERM')) throw error;
  });
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
