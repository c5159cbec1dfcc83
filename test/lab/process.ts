import { spawn } from 'node:child_process';
import { isOver, pauseMs, slowness } from '../support/patience.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** How a program ended and what it printed. `code` is null when a signal ended it. */
export type Result = {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
};

export type RunOptions = {
  /** Written to standard input, which is then closed. Default: empty. */
  readonly stdin?: string | Uint8Array;
  /**
   * The program is killed after this time, on a busy machine later. Default 30 s: nothing the lab runs takes longer.
   */
  readonly timeoutMs?: number;
  /** The program's whole environment. Default: this process's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** Ends the program, for one that serves until its test is over; `run` then rejects with its reason. */
  readonly signal?: AbortSignal;
};

const RUN_TIMEOUT_MS = 30_000;

/** A program that the lab needs failed; `message` holds its command line and what it said. */
export class ProgramError extends Error {
  readonly code = 'LAB_PROGRAM';
  readonly result: Result;
  constructor(argv: readonly string[], result: Result) {
    const how = result.signal === null ? `exit code ${result.code}` : `signal ${result.signal}`;
    super(`${argv.join(' ')}: ${how}\n${result.stderr}${result.stdout}`.trimEnd());
    this.name = 'ProgramError';
    this.result = result;
  }
}

/** 16 MiB of output: a journal of a long test; beyond that a program is out of hand and is killed. */
const outputLimitBytes = 16 * 1024 * 1024;

/** Runs a program to its end. Rejects only when it cannot be started. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Result> {
  const { promise, resolve, reject } = Promise.withResolvers<Result>();
  const [program = '', ...rest] = argv;
  const start = options.signal === undefined ? spawn : spawnWithUs;
  const child = start(program, rest, {
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: Math.ceil((options.timeoutMs ?? RUN_TIMEOUT_MS) * slowness()),
    killSignal: 'SIGKILL',
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  let bytes = 0;
  const keep = (parts: Buffer[]) => (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > outputLimitBytes) child.kill('SIGKILL');
    else parts.push(chunk);
  };
  child.stdout.on('data', keep(stdout));
  child.stderr.on('data', keep(stderr));
  // A program may end without reading its input: its exit code tells, not EPIPE here.
  child.stdin.on('error', () => {});
  child.stdin.end(options.stdin ?? '');
  child.on('error', reject);
  child.on('close', (code, signal) => {
    resolve({
      code,
      signal,
      stdout: Buffer.concat(stdout).toString(),
      stderr: Buffer.concat(stderr).toString(),
    });
  });
  return promise;
}

/** Like `run`, and throws `ProgramError` unless the exit code is 0. Returns standard output. */
export async function must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await run(argv, options);
  if (result.code !== 0) throw new ProgramError(argv, result);
  return result.stdout;
}

/**
 * Asks again until the answer is not `undefined`, or throws with what was waited for.
 * @param what completes the sentence "waited N ms for …"; may be computed from the last state seen
 */
export async function poll<T>(
  what: string | (() => string),
  ask: () => Promise<T | undefined> | T | undefined,
  { timeoutMs = 10_000, everyMs = 20 }: { readonly timeoutMs?: number; readonly everyMs?: number } = {},
): Promise<T> {
  const startMs = performance.now();
  for (;;) {
    const askedAtMs = performance.now();
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (isOver(startMs, timeoutMs)) {
      throw new Error(`waited ${timeoutMs} ms for ${typeof what === 'string' ? what : what()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, pauseMs(everyMs, askedAtMs)));
  }
}
