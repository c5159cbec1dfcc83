import { networkInterfaces } from 'node:os';
import { Api, type ApiOptions, type Dialect, field, noIdentity, unknownAddress } from './http.ts';
import { type Assignment, type FloatingProvider, notAnswering } from './provider.ts';

const DIALECT: Dialect = {
  label: 'UpCloud',
  baseUrl: 'https://api.upcloud.com',
  scope: 'the right to change IP addresses',
  meaning: (_status, said) => (/zone/i.test(said) ? 'elsewhere' : undefined),
};
const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/;

/** Floating IPs are assigned to a network interface by its MAC, which is therefore this server's ID here. */
export class UpCloud implements FloatingProvider {
  readonly label = DIALECT.label;
  readonly #api: Api;
  readonly #device: string;
  readonly #serverId: string | undefined;

  /** @param device the public one */
  constructor(options: ApiOptions, serverId: string | undefined, device: string) {
    this.#api = new Api(DIALECT, options);
    this.#device = device;
    this.#serverId = serverId;
  }

  callsFor(addresses: readonly string[]): number {
    return addresses.length;
  }

  async self(): Promise<string> {
    const mac = (this.#serverId ?? networkInterfaces()[this.#device]?.[0]?.mac ?? '').toLowerCase();
    if (!MAC.test(mac)) throw noIdentity(this.label, `the device ${this.#device}`);
    return mac;
  }

  async look(
    addresses: readonly string[],
    _self: string,
    signal: AbortSignal,
  ): Promise<Map<string, Assignment>> {
    const seen = new Map<string, Assignment>();
    for (const address of addresses) {
      const body = await this.#api.call('GET', `/1.3/ip_address/${address}`, undefined, signal);
      if (body === undefined) throw unknownAddress(this.label, address);
      const found = field(body, 'ip_address');
      const [mac, server] = [field(found, 'mac'), field(found, 'server')];
      const to = typeof mac === 'string' ? mac.toLowerCase() : '';
      // Assigned to an unknown target: neither ours nor unassigned.
      const unreadable = to === '' ? typeof server === 'string' && server !== '' : !MAC.test(to);
      if (field(found, 'address') !== address || unreadable)
        throw notAnswering(this.label, 'its answer has another form');
      seen.set(address, { to: to === '' ? undefined : to, busy: false });
    }
    return seen;
  }

  async assign(address: string, self: string, signal: AbortSignal): Promise<void> {
    const order = { ip_address: { mac: self } };
    const body = await this.#api.call('PATCH', `/1.3/ip_address/${address}`, order, signal);
    if (body === undefined) throw unknownAddress(this.label, address);
  }
}
