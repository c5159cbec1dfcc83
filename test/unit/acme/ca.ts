import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Test } from 'tap';
import { AcmeClient, type AcmeClientOptions } from '../../../src/acme/client.ts';
import { accountKey } from './keys.ts';

/**
 * A CA that answers as a case wants it: for what a real one does not do when it is asked to, e.g. a body that
 * never ends, or six refused nonces in a row.
 */
export interface Ca {
  readonly base: string;
  /** `METHOD PATH`, in order. */
  readonly calls: string[];
  /** What came with each POST. */
  readonly posts: Post[];
  readonly client: (options?: Partial<AcmeClientOptions>) => AcmeClient;
}

export interface Post {
  readonly url: string;
  readonly protected: Readonly<Record<string, unknown>>;
  /** '' for POST-as-GET. */
  readonly payload: Readonly<Record<string, unknown>> | '';
  readonly body: { readonly protected: string; readonly payload: string; readonly signature: string };
}

export type Handler = (response: ServerResponse, post: Post | undefined) => void;

export async function scriptedCa(
  t: Test,
  handlers: Readonly<Record<string, Handler>>,
  directory: (base: string) => object = () => ({}),
): Promise<Ca> {
  const calls: string[] = [];
  const posts: Post[] = [];
  const server = createServer((request, response) => {
    void answer(request, response);
  });
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const call = `${request.method} ${request.url}`;
    calls.push(call);
    const text = Buffer.concat(await request.toArray()).toString();
    const post = text === '' ? undefined : postOf(request.url ?? '', text);
    if (post !== undefined) posts.push(post);
    response.setHeader('replay-nonce', `nonce-${calls.length}`);
    const handler = handlers[call];
    if (handler !== undefined) handler(response, post);
    else if (call === 'GET /dir') json(response, 200, { ...plainDirectory(base), ...directory(base) });
    else if (call === 'HEAD /nonce') response.writeHead(200).end();
    else response.writeHead(404).end();
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const client = (options: Partial<AcmeClientOptions> = {}): AcmeClient =>
    new AcmeClient({
      directoryUrl: `${base}/dir`,
      accountKey,
      accountUrl: `${base}/account/1`,
      userAgent: 'bornemisza/test',
      timeoutMs: 10_000,
      ...options,
    });
  return { base, calls, posts, client };
}

function plainDirectory(base: string): object {
  return {
    newNonce: `${base}/nonce`,
    newAccount: `${base}/new-account`,
    newOrder: `${base}/new-order`,
    revokeCert: `${base}/revoke`,
    keyChange: `${base}/key-change`,
  };
}

function postOf(url: string, text: string): Post {
  const body = JSON.parse(text) as Post['body'];
  const decoded = (part: string): Post['protected'] =>
    JSON.parse(Buffer.from(part, 'base64url').toString()) as Post['protected'];
  return {
    url,
    protected: decoded(body.protected),
    payload: body.payload === '' ? '' : decoded(body.payload),
    body,
  };
}

export function json(response: ServerResponse, status: number, body: object, headers: object = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

export function refuse(response: ServerResponse, status: number, type: string, headers: object = {}): void {
  response.writeHead(status, { 'content-type': 'application/problem+json', ...headers });
  response.end(JSON.stringify({ type: `urn:ietf:params:acme:error:${type}`, detail: `said ${type}` }));
}
