import type { ChildProcess } from 'node:child_process';
import { generateKeyPair } from 'node:crypto';
import { mkdir, mkdtemp, rm, utimes } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  request as httpRequest,
  type Server,
} from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import forge from 'node-forge';
import { RunFailure, runPlugin } from '../../src/daemon/reconciler/run.ts';
import {
  type PlannedChange,
  type Plugin,
  PluginError,
  type PluginReport,
} from '../../src/plugins/contract.ts';
import type { AppHaproxy, DbHaproxy, PeerServer } from '../../src/plugins/haproxy/desired.ts';
import { HaproxyPlugin } from '../../src/plugins/haproxy/plugin.ts';
import { ask } from '../../src/plugins/haproxy/runtime.ts';
import { childrenOf } from '../support/children.ts';
import { endChild } from '../support/end-child.ts';
import { parseServers } from '../support/haproxy-servers.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** Real HAProxies, as the unit starts them, on addresses of 127/8 that belong to this process alone. */

/** LAB_HAPROXY=DIRECTORY runs the same tests on the `haproxy` there, e.g. a version that was built from its source. */
const LAB_HAPROXY = process.env['LAB_HAPROXY'] ?? '';
export const BINARY = LAB_HAPROXY === '' ? 'haproxy' : join(LAB_HAPROXY, 'haproxy');

export interface Leaf {
  /** Certificate and key, as HAProxy reads them. */
  readonly pem: string;
  readonly certificate: string;
  readonly key: string;
  readonly serialHex: string;
}

/** The word that the name of the certificates’ signer ends in. */
export const SIGNER = 'Signer01';

/** A root of our own; leaves carry the role as OU and HOST.ROLE.shop.internal as DNS name, as the cluster's do. */
export class Pki {
  readonly ca: string;
  readonly #key: forge.pki.rsa.PrivateKey;
  readonly #subject: forge.pki.CertificateField[] = [
    { name: 'commonName', value: `test authority ${SIGNER}` },
  ];
  #next = 0;

  private constructor(ca: string, key: forge.pki.rsa.PrivateKey) {
    this.ca = ca;
    this.#key = key;
  }

  static async make(bits = 2048): Promise<Pki> {
    const { key, publicKey } = await rsaPair(bits);
    const draft = new Pki('', key);
    const root = draft.#certificate(publicKey, draft.#subject, '01', [
      { name: 'basicConstraints', cA: true },
    ]);
    return new Pki(forge.pki.certificateToPem(root), key);
  }

  async leaf(host: string, role: string, serialHex?: string, bits = 2048): Promise<Leaf> {
    this.#next += 1;
    const { key, publicKey } = await rsaPair(bits);
    // The high bit is set: such a serial has a zero byte in front in DER.
    const serial = serialHex ?? `f00d${this.#next.toString(16).padStart(4, '0')}`;
    const subject = [
      { name: 'commonName', value: host },
      { name: 'organizationalUnitName', value: role },
    ];
    const certificate = this.#certificate(publicKey, subject, serial, [
      { name: 'subjectAltName', altNames: [{ type: 2, value: `${host}.${role}.shop.internal` }] },
    ]);
    const [pem, keyPem] = [forge.pki.certificateToPem(certificate), forge.pki.privateKeyToPem(key)];
    return { pem: pem + keyPem, certificate: pem, key: keyPem, serialHex: serial };
  }

  #certificate(
    publicKey: forge.pki.rsa.PublicKey,
    subject: forge.pki.CertificateField[],
    serial: string,
    extensions: unknown[],
  ) {
    const certificate = forge.pki.createCertificate();
    certificate.publicKey = publicKey;
    certificate.serialNumber = /^[89a-f]/i.test(serial) ? `00${serial}` : serial;
    certificate.validity.notBefore = new Date(Date.now() - 86_400_000);
    certificate.validity.notAfter = new Date(Date.now() + 86_400_000);
    certificate.setSubject(subject);
    certificate.setIssuer(this.#subject);
    certificate.setExtensions(extensions as object[]);
    certificate.sign(this.#key, forge.md.sha256.create());
    return certificate;
  }
}

async function rsaPair(modulusLength = 2048) {
  const pair = await promisify(generateKeyPair)('rsa', {
    modulusLength,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  });
  return {
    key: forge.pki.privateKeyFromPem(pair.privateKey),
    publicKey: forge.pki.publicKeyFromPem(pair.publicKey),
  };
}

export type Change = { readonly kind: string; readonly summary: string };

/** One run as the reconciler makes it. */
export async function converge<D, O, C extends PlannedChange, K, R extends PluginReport>(
  plugin: Plugin<D, O, C, K, R>,
  desired: D,
): Promise<readonly C[]> {
  const { signal } = new AbortController();
  return runPlugin(plugin, desired, { signal, undoTimeoutMs: 60_000 }).then(
    ({ planned }) => planned,
    (error: unknown) => {
      throw error instanceof RunFailure ? error.reason : error;
    },
  );
}

/**
 * Waits until a watch has had its first look, by touching a file that it looks at: only then does it see what changes.
 */
export async function looking(file: string, told: readonly string[]): Promise<void> {
  await until(
    async () => {
      const now = new Date();
      await utimes(file, now, now);
      return told.length > 0;
    },
    { what: 'the watch looks' },
  );
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** One request on a connection of its own. */
export function get(url: string, options: RequestOptions & { body?: string } = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const make = url.startsWith('https:') ? httpsRequest : httpRequest;
    const request = make(url, { agent: false, timeout: 5000, ...options }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString(),
        }),
      );
    });
    request.on('timeout', () => request.destroy(new Error('no answer in 5 s')));
    request.on('error', reject);
    request.end(options.body);
  });
}

