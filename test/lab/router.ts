import { createWriteStream } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { bgpPassword, customerAs, providerAddress, providerAs, publicAddress } from './addresses.ts';
import { inNamespace, namespaceOf, spawnInside, type LabPlace } from './namespace.ts';
import { must, poll, run, type Result, type RunOptions } from './process.ts';

/** One way to a floating IP, as the provider's kernel uses it. `host` is undefined for an address of no host. */
export type NextHop = { readonly address: string; readonly host: string | undefined };

/** The kernel's route to one address changed. `hosts` is empty when the route went away. */
export type RouteChange = {
  readonly address: string;
  readonly hosts: readonly string[];
  /** Unix time in milliseconds, with fractions, stamped by `ip monitor` as the kernel told it. */
  readonly atMs: number;
};

/** 10,000 changes are hours of a flapping lab; the oldest go first. */
const historyLimit = 10_000;

/**
 * The provider: BIRD as AS 64515 at 169.254.169.254, two hops away, TCP MD5 password, routes only for the lab's
 * floating network, several best paths at once, hashed on layer 4.
 */
export class Router {
  readonly #place: LabPlace;
  readonly #namespace: string;
  readonly #bfd: boolean;
  readonly #hosts = new Map<string, string>();
  readonly #history: RouteChange[] = [];

  constructor(place: LabPlace, options: { readonly bfd: boolean }) {
    this.#place = place;
    this.#namespace = namespaceOf(place, 'router');
    this.#bfd = options.bfd;
  }

