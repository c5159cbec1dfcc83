/** Runs on the lab's client machine and makes the requests that client.ts asks for over the IPC channel. */
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { connect as connectTls } from 'node:tls';
import { clientAddress } from './addresses.ts';
import type { AgentCall, AgentReply, Answer, LoadOptions, LoadReport, RequestOptions } from './client.ts';

/** An open loop against a dead server piles up requests until their timeout; 20,000 are 4,000/s for 5 s. */
const inFlightLimit = 20_000;
const loadLimitSeconds = 3600;
/** The end less the start of one second is 999.9999999999 ms at times, and the last request would not be due. */
const ROUNDING = 1e-6;
/** Of the answers that fail: the first few tell why, and a load may fail for a minute. */
const badAnswersKept = 5;
const badBodyBytes = 300;

/** Where one server ends and another begins, the second one may end as well. */
const STREAM_TRIES = 3;

/** What a write or a read says on a connection that the other side does not know. */
const RESET: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE']);

function late(url: string): Error {
  return Object.assign(new Error(`no answer from ${url} in time`), { code: 'TIMEOUT' });
}

type Carrier = {
  readonly localAddress: string;
  readonly agent: http.Agent | undefined;
  readonly multiplexed?: Multiplexed;
};

/** Takes the connection on which a request is sent. */
type OnConnection = (connection: object) => void;

/** One HTTP/2 connection at a time: after its end, or the word that it is to end, the next request makes another. */
class Multiplexed {
  readonly #localAddress: string;
  readonly #opened: (session: http2.ClientHttp2Session) => void;
  #session: http2.ClientHttp2Session | undefined;

  constructor(localAddress: string, opened: (session: http2.ClientHttp2Session) => void) {
    this.#localAddress = localAddress;
    this.#opened = opened;
  }

  /** A stream that was refused was not worked on: as browsers do, it is sent again (RFC 9113 section 8.7). */
  async perform(options: RequestOptions, on: OnConnection): Promise<Answer> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#once(options, on);
      } catch (error) {
        if (tries === STREAM_TRIES || (error as NodeJS.ErrnoException).code !== 'REFUSED') throw error;
      }
    }
  }

  #once(options: RequestOptions, on: OnConnection): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const startedMs = performance.now();
    const { pathname, search } = new URL(options.url);
    const session = this.#open(options);
    on(session);
    const stream = session.request({
      ':method': options.method ?? 'GET',
      ':path': pathname + search,
      ...options.headers,
    });
    let headers: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader = {};
    const parts: Buffer[] = [];
    const timer = setTimeout(() => {
      stream.destroy(late(options.url));
    }, options.timeoutMs ?? 5_000);
    stream.on('response', (received) => {
      headers = received;
    });
    stream.on('data', (part: Buffer) => parts.push(part));
    const failed = (error: Error): void => {
      const refused = stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM;
      reject(refused ? Object.assign(new Error('a refused stream'), { code: 'REFUSED' }) : error);
    };
    stream.on('error', failed);
    stream.on('end', () => {
      const status = headers[':status'] ?? 0;
      // A stream that the other side takes back ends without an answer.
      if (status === 0) return;
      const body = Buffer.concat(parts).toString();
      resolve({ status, headers: { ...headers }, body, elapsedMs: performance.now() - startedMs });
    });
    stream.on('close', () => {
      clearTimeout(timer);
      failed(Object.assign(new Error('no answer'), { code: 'CLOSED' }));
    });
    stream.end(options.body);
    return promise;
  }

  close(): void {
    this.#session?.destroy();
  }

  #open(options: RequestOptions): http2.ClientHttp2Session {
    const former = this.#session;
    if (former !== undefined && !former.closed && !former.destroyed) return former;
    const { origin, hostname: host, port } = new URL(options.url);
    const tls = {
      host,
      port: Number(port === '' ? 443 : port),
      localAddress: this.#localAddress,
      ALPNProtocols: ['h2'],
      rejectUnauthorized: options.ca !== undefined,
      ...(options.ca !== undefined && { ca: options.ca }),
    };
    const session = http2.connect(origin, { createConnection: () => connectTls(tls) });
    // Each of its requests fails with it; here it only must not end the process.
    session.on('error', () => undefined);
    this.#opened(session);
    this.#session = session;
    return session;
  }
}

