import { type FSWatcher, watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import sirv from 'sirv';
import { CliFailure, EXIT } from './failure.ts';

/** Open connections are closed after this time, so that a restart never waits for an idle client. */
const DRAIN_MS = 5000;
/** An editor or a deployment changes many files at once: read them again when changes stop. */
const SETTLE_MS = 200;
/** HAProxy in front keeps connections; more than this is a leak. */
const MAX_CONNECTIONS = 1024;

export interface Site {
  readonly port: number;
  /** Finishes what is being answered, then ends. */
  close(): Promise<void>;
}

/**
 * Serves a directory on 127.0.0.1. The list of files is read once and again after a change (sirv reads it at start,
 * so that a request reads nothing from the disk and no path can lead out of the directory).
 *
 * @throws CliFailure `site-root-missing`, `port-in-use`, `port-not-permitted`
 */
export async function serveSite(root: string, port: number, note: (message: string) => void): Promise<Site> {
  const facts = await stat(root).catch(() => undefined);
  if (facts?.isDirectory() !== true) {
    throw new CliFailure(
      EXIT.failure,
      'site-root-missing',
      `${root} is not a directory`,
      `create it and put index.html into it: mkdir -p ${root}`,
    );
  }
  let answer = filesOf(root);
  let quiet: NodeJS.Timeout | undefined;
  const watcher = watchFiles(root, note, () => {
    clearTimeout(quiet);
    quiet = setTimeout(() => {
      answer = filesOf(root);
    }, SETTLE_MS);
  });
  const server = createServer((request, response) => answer(request, response));
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await listen(server, port);
  } catch (error) {
    watcher?.close();
    throw error;
  }
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      watcher?.close();
      clearTimeout(quiet);
      await drain(server);
    },
  };
}

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

function filesOf(root: string): Answer {
  const files = sirv(root, {
    etag: true,
    dotfiles: false,
    extensions: ['html'],
    setHeaders: (response) => {
      response.setHeader('x-content-type-options', 'nosniff');
      response.setHeader('cache-control', 'no-cache');
    },
    onNoMatch: (request, response) => nothingThere(root, request, response),
  });
  return (request, response) => {
    if (request.method === 'GET' || request.method === 'HEAD') files(request, response);
    else response.writeHead(405, { allow: 'GET, HEAD' }).end();
  };
}

/** An empty site is healthy: the node must not lose its traffic because nobody has written a page yet. */
function nothingThere(root: string, request: IncomingMessage, response: ServerResponse): void {
  const home = (request.url ?? '').split('?')[0] === '/';
  response.writeHead(home ? 200 : 404, { 'content-type': 'text/plain; charset=utf-8' });
  response.end(home ? `It works. Put index.html into ${root}.\n` : 'Not found.\n');
}

function watchFiles(
  root: string,
  note: (message: string) => void,
  changed: () => void,
): FSWatcher | undefined {
  try {
    const watcher = watch(root, { recursive: true }, changed);
    watcher.on('error', (error) =>
      note(`bornemisza: changed files in ${root} are no longer noticed: ${error.message}`),
    );
    return watcher;
  } catch (error) {
    note(`bornemisza: changed files in ${root} are not noticed until a restart: ${(error as Error).message}`);
    return undefined;
  }
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') {
      throw new CliFailure(
        EXIT.failure,
        'port-in-use',
        `port ${port} of 127.0.0.1 is in use`,
        `see who has it: ss -ltnp 'sport = :${port}'`,
      );
    }
    if (code === 'EACCES') {
      throw new CliFailure(
        EXIT.permission,
        'port-not-permitted',
        `only root may listen on port ${port}`,
        'use a port from 1024 on, e.g. --port 8080',
      );
    }
    throw new CliFailure(
      EXIT.failure,
      'port-failed',
      `cannot listen on 127.0.0.1:${port}: ${message}`,
      'run `bornemisza doctor`',
    );
  }
}

async function drain(server: Server): Promise<void> {
  const closed = once(server, 'close');
  const deadline = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
  server.close();
  server.closeIdleConnections();
  await closed;
  clearTimeout(deadline);
}
