import { type ChildProcess, execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, appendFile, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import type { AuditEntry, MemberRow } from '../../src/daemon/control/api.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { parseServers } from '../support/haproxy-servers.ts';
import type { Picture, World } from './world.ts';

const repository = resolve(import.meta.dirname, '../..');
const bundle = join(repository, 'dist/bornemisza.mjs');
const couchdb = process.env['LAB_COUCHDB'] ?? join(repository, 'test/standin/couchdb');
const SITE = 'name = "site"\nport = PORT\npath_prefix = "/"\nhealth_path = "/"\n';

/** What the full demo needs and this machine or user lacks, in words with a remedy. */
export async function missingForLab(): Promise<string[]> {
  const missing: string[] = [];
  if (process.platform !== 'linux') missing.push(`Linux (this is ${process.platform})`);
  if (process.getuid?.() !== 0)
    missing.push('root (run it as root or with sudo: it makes network namespaces)');
  for (const program of [
    'ip',
    'nft',
    'nsenter',
    'unshare',
    'bird',
    'birdc',
    'haproxy',
    'socat',
    'curl',
    'systemd-sysusers',
  ]) {
    if (!(await installed(program))) missing.push(`the program ${program}`);
  }
  return missing;
}

/** Whether a program is found where root finds it. */
export async function installed(program: string): Promise<boolean> {
  const directories = [
    ...(process.env['PATH'] ?? '').split(delimiter),
    '/usr/sbin',
    '/sbin',
    '/usr/lib/systemd',
  ];
  const found = await Promise.all(
    directories.map((directory) =>
      access(join(directory, program), constants.X_OK).then(
        () => true,
        () => false,
      ),
    ),
  );
  return found.includes(true);
}

/**
 * The story’s world without root: every node is a set of processes on an address of its own in 127.0.0.0/8. There is
 * no BIRD and no systemd; a cut is a node whose processes are frozen, a reboot is all processes ended and started.
 */
export async function loopbackWorld(options: {
  app: number;
  db: number;
  progress: (text: string) => void;
}): Promise<World> {
  if (!(await installed('haproxy'))) {
    throw new Error(
      'the program haproxy is missing, and nothing can be balanced without it: apt-get install haproxy, ' +
        'or dnf install haproxy',
    );
  }
  const root = await mkdtemp(join(tmpdir(), 'bornemisza-demo-'));
  // Two demos at once get different networks out of 127.0.0.0/8.
  const network = `127.${100 + (process.pid % 100)}.${Math.floor(process.pid / 100) % 200}`;
  const nodes = new Map<string, LoopbackNode>();
  const left = new Set<string>();
  let count = 0;
  const add = async (host: string, role: 'app' | 'db', token: string | undefined): Promise<void> => {
    count += 1;
    const node = new LoopbackNode({
      host,
      role,
      address: `${network}.${10 + count}`,
      root: join(root, host),
      number: count,
    });
    nodes.set(host, node);
    await node.prepare(token);
    await node.start();
  };
  const first = (): LoopbackNode => {
    const found = [...nodes.values()].find((node) => node.running);
    if (found === undefined) throw new Error('no node runs');
    return found;
  };
  const hosts = (role: 'app' | 'db'): string[] =>
    [...nodes.values()].filter((node) => node.role === role && !left.has(node.host)).map((node) => node.host);
  const node = (host: string): LoopbackNode => {
    const found = nodes.get(host);
    if (found === undefined) throw new Error(`no node ${host}`);
    return found;
  };
  const admit = async (host: string, role: 'app' | 'db'): Promise<void> => {
    const made = JSON.parse(await first().command(['token', 'create', '--role', role, '--json'])) as {
      token: string;
    };
    await add(host, role, made.token);
  };
  const close = async (): Promise<void> => {
    await Promise.all([...nodes.values()].map((each) => each.stop('SIGKILL')));
    await rm(root, { recursive: true, force: true });
  };
  const addressNames = (): Map<string, string> =>
    new Map([...nodes.values()].map((each) => [each.address, each.host]));

  try {
    const names = [
      ...Array.from({ length: options.app }, (_, index) => ['app', `app${index + 1}`] as const),
      ...Array.from({ length: options.db }, (_, index) => ['db', `db${index + 1}`] as const),
    ];
    for (const [role, host] of names) {
      options.progress(nodes.size === 0 ? `bornemisza init on ${host}` : `bornemisza join on ${host}`);
      await (nodes.size === 0 ? add(host, role, undefined) : admit(host, role));
    }
  } catch (error) {
    await close();
    throw error;
  }

  const look = async (): Promise<Picture> => {
    const asked = first();
    const running = [...nodes.values()].filter((each) => each.running && !left.has(each.host));
    const named = addressNames();
    const word = (list: readonly string[]): string[] =>
      list.map((each) => named.get(each.split('@')[1] ?? '') ?? each);
    const [members, audit, servers, couch] = await Promise.all([
      asked.ask<{ members: MemberRow[] }>('/v1/members'),
      asked.ask<{ entries: AuditEntry[] }>('/v1/audit?limit=200'),
      Promise.all(
        running
          .filter((each) => each.role === 'app')
          .map(
            async (each) =>
              [`${each.host}/app`, parseServers(await each.haproxy('show stat').catch(() => ''))] as const,
          ),
      ),
      Promise.all(
        running
          .filter((each) => each.role === 'db')
          .map(async (each) => {
            const answer = await each.membership().catch(() => undefined);
            return [
              each.host,
              answer && { connected: word(answer.all_nodes), members: word(answer.cluster_nodes) },
            ] as const;
          }),
      ),
    ]);
    return {
      askedName: `${asked.host}/${asked.role}`,
      members: members.members,
      events: audit.entries,
      announcers: undefined,
      servers: new Map(servers),
      couch: new Map(couch),
    };
  };

  return {
    routed: false,
    around: undefined,
    service: 'site',
    title: `${options.app} app and ${options.db} db nodes as processes on ${network}.0/24, no BIRD, no systemd`,
    site: first().site,
    look,
    hosts,
    visit: () => first().visit(),
    join: admit,
    kill: (host) => node(host).stop('SIGKILL'),
    revive: (host) => node(host).start(),
    cut: async (host) => node(host).signal('SIGSTOP'),
    heal: async (host) => node(host).signal('SIGCONT'),
    leave: async (host, progress) => {
      const text = await node(host).command(['leave', '--json']);
      for (const line of text.trim().split('\n')) progress((JSON.parse(line) as { message: string }).message);
      left.add(host);
      await node(host).stop('SIGTERM');
    },
    rebootAll: async () => {
      const all = [...nodes.values()].filter((each) => !left.has(each.host));
      await Promise.all(all.map((each) => each.stop('SIGTERM')));
      await Promise.all(all.map((each) => each.start()));
    },
    diagnose: async () => {
      const parts = await Promise.all(
        [...nodes.values()].map(
          async (each) =>
            `===== ${each.host}\n${await each.command(['status']).catch(String)}\n${await each.lastWords()}`,
        ),
      );
      return parts.join('\n');
    },
    close,
  };
}

interface LoopbackNodeOptions {
  readonly host: string;
  readonly role: 'app' | 'db';
  readonly address: string;
  readonly root: string;
  readonly number: number;
}

/** One node: daemon, HAProxy, and CouchDB or the site, each a child process with files under one directory. */
class LoopbackNode {
  readonly host: string;
  readonly role: 'app' | 'db';
  readonly address: string;
  readonly #root: string;
  readonly #ports: { https: number; http: number; database: number; site: number; couchdb: number };
  readonly #children = new Map<string, ChildProcess>();
  #stopping = false;

  constructor({ host, role, address, root, number }: LoopbackNodeOptions) {
    this.host = host;
    this.role = role;
    this.address = address;
    this.#root = root;
    // All nodes share one loopback, so what binds 127.0.0.1 or every address needs a port of its own per node.
    // Below 32768, where the kernel begins to take ports for connections.
    const base = 10_000 + (process.pid % 200) * 100 + number * 5;
    this.#ports = { https: base, http: base + 1, database: base + 2, site: base + 3, couchdb: base + 4 };
  }

  get running(): boolean {
    return this.#children.has('daemon');
  }

  get site(): string {
    return `https://127.0.0.1:${this.#ports.https}/`;
  }

  async prepare(token: string | undefined): Promise<void> {
    const { host, role, address } = this;
    for (const path of [
      `run/bornemisza/${role}`,
      `run/bornemisza-haproxy/${role}`,
      `var/lib/bornemisza/haproxy/${role}`,
      'var/lib/bornemisza/couchdb',
      'var/lib/couchdb/data',
      'site',
      'log',
    ]) {
      await mkdir(join(this.#root, path), { recursive: true });
    }
    const own = ['--host', host, '--private-address', address];
    const args =
      token === undefined ? ['init', '--role', role, '--cluster', 'demo', ...own] : ['join', '-', ...own];
    await this.command(args, token);
    await this.#configure();
  }

  async #configure(): Promise<void> {
    const { https, http, database, site, couchdb: port } = this.#ports;
    const file = join(this.#root, `etc/bornemisza/${this.role}.toml`);
    const text = await readFile(file, 'utf8');
    const ports =
      this.role === 'app'
        ? `https_port = ${https}\nhttp_port = ${http}\ndatabase_port = ${database}\n`
        : `http_port = ${port}\n`;
    const section = this.role === 'app' ? '[edge]\n' : '[couchdb]\n';
    await writeFile(
      file,
      text.includes(section) ? text.replace(section, section + ports) : `${text}\n${section}${ports}`,
    );
    if (this.role === 'db') return;
    await mkdir(join(this.#root, 'etc/bornemisza/services.d'), { recursive: true });
    await writeFile(
      join(this.#root, 'etc/bornemisza/services.d/site.toml'),
      SITE.replace('PORT', String(site)),
    );
    await writeFile(join(this.#root, 'site/index.html'), `<h1>It works</h1><p>served by ${this.host}\n`);
  }

  async start(): Promise<void> {
    this.#stopping = false;
    const lib = join(this.#root, `var/lib/bornemisza/haproxy/${this.role}`);
    const run = join(this.#root, `run/bornemisza-haproxy/${this.role}`);
    const configuration = join(lib, 'haproxy.cfg');
    const empty = `global\n  stats socket "${run}/stats.sock" mode 660 level admin expose-fd listeners\n`;
    await access(configuration).catch(() => writeFile(configuration, empty));
    await this.#keep('haproxy', 'haproxy', [
      '-Ws',
      '-f',
      configuration,
      '-S',
      `${run}/master.sock,mode,660,level,admin`,
    ]);
    if (this.role === 'app') {
      await this.#keep('site', process.execPath, [
        bundle,
        'site',
        '--root',
        join(this.#root, 'site'),
        '--port',
        String(this.#ports.site),
      ]);
    }
    await this.#keep('daemon', process.execPath, [
      bundle,
      'daemon',
      '--role',
      this.role,
      '--root',
      this.#root,
    ]);
    if (this.role === 'db') void this.#restartCouchDbOnRequest();
    await until(() => this.ask('/v1/status'), {
      deadlineMs: 30_000,
      everyMs: 50,
      what: `the daemon of ${this.host} answers`,
    });
  }

  /** What the path unit and its oneshot do where there is a systemd. */
  async #restartCouchDbOnRequest(): Promise<void> {
    const request = join(this.#root, 'run/bornemisza/db/restart-couchdb');
    const files = join(this.#root, 'var/lib/bornemisza/couchdb');
    const data = join(this.#root, 'var/lib/couchdb');
    await until(
      async () => {
        if (this.#stopping) return true;
        const asked = await access(request).then(
          () => true,
          () => false,
        );
        const ready = await access(join(files, 'vm.args')).then(
          () => true,
          () => false,
        );
        if (!ready || (!asked && this.#children.has('couchdb'))) return false;
        await rm(request, { force: true });
        await this.#end('couchdb', 'SIGTERM');
        await appendFile(join(data, 'local.ini'), '');
        await writeFile(join(data, '.erlang.cookie'), await readFile(join(files, 'cookie')), {
          mode: 0o400,
          flag: 'w',
        }).catch(() => undefined);
        await this.#keep('couchdb', join(couchdb, 'bin/couchdb'), [], {
          HOME: data,
          STANDIN_NODE: process.execPath,
          COUCHDB_ARGS_FILE: join(files, 'vm.args'),
          COUCHDB_INI_FILES: `${couchdb}/etc/default.ini ${files}/bornemisza.ini ${data}/local.ini`,
          ERL_EPMD_ADDRESS: this.address,
        });
        return false;
      },
      { deadlineMs: Number.POSITIVE_INFINITY, everyMs: 100 },
    );
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    this.#stopping = true;
    await Promise.all([...this.#children.keys()].map((name) => this.#end(name, signal)));
  }

  signal(signal: NodeJS.Signals): void {
    for (const child of this.#children.values()) kill(child, signal);
  }

  async command(args: readonly string[], input?: string): Promise<string> {
    const role = args.includes('--role') || args[0] === 'join' ? [] : ['--role', this.role];
    return new Promise((resolve_, reject) => {
      const child = execFile(
        process.execPath,
        [bundle, ...args, ...role, '--root', this.#root],
        { timeout: 120_000 },
        (error, stdout, stderr) =>
          error === null ? resolve_(stdout) : reject(new Error(`bornemisza ${args.join(' ')}: ${stderr}`)),
      );
      child.stdin?.end(input ?? '');
    });
  }

  ask<T>(path: string): Promise<T> {
    const socketPath = join(this.#root, `run/bornemisza/${this.role}/control.sock`);
    return new Promise((resolve_, reject) => {
      const call = request({ socketPath, path, timeout: 5000 }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => (text += part));
        response.on('end', () =>
          response.statusCode === 200 ? resolve_(JSON.parse(text) as T) : reject(new Error(text)),
        );
      });
      call
        .on('error', reject)
        .on('timeout', () => call.destroy(new Error('timeout')))
        .end();
    });
  }

  haproxy(command: string): Promise<string> {
    return new Promise((resolve_, reject) => {
      let text = '';
      const socket = createConnection(join(this.#root, `run/bornemisza-haproxy/${this.role}/stats.sock`));
      socket.setTimeout(2000, () => socket.destroy(new Error('timeout')));
      socket.setEncoding('utf8').on('data', (part: string) => (text += part));
      socket
        .on('error', reject)
        .on('end', () => resolve_(text))
        .write(`${command}\n`);
    });
  }

  async membership(): Promise<{ all_nodes: string[]; cluster_nodes: string[] }> {
    const secrets = JSON.parse(
      await readFile(join(this.#root, 'var/lib/bornemisza/db/secrets.json'), 'utf8'),
    ) as {
      admin: { user: string; password: string };
    };
    const response = await fetch(`http://127.0.0.1:${this.#ports.couchdb}/_membership`, {
      headers: {
        authorization: `Basic ${Buffer.from(`${secrets.admin.user}:${secrets.admin.password}`).toString('base64')}`,
      },
      signal: AbortSignal.timeout(3000),
    });
    return (await response.json()) as { all_nodes: string[]; cluster_nodes: string[] };
  }

  async lastWords(): Promise<string> {
    const logs = ['daemon', 'haproxy', 'couchdb'].map(async (name) => {
      const text = await readFile(join(this.#root, 'log', `${name}.log`), 'utf8').catch(() => '');
      return text.split('\n').slice(-15).join('\n');
    });
    return (await Promise.all(logs)).join('\n');
  }

  visit(): Promise<string> {
    return new Promise((resolve_) => {
      const call = httpsRequest(
        this.site,
        { rejectUnauthorized: false, agent: false, timeout: 3000 },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (part: string) => (text += part));
          response.on('end', () =>
            resolve_(`${response.statusCode} ${/served by (\w+)/.exec(text)?.[0] ?? ''}`),
          );
        },
      );
      call
        .on('error', (error) => resolve_(error.message))
        .on('timeout', () => call.destroy(new Error('timeout')))
        .end();
    });
  }

  /** Starts a child in a process group of its own, so that what it starts ends with it. Its output goes to a file. */
  async #keep(
    name: string,
    program: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
  ): Promise<void> {
    const log = await open(join(this.#root, 'log', `${name}.log`), 'a');
    const child = spawnWithUs(program, args, {
      stdio: ['ignore', log.fd, log.fd],
      detached: true,
      env: { ...process.env, ...env },
    });
    await log.close();
    this.#children.set(name, child);
    child.once('error', () => this.#children.delete(name));
    child.once('exit', () => {
      if (this.#children.get(name) === child) this.#children.delete(name);
    });
  }

  async #end(name: string, signal: NodeJS.Signals): Promise<void> {
    const child = this.#children.get(name);
    if (child === undefined) return;
    const ended = new Promise<void>((resolve_) => child.once('exit', () => resolve_()));
    const hard = setTimeout(() => kill(child, 'SIGKILL'), 10_000);
    kill(child, 'SIGCONT');
    kill(child, signal);
    await ended;
    clearTimeout(hard);
    kill(child, 'SIGKILL');
  }
}

function kill(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  } catch {
    // The whole group has ended already.
  }
}