function perform(options: RequestOptions, carrier: Carrier, on: OnConnection = () => undefined) {
  if (carrier.multiplexed !== undefined) return carrier.multiplexed.perform(options, on);
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const startedMs = performance.now();
  const tls = {
    ca: options.ca,
    rejectUnauthorized: options.ca !== undefined,
    ...(options.servername === undefined ? {} : { servername: options.servername }),
  };
  const request = (options.url.startsWith('https:') ? https : http).request(options.url, {
    method: options.method ?? 'GET',
    headers: options.headers ?? {},
    localAddress: carrier.localAddress,
    agent: carrier.agent ?? false,
    ...(options.url.startsWith('https:') ? tls : {}),
  });
  const timer = setTimeout(() => {
    request.destroy(late(options.url));
  }, options.timeoutMs ?? 5_000);
  const fail = (error: Error): void => {
    clearTimeout(timer);
    reject(error);
  };
  request.on('socket', on);
  request.on('error', fail);
  request.on('response', (response) => {
    const parts: Buffer[] = [];
    response.on('data', (part: Buffer) => parts.push(part));
    response.on('error', fail);
    response.on('end', () => {
      clearTimeout(timer);
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        body: Buffer.concat(parts).toString(),
        elapsedMs: performance.now() - startedMs,
      });
    });
  });
  request.end(options.body);
  return promise;
}

/** One load under way: sends at its rate whatever the answers do, and counts. */
class Load {
  readonly #options: LoadOptions;
  readonly #carriers: readonly Carrier[];
  readonly #byStatus: Record<string, number> = {};
  readonly #byError: Record<string, number> = {};
  readonly #elapsedMs: number[] = [];
  readonly #badAnswers: string[] = [];
  readonly #over = Promise.withResolvers<void>();
  #requests = 0;
  #failed = 0;
  #inFlight = 0;
  #sending = true;
  #lastGoodMs = performance.now();
  #longestGapMs = 0;
  #connections = 0;
  #mostConnections = 0;
  readonly #reset = new Set<object>();
  /** The connections of requests that got no answer. */
  readonly #failedOn: (object | undefined)[] = [];

