import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Call } from '../standin/floating/api.ts';
import type { ServeSettings } from '../standin/floating/serve.ts';
import { selfSigned } from '../support/self-signed.ts';
import { until } from '../support/until.ts';
import { providerAddress } from './addresses.ts';
import type { Host, Lab } from './index.ts';

const NAME = 'api.hetzner.cloud';
const TOKEN_FILE = '/etc/bornemisza/floating.token';
const CERT_FILE = '/etc/bornemisza/provider.pem';
/** From an order to the route. */
const LAG_MS = 300;
/** Of the lab's first floating IP, 203.0.113.10, at the stand-in. */
const FIRST_ID = 4010;
/** Longer than any test that uses it. */
const LONGEST_MS = 2_400_000;

interface Order {
  /** The host that made it; its address where it is none of the lab. */
  readonly host: string;
  /** Unix time. */
  readonly atMs: number;
}

/**
 * What moves the lab's floating IPs in place of BGP: a stand-in for Hetzner Cloud's API and metadata service, at
 * the router's own address, whose orders change the router's route. Server N is the lab's Nth host.
 */
export class ProviderApi {
  static readonly token = 'a-token-of-forty-characters-is-a-secret0';
  readonly #directory: string;
  readonly #lab: Lab;
  readonly #cert: string;
  readonly #over = new AbortController();

  private constructor(lab: Lab, directory: string, cert: string) {
    this.#lab = lab;
    this.#directory = directory;
    this.#cert = cert;
  }

  /** @param directory all files go there */
  static async start(lab: Lab, directory: string): Promise<ProviderApi> {
    await mkdir(directory, { recursive: true });
    const files = await selfSigned(directory, NAME, `DNS:${NAME}`);
    const [key, cert] = [await readFile(files.key, 'utf8'), await readFile(files.cert, 'utf8')];
    const api = new ProviderApi(lab, directory, cert);
    const settings: ServeSettings = {
      ...{ host: providerAddress, token: ProviderApi.token, key, cert, lagMs: LAG_MS },
      ...{ addresses: lab.floatingAddresses, device: 'public', calls: api.#calls },
      servers: Object.fromEntries(lab.hosts.map((host, at) => [String(at + 1), host.publicAddress])),
    };
    const file = join(directory, 'settings.json');
    await writeFile(file, JSON.stringify(settings));
    await writeFile(api.#calls, '');
    const program = join(import.meta.dirname, '../standin/floating/serve.ts');
    const running = lab.router.exec([process.execPath, program, file], {
      timeoutMs: LONGEST_MS,
      signal: api.#over.signal,
    });
    running.catch(() => undefined);
    await until(() => api.#show(), { what: 'the provider’s API' });
    return api;
  }

  /** Has an app node move the addresses by this API; its daemon takes it at its next start. */
  async use(host: Host): Promise<void> {
    await host.must(['sh', '-c', `echo '${providerAddress} ${NAME}' >>/etc/hosts`]);
    const secret = { mode: 0o640, group: 'bornemisza' };
    await host.writeFile(TOKEN_FILE, { content: ProviderApi.token, ...secret });
    await host.writeFile(CERT_FILE, { content: this.#cert, ...secret });
    await host.writeFile(
      '/etc/systemd/system/bornemisza@app.service.d/provider.conf',
      `[Service]\nEnvironment=NODE_EXTRA_CA_CERTS=${CERT_FILE}\n`,
    );
    await host.must(['systemctl', 'daemon-reload']);
    const file = '/etc/bornemisza/app.toml';
    const section =
      `[floating]\nmode = "api"\nprovider = "hetzner"\naddresses = ${JSON.stringify(this.#lab.floatingAddresses)}\n` +
      `token_file = "${TOKEN_FILE}"\n`;
    const text = (await host.readFile(file)).replace(/^\[floating\]\n(?:(?!\[)[^\n]*\n)*/m, '');
    await host.must(['sh', '-c', `cat >${file}`], { stdin: `${text}\n${section}` });
  }

  /** Since a time, in order. */
  async orders(sinceMs = 0): Promise<Order[]> {
    const lines = (await readFile(this.#calls, 'utf8')).split('\n').filter((line) => line !== '');
    return lines
      .map((line) => JSON.parse(line) as Call)
      .filter(({ what, atMs }) => what.startsWith('POST') && atMs >= sinceMs)
      .map(({ from, atMs }) => ({ host: this.#nameAt(from), atMs }));
  }

  /** The first address, as from the provider’s page. */
  async assign(server: number): Promise<void> {
    await this.#curl(['-d', JSON.stringify({ server })], `/${FIRST_ID}/actions/assign`);
  }

  close(): void {
    this.#over.abort();
  }

  get #calls(): string {
    return join(this.#directory, 'calls');
  }

  #nameAt(address: string): string {
    return this.#lab.hosts.find(({ publicAddress }) => publicAddress === address)?.name ?? address;
  }

  async #show(): Promise<true> {
    await this.#curl([], '');
    return true;
  }

  async #curl(args: readonly string[], path: string): Promise<void> {
    const { code, stderr } = await this.#lab.router.exec([
      ...['curl', '-sS', '--fail', '--max-time', '5', '--cacert', join(this.#directory, 'cert.pem')],
      ...['--resolve', `${NAME}:443:${providerAddress}`, '-H', `authorization: Bearer ${ProviderApi.token}`],
      ...[...args, `https://${NAME}/v1/floating_ips${path}`],
    ]);
    if (code !== 0) throw new Error(`the provider’s API: ${stderr}`);
  }
}
