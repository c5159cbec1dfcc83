import { type IncomingMessage, request } from 'node:http';
import type { Role } from '../daemon/membership/types.ts';
import type { Refusal } from '../daemon/control/api.ts';
import { CliFailure, EXIT, type Exit } from './failure.ts';

/** A daemon normally answers in milliseconds; a slow disk can keep it busy for this long. */
const ANSWER_TIMEOUT_MS = 15_000;
/** 500 members with all their fields are below 1 MiB. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
const MAX_LINE_BYTES = 1024 * 1024;

interface Ask {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: unknown;
  /** 0: no limit, e.g. while shards move. */
  readonly timeoutMs?: number;
}

/** Speaks to one daemon over its control socket; shapes and paths are in daemon/control/api.ts. */
export class ControlClient {
  readonly role: Role;
  readonly #socketPath: string;

  constructor(socketPath: string, role: Role) {
    this.#socketPath = socketPath;
    this.role = role;
  }

  /** @throws CliFailure with the cause and the next step */
  async get<Answer>(path: string, timeoutMs = ANSWER_TIMEOUT_MS): Promise<Answer> {
    return await this.#whole<Answer>({ method: 'GET', path, timeoutMs });
  }

  /** @throws CliFailure see {@link get} */
  async post<Answer>(path: string, body: unknown, timeoutMs = ANSWER_TIMEOUT_MS): Promise<Answer> {
    return await this.#whole<Answer>({ method: 'POST', path, body, timeoutMs });
  }

  /** Yields one object for each line (application/x-ndjson) as it comes. Ends when the daemon closes the stream. */
  async *lines<Line>(method: 'GET' | 'POST', path: string, body?: unknown): AsyncGenerator<Line> {
    const response = await this.#open({ method, path, body, timeoutMs: 0 });
    let rest = '';
    try {
      for await (const chunk of response.setEncoding('utf8')) {
        const parts = (rest + String(chunk)).split('\n');
        rest = parts.pop() ?? '';
        if (rest.length > MAX_LINE_BYTES) throw oddAnswer(this.role, 'a line without an end');
        for (const line of parts) if (line.trim() !== '') yield parse(line, this.role) as Line;
      }
    } catch (error) {
      if (error instanceof CliFailure) throw error;
      throw goneAway(this.role, error);
    }
    if (rest.trim() !== '') yield parse(rest, this.role) as Line;
  }

  async #whole<Answer>(ask: Ask): Promise<Answer> {
    const response = await this.#open(ask);
    return parse(await text(response, this.role), this.role) as Answer;
  }

  async #open(ask: Ask): Promise<IncomingMessage> {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const body = ask.body === undefined ? undefined : JSON.stringify(ask.body);
      const call = request({
        socketPath: this.#socketPath,
        method: ask.method,
        path: ask.path,
        headers: {
          host: 'localhost',
          accept: 'application/json, application/x-ndjson',
          ...(body === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
        },
        timeout: ask.timeoutMs ?? ANSWER_TIMEOUT_MS,
      });
      call.on('timeout', () =>
        call.destroy(Object.assign(new Error('no answer in time'), { code: 'ETIMEDOUT' })),
      );
      call.on('error', (error) => reject(unreachable(error, this.role, this.#socketPath)));
      call.on('response', resolve);
      call.end(body);
    });
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    throw refusal(status, await text(response, this.role), this.role);
  }
}

async function text(response: IncomingMessage, role: Role): Promise<string> {
  let whole = '';
  try {
    for await (const chunk of response.setEncoding('utf8')) {
      whole += String(chunk);
      if (whole.length > MAX_ANSWER_BYTES) {
        response.destroy();
        throw oddAnswer(role, `more than ${MAX_ANSWER_BYTES} bytes`);
      }
    }
  } catch (error) {
    if (error instanceof CliFailure) throw error;
    throw goneAway(role, error);
  }
  return whole;
}

/** Text from peers must not control the operator's terminal: control characters become a visible mark. */
function parse(json: string, role: Role): unknown {
  try {
    return JSON.parse(json, (_key, value: unknown) => (typeof value === 'string' ? printable(value) : value));
  } catch {
    throw oddAnswer(role, JSON.stringify(json.slice(0, 80)));
  }
}

export function printable(value: string): string {
  // oxlint-disable-next-line no-control-regex -- these are the characters that must go
  return value.replaceAll(/[\n\r\t]+/g, ' ').replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, '\uFFFD');
}

function refusal(status: number, body: string, role: Role): CliFailure {
  const { error } = parse(body, role) as Partial<Refusal>;
  if (error === undefined) return oddAnswer(role, `status ${status}`);
  return new CliFailure(exitOfRefusal(error.code, status), error.code, error.message, error.next);
}

/** A guard is recognised by the error code: a line of progress has no HTTP status, and 409 has other causes too. */
export function exitOfRefusal(code: string, status?: number): Exit {
  if (code.startsWith('guard-')) return EXIT.refused;
  return status === 400 ? EXIT.usage : EXIT.failure;
}

function unreachable(error: NodeJS.ErrnoException, role: Role, socketPath: string): CliFailure {
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
    case 'ENOTDIR':
      return notRunning(role, error);
    case 'EACCES':
    case 'EPERM':
      return notPermitted(`${socketPath} is for root and group bornemisza`, error);
    case 'ETIMEDOUT':
      return new CliFailure(
        EXIT.failure,
        'daemon-silent',
        `bornemisza@${role} runs but does not answer`,
        `see why: journalctl -u bornemisza@${role} -n 50`,
        { cause: error },
      );
    default:
      return goneAway(role, error);
  }
}

export function notRunning(role: Role, cause?: unknown): CliFailure {
  return new CliFailure(
    EXIT.notRunning,
    'daemon-not-running',
    `the daemon bornemisza@${role} is not running`,
    `systemctl start bornemisza@${role}`,
    { cause },
  );
}

export function notPermitted(message: string, cause?: unknown): CliFailure {
  return new CliFailure(
    EXIT.permission,
    'not-permitted',
    message,
    'run it with sudo, or join the group: sudo usermod -aG bornemisza "$USER", then log in again',
    { cause },
  );
}

function goneAway(role: Role, cause: unknown): CliFailure {
  return new CliFailure(
    EXIT.notRunning,
    'daemon-gone',
    `the daemon bornemisza@${role} closed the connection`,
    `see why: systemctl status bornemisza@${role}`,
    { cause },
  );
}

function oddAnswer(role: Role, what: string): CliFailure {
  return new CliFailure(
    EXIT.failure,
    'control-answer',
    `the daemon bornemisza@${role} sent an answer that this command does not understand: ${what}`,
    `the two may differ in version: bornemisza version; systemctl restart bornemisza@${role}`,
  );
}