  constructor(options: LoadOptions) {
    this.#options = options;
    const secure = options.url.startsWith('https:');
    const keeping = { keepAlive: true, maxSockets: options.connectionsPerSource ?? Number.POSITIVE_INFINITY };
    const opened = (session: http2.ClientHttp2Session): void => {
      this.#opened(session, (end, failed) => {
        session.once('close', end);
        session.on('error', failed);
      });
    };
    this.#carriers = Array.from({ length: options.sources ?? 1 }, (_, index) => {
      const localAddress = clientAddress(index);
      if (options.http2 === true)
        return { localAddress, agent: undefined, multiplexed: new Multiplexed(localAddress, opened) };
      return { localAddress, agent: secure ? new https.Agent(keeping) : new http.Agent(keeping) };
    });
    for (const { agent } of this.#carriers) this.#watch(agent);
  }

  #watch(agent: http.Agent | undefined): void {
    const connect = agent?.createConnection.bind(agent);
    if (agent === undefined || connect === undefined) return;
    agent.createConnection = (options, done) => {
      const socket = connect(options, done);
      if (socket !== null && socket !== undefined)
        this.#opened(socket, (end, failed) => {
          socket.once('close', end);
          socket.on('error', failed);
        });
      return socket;
    };
  }

  #opened(
    connection: object,
    watch: (end: () => void, failed: (error: NodeJS.ErrnoException) => void) => void,
  ): void {
    this.#connections += 1;
    this.#mostConnections = Math.max(this.#mostConnections, this.#connections);
    watch(
      () => {
        this.#connections -= 1;
      },
      (error) => {
        if (RESET.has(error.code ?? '')) this.#reset.add(connection);
      },
    );
  }

  async run(): Promise<LoadReport> {
    const [startedMs, usedBefore] = [performance.now(), process.cpuUsage()];
    const endMs = startedMs + Math.min(this.#options.seconds ?? loadLimitSeconds, loadLimitSeconds) * 1000;
    const tick = (): void => {
      const nowMs = Math.min(performance.now(), endMs);
      const due = Math.floor(((nowMs - startedMs) * this.#options.ratePerSecond) / 1000 + ROUNDING);
      while (this.#sending && this.#requests < due) this.#send();
      if (nowMs >= endMs) this.stop();
    };
    const timer = setInterval(tick, Math.max(1, Math.min(10, 1000 / this.#options.ratePerSecond)));
    await this.#over.promise;
    clearInterval(timer);
    this.#gap();
    for (const { agent, multiplexed } of this.#carriers) {
      agent?.destroy();
      multiplexed?.close();
    }
    const used = process.cpuUsage(usedBefore);
    return this.#report((used.user + used.system) / 10 / (performance.now() - startedMs));
  }

  stop(): void {
    this.#sending = false;
    if (this.#inFlight === 0) this.#over.resolve();
  }

  #send(): void {
    const carrier = this.#carriers[this.#requests % this.#carriers.length];
    this.#requests += 1;
    if (carrier === undefined || this.#inFlight >= inFlightLimit) {
      this.#count(this.#byError, 'CLIENT_OVERLOAD', true);
      return;
    }
    this.#inFlight += 1;
    let on: object | undefined;
    void perform(this.#options, carrier, (connection) => {
      on = connection;
    })
      .then(
        (answer) => {
          this.#elapsedMs.push(answer.elapsedMs);
          const bad = answer.status >= 500;
          if (bad && this.#badAnswers.length < badAnswersKept)
            this.#badAnswers.push(`${answer.status} ${answer.body.slice(0, badBodyBytes)}`);
          this.#count(this.#byStatus, String(answer.status), bad);
        },
        (error: NodeJS.ErrnoException) => {
          this.#failedOn.push(on);
          this.#count(this.#byError, error.code ?? error.message, true);
        },
      )
      .finally(() => {
        this.#inFlight -= 1;
        if (!this.#sending && this.#inFlight === 0) this.#over.resolve();
      });
  }

  #count(table: Record<string, number>, key: string, failed: boolean): void {
    table[key] = (table[key] ?? 0) + 1;
    if (failed) this.#failed += 1;
    else this.#gap();
  }

  #gap(): void {
    const nowMs = performance.now();
    this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#lastGoodMs);
    this.#lastGoodMs = nowMs;
  }

  #report(clientCpuPercent: number): LoadReport {
    const sorted = Float64Array.from(this.#elapsedMs).sort();
    const quantile = (share: number): number | null =>
      sorted[Math.floor((sorted.length - 1) * share)] ?? null;
    return {
      requests: this.#requests,
      failed: this.#failed,
      byStatus: this.#byStatus,
      byError: this.#byError,
      badAnswers: this.#badAnswers,
      mostConnections: this.#mostConnections,
      resets: this.#reset.size,
      lostInResets: this.#failedOn.filter((each) => each !== undefined && this.#reset.has(each)).length,
      clientCpuPercent,
      longestGapMs: this.#longestGapMs,
      p50Ms: quantile(0.5),
      p99Ms: quantile(0.99),
    };
  }
}

const loads = new Map<number, Load>();

async function runLoad(id: number, options: LoadOptions): Promise<LoadReport> {
  const load = new Load(options);
  loads.set(id, load);
  return load.run().finally(() => loads.delete(id));
}

const send = (message: AgentReply): void => {
  process.send?.(message);
};
const reply = (id: number, answer: Promise<Answer | LoadReport>): void => {
  void answer.then(
    (result) => send({ id, result }),
    (error: NodeJS.ErrnoException) => send({ id, error: error.message, code: error.code }),
  );
};
process.on('message', (call: AgentCall) => {
  switch (call.kind) {
    case 'request': {
      const carrier = { localAddress: clientAddress(call.options.source ?? 0), agent: undefined };
      reply(call.id, perform(call.options, carrier));
      break;
    }
    case 'load':
      reply(call.id, runLoad(call.id, call.options));
      break;
    case 'stop':
      loads.get(call.load)?.stop();
      break;
  }
});
process.on('disconnect', () => process.exit(0));
