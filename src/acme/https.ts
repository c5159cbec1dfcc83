import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { rootCertificates } from 'node:tls';

export interface Exchange {
  readonly method: 'GET' | 'HEAD' | 'POST';
  readonly url: string;
  readonly body?: string;
  readonly accept?: string;
}

interface ExchangeOptions {
  readonly userAgent: string;
  /** PEM of CAs to trust in addition to the public ones. */
  readonly ca?: string | undefined;
  readonly timeoutMs: number;
}

export interface Got {
  readonly status: number;
  readonly type: string;
  readonly body: Buffer;
  readonly nonce: string | undefined;
  readonly location: string | undefined;
  readonly retryAfterMs: number | undefined;
}

/** A chain of four certificates with many names has some 20 kB; everything else is smaller. */
const MOST_BYTES = 256 * 1024;
/** The longest limit of a CA is a week; a longer wait is a mistake. */
const MOST_RETRY_AFTER_MS = 7 * 24 * 3_600_000;

/**
 * Only https: otherwise somebody on the way could replace orders. Within this machine (127.0.0.0/8) nobody can, and
 * only a CA that is there itself may name addresses there: no CA on the internet can make this node call its own ports
 * without TLS.
 */
export function isAllowed(url: string, directoryUrl: string): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, hostname, username, password } = new URL(url);
  if (username !== '' || password !== '') return false;
  return protocol === 'https:' || (isLoopback(protocol, hostname) && isPlain(directoryUrl));
}

function isPlain(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return isLoopback(protocol, hostname);
}

/** WHATWG URLs write an IPv4 address as four decimal numbers, whatever its original form. */
function isLoopback(protocol: string, hostname: string): boolean {
  return protocol === 'http:' && /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/**
 * One call, complete within its time: a body that is cut short, too long or never ends is an error. Follows no
 * redirect.
 */
export function exchange(
  { method, url, body, accept }: Exchange,
  { userAgent, ca, timeoutMs }: ExchangeOptions,
  signal: AbortSignal,
): Promise<Got> {
  const call = url.startsWith('https:') ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const request = call(url, {
      method,
      // A new connection each time: minutes pass between two steps of an order.
      agent: false,
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      ...(ca !== undefined && { ca: [...rootCertificates, ca] }),
      headers: {
        'user-agent': userAgent,
        ...(accept !== undefined && { accept }),
        ...(body !== undefined && {
          // RFC 8555 section 6.2.
          'content-type': 'application/jose+json',
          'content-length': Buffer.byteLength(body),
        }),
      },
    });
    request.on('error', (error) => {
      const over = error.name === 'AbortError' && !signal.aborted;
      reject(over ? new Error(`no whole answer within ${timeoutMs / 1000} s`, { cause: error }) : error);
    });
    request.once('response', (response) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        bytes += part.length;
        parts.push(part);
        if (bytes > MOST_BYTES)
          request.destroy(new Error(`its answer is longer than ${MOST_BYTES / 1024} kB`));
      });
      response.on('error', () => reject(new Error('its answer was cut short')));
      response.on('end', () => {
        const { statusCode: status = 0, headers } = response;
        const nonce = headers['replay-nonce'];
        resolve({
          status,
          type: (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? '',
          body: Buffer.concat(parts),
          nonce: typeof nonce === 'string' ? nonce : undefined,
          location: headers.location,
          retryAfterMs: retryAfterMs(headers['retry-after'], headers.date),
        });
      });
    });
    request.end(body);
  });
}

/**
 * RFC 9110 section 10.2.3: seconds, or a date. A date is compared with the server's own clock, as this host's can
 * differ by a day.
 *
 * @param date of the same answer
 */
export function retryAfterMs(value: string | undefined, date: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const [at, sent] = [Date.parse(value), Date.parse(date ?? '')];
  const ms = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : at - sent;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MOST_RETRY_AFTER_MS);
}
