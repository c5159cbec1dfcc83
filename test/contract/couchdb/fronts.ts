import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Apart } from './apart.ts';
import type { CertificateKind, DistCertificates } from './certificates.ts';
import { endChild } from '../../support/end-child.ts';
import { isOver } from '../../support/patience.ts';
import { spawnWithUs } from '../../support/with-us.ts';

/** How a node is to be started; what is left out is as in the recorded cluster. */
export type StartOptions = {
  wipe?: boolean;
  cookie?: string;
  /** The cookie in $HOME/.erlang.cookie, none in vm.args. */
  cookieFile?: boolean;
  name?: string;
  bind?: string;
  tls?: CertificateKind;
  /** Names spoken to in plain although TLS is on. */
  plainTo?: string;
  secret?: string;
  seedlist?: string;
  admin?: string;
};

/** Short enough that a frozen node is missed soon, long enough for a busy machine. */
const netTickTimeSeconds = 5;
const startTimeoutMs = 90_000;
const port = 5984;
const distributionPort = 9100;
const release = process.env.LAB_COUCHDB;
const program =
  release === undefined
    ? join(import.meta.dirname, '../../standin/couchdb/bin/couchdb')
    : join(release, 'bin/couchdb');

/** The real release needs its own defaults first, and every node its distribution port without an epmd. */
const releaseIni = release === undefined ? [] : [join(release, 'etc/default.ini')];
const releaseArgs =
  release === undefined
    ? []
    : [
        '-start_epmd false',
        `-erl_epmd_port ${distributionPort}`,
        '-kernel prevent_overlapping_partitions false',
        '+Bd -noinput',
        '-os_mon start_cpu_sup false start_memsup false disk_almost_full_threshold 1.0',
      ];
/** Not the recorded `monster`: a release refuses to start with the cookie that everybody knows. */
const cookie = 'throwawaycookie0123456789';

