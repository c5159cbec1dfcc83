import type { NetworkInterfaceInfo } from 'node:os';

/** Where text goes. `columns` is the width that tables are made for. */
export interface Output {
  write(text: string): void;
  /** The reader has gone: a command that runs until interrupted ends then. */
  readonly gone?: boolean;
  readonly colour: boolean;
  readonly columns: number;
  /** Lines of the terminal; without a terminal, as many as are written. */
  readonly rows: number;
}

/** Result of a program. `code` is -1 if it gave no answer: it is not installed, or {@link Ran.silence} says why. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** It is there and did not come to its own end: it took too long, was killed or could not be started. */
  readonly silence?: { readonly message: string; readonly next: string };
}

export interface RunLimits {
  readonly timeoutMs?: number;
  /** Written to its standard input, for what must not be in argv. */
  readonly input?: string;
}

/** The machine as `init`, `join` and `doctor` find it. */
export interface Host {
  hostname(): string;
  /** Addresses that are up, by device, as os.networkInterfaces() has them. */
  interfaces(): Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>;
  /** Effective user id. */
  readonly uid: number;
  /** Who became root by sudo(8). */
  readonly sudoUser?: string | undefined;
  /**
   * Runs a program without a shell, bounded in time (default 20 s) and output. Never throws: a program that is not
   * installed has code -1, and one that gives no answer also a `silence`, which must not be taken for an empty answer.
   */
  run(program: string, args: readonly string[], limits?: RunLimits): Promise<Ran>;
  /** Calls this command again with other arguments, on the same terminal. Gives its exit code. */
  again(args: readonly string[]): Promise<number>;
  /**
   * If this process is root: makes it the daemon's user for good, with the groups of the daemon's unit. Otherwise, or
   * without that user, it does nothing.
   */
  becomeDaemon(): Promise<void>;
}

/** Everything that a command may touch besides files and the control socket. */
export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly stdin: AsyncIterable<Uint8Array | string>;
  /**
   * Opens the terminal for questions; absent if standard input is none. `line` writes the prompt to standard error and
   * returns undefined at the end of the input; the input is shown unless it is `hidden`.
   */
  readonly typed?: () => {
    line(prompt: string, hidden: boolean): Promise<string | undefined>;
    close(): void;
  };
  /**
   * Reports each key as it is pressed, without a line end, until the returned function is called; absent if standard
   * input is no terminal.
   */
  readonly keys?: (pressed: (key: string) => void) => () => void;
  /** Whether a person is reading standard output. */
  readonly terminal: boolean;
  readonly host: Host;
  /** Hands over to the daemon; given by the program's entry, so that no command imports it. */
  startDaemon(argv: string[]): Promise<void>;
}

/**
 * Standard input to its end, or until it is longer than `maxCharacters`: then reading stops there, and the caller sees
 * the length.
 */
export async function readInput({ stdin }: Io, maxCharacters: number): Promise<string> {
  let text = '';
  for await (const chunk of stdin) {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8');
    if (text.length > maxCharacters) break;
  }
  return text;
}
