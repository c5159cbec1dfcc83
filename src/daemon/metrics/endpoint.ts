import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { BlockList } from 'node:net';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/config.ts';
import type { Warning } from '../control/api.ts';
import type { ControlActions } from '../control/server.ts';
import type { Log } from '../process/log.ts';
import { CONTENT_TYPE, expose } from './exposition.ts';
import { familiesOf, type MetricsFacts } from './families.ts';
import { Lag, processFacts } from './process-facts.ts';

/** How often {@link MetricsEndpoint.look} is called. */
const LOOK_MS = 1000;
/** The time until a port that was in use is tried again. */
const RETRY_MS = 10_000;
/** The answer is computed once in this time, however many ask: a flood costs little more than its parsing. */
const FRESH_MS = 1000;
/** Some scrapers and a person; each keeps one connection. */
const MAX_CONNECTIONS = 16;
const MAX_HEADER_BYTES = 8192;
const REQUEST_MS = 5000;
/** Prometheus keeps its connection between scrapes, which are usually at most a minute apart. */
const IDLE_MS = 65_000;

interface MetricsDependencies {
  readonly clock: Clock;
  readonly log: Log;
  readonly node: {
    readonly config: Config;
    /** Undefined while it starts. */
    readonly actions: Pick<ControlActions, 'status' | 'members' | 'upgrade'> | undefined;
    /** When the founder's own certificate of the site ends, in ms since the epoch. */
    readonly last: {
      readonly scene: { readonly certificates: Pick<MetricsFacts, 'siteEndMs'> | undefined };
    };
  };
}

/** RFC 7617. The time of the comparison says nothing about where they differ. */
function proves(authorization: string | undefined, password: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  const wanted = `Basic ${Buffer.from(`metrics:${password}`).toString('base64')}`;
  return timingSafeEqual(digest(authorization ?? ''), digest(wanted));
}

/**
 * `/metrics` on the private address, for Prometheus: read-only, and only for the private network. Off unless
 * `metrics.enabled`; a port that is in use blocks nothing else.
 */
export class MetricsEndpoint {
  readonly #dependencies: MetricsDependencies;
  readonly #lag = new Lag(LOOK_MS);
  /** The settings of the open `#server`; '' while none is open or opening. */
  #opened = '';
  #server: Server | undefined;
  #problem: Warning | undefined;
  #retryMs = 0;
  #text: { readonly text: string; readonly atMs: number } | undefined;

  constructor(dependencies: MetricsDependencies) {
    this.#dependencies = dependencies;
  }

  get warnings(): readonly Warning[] {
    return this.#problem === undefined ? [] : [this.#problem];
  }

  /** Once a second: opens, moves or closes the listener according to the present configuration. */
  look(): void {
    const nowMs = this.#dependencies.clock.monotonicMs();
    this.#lag.came(nowMs);
    const { metrics, metricsPort, network } = this.#dependencies.node.config;
    const wanted = metrics.enabled
      ? `${network.private_address}:${metricsPort} ${network.private_network}`
      : '';
    if (wanted === this.#opened) return;
    if (this.#opened !== '' || wanted === '') this.close();
    if (wanted === '' || nowMs < this.#retryMs) return;
    this.#opened = wanted;
    this.#open(network.private_address, metricsPort, network.private_network);
  }

  close(): void {
    this.#opened = '';
    this.#problem = undefined;
    this.#retryMs = 0;
    this.#server?.closeAllConnections();
    this.#server?.close();
    this.#server = undefined;
  }

  #open(address: string, port: number, network: string): void {
    const [base = '', bits] = network.split('/');
    const inside = new BlockList();
    inside.addSubnet(base, Number(bits), 'ipv4');
    const limits = {
      maxHeaderSize: MAX_HEADER_BYTES,
      requestTimeout: REQUEST_MS,
      headersTimeout: REQUEST_MS,
      keepAliveTimeout: IDLE_MS,
    };
    const server = createServer(limits, (request, response) => this.#answer(request, response));
    server.maxConnections = MAX_CONNECTIONS;
    server.on('connection', (socket) => {
      // The address is private, but a router can forward requests from elsewhere.
      if (!inside.check(socket.remoteAddress ?? '', 'ipv4')) socket.destroy();
    });
    server.on('error', (error: NodeJS.ErrnoException) => this.#refused(server, `${address}:${port}`, error));
    server.on('listening', () => {
      this.#problem = undefined;
    });
    server.listen(port, address);
    server.unref();
    this.#server = server;
  }

  #refused(server: Server, where: string, error: NodeJS.ErrnoException): void {
    if (server !== this.#server) return;
    const { clock, log } = this.#dependencies;
    const known = this.#problem?.message;
    const problem = {
      code: 'metrics-listen',
      message: `/metrics cannot be served at ${where}: ${error.code ?? error.message}`,
      next: 'find the program with `ss -ltnp` and end it, or set metrics.port; it is tried again by itself',
    };
    this.close();
    this.#problem = problem;
    this.#retryMs = clock.monotonicMs() + RETRY_MS;
    if (problem.message !== known) log.warn({ code: problem.code, next: problem.next }, problem.message);
  }

  #answer({ method, url = '', headers }: IncomingMessage, response: ServerResponse): void {
    const say = (status: number, text: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) });
      response.end(method === 'HEAD' ? undefined : text);
    };
    const { statisticsPassword: password } = this.#dependencies.node.config;
    if (password === null) return say(403, 'metrics.password_file cannot be read\n');
    if (password !== undefined && !proves(headers.authorization, password)) {
      response.setHeader('www-authenticate', 'Basic realm="statistics"');
      return say(401, 'user metrics, and the password of metrics.password_file\n');
    }
    if (method !== 'GET' && method !== 'HEAD') return say(405, 'only GET\n');
    if (url.split('?')[0] !== '/metrics') return say(404, 'only /metrics\n');
    const text = this.#exposed();
    if (text === undefined) return say(503, 'the daemon is starting\n');
    say(200, text, CONTENT_TYPE);
  }

  #exposed(): string | undefined {
    const { clock, node } = this.#dependencies;
    const atMs = clock.monotonicMs();
    if (this.#text !== undefined && atMs - this.#text.atMs < FRESH_MS) return this.#text.text;
    const { actions, last } = node;
    if (actions === undefined) return undefined;
    const facts: MetricsFacts = {
      status: actions.status(),
      members: actions.members().members,
      upgrade: actions.upgrade(),
      siteEndMs: last.scene.certificates?.siteEndMs,
      process: processFacts(this.#lag),
      wallMs: clock.wallMs(),
    };
    const text = expose(familiesOf(facts));
    this.#text = { text, atMs };
    return text;
  }
}
