import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { slowness } from '../support/patience.ts';

const inTime = (): AbortSignal => AbortSignal.timeout(Math.ceil(10_000 * slowness()));

/**
 * Asks a program at its Unix socket over HTTP, as `curl --unix-socket` does. Tests ask many times a second: a process
 * for each question took a tenth of the machine.
 *
 * @param body makes it a POST, of JSON
 * @returns the body, whatever the status
 * @throws Error when nothing listens or the answer takes too long
 */
export async function askHttp(socketPath: string, path: string, body?: object): Promise<string> {
  const headers = {
    host: 'daemon',
    connection: 'close',
    ...(body !== undefined && { 'content-type': 'application/json' }),
  };
  const method = body === undefined ? 'GET' : 'POST';
  const asked = request({ socketPath, path, method, headers, signal: inTime() });
  const answered = once(asked, 'response') as Promise<[IncomingMessage]>;
  // What goes wrong after the answer has begun is an error of the answer as well.
  asked.on('error', () => undefined);
  asked.end(body === undefined ? undefined : JSON.stringify(body));
  const [answer] = await answered;
  return text(answer);
}

/** Sends one command to a program's Unix socket, as `socat` does, and returns all that it says until it closes. */
export function askLine(socketPath: string, command: string): Promise<string> {
  const socket = connect({ path: socketPath, signal: inTime() });
  socket.end(`${command}\n`);
  return text(socket);
}
