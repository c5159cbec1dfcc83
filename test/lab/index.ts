/**
 * A provider, its network and any number of machines in it, on this one machine.
 *
 *     const hosts = [{ name: 'app1', roles: ['app'] }, { name: 'db1', roles: ['db'] }];
 *     await using lab = await Lab.create({ hosts });
 *     const [app1] = lab.hosts;
 *     await app1.cut({ device: 'private' });
 *
 * Two labs may run at once, with the same addresses inside. A lab ends with `close()` or with the process that made it,
 * however that ends; what even that could not clear is swept by the next `Lab.create`.
 */
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { maximumClientAddresses, maximumHosts, privateAddress } from './addresses.ts';
import { Client } from './client.ts';
import { Fabric } from './fabric.ts';
import { Host, type Role } from './host.ts';
import { makeInotifyRoom } from './inotify.ts';
import { exists, hostFiles, Layers, repository, type Bind, type HostFile } from './layers.ts';
import { type ClaimedPlace, claimPlace, listPlaces, sweepPlaces } from './place.ts';
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
  readonly #place: ClaimedPlace;
  readonly #options: LabOptions;
  readonly #fabric: Fabric;
  readonly #layers: Layers;
  readonly #hosts: Host[] = [];
  readonly #specs: HostSpec[] = [];

  private constructor(place: ClaimedPlace, options: LabOptions) {
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
    await sweepPlaces();
    await makeInotifyRoom(options.hosts.length);
    const lab = new Lab(await claimPlace(), options);
    try {
      await lab.#build();
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  static readonly sweep = sweepPlaces;
  static readonly list = listPlaces;

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
    await makeInotifyRoom(1);
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
    await this.#place.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #build(): Promise<void> {
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
