/**
 * Pebble, the test CA of Let's Encrypt, on loopback with a name server and a front. The front passes everything on,
 * writes down what was answered, and adds what Debian's pebble does not have: renewal information, and a bad day.
 */
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { freePort } from '../support/free-port.ts';
import { selfSigned } from '../support/self-signed.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

const CHALLENGE = /^\/\.well-known\/acme-challenge\/([A-Za-z0-9_-]{1,128})$/;

export const EXTERNAL = {
  kid: 'kid-1',
  hmacKey: 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W',
};

export interface Answered {
  readonly call: string;
  readonly status: number;
  readonly body: string;
}

export interface Injected {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface Pebble {
  readonly directoryUrl: string;
  /** PEM of the certificate that the front shows. */
  readonly ca: string;
  readonly answered: readonly Answered[];
  /** Payloads of what was posted, in order. */
  readonly payloads: readonly string[];
  /** What the front says instead of pebble; undefined: pebble's own word. */
  inject: ((call: string) => Injected | undefined) | undefined;
  /** Whether pebble's answer to a call is lost on its way. */
  lose: ((call: string) => boolean) | undefined;
  /** What the edge answers to the challenge with this token; undefined: 404. */
  edge: (token: string) => string | undefined;
  /** `Valid` or `Revoked`, with the reason. */
  statusOf(serialNumber: string): Promise<{ readonly Status: string; readonly Reason?: number }>;
  end(): Promise<void>;
}

export interface PebbleOptions {
  /** How many of a hundred good nonces it refuses. */
  readonly refusedNonces?: number;
  readonly externalAccounts?: boolean;
  /** Where it looks for what it asked for; undefined: at the front, which answers by `edge`. */
  /** The name server that it asks, with its port; undefined: one that gives every name the edge's address. */
  readonly namesAt?: string;
  readonly edgeAt?: { readonly address: string; readonly port: number };
}

export async function startPebble(t: Test, options: PebbleOptions = {}): Promise<Pebble> {
  const directory = join(t.testdir(), randomUUID());
  await mkdir(directory);
  const { key, cert } = await selfSigned(directory, 'pebble', 'IP:127.0.0.1');
  const [api, management, dns, dnsManagement, http] = await freePorts();
  await writeFile(
    join(directory, 'pebble.json'),
    JSON.stringify({
      pebble: {
        listenAddress: `127.0.0.1:${api}`,
        managementListenAddress: `127.0.0.1:${management}`,
        certificate: cert,
        privateKey: key,
        httpPort: options.edgeAt?.port ?? http,
        tlsPort: await freePort(),
        externalAccountBindingRequired: options.externalAccounts === true,
        externalAccountMACKeys: { [EXTERNAL.kid]: EXTERNAL.hmacKey },
      },
    }),
  );
  const names = start('pebble-challtestsrv', [
    ...['-dns01', `127.0.0.1:${dns}`, '-management', `127.0.0.1:${dnsManagement}`],
    ...[
      '-defaultIPv4',
      options.edgeAt?.address ?? '127.0.0.1',
      '-defaultIPv6',
      '',
      '-http01',
      '',
      '-https01',
      '',
      '-tlsalpn01',
      '',
    ],
  ]);
  const pebble = start(
    'pebble',
    ['-config', join(directory, 'pebble.json'), '-dnsserver', options.namesAt ?? `127.0.0.1:${dns}`],
    {
      PEBBLE_VA_NOSLEEP: '1',
      PEBBLE_AUTHZREUSE: '0',
      PEBBLE_WFE_NONCEREJECT: String(options.refusedNonces ?? 0),
    },
  );
  const tls = { key: await readFile(key), cert: await readFile(cert) };
  const front = new Front(tls, api, http);
  const end = async (): Promise<void> => {
    front.close();
    await Promise.all([pebble, names].map(ended));
  };
  t.teardown(end);
  await front.listen();
  const ca = tls.cert.toString();
  await until(() => got(`https://127.0.0.1:${api}/dir`, ca), { deadlineMs: 30_000, what: 'pebble' });
  return Object.assign(front, {
    ca,
    end,
    statusOf: async (serialNumber: string) =>
      JSON.parse(await got(`https://127.0.0.1:${management}/cert-status-by-serial/${serialNumber}`, ca)) as {
        readonly Status: string;
        readonly Reason?: number;
      },
  });
}

class Front {
  directoryUrl = '';
  readonly answered: Answered[] = [];
  readonly payloads: string[] = [];
  inject: Pebble['inject'];
  lose: Pebble['lose'];
  edge: Pebble['edge'] = () => undefined;
  readonly #api: number;
  readonly #http: number;
  readonly #server;
  readonly #edge;
  readonly #cert: Buffer;

