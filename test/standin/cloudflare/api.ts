import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * The part of Cloudflare's API v4 that keeps the records of one zone, after its documentation and public threads. The
 * real one was not reached: what is known of its answers is what cloudflare.test.ts goes through, one by one.
 */
export interface StoredRow {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly content: string;
  readonly ttl: number;
  readonly proxied: boolean;
  readonly comment: string | null;
  readonly data?: object;
}

interface Posted {
  readonly name: string;
  readonly type: string;
  readonly content?: string;
  readonly ttl: number;
  readonly proxied?: boolean;
  readonly comment?: string;
  readonly data?: {
    readonly priority: number;
    readonly weight: number;
    readonly port: number;
    readonly target: string;
  };
}

/** What a call gets in place of its answer. `cut`: half of the body. `silent`: nothing, ever. */
export type Fault =
  | { readonly status: number; readonly code: number; readonly retryAfter?: number }
  | 'html'
  | 'cut'
  | 'silent';

export class CloudflareStandIn {
  rows: StoredRow[];
  /** `METHOD PATH`, in order. */
  readonly calls: string[] = [];
  /** One a call, in order. */
  readonly faults: Fault[] = [];
  /** The same of calls that write. */
  readonly writeFaults: Fault[] = [];
  /** A token may read and not write. */
  readOnly = false;
  /** Called after each change, with what a resolver gets from now on. */
  changed: ((rows: readonly StoredRow[]) => void) | undefined;
  readonly #zoneId: string;
  readonly #token: string;
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  #lastId = 0;

  constructor(zoneId: string, token: string, rows: readonly StoredRow[]) {
    this.#zoneId = zoneId;
    this.#token = token;
    this.rows = [...rows];
  }

  /** Returns its base URL. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => void this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/client/v4`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://standin');
    let text = '';
    for await (const part of request) text += String(part);
    this.calls.push(`${request.method} ${url.pathname.split('/').slice(5).join('/')}${url.search}`);
    const fault = this.faults.shift() ?? (request.method === 'POST' ? this.writeFaults.shift() : undefined);
    if (fault === 'silent') return;
    if (fault === 'html') return void response.writeHead(502).end('<html>502 Bad Gateway</html>');
    if (typeof fault === 'object') return refuse(response, fault.status, fault.code, fault.retryAfter);
    const refusal = this.#refusal(request, url);
    if (refusal !== undefined) return refuse(response, ...refusal);
    const body = request.method === 'GET' ? this.#page(url) : this.#batch(JSON.parse(text) as object);
    if (Array.isArray(body)) return refuse(response, ...(body as [number, number]));
    const whole = JSON.stringify({ success: true, errors: [], messages: [], ...body });
    if (fault !== 'cut') return void response.end(whole);
    response.writeHead(200, { 'content-length': whole.length });
    response.write(whole.slice(0, whole.length / 2), () => response.destroy());
  }

  #refusal({ method, headers }: IncomingMessage, url: URL): [status: number, code: number] | undefined {
    if (headers.authorization !== `Bearer ${this.#token}`) return [403, 10000];
    if (!url.pathname.includes(`/zones/${this.#zoneId}/`)) return [404, 7003];
    return this.readOnly && method === 'POST' ? [403, 10000] : undefined;
  }

  #page({ searchParams }: URL): object {
    const [size, page] = [Number(searchParams.get('per_page')), Number(searchParams.get('page'))];
    const result_info = { page, per_page: size, total_pages: Math.ceil(this.rows.length / size) };
    return { result: this.rows.slice((page - 1) * size, page * size), result_info };
  }

  /** Deletes first, then patches, then posts; all or nothing. */
  #batch(body: {
    readonly posts?: readonly Posted[];
    readonly patches?: readonly ({ readonly id: string } & Partial<StoredRow>)[];
    readonly deletes?: readonly { readonly id: string }[];
  }): object | [number, number] {
    let rows = this.rows;
    for (const { id } of body.deletes ?? []) {
      if (!rows.some((each) => each.id === id)) return [404, 81044];
      rows = rows.filter((each) => each.id !== id);
    }
    for (const patch of body.patches ?? []) {
      if (!rows.some((each) => each.id === patch.id)) return [404, 81044];
      rows = rows.map((each) => (each.id === patch.id ? { ...each, ...patch } : each));
    }
    for (const posted of body.posts ?? []) {
      const row = this.#rowOf(posted);
      const same = rows.filter(({ name }) => name === row.name);
      if (same.some(({ type, content }) => type === row.type && content === row.content)) return [400, 81058];
      if (same.some(({ type }) => (type === 'CNAME') !== (row.type === 'CNAME'))) return [400, 81053];
      rows = [...rows, row];
    }
    this.rows = rows;
    this.changed?.(rows);
    return { result: { posts: body.posts ?? [], deletes: body.deletes ?? [] } };
  }

  #rowOf({ name, type, content, ttl, proxied = false, comment = '', data }: Posted): StoredRow {
    this.#lastId += 1;
    const id = this.#lastId.toString(16).padStart(32, '0');
    const srv = data === undefined ? '' : `${data.weight} ${data.port} ${data.target}`;
    return {
      ...{ id, name, type, content: content ?? srv, ttl, proxied, comment },
      ...(data !== undefined && { data }),
    };
  }
}

function refuse(response: ServerResponse, status: number, code: number, retryAfter?: number): void {
  const headers = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) };
  const errors = [{ code, message: `refused for ${code}` }];
  response
    .writeHead(status, headers)
    .end(JSON.stringify({ success: false, errors, messages: [], result: null }));
}
