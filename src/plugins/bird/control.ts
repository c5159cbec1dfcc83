import { connect, type Socket } from 'node:net';
import { PluginError } from '../contract.ts';

/** One line of an answer. A line without a code of its own carries the one before it. */
export interface ReplyLine {
  /** Four digits: 0xxx success, 1xxx data, 8xxx run-time error, 9xxx syntax error (BIRD, doc/reply_codes). */
  readonly code: number;
  readonly text: string;
}

/**
 * Parses the lines of one answer. `NNNN-` continues, `NNNN ` ends, a leading space repeats the code, `+` is a log line
 * that BIRD inserted.
 *
 * @returns the answer and what follows it, or undefined while it is not complete
 */
export function parseReply(text: string): { readonly lines: ReplyLine[]; readonly rest: string } | undefined {
  const lines: ReplyLine[] = [];
  let code = 0;
  let at = 0;
  for (;;) {
    const end = text.indexOf('\n', at);
    if (end === -1) return undefined;
    const line = text.slice(at, end).replace(/\r$/, '');
    at = end + 1;
    const coded = /^(\d{4})([- ])(.*)$/.exec(line);
    if (coded !== null) {
      code = Number(coded[1]);
      lines.push({ code, text: coded[3] ?? '' });
      if (coded[2] === ' ') return { lines, rest: text.slice(at) };
    } else if (line.startsWith(' ')) {
      lines.push({ code, text: line.slice(1) });
    }
  }
}

export interface BirdProtocol {
  readonly name: string;
  readonly kind: string;
  readonly up: boolean;
  /** State of BGP, e.g. `Established`; empty for others. */
  readonly info: string;
  readonly description: string;
  /** Only for a BGP protocol. */
  readonly localAs: number | undefined;
  /** Of a BGP session that is up: the lower one of both sides, seconds. */
  readonly holdTimeS: number | undefined;
}

/** Reads `show protocols all`: 1002 is a protocol's row, 1006 its details. */
export function parseProtocols(lines: readonly ReplyLine[]): BirdProtocol[] {
  const protocols: BirdProtocol[] = [];
  for (const { code, text } of lines) {
    // Name, protocol, table, state, since (one word or two), info.
    const row = /^(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\d\S*(?: \d\d:\S+)?)\s*(.*)$/.exec(text);
    if (code === 1002 && row !== null) {
      const [, name = '', kind = '', , state = '', , info = ''] = row;
      protocols.push({
        name,
        kind,
        up: state === 'up',
        info: info.trim(),
        description: '',
        localAs: undefined,
        holdTimeS: undefined,
      });
    }
    const last = protocols.at(-1);
    if (code !== 1006 || last === undefined) continue;
    const description = /^\s*Description:\s+(.*)$/.exec(text)?.[1];
    const localAs = /^\s*Local AS:\s+(\d+)/.exec(text)?.[1];
    if (description !== undefined) protocols[protocols.length - 1] = { ...last, description };
    if (localAs !== undefined) protocols[protocols.length - 1] = { ...last, localAs: Number(localAs) };
    // What is left of it, and the whole.
    const hold = /^\s*Hold timer:\s+[\d.]+\/(\d+)/.exec(text)?.[1];
    if (hold !== undefined) protocols[protocols.length - 1] = { ...last, holdTimeS: Number(hold) };
  }
  return protocols;
}

interface TellOptions {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
}

/** Enough for all protocols; a whole routing table is never requested. */
const MAX_ANSWER_BYTES = 1024 * 1024;

/**
 * Sends commands to BIRD's control socket, one after another on one connection, and returns their answers.
 *
 * @throws PluginError `bird-not-running` when nobody listens, `bird-silent` when an answer doesn't end in time
 */
export function tell(
  socketPath: string,
  commands: readonly string[],
  options: TellOptions = {},
): Promise<ReplyLine[][]> {
  const { signal, timeoutMs = 3000 } = options;
  if (commands.some((command) => /[\n\r]/.test(command))) throw new Error('a command is one line');
  return new Promise((resolve, reject) => {
    const answers: ReplyLine[][] = [];
    let text = '';
    const socket: Socket = connect(socketPath);
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      socket.destroy();
    };
    const fail = (error: unknown): void => {
      settle();
      reject(controlError(socketPath, error));
    };
    const timer = setTimeout(() => fail(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    const abort = (): void => fail(new Error('the daemon is stopping'));
    signal?.addEventListener('abort', abort, { once: true });
    socket.on('error', fail);
    socket.on('close', () => fail(new Error('BIRD closed the connection')));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (text.length > MAX_ANSWER_BYTES) return fail(new Error(`more than ${MAX_ANSWER_BYTES} bytes`));
      for (let reply = parseReply(text); reply !== undefined; reply = parseReply(text)) {
        text = reply.rest;
        answers.push(reply.lines);
        // The first answer is the greeting (0001): it asks for the first command.
        const next = commands[answers.length - 1];
        if (next !== undefined) socket.write(`${next}\n`);
        else {
          settle();
          resolve(answers.slice(1));
          return;
        }
      }
    });
    if (signal?.aborted === true) abort();
  });
}

function controlError(path: string, error: unknown): PluginError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') return birdNotRunning(path, error);
  return new PluginError({
    code: code === 'EACCES' ? 'bird-socket-not-permitted' : 'bird-silent',
    message: `no answer from BIRD at ${path}: ${error instanceof Error ? error.message : String(error)}`,
    next:
      code === 'EACCES'
        ? `check that the daemon is in group bird: ls -l ${path}`
        : 'see `journalctl -u bird`',
    outcome: 'retry',
    cause: error,
  });
}

export function birdNotRunning(path: string, cause?: unknown): PluginError {
  return new PluginError({
    code: 'bird-not-running',
    message: `BIRD is not running: no process listens at ${path}; no floating IP is announced`,
    next: 'install it if it is missing (`dnf install bird`), then `systemctl start bird` and see `journalctl -u bird`',
    outcome: 'retry',
    // BIRD reads the fragment at its next start.
    keepsChanges: true,
    cause,
  });
}