/** What is still open when the process is ended from outside. */
const open = new Set<Fronts>();
process.once('exit', () => {
  for (const fronts of open) fronts.abandon();
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

/** Fronts of one recorded cluster, node N on loopback address `base`N, where the recording has 10.77.0.N. */
export class Fronts {
  readonly base: string;
  /** A release runs, not the stand-in. */
  readonly real = release !== undefined;
  readonly #dir: string;
  /** Undefined: all on loopback addresses of one machine. */
  readonly #apart: Apart | undefined;
  readonly #certificates: DistCertificates;
  readonly #running = new Map<number, ChildProcess>();
  readonly #bind = new Map<number, string>();

  private constructor(base: string, dir: string, certificates: DistCertificates, apart?: Apart) {
    this.base = base;
    this.#dir = dir;
    this.#apart = apart;
    open.add(this);
    this.#certificates = certificates;
  }

  static async create(certificates: DistCertificates): Promise<Fronts> {
    const octet = () => 1 + Math.floor(Math.random() * 253);
    return new Fronts(
      `127.${octet()}.${octet()}.`,
      await mkdtemp(join(tmpdir(), 'couch-replay-')),
      certificates,
    );
  }

  /** Each in a network namespace of its own, at the recorded addresses, so that links can be cut. Needs root. */
  static async createApart(certificates: DistCertificates): Promise<Fronts> {
    const dir = await mkdtemp(join(tmpdir(), 'couch-replay-'));
    const apart = await Apart.create(dir, port);
    return new Fronts(apart.base, dir, certificates, apart);
  }

  /** The node is behind a cut cable, for the other nodes; its HTTP is still reached. */
  async cut(node: number): Promise<void> {
    await this.#apart?.cut(node, distributionPort);
  }

  async heal(node: number): Promise<void> {
    await this.#apart?.heal(node);
  }

  /** One request. @throws Error when nobody answers */
  async ask(
    node: number,
    method: string,
    path: string,
    headers: Record<string, string>,
    body: string | undefined,
  ): Promise<{ status: number; text: string; cookie: string | undefined }> {
    const where =
      this.#apart === undefined
        ? { host: this.#bind.get(node) ?? `${this.base}${node}`, port }
        : { socketPath: this.#apart.socket(node) };
    const length = body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(body)) };
    const sent = request({ ...where, method, path, headers: { ...headers, ...length }, agent: false });
    // What a release sends behind a whole answer is no matter of the one who asked.
    sent.on('error', () => undefined);
    sent.end(body);
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += String(chunk);
    return { status: response.statusCode ?? 0, text, cookie: response.headers['set-cookie']?.[0] };
  }

  /** The recording's addresses turned into this run's. */
  here(text: string): string {
    return text.replaceAll('10.77.0.', this.base);
  }

  url(node: number, path: string): string {
    return `http://${this.#bind.get(node) ?? `${this.base}${node}`}:${port}${path}`;
  }

  /** Where requests for the node go from now on. */
  rebind(node: number, address: string): void {
    this.#bind.set(node, this.here(address));
  }

  async start(node: number, options: StartOptions = {}): Promise<void> {
    if (this.#running.has(node)) await this.stop(node);
    const dir = join(this.#dir, String(node));
    if (options.wipe !== false) await rm(dir, { recursive: true, force: true });
    await mkdir(dir, { recursive: true });
    await this.#write(node, dir, options);
    const [command, ...argv] = this.#apart?.inside(node, [program]) ?? [program];
    const child = spawnWithUs(command as string, argv, {
      env: {
        PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
        STANDIN_NODE: process.execPath,
        HOME: dir,
        NODE_COMPILE_CACHE: join(tmpdir(), 'couch-replay-compiled'),
        COUCHDB_ARGS_FILE: join(dir, 'vm.args'),
        COUCHDB_INI_FILES: [...releaseIni, join(dir, 'default.ini'), join(dir, 'local.ini')].join(' '),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    child.stdout?.resume();
    this.#running.set(node, child);
    await this.#untilUp(node, child);
  }

  async #untilUp(node: number, child: ChildProcess): Promise<void> {
    const sinceMs = performance.now();
    while (!isOver(sinceMs, startTimeoutMs) && child.exitCode === null) {
      const answered = await this.ask(node, 'GET', '/_session', {}, undefined).then(
        () => true,
        () => false,
      );
      if (answered) return;
      await sleep(30);
    }
    throw new Error(`node ${node} did not start (${child.exitCode ?? child.signalCode ?? 'running'})`);
  }

  async #write(node: number, dir: string, options: StartOptions): Promise<void> {
    const fresh = options.wipe !== false;
    await writeFile(join(dir, 'vm.args'), await this.#vmArgs(node, dir, options));
    if (options.cookieFile) await writeFile(join(dir, '.erlang.cookie'), cookie, { mode: 0o400, flag: 'w' });
    const bind = options.bind ?? `${this.base}${node}`;
    this.#bind.set(node, bind);
    const ini = ['[chttpd]', `port = ${port}`, `bind_address = ${bind}`];
    ini.push('[couchdb]', `database_dir = ${join(dir, 'data')}`, `view_index_dir = ${join(dir, 'data')}`);
    ini.push('[cluster]', 'reconnect_interval_sec = 37', '[fabric]', 'request_timeout = 3000');
    if (options.seedlist !== undefined)
      ini.splice(ini.indexOf('[cluster]') + 1, 0, `seedlist = ${this.here(options.seedlist)}`);
    ini.push(
      '[log]',
      'writer = file',
      `file = ${join(dir, 'couch.log')}`,
      '[smoosh]',
      `state_dir = ${join(dir, 'data')}`,
    );
    await writeFile(join(dir, 'default.ini'), `${ini.join('\n')}\n`);
    if (!fresh) return;
    const local = ['[admins]', `admin = ${options.admin ?? 'adminpw'}`];
    if (options.secret !== undefined) local.push('[chttpd_auth]', `secret = ${options.secret}`);
    await writeFile(join(dir, 'local.ini'), `${local.join('\n')}\n`);
  }

  async #vmArgs(node: number, dir: string, options: StartOptions): Promise<string> {
    const address = `${this.base}${node}`;
    const lines = [`-name ${options.name === undefined ? `couchdb@${address}` : this.here(options.name)}`];
    if (!options.cookieFile) lines.push(`-setcookie ${options.cookie ?? cookie}`);
    lines.push(`-kernel inet_dist_use_interface {${address.replaceAll('.', ',')}}`);
    lines.push(`-kernel inet_dist_listen_min ${distributionPort} inet_dist_listen_max ${distributionPort}`);
    lines.push(`-kernel net_ticktime ${netTickTimeSeconds}`);
    lines.push(...releaseArgs);
    if (options.tls !== undefined) {
      const file = await this.#certificates.write(join(dir, 'tls'), options.tls, address);
      const plain = options.plainTo === undefined ? 'false' : `'"${this.here(options.plainTo)}"'`;
      lines.push('-proto_dist couch', `-couch_dist no_tls ${plain}`, `-ssl_dist_optfile ${file}`);
    }
    return `${lines.join('\n')}\n`;
  }

  async stop(node: number, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#running.get(node);
    if (child === undefined) return;
    this.#running.delete(node);
    child.kill('SIGCONT');
    await endChild(child, signal);
  }

  /** Silent to all others, as behind a cut cable; its kernel still acknowledges. */
  freeze(node: number): void {
    this.#running.get(node)?.kill('SIGSTOP');
  }

  thaw(node: number): void {
    this.#running.get(node)?.kill('SIGCONT');
  }

  /** At the end of the process, where nothing can be waited for. */
  abandon(): void {
    for (const child of this.#running.values()) child.kill('SIGKILL');
    rmSync(this.#dir, { recursive: true, force: true });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((node) => this.stop(node, 'SIGKILL')));
    open.delete(this);
    await this.#apart?.close();
    await rm(this.#dir, { recursive: true, force: true });
  }
}