  constructor(tls: { readonly key: Buffer; readonly cert: Buffer }, api: number, http: number) {
    this.#api = api;
    this.#http = http;
    this.#cert = tls.cert;
    this.#server = createServer(tls, (asked, answer) => void this.#pass(asked, answer));
    this.#edge = createHttpServer((asked, answer) => {
      const token = CHALLENGE.exec(asked.url ?? '')?.[1];
      const said = token === undefined ? undefined : this.edge(token);
      answer.writeHead(said === undefined ? 404 : 200, { 'content-type': 'text/plain' }).end(said);
    });
  }

  async listen(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    this.#edge.listen(this.#http, '127.0.0.1');
    await Promise.all([once(this.#server, 'listening'), once(this.#edge, 'listening')]);
    this.directoryUrl = `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}/dir`;
  }

  close(): void {
    for (const each of [this.#server, this.#edge]) {
      each.closeAllConnections();
      each.close();
    }
  }

  async #pass(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const call = `${asked.method} ${asked.url}`;
    const body = Buffer.concat(await asked.toArray());
    if (asked.method === 'POST') {
      const { payload } = JSON.parse(body.toString()) as { readonly payload: string };
      this.payloads.push(Buffer.from(payload, 'base64url').toString());
    }
    const injected = this.inject?.(call);
    if (injected !== undefined) {
      this.answered.push({ call, status: injected.status, body: injected.body ?? '' });
      answer.writeHead(injected.status, injected.headers).end(injected.body);
      return;
    }
    const { method, url: path, headers } = asked;
    // With the front's own Host: pebble makes the addresses of its directory from it.
    const to = { host: '127.0.0.1', port: this.#api, ca: this.#cert, agent: false, method, path, headers };
    const passed = request({ ...to }, (response) => {
      void response.toArray().then((parts: Buffer[]) => {
        const text = Buffer.concat(parts);
        const status = response.statusCode ?? 0;
        this.answered.push({ call, status, body: text.toString() });
        if (this.lose?.(call) === true) answer.destroy();
        else answer.writeHead(status, response.headers).end(text);
      });
    });
    passed.on('error', () => answer.destroy());
    passed.end(body);
  }
}

/** @returns the body of a 200 */
function got(url: string, ca: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const asked = request(url, { ca, agent: false, timeout: 5000 }, (response) => {
    void response.toArray().then((parts: Buffer[]) => {
      const text = Buffer.concat(parts).toString();
      if (response.statusCode === 200) resolve(text);
      else reject(new Error(`${url}: ${response.statusCode} ${text}`));
    });
  });
  asked.on('timeout', () => asked.destroy(new Error(`${url}: no answer`)));
  asked.on('error', reject);
  asked.end();
  return promise;
}

async function freePorts(): Promise<[number, number, number, number, number]> {
  return [await freePort(), await freePort(), await freePort(), await freePort(), await freePort()];
}

function start(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  return spawnWithUs(program, args, {
    stdio: 'ignore',
    env: { ...process.env, ...env },
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}