/** One HAProxy instance with its plugin. */
export class Instance {
  readonly directory: string;
  readonly runDirectory: string;
  readonly plugin: HaproxyPlugin;
  #process: ChildProcess | undefined;
  log = '';

  constructor(root: string, name: string, kind: 'app' | 'db') {
    this.directory = join(root, name, 'files');
    this.runDirectory = join(root, name, 'run');
    this.plugin = new HaproxyPlugin({
      instance: kind,
      directory: this.directory,
      runDirectory: this.runDirectory,
      binary: BINARY,
    });
  }

  get config(): string {
    return join(this.directory, 'haproxy.cfg');
  }

  get pid(): number {
    return this.#process?.pid ?? -1;
  }

  ask(command: string): Promise<string> {
    return ask(join(this.runDirectory, 'stats.sock'), command, { unit: 'this one' });
  }

  async prepare(): Promise<void> {
    await mkdir(this.directory, { recursive: true });
    await mkdir(this.runDirectory, { recursive: true });
  }

  /** As bornemisza-haproxy@.service does. */
  async start(): Promise<void> {
    const master = `${join(this.runDirectory, 'master.sock')},mode,660,level,admin`;
    this.#process = spawnWithUs(BINARY, ['-Ws', '-S', master, '-f', this.config], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const keep = (chunk: Buffer): void => {
      this.log = (this.log + chunk.toString()).slice(-20_000);
    };
    this.#process.stdout?.on('data', keep);
    this.#process.stderr?.on('data', keep);
    await until(() => this.ask('show info').then(Boolean, () => false), {
      what: `HAProxy answers: ${this.log}`,
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child !== undefined) await endChild(child, signal);
  }

  /** As when its machine stands still until the promise is settled: connections come in, and nothing in it moves. */
  async standStill(until: Promise<unknown>): Promise<void> {
    const workers = await childrenOf(this.pid);
    for (const pid of workers) process.kill(pid, 'SIGSTOP');
    await until.finally(() => workers.forEach((pid) => process.kill(pid, 'SIGCONT')));
  }

  async servers(backend: string): Promise<Record<string, string>> {
    const servers = parseServers(await this.ask(`show stat ${backend} 4 -1`));
    return Object.fromEntries(servers.map(({ name, status }) => [name, status]));
  }
}

/** Whether this HAProxy adds and deletes servers at run time; 2.4 learns of them by a reload. */
export const addsServers = async ({ plugin }: { readonly plugin: HaproxyPlugin }): Promise<boolean> =>
  (await plugin.observe(AbortSignal.timeout(5000))).running?.addsServers === true;

