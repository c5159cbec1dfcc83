import { Api, type ApiOptions, type Dialect, field, metadata, noIdentity, unknownAddress } from './http.ts';
import { type Assignment, type FloatingProvider, notAnswering } from './provider.ts';

const DIALECT: Dialect = {
  label: 'Hetzner Cloud',
  baseUrl: 'https://api.hetzner.cloud',
  scope: 'the right to read and write in the project',
  meaning: (_status, said) => (/locked|conflict/i.test(said) ? 'busy' : undefined),
};
const METADATA = 'http://169.254.169.254/hetzner/v1/metadata';
/** A thousand addresses. */
const MOST_PAGES = 20;

/** Floating IPs: traffic arrives with the assigned address, so the public device has it. */
export class Hetzner implements FloatingProvider {
  readonly label = DIALECT.label;
  readonly #api: Api;
  readonly #metadata: string;
  #self: string | undefined;
  /** The provider's numbers of the addresses. */
  readonly #numbers = new Map<string, number>();

  constructor(options: ApiOptions, serverId: string | undefined) {
    this.#api = new Api(DIALECT, options);
    this.#metadata = options.metadataUrl ?? METADATA;
    this.#self = serverId;
  }

  callsFor(): number {
    return 1;
  }

  async self(signal: AbortSignal): Promise<string> {
    this.#self ??= await metadata(`${this.#metadata}/instance-id`, /^\d{1,20}$/, signal);
    if (this.#self === undefined) throw noIdentity(this.label, `${this.#metadata}/instance-id`);
    return this.#self;
  }

  async look(
    addresses: readonly string[],
    _self: string,
    signal: AbortSignal,
  ): Promise<Map<string, Assignment>> {
    const seen = new Map<string, Assignment>();
    for (let page = 1; page <= MOST_PAGES; page += 1) {
      const path = `/v1/floating_ips?per_page=50&page=${page}`;
      const body = await this.#api.call('GET', path, undefined, signal);
      const all = field(body, 'floating_ips');
      if (!Array.isArray(all)) throw notAnswering(this.label, 'its answer has another form');
      for (const each of all as readonly unknown[]) this.#take(each, addresses, seen);
      const last = field(body, 'meta', 'pagination', 'last_page');
      if (addresses.every((each) => seen.has(each)) || page >= (typeof last === 'number' ? last : 1)) break;
    }
    const missing = addresses.find((each) => !seen.has(each));
    if (missing !== undefined) throw unknownAddress(this.label, missing);
    return seen;
  }

  async assign(address: string, self: string, signal: AbortSignal): Promise<void> {
    const number = this.#numbers.get(address);
    if (number === undefined) throw unknownAddress(this.label, address);
    const path = `/v1/floating_ips/${number}/actions/assign`;
    const body = await this.#api.call('POST', path, { server: Number(self) }, signal);
    if (body === undefined) throw unknownAddress(this.label, address);
  }

  #take(one: unknown, addresses: readonly string[], seen: Map<string, Assignment>): void {
    const [ip, id, server] = [field(one, 'ip'), field(one, 'id'), field(one, 'server')];
    if (typeof ip !== 'string' || !addresses.includes(ip)) return;
    if (typeof id !== 'number' || (server !== null && typeof server !== 'number'))
      throw notAnswering(this.label, 'its answer has another form');
    this.#numbers.set(ip, id);
    seen.set(ip, { to: server === null ? undefined : String(server), busy: field(one, 'blocked') === true });
  }
}
