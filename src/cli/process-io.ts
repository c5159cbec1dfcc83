import { hostname, networkInterfaces } from 'node:os';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import type { WriteStream } from 'node:tty';
import { hasNextStep } from '../daemon/errors.ts';
import type { Host, Io, Output, Ran, RunLimits } from './io.ts';
import { withPipe } from './own-domain.ts';

/** Tables stay readable on the narrowest terminal that people use, and are not too wide on the widest. */
const MIN_COLUMNS = 60;
const MAX_COLUMNS = 100;
const PROGRAM_TIMEOUT_MS = 20_000;

/** The real surroundings of the command. */
export function processIo(startDaemon: Io['startDaemon']): Io {
  return {
    stdout: output(process.stdout, process.env),
    stderr: output(process.stderr, process.env),
    stdin: process.stdin,
    ...(process.stdin.isTTY && { typed: openTerminal, keys: readKeys }),
    terminal: process.stdout.isTTY,
    host: thisHost(),
    startDaemon,
  };
}

/** One reader for all questions: lines that are pasted at once would be lost between two of them. */
function openTerminal(): ReturnType<NonNullable<Io['typed']>> {
  let silent = false;
  const echo = new Writable({
    write: (chunk: Uint8Array, _encoding, done) => {
      if (!silent) process.stderr.write(chunk);
      done();
    },
  });
  const reader = createInterface({ input: process.stdin, output: echo, terminal: true, historySize: 0 });
  reader.on('SIGINT', () => reader.close());
  const lines = reader[Symbol.asyncIterator]();
  return {
    line: async (prompt, hidden) => {
      process.stderr.write(prompt);
      silent = hidden;
      const { value, done } = await lines.next();
      if (hidden) process.stderr.write('\n');
      silent = false;
      return done === true ? undefined : value;
    },
    close: () => reader.close(),
  };
}

function readKeys(pressed: (key: string) => void): () => void {
  const { stdin } = process;
  const take = (chunk: string | Uint8Array): void => pressed(chunk.toString());
  stdin.setRawMode(true).resume();
  stdin.on('data', take);
  return () => {
    stdin.off('data', take);
    stdin.setRawMode(false).pause();
  };
}

/** Colours only on a terminal, and not where https://no-color.org says no. */
function wantsColour(isTerminal: boolean, environment: NodeJS.ProcessEnv): boolean {
  return isTerminal && (environment['NO_COLOR'] ?? '') === '' && environment['TERM'] !== 'dumb';
}

/**
 * A reader that ends early (`bornemisza init … | head -3`) must not end the command half way through a set-up. The
 * rest of the output is dropped. That is no error; a full disk is one.
 */
function output(stream: WriteStream, environment: NodeJS.ProcessEnv): Output {
  let gone = false;
  stream.on('error', (error: NodeJS.ErrnoException) => {
    gone = true;
    if (error.code !== 'EPIPE') process.exitCode ||= 1;
  });
  return {
    write: (text) => {
      if (!gone) stream.write(text);
    },
    get gone() {
      return gone;
    },
    colour: wantsColour(stream.isTTY, environment),
    get columns() {
      return stream.isTTY ? Math.min(MAX_COLUMNS, Math.max(MIN_COLUMNS, stream.columns)) : MAX_COLUMNS;
    },
    get rows() {
      return stream.isTTY ? stream.rows : Number.POSITIVE_INFINITY;
    },
  };
}

export function thisHost(): Host {
  return {
    hostname,
    interfaces: networkInterfaces,
    get uid() {
      return process.geteuid?.() ?? -1;
    },
    sudoUser: /^[\w.-]+$/.exec(process.env['SUDO_USER'] ?? '')?.[0],
    run: runProgram,
    again: callAgain,
    becomeDaemon,
  };
}

async function becomeDaemon(): Promise<void> {
  if (process.geteuid?.() !== 0) return;
  const { becomeForGood, daemonGroups, readAccounts } = await import('../host/account.ts');
  const accounts = await readAccounts();
  const ids = accounts.users.get('bornemisza');
  if (ids !== undefined) becomeForGood(ids, daemonGroups(accounts));
}

async function callAgain(args: readonly string[]): Promise<number> {
  const { spawn } = await import('node:child_process');
  const own = [...process.execArgv, process.argv[1] ?? ''];
  const child = spawn(process.execPath, [...own, ...args], { stdio: 'inherit' });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

async function runProgram(
  program: string,
  args: readonly string[],
  { timeoutMs = PROGRAM_TIMEOUT_MS, input }: RunLimits = {},
): Promise<Ran> {
  const { runCommand } = await import('../host/command.ts');
  const [file, given] = withPipe(program, args);
  try {
    const ran = await runCommand(file, given, { timeoutMs, ...(input === undefined ? {} : { input }) });
    // What sh(1) says of a program that it does not find.
    if (file !== program && ran.code === NOT_FOUND) return notInstalled(program);
    return ran.code === -1 ? silent(`${program} was killed`, SEE_KERNEL) : ran;
  } catch (error) {
    if (!hasNextStep(error)) return silent(String(error), `run ${program} by hand`);
    if (error.code === 'command-missing') return notInstalled(program);
    // The shell between is not what the operator asked for.
    const of = (text: string): string => (file === program ? text : text.replace(/\bsh\b/g, program));
    return silent(of(error.message), of(error.next));
  }
}

const NOT_FOUND = 127;
const SEE_KERNEL = 'see who killed it: journalctl -k -n 50 (the kernel does so if no memory is left)';

const notInstalled = (program: string): Ran => ({
  code: -1,
  stdout: '',
  stderr: `${program} is not installed`,
});

const silent = (message: string, next: string): Ran => ({
  code: -1,
  stdout: '',
  stderr: message,
  silence: { message, next },
});
