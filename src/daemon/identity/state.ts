import { constants, link, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { type WholeFile, wholeFile } from '../../host/whole-file.ts';
import { IdentityError } from './errors.ts';

/**
 * The state directory of a role instance, /var/lib/bornemisza/ROLE: 0700, every file 0600, every file written whole
 * (temporary file, fsync, rename). `cluster.json` is written last and makes the state complete; until then
 * `unfinished.json` marks the files as the rest of an interrupted init or join.
 */
export const FILES = {
  nodeKey: 'node.key',
  tlsKey: 'tls.key',
  chain: 'chain.pem',
  roots: 'roots.pem',
  cluster: 'cluster.json',
  roster: 'roster.json',
  secrets: 'secrets.json',
  site: 'site.json',
  authority: 'authority',
  unfinished: 'unfinished.json',
} as const;

/** A full roster takes 4 MiB at most; every other file is far smaller. */
const FILE_BYTES = 6 * 1024 * 1024;

const Seed = z.object({
  peerId: z.string().max(64),
  address: z.string().max(15),
  port: z.int().min(1).max(65_535),
});
/** Where a member listens for libp2p. */
export type Seed = Readonly<z.infer<typeof Seed>>;
/** More seeds than a joiner needs to find one that answers. */
export const Seeds = z.array(Seed).max(64);

const ClusterFile = z.object({
  version: z.literal(1),
  cluster: z.string().max(32),
  role: z.enum(['app', 'db']),
  host: z.string().max(63),
  address: z.string().max(15),
  peerId: z.string().max(64),
  founder: z.boolean(),
  firstOfRole: z.boolean(),
  seeds: Seeds,
});
export type ClusterFile = Readonly<z.infer<typeof ClusterFile>>;

const Unfinished = z.object({ version: z.literal(1), what: z.enum(['init', 'join']) });
type Unfinished = z.infer<typeof Unfinished>['what'];

type StateOf = 'empty' | 'unfinished' | 'complete';

/** @throws IdentityError `state-damaged` if there is a key, but neither file of an init or join */
export async function stateOf(stateDir: string): Promise<StateOf> {
  if (await exists(join(stateDir, FILES.cluster))) return 'complete';
  if (await exists(join(stateDir, FILES.unfinished))) return 'unfinished';
  if (!(await exists(join(stateDir, FILES.nodeKey)))) return 'empty';
  throw new IdentityError({
    code: 'state-damaged',
    message: `${join(stateDir, FILES.cluster)} is missing although this node has a key.`,
    next: 'Restore the file from a backup, or move the state aside and join again: "bornemisza join --reset -".',
  });
}

/**
 * Opens the directory for an init or a join: creates it, checks that it has no identity, and writes the mark.
 *
 * @returns the mark of an interrupted earlier run
 * @throws IdentityError `already-initialised` (init), `already-member` (join), `state-damaged`, `state-permissions`,
 * `disk-full`, `state-io`
 */
export async function beginState(stateDir: string, what: Unfinished): Promise<Unfinished | undefined> {
  await createDirectory(stateDir);
  await checkDirectory(stateDir);
  const state = await stateOf(stateDir);
  if (state === 'complete') throw await alreadyInitialised(stateDir, what);
  const mark = join(stateDir, FILES.unfinished);
  const before = state === 'unfinished' ? await unfinishedIn(mark) : undefined;
  await writeStateFile(mark, JSON.stringify({ version: 1, what }));
  return before;
}

/** A damaged mark still counts: the files beside it are discarded rather than used. */
async function unfinishedIn(mark: string): Promise<Unfinished> {
  try {
    return Unfinished.parse(JSON.parse(await readStateFile(mark))).what;
  } catch {
    return 'init';
  }
}

/** Commits: from here on the state is complete. */
export async function finishState(stateDir: string, cluster: ClusterFile): Promise<void> {
  await writeStateFile(join(stateDir, FILES.cluster), `${JSON.stringify(cluster, undefined, 2)}\n`);
  await rm(join(stateDir, FILES.unfinished), { force: true });
}

async function alreadyInitialised(stateDir: string, what: Unfinished): Promise<IdentityError> {
  const of = await readClusterFile(stateDir).then(
    (cluster) => `${cluster.host}/${cluster.role} of the cluster ${cluster.cluster}`,
    () => 'a member of a cluster',
  );
  return new IdentityError({
    code: what === 'init' ? 'already-initialised' : 'already-member',
    message: `This node is already ${of} (${stateDir}).`,
    next: 'Start it with systemctl, or leave that cluster first: "bornemisza leave", then "--reset".',
  });
}

/**
 * @throws IdentityError `not-initialised`, `state-unfinished`, `state-damaged`, `state-file-damaged`,
 *   `state-permissions`
 */
export async function readClusterFile(stateDir: string): Promise<ClusterFile> {
  const state = await stateOf(stateDir);
  if (state === 'empty') {
    throw new IdentityError({
      code: 'not-initialised',
      message: `This node belongs to no cluster yet (${stateDir}).`,
      next: 'Run "bornemisza init" on the first machine, "bornemisza join" on every other one.',
    });
  }
  if (state === 'unfinished') {
    throw new IdentityError({
      code: 'state-unfinished',
      message: `An init or join of this node was interrupted (${stateDir}).`,
      next: 'Run the same "bornemisza init" or "bornemisza join" again: it continues where it stopped.',
    });
  }
  await checkDirectory(stateDir);
  return readDecoded(join(stateDir, FILES.cluster), (text) => ClusterFile.parse(JSON.parse(text)));
}

/** Removes the files of an interrupted run. The directory and the mark stay. */
export async function clearState(stateDir: string): Promise<void> {
  const kept: string[] = [FILES.unfinished];
  for (const name of await readdir(stateDir)) {
    if (!kept.includes(name) && isOurs(name))
      await rm(join(stateDir, name), { recursive: true, force: true });
  }
}

/**
 * Moves the whole old identity and its state aside, so that this machine can join again. The audit trail stays, since
 * it belongs to the machine.
 *
 * @returns the directory that now has it
 */
export async function resetState(stateDir: string, nowMs: number): Promise<string> {
  await checkDirectory(stateDir);
  const aside = join(stateDir, `old-${new Date(nowMs).toISOString().replaceAll(':', '')}`);
  await createDirectory(aside);
  try {
    for (const name of await readdir(stateDir)) {
      if (isOurs(name) || isRemembered(name)) await rename(join(stateDir, name), join(aside, name));
    }
  } catch (error) {
    throw fileError(stateDir, error);
  }
  return aside;
}

/** Other rooms have files in the directory too (snapshot, audit): only our own are cleared or moved aside. */
function isOurs(name: string): boolean {
  const ours: string[] = Object.values(FILES);
  return ours.includes(name.replace(/\.(previous|damaged)$/, '')) || /^\..*\.tmp$/.test(name);
}

/**
 * Other rooms' files: that this identity has left, and its peers. The next identity would not start, or start with
 * them.
 */
function isRemembered(name: string): boolean {
  return /^(local\.json|members\.snapshot)(\.damaged)?$/.test(name);
}

/** A file that cannot be read is kept beside the new one. */
export async function setFileAside(path: string): Promise<void> {
  await rename(path, `${path}.damaged`).catch((error: unknown) => {
    throw fileError(path, error);
  });
}

/** Creates a directory with mode 0700. An existing one is unchanged. */
export async function createDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw fileError(path, error);
  }
}

