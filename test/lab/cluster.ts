import type { AuditEntry, MemberRow, MembersAnswer, StatusAnswer } from '../../src/daemon/control/api.ts';
import { parseServers, type ServerRecord } from '../support/haproxy-servers.ts';
import { until } from '../support/until.ts';
import { type Host, type HostSpec, Lab, type LabOptions, PACKAGE_IN_HOST, type Role } from './index.ts';

export type ClusterOptions = Omit<LabOptions, 'hosts'> & {
  /** Hosts app1, app2, … and db1, db2, …; `both` hosts carry both roles and are called both1, … */
  readonly app?: number;
  readonly db?: number;
  readonly both?: number;
  /** Draw the floating IPs by BGP, by layer 2, or not at all. Default true: BGP. */
  readonly floating?: boolean | 'layer2';
  /**
   * Installs the package, where the lab has one, on a host that has no file of the project. Default: rpm, without its
   * requirements.
   */
  readonly install?: (host: Host) => Promise<void>;
  /** Changes what `init` or `join` has written, before the daemon starts for the first time. */
  readonly configure?: (host: Host, role: Role, lab: Lab) => Promise<void>;
  /** Said as each stage begins, for people who wait. */
  readonly progress?: (text: string) => void;
};

/** One role instance on one host. */
export type Instance = { readonly host: Host; readonly role: Role; readonly name: string };

export const CLUSTER_NAME = 'lab';
/** The shipped static site, as a founder’s own service would be added. */
const SITE = 'name = "site"\nport = 8080\npath_prefix = "/"\nhealth_path = "/"\n';
const PAGE = (host: string): string =>
  `<!doctype html><title>Bornemisza</title><h1>It works</h1><p>served by ${host}\n`;
/** Six hosts start at once on two cores, which others use too; above the unit's TimeoutStartSec. */
const START_TIMEOUT_MS = 150_000;

/**
 * A lab whose hosts run the real thing: each is set up by `bornemisza init` or `bornemisza join` as its operator would
 * do it, and each daemon runs under its own unit.
 */
export class Cluster {
  readonly lab: Lab;
  readonly #instances: Instance[] = [];
  readonly #options: ClusterOptions;

  private constructor(lab: Lab, options: ClusterOptions) {
    this.lab = lab;
    this.#options = options;
  }

  /** Builds the hosts, makes the cluster on the first, joins the others, starts every daemon. */
  static async create(options: ClusterOptions): Promise<Cluster> {
    const { app = 0, db = 0, both = 0, progress } = options;
    const specs = [
      ...names('app', app).map((name) => specOf(name, ['app'])),
      ...names('db', db).map((name) => specOf(name, ['db'])),
      ...names('both', both).map((name) => specOf(name, ['app', 'db'])),
    ];
    progress?.(`starting ${specs.length} hosts, a provider’s router and a client`);
    const cluster = new Cluster(await Lab.create({ ...options, hosts: specs }), options);
    try {
      const [first, ...rest] = cluster.lab.hosts.flatMap((host) =>
        host.roles.map((role) => ({ host, role })),
      );
      if (first === undefined) throw new Error('a cluster has at least one host');
      for (const host of cluster.lab.hosts) await cluster.#install(host);
      progress?.(`bornemisza init on ${first.host.name}`);
      await cluster.#found(first.host, first.role);
      for (const { host, role } of rest) {
        progress?.(`bornemisza join on ${host.name}`);
        await cluster.join(host, role);
      }
      return cluster;
    } catch (error) {
      await cluster.close();
      throw error;
    }
  }

  get instances(): readonly Instance[] {
    return this.#instances;
  }

  instance(name: string): Instance {
    const found = this.#instances.find((each) => each.name === name || each.host.name === name);
    if (found === undefined) throw new Error(`this cluster has no ${name}`);
    return found;
  }

  instancesOf(role: Role): Instance[] {
    return this.#instances.filter((each) => each.role === role);
  }

