import { spawn } from 'node:child_process';
import { PluginError } from '../plugins/contract.ts';

export interface CommandOptions {
  /** After this time the program is killed, with everything that it started and that is still in its process group. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Limit of standard output and of standard error; beyond it the program is killed. Default 1 MiB. */
  readonly maxOutputBytes?: number;
  /** Standard input, for what must not be in argv. */
  readonly input?: string;
  /** The whole environment. Default: only PATH, so that nothing of ours leaks into children. */
  readonly env?: Readonly<Record<string, string>>;
  /** What the operator can do if the program is missing, e.g. `dnf install haproxy`. */
  readonly missingNext?: string;
}

export interface CommandResult {
  /** Exit status; -1 if a signal ended the program (128 + signal number is not used). */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where programs are searched: a daemon's own PATH may lack sbin. */
const SEARCH_PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Runs a program to its end, bounded in time and output. No shell: arguments are passed unchanged. A status other than
 * 0 is a result, not an error.
 *
 * @throws PluginError `command-missing`, `command-timeout`, `command-output-too-long`, `command-aborted`,
 * `command-failed`
 */
export function runCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<CommandResult> {
  const { timeoutMs, signal, maxOutputBytes = 1024 * 1024 } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(commandError(program, 'command-aborted', 'was not started: the daemon is stopping', 'nothing'));
      return;
    }
    const child = spawn(program, args, {
      env: options.env ?? { PATH: SEARCH_PATH, LC_ALL: 'C' },
      stdio: ['pipe', 'pipe', 'pipe'],
      shell: false,
      // A new process group, which can be ended as a whole.
      detached: true,
    });
    // If no file descriptor is left, it has no streams, whatever its type says. The error event follows soon; without a
    // listener, Node ends this process.
    if (child.pid === undefined) {
      child.once('error', (error) => reject(startError(program, error, options.missingNext)));
      return;
    }
    let failure: PluginError | undefined;
    const stop = (error: PluginError): void => {
      failure ??= error;
      // After the child was reaped, its number may belong to another process.
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
        killGroup(child.pid);
      // A process that left the group (as Postfix's postdrop does) may hold them for ever: nothing waits for it.
      child.stdout.destroy();
      child.stderr.destroy();
    };
    const timer = setTimeout(() => {
      const what = `did not end within ${timeoutMs} ms`;
      const next = `run ${program} by hand; if it is fast then, check the load of the machine: uptime`;
      stop(commandError(program, 'command-timeout', what, next));
    }, timeoutMs);
    const abort = (): void =>
      stop(commandError(program, 'command-aborted', 'was ended: the daemon is stopping', 'nothing'));
    signal?.addEventListener('abort', abort, { once: true });

    const tooLong = (): void => {
      const what = `printed more than ${maxOutputBytes} bytes`;
      stop(commandError(program, 'command-output-too-long', what, `run ${program} by hand`));
    };
    const stdout = collect(child.stdout, maxOutputBytes, tooLong);
    const stderr = collect(child.stderr, maxOutputBytes, tooLong);
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    };
    child.on('error', (error: NodeJS.ErrnoException) => {
      settle();
      reject(failure ?? startError(program, error, options.missingNext));
    });
    child.on('close', (code) => {
      settle();
      if (failure !== undefined) reject(failure);
      else resolve({ code: code ?? -1, stdout: stdout(), stderr: stderr() });
    });
    // A program may end without reading its input.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    // Node has reaped it already and reports the ends one after another: this one comes next.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function collect(stream: NodeJS.ReadableStream, maxBytes: number, tooLong: () => void): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > maxBytes) tooLong();
    else chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

function startError(
  program: string,
  error: NodeJS.ErrnoException,
  missingNext: string | undefined,
): PluginError {
  if (error.code === 'ENOENT') {
    return commandError(
      program,
      'command-missing',
      'is not installed',
      missingNext ?? `install ${program}`,
      error,
    );
  }
  return commandError(
    program,
    'command-failed',
    `could not be started: ${error.message}`,
    `run ${program} by hand`,
    error,
  );
}

function commandError(
  program: string,
  code: string,
  what: string,
  next: string,
  cause?: unknown,
): PluginError {
  return new PluginError({
    code,
    message: `${program} ${what}`,
    next,
    outcome: 'retry',
    cause,
  });
}
