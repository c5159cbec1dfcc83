import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** The founder's files beside ROLE.toml, in services.d and haproxy.d, before they are read as TOML or HAProxy's. */
export type Entry = { readonly file: string } & (
  | { readonly text: string }
  /** Not a file of this kind: an editor's lock, a directory, a dangling link. It is ignored. */
  | { readonly strange: string }
  /** A file of this kind that cannot be read. */
  | { readonly unreadable: string; readonly next: string }
);

/** A page of HAProxy's has room for it and its headers in one buffer of 16 KiB. */
const MAX_PAGE_BYTES = 15_360;

interface Kind {
  /** End of the names of its files. */
  readonly ending: '.toml' | '.cfg';
  /** Only root's own files that nobody else can write, and no links. */
  readonly guarded: boolean;
}

const SERVICES: Kind = { ending: '.toml', guarded: false };
export const SNIPPETS: Kind = { ending: '.cfg', guarded: true };

/** A service has a dozen keys. A larger file is something else, and would be read into memory at each reload. */
const MAX_FILE_BYTES = 65_536;

/**
 * Reads every file of this kind in the directory, sorted by name. A missing directory is an empty one.
 *
 * @throws NodeJS.ErrnoException where the directory cannot be listed
 */
export async function readDirectory(directory: string, kind: Kind = SERVICES): Promise<Entry[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const wanted = names.filter((name) => name.endsWith(kind.ending)).sort();
  return await Promise.all(wanted.map((name) => readEntry(join(directory, name), name, kind)));
}

/**
 * The founder's page for errors. Only root's own: who could put a link in its place could publish what the daemon can
 * read.
 *
 * @returns why it cannot be used, with the next step
 */
export async function readPage(
  file: string,
): Promise<{ readonly text: string } | { readonly why: string; readonly next: string }> {
  const mended = 'correct it, then `bornemisza reload`';
  try {
    const read = await readRegular(file, { guarded: true }, MAX_PAGE_BYTES);
    if ('strange' in read) return { why: `is ${read.strange}`, next: mended };
    if ('unreadable' in read)
      return { why: read.unreadable, next: `${read.next}, then \`bornemisza reload\`` };
    if (!/^\uFEFF?\s*</.test(read.text) || read.text.includes('\0'))
      return { why: 'is no HTML', next: mended };
    return read;
  } catch (error) {
    const { code = 'unknown' } = error as NodeJS.ErrnoException;
    if (code === 'ELOOP') return { why: 'is a symbolic link', next: 'name the file itself' };
    return { why: `cannot be read: ${code}`, next: `chown root:bornemisza ${file} && chmod 640 ${file}` };
  }
}

/** In HAProxy's file and in a header, both without quotes. Shorter ones can be guessed over the network. */
const PASSWORD = /^[\w.~+/=-]{12,128}$/;

/** A file with a password and nothing else. @returns why it cannot be used, with the next step */
export async function readPassword(
  file: string,
): Promise<{ readonly text: string } | { readonly why: string; readonly next: string }> {
  const mend = `chown root:bornemisza ${file} && chmod 640 ${file}`;
  try {
    const read = await readRegular(file, { guarded: true }, 1024);
    if ('strange' in read)
      return { why: `is ${read.strange}`, next: 'name another file, then `bornemisza reload`' };
    if ('unreadable' in read)
      return { why: read.unreadable, next: `${read.next}, then \`bornemisza reload\`` };
    const text = read.text.replace(/\r?\n$/, '');
    return PASSWORD.test(text)
      ? { text }
      : {
          why: 'is not 12 to 128 letters, digits and . _ ~ + / = -',
          next: `openssl rand -hex 16 >${file}, then \`bornemisza reload\``,
        };
  } catch (error) {
    return { why: `cannot be read: ${(error as NodeJS.ErrnoException).code ?? 'unknown'}`, next: mend };
  }
}

async function readEntry(file: string, name: string, kind: Kind): Promise<Entry> {
  // Emacs locks with `.#shop.toml`, a link to nowhere; other editors and rsync write dot files before they rename.
  if (/^[.#]/.test(name)) return { file, strange: 'an editor’s or a hidden file' };
  try {
    return { file, ...(await readRegular(file, kind)) };
  } catch (error) {
    const { code = 'unknown' } = error as NodeJS.ErrnoException;
    if (code === 'ELOOP' && kind.guarded)
      return { file, unreadable: 'it is a symbolic link', next: 'put the file itself there' };
    if (code === 'ENOENT' || code === 'ELOOP') return { file, strange: 'a dangling link' };
    if (code === 'ENXIO') return { file, strange: 'a socket' };
    return { file, unreadable: code, next: `chown root:bornemisza ${file} && chmod 640 ${file}` };
  }
}

type Content = { text: string } | { strange: string } | { unreadable: string; next: string };

/** Opened without blocking: a FIFO would block the daemon until somebody writes into it. */
async function readRegular(
  file: string,
  { guarded }: Pick<Kind, 'guarded'>,
  mostBytes = MAX_FILE_BYTES,
): Promise<Content> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | (guarded ? constants.O_NOFOLLOW : 0);
  const handle = await open(file, flags);
  try {
    const facts = await handle.stat();
    if (facts.isDirectory()) return { strange: 'a directory' };
    if (!facts.isFile()) return { strange: 'no regular file' };
    if (guarded && !isRoots(facts))
      return {
        unreadable: 'another user than root can change it',
        next: `chown root:bornemisza ${file} && chmod 640 ${file}`,
      };
    const bytes = Buffer.alloc(mostBytes + 1);
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
    if (bytesRead > mostBytes)
      return { unreadable: `larger than ${mostBytes} bytes`, next: 'move it elsewhere, or correct it' };
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, bytesRead)) };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { unreadable: 'not UTF-8 text', next: `write it in UTF-8: iconv -f latin1 -t utf-8 ${file}` };
  } finally {
    await handle.close();
  }
}

/** Root's, or of the user of this process, where a cluster on the loopback runs without root. */
function isRoots({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean {
  return (uid === 0 || uid === process.geteuid?.()) && (mode & 0o022) === 0;
}
