import { Agent, type IncomingMessage, request as httpRequest } from 'node:http';

/** Who asks CouchDB. */
export interface Credentials {
  readonly name: string;
  readonly password: string;
}

interface CouchRequest {
  readonly method: string;
  /** With the leading slash; encoded by the caller. */
  readonly path: string;
  readonly as: Credentials;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

interface CouchAnswer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** CouchDB is not reachable, or gives an unexpected answer. Another attempt can help. */
export class CouchError extends Error {
  readonly code: 'databases-unreachable' | 'databases-disagree' | 'not-durable' | 'databases-refuse';

  constructor(code: CouchError['code'], message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'CouchError';
    this.code = code;
  }
}

/** HAProxy on this node retries and balances; more connections than it keeps open would only wait. */
const MAX_SOCKETS = 256;
/** Longer than HAProxy waits for a server, so that its answer arrives. */
const TIMEOUT_MS = 15_000;
/** Our documents have a few hundred bytes; conflicts and errors a few thousand. */
const MAX_ANSWER_BYTES = 1024 * 1024;

/** CouchDB through this node's HAProxy: JSON in, JSON out, and a stream for the user's own data. */
export class Couch {
  readonly #base: URL;
  readonly #agent = new Agent({
    keepAlive: true,
    maxSockets: MAX_SOCKETS,
    maxFreeSockets: 32,
    timeout: 60_000,
  });

  constructor(baseUrl: string) {
    this.#base = new URL(baseUrl);
  }

  /** @throws CouchError `databases-unreachable`, `databases-refuse` (only after a wrong set-up) */
  async ask(request: CouchRequest): Promise<CouchAnswer> {
    const signal = AbortSignal.any([
      AbortSignal.timeout(TIMEOUT_MS),
      ...(request.signal ? [request.signal] : []),
    ]);
    const answer = await this.open({ ...request, signal });
    const body = await textOf(answer);
    const parsed = parse(body);
    const status = answer.statusCode ?? 0;
    if (parsed === undefined || status >= 500)
      throw new CouchError('databases-unreachable', `CouchDB answers ${status}: ${body.slice(0, 200)}`);
    return { status, body: parsed };
  }

  /** The answer as a stream, for {@link ask} and for answers that are passed on to a browser. */
  async open({ method, path, as, body, headers, signal }: CouchRequest): Promise<IncomingMessage> {
    const bytes =
      body === undefined ? undefined : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest(
        {
          agent: this.#agent,
          host: this.#base.hostname,
          port: this.#base.port,
          method,
          path,
          auth: `${as.name}:${as.password}`,
          headers: {
            accept: 'application/json',
            ...(bytes !== undefined && {
              'content-type': 'application/json',
              'content-length': bytes.length,
            }),
            ...headers,
          },
          ...(signal !== undefined && { signal }),
        },
        resolve,
      );
      outgoing.once('error', (error) =>
        reject(new CouchError('databases-unreachable', `no database answers: ${error.message}`, error)),
      );
      outgoing.end(bytes);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

async function textOf(answer: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of answer as AsyncIterable<Buffer>) {
      size += part.length;
      if (size > MAX_ANSWER_BYTES)
        throw new CouchError('databases-unreachable', 'the answer of CouchDB is too long');
      parts.push(part);
    }
  } catch (error) {
    if (error instanceof CouchError) throw error;
    throw new CouchError('databases-unreachable', 'a database cut its answer short', error);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parse(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
