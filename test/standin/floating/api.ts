import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';

/**
 * The part of three providers' APIs that assigns floating IPs, after their public documents: DigitalOcean (`/v2`),
 * Hetzner Cloud (`/v1`), UpCloud (`/1.3`). The real ones were not reached.
 */
export type Fault =
  | { readonly status: number; readonly said?: string; readonly retryAfter?: number }
  /** Half of the body. */
  | 'cut'
  /** Nothing, ever. */
  | 'silent'
  /** The order is done, and its answer never comes. */
  | 'done-but-silent'
  /** The order is said to be done, and its traffic stays where it was. */
  | 'done-but-unmoved'
  | 'html'
  | 'redirect'
  | 'endless';

export interface Call {
  /** `METHOD PATH BODY`. */
  readonly what: string;
  /** The caller’s address. */
  readonly from: string;
  /** Unix time. */
  readonly atMs: number;
}

export interface StandInOptions {
  readonly token: string;
  /** Floating IPs and the server that each is assigned to. */
  readonly assigned: Readonly<Record<string, string | undefined>>;
  /** From an order to its effect. */
  readonly lagMs?: number;
  readonly region?: string;
  readonly tls?: { readonly key: string; readonly cert: string };
  /** The traffic of an address goes to this server from now on. */
  readonly moved?: (address: string, server: string) => void;
  /** Runs before a call of the API is answered. */
  readonly called?: (call: Call) => void;
}

interface Place {
  to: string | undefined;
  /** Under way to this server. */
  next: string | undefined;
}

export class FloatingStandIn {
  /** Of the API, in order. */
  readonly calls: Call[] = [];
  /** One a call of the API, in order. */
  readonly faults: Fault[] = [];
  /** The same of calls that write. */
  readonly writeFaults: Fault[] = [];
  /** Of the servers that the metadata service names, by the address that asks. */
  readonly servers = new Map<string, string>();
  /** The token may not read droplets. */
  blind = false;
  readonly #options: StandInOptions;
  readonly #places: Map<string, Place>;
  readonly #server: Server;

