import { connect, type Socket } from 'node:net';
import { LOCAL, RING } from './rendered.ts';

/** After a reload, a wait at the old worker hears nothing of the new one's checks. */
const WAIT_MS = 1000;
/** HAProxy is away, or runs a configuration without the ring. */
const AGAIN_MS = 1000;
/** Of one line that does not end; HAProxy's are cut at 400. */
const MOST_PENDING = 4096;

const OF = /^(?:Health check for server|Server) local_([A-Za-z][\w-]*)(\.watch)?\/(\w+) /;
const FAILED = new RegExp(`${OF.source}(?:failed, reason: (Layer\\d timeout)?|is DOWN)`);

const UNANSWERED = /^Health check for server (door|db_nodes)\.watch\/(\S+) failed, reason: Layer4 timeout/;
const ROLES: Readonly<Record<string, string>> = { door: 'app', db_nodes: 'db' };

/** `silent`: no answer in HAProxy's whole timeout. */
type Failure = 'silent' | 'failed';

/**
 * The service whose check at this node's own HAProxy failed, and how, by one line of the ring: `Health check for server
 * local_NAME/_local failed, reason: …`, or `Server local_NAME.watch/_local is DOWN, …`.
 */
export function failedService(line: string): { service: string; how: Failure } | undefined {
  const [, service, watch, server, timeout] = FAILED.exec(line) ?? [];
  if (service === undefined || server !== LOCAL) return undefined;
  // The quick check of `.watch` waits for a connection only, and for 200 ms.
  return { service, how: timeout === undefined || watch !== undefined ? 'failed' : 'silent' };
}

/** The member, HOST/ROLE, whose host gave no answer. A refusal is one. */
export function unansweredBy(line: string): string | undefined {
  const [, backend = '', host] = UNANSWERED.exec(line) ?? [];
  return host === undefined ? undefined : `${host}/${ROLES[backend]}`;
}

interface Services {
  failedElsewhere(service: string, how: Failure): void;
}

interface Hosts {
  /** @param name HOST/ROLE of its member */
  unanswered(name: string): void;
}

/**
 * Says at once which local service HAProxy's own check misses. HAProxy asks several times a second, at a cost that a
 * check in Node.js would not have; what it finds decides nothing, it only brings the daemon's own question forward,
 * or to its end if that one has no answer either. The same for other hosts.
 */
export class Failures {
  readonly #path: string;
  readonly #services: Services;
  readonly #hosts: Hosts;
  #socket: Socket | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param path HAProxy's stats socket */
  constructor(path: string, services: Services, hosts: Hosts) {
    this.#path = path;
    this.#services = services;
    this.#hosts = hosts;
  }

  /** Management guide, `show events`: waits for what is new, until this side closes. */
  listen(): this {
    if (this.#closed) return this;
    let pending = '';
    const socket = connect(this.#path);
    this.#socket = socket;
    const next = (afterMs: number): void => {
      clearTimeout(this.#timer);
      socket.removeAllListeners('close').destroy();
      this.#timer = setTimeout(() => this.listen(), afterMs);
    };
    this.#timer = setTimeout(() => next(0), WAIT_MS);
    socket.setEncoding('utf8').on('error', () => undefined);
    socket.once('close', () => next(AGAIN_MS));
    socket.on('data', (text: string) => {
      const lines = (pending + text).split('\n');
      pending = (lines.pop() ?? '').slice(0, MOST_PENDING);
      const failed = lines.map(failedService).filter((each) => each !== undefined);
      const silent = new Set(failed.filter(({ how }) => how === 'silent').map(({ service }) => service));
      for (const service of new Set(failed.map(({ service }) => service)))
        this.#services.failedElsewhere(service, silent.has(service) ? 'silent' : 'failed');
      for (const name of new Set(lines.map(unansweredBy).filter((each) => each !== undefined)))
        this.#hosts.unanswered(name);
    });
    socket.write(`show events ${RING} -w -n\n`);
    return this;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.removeAllListeners('close').destroy();
  }
}
