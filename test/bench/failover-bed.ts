import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hardwareAddress } from '../lab/addresses.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import type { Host } from '../lab/index.ts';
import { parseServers, type ServerRecord } from '../support/haproxy-servers.ts';
import { selfSigned } from '../support/self-signed.ts';
import { until } from '../support/until.ts';
import { describe, installService } from './answering.ts';
import { installRivals, MONIT_ADDRESS, Neighbours, type Rival, RIVALS, withMonit } from './rivals.ts';

/** Lab, cluster and rivals of `bench:failover`: the first app node is where faults happen. */
export const FLOATING = '203.0.113.10';
export const PATIENCE_MS = 120_000;
/** A site's own, of P-256, as a CA gives it to the product: an RSA signature would be thirty times as expensive. */
export const SITE_CERTIFICATE = '/etc/bornemisza/site.pem';
const BIRD_CONF = '/etc/bird/bird.conf';
/** The service's servers at an edge; those of the second checks carry nothing while these do. */
const BACKEND = 'svc_site';
/** The service's own instance at a door. */
const INSTANCE = 'local_site';
/** Between two questions to an edge's HAProxy: what `last_edge_stops` may be too long by. */
const LOOK_MS = 20;

export type Watched = 'bornemisza' | Rival;

export class FailoverBed {
  readonly cluster: Cluster;
  readonly victim: Instance;
  readonly edges: readonly Instance[];
  readonly neighbours: Neighbours;
  readonly rivals: readonly Rival[];
  readonly #certificate: string;

  private constructor(cluster: Cluster, rivals: readonly Rival[], certificate: string) {
    this.cluster = cluster;
    this.#certificate = certificate;
    this.edges = cluster.instancesOf('app');
    this.victim = cluster.instance('app1');
    this.neighbours = new Neighbours(cluster.lab);
    this.rivals = rivals;
  }

