import {
  clientAddress,
  clientGatewayAddress,
  gatewayAddress,
  hardwareAddress,
  privateAddress,
  providerAddress,
  publicAddress,
} from './addresses.ts';
import { DelayLine } from './delay.ts';
import { inNamespace, ip, namespaceOf, type LabPlace } from './namespace.ts';
import { must } from './process.ts';

export type Network = 'private' | 'public';
/** As the host sees it: `in` are frames to the host, `out` frames from it. */
export type Direction = 'in' | 'out' | 'both';

/** What is wrong with one port of the fabric, that is, with one device of one host. */
export type PortFaults = {
  cut: Direction | undefined;
  /** Other port → which frames between the two are lost. */
  readonly cutFrom: Map<string, Direction>;
  /** 0 to 100, each way. */
  dropPercent: number;
  unplugged: boolean;
  delay: DelayLine | undefined;
};

const letter: Record<Network, string> = { private: 'p', public: 'w' };
const device: Record<Network, string> = { private: 'eth1', public: 'eth0' };
export const networks: readonly Network[] = ['private', 'public'];
/** The port of the fabric behind which a host's device is. */
export const portOf = (network: Network, index: number): string => `${letter[network]}${index}`;
const indexOf = (port: string): number => Number(port.slice(1));
export const routerPort = 'router';

/**
 * Every wire of a lab: one namespace with a bridge per network, whose ports are the other ends of the hosts' devices.
 * Faults are made here, out of the hosts' reach: a host that flushes its firewall or reboots heals nothing.
 */
export class Fabric {
  readonly #place: LabPlace;
  readonly #namespace: string;
  readonly #ports = new Map<string, PortFaults>();
  readonly #made = new Set<string>();
  readonly #connected = new Set<number>();
  #applying: Promise<void> = Promise.resolve();

  constructor(place: LabPlace) {
    this.#place = place;
    this.#namespace = namespaceOf(place, 'fabric');
  }