/** Everything that a test made, and its end. */
export class Bed {
  readonly root: string;
  readonly pki: Pki;
  readonly #prefix: string;
  readonly #ends: (() => Promise<unknown>)[] = [];

  private constructor(root: string, pki: Pki) {
    this.root = root;
    this.pki = pki;
    // 127/8 has room for every process of the machine: no two test files meet.
    this.#prefix = `127.${100 + ((process.pid >> 8) & 0x3f)}.${process.pid & 0xff}`;
  }

  /** @param bits of the key of the certificates' signer */
  static async make(bits?: number): Promise<Bed> {
    return new Bed(await mkdtemp(join(tmpdir(), 'bm-haproxy-')), await Pki.make(bits));
  }

  address(n: number): string {
    return `${this.#prefix}.${n}`;
  }

  onEnd(end: () => Promise<unknown>): void {
    this.#ends.push(end);
  }

  async end(): Promise<void> {
    for (const end of this.#ends.toReversed()) await end();
    await rm(this.root, { recursive: true, force: true });
  }

  async instance(name: string, kind: 'app' | 'db'): Promise<Instance> {
    const instance = new Instance(this.root, name, kind);
    await instance.prepare();
    this.onEnd(async () => {
      await instance.plugin.close();
      await instance.stop('SIGINT');
    });
    return instance;
  }

  /** Writes the configuration, starts HAProxy from it and settles the rest, as a first start of a host does. */
  async launch(name: string, desired: AppHaproxy | DbHaproxy): Promise<Instance> {
    const instance = await this.instance(name, desired.instance);
    const error = await converge(instance.plugin, desired).catch((failed: unknown) => failed);
    if (!(error instanceof PluginError) || error.code !== 'haproxy-not-running') throw error;
    await instance.start();
    await converge(instance.plugin, desired);
    return instance;
  }

  /** A plain HTTP server on 127.0.0.1. */
  async server(listener: RequestListener): Promise<Server & { port: number }> {
    const server = createServer(listener);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.onEnd(async () => {
      server.closeAllConnections();
      server.close();
    });
    return Object.assign(server, { port: (server.address() as AddressInfo).port });
  }
}

/** A port of 127.0.0.1 that was free a moment ago, for what must listen there. */
export function peer(
  name: string,
  address: string,
  port: number,
  duty: PeerServer['duty'] = 'ready',
  why = 'alive',
): PeerServer {
  return { name, address, port, duty, why };
}

export function appDesired(of: {
  address: string;
  node: Leaf;
  ca: string;
  databasePort: number;
  services?: AppHaproxy['services'];
  databases?: readonly PeerServer[];
  doors?: readonly PeerServer[];
  revoked?: AppHaproxy['revoked'];
}): AppHaproxy {
  return {
    instance: 'app',
    privateAddress: of.address,
    statsPort: 8404,
    certificates: { node: of.node.pem, ca: of.ca, edge: undefined },
    revoked: of.revoked ?? [],
    revokedAuthorities: [],
    knownCertificates: [],
    edge: { addresses: [of.address], httpsPort: 443, httpPort: 80, hstsMaxAgeSeconds: undefined },
    doorPort: 8443,
    services: of.services ?? [],
    databasePort: of.databasePort,
    databases: { verifySuffix: 'db.shop.internal', servers: of.databases ?? [] },
    doors: { verifySuffix: 'app.shop.internal', servers: of.doors ?? [] },
  };
}

export function dbDesired(of: {
  address: string;
  node: Leaf;
  ca: string;
  couchdbPort: number;
  peers?: readonly PeerServer[];
  revoked?: DbHaproxy['revoked'];
  databases?: DbHaproxy['databases'];
}): DbHaproxy {
  return {
    instance: 'db',
    privateAddress: of.address,
    statsPort: 8405,
    certificates: { node: of.node.pem, ca: of.ca, edge: undefined },
    revoked: of.revoked ?? [],
    revokedAuthorities: [],
    knownCertificates: [],
    appDoorPort: 6984,
    peerDoorPort: 6985,
    couchdbPort: of.couchdbPort,
    peers: { verifySuffix: 'db.shop.internal', servers: of.peers ?? [] },
    databases: of.databases ?? { given: true, why: 'all agree' },
  };
}
