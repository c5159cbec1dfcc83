import { connect, type Socket } from 'node:net';
import { LOCAL, RING } from './rendered.ts';

/** A wait does not outlive this, so that an old worker, after a reload, is not kept by it. */
const WAIT_MS = 5000;
/** HAProxy is away, or runs a configuration without the ring. */
const AGAIN_MS = 1000;
/** Of one line that does not end; HAProxy's are cut at 400. */
const MOST_PENDING = 4096;

const OF = /^(?:Health check for server|Server) local_([A-Za-z][\w-]*)(\.watch)?\/(\w+) /;
const FAILED = new RegExp(`${OF.source}(?:failed, reason: (Layer\\d timeout)?|is DOWN)`);

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

/**
 * Says at once which local service HAProxy's own check misses. HAProxy asks several times a second, at a cost that a
 * check in Node.js would not have; what it finds decides nothing, it only brings the daemon's own question forward,
 * or to its end if that one has no answer either.
 */
export class Failures {
  readonly #path: string;
  readonly #failed: (service: string, how: Failure) => void;
  #socket: Socket | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param path HAProxy's stats socket */
  constructor(path: string, failed: (service: string, how: Failure) => void) {
    this.#path = path;
    this.#failed = failed;
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
        this.#failed(service, silent.has(service) ? 'silent' : 'failed');
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
