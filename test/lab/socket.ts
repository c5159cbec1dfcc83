import { request } from 'node:http';
import { connect } from 'node:net';
import { slowness } from '../support/patience.ts';

const TIMEOUT_MS = 10_000;

/**
 * Asks a program at its Unix socket over HTTP, as `curl --unix-socket` does. Tests ask many times a second: a process
 * for each question took a tenth of the machine.
 *
 * @returns the body, whatever the status
 * @throws Error when nothing listens or the answer takes too long
 */
export function askHttp(socketPath: string, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const timeout = Math.ceil(TIMEOUT_MS * slowness());
  const asked = request({ socketPath, path, headers: { host: 'daemon', connection: 'close' } }, (answer) => {
    let body = '';
    answer.setEncoding('utf8');
    answer.on('data', (text: string) => (body += text));
    answer.on('end', () => resolve(body));
    answer.on('error', reject);
  });
  const timer = setTimeout(
    () => asked.destroy(new Error(`${socketPath}: no answer within ${timeout} ms`)),
    timeout,
  );
  asked.on('error', reject);
  asked.end();
  return promise.finally(() => clearTimeout(timer));
}

/** Sends one command to a program's Unix socket, as `socat` does, and returns all that it says until it closes. */
export function askLine(socketPath: string, command: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const timeout = Math.ceil(TIMEOUT_MS * slowness());
  const socket = connect(socketPath);
  let said = '';
  const timer = setTimeout(
    () => socket.destroy(new Error(`${socketPath}: no answer within ${timeout} ms`)),
    timeout,
  );
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => (said += text));
  socket.on('error', reject);
  socket.on('end', () => resolve(said));
  socket.end(`${command}\n`);
  return promise.finally(() => clearTimeout(timer));
}
