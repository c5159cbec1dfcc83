/**
 * A provider, its network and any number of machines in it, on this one machine.
 *
 *     await using lab = await Lab.create({ hosts: [{ name: 'app1', roles: ['app'] }, { name: 'db1', roles: ['db'] }] });
 *     const [app1] = lab.hosts;
 *     await app1.cut({ device: 'private' });
 *
 * Two labs may run at once, with the same addresses inside. A lab ends with `close()` or with the process that made it,
 * however that ends; what even that could not clear is swept by the next `Lab.create`.
 */
import { randomBytes } from 'node:crypto';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { maximumClientAddresses, maximumHosts, privateAddress } from './addresses.ts';
import { Client } from './client.ts';
import { Fabric } from './fabric.ts';
import { Host, type Role } from './host.ts';
import { exists, hostFiles, Layers, repository, type Bind, type HostFile } from './layers.ts';
import type { LabPlace } from './namespace.ts';
import { run } from './process.ts';
import { Router } from './router.ts';

export type { Answer, LoadOptions, LoadReport, RequestOptions, RunningLoad } from './client.ts';
export { RequestError } from './client.ts';
export type { Direction, Network } from './fabric.ts';
export type { ExecOptions, FaultDevice, Host, Role, UnitState } from './host.ts';
export type { HostFile } from './layers.ts';
export { poll, ProgramError, type Result } from './process.ts';
export type { NextHop, RouteChange } from './router.ts';

export type HostSpec = {
  /** A label of a host name, at most 20 characters. */
  readonly name: string;
  readonly roles: readonly Role[];
  /** Put in place before the first boot. */
  readonly files?: Readonly<Record<string, HostFile>>;
  /** Units that start at every boot, the first included. */
  readonly enable?: readonly string[];
};

export type LabOptions = {
  readonly hosts: readonly HostSpec[];
  /** In 203.0.113.0/24; what hosts of role app may announce. Default 203.0.113.10. */
  readonly floatingAddresses?: readonly string[];
  /** Source addresses of the client machine, at most 200. Default 64. */
  readonly clientAddresses?: number;
  /** BFD (100 ms × 3) on both ends of the BGP sessions. Default: off, as not every provider offers it. */
  readonly bfd?: boolean;
  /** Size of each host's disk, held in memory as far as it is used. Default 512. */
  readonly diskMegabytes?: number;
  /** The daemon's bundle. Default: dist/bornemisza.mjs in the tree. */
  readonly bundle?: string;
  /** Directory of a CouchDB release. Default: LAB_COUCHDB, else the stand-in. */
  readonly couchdb?: string;
  /**
   * An rpm that the hosts run in place of the tree's files. Default: LAB_PACKAGE. The hosts come up without any file of
   * the project, and the package lies in each at /root/bornemisza-node.rpm, to be installed by who wants it.
   */
  readonly package?: string;
  /** What else of this machine is mounted read-only in every host. */
  readonly binds?: readonly Bind[];
};

/** Where a lab's package lies in each host. */
export const PACKAGE_IN_HOST = '/root/bornemisza-node.rpm';

const runRoot = '/run/bornemisza-lab';
const teardown = fileURLToPath(new URL('teardown.sh', import.meta.url));
const needed = [
  'ip',
  'nft',
  'nsenter',
  'unshare',
  'bird',
  'birdc',
  'haproxy',
  'socat',
  'systemd-sysusers',
  'flock',
];

export class Lab {
  readonly id: string;
  readonly router: Router;
  readonly client: Client;
  readonly #place: LabPlace;
  readonly #options: LabOptions;
  readonly #fabric: Fabric;
  readonly #layers: Layers;
  readonly #hosts: Host[] = [];
  readonly #specs: HostSpec[] = [];
  #reaper: ChildProcess | undefined;