/** @throws IdentityError `state-permissions` if others can read the directory or another user owns it */
async function checkDirectory(path: string): Promise<void> {
  const facts = await stat(path).catch((error: unknown) => {
    throw fileError(path, error);
  });
  if (!facts.isDirectory()) throw permissions(path, 'it is not a directory', `mv ${path} ${path}.old`);
  if ((facts.mode & 0o077) !== 0) throw permissions(path, 'other users can read it', `chmod 0700 ${path}`);
  // Also for root: the owner of the directory can put links into it.
  if (facts.uid !== process.getuid?.()) {
    throw permissions(path, "it is another user's", `chown -R bornemisza:bornemisza ${path}`);
  }
}

/**
 * Reads a whole small file. @throws IdentityError `state-file-missing`, `state-file-damaged`, `state-permissions`,
 * `state-io`
 */
export async function readStateFile(path: string): Promise<string> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    // Otherwise a FIFO in its place would block for ever.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw fileError(path, error);
  }
  try {
    const facts = await file.stat();
    if ((facts.mode & 0o077) !== 0) throw permissions(path, 'other users can read it', `chmod 0600 ${path}`);
    if (!facts.isFile() || facts.size > FILE_BYTES) throw damaged(path);
    return await file.readFile('utf8');
  } catch (error) {
    throw error instanceof IdentityError ? error : fileError(path, error);
  } finally {
    await file.close();
  }
}

