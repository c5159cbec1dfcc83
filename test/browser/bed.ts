/**
 * Debian's Chromium before two nodes of the app tier, through a TLS proxy that goes to the other node when one is gone.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer, type Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, type BrowserContext, chromium } from 'playwright-core';
import type { AppNode } from '../integration/app-bed.ts';
import { freePort } from '../support/free-port.ts';
import { selfSigned } from '../support/self-signed.ts';

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';

/** On a machine that runs everything else at the same time. */
const PATIENCE_MS = 120_000;

export interface Front {
  readonly port: number;
  close(): Promise<void>;
}

/** What the edge does for a browser: TLS, the client's address, and another node where one does not answer. */
export async function front(nodes: readonly AppNode[]): Promise<Front> {
  const directory = await mkdtemp(join(tmpdir(), 'bornemisza-front-'));
  const { key, cert } = await selfSigned(directory, 'notes.test');
  const server = createServer(
    { key: await readFile(key), cert: await readFile(cert) },
    (incoming, outgoing) => {
      const parts: Buffer[] = [];
      incoming.on('data', (part: Buffer) => parts.push(part));
      incoming.on('end', () => pass(0));
      const pass = (at: number): void => {
        const node = nodes[at];
        if (node === undefined) {
          outgoing.writeHead(503).end();
          return;
        }
        const headers = { ...incoming.headers, 'x-forwarded-for': '192.0.2.1' };
        const { url: path, method } = incoming;
        const passed = request({ port: node.port, host: '127.0.0.1', path, method, headers }, (answer) => {
          outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(outgoing);
          answer.on('error', () => outgoing.destroy());
        });
        outgoing.on('close', () => passed.destroy());
        passed.on('error', () => {
          if (outgoing.headersSent) outgoing.destroy();
          else if (!outgoing.destroyed) pass(at + 1);
        });
        passed.end(Buffer.concat(parts));
      };
    },
  );
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    port,
    async close() {
      await closed(server);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function closed(server: Server): Promise<void> {
  const done = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await done;
}

export async function launch(port: number): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--ignore-certificate-errors',
      `--host-resolver-rules=MAP notes.test:443 127.0.0.1:${port}`,
    ],
  });
}

/** A context whose pages keep every violation of the policy and every error, to be asserted empty. */
export async function strictContext(
  browser: Browser,
  options: object,
): Promise<{ context: BrowserContext; faults: string[] }> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const faults: string[] = [];
  context.on('weberror', (error) => faults.push(String(error.error())));
  context.on('console', (message) => {
    if (/Content Security Policy|TrustedScript|Refused to/.test(message.text())) faults.push(message.text());
  });
  return { context, faults };
}
