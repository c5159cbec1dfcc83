import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { createSecureContext } from 'node:tls';

/** How one local service is checked. Only loopback and the node's own addresses, as health is about this node. */
export type ProbeTarget =
  | {
      readonly kind: 'http';
      readonly address: string;
      readonly port: number;
      readonly path: string;
      /** Default: GET. */
      readonly method?: 'GET' | 'HEAD' | 'OPTIONS';
      readonly headers?: Readonly<Record<string, string>>;
      /** A text that the answer contains, in its first {@link MOST_BODY} bytes. */
      readonly body?: string | undefined;
      readonly tls?: boolean;
      /** The `Host` header. Default: the address and port. */
      readonly host?: string;
      /** Statuses that pass. Default: 200 to 399. */
      readonly statuses?: { readonly least: number; readonly most: number } | readonly number[];
      /** The meaning of a status here, with the next step, if the number alone would mislead. */
      readonly meanings?: Readonly<Record<number, string>>;
      /** Fails without a request while the address is on no device of this host. */
      readonly onlyIfLocal?: boolean;
    }
  | { readonly kind: 'tcp'; readonly address: string; readonly port: number };

export interface ProbeResult {
  readonly passed: boolean;
  /** One short line, e.g. `200 in 3 ms` or `connection refused`. */
  readonly detail: string;
  /**
   * `silent`: no answer in time; there may be a service on a busy host. `refused`: nobody listens. `ended`: its unit
   * has no process, or is frozen. `unasked`: a resource was missing on our side, which is no result about the service.
   * Undefined: passed, or failed in another way.
   */
  readonly failure?: 'silent' | 'refused' | 'ended' | 'unasked';
}

/** HAProxy reads an answer of up to 16 kB with its headers. */
const MOST_BODY = 8192;

/** No descriptor, buffer, memory or local port was left for a request. */
const OURS: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EADDRNOTAVAIL']);

/** Created once: for each request, it would be a twentieth of the cost of an idle daemon. */
const secureContext = createSecureContext();

/** Checks once. Never throws. */
export function probe(target: ProbeTarget, timeoutMs: number): Promise<ProbeResult> {
  if (target.kind === 'http' && target.onlyIfLocal === true && !isLocal(target.address)) {
    return Promise.resolve({ passed: false, detail: `${target.address} is not on any device of this host` });
  }
  const startedMs = performance.now();
  return new Promise((resolve) => {
    const end = (passed: boolean, detail: string, more: Partial<ProbeResult> = {}): void => {
      clearTimeout(timer);
      stop();
      resolve({ passed, detail, ...more });
    };
    const timer = setTimeout(
      () => end(false, `no answer within ${timeoutMs} ms`, { failure: 'silent' }),
      timeoutMs,
    );
    const failed = (error: NodeJS.ErrnoException): void => {
      if (OURS.has(error.code ?? ''))
        end(false, `the check could not run: ${error.code}`, { failure: 'unasked' });
      else end(false, reasonOf(error), error.code === 'ECONNREFUSED' ? { failure: 'refused' } : {});
    };
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
      method: target.method ?? 'GET',
      agent: false,
      headers: {
        'user-agent': 'bornemisza-health',
        connection: 'close',
        ...(target.host !== undefined && { host: target.host }),
        ...lowerCased(target.headers ?? {}),
      },
      // The certificate names the public site, but this request goes to the node's own address: only the answer
      // matters.
      rejectUnauthorized: false,
      ...(target.tls === true && { secureContext }),
    });
    stop = () => request.destroy();
    request.on('error', failed);
    request.once('response', (response) => {
      const status = response.statusCode ?? 0;
      const passed = isAmong(status, target.statuses ?? { least: 200, most: 399 });
      const meaning = passed ? undefined : target.meanings?.[status];
      const took = (): string => `${status} in ${Math.round(performance.now() - startedMs)} ms`;
      if (!passed || target.body === undefined) {
        response.resume();
        end(passed, meaning === undefined ? took() : `${status}: ${meaning}`);
        return;
      }
      const { body } = target;
      void textOf(response).then(
        (text) => {
          if (text.includes(body)) end(true, took());
          else end(false, `${status}, but without the text of health_body in its first ${MOST_BODY} bytes`);
        },
        (error: NodeJS.ErrnoException) => failed(error),
      );
    });
    request.end();
  });
}

type Http = Extract<ProbeTarget, { kind: 'http' }>;

/** So that one of ours is replaced, not sent beside it. */
function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

/** The whole answer, or its beginning. @throws if the connection ends before the answer */
async function textOf(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    parts.push(part);
    length += part.length;
    if (length >= MOST_BODY) break;
  }
  return Buffer.concat(parts).subarray(0, MOST_BODY).toString('latin1');
}

function isAmong(status: number, wanted: NonNullable<Http['statuses']>): boolean {
  return 'least' in wanted ? status >= wanted.least && status <= wanted.most : wanted.includes(status);
}

function reasonOf(error: NodeJS.ErrnoException): string {
  if (error.code === 'ECONNREFUSED') return 'connection refused';
  if (error.code === 'ECONNRESET') return 'connection reset';
  return error.code ?? error.message;
}

/**
 * Whether an address is on one of these devices. An address with a label is listed under the label instead of its
 * device's name.
 */
export function isOn(names: readonly string[], address: string): boolean {
  const devices = networkInterfaces();
  return names.some((name) => devices[name]?.some((each) => each.address === address));
}

/** Whether an address is on a device of this host; all of 127/8 is, although only one of it is listed. */
export function isLocal(address: string): boolean {
  const devices = Object.values(networkInterfaces());
  return address.startsWith('127.') || devices.some((list) => list?.some((each) => each.address === address));
}