  static async create(hosts: number, rivals: readonly Rival[]): Promise<FailoverBed> {
    const certificate = await siteCertificate();
    const cluster = await Cluster.create({ app: hosts, bfd: true });
    const bed = new FailoverBed(cluster, rivals, certificate);
    try {
      for (const edge of bed.edges) await bed.#install(edge);
      await cluster.settled(PATIENCE_MS);
      await bed.allWell();
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return bed;
  }

  get names(): string[] {
    return this.edges.map(({ host }) => host.name);
  }

  get watched(): readonly Watched[] {
    return ['bornemisza', ...RIVALS.filter((rival) => this.rivals.includes(rival))];
  }

  /** Unix time, ms, at which the router ceased to send a subject's address to the victim, after a fault; or nothing. */
  goneAt(subject: Watched, sinceMs: number): number | undefined {
    if (subject === 'keepalived' || subject === 'keepalived_fast')
      return this.neighbours.moves(subject).find(({ atMs, to }) => atMs >= sinceMs && to !== this.#hardware)
        ?.atMs;
    const address = subject === 'monit' ? MONIT_ADDRESS : FLOATING;
    return this.cluster.lab.router
      .history(address)
      .find(({ atMs, hosts }) => atMs >= sinceMs && !hosts.includes(this.victim.host.name))?.atMs;
  }

  /** Everybody sends to the victim again, for each subject. */
  async allWell(): Promise<void> {
    const { router } = this.cluster.lab;
    const all = this.names.toSorted().join(' ');
    await until(
      async () => {
        const routed = await router.announcers(FLOATING);
        if (routed.join(' ') !== all) throw new Error(`${FLOATING} at ${routed.join(' ')}`);
        for (const edge of this.edges)
          if (!(await this.sends(edge))) throw new Error(`${edge.name} does not send`);
        if (this.rivals.includes('monit')) {
          const monit = (await router.announcers(MONIT_ADDRESS)).join(' ');
          if (monit !== all) throw new Error(`${MONIT_ADDRESS} at ${monit}`);
        }
        await this.#keepalivedWell();
        return true;
      },
      { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'all subjects to be well' },
    );
  }

  /** Whether an edge's HAProxy may give a node, by default the victim, a request. */
  async sends(edge: Instance, to: Instance = this.victim): Promise<boolean> {
    return (await this.#server(edge, to))?.status.startsWith('UP') ?? false;
  }

  /** How many requests a node's own instance got and did not answer, by the door before it. */
  async unanswered(of: Instance): Promise<number> {
    const servers = parseServers(await this.cluster.haproxy(of, `show stat ${INSTANCE} 4 -1`));
    return servers.find(({ name }) => name === '_local')?.unanswered ?? 0;
  }

  /** One more edge, like the others; it is not among {@link edges}. */
  async add(name: string): Promise<Instance> {
    const added = await this.cluster.addHost(name, 'app');
    await this.#install(added);
    return added;
  }

  /**
   * Watches edges until none of them sends to the victim. @returns Unix time, ms, of the first look that showed it;
   * undefined: not in that time
   */
  async lastEdgeStops(edges: readonly Instance[], withinMs: number): Promise<number | undefined> {
    const sending = new Set(edges);
    const endMs = performance.now() + withinMs;
    let lastMs: number | undefined;
    while (sending.size > 0 && performance.now() < endMs) {
      for (const edge of sending) {
        if (await this.sends(edge)) continue;
        sending.delete(edge);
        lastMs = Date.now();
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return sending.size > 0 ? undefined : lastMs;
  }

  /** Turns BFD off or on at the victim. Without one side there is none. */
  async setBfd(on: boolean): Promise<void> {
    const { host } = this.victim;
    const now = await host.readFile(BIRD_CONF);
    const next = on
      ? now.replace('  # bfd yes;', '  bfd yes;')
      : now.replace(/^ {2}bfd yes;/m, '  # bfd yes;');
    await this.#configureBird(host, next);
    // BIRD itself begins the session anew only when it has to; until it has, the router's route would look settled.
    const { router } = this.cluster.lab;
    const changes = router.history(FLOATING).length;
    await host.must(['birdc', 'restart', 'provider']);
    await until(() => router.history(FLOATING).length > changes, { deadlineMs: PATIENCE_MS });
    await this.allWell();
  }

  /** Whether the service's file names its unit. */
  async nameUnit(named: boolean): Promise<void> {
    for (const { host, role } of this.edges) {
      await describe(host, named);
      await host.reload(`bornemisza@${role}.service`);
    }
    await this.allWell();
  }

  /** Of the victim's public device. */
  get #hardware(): string {
    return hardwareAddress('public', this.cluster.lab.hosts.indexOf(this.victim.host));
  }

  close(): Promise<void> {
    return this.cluster.close();
  }

  async #server(edge: Instance, to: Instance): Promise<ServerRecord | undefined> {
    const servers = parseServers(await this.cluster.haproxy(edge, `show stat ${BACKEND} 4 -1`));
    return servers.find(({ name }) => name === to.host.name);
  }

  async #keepalivedWell(): Promise<void> {
    if (!this.rivals.some((rival) => rival !== 'monit')) return;
    await this.neighbours.refresh();
    const here = this.#hardware;
    for (const rival of ['keepalived', 'keepalived_fast'] as const) {
      const where = this.neighbours.where(rival);
      if (this.rivals.includes(rival) && where !== here) throw new Error(`${rival} at ${where}`);
    }
  }

  async #install({ host, role }: Instance): Promise<void> {
    await installService(host);
    // A return is not what is measured; by default each would be held back for longer than the one before.
    const config = `/etc/bornemisza/${role}.toml`;
    const content = this.#certificate;
    await host.writeFile(SITE_CERTIFICATE, { content, group: 'bornemisza', mode: 0o640 });
    await host.must(['sed', '-i', `/^\\[edge\\]$/a certificate = "${SITE_CERTIFICATE}"`, config]);
    await host.must(['sh', '-c', `cat >>${config}`], { stdin: '\n[health]\ndamping_ms = 0\n' });
    await host.reload(`bornemisza@${role}.service`);
    if (this.rivals.includes('monit'))
      await this.#configureBird(host, withMonit(await host.readFile(BIRD_CONF)));
    await installRivals(host, this.rivals, host === this.victim.host);
  }

  async #configureBird(host: Host, text: string): Promise<void> {
    await host.writeFile(BIRD_CONF, { content: text, mode: 0o640, group: 'bird' });
    await host.must(['birdc', 'configure']);
  }
}

async function siteCertificate(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bornemisza-bench-'));
  try {
    const { key, cert } = await selfSigned(directory, 'site.example', 'DNS:site.example');
    return `${await readFile(cert, 'utf8')}${await readFile(key, 'utf8')}`;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
