import { Cluster, type Instance } from '../lab/cluster.ts';
import type { Host } from '../lab/index.ts';
import { Outside, ZONE } from '../lab/outside.ts';
import { ProviderApi } from '../lab/provider-api.ts';
import { allUp, PATIENCE_MS } from '../integration/cluster-bed.ts';
import { EDGE_HEALTH_PATH } from '../../src/plugins/haproxy/desired.ts';
import { until } from '../support/until.ts';

const CONFIG = '/etc/bornemisza/app.toml';
const DAEMON = 'bornemisza@app.service';
const SITE = '/var/lib/bornemisza/app/site.json';
/** Of the founder, in the zone from its beginning. */
const FOUNDERS: readonly (readonly [name: string, type: string])[] = [
  [ZONE, 'MX'],
  [`mail.${ZONE}`, 'A'],
  [`ns.${ZONE}`, 'A'],
  [ZONE, 'NS'],
];

/** App nodes, and what a founder rents around them: a name server, a CA, a provider whose API moves an address. */
export class EdgeBed {
  readonly cluster: Cluster;
  readonly outside: Outside;
  readonly edges: readonly Instance[];
  readonly #directory: string;
  #provider: ProviderApi | undefined;
  /** app.toml as `init` and `join` made it, by host. */
  readonly #plain = new Map<Host, string>();

  private constructor(cluster: Cluster, outside: Outside, directory: string) {
    this.cluster = cluster;
    this.outside = outside;
    this.edges = cluster.instancesOf('app');
    this.#directory = directory;
  }

  /** @param directory all files go there */
  static async create(hosts: number, directory: string): Promise<EdgeBed> {
    const outside = await Outside.prepare(`${directory}/outside`);
    const cluster = await Cluster.create({ app: hosts, floating: false });
    const bed = new EdgeBed(cluster, outside, directory);
    try {
      await bed.#prepare();
    } catch (error) {
      await bed.close();
      throw error;
    }
    return bed;
  }

  async provider(): Promise<ProviderApi> {
    this.#provider ??= await ProviderApi.start(this.cluster.lab, `${this.#directory}/provider`);
    return this.#provider;
  }

  /** Starts the daemons of these hosts with these sections and no other. */
  async configure(hosts: readonly Host[], ...sections: readonly ((host: Host) => Promise<void>)[]) {
    for (const host of hosts) {
      await host.must(['sh', '-c', `cat >${CONFIG}`], { stdin: this.#plain.get(host) ?? '' });
      for (const section of sections) await section(host);
      await host.restart(DAEMON);
    }
    await allUp(this.cluster);
  }

  readonly withNames = (host: Host): Promise<void> => this.outside.useNames(host);

  readonly withCertificate = (host: Host): Promise<void> => this.outside.useCa(host, [ZONE, `www.${ZONE}`]);

  readonly withProvider = async (host: Host): Promise<void> => (await this.provider()).use(host);

  /** Starts all daemons again as if the site never had a certificate. @returns when the first of them starts, ms */
  async startWithoutCertificate(): Promise<number> {
    const hosts = this.edges.map(({ host }) => host);
    for (const host of hosts) await host.stop(DAEMON);
    for (const host of hosts) await host.must(['rm', '-f', SITE]);
    const atMs = performance.now();
    await Promise.all(hosts.map((host) => host.start(DAEMON)));
    return atMs;
  }

  /** SHA-256 of the certificate that all edges serve for the site, as soon as they do and it is none of `others`. */
  certificateOnAll(others: ReadonlySet<string>): Promise<string> {
    return until(
      async () => {
        const shown = await Promise.all(this.edges.map(({ host }) => this.#shown(host)));
        const [one = ''] = shown;
        const same =
          one.includes(`DNS:www.${ZONE}`) && shown.every((each) => each === one) && !others.has(one);
        return same ? one : Promise.reject(new Error(shown.join('\n')));
      },
      { deadlineMs: 3 * PATIENCE_MS, everyMs: 50, what: 'one certificate at all edges' },
    );
  }

  async #shown({ publicAddress }: Host): Promise<string> {
    const script = `openssl s_client -connect ${publicAddress}:443 -servername ${ZONE} </dev/null 2>/dev/null |
      openssl x509 -noout -fingerprint -sha256 -ext subjectAltName`;
    return (await this.cluster.lab.client.exec(['sh', '-c', script])).stdout;
  }

  /** How many orders the CA has been sent. */
  async orders(): Promise<number> {
    return (await this.outside.caLog()).match(/POST \/order-plz -> calling handler/g)?.length ?? 0;
  }

  /** Waits until the site's name has, or has no more, the address of a host. */
  recordIs(host: Host, there: boolean): Promise<true> {
    return until(
      async () => {
        const now = await this.outside.ask(ZONE);
        if (now.split(' ').includes(host.publicAddress) !== there) throw new Error(now);
        return true as const;
      },
      { deadlineMs: 3 * PATIENCE_MS, everyMs: 100, what: `${host.name} ${there ? 'in' : 'out of'} the zone` },
    );
  }

  /** Waits until an edge answers visitors at its own address, and the first node holds it for ready to serve. */
  isWell({ host, name }: Instance): Promise<true> {
    const [first] = this.edges;
    return until(
      async () => {
        const members = first === undefined ? [] : await this.cluster.members(first);
        const row = members.find((each) => each.name === name);
        if (row?.state !== 'alive' || row.rotation !== 'in')
          throw new Error(`${row?.state} ${row?.rotation}`);
        const url = `https://${host.publicAddress}${EDGE_HEALTH_PATH}`;
        const { status } = await this.cluster.lab.client.request({ url, timeoutMs: 2000 });
        if (status !== 200) throw new Error(`it answers ${status}`);
        return true as const;
      },
      { deadlineMs: 3 * PATIENCE_MS, everyMs: 50, what: `${name} is well` },
    );
  }

  founders(): Promise<string[]> {
    return Promise.all(FOUNDERS.map(([name, type]) => this.outside.ask(name, type)));
  }

  async close(): Promise<void> {
    this.outside.close();
    this.#provider?.close();
    await this.cluster.close();
  }

  async #prepare(): Promise<void> {
    const [first] = this.edges;
    if (first === undefined) throw new Error('a cluster has an edge');
    for (const { host } of this.edges) this.#plain.set(host, await host.readFile(CONFIG));
    await this.outside.startNames(this.cluster.lab);
    // Every name leads to one edge; all of them give the CA the same answer.
    await this.outside.startCa(this.cluster.lab, first.host.publicAddress);
    await allUp(this.cluster);
  }
}
