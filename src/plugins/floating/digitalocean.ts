import { Api, type ApiOptions, type Dialect, field, metadata, noIdentity, unknownAddress } from './http.ts';
import { type Assignment, type FloatingProvider, notAnswering, ProviderFault } from './provider.ts';

const SCOPE = 'reserved_ip:read, reserved_ip:update and droplet:read';
const DIALECT: Dialect = {
  label: 'DigitalOcean',
  baseUrl: 'https://api.digitalocean.com',
  scope: SCOPE,
  // "Droplet already has a pending event", and the same of the address.
  meaning: (status, said) => {
    if (status !== 422) return undefined;
    if (/pending event/i.test(said)) return 'busy';
    return /region/i.test(said) ? 'elsewhere' : undefined;
  },
};
const METADATA = 'http://169.254.169.254/metadata/v1';

/** Reserved IPs: traffic arrives at the droplet's anchor address, so no device has the address. */
export class DigitalOcean implements FloatingProvider {
  readonly label = DIALECT.label;
  readonly #api: Api;
  readonly #metadata: string;
  #self: string | undefined;
  /** Region of this droplet. Read once: it proves that the token may read droplets. */
  #region: string | undefined;

  constructor(options: ApiOptions, serverId: string | undefined) {
    this.#api = new Api(DIALECT, options);
    this.#metadata = options.metadataUrl ?? METADATA;
    this.#self = serverId;
  }

  callsFor(addresses: readonly string[]): number {
    return addresses.length;
  }

  async self(signal: AbortSignal): Promise<string> {
    this.#self ??= await metadata(`${this.#metadata}/id`, /^\d{1,20}$/, signal);
    if (this.#self === undefined) throw noIdentity(this.label, `${this.#metadata}/id`);
    return this.#self;
  }

  async look(
    addresses: readonly string[],
    self: string,
    signal: AbortSignal,
  ): Promise<Map<string, Assignment>> {
    // Without droplet:read an assigned address can look unassigned.
    this.#region ??= await this.#regionOf(self, signal);
    const seen = new Map<string, Assignment>();
    for (const address of addresses) {
      const body = await this.#api.call('GET', `/v2/reserved_ips/${address}`, undefined, signal);
      if (body === undefined) throw unknownAddress(this.label, address);
      const found = field(body, 'reserved_ip');
      const droplet = field(found, 'droplet');
      const id = field(droplet, 'id');
      if (field(found, 'ip') !== address || (droplet !== null && typeof id !== 'number'))
        throw notAnswering(this.label, 'its answer has another form');
      const region = field(found, 'region', 'slug');
      seen.set(address, {
        to: droplet === null ? undefined : String(id),
        busy: field(found, 'locked') === true,
        ...(typeof region === 'string' && region !== this.#region && { elsewhere: region.slice(0, 20) }),
      });
    }
    return seen;
  }

  async assign(address: string, self: string, signal: AbortSignal): Promise<void> {
    const order = { type: 'assign', droplet_id: Number(self) };
    const body = await this.#api.call('POST', `/v2/reserved_ips/${address}/actions`, order, signal);
    if (body === undefined) throw unknownAddress(this.label, address);
  }

  async active(signal: AbortSignal): Promise<boolean | undefined> {
    const said = await metadata(`${this.#metadata}/reserved_ip/ipv4/active`, /^(true|false)$/, signal);
    return said === undefined ? undefined : said === 'true';
  }

  async #regionOf(self: string, signal: AbortSignal): Promise<string> {
    const body = await this.#api.call('GET', `/v2/droplets/${self}`, undefined, signal);
    const region = field(body, 'droplet', 'region', 'slug');
    if (typeof region === 'string') return region;
    if (body !== undefined) throw notAnswering(this.label, 'its answer about this droplet has another form');
    throw new ProviderFault({
      code: 'floating-scope',
      message:
        `the token lacks ${SCOPE}: ${this.label} does not show droplet ${self}; ` +
        'the floating IP stays where it is',
      next: 'create a token with these scopes for the account of this droplet',
    });
  }
}
