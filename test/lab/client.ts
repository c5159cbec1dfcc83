import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { inNamespace, namespaceOf, spawnInside, type LabPlace } from './namespace.ts';
import { run, type Result, type RunOptions } from './process.ts';

export type RequestOptions = {
  /** http or https; the host part is where the connection goes. */
  readonly url: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Which of the client's addresses to call from, 0-based. Default 0. */
  readonly source?: number;
  /** From call to the answer's last byte. Default 5 s. */
  readonly timeoutMs?: number;
  /** PEM of the CA to trust. Without it a server's certificate is not checked: most tests are about other things. */
  readonly ca?: string;
  /** TLS server name, when it differs from the URL's host. */
  readonly servername?: string;
};

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: string;
  readonly elapsedMs: number;
};

export type LoadOptions = Omit<RequestOptions, 'source'> & {
  readonly ratePerSecond: number;
  /** Default: until `stop()`, at most one hour. */
  readonly seconds?: number;
  /** How many of the client's addresses take turns. Default: all of them. */
  readonly sources?: number;
  /**
   * A request waits for one of these, and the wait counts as its own. Default: as many as there are requests under way.
   */
  readonly connectionsPerSource?: number;
  /** One HTTP/2 connection for each source, made anew when it is gone, in place of HTTP/1.1. https only. */
  readonly http2?: boolean;
};

export type LoadReport = {
  readonly requests: number;
  /** No whole answer in time, or a status of 500 and above. */
  readonly failed: number;
  /** Answers by status. */
  readonly byStatus: Readonly<Record<string, number>>;
  /** Requests without an answer by error code: ECONNREFUSED, ECONNRESET, TIMEOUT, … */
  readonly byError: Readonly<Record<string, number>>;
  /** Status and beginning of the body of the first answers of 500 and above. */
  readonly badAnswers: readonly string[];
  /** So many connections were open at once, at the most: what the move of an address can end at one stroke. */
  readonly mostConnections: number;
  /**
   * Connections that ended by a reset, whether or not a request waited on them. Where every edge lives, that is what
   * the router moves: a connection's next packet reaches an edge that does not know it.
   */
  readonly resets: number;
  /** Failed requests that were under way on these connections. */
  readonly lostInResets: number;
  /** Of a processor, by the client machine with all its loads: at 100 it cannot send more. */
  readonly clientCpuPercent: number;
  /** Longest time without a good answer, from the first request to the end. */
  readonly longestGapMs: number;
  /** Of the answers, whatever their status; null when there was none. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
};

export type RunningLoad = {
  readonly report: Promise<LoadReport>;
  /** No more requests; resolves when the last has its answer. */
  stop(): Promise<LoadReport>;
};

/** What travels to client-agent.ts and back. */
export type AgentCall =
  | { readonly id: number; readonly kind: 'request'; readonly options: RequestOptions }
  | { readonly id: number; readonly kind: 'load'; readonly options: LoadOptions }
  | { readonly id: number; readonly kind: 'stop'; readonly load: number };
export type AgentReply =
  | { readonly id: number; readonly result: Answer | LoadReport }
  | { readonly id: number; readonly error: string; readonly code: string | undefined };

type Waiting = { resolve(result: Answer | LoadReport): void; reject(error: Error): void };

/** A request got no answer. `code` is the system's error code, or TIMEOUT. */
export class RequestError extends Error {
  readonly code: string | undefined;
  constructor(message: string, code: string | undefined) {
    super(message);
    this.name = 'RequestError';
    this.code = code;
  }
}

/** A machine somewhere on the internet with many addresses, so that the provider's hash has something to spread. */
export class Client {
  readonly #place: LabPlace;
  readonly #namespace: string;
  readonly #sources: number;
  readonly #waiting = new Map<number, Waiting>();
  #agent: ChildProcess | undefined;
  #calls = 0;

  constructor(place: LabPlace, options: { readonly sources: number }) {
    this.#place = place;
    this.#namespace = namespaceOf(place, 'client');
    this.#sources = options.sources;
  }

  /** Runs a program on the client machine. */
  exec(argv: readonly string[], options?: RunOptions): Promise<Result> {
    return run(inNamespace(this.#namespace, argv), options);
  }

  /**
   * One request over a fresh connection. Rejects with `RequestError` when there is no answer; every status is an
   * answer.
   */
  async request(options: RequestOptions): Promise<Answer> {
    return (await this.#call((id) => ({ id, kind: 'request', options }))) as Answer;
  }

  /** Open-loop load (a slow answer delays no later request) over keep-alive connections; resolves when it is over. */
  load(options: LoadOptions & { readonly seconds: number }): Promise<LoadReport> {
    return this.startLoad(options).report;
  }

  /** Like `load`, and goes on until it is stopped. */
  startLoad(options: LoadOptions): RunningLoad {
    let load = 0;
    const report = this.#call((id) => {
      load = id;
      return { id, kind: 'load', options: { sources: this.#sources, ...options } };
    }) as Promise<LoadReport>;
    // Whoever holds the report sees the failure; until then it must not end the process.
    report.catch(() => {});
    return {
      report,
      stop: async () => {
        this.#send({ id: (this.#calls += 1), kind: 'stop', load });
        return report;
      },
    };
  }

  #call(make: (id: number) => AgentCall): Promise<Answer | LoadReport> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer | LoadReport>();
    const call = make((this.#calls += 1));
    this.#waiting.set(call.id, { resolve, reject });
    this.#send(call);
    return promise;
  }

  #send(call: AgentCall): void {
    this.#agent ??= this.#start();
    // An idle agent must not keep the owner alive; a call under way must.
    this.#agent.channel?.ref();
    // One that has just ended may not have said so yet.
    this.#agent.send(call, (error) => {
      if (error === null) return;
      this.#waiting
        .get(call.id)
        ?.reject(new RequestError(`the client machine is gone: ${error.message}`, undefined));
      this.#waiting.delete(call.id);
    });
  }

  #start(): ChildProcess {
    const program = fileURLToPath(new URL('client-agent.ts', import.meta.url));
    const argv = inNamespace(this.#namespace, [process.execPath, program]);
    const agent = spawnInside(this.#place.cgroup, argv, ['ignore', 'inherit', 'inherit', 'ipc']);
    agent.on('message', (reply: AgentReply) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if (this.#waiting.size === 0) agent.channel?.unref();
      if ('result' in reply) waiting?.resolve(reply.result);
      else waiting?.reject(new RequestError(reply.error, reply.code));
    });
    agent.on('exit', () => {
      this.#agent = undefined;
      for (const waiting of this.#waiting.values()) waiting.reject(new Error('the client machine is gone'));
      this.#waiting.clear();
    });
    return agent;
  }
}
