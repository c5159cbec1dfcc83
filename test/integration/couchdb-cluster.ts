/**
 * CouchDB nodes on loopback addresses with a plugin each, and a little world around them: a roster, tags that travel at
 * once, restarts on request. The release named by LAB_COUCHDB, or the stand-in.
 */
import type { ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { PluginError } from '../../src/plugins/contract.ts';
import { adminHash } from '../../src/daemon/identity/secrets.ts';
import {
  couchDbDesired,
  type CouchDbDesired,
  type DistributionTls,
  type MemberPhase,
} from '../../src/plugins/couchdb/desired.ts';
import { CouchDbPlugin } from '../../src/plugins/couchdb/plugin.ts';
import { mayRestart, RESTART_TAG } from '../../src/roles/db.ts';
import { endChild } from '../support/end-child.ts';
import { spawnWithUs } from '../support/with-us.ts';
import type { Answer, Asked } from './couchdb-checker.ts';

export const release = process.env['LAB_COUCHDB'] ?? join(import.meta.dirname, '..', 'standin', 'couchdb');
export const real = process.env['LAB_COUCHDB'] !== undefined;

/** A release waits for its own rounds of 5 s, and there are more databases to fill with each person who registers. */
const PATIENCE_MS = real ? 300_000 : 100_000;

/** A release that serves takes its time to end. */
const ORDERLY_MS = 8000;

const admin = { name: 'admin', password: 'right-password' };
const secrets = {
  cookie: 'throwawaycookie0123456789',
  secret: '00112233445566778899aabbccddeeff',
  adminName: admin.name,
  uuid: '0123456789abcdef0123456789abcdef',
};

export class Node implements Asked {
  readonly address: string;
  readonly directory: string;
  readonly plugin: CouchDbPlugin;
  readonly nodeName: string;
  /** Summaries of all changes that were applied, newest last. */
  readonly applied: string[] = [];
  lastError: PluginError | undefined;
  /** How often its reconciler has looked, and had when CouchDB was started last. */
  turns = 0;
  #turnsAtStart = 0;
  phase: MemberPhase = 'in';
  alive = true;
  password = admin.password;
  appPassword = 'app-password';
  tls: DistributionTls | undefined;
  #child: ChildProcess | undefined;
  #starting: Promise<void> | undefined;
  /** Stopped on purpose, as a machine that is off: no request starts it. */
  #off = false;

  constructor(address: string, directory: string) {
    this.address = address;
    this.nodeName = `couchdb@${address}`;
    this.directory = directory;
    this.plugin = new CouchDbPlugin({
      credentials: () => ({ name: admin.name, password: this.password }),
      appUser: () => ({ name: 'app', password: this.appPassword }),
      baseUrl: `http://${address}:15984`,
      configDirectory: join(directory, 'config'),
      markerFile: join(directory, 'couch', 'data', 'bornemisza-identity.json'),
      restartFile: join(directory, 'run', 'restart-couchdb'),
      onProgress: (text) => {
        this.applied.push(text);
        if (process.env['COUCHDB_TEST_TRACE'] !== undefined)
          console.error(`${(performance.now() / 1000).toFixed(2)} ${address}: ${text}`);
      },
    });
  }

  async prepare(): Promise<void> {
    for (const name of ['config', 'run', 'couch', 'couch/data'])
      await mkdir(join(this.directory, name), { recursive: true });
  }

  /** CouchDB's own process. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  /** A door sends nobody to a CouchDB that has just started, until it is out of maintenance. */
  get known(): boolean {
    // The first look may have begun before the start.
    return this.running && this.turns >= this.#turnsAtStart + 2;
  }

  /** The test and the path unit may both start it at once: only one process comes of it. */
  async start(): Promise<void> {
    this.#off = false;
    this.#starting ??= this.#launch().finally(() => {
      this.#starting = undefined;
    });
    await this.#starting;
  }

  async #launch(): Promise<void> {
    if (this.#child !== undefined) return;
    const config = join(this.directory, 'config');
    const home = join(this.directory, 'couch');
    await mkdir(join(home, 'data'), { recursive: true });
    const cookie = join(home, '.erlang.cookie');
    await rm(cookie, { force: true });
    await copyFile(join(config, 'cookie'), cookie);
    await chmod(cookie, 0o400);
    const localIni = join(home, 'local.ini');
    // The server writes its own settings here; the log is wanted in a file.
    if (!existsSync(localIni))
      await writeFile(localIni, `[log]\nwriter = file\nfile = ${home}/couch.log\nlevel = info\n`);
    const env: NodeJS.ProcessEnv = {
      PATH: process.env['PATH'],
      HOME: home,
      ERL_CRASH_DUMP: join(home, 'dump'),
    };
    for (const line of (await readFile(join(config, 'couchdb.env'), 'utf8')).split('\n')) {
      const at = line.indexOf('=');
      if (at > 0) env[line.slice(0, at)] = line.slice(at + 1).replace(/^"(.*)"$/, '$1');
    }
    const child = spawnWithUs(join(release, 'bin', 'couchdb'), [], { env, stdio: 'ignore' });
    this.#child = child;
    this.#turnsAtStart = this.turns;
    const ended = (): void => {
      if (this.#child === child) this.#child = undefined;
    };
    child.once('error', ended).once('exit', ended);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#off = true;
    await this.#starting;
    const child = this.#child;
    if (child === undefined) return;
    await endChild(child, signal, ORDERLY_MS);
    this.#child = undefined;
  }

  async wipe(): Promise<void> {
    await rm(join(this.directory, 'couch', 'data'), { recursive: true, force: true });
  }

  /** The path unit: restarts CouchDB and removes the file. */
  async restartIfAsked(): Promise<void> {
    const file = join(this.directory, 'run', 'restart-couchdb');
    if (!existsSync(file)) return;
    if (this.#off) {
      await rm(file, { force: true });
      return;
    }
    await this.stop();
    await this.start();
    await rm(file, { force: true });
  }

  async ask(method: string, path: string, body?: unknown, timeoutMs = 15_000): Promise<Answer> {
    const response = await fetch(`http://${this.address}:15984/${path}`, {
      method,
      headers: {
        authorization: `Basic ${Buffer.from(`${admin.name}:${admin.password}`).toString('base64')}`,
        'content-type': 'application/json',
      },
      signal: AbortSignal.timeout(timeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    let parsed: unknown = text;
    try {
      parsed = JSON.parse(text);
    } catch {
      // An answer that is no JSON is shown as text.
    }
    return { status: response.status, body: parsed };
  }
}

export class Cluster {
  readonly nodes: Node[] = [];
  /** Between two looks of each reconciler. 400: as seldom as a daemon looks while there is something to do. */
  everyMs = 400;
  /** Settings of all nodes that differ from the usual ones. */
  settings: { readonly q?: number } = {};
  readonly #base: string;
  readonly #directory: string;
  #hash = '';
  #running = true;
  #hushed: Node | undefined;
  readonly #loops: Promise<void>[] = [];
  readonly #abort = new AbortController();

  private constructor(base: string, directory: string) {
    this.#base = base;
    this.#directory = directory;
  }

  /** Addresses of its own, so that suites run beside one another. */
  static async make(): Promise<Cluster> {
    const base = `127.${randomInt(16, 240)}.${randomInt(1, 250)}`;
    const cluster = new Cluster(base, await mkdtemp(join(tmpdir(), 'couchdb-plugin-')));
    cluster.#hash = await adminHash(admin.password, '0123456789abcdef0123456789abcdef');
    return cluster;
  }

  /** Admits one node and turns its reconciler; CouchDB starts when its settings lie there. */
  async add(prepare: (node: Node) => Promise<void> = async () => {}): Promise<Node> {
    const number = this.nodes.length + 1;
    const node = new Node(`${this.#base}.${number}`, join(this.#directory, `n${number}`));
    await node.prepare();
    await prepare(node);
    this.nodes.push(node);
    this.#loops.push(this.#reconcile(node));
    return node;
  }

  desired(node: Node): CouchDbDesired {
    return couchDbDesired({
      selfPeerId: node.address,
      members: this.nodes.map((one, index) => ({
        peerId: one.address,
        name: `db${index + 1}/db`,
        address: one.address,
        phase: one.phase,
        alive: one.alive,
        tag: one === this.#hushed ? 'out' : one.plugin.known().tag,
      })),
      mayRestart: mayRestart(this.nodes.map((one) => this.#turnOf(one, node))),
      settings: {
        ...secrets,
        adminHash: this.#hash,
        httpAddress: node.address,
        epmd: false,
        distributionPort: 19_100,
        dataDirectory: join(node.directory, 'couch'),
        releaseDirectory: release,
        tls: node.tls,
        ...this.settings,
      },
    });
  }

  /** As a record would say it, at once. */
  #turnOf(one: Node, asker: Node): Parameters<typeof mayRestart>[0][number] {
    const { phase, restart } = one.plugin.known();
    return {
      self: one === asker,
      state: one.phase === 'in' ? (one.alive ? 'alive' : 'dead') : 'left',
      record: {
        health: one.running && phase === 'serving' ? 'up' : 'down',
        tags: restart === undefined ? {} : { [RESTART_TAG]: restart },
      },
    };
  }

  /** Nobody hears what this node says of itself. */
  hush(node: Node | undefined): void {
    this.#hushed = node;
  }

  /** Nodes that a balancer would send clients to. */
  rotation(): Node[] {
    return this.nodes.filter((node) => {
      const member = this.desired(node).members.find((one) => one.nodeName === node.nodeName);
      return member?.phase === 'in' && member.claim?.kind === 'serving' && node.known;
    });
  }

  async #reconcile(node: Node): Promise<void> {
    const { signal } = this.#abort;
    while (this.#running) {
      try {
        if (node.alive) {
          const desired = this.desired(node);
          const observed = await node.plugin.observe(signal);
          node.plugin.note(node.plugin.status(desired, observed));
          const changes = node.plugin.plan(desired, observed);
          if (changes.length > 0) {
            await node.plugin.validate(changes, signal);
            await node.plugin.apply(changes, signal, () => undefined);
          }
          node.lastError = undefined;
          await node.restartIfAsked();
        }
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof PluginError)) throw error;
        if (process.env['COUCHDB_TEST_TRACE'] !== undefined && node.lastError?.message !== error.message)
          console.error(
            `${(performance.now() / 1000).toFixed(2)} ${node.address}: ${error.code} ${error.message}`,
          );
        node.lastError = error;
      }
      node.turns += 1;
      await delay(this.everyMs, undefined, { signal }).catch(() => undefined);
    }
  }

  async until(what: string, met: () => boolean | Promise<boolean>, timeoutMs = PATIENCE_MS): Promise<number> {
    const beganMs = performance.now();
    for (;;) {
      if (await met()) return performance.now() - beganMs;
      if (performance.now() - beganMs > timeoutMs)
        throw new Error(`not within ${timeoutMs} ms: ${what}\n${this.describe()}`);
      await delay(100);
    }
  }

  describe(): string {
    return this.nodes
      .map((node) => {
        const status = node.plugin.known();
        return (
          `${node.address} ${status.phase} waiting: ${status.waiting} alarms: ` +
          `${JSON.stringify(status.alarms)} error: ${node.lastError?.message} last: ` +
          node.applied.slice(-4).join(' | ')
        );
      })
      .join('\n');
  }

  async serving(nodes: readonly Node[], timeoutMs = PATIENCE_MS): Promise<number> {
    return this.until(
      `${nodes.map((node) => node.address).join(', ')} serve`,
      () =>
        nodes.every(
          (node) => node.plugin.known().phase === 'serving' && node.plugin.known().waiting === undefined,
        ) && this.settled(),
      timeoutMs,
    );
  }

  /** Nobody has anything to do any more. */
  async settled(): Promise<boolean> {
    for (const node of this.nodes.filter((one) => one.alive && one.running && one.phase === 'in')) {
      // One that does not answer in time on a busy machine is not settled.
      const seen = await node.plugin.observe(AbortSignal.timeout(30_000)).catch((error: unknown) => {
        if ((error as Error).name === 'TimeoutError') return undefined;
        throw error;
      });
      const changes = seen === undefined ? [] : node.plugin.plan(this.desired(node), seen);
      if (seen === undefined || changes.length > 0 || node.plugin.known().waiting !== undefined) {
        await delay(400);
        return false;
      }
    }
    return true;
  }

  async close(): Promise<void> {
    this.#running = false;
    this.#abort.abort();
    await Promise.all(this.#loops);
    await Promise.all(
      this.nodes.map(async (node) => {
        await node.plugin.close();
        await node.stop();
      }),
    );
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  }
}