  private constructor(place: LabPlace, options: LabOptions) {
    this.id = place.id;
    this.#place = place;
    this.#options = options;
    this.router = new Router(place, { bfd: options.bfd ?? false });
    this.client = new Client(place, { sources: options.clientAddresses ?? 64 });
    this.#fabric = new Fabric(place);
    const rpm = packageOf(options);
    this.#layers = new Layers(join(place.directory, 'base'), {
      bundle: options.bundle ?? join(repository, 'dist/bornemisza.mjs'),
      couchdb: options.couchdb ?? process.env['LAB_COUCHDB'],
      bare: rpm !== undefined,
    });
    if (rpm !== undefined) this.#layers.binds.push({ source: rpm, target: PACKAGE_IN_HOST });
    this.#layers.binds.push(...(options.binds ?? []));
  }

  /** Builds a lab and boots its hosts; when it returns, each host's systemd has started what it starts by itself. */
  static async create(options: LabOptions): Promise<Lab> {
    await checkMachine(options);
    await Lab.sweep();
    const id = randomBytes(3).toString('hex');
    const place: LabPlace = {
      id,
      directory: join(runRoot, id),
      cgroup: join(await cgroupRoot(), `lab-${id}`),
    };
    const lab = new Lab(place, options);
    try {
      await lab.#build();
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  /** Takes away every lab whose owner is gone, and what is left of half a teardown. Returns their ids. */
  static async sweep(): Promise<string[]> {
    const swept: string[] = [];
    await removeDrafts();
    for (const { id, owned } of await Lab.list()) {
      if (owned) continue;
      await endLab(join(runRoot, id));
      swept.push(id);
    }
    return swept;
  }

  /** The labs of this machine; `owned` says whether the process that made it still lives. */
  static async list(): Promise<{ readonly id: string; readonly owner: number; readonly owned: boolean }[]> {
    const labs = [];
    for (const id of await traces()) {
      const [pid = '0', startTime = ''] = (await readText(join(runRoot, id, 'owner'))).split(' ');
      const owned = startTime !== '' && (await startTimeOf(Number(pid))) === startTime;
      labs.push({ id, owner: Number(pid), owned });
    }
    return labs;
  }

  get hosts(): readonly Host[] {
    return this.#hosts;
  }

  /** Whether hosts come up without the project's files, and with its package at PACKAGE_IN_HOST. */
  get packaged(): boolean {
    return packageOf(this.#options) !== undefined;
  }

  /** For logs and bind mounts; gone after `close()`. */
  get directory(): string {
    return this.#place.directory;
  }

  get floatingAddresses(): readonly string[] {
    return this.#options.floatingAddresses ?? ['203.0.113.10'];
  }

  host(name: string): Host {
    const host = this.#hosts.find((one) => one.name === name);
    if (host === undefined) throw new Error(`this lab has no host ${name}`);
    return host;
  }

  hostsOf(role: Role): Host[] {
    return this.#hosts.filter((host) => host.roles.includes(role));
  }

  /** One more machine, admitted at the router and booted. */
  async addHost(spec: HostSpec): Promise<Host> {
    const host = this.#addHost(spec);
    if (spec.roles.includes('app')) await this.router.addHost(spec.name, this.#specs.indexOf(spec));
    await host.create();
    await host.boot();
    return host;
  }

  /** All hosts at once: orderly, or as when the provider's power fails. */
  async rebootAll(how: 'orderly' | 'power' = 'orderly'): Promise<void> {
    if (how === 'orderly') {
      await allDone(this.#hosts.map((host) => host.reboot()));
      return;
    }
    await allDone(this.#hosts.map((host) => host.powerCut()));
    await allDone(this.#hosts.map((host) => host.boot()));
  }

  /** Takes everything away. Throws with what could not be removed. */
  async close(): Promise<void> {
    const reaper = this.#reaper;
    if (reaper === undefined) return;
    this.#reaper = undefined;
    const ended = Promise.withResolvers<void>();
    let complaint = '';
    reaper.stderr?.on('data', (part: Buffer) => (complaint += part.toString()));
    reaper.on('close', (code) => {
      if (code === 0) ended.resolve();
      else ended.reject(new Error(`lab ${this.id}: ${complaint.trim()}`));
    });
    reaper.ref();
    reaper.stdin?.end();
    await ended.promise;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #build(): Promise<void> {
    await this.#claim();
    await mkdir(this.#place.cgroup);
    for (const name of ['base', 'hosts', 'router']) await mkdir(join(this.#place.directory, name));
    for (const spec of this.#options.hosts) this.#addHost(spec);
    await allDone([this.#layers.create(), this.#fabric.create(this.#options.clientAddresses ?? 64)]);
    const sessions = this.#specs
      .map(({ name, roles }, index) => ({ name, roles, index }))
      .filter(({ roles }) => roles.includes('app'));
    await allDone([
      this.router.start(sessions),
      ...this.#hosts.map(async (host) => {
        await host.create();
        await host.boot();
      }),
    ]);
  }

  /** From here on the lab is swept when its owner dies. The directory appears with its owner's name in it, or not at all. */
  async #claim(): Promise<void> {
    const { directory } = this.#place;
    const draft = join(runRoot, `.draft-${this.id}`);
    await mkdir(draft, { recursive: true });
    await writeFile(join(draft, 'owner'), `${process.pid} ${await startTimeOf(process.pid)}`);
    await rename(draft, directory);
    this.#reaper = spawn('/bin/sh', [teardown, directory, '--when-owner-ends'], {
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { PATH: process.env['PATH'], LAB_CGROUP_ROOT: join(this.#place.cgroup, '..') },
      detached: true,
    });
    await writeFile(join(directory, 'reaper'), String(this.#reaper.pid));
    this.#reaper.unref();
    for (const end of [this.#reaper.stdin, this.#reaper.stderr])
      (end as unknown as { unref(): void }).unref();
  }

  #addHost(spec: HostSpec): Host {
    const index = this.#specs.length;
    if (index === maximumHosts) throw new Error(`a lab has room for ${maximumHosts} hosts`);
    if (!/^[a-z][a-z0-9-]{0,19}$/.test(spec.name)) throw new Error(`${spec.name} cannot name a host`);
    if (
      ['fabric', 'router', 'client'].includes(spec.name) ||
      this.#specs.some(({ name }) => name === spec.name)
    ) {
      throw new Error(`the name ${spec.name} is taken`);
    }
    this.#specs.push(spec);
    const names = [...this.#options.hosts, ...this.#specs.slice(this.#options.hosts.length)].map(
      ({ name }, of) => [privateAddress(of), name] as const,
    );
    const own = hostFiles({
      labId: this.id,
      name: spec.name,
      index,
      carriesApp: spec.roles.includes('app'),
      names,
      floatingAddresses: this.floatingAddresses,
      bfd: this.#options.bfd ?? false,
    });
    const host = new Host(
      {
        name: spec.name,
        index,
        roles: spec.roles,
        diskMegabytes: this.#options.diskMegabytes ?? 512,
        files: { ...own, ...spec.files },
        enable: spec.enable ?? [],
      },
      {
        place: this.#place,
        fabric: this.#fabric,
        layers: this.#layers,
        indexOf: (name) => this.#indexOf(name),
      },
    );
    this.#hosts.push(host);
    return host;
  }

  #indexOf(name: string): number {
    const index = this.#specs.findIndex((spec) => spec.name === name);
    if (index === -1) throw new Error(`this lab has no host ${name}`);
    return index;
  }
}

/** Like Promise.all, but nothing is under way any more when it throws: a teardown must not race with a start. */
async function allDone(actions: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(actions);
  const errors = results
    .filter((result) => result.status === 'rejected')
    .map((result) => result.reason as Error);
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) throw new AggregateError(errors, errors.map(({ message }) => message).join('\n'));
}

const packageOf = (options: LabOptions): string | undefined =>
  options.package ?? (process.env['LAB_PACKAGE'] ? resolve(process.env['LAB_PACKAGE']) : undefined);

/** Says everything that is missing at once. */
async function checkMachine(options: LabOptions): Promise<void> {
  const missing: string[] = [];
  if (process.getuid?.() !== 0) missing.push('root');
  for (const program of packageOf(options) === undefined ? needed : [...needed, 'rpm']) {
    if ((await run(['sh', '-c', 'command -v "$1"', 'sh', program])).code !== 0) missing.push(program);
  }
  if (!(await exists('/usr/lib/systemd/systemd'))) missing.push('systemd');
  const bundle = options.bundle ?? join(repository, 'dist/bornemisza.mjs');
  const rpm = packageOf(options);
  if (rpm === undefined && !(await exists(bundle))) missing.push(`${bundle} (node scripts/build.ts)`);
  if (rpm !== undefined && !(await exists(rpm))) missing.push(`${rpm} (npm run rpm)`);
  if (missing.length > 0)
    throw new Error(`a lab needs what this machine does not have: ${missing.join(', ')}`);
  if ((options.clientAddresses ?? 0) > maximumClientAddresses) {
    throw new Error(`a client has at most ${maximumClientAddresses} addresses`);
  }
}

/** Where the version 2 tree is mounted: alone, or beside version 1 hierarchies. */
async function cgroupRoot(): Promise<string> {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const mount = mounts.find((line) => / - cgroup2 /.test(line))?.split(' ')[4];
  if (mount === undefined) throw new Error('a lab needs a mounted cgroup version 2 tree');
  return mount;
}

/** Ids of all labs of which there is anything left: a run directory, which comes first, or a cgroup or namespace without. */
async function traces(): Promise<Set<string>> {
  const names = async (directory: string): Promise<string[]> => readdir(directory).catch(() => []);
  const ids = (await names(runRoot)).filter((name) => /^[0-9a-f]{6}$/.test(name));
  for (const name of [...(await names(await cgroupRoot())), ...(await names('/run/netns'))]) {
    const id = /^lab-([0-9a-f]{6})(-|$)/.exec(name)?.[1];
    if (id !== undefined) ids.push(id);
  }
  return new Set(ids);
}

/** Run directories whose maker died between making and naming them, which takes a millisecond. */
async function removeDrafts(): Promise<void> {
  for (const name of await readdir(runRoot).catch(() => [])) {
    const draft = join(runRoot, name);
    const madeMs = await stat(draft).then(
      ({ mtimeMs }) => mtimeMs,
      () => Number.POSITIVE_INFINITY,
    );
    if (name.startsWith('.draft-') && madeMs < Date.now() - 60_000)
      await rm(draft, { recursive: true, force: true });
  }
}

async function endLab(directory: string): Promise<void> {
  const cgroup = await cgroupRoot();
  const result = await run(['env', `LAB_CGROUP_ROOT=${cgroup}`, 'sh', teardown, directory]);
  if (result.code !== 0) throw new Error(`lab in ${directory}: ${result.stderr.trim()}`);
}

const readText = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');

/** Field 22 of /proc/PID/stat (proc(5)): tells a process from a later one with its number. Empty when there is none. */
async function startTimeOf(pid: number): Promise<string> {
  const text = await readText(`/proc/${pid}/stat`);
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}