  /** Starts BIRD and the watch over the kernel's routes. The namespace exists already. */
  async start(hosts: readonly { readonly name: string; readonly index: number }[]): Promise<void> {
    for (const { name, index } of hosts) this.#hosts.set(name, publicAddress(index));
    await writeFile(this.#file('bird.conf'), this.#configuration());
    const argv = [
      'bird',
      '-f',
      '-c',
      this.#file('bird.conf'),
      '-s',
      this.#file('bird.ctl'),
      '-P',
      this.#file('bird.pid'),
    ];
    const log = createWriteStream(this.#file('bird.log'));
    await new Promise((resolve) => log.once('open', resolve));
    spawnInside(this.#place.cgroup, inNamespace(this.#namespace, argv), ['ignore', log, log]);
    log.end();
    this.#watch();
    await poll('the provider’s BIRD to answer', async () =>
      (await this.birdc('show status')).code === 0 ? true : undefined,
    );
  }

  /** Admits one more host's BGP session. */
  async addHost(name: string, index: number): Promise<void> {
    this.#hosts.set(name, publicAddress(index));
    await writeFile(this.#file('bird.conf'), this.#configuration());
    await this.birdc('configure');
  }

  /** One command of BIRD's own client, such as `show protocols all`. */
  birdc(command: string): Promise<Result> {
    return run(['birdc', '-s', this.#file('bird.ctl'), ...command.split(' ')]);
  }

  /** Runs a program in the router's network namespace. */
  exec(argv: readonly string[], options?: RunOptions): Promise<Result> {
    return run(inNamespace(this.#namespace, argv), options);
  }

  /**
   * The next hops of the kernel's route to an address, in the order of their addresses; none when there is no route.
   */
  async routes(address: string): Promise<NextHop[]> {
    const text = await must(['ip', '-n', this.#namespace, '-json', 'route', 'show', `${address}/32`]);
    const routes = JSON.parse(text === '' ? '[]' : text) as {
      gateway?: string;
      nexthops?: { gateway?: string }[];
    }[];
    return routes
      .flatMap((route) => [route.gateway, ...(route.nexthops ?? []).map((hop) => hop.gateway)])
      .filter((gateway) => gateway !== undefined)
      .sort((one, other) => one.localeCompare(other, 'en', { numeric: true }))
      .map((gateway) => ({ address: gateway, host: this.#hostAt(gateway) }));
  }

  /** Names of the hosts to which the provider sends an address's packets now, sorted. */
  async announcers(address: string): Promise<string[]> {
    return (await this.routes(address)).map((hop) => hop.host ?? hop.address).sort();
  }

  /** Waits until exactly these hosts receive the address's packets; throws with those that do instead. */
  async waitForAnnouncers(address: string, hosts: readonly string[], timeoutMs = 15_000): Promise<void> {
    const wanted = [...hosts].sort().join(' ');
    let seen = '';
    await poll(
      () => `${address} to be routed to [${wanted}]; it is routed to [${seen}]`,
      async () => {
        seen = (await this.announcers(address)).join(' ');
        return seen === wanted ? true : undefined;
      },
      { timeoutMs, everyMs: 100 },
    );
  }

  /** State of each host's BGP session as BIRD words it: `Established`, `Passive`, `Active`, … */
  async sessions(): Promise<Record<string, string>> {
    const { stdout } = await this.birdc('show protocols');
    const states: Record<string, string> = {};
    for (const line of stdout.split('\n')) {
      const [name = '', kind, , , , ...info] = line.trim().split(/\s+/);
      if (kind === 'BGP') states[name.replace(/^host_/, '').replaceAll('_', '-')] = info.join(' ');
    }
    return states;
  }

  /** Every change of an address's route since the lab's start, oldest first: exact times for measurements. */
  history(address: string): readonly RouteChange[] {
    return this.#history.filter((change) => change.address === address);
  }

  #watch(): void {
    const monitor = spawnInside(
      this.#place.cgroup,
      ['ip', '-n', this.#namespace, '-o', '-tshort', 'monitor', 'route'],
      ['ignore', 'pipe', 'ignore'],
    );
    if (monitor.stdout === null) throw new Error('ip monitor has no output');
    createInterface(monitor.stdout).on('line', (line) => {
      const change = parseRouteChange(line, (gateway) => this.#hostAt(gateway) ?? gateway);
      if (change === undefined) return;
      this.#history.push(change);
      if (this.#history.length > historyLimit) this.#history.shift();
    });
  }

  #hostAt(address: string): string | undefined {
    for (const [name, of] of this.#hosts) if (of === address) return name;
    return undefined;
  }

  #file(name: string): string {
    return `${this.#place.directory}/router/${name}`;
  }

  #configuration(): string {
    const sessions = [...this.#hosts].map(
      ([name, address]) =>
        `protocol bgp host_${name.replaceAll('-', '_')} from host { neighbor ${address} as ${customerAs}; }`,
    );
    return `log stderr all;
router id ${providerAddress};
protocol device { scan time 10; }
# The next hops are reachable only through routes that BIRD knows.
protocol direct { ipv4; interface "public", "lo"; }
protocol kernel {
  merge paths yes limit 64;
  ipv4 { import none; export where source = RTS_BGP; };
}
${this.#bfd ? 'protocol bfd { multihop { interval 100 ms; multiplier 3; }; }' : ''}
filter floating { if net ~ [ 203.0.113.0/24{32,32} ] then accept; reject; }
template bgp host {
  local ${providerAddress} as ${providerAs};
  multihop 2;
  password "${bgpPassword}";
  passive;
  hold time 240;
  graceful restart off;
  # Its default refuses a customer that died silently for up to a minute, which would be all that a test of a return
  # sees.
  error wait time 1, 5;
  ${this.#bfd ? 'bfd yes;' : ''}
  ipv4 { import filter floating; export none; };
}
${sessions.join('\n')}
`;
  }
}

/**
 * Reads one line of `ip -o -tshort monitor route`, for example
 * `[2026-01-02T03:04:05.678901] Deleted 203.0.113.10 via 198.51.100.11 dev public proto bird metric 32`.
 */
export function parseRouteChange(line: string, nameOf: (gateway: string) => string): RouteChange | undefined {
  const match = /^\[(?<at>[\d:T.-]+)\]\s*(?<gone>Deleted )?(?<address>203\.0\.113\.\d+)\s(?<rest>.*)$/.exec(
    line,
  );
  if (match?.groups === undefined) return undefined;
  const { at = '', gone, address = '', rest = '' } = match.groups;
  const [seconds = '', fraction = '0'] = at.split('.');
  const gateways = gone === undefined ? [...rest.matchAll(/via (\S+)/g)].map((via) => via[1] ?? '') : [];
  return {
    address,
    hosts: gateways.map(nameOf).sort(),
    atMs: Date.parse(seconds) + Number(`0.${fraction}`) * 1000,
  };
}