  constructor(options: StandInOptions) {
    this.#options = options;
    this.#places = new Map(
      Object.entries(options.assigned).map(([address, to]) => [address, { to, next: undefined }]),
    );
    const answer = (request: IncomingMessage, response: ServerResponse): void =>
      void this.#answer(request, response);
    this.#server = options.tls === undefined ? createServer(answer) : createTlsServer(options.tls, answer);
  }

  /** Returns its base URL. */
  async listen(port = 0, host = '127.0.0.1'): Promise<string> {
    await new Promise<void>((resolve) => void this.#server.listen(port, host, resolve));
    const scheme = this.#options.tls === undefined ? 'http' : 'https';
    return `${scheme}://${host}:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  owner(address: string): string | undefined {
    return this.#places.get(address)?.to;
  }

  /** As from the provider's page. */
  put(address: string, to: string | undefined): void {
    this.#places.set(address, { to, next: undefined });
  }

  get orders(): string[] {
    return this.calls.map(({ what }) => what).filter((what) => !what.startsWith('GET'));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url ?? '/', 'http://standin');
    let text = '';
    for await (const part of request) text += String(part);
    const from = request.socket.remoteAddress ?? '';
    if (pathname.includes('/metadata/')) return this.#metadata(pathname, from, response);
    const call = { what: `${request.method} ${pathname} ${text}`.trim(), from, atMs: Date.now() };
    this.calls.push(call);
    this.#options.called?.(call);
    const writes = request.method !== 'GET';
    const fault = this.faults.shift() ?? (writes ? this.writeFaults.shift() : undefined);
    if (fault === 'silent') return;
    if (fault === 'html') return void response.writeHead(502).end('<html>502 Bad Gateway</html>');
    if (fault === 'redirect') return void response.writeHead(302, { location: '/elsewhere' }).end('{}');
    if (fault === 'endless') return flood(response);
    if (typeof fault === 'object') return refuse(response, fault.status, fault.said, fault.retryAfter);
    if (request.headers.authorization !== `Bearer ${this.#options.token}`)
      return refuse(response, 401, `Unable to authenticate you with ${request.headers.authorization}`);
    const got = dialectOf(pathname)?.(this, pathname, writes ? (JSON.parse(text) as object) : undefined);
    if (got === undefined) return refuse(response, 404, 'not found');
    const [status, body, order] = got;
    if (order !== undefined) this.#order(order, fault === 'done-but-unmoved');
    if (fault === 'done-but-silent') return;
    const whole = JSON.stringify(body);
    response.writeHead(status, { 'content-type': 'application/json', 'content-length': whole.length });
    if (fault === 'cut') response.write(whole.slice(0, whole.length / 2), () => response.destroy());
    else response.end(whole);
  }

  #metadata(pathname: string, from: string, response: ServerResponse): void {
    const server = this.servers.get(from);
    if (server === undefined) return void response.writeHead(404).end();
    if (!pathname.endsWith('/active')) return void response.end(`${server}\n`);
    response.end(String([...this.#places.values()].some(({ to }) => to === server)));
  }

  #order({ address, to }: { readonly address: string; readonly to: string }, unmoved: boolean): void {
    const place = this.#places.get(address);
    if (place === undefined) return;
    place.next = to;
    const done = (): void => {
      if (place.next !== to) return;
      this.#places.set(address, { to, next: undefined });
      if (!unmoved) this.#options.moved?.(address, to);
    };
    const { lagMs = 0 } = this.#options;
    if (lagMs === 0) done();
    else setTimeout(done, lagMs).unref();
  }

  place(address: string): Place | undefined {
    return this.#places.get(address);
  }

  get region(): string {
    return this.#options.region ?? 'fra1';
  }

  get addresses(): string[] {
    return [...this.#places.keys()];
  }
}

type Order = { readonly address: string; readonly to: string };
type Answer = readonly [status: number, body: object, order?: Order] | undefined;
type Dialect = (of: FloatingStandIn, path: string, body: object | undefined) => Answer;

const dialectOf = (path: string): Dialect | undefined =>
  path.startsWith('/v2/')
    ? digitalOcean
    : path.startsWith('/v1/')
      ? hetzner
      : path.startsWith('/1.3/')
        ? upcloud
        : undefined;

function digitalOcean(of: FloatingStandIn, path: string, body: object | undefined): Answer {
  const droplet = /^\/v2\/droplets\/(\d+)$/.exec(path)?.[1];
  if (droplet !== undefined)
    return of.blind
      ? [403, { id: 'forbidden', message: 'You are missing the required permission droplet:read.' }]
      : [200, { droplet: { id: Number(droplet), region: { slug: 'fra1' } } }];
  const [, address = '', actions] = /^\/v2\/reserved_ips\/([\d.]+)(\/actions)?$/.exec(path) ?? [];
  const place = of.place(address);
  if (place === undefined) return undefined;
  if (actions === undefined) {
    const { to } = place;
    const shown = to === undefined || of.blind ? null : { id: Number(to), name: 'x' };
    const region = { slug: of.region };
    return [200, { reserved_ip: { ip: address, droplet: shown, region, locked: place.next !== undefined } }];
  }
  if (place.next !== undefined)
    return [422, { id: 'unprocessable_entity', message: 'The reserved IP already has a pending event.' }];
  const { type, droplet_id: id } = body as { type: string; droplet_id: number };
  if (type !== 'assign') return [422, { message: `no such action ${type}` }];
  return [201, { action: { id: 1, status: 'in-progress', type } }, { address, to: String(id) }];
}

function hetzner(of: FloatingStandIn, path: string, body: object | undefined): Answer {
  const number = (address: string): number => 4000 + Number(address.split('.')[3]);
  if (path === '/v1/floating_ips') {
    const rows = of.addresses.map((ip) => {
      const { to } = of.place(ip) ?? {};
      return {
        id: number(ip),
        ip,
        type: 'ipv4',
        server: to === undefined ? null : Number(to),
        blocked: false,
      };
    });
    return [200, { floating_ips: rows, meta: { pagination: { page: 1, last_page: 1 } } }];
  }
  const id = /^\/v1\/floating_ips\/(\d+)\/actions\/assign$/.exec(path)?.[1];
  const address = of.addresses.find((each) => String(number(each)) === id);
  if (address === undefined) return undefined;
  if (of.place(address)?.next !== undefined)
    return [423, { error: { code: 'locked', message: 'floating ip is locked' } }];
  const { server } = body as { server: number };
  return [201, { action: { id: 1, status: 'running' } }, { address, to: String(server) }];
}

function upcloud(of: FloatingStandIn, path: string, body: object | undefined): Answer {
  const address = /^\/1\.3\/ip_address\/([\d.]+)$/.exec(path)?.[1] ?? '';
  const place = of.place(address);
  if (place === undefined) return undefined;
  const { to } = place;
  const ip_address = {
    ...{ access: 'public', address, family: 'IPv4', floating: 'yes', zone: 'fi-hel1' },
    ...(to === undefined ? { server: '', mac: '' } : { server: '00-uuid', mac: to }),
  };
  if (body === undefined) return [200, { ip_address }];
  const { mac } = (body as { ip_address: { mac: string } }).ip_address;
  return [202, { ip_address }, { address, to: mac }];
}

function refuse(response: ServerResponse, status: number, said = 'refused', retryAfter?: number): void {
  const headers = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) };
  response
    .writeHead(status, headers)
    .end(JSON.stringify({ id: 'x', message: said, error: { message: said } }));
}

/** Two megabytes, where some kilobytes are expected. */
function flood(response: ServerResponse): void {
  response.writeHead(200);
  const part = 'x'.repeat(64 * 1024);
  for (let count = 0; count < 32; count += 1) response.write(part);
  response.end();
}
