import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';

/** How one local service is asked. Loopback and the node's own addresses only: health is about this node. */
export type ProbeTarget =
  | {
      readonly kind: 'http';
      readonly address: string;
      readonly port: number;
      readonly path: string;
      readonly tls?: boolean;
    }
  | { readonly kind: 'tcp'; readonly address: string; readonly port: number };

export interface ProbeResult {
  readonly passed: boolean;
  /** One short line, e.g. `200 in 3 ms` or `connection refused`. */
  readonly detail: string;
}

/** Asks once. Never throws. */
export function probe(target: ProbeTarget, timeoutMs: number): Promise<ProbeResult> {
  const startedMs = performance.now();
  return new Promise((resolve) => {
    const end = (passed: boolean, detail: string): void => {
      clearTimeout(timer);
      stop();
      resolve({ passed, detail });
    };
    const timer = setTimeout(() => end(false, `no answer within ${timeoutMs} ms`), timeoutMs);
    const failed = (error: NodeJS.ErrnoException): void => end(false, reasonOf(error));
    let stop: () => void;
    if (target.kind === 'tcp') {
      const socket = connect({ host: target.address, port: target.port });
      stop = () => socket.destroy();
      socket.once('connect', () => end(true, 'accepts connections')).on('error', failed);
      return;
    }
    const call = target.tls === true ? httpsRequest : httpRequest;
    const request = call({
      host: target.address,
      port: target.port,
      path: target.path,
      agent: false,
      headers: { 'user-agent': 'bornemisza-health', connection: 'close' },
      // The certificate names the public site, and this asks the node's own address: whether it answers is the question.
      rejectUnauthorized: false,
    });
    stop = () => request.destroy();
    request.on('error', failed);
    request.once('response', (response) => {
      const status = response.statusCode ?? 0;
      response.resume();
      end(status >= 200 && status < 400, `${status} in ${Math.round(performance.now() - startedMs)} ms`);
    });
    request.end();
  });
}

function reasonOf(error: NodeJS.ErrnoException): string {
  if (error.code === 'ECONNREFUSED') return 'connection refused';
  if (error.code === 'ECONNRESET') return 'connection reset';
  return error.code ?? error.message;
}