  /** A new machine that asks to be let in. */
  async addHost(name: string, role: Role): Promise<Instance> {
    const host = await this.lab.addHost(specOf(name, [role]));
    await this.#install(host);
    return this.join(host, role);
  }

  /** Admits a host with a fresh token from the first node, and starts its daemon. */
  async join(host: Host, role: Role): Promise<Instance> {
    const authority = this.#instances[0];
    if (authority === undefined) throw new Error('nobody admits yet');
    const made = await this.command(authority, ['token', 'create', '--role', role, '--json']);
    const { token } = JSON.parse(made) as { token: string };
    await host.must(['bornemisza', 'join', '-', ...this.#setUp(host, role)], {
      stdin: token,
      timeoutMs: START_TIMEOUT_MS,
    });
    return this.#begin(host, role);
  }

  /** Runs `bornemisza ARGS --role ROLE` on an instance's host; returns what it printed. */
  async command(
    { host, role }: Instance,
    args: readonly string[],
    timeoutMs = START_TIMEOUT_MS,
  ): Promise<string> {
    const needsRole = !args.includes('--role');
    return host.must(['bornemisza', ...args, ...(needsRole ? ['--role', role] : [])], { timeoutMs });
  }

  async status(instance: Instance): Promise<StatusAnswer> {
    return JSON.parse(await this.#ask(instance, '/v1/status')) as StatusAnswer;
  }

  /** What a command would ask of a daemon, without the start of one. Throws with the daemon's refusal. */
  async post(instance: Instance, path: string, body: object): Promise<string> {
    const answer = await this.#ask(instance, path, body);
    if ('error' in (JSON.parse(answer) as object)) throw new Error(`${instance.name} ${path}: ${answer}`);
    return answer;
  }

  async members(instance: Instance): Promise<readonly MemberRow[]> {
    return (JSON.parse(await this.#ask(instance, '/v1/members')) as MembersAnswer).members;
  }

  /** @param of entries about this node only, entries after this id only */
  async audit(
    instance: Instance,
    of: { readonly node?: string; readonly since?: number } = {},
  ): Promise<readonly AuditEntry[]> {
    const asked = new URLSearchParams({ limit: '2000' });
    for (const [name, value] of Object.entries(of)) asked.set(name, String(value));
    return (
      JSON.parse(await this.#ask(instance, `/v1/audit?${asked.toString()}`)) as { entries: AuditEntry[] }
    ).entries;
  }

  /** HAProxy's own word on its servers. */
  async servers(instance: Instance): Promise<ServerRecord[]> {
    return parseServers(await this.haproxy(instance, 'show stat'));
  }

  /** One command to an instance's HAProxy. */
  haproxy({ host, role }: Instance, command: string): Promise<string> {
    return host.askLine(`/run/bornemisza-haproxy/${role}/stats.sock`, command);
  }

  /** CouchDB's own word on its cluster, asked on the host itself. */
  async couchMembership({ host }: Instance): Promise<{ all_nodes: string[]; cluster_nodes: string[] }> {
    return JSON.parse(await this.couch(host, '/_membership')) as {
      all_nodes: string[];
      cluster_nodes: string[];
    };
  }

  /** One request as admin to the CouchDB of a host, over its loopback. */
  async couch(host: Host, path: string, method = 'GET', body?: string): Promise<string> {
    const secrets = JSON.parse(await host.readPlain('/var/lib/bornemisza/db/secrets.json')) as {
      admin: { user: string; password: string };
    };
    const credentials = `user = "${secrets.admin.user}:${secrets.admin.password}"\n`;
    const data = body === undefined ? [] : ['-H', 'content-type: application/json', '--data-binary', body];
    return host.must(
      ['curl', '-sS', '--max-time', '10', '-K', '-', '-X', method, ...data, `http://127.0.0.1:15984${path}`],
      { stdin: credentials, timeoutMs: 15_000 },
    );
  }

  /** Waits until every instance sees every other alive, synced, and each plugin has nothing left to do. */
  async settled(
    timeoutMs = START_TIMEOUT_MS,
    instances: readonly Instance[] = this.#instances,
    everyMs = 250,
  ): Promise<void> {
    await until(
      async () => {
        for (const instance of instances) {
          const status = await this.status(instance);
          const wrong = [
            ...(status.synced ? [] : ['not synced']),
            ...(status.counts.alive === this.#instances.length ? [] : [`${status.counts.alive} alive`]),
            ...(status.health === 'up'
              ? []
              : status.checks
                  .filter((each) => each.health === 'down')
                  .map((each) => `${each.name}: ${each.detail}`)),
            ...status.plugins
              .filter((each) => each.state !== 'converged')
              .map((each) => `${each.name} ${each.state}: ${each.detail}`),
          ];
          if (wrong.length > 0) throw new Error(`${instance.name}: ${wrong.join('; ')}`);
        }
        return true;
      },
      { deadlineMs: timeoutMs, everyMs, what: 'every daemon settled' },
    );
  }

  /** Forgets an instance that left or was removed, so that {@link settled} does not wait for it. */
  forget(name: string): void {
    const index = this.#instances.findIndex((each) => each.name === name);
    if (index >= 0) this.#instances.splice(index, 1);
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  async #install(host: Host): Promise<void> {
    if (!this.lab.packaged) return;
    this.#options.progress?.(`installing the package on ${host.name}`);
    await (this.#options.install ?? installPackage)(host);
  }

  async #found(host: Host, role: Role): Promise<void> {
    await host.must(
      [
        'bornemisza',
        'init',
        '--role',
        role,
        '--cluster',
        CLUSTER_NAME,
        '--recovery-file',
        '/root/recovery.txt',
        ...this.#setUp(host, role),
      ],
      { timeoutMs: START_TIMEOUT_MS },
    );
    await this.#begin(host, role);
  }

  #setUp(host: Host, role: Role): string[] {
    const own = ['--host', host.name, '--private-address', host.privateAddress];
    const { floating } = this.#options;
    if (role === 'db' || floating === false) return own;
    const mode = floating === 'layer2' ? 'layer2' : 'bgp';
    return [...own, '--floating-ip', this.lab.floatingAddresses.join(','), '--floating-mode', mode];
  }

  async #begin(host: Host, role: Role): Promise<Instance> {
    const instance = { host, role, name: `${host.name}/${role}` };
    if (role === 'app') {
      await host.writeFile('/etc/bornemisza/services.d/site.toml', {
        content: SITE,
        group: 'bornemisza',
        mode: 0o640,
      });
      await host.writeFile('/srv/bornemisza/site/index.html', PAGE(host.name));
      await host.must(['systemctl', 'enable', '--now', 'bornemisza-site.service']);
    }
    await this.#options.configure?.(host, role, this.lab);
    const unit = `bornemisza@${role}.service`;
    const started = await host.exec(['systemctl', 'enable', '--now', unit], { timeoutMs: START_TIMEOUT_MS });
    if (started.code !== 0)
      throw new Error(`${unit} did not start: ${started.stderr}\n${await host.journal(unit)}`);
    this.#instances.push(instance);
    return instance;
  }

  #ask({ host, role }: Instance, path: string, body?: object): Promise<string> {
    return host.askHttp(`/run/bornemisza/${role}/control.sock`, path, body);
  }
}

/** The programs that the package requires are this machine's own, of which no rpm database knows. */
async function installPackage(host: Host): Promise<void> {
  await host.must(['rpm', '--install', '--nodeps', '--nosignature', PACKAGE_IN_HOST], {
    timeoutMs: START_TIMEOUT_MS,
  });
}

function names(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}${index + 1}`);
}

function specOf(name: string, roles: readonly Role[]): HostSpec {
  return { name, roles };
}