  /** Makes the bridges, the router and the client host with `clients` source addresses. */
  async create(clients: number): Promise<void> {
    const router = namespaceOf(this.#place, 'router');
    const client = namespaceOf(this.#place, 'client');
    await ip(
      undefined,
      [this.#namespace, router, client].map((name) => `netns add ${name}`),
    );
    await ip(this.#namespace, [
      'link set lo up',
      ...networks.map(
        (network) => `link add ${network} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      ),
      ...networks.map((network) => `link set ${network} up`),
      `link add ${routerPort} type veth peer name public netns ${router}`,
      `link set ${routerPort} master public up`,
    ]);
    await ip(router, [
      'link set lo up',
      `addr add ${providerAddress}/32 dev lo`,
      `addr add ${gatewayAddress}/24 dev public`,
      'link set public up',
      `link add clients type veth peer name eth0 netns ${client}`,
      `addr add ${clientGatewayAddress}/24 dev clients`,
      'link set clients up',
    ]);
    // Layer-4 hashing spreads one client's connections over all edges, as providers do.
    await must(
      inNamespace(router, [
        'sh',
        '-c',
        'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy',
      ]),
    );
    await ip(client, [
      'link set lo up',
      ...Array.from({ length: clients }, (_, index) => `addr add ${clientAddress(index)}/24 dev eth0`),
      'link set eth0 up',
      `route add default via ${clientGatewayAddress}`,
    ]);
  }

  /**
   * Makes a host's namespace with eth0 (public) and eth1 (private); the ports' standing faults apply at once. An
   * earlier one goes with all that a machine forgets: addresses, routes, rules, connections.
   */
  async attach(name: string, index: number): Promise<void> {
    const host = namespaceOf(this.#place, name);
    // The ports first, as a namespace goes in its own time and the names must be free.
    await this.disconnect(index);
    if (this.#made.has(host)) await ip(undefined, [`netns delete ${host}`]);
    await ip(undefined, [`netns add ${host}`]);
    this.#made.add(host);
    this.#connected.add(index);
    await ip(
      this.#namespace,
      networks.flatMap((network) => {
        const port = portOf(network, index);
        const faults = this.#ports.get(port);
        const peer = `peer name ${device[network]} address ${hardwareAddress(network, index)} netns ${host}`;
        const master = faults?.delay?.innerBridge ?? network;
        return [
          `link add ${port} type veth ${peer}`,
          `link set ${port} master ${master} ${faults?.unplugged === true ? 'down' : 'up'}`,
        ];
      }),
    );
    await ip(host, [
      'link set lo up',
      `addr add ${privateAddress(index)}/24 dev eth1`,
      `addr add ${publicAddress(index)}/24 dev eth0`,
      'link set eth1 up',
      'link set eth0 up',
      `route add default via ${gatewayAddress}`,
    ]);
  }

  /** Takes a host's cables away, at once and for good; what its kernel still says is lost. */
  async disconnect(index: number): Promise<void> {
    if (!this.#connected.delete(index)) return;
    await ip(
      this.#namespace,
      networks.map((network) => `link delete ${portOf(network, index)}`),
    );
  }

  /** Frames vanish without a sign: the device keeps its carrier. With `peer`, only those exchanged with that port. */
  async cut(port: string, direction: Direction, peer?: string): Promise<void> {
    const faults = this.#faults(port);
    if (peer === undefined) faults.cut = direction;
    else faults.cutFrom.set(peer, direction);
    await this.#apply();
  }

  /** @param percent of frames lost, each way, 0 to 100; 0 ends the loss */
  async drop(port: string, percent: number): Promise<void> {
    if (!(percent >= 0 && percent <= 100)) throw new RangeError(`${percent} is no percentage`);
    this.#faults(port).dropPercent = percent;
    await this.#apply();
  }

  /** Each frame arrives this much later, and by up to `jitterMs` more, each way; 0 ends it. */
  async delay(network: Network, port: string, delayMs: number, jitterMs = 0): Promise<void> {
    const faults = this.#faults(port);
    const before = faults.delay;
    if (before !== undefined) {
      faults.delay = undefined;
      await this.#setPort(port, `master ${network}`);
      await before.close();
    }
    if (delayMs > 0) {
      const line = new DelayLine(this.#place, this.#namespace, { network, port, delayMs, jitterMs });
      await line.open();
      faults.delay = line;
      await this.#setPort(port, `master ${line.innerBridge}`);
    }
  }

  /** The far end of the device's cable: out means no carrier. */
  async plug(port: string, plugged: boolean): Promise<void> {
    this.#faults(port).unplugged = !plugged;
    await this.#setPort(port, plugged ? 'up' : 'down');
  }

  /** Ends every fault of a port, also those that another port's cut from it made. */
  async heal(network: Network, port: string): Promise<void> {
    const faults = this.#faults(port);
    for (const other of this.#ports.values()) other.cutFrom.delete(port);
    // One step at a time, so that what fails is tried again by the next heal.
    if (faults.delay !== undefined) await this.delay(network, port, 0);
    if (faults.unplugged) await this.plug(port, true);
    this.#ports.delete(port);
    await this.#apply();
  }

  /** A host that is switched off has no port; `attach` gives the next one what stands in its faults. */
  async #setPort(port: string, setting: string): Promise<void> {
    if (this.#connected.has(indexOf(port))) await ip(this.#namespace, [`link set ${port} ${setting}`]);
  }

  #faults(port: string): PortFaults {
    let faults = this.#ports.get(port);
    if (faults === undefined) {
      faults = { cut: undefined, cutFrom: new Map(), dropPercent: 0, unplugged: false, delay: undefined };
      this.#ports.set(port, faults);
    }
    return faults;
  }

  /** One atomic replacement of the whole rule set; one at a time, each from the state at its own start. */
  async #apply(): Promise<void> {
    const next = this.#applying.then(async () => {
      await must(inNamespace(this.#namespace, ['nft', '-f', '-']), { stdin: faultRules(this.#ports) });
    });
    this.#applying = next.catch(() => {});
    await next;
  }
}

/** The nftables file that makes these faults, and no others, true. */
export function faultRules(ports: ReadonlyMap<string, PortFaults>): string {
  const rules: string[] = [];
  for (const [port, faults] of ports) {
    if (faults.cut === 'out' || faults.cut === 'both') rules.push(`iifname "${port}" drop`);
    if (faults.cut === 'in' || faults.cut === 'both') rules.push(`oifname "${port}" drop`);
    for (const [peer, direction] of faults.cutFrom) {
      const [here, there] = [portNames(port), portNames(peer)];
      if (direction !== 'in') rules.push(`iifname ${here} oifname ${there} drop`);
      if (direction !== 'out') rules.push(`iifname ${there} oifname ${here} drop`);
    }
    if (faults.dropPercent > 0) {
      const lost = `numgen random mod 1000 < ${Math.round(faults.dropPercent * 10)} drop`;
      rules.push(`iifname "${port}" ${lost}`, `oifname "${port}" ${lost}`);
    }
  }
  return [
    'table bridge faults {}',
    'delete table bridge faults',
    'table bridge faults {',
    '  chain forward {',
    '    type filter hook forward priority 0; policy accept;',
    ...rules.map((rule) => `    ${rule}`),
    '  }',
    '}',
    '',
  ].join('\n');
}

/** A port and the name it has on the network's bridge while a delay line stands between. */
const portNames = (port: string): string => `{ "${port}", "${DelayLine.outerPort(port)}" }`;