/** Reads and decodes; any error of the decoder becomes one message that names the file. */
export async function readDecoded<T>(path: string, decode: (text: string) => T): Promise<T> {
  const text = await readStateFile(path);
  try {
    return decode(text);
  } catch {
    // No cause: a parser's message quotes the text, and the text may be a secret.
    throw damaged(path);
  }
}

/** {@link isOurs} recognises what a crash leaves by this suffix. */
const STATE_FILE = { mode: 0o600, suffix: '.tmp' } as const;

/**
 * Writes a file whole or not at all. 0600.
 *
 * @param keepPrevious keeps the replaced generation as `FILE.previous`; the first one is written to both
 * @throws IdentityError `disk-full` (worth retrying), `state-permissions`, `state-io`; the old file is untouched then
 */
export async function writeStateFile(path: string, content: string, keepPrevious = false): Promise<void> {
  let whole: WholeFile | undefined;
  try {
    whole = await wholeFile(path, content, STATE_FILE);
    if (keepPrevious && !(await keepGeneration(path))) await writeNewStateFile(`${path}.previous`, content);
    await whole.replace();
  } catch (error) {
    await whole?.discard().catch(() => undefined);
    throw fileError(path, error);
  }
}

/**
 * Writes a file only if there is none: of two writers at once, in one process or in two, one wins.
 *
 * @returns false if the file already exists
 */
export async function writeNewStateFile(path: string, content: string): Promise<boolean> {
  try {
    const whole = await wholeFile(path, content, STATE_FILE);
    return await whole.create();
  } catch (error) {
    throw fileError(path, error);
  }
}

/** @returns false if there was nothing to keep */
async function keepGeneration(path: string): Promise<boolean> {
  const previous = `${path}.previous`;
  await rm(previous, { force: true });
  try {
    await link(path, previous);
    return true;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return false;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return false;
    throw fileError(path, error);
  }
}

function isCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

export function damaged(path: string): IdentityError {
  return new IdentityError({
    code: 'state-file-damaged',
    message: `${path} is damaged or incomplete.`,
    next: 'Restore it from a backup, or move the state aside and join again: "bornemisza join --reset -".',
  });
}

function permissions(path: string, why: string, command: string): IdentityError {
  return new IdentityError({
    code: 'state-permissions',
    message: `${path} cannot be trusted: ${why}.`,
    next: `Run: ${command}`,
  });
}

/** An error of the file system as one message. */
export function fileError(path: string, error: unknown): IdentityError {
  if (error instanceof IdentityError) return error;
  if (isCode(error, 'ENOSPC', 'EDQUOT')) {
    const next = 'Free some space (df -h), then try again.';
    const message = `The disk is full: ${path} could not be written.`;
    return new IdentityError({ code: 'disk-full', message, next, retry: true, cause: error });
  }
  if (isCode(error, 'EMFILE', 'ENFILE')) {
    const next = 'See which files are open: lsof -u bornemisza. A restart of the unit closes them.';
    const message = `No file descriptor is left to open ${path}.`;
    return new IdentityError({ code: 'no-file-descriptors', message, next, retry: true, cause: error });
  }
  if (isCode(error, 'ENOENT')) {
    const next =
      'Restore it from a backup, or move the state aside and join again: "bornemisza join --reset -".';
    return new IdentityError({
      code: 'state-file-missing',
      message: `${path} is missing.`,
      next,
      cause: error,
    });
  }
  if (isCode(error, 'EROFS')) {
    const next = `Mount it writable: findmnt -T ${path}`;
    const message = `${path} is on a read-only file system.`;
    return new IdentityError({ code: 'file-system-read-only', message, next, retry: true, cause: error });
  }
  if (isCode(error, 'EACCES', 'EPERM')) {
    const next = 'Run the command as root, or check the permissions of the directory with ls -ld.';
    return new IdentityError({
      code: 'state-permissions',
      message: `${path} is not accessible.`,
      next,
      cause: error,
    });
  }
  const reason = error instanceof Error ? error.message : 'unknown reason';
  const next = 'Check the disk (dmesg, journalctl -k), then try again.';
  return new IdentityError({
    code: 'state-io',
    message: `${path} could not be used: ${reason}.`,
    next,
    retry: true,
    cause: error,
  });
}
