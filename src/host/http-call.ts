import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';

interface HttpCall {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body: object | undefined;
  readonly timeoutMs: number;
  /** A longer answer is an error. */
  readonly mostBytes: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
  readonly headers: NodeJS.Dict<string | string[]>;
}

/**
 * Calls a JSON API once, on a new connection, and follows no redirect.
 *
 * @throws Error if there is no connection, or the answer is cut short, too long or late
 */
export function httpCall(
  { method, url, headers, body, timeoutMs, mostBytes }: HttpCall,
  signal: AbortSignal,
): Promise<HttpAnswer> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const call = url.startsWith('https:') ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const request = call(url, {
      method,
      agent: false,
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      headers: {
        ...headers,
        accept: 'application/json',
        'user-agent': 'bornemisza',
        ...(text !== undefined && {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(text),
        }),
      },
    });
    request.on('error', (error) => {
      reject(error.name === 'AbortError' ? new Error(`no answer within ${timeoutMs / 1000} s`) : error);
    });
    request.once('response', (response) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        bytes += part.length;
        parts.push(part);
        if (bytes > mostBytes) request.destroy(new Error('its answer is too long'));
      });
      response.on('error', () => reject(new Error('its answer was cut short')));
      response.on('end', () => {
        const { statusCode: status = 0, headers: answered } = response;
        resolve({ status, text: Buffer.concat(parts).toString(), headers: answered });
      });
    });
    request.end(text);
  });
}
